-- What requests were, for those who look into single ones: a file of its own beside the ledger, which is kept for as long
-- as it says and may be deleted at any time. `body` is the receipt as MessagePack; the columns are what it is found by.
create table outcomes (
    seq integer primary key,
    request_id text not null unique,
    at_micros integer not null,
    why text not null,
    endpoint text not null,
    model text not null,
    org text not null,
    team text not null,
    key_id text not null,
    feature text not null,
    session text not null,
    priority text not null,
    deployment text not null,
    replica text not null,
    status integer not null,
    error text,
    finish_reason text,
    arm text not null,
    trace_id text not null,
    ttft_micros integer,
    duration_micros integer not null,
    queued_micros integer not null,
    prompt_tokens integer not null,
    completion_tokens integer not null,
    n_attempts integer not null,
    cost_nanos integer,
    body blob not null
);

create index outcomes_at on outcomes (at_micros, request_id);
create index outcomes_model on outcomes (model, at_micros, request_id);
create index outcomes_key on outcomes (key_id, at_micros, request_id);
create index outcomes_error on outcomes (error, at_micros, request_id) where error is not null;
create index outcomes_session on outcomes (session, at_micros, request_id) where session <> '';

-- Golden signals of steps of time that are over, so that charts go on after a restart.
create table signals (
    step integer not null,
    at integer not null,
    body blob not null,
    primary key (step, at)
) without rowid;
