-- What callers said of answers: one row for each answer and owner, which later words add to. `model` is empty until the
-- ledger has the request; an id that is never found there belongs to nobody, and its row goes with retention.
create table feedback (
    request_id text not null,
    owner text not null,
    org text not null,
    key_id text not null,
    model text not null,
    thumbs text,
    rating bigint,
    comment text,
    accepted bigint,
    retried bigint,
    at_micros bigint not null,
    changed_micros bigint not null,
    primary key (request_id, owner)
);
create index feedback_at on feedback (at_micros);
create index feedback_unknown on feedback (owner) where model = '';
