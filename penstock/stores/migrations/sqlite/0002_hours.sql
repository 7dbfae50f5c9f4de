-- What was used per hour and attribution, kept up to date by the database itself, so that a page of costs reads
-- hundreds of rows and not millions. It can be derived again from the ledger at any time: the view says how.
create table ledger_hours (
    hour bigint not null,
    org text not null,
    team text not null,
    key_id text not null,
    feature text not null,
    model text not null,
    deployment text not null,
    endpoint text not null,
    cache text not null,
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
) without rowid;

create view ledger_by_hour as select
    at_micros / 3600000000 as hour,
    org, team, key_id, feature, model, deployment, endpoint, cache,
    count(*) as requests,
    count(error) as errors,
    count(*) - count(cost_nanos) as unpriced,
    sum(input_tokens) as input_tokens,
    sum(cached_tokens) as cached_tokens,
    sum(cache_write_tokens) as cache_write_tokens,
    sum(cache_write_1h_tokens) as cache_write_1h_tokens,
    sum(output_tokens) as output_tokens,
    sum(reasoning_tokens) as reasoning_tokens,
    coalesce(sum(cost_nanos), 0) as cost_nanos,
    sum(duration_micros) as duration_micros
from ledger group by
    at_micros / 3600000000,
    org, team, key_id, feature, model, deployment, endpoint, cache;
create index ledger_hour on ledger (at_micros / 3600000000);

create trigger ledger_adds_hours after insert on ledger begin
    insert into ledger_hours values (
        new.at_micros / 3600000000, new.org, new.team, new.key_id, new.feature, new.model, new.deployment,
        new.endpoint, new.cache,
        1, new.error is not null, new.cost_nanos is null, new.input_tokens, new.cached_tokens,
        new.cache_write_tokens, new.cache_write_1h_tokens, new.output_tokens, new.reasoning_tokens,
        coalesce(new.cost_nanos, 0), new.duration_micros
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
        duration_micros = duration_micros + excluded.duration_micros;
end;

-- Rows before this moment have been let go, as retention asks: they are neither taken again from somebody who was away
-- for long nor derived from. Their hours stay.
create table ledger_kept (since_micros bigint not null);
insert into ledger_kept values (0);

insert into ledger_hours select * from ledger_by_hour;
