-- How many requests of an hour were not counted to the end by whoever answered, so that sums say how far they can be
-- trusted without a look at the rows. Hours whose rows have been let go before this count none.
alter table ledger_hours add column estimated bigint not null default 0;

-- A correction is money and tokens of a request that has a row already, and not another request.
create or replace view ledger_by_hour as select
    at_micros / 3600000000 as hour,
    org, team, key_id, feature, model, deployment, endpoint, cache,
    count(*) filter (where usage_source <> 'correction') as requests,
    count(error) filter (where usage_source <> 'correction') as errors,
    count(*) - count(cost_nanos) as unpriced,
    cast(sum(input_tokens) as bigint) as input_tokens,
    cast(sum(cached_tokens) as bigint) as cached_tokens,
    cast(sum(cache_write_tokens) as bigint) as cache_write_tokens,
    cast(sum(cache_write_1h_tokens) as bigint) as cache_write_1h_tokens,
    cast(sum(output_tokens) as bigint) as output_tokens,
    cast(sum(reasoning_tokens) as bigint) as reasoning_tokens,
    cast(coalesce(sum(cost_nanos), 0) as bigint) as cost_nanos,
    cast(sum(duration_micros) as bigint) as duration_micros,
    count(*) filter (where usage_source in ('provider_partial', 'tokenizer', 'estimate')) as estimated
from ledger group by
    at_micros / 3600000000,
    org, team, key_id, feature, model, deployment, endpoint, cache;

-- Once per statement and not per row. The order keeps two who write the same hours from waiting for each other.
create or replace function penstock_add_hours() returns trigger language plpgsql as $$
begin
    insert into ledger_hours as hours select
        at_micros / 3600000000 as hour,
        org, team, key_id, feature, model, deployment, endpoint, cache,
        count(*) filter (where usage_source <> 'correction') as requests,
        count(error) filter (where usage_source <> 'correction') as errors,
        count(*) - count(cost_nanos) as unpriced,
        cast(sum(input_tokens) as bigint) as input_tokens,
        cast(sum(cached_tokens) as bigint) as cached_tokens,
        cast(sum(cache_write_tokens) as bigint) as cache_write_tokens,
        cast(sum(cache_write_1h_tokens) as bigint) as cache_write_1h_tokens,
        cast(sum(output_tokens) as bigint) as output_tokens,
        cast(sum(reasoning_tokens) as bigint) as reasoning_tokens,
        cast(coalesce(sum(cost_nanos), 0) as bigint) as cost_nanos,
        cast(sum(duration_micros) as bigint) as duration_micros,
        count(*) filter (where usage_source in ('provider_partial', 'tokenizer', 'estimate')) as estimated
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
        duration_micros = hours.duration_micros + excluded.duration_micros,
        estimated = hours.estimated + excluded.estimated;
    return null;
end $$;

delete from ledger_hours where hour >= (select since_micros from ledger_kept) / 3600000000;
insert into ledger_hours
    select * from ledger_by_hour where hour >= (select since_micros from ledger_kept) / 3600000000;

-- What a key or a team has spent this month is asked for when a gateway first meets its budget: hours of others are not
-- to be read for it. (Those of a user are in the ledger alone, by `ledger_user`.)
create index ledger_hours_key on ledger_hours (key_id, hour);
create index ledger_hours_team on ledger_hours (org, team, hour);
