"""Part `traces` of `bench/routing.py`: a real trace against every rival's rule, on the fleet of `facts` that all share.

Mooncake's conversation trace, of which the first half is at hand, so that what the targets say of the whole one is
measured on that half. Rates and caches are learned by the balancer, as they would be of live engines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from gateway import Verdict
from routing_simulated import (
    MOONCAKE,
    PENSTOCK,
    RIVALS,
    SYSTEMS,
    Part,
    Replay,
    Replayed,
    Scale,
    absent,
    mean,
    on_all_cores,
    replay,
    spread,
)

FEW, MANY = (8, 1.25), (32, 4.5)  # workers, and how many times as fast as it was recorded
# The trace's requests come in bunches, up to 23 at the same instant, so some queue however slowly it is played. Where
# nobody should, they come evenly.
CALM = ((0.5, False), (0.25, False), (0.5, True), (0.25, True))  # (speed, evenly)
UNQUEUED = 0.01  # share of requests that may have queued where nobody does
TIE = 0.01  # who is less than this ahead is not ahead
GOODPUT, E2E = 0.62, 9.6
AHEAD, BEHIND = 0.10, 0.05
BOUND = 0.90

Rows = dict[str, list[Replayed]]  # by system; one for each seed


def measure(scale: Scale) -> Part:
    if not MOONCAKE.exists():
        return Part("A real trace", [absent(MOONCAKE)], [Verdict(absent(MOONCAKE), "-", None)])
    fleets = (FEW, MANY)
    jobs = [
        Replay(system, workers, speed, seed, scale.requests)
        for workers, speed in fleets
        for system in SYSTEMS
        for seed in range(1, scale.seeds + 1)
    ]
    slow = [
        Replay(PENSTOCK, FEW[0], speed, seed, scale.requests, evenly)
        for speed, evenly in CALM
        for seed in range(1, scale.seeds + 1)
    ]
    done = on_all_cores(replay, [*jobs, *slow])
    tables: dict[tuple[int, float], Rows] = {fleet: defaultdict(list) for fleet in fleets}
    for one in done[: len(jobs)]:
        tables[one.job.workers, one.job.speed][one.job.system].append(one)
    few, many = tables[FEW], tables[MANY]
    calm = [done[at : at + scale.seeds] for at in range(len(jobs), len(done), scale.seeds)]
    said = [f"Mooncake conversation, first half ({few[PENSTOCK][0].results.requests:,} requests); {scale.seeds} seeds."]
    for fleet, rows in tables.items():
        said += ["", *table(fleet, rows)]
    said += ["", *reuse_table(calm)]
    return Part(
        "A real trace",
        said,
        [*judge(few), *judge_ordering(few, many), *judge_reuse(calm)],
        {"rows": [{"job": vars(one.job), "queued": one.queued, "results": _figures(one)} for one in done]},
    )


# --- telling ---


def table(fleet: tuple[int, float], rows: Rows) -> list[str]:
    workers, speed = fleet
    bound = mean(one.results.prefix_bound for one in rows[PENSTOCK])
    lines = [
        f"| {workers} workers, x{speed:g} | good | TTFT mean s | p99 s | E2E mean s | reuse (bound {bound:.3f}) |",
        "|---|---|---|---|---|---|",
    ]
    for system in SYSTEMS:
        found = [one.results for one in rows[system]]
        lines.append(
            f"| {system} | {spread((r.good for r in found), 3)} | {spread((r.ttft.mean for r in found), 2)} | "
            f"{spread((r.ttft.p99 for r in found), 1)} | {spread((r.e2e.mean for r in found), 2)} | "
            f"{spread((r.prefix_reuse for r in found), 3)} |"
        )
    return lines


def reuse_table(calm: Sequence[Sequence[Replayed]]) -> list[str]:
    lines = [f"| {PENSTOCK}, {FEW[0]} workers | queued | reuse | of the bound |", "|---|---|---|---|"]
    lines += [
        f"| {played(each[0].job)} | {mean(one.queued for one in each):.1%} | "
        f"{spread((one.results.prefix_reuse for one in each), 3)} | {mean(share(one) for one in each):.1%} |"
        for each in calm
    ]
    return lines


def played(job: Replay) -> str:
    return f"x{job.speed:g}, {'evenly spaced' if job.evenly else 'as recorded'}"


# --- judging ---


def good(found: Sequence[Replayed]) -> float:
    return mean(one.results.good for one in found)


def ttft(found: Sequence[Replayed]) -> float:
    return mean(one.results.ttft.mean for one in found)


def p99(found: Sequence[Replayed]) -> float:
    return mean(one.results.ttft.p99 for one in found)


def share(one: Replayed) -> float:
    return one.results.prefix_reuse / (one.results.prefix_bound or 1.0)


def judge(rows: Rows) -> Iterable[Verdict]:
    ours = rows[PENSTOCK]
    e2e = mean(one.results.e2e.mean for one in ours)
    on = f"{FEW[0]} workers, x{FEW[1]:g}"
    yield Verdict(
        f"{on}: goodput at least {GOODPUT} (whole trace; here its first half)",
        f"{good(ours):.3f}",
        good(ours) >= GOODPUT,
    )
    yield Verdict(f"{on}: E2E at most {E2E} s (likewise)", f"{e2e:.2f} s", e2e <= E2E)
    for name in RIVALS:
        more = good(ours) / (good(rows[name]) or 1e-9) - 1
        less = 1 - ttft(ours) / ttft(rows[name])
        yield Verdict(
            f"{on}: 10 % better than {name} on goodput or mean TTFT, on neither 5 % worse",
            f"goodput {more:+.1%}, TTFT {-less:+.1%}",
            max(more, less) >= AHEAD and min(more, less) >= -BEHIND,
        )
    name = min(RIVALS, key=lambda rival: p99(rows[rival]))
    behind = p99(ours) / p99(rows[name]) - 1
    yield Verdict(f"{on}: p99 TTFT at most 5 % behind the best rival", f"{behind:+.1%} to {name}", behind <= BEHIND)


def judge_ordering(few: Rows, many: Rows) -> Iterable[Verdict]:
    """Whoever was behind us with few workers is so with many."""
    measures: tuple[tuple[str, Callable[[Sequence[Replayed]], float]], ...] = (
        ("goodput", lambda found: -good(found)),
        ("mean TTFT", ttft),
    )
    for what, of in measures:
        before, now = (
            {name for name in RIVALS if of(rows[name]) < of(rows[PENSTOCK]) - TIE * abs(of(rows[PENSTOCK]))}
            for rows in (few, many)
        )
        yield Verdict(
            f"{MANY[0]} workers, x{MANY[1]:g}: the same order as with {FEW[0]}: Penstock behind the same on {what}",
            f"behind {', '.join(sorted(now)) or 'none'} ({', '.join(sorted(before)) or 'none'} with {FEW[0]})",
            now == before,
        )


def judge_reuse(calm: Sequence[Sequence[Replayed]]) -> Iterable[Verdict]:
    unqueued = [each for each in calm if mean(one.queued for one in each) <= UNQUEUED]
    target = "prefix reuse at least 90 % of the bound of one pooled LRU cache where nobody queues"
    if not unqueued:
        yield Verdict(target, "somebody queues however it is played", None)
        return
    each = unqueued[0]
    reached = mean(share(one) for one in each)
    yield Verdict(target, f"{reached:.1%} ({played(each[0].job)})", reached >= BOUND)


def _figures(one: Replayed) -> dict[str, object]:
    found = one.results
    return {
        "good": found.good,
        "ttft": found.ttft.mean,
        "ttft_p99": found.ttft.p99,
        "e2e": found.e2e.mean,
        "reuse": found.prefix_reuse,
        "bound": found.prefix_bound,
        "failures": found.failures,
    }
