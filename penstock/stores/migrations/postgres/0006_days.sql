-- What was used per day of UTC and attribution, so that a page about a month reads thousands of rows where there are
-- hundreds of thousands of hours. A day is the sum of the hours that are there: whatever changes an hour changes its
-- day, in the same transaction.
create table ledger_days (
    day bigint not null,
    org text collate "C" not null,
    team text collate "C" not null,
    key_id text collate "C" not null,
    feature text collate "C" not null,
    model text collate "C" not null,
    deployment text collate "C" not null,
    endpoint text collate "C" not null,
    cache text collate "C" not null,
    hours bigint not null,
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
    estimated bigint not null,
    primary key (day, org, team, key_id, feature, model, deployment, endpoint, cache)
);

create function penstock_follow_hours() returns trigger language plpgsql as $$
begin
    if tg_op <> 'INSERT' then
        update ledger_days as days set
            hours = days.hours - 1,
            requests = days.requests - old.requests,
            errors = days.errors - old.errors,
            unpriced = days.unpriced - old.unpriced,
            input_tokens = days.input_tokens - old.input_tokens,
            cached_tokens = days.cached_tokens - old.cached_tokens,
            cache_write_tokens = days.cache_write_tokens - old.cache_write_tokens,
            cache_write_1h_tokens = days.cache_write_1h_tokens - old.cache_write_1h_tokens,
            output_tokens = days.output_tokens - old.output_tokens,
            reasoning_tokens = days.reasoning_tokens - old.reasoning_tokens,
            cost_nanos = days.cost_nanos - old.cost_nanos,
            duration_micros = days.duration_micros - old.duration_micros,
            estimated = days.estimated - old.estimated
        where days.day = old.hour / 24 and days.org = old.org and days.team = old.team and days.key_id = old.key_id
            and days.feature = old.feature and days.model = old.model and days.deployment = old.deployment
            and days.endpoint = old.endpoint and days.cache = old.cache;
    end if;
    if tg_op <> 'DELETE' then
        insert into ledger_days as days values (
            new.hour / 24, new.org, new.team, new.key_id, new.feature, new.model, new.deployment, new.endpoint,
            new.cache, 1, new.requests, new.errors, new.unpriced, new.input_tokens, new.cached_tokens,
            new.cache_write_tokens, new.cache_write_1h_tokens, new.output_tokens, new.reasoning_tokens,
            new.cost_nanos, new.duration_micros, new.estimated
        )
        on conflict (day, org, team, key_id, feature, model, deployment, endpoint, cache) do update set
            hours = days.hours + excluded.hours,
            requests = days.requests + excluded.requests,
            errors = days.errors + excluded.errors,
            unpriced = days.unpriced + excluded.unpriced,
            input_tokens = days.input_tokens + excluded.input_tokens,
            cached_tokens = days.cached_tokens + excluded.cached_tokens,
            cache_write_tokens = days.cache_write_tokens + excluded.cache_write_tokens,
            cache_write_1h_tokens = days.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
            output_tokens = days.output_tokens + excluded.output_tokens,
            reasoning_tokens = days.reasoning_tokens + excluded.reasoning_tokens,
            cost_nanos = days.cost_nanos + excluded.cost_nanos,
            duration_micros = days.duration_micros + excluded.duration_micros,
            estimated = days.estimated + excluded.estimated;
    end if;
    if tg_op <> 'INSERT' then
        delete from ledger_days as days where hours = 0
            and days.day = old.hour / 24 and days.org = old.org and days.team = old.team and days.key_id = old.key_id
            and days.feature = old.feature and days.model = old.model and days.deployment = old.deployment
            and days.endpoint = old.endpoint and days.cache = old.cache;
    end if;
    return null;
end $$;
create trigger ledger_days_follow after insert or update or delete on ledger_hours
    for each row execute function penstock_follow_hours();

-- As before, but for the order: two who write the same hours change them, and then their days, in one and the same.
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
        org, team, key_id, feature, model, deployment, endpoint, cache,
        at_micros / 3600000000
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

insert into ledger_days select
    hour / 24, org, team, key_id, feature, model, deployment, endpoint, cache, count(*),
    cast(sum(requests) as bigint), cast(sum(errors) as bigint), cast(sum(unpriced) as bigint),
    cast(sum(input_tokens) as bigint), cast(sum(cached_tokens) as bigint), cast(sum(cache_write_tokens) as bigint),
    cast(sum(cache_write_1h_tokens) as bigint), cast(sum(output_tokens) as bigint),
    cast(sum(reasoning_tokens) as bigint), cast(sum(cost_nanos) as bigint), cast(sum(duration_micros) as bigint),
    cast(sum(estimated) as bigint)
from ledger_hours group by hour / 24, org, team, key_id, feature, model, deployment, endpoint, cache;
