"""Parts `tail`, `fair`, `brownout` and `faults` of `bench/routing.py`: when something is in the way.

All are simulated, engines by cost model A. The brown-out is the scenario of `examples/scenarios`, which
`penstock simulate` runs too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from random import Random
from typing import Any

import msgspec
from gateway import ROOT, Verdict
from routing_simulated import GOOD, POOL, TRACES, Part, Scale, mean, on_all_cores, spread

from penstock.balancing.queue_options import QueueOptions
from penstock.batching.sequence import CountedSequence
from penstock.core.plan import Plan
from penstock.resilience.options import OutlierRule
from penstock.sim import scenario as scenarios
from penstock.sim.cost_model import MODEL_A
from penstock.sim.engine_model import EngineCall
from penstock.sim.engines import Engine
from penstock.sim.log import Log
from penstock.sim.requests import Try
from penstock.sim.results import Results, percentile
from penstock.sim.run import Deployment, Simulation, balanced_by
from penstock.traffic.options import read
from penstock.traffic.source import Source

SCENARIOS = ROOT / "examples" / "scenarios"
CHAT: dict[str, Any] = {
    "prompt_tokens": {"kind": "lognormal", "median": 1_000, "p95": 3_000},
    "output_tokens": {"kind": "lognormal", "median": 150, "p95": 400},
}
QUANTUM = QueueOptions().quantum
HALVED = 0.5
NOISE, MOST_RAISED, MOST_QUANTA = 10, 1.5, 2.0
WITHIN, MOST_EXTRA = 30.0, 0.20
RECOVERED, COLLAPSED = 0.95, 0.5  # of the goodput before the fault
KEPT = 0.99  # share of answers that meet the SLO


def traffic(tree: object, seed: int) -> Source:
    return Source(read(tree), TRACES, Random(seed))


def fleet(replicas: int) -> dict[str, Deployment]:
    """With those left out that do worse than their like, as is live where nothing else is said."""
    return {POOL: Deployment(replicas=replicas, engine=MODEL_A, outliers=OutlierRule())}


# --- tail: answers of very different lengths ---

# Half are of 32 tokens or fewer, and their spread would be infinite but for `max`. 87 % of what the replicas can do.
HEAVY = {
    "arrivals": {"kind": "poisson", "rate": 105.0},
    "prompt_tokens": 64,
    "output_tokens": {"kind": "pareto", "min": 20, "alpha": 1.5, "max": 10_000},
}
SMALL_BATCH = msgspec.structs.replace(MODEL_A, max_seqs=8)
WAYS = {
    "least cost": ("least_cost", QueueOptions()),
    "least cost, no queue": ("least_cost", None),
    "least requests": ("least_requests", None),
    "round robin": ("round_robin", None),
}


@dataclass(frozen=True)
class Tail:
    way: str
    seed: int
    seconds: float


def heavy(job: Tail) -> Results:
    policy, queue = WAYS[job.way]
    simulation = Simulation(
        {POOL: Deployment(replicas=8, engine=SMALL_BATCH)},
        traffic({**HEAVY, "duration": f"{job.seconds:g}s"}, job.seed),
        balancer=balanced_by(policy),
        queue=queue,
        seed=job.seed,
    )
    simulation.run()
    return simulation.results(GOOD)


def tail(scale: Scale) -> Part:
    seeds = range(1, scale.seeds + 1)
    jobs = [Tail(way, seed, max(5.0, 180.0 * scale.share)) for way in WAYS for seed in seeds]
    done = iter(on_all_cores(heavy, jobs))
    found = {way: [next(done) for _ in seeds] for way in WAYS}
    said = [
        "8 replicas of 8 sequences, 105 requests/s of 64 prompt tokens; answers Pareto, from 20 tokens, exponent 1.5: "
        "87 % of what fits.",
        "",
        "| | E2E mean s | p99 s | TTFT p99 s |",
        "|---|---|---|---|",
    ]
    said += [
        f"| {way} | {spread((r.e2e.mean for r in each), 2)} | {spread((r.e2e.p99 for r in each), 1)} | "
        f"{spread((r.ttft.p99 for r in each), 1)} |"
        for way, each in found.items()
    ]
    ours, theirs = (mean(r.e2e.p99 for r in found[way]) for way in ("least cost", "round robin"))
    verdict = Verdict(
        "p99 E2E with heavy-tailed outputs at most half of round robin's",
        f"{ours:.1f} s, {theirs:.1f} s",
        ours <= HALVED * theirs,
    )
    return Part("Answers with a heavy tail", said, [verdict])


# --- fair: a noisy neighbour, and two who want everything ---


@dataclass(frozen=True)
class Neighbours:
    """`rate`: requests per second of the quiet one; `noise` times as many of the other one's, in the same time."""

    rate: float
    noise: float
    seed: int
    seconds: float
    policy: str = "queue"  # or at_once


