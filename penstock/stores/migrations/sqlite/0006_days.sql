-- What was used per day of UTC and attribution, so that a page about a month reads thousands of rows where there are
-- hundreds of thousands of hours. A day is the sum of the hours that are there: whatever changes an hour changes its
-- day, in the same transaction.
create table ledger_days (
    day bigint not null,
    org text not null,
    team text not null,
    key_id text not null,
    feature text not null,
    model text not null,
    deployment text not null,
    endpoint text not null,
    cache text not null,
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
) without rowid;

create trigger ledger_hours_added after insert on ledger_hours begin
    insert into ledger_days values (
        new.hour / 24, new.org, new.team, new.key_id, new.feature, new.model, new.deployment, new.endpoint,
        new.cache, 1, new.requests, new.errors, new.unpriced, new.input_tokens, new.cached_tokens,
        new.cache_write_tokens, new.cache_write_1h_tokens, new.output_tokens, new.reasoning_tokens, new.cost_nanos,
        new.duration_micros, new.estimated
    )
    on conflict (day, org, team, key_id, feature, model, deployment, endpoint, cache) do update set
        hours = hours + excluded.hours,
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

create trigger ledger_hours_gone after delete on ledger_hours begin
    update ledger_days set
        hours = hours - 1,
        requests = requests - old.requests,
        errors = errors - old.errors,
        unpriced = unpriced - old.unpriced,
        input_tokens = input_tokens - old.input_tokens,
        cached_tokens = cached_tokens - old.cached_tokens,
        cache_write_tokens = cache_write_tokens - old.cache_write_tokens,
        cache_write_1h_tokens = cache_write_1h_tokens - old.cache_write_1h_tokens,
        output_tokens = output_tokens - old.output_tokens,
        reasoning_tokens = reasoning_tokens - old.reasoning_tokens,
        cost_nanos = cost_nanos - old.cost_nanos,
        duration_micros = duration_micros - old.duration_micros,
        estimated = estimated - old.estimated
    where day = old.hour / 24 and org = old.org and team = old.team and key_id = old.key_id
        and feature = old.feature and model = old.model and deployment = old.deployment and endpoint = old.endpoint
        and cache = old.cache;
    delete from ledger_days where hours = 0 and day = old.hour / 24 and org = old.org and team = old.team
        and key_id = old.key_id
        and feature = old.feature and model = old.model and deployment = old.deployment and endpoint = old.endpoint
        and cache = old.cache;
end;

create trigger ledger_hours_changed after update on ledger_hours begin
    update ledger_days set
        hours = hours - 1,
        requests = requests - old.requests,
        errors = errors - old.errors,
        unpriced = unpriced - old.unpriced,
        input_tokens = input_tokens - old.input_tokens,
        cached_tokens = cached_tokens - old.cached_tokens,
        cache_write_tokens = cache_write_tokens - old.cache_write_tokens,
        cache_write_1h_tokens = cache_write_1h_tokens - old.cache_write_1h_tokens,
        output_tokens = output_tokens - old.output_tokens,
        reasoning_tokens = reasoning_tokens - old.reasoning_tokens,
        cost_nanos = cost_nanos - old.cost_nanos,
        duration_micros = duration_micros - old.duration_micros,
        estimated = estimated - old.estimated
    where day = old.hour / 24 and org = old.org and team = old.team and key_id = old.key_id
        and feature = old.feature and model = old.model and deployment = old.deployment and endpoint = old.endpoint
        and cache = old.cache;
    delete from ledger_days where hours = 0 and day = old.hour / 24 and org = old.org and team = old.team
        and key_id = old.key_id
        and feature = old.feature and model = old.model and deployment = old.deployment and endpoint = old.endpoint
        and cache = old.cache;
    insert into ledger_days values (
        new.hour / 24, new.org, new.team, new.key_id, new.feature, new.model, new.deployment, new.endpoint,
        new.cache, 1, new.requests, new.errors, new.unpriced, new.input_tokens, new.cached_tokens,
        new.cache_write_tokens, new.cache_write_1h_tokens, new.output_tokens, new.reasoning_tokens, new.cost_nanos,
        new.duration_micros, new.estimated
    )
    on conflict (day, org, team, key_id, feature, model, deployment, endpoint, cache) do update set
        hours = hours + excluded.hours,
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

insert into ledger_days select
    hour / 24, org, team, key_id, feature, model, deployment, endpoint, cache, count(*), sum(requests),
    sum(errors), sum(unpriced), sum(input_tokens), sum(cached_tokens), sum(cache_write_tokens),
    sum(cache_write_1h_tokens), sum(output_tokens), sum(reasoning_tokens), sum(cost_nanos), sum(duration_micros),
    sum(estimated)
from ledger_hours group by hour / 24, org, team, key_id, feature, model, deployment, endpoint, cache;
