-- One row per request, written once. Money in nano-dollars, times in microseconds; token classes do not overlap.
-- Text is compared by its bytes (collation "C"), as in SQLite, so that both databases answer in the same order.
create table ledger (
    request_id text collate "C" not null primary key,
    at_micros bigint not null,
    org text collate "C" not null,
    team text collate "C" not null,
    key_id text collate "C" not null,
    user_hash text collate "C" not null,
    feature text collate "C" not null,
    session text collate "C" not null,
    tags text collate "C" not null,
    model text collate "C" not null,
    deployment text collate "C" not null,
    replica text collate "C" not null,
    endpoint text collate "C" not null,
    status bigint not null,
    error text collate "C",
    cache text collate "C" not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    cache_write_tokens bigint not null,
    cache_write_1h_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    usage_source text collate "C" not null,
    cost_nanos bigint,
    price_version text collate "C" not null,
    duration_micros bigint not null
);
create index ledger_at on ledger (at_micros, request_id);
create index ledger_user on ledger (user_hash) where user_hash <> '';

create function penstock_append_only() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'integrity_constraint_violation';
end $$;

-- The user can be forgotten; what was used and what it cost cannot be changed.
create trigger ledger_is_append_only before update of
    request_id, at_micros, org, team, key_id, feature, model, deployment, replica, endpoint, status, error, cache,
    input_tokens, cached_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
    usage_source, cost_nanos, price_version, duration_micros
on ledger for each row execute function penstock_append_only();

create table api_keys (
    id text collate "C" not null primary key,
    digest text collate "C" not null unique,
    org text collate "C" not null,
    team text collate "C" not null,
    attributes text collate "C" not null,
    created_at double precision not null,
    expires_at double precision,
    revoked_at double precision,
    last_used_at double precision,
    version bigint not null
);
create index api_keys_version on api_keys (version);
create index api_keys_owner on api_keys (org, team, id);

-- Every change to a key has the next number, so that others can ask for what is new. The row's lock is held until the
-- end of the transaction: numbers become visible in their order.
create table api_keys_version_counter (version bigint not null);
insert into api_keys_version_counter values (0);

create table audit (
    seq bigint not null primary key,
    previous text collate "C" not null,
    record text collate "C" not null,
    hash text collate "C" not null
);
create trigger audit_is_append_only before update or delete or truncate on audit
    for each statement execute function penstock_append_only();