def neighbours(job: Neighbours) -> list[float]:
    """TTFTs of the quiet tenant."""
    tenants = [{"tenant": "quiet", "arrivals": {"kind": "poisson", "rate": job.rate}, "duration": job.seconds, **CHAT}]
    if job.noise:
        noisy = {"kind": "poisson", "rate": job.rate * job.noise}
        tenants.append({"tenant": "noisy", "arrivals": noisy, "duration": job.seconds, **CHAT})
    queue = QueueOptions() if job.policy == "queue" else None
    simulation = Simulation(fleet(4), traffic(_timed(tenants), job.seed), queue=queue, seed=job.seed)
    simulation.run()
    log = simulation.log
    quiet = log.place("quiet")
    return [
        first - arrived
        for arrived, first, tenant in zip(log.arrived, log.first, log.tenant, strict=True)
        if tenant == quiet and not isnan(first)
    ]


@dataclass(frozen=True)
class Backlogged:
    """Two tenants who ask for far more than there is room for: alike, or one has long prompts and one long answers."""

    alike: bool
    seed: int
    seconds: float


ONE, OTHER = "one", "other"
LONG_PROMPTS = {"prompt_tokens": {"kind": "lognormal", "median": 3_000, "p95": 8_000}, "output_tokens": 50}
LONG_ANSWERS = {"prompt_tokens": 300, "output_tokens": {"kind": "lognormal", "median": 400, "p95": 1_000}}
LOOK = 0.1  # seconds


def backlogged(job: Backlogged) -> tuple[float, float, int]:
    """By how many engine seconds one was served more than the other since both wait: as engines gave it, and by the
    queue's own books. And how many requests there were.
    """
    shapes = (CHAT, CHAT) if job.alike else (LONG_PROMPTS, LONG_ANSWERS)
    both = {"duration": job.seconds, "arrivals": {"kind": "poisson", "rate": 10.0}}
    tenants = [{"tenant": name, **shape, **both} for name, shape in zip((ONE, OTHER), shapes, strict=True)]
    simulation = Simulation(fleet(2), traffic(_timed(tenants), job.seed), queue=QueueOptions(), seed=job.seed)
    world = simulation.world
    meter = Meter(simulation)
    stretches: list[list[tuple[float, float]]] = [[]]  # by how much engines and books differ, while both wait

    def look() -> None:
        line = simulation.fleet.line
        assert line is not None, "the simulation has a queue"
        served = {one.tenant: one.served for each in line.queue.view(world.now).classes for one in each.tenants}
        more = meter.read()
        if len(served) == 2:
            stretches[-1].append((more, served[ONE] - served[OTHER]))
        elif stretches[-1]:
            stretches.append([])
        if world.now < job.seconds:
            world.at(world.now + LOOK, look)

    world.at(LOOK, look)
    simulation.run()
    given = booked = 0.0
    for stretch in filter(None, stretches):
        given = max(given, *(abs(more - stretch[0][0]) for more, _ in stretch))
        booked = max(booked, *(abs(apart - stretch[0][1]) for _, apart in stretch))
    return given, booked, len(simulation.log)


class Counted:
    """One request in an engine: what it has been given, as far as it was counted."""

    def __init__(self, attempt: Try, sequence: CountedSequence) -> None:
        self.attempt = attempt
        self.sequence = sequence
        self.sign = 1.0 if attempt.owner.request.caller.org == ONE else -1.0
        self.computed = self.written = 0  # tokens

    def more(self, each: float) -> float:
        """Engine seconds since this was last asked, where a token of an answer takes `each` of them."""
        sequence = self.sequence
        uncached = sequence.prompt_length - sequence.cached
        computed = uncached if sequence.generated else max(0, sequence.computed - sequence.cached)
        new, self.computed = max(0, computed - self.computed), max(self.computed, computed)
        tokens, self.written = sequence.generated - self.written, sequence.generated
        return self.sign * (new * MODEL_A.per_prefill_token + tokens * each)


