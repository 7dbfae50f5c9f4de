"""What a simulation came to: latencies, goodput, reuse, fairness, cost; all computed from the log of its requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil, isnan
from typing import Final

import msgspec

from penstock.sim.log import Log

N_INTERVALS: Final = 120  # of what is shown over time
OUTPUT_WEIGHT: Final = 2.0  # of a generated token in a tenant's service, a computed prompt token being 1 (VTC)


class Slo(msgspec.Struct, frozen=True):
    """What makes an answer good. Seconds; `itl` is the mean time between its tokens."""

    ttft: float = 2.0
    itl: float = 0.050


class Spread(msgspec.Struct, frozen=True):
    """Of one measure over many requests. Percentiles are of the values that there were (nearest rank)."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class Interval(msgspec.Struct, frozen=True):
    """What arrived in one stretch of time."""

    at: float  # where it begins
    requests: int
    good: float  # share of them, 0..1
    failed: float  # likewise
    ttft_p50: float  # of those that had a first token; 0 where none had
    ttft_p95: float
    output_tokens_per_second: float  # of what ended in it


class Tenant(msgspec.Struct, frozen=True):
    requests: int
    failed: int
    good: float
    ttft: Spread
    service: float  # prompt tokens computed, and twice those generated


class Results(msgspec.Struct, frozen=True):
    """Of one run. Seconds, tokens, shares from 0 to 1, dollars."""

    requests: int
    completed: int
    failures: dict[str, int]
    duration: float
    ttft: Spread
    tpot: Spread
    e2e: Spread
    good: float
    """Share of all requests whose answers met the SLO."""
    goodput: float
    """Such answers per second."""
    output_tokens_per_second: float
    prefix_reuse: float
    """Share of prompt tokens that were found in a cache."""
    prefix_bound: float
    """What all caches would have reached as one."""
    preemptions: int
    extra_attempts: float
    """Retries and hedges per request."""
    hedges: float
    """Hedges per request."""
    jain: float
    """Fairness of the tenants' service, 1 / n ..1."""
    service_gap: float
    """By how much the service of two tenants came apart while both had requests waiting; tokens as `Tenant.service`."""
    gpu_hours: float
    cost: float
    tenants: dict[str, Tenant]
    intervals: list[Interval]
    slo: Slo
    answered_by: dict[str, int]
    """Requests by the deployment that answered."""


