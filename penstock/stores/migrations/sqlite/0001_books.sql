-- One row per request, written once. Money in nano-dollars, times in microseconds; token classes do not overlap.
create table ledger (
    request_id text not null primary key,
    at_micros bigint not null,
    org text not null,
    team text not null,
    key_id text not null,
    user_hash text not null,
    feature text not null,
    session text not null,
    tags text not null,
    model text not null,
    deployment text not null,
    replica text not null,
    endpoint text not null,
    status bigint not null,
    error text,
    cache text not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    cache_write_tokens bigint not null,
    cache_write_1h_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    usage_source text not null,
    cost_nanos bigint,
    price_version text not null,
    duration_micros bigint not null
);
create index ledger_at on ledger (at_micros, request_id);
create index ledger_user on ledger (user_hash) where user_hash <> '';

-- The user can be forgotten; what was used and what it cost cannot be changed.
create trigger ledger_is_append_only before update of
    request_id, at_micros, org, team, key_id, feature, model, deployment, replica, endpoint, status, error, cache,
    input_tokens, cached_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
    usage_source, cost_nanos, price_version, duration_micros
on ledger begin
    select raise(abort, 'the ledger is append-only');
end;

create table api_keys (
    id text not null primary key,
    digest text not null unique,
    org text not null,
    team text not null,
    attributes text not null,
    created_at double precision not null,
    expires_at double precision,
    revoked_at double precision,
    last_used_at double precision,
    version bigint not null
);
create index api_keys_version on api_keys (version);
create index api_keys_owner on api_keys (org, team, id);

-- Every change to a key has the next number, so that others can ask for what is new.
create table api_keys_version_counter (version bigint not null);
insert into api_keys_version_counter values (0);

create table audit (
    seq bigint not null primary key,
    previous text not null,
    record text not null,
    hash text not null
);
create trigger audit_is_append_only before update on audit begin
    select raise(abort, 'the audit log is append-only');
end;
create trigger audit_is_kept before delete on audit begin
    select raise(abort, 'the audit log is append-only');
end;