class Meter:
    """By how many engine seconds one tenant has been given more than the other: from the engines' own schedulers.

    A computed prompt token counts what it takes; a token of an answer, its share of a step of as many as run there now.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._engines: list[tuple[Engine, dict[int, Counted]]] = [(engine, {}) for engine in simulation.engines]
        self._given = 0.0

    def read(self) -> float:
        """Now. To be asked often: what begins and ends in between is not seen."""
        for engine, counted in self._engines:
            running = engine.model.scheduler.running
            each = MODEL_A.step / max(1, sum(one.decoding for one in running)) + MODEL_A.per_sequence
            for name, attempt in engine.calls.items():
                if name not in counted and isinstance(attempt.token, EngineCall):
                    counted[name] = Counted(attempt, attempt.token.sequence)
            for name, one in list(counted.items()):
                self._given += one.more(each)
                if one.attempt.over:
                    del counted[name]
        return self._given


def _timed(tenants: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**tenant, "duration": f"{tenant['duration']:g}s"} for tenant in tenants]


LOADS = {"within capacity": 1.0, "beyond capacity": 2.5}  # the quiet one's requests/s; four replicas manage about 20


def fair(scale: Scale) -> Part:
    seconds = max(10.0, 180.0 * scale.share)
    seeds = range(1, scale.seeds + 1)
    kinds = [("solo", 0.0, "queue"), ("beside the noise", NOISE, "queue"), ("the same, no queue", NOISE, "at once")]
    jobs = [
        Neighbours(rate, noise, seed, seconds, policy)
        for rate in LOADS.values()
        for _, noise, policy in kinds
        for seed in seeds
    ]
    found = iter(on_all_cores(neighbours, jobs))
    said = [f"| quiet tenant's p99 TTFT s, {scale.seeds} seeds as one | " + " | ".join(k for k, _, _ in kinds) + " |"]
    said.append("|---" * (len(kinds) + 1) + "|")
    verdicts = []
    for name, rate in LOADS.items():
        p99s = [percentile(sorted(one for _ in seeds for one in next(found)), 0.99) for _ in kinds]
        said.append(f"| {rate:g}/s and {rate * NOISE:g}/s, {name} | " + " | ".join(f"{p:.2f}" for p in p99s) + " |")
        raised = p99s[1] / (p99s[0] or 1e-9)
        verdicts.append(
            Verdict(
                f"a neighbour with {NOISE} times the traffic, {name}: p99 TTFT at most {MOST_RAISED} times as alone",
                f"{raised:.2f} times ({p99s[1]:.2f} s, {p99s[0]:.2f} s)",
                raised <= MOST_RAISED,
            )
        )
    for alike, shapes in ((True, "alike"), (False, "one with long prompts, one with long answers")):
        apart = on_all_cores(backlogged, [Backlogged(alike, seed, seconds) for seed in seeds])
        given, booked = (max(each) / QUANTUM for each in list(zip(*apart, strict=True))[:2])
        verdicts.append(
            Verdict(
                f"service of two backlogged tenants ({shapes}) at most {MOST_QUANTA:g} quanta of {QUANTUM:g} s apart",
                f"{given:.2f} quanta (in the queue's own books {booked:.2f})",
                given <= MOST_QUANTA,
            )
        )
    return Part("A noisy neighbour", said, verdicts)


# --- brown-out: everything is slow for a while ---

STEP = 5.0  # seconds of one point
SMOOTHED = 30.0  # seconds that are one figure: in 5 s some 60 requests come, of which 2 more or less mean nothing


@dataclass(frozen=True)
class Played:
    """A scenario of the examples under one of its policies."""

    file: str
    policy: str
    seed: int


def play(job: Played) -> tuple[Results, Log]:
    path = SCENARIOS / job.file
    read_one = scenarios.load_scenario(path.read_text(), job.file)
    chosen = next(one for one in read_one.policies if one.name == job.policy)
    simulation = scenarios.build(
        read_one,
        chosen,
        TRACES,
        job.seed,
    )
    simulation.run()
    return simulation.results(read_one.slo), simulation.log


@dataclass(frozen=True)
class Course:
    """How it went, by time of arrival in steps of `STEP` seconds."""

    good: list[float]  # share that met the SLO
    attempts: list[float]  # per request
    extra: float  # attempts per request beyond the first, of the whole run


def course(job: Played) -> Course:
    results, log = play(job)
    n = int(max(log.arrived) // STEP) + 1
    asked, good, attempts = [0] * n, [0] * n, [0] * n
    slo = results.slo
    for i, arrived in enumerate(log.arrived):
        at = int(arrived // STEP)
        asked[at] += 1
        attempts[at] += log.attempts[i]
        if not log.failed[i]:
            itl = (log.ended[i] - log.first[i]) / max(1, log.output[i] - 1)
            good[at] += log.first[i] - arrived <= slo.ttft and itl <= slo.itl
    return Course(
        [g / max(1, a) for g, a in zip(good, asked, strict=True)],
        [t / max(1, a) for t, a in zip(attempts, asked, strict=True)],
        results.extra_attempts,
    )


BROWN_OUT = (60.0, 90.0)  # seconds: from when to when
NAIVE, OURS = "naive", "penstock"


def recovery(good: Sequence[float], until: float) -> float:
    """Seconds after `until` from which on the goodput of every half minute is what it was before; inf: it never is."""
    before = mean(good[: int(BROWN_OUT[0] / STEP)])
    window = int(SMOOTHED / STEP)
    back = float("inf")
    for at in range(len(good) - window, int(until / STEP) - 1, -1):
        if mean(good[at : at + window]) < RECOVERED * before:
            break
        back = at * STEP - until
    return back


def brownout(scale: Scale) -> Part:
    seeds = range(1, scale.seeds + 1)
    jobs = [
        Played("brown_out.yaml", policy, seed)
        for policy in (OURS, NAIVE)
        for seed in (seeds if scale.share == 1.0 else (1,))
    ]
    found: dict[str, list[Course]] = {OURS: [], NAIVE: []}
    for job, one in zip(jobs, on_all_cores(course, jobs), strict=True):
        found[job.policy].append(one)
    said = [
        "| examples/scenarios/brown_out.yaml | goodput before | last minute | recovers after s | extra attempts |",
        "|---|---|---|---|---|",
    ]
    last: dict[str, float] = {}
    for policy, courses in found.items():
        before = mean(share for one in courses for share in one.good[: int(BROWN_OUT[0] / STEP)])
        last[policy] = mean(share for one in courses for share in one.good[-int(60 / STEP) :]) / (before or 1e-9)
        backs = [recovery(one.good, BROWN_OUT[1]) for one in courses]
        told = " ".join("never" if back == float("inf") else f"{back:.0f}" for back in backs)
        said.append(
            f"| {policy} | {before:.3f} | {last[policy] * before:.3f} | {told} | "
            f"{spread((one.extra for one in courses), 2)} |"
        )
    slowest = max(recovery(one.good, BROWN_OUT[1]) for one in found[OURS])
    extra = max(one.extra for one in found[OURS])
    verdicts = [
        Verdict(
            "a brown-out with naive retries: the service collapses (goodput of the last minute under half)",
            f"{last[NAIVE]:.0%} of what it was",
            last[NAIVE] <= COLLAPSED,
        ),
        Verdict(
            f"with ours it recovers within {WITHIN:g} s of the fault's end",
            "never" if slowest == float("inf") else f"{slowest:.0f} s",
            slowest <= WITHIN,
        ),
        Verdict("and extra load stays within 20 %", f"{extra:.1%}", extra <= MOST_EXTRA),
    ]
    record: dict[str, object] = {
        policy: [{"good": one.good, "attempts": one.attempts} for one in courses] for policy, courses in found.items()
    }
    return Part("A brown-out", said, verdicts, record)


# --- faults: one replica of several ---

N_REPLICAS, RATE = 4, 9.0
FAULT_AT, FAULT_LASTS = 60.0, 60.0


@dataclass(frozen=True)
class Fault:
    """One of `replicas` dies, hangs or slows; none: all are well."""

    what: str
    replicas: int
    seed: int
    seconds: float


@dataclass(frozen=True)
class Survived:
    silent: int  # requests that failed before their first token
    broken: int  # requests that failed after it
    good: float  # share that met the SLO, of those that arrived while the fault lasted
    p99: float  # TTFT of these


def strike(job: Fault) -> Survived:
    arrivals = {"arrivals": {"kind": "poisson", "rate": RATE}, "duration": f"{job.seconds:g}s", **CHAT}
    simulation = Simulation(
        fleet(job.replicas),
        traffic(arrivals, job.seed),
        plans={"": Plan((POOL,))},
        queue=QueueOptions(),
        seed=job.seed,
    )
    happen: dict[str, Callable[[str], None]] = {
        "killed": simulation.engines.die,
        "hung": simulation.engines.hang,
        "slowed 10x": lambda name: simulation.engines.slow_down(name, 10.0),
    }
    begin, end = (at * job.seconds / 180.0 for at in (FAULT_AT, FAULT_AT + FAULT_LASTS))
    if job.what in happen:
        simulation.world.at(begin, lambda: happen[job.what](f"{POOL}-0"))
        simulation.world.at(end, lambda: simulation.engines.come_back(f"{POOL}-0"))
    simulation.run()
    log = simulation.log
    during = [i for i, arrived in enumerate(log.arrived) if begin <= arrived < end]
    failed = [i for i in range(len(log)) if log.failed[i]]
    silent = sum(1 for i in failed if isnan(log.first[i]))
    ttfts = sorted(log.first[i] - log.arrived[i] for i in during if not isnan(log.first[i]))
    met = sum(
        1
        for i in during
        if not log.failed[i]
        and log.first[i] - log.arrived[i] <= GOOD.ttft
        and (log.ended[i] - log.first[i]) / max(1, log.output[i] - 1) <= GOOD.itl
    )
    return Survived(silent, len(failed) - silent, met / max(1, len(during)), percentile(ttfts, 0.99))


def faults(scale: Scale) -> Part:
    seconds = max(18.0, 180.0 * scale.share)
    seeds = range(1, scale.seeds + 1)
    rows = {
        "all are well": ("none", N_REPLICAS),
        "one less, all well": ("none", N_REPLICAS - 1),
        "killed": ("killed", N_REPLICAS),
        "hung": ("hung", N_REPLICAS),
        "slowed 10x": ("slowed 10x", N_REPLICAS),
    }
    jobs = [Fault(what, n, seed, seconds) for what, n in rows.values() for seed in seeds]
    done = iter(on_all_cores(strike, jobs))
    found = {name: [next(done) for _ in seeds] for name in rows}
    said = [
        f"{N_REPLICAS} replicas, {RATE:g} requests/s, for a third of the time one is out; SLO: first token within "
        f"{GOOD.ttft:g} s, {GOOD.itl * 1e3:g} ms between tokens. That one less suffices is known from running so.",
        "",
        "| | met the SLO then | TTFT p99 s | failed before the first token | after it |",
        "|---|---|---|---|---|",
    ]
    said += [
        f"| {name} | {spread((one.good for one in each), 3)} | {spread((one.p99 for one in each), 2)} | "
        f"{sum(one.silent for one in each)} | {sum(one.broken for one in each)} |"
        for name, each in found.items()
    ]
    suffices = mean(one.good for one in found["one less, all well"]) >= KEPT
    return Part("One replica fails", said, list(_judge_faults(found, suffices)))


def _judge_faults(found: dict[str, list[Survived]], suffices: bool) -> Iterable[Verdict]:
    for name in ("killed", "hung", "slowed 10x"):
        silent = sum(one.silent for one in found[name])
        good = mean(one.good for one in found[name])
        yield Verdict(f"a replica {name}: no request fails before its first token", f"{silent}", silent == 0)
        yield Verdict(
            f"a replica {name}: {KEPT:.0%} meet the SLO, as one less suffices",
            f"{good:.1%}" if suffices else "one less does not suffice at this load",
            good >= KEPT if suffices else None,
        )
