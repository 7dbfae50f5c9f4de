-- What was used per hour and attribution, kept up to date by the database itself, so that a page of costs reads
-- hundreds of rows and not millions. It can be derived again from the ledger at any time: the view says how.
create table ledger_hours (
    hour bigint not null,
    org text collate "C" not null,
    team text collate "C" not null,
    key_id text collate "C" not null,
    feature text collate "C" not null,
    model text collate "C" not null,
    deployment text collate "C" not null,
    endpoint text collate "C" not null,
    cache text collate "C" not null,
    requests bigint not null,
    errors bigint not null,
    unpriced bigint not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    cache_write_tokens bigint not null,
    cache_write_1h_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    cost_nanos bigint not null,
    duration_micros bigint not null,
    primary key (hour, org, team, key_id, feature, model, deployment, endpoint, cache)
);

create view ledger_by_hour as select
    at_micros / 3600000000 as hour,
    org, team, key_id, feature, model, deployment, endpoint, cache,
    count(*) as requests,
    count(error) as errors,
    count(*) - count(cost_nanos) as unpriced,
    cast(sum(input_tokens) as bigint) as input_tokens,
    cast(sum(cached_tokens) as bigint) as cached_tokens,
    cast(sum(cache_write_tokens) as bigint) as cache_write_tokens,
    cast(sum(cache_write_1h_tokens) as bigint) as cache_write_1h_tokens,
    cast(sum(output_tokens) as bigint) as output_tokens,
    cast(sum(reasoning_tokens) as bigint) as reasoning_tokens,
    cast(coalesce(sum(cost_nanos), 0) as bigint) as cost_nanos,
    cast(sum(duration_micros) as bigint) as duration_micros
from ledger group by
    at_micros / 3600000000,
    org, team, key_id, feature, model, deployment, endpoint, cache;
create index ledger_hour on ledger ((at_micros / 3600000000));

-- Once per statement and not per row. The order keeps two who write the same hours from waiting for each other.
create function penstock_add_hours() returns trigger language plpgsql as $$
begin
    insert into ledger_hours as hours select
        at_micros / 3600000000 as hour,
        org, team, key_id, feature, model, deployment, endpoint, cache,
        count(*) as requests,
        count(error) as errors,
        count(*) - count(cost_nanos) as unpriced,
        cast(sum(input_tokens) as bigint) as input_tokens,
        cast(sum(cached_tokens) as bigint) as cached_tokens,
        cast(sum(cache_write_tokens) as bigint) as cache_write_tokens,
        cast(sum(cache_write_1h_tokens) as bigint) as cache_write_1h_tokens,
        cast(sum(output_tokens) as bigint) as output_tokens,
        cast(sum(reasoning_tokens) as bigint) as reasoning_tokens,
        cast(coalesce(sum(cost_nanos), 0) as bigint) as cost_nanos,
        cast(sum(duration_micros) as bigint) as duration_micros
    from fresh group by
        at_micros / 3600000000,
        org, team, key_id, feature, model, deployment, endpoint, cache
    order by
        at_micros / 3600000000,
        org, team, key_id, feature, model, deployment, endpoint, cache
    on conflict (hour, org, team, key_id, feature, model, deployment, endpoint, cache) do update set
        requests = hours.requests + excluded.requests,
        errors = hours.errors + excluded.errors,
        unpriced = hours.unpriced + excluded.unpriced,
        input_tokens = hours.input_tokens + excluded.input_tokens,
        cached_tokens = hours.cached_tokens + excluded.cached_tokens,
        cache_write_tokens = hours.cache_write_tokens + excluded.cache_write_tokens,
        cache_write_1h_tokens = hours.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
        output_tokens = hours.output_tokens + excluded.output_tokens,
        reasoning_tokens = hours.reasoning_tokens + excluded.reasoning_tokens,
        cost_nanos = hours.cost_nanos + excluded.cost_nanos,
        duration_micros = hours.duration_micros + excluded.duration_micros;
    return null;
end $$;
create trigger ledger_adds_hours after insert on ledger
    referencing new table as fresh for each statement execute function penstock_add_hours();

-- Rows before this moment have been let go, as retention asks: they are neither taken again from somebody who was away
-- for long nor derived from. Their hours stay.
create table ledger_kept (since_micros bigint not null);
insert into ledger_kept values (0);

insert into ledger_hours select * from ledger_by_hour;
