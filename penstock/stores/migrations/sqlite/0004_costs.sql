-- How many requests of an hour were not counted to the end by whoever answered, so that sums say how far they can be
-- trusted without a look at the rows. Hours whose rows have been let go before this count none.
alter table ledger_hours add column estimated bigint not null default 0;

-- A correction is money and tokens of a request that has a row already, and not another request.
drop view ledger_by_hour;
create view ledger_by_hour as select
    at_micros / 3600000000 as hour,
    org, team, key_id, feature, model, deployment, endpoint, cache,
    sum(usage_source <> 'correction') as requests,
    sum(usage_source <> 'correction' and error is not null) as errors,
    count(*) - count(cost_nanos) as unpriced,
    sum(input_tokens) as input_tokens,
    sum(cached_tokens) as cached_tokens,
    sum(cache_write_tokens) as cache_write_tokens,
    sum(cache_write_1h_tokens) as cache_write_1h_tokens,
    sum(output_tokens) as output_tokens,
    sum(reasoning_tokens) as reasoning_tokens,
    coalesce(sum(cost_nanos), 0) as cost_nanos,
    sum(duration_micros) as duration_micros,
    sum(usage_source in ('provider_partial', 'tokenizer', 'estimate')) as estimated
from ledger group by
    at_micros / 3600000000,
    org, team, key_id, feature, model, deployment, endpoint, cache;

drop trigger ledger_adds_hours;
create trigger ledger_adds_hours after insert on ledger begin
    insert into ledger_hours values (
        new.at_micros / 3600000000, new.org, new.team, new.key_id, new.feature, new.model, new.deployment,
        new.endpoint, new.cache,
        new.usage_source <> 'correction', new.usage_source <> 'correction' and new.error is not null,
        new.cost_nanos is null, new.input_tokens, new.cached_tokens,
        new.cache_write_tokens, new.cache_write_1h_tokens, new.output_tokens, new.reasoning_tokens,
        coalesce(new.cost_nanos, 0), new.duration_micros,
        new.usage_source in ('provider_partial', 'tokenizer', 'estimate')
    )
    on conflict (hour, org, team, key_id, feature, model, deployment, endpoint, cache) do update set
        requests = requests + excluded.requests,
        errors = errors + excluded.errors,
        unpriced = unpriced + excluded.unpriced,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        cache_write_1h_tokens = cache_write_1h_tokens + excluded.cache_write_1h_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        cost_nanos = cost_nanos + excluded.cost_nanos,
        duration_micros = duration_micros + excluded.duration_micros,
        estimated = estimated + excluded.estimated;
end;

delete from ledger_hours where hour >= (select since_micros from ledger_kept) / 3600000000;
insert into ledger_hours
    select * from ledger_by_hour where hour >= (select since_micros from ledger_kept) / 3600000000;

-- What a key or a team has spent this month is asked for when a gateway first meets its budget: hours of others are not
-- to be read for it. (Those of a user are in the ledger alone, by `ledger_user`.)
create index ledger_hours_key on ledger_hours (key_id, hour);
create index ledger_hours_team on ledger_hours (org, team, hour);