def spread(values: Iterable[float]) -> Spread:
    ranked = sorted(values)
    if not ranked:
        return Spread(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    p50, p90, p95, p99 = (percentile(ranked, share) for share in (0.5, 0.9, 0.95, 0.99))
    return Spread(sum(ranked) / len(ranked), p50, p90, p95, p99, ranked[-1])


def percentile(ranked: Sequence[float], share: float) -> float:
    """The least value that `share` of all do not exceed; 0 of nothing."""
    return ranked[max(0, ceil(share * len(ranked)) - 1)] if ranked else 0.0


def summarise(
    log: Log,
    *,
    slo: Slo,
    duration: float,
    prefix_bound: float,
    preemptions: int = 0,
    gpu_hours: float = 0.0,
    cost: float = 0.0,
) -> Results:
    n = len(log)
    rows = range(n)
    answered = [i for i in rows if not log.failed[i]]
    ttft = {i: log.first[i] - log.arrived[i] for i in rows if not isnan(log.first[i])}
    tpot = {i: (log.ended[i] - log.first[i]) / (log.output[i] - 1) for i in answered if log.output[i] > 1}
    good = {i for i in answered if ttft[i] <= slo.ttft and tpot.get(i, 0.0) <= slo.itl}
    prompt = sum(log.prompt)
    services = _services(log, answered)
    return Results(
        requests=n,
        completed=len(answered),
        failures=dict(Counter(log.words[code] for code in log.failed if code)),
        duration=duration,
        ttft=spread(ttft.values()),
        tpot=spread(tpot.values()),
        e2e=spread(log.ended[i] - log.arrived[i] for i in answered),
        good=len(good) / n if n else 0.0,
        goodput=len(good) / duration if duration else 0.0,
        output_tokens_per_second=sum(log.output) / duration if duration else 0.0,
        prefix_reuse=sum(log.cached) / prompt if prompt else 0.0,
        prefix_bound=prefix_bound,
        preemptions=preemptions,
        extra_attempts=(sum(log.attempts) - sum(1 for a in log.attempts if a)) / n if n else 0.0,
        hedges=sum(log.hedges) / n if n else 0.0,
        jain=jain([service for service in services.values() if service > 0]),
        service_gap=service_gap(log, duration),
        gpu_hours=gpu_hours,
        cost=cost,
        tenants=_tenants(log, ttft, good, services),
        intervals=_intervals(log, ttft, good, duration),
        slo=slo,
        answered_by=dict(Counter(log.words[log.deployment[i]] for i in answered)),
    )


def jain(shares: Sequence[float]) -> float:
    """1 when all have the same, 1 / n when one has everything (Jain, Chiu, Hawe 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def service_gap(log: Log, duration: float, n_samples: int = 600) -> float:
    """The most by which two tenants' services came apart while both always had a request without a first token.

    Service of a request: its computed prompt tokens at its first token, twice its output evenly from there to its end.
    As the bound of the Virtual Token Counter (Sheng et al., OSDI 2024), on samples of time.
    """
    tenants = sorted(set(log.tenant))
    if len(tenants) < 2 or duration <= 0.0:
        return 0.0
    step = duration / n_samples
    served = {tenant: [0.0] * (n_samples + 2) for tenant in tenants}
    waiting = {tenant: [0] * (n_samples + 2) for tenant in tenants}
    for i in range(len(log)):
        first = log.ended[i] if isnan(log.first[i]) else log.first[i]
        # waiting at every sample from its arrival to its first token
        came, gone = ceil(log.arrived[i] / step), ceil(first / step)
        changes = waiting[log.tenant[i]]
        changes[min(came, n_samples + 1)] += 1
        changes[min(gone, n_samples + 1)] -= 1
        if isnan(log.first[i]):
            continue
        gains = served[log.tenant[i]]
        gains[min(gone, n_samples + 1)] += log.prompt[i] - log.cached[i]
        last = min(ceil(log.ended[i] / step), n_samples + 1)
        begin = min(gone, n_samples + 1)
        share = OUTPUT_WEIGHT * log.output[i] / (last - begin + 1)
        for sample in range(begin, last + 1):
            gains[sample] += share
    for tenant in tenants:
        for sample in range(1, n_samples + 2):
            served[tenant][sample] += served[tenant][sample - 1]
            waiting[tenant][sample] += waiting[tenant][sample - 1]
    worst = 0.0
    for place, one in enumerate(tenants):
        for other in tenants[place + 1 :]:
            low = high = None
            for sample in range(n_samples + 1):
                if waiting[one][sample] <= 0 or waiting[other][sample] <= 0:
                    low = high = None
                    continue
                ahead = served[one][sample] - served[other][sample]
                low = ahead if low is None else min(low, ahead)
                high = ahead if high is None else max(high, ahead)
                worst = max(worst, high - low)
    return worst


def _services(log: Log, answered: Sequence[int]) -> dict[int, float]:
    services = dict.fromkeys(log.tenant, 0.0)
    for i in answered:
        services[log.tenant[i]] += log.prompt[i] - log.cached[i] + OUTPUT_WEIGHT * log.output[i]
    return services


def _tenants(log: Log, ttft: dict[int, float], good: set[int], services: dict[int, float]) -> dict[str, Tenant]:
    rows: dict[int, list[int]] = {}
    for i, tenant in enumerate(log.tenant):
        rows.setdefault(tenant, []).append(i)
    return {
        log.words[tenant]: Tenant(
            requests=len(its),
            failed=sum(1 for i in its if log.failed[i]),
            good=sum(1 for i in its if i in good) / len(its),
            ttft=spread(ttft[i] for i in its if i in ttft),
            service=services[tenant],
        )
        for tenant, its in sorted(rows.items())
    }


def _intervals(log: Log, ttft: dict[int, float], good: set[int], duration: float) -> list[Interval]:
    if duration <= 0.0:
        return []
    length = duration / N_INTERVALS
    arrived: list[list[int]] = [[] for _ in range(N_INTERVALS)]
    tokens = [0] * N_INTERVALS
    for i in range(len(log)):
        arrived[min(N_INTERVALS - 1, int(log.arrived[i] / length))].append(i)
        tokens[min(N_INTERVALS - 1, int(log.ended[i] / length))] += log.output[i]
    intervals = []
    for place, its in enumerate(arrived):
        firsts = sorted(ttft[i] for i in its if i in ttft)
        intervals.append(
            Interval(
                at=place * length,
                requests=len(its),
                good=sum(1 for i in its if i in good) / len(its) if its else 0.0,
                failed=sum(1 for i in its if log.failed[i]) / len(its) if its else 0.0,
                ttft_p50=percentile(firsts, 0.5),
                ttft_p95=percentile(firsts, 0.95),
                output_tokens_per_second=tokens[place] / length,
            )
        )
    return intervals
