"""What the simulated parts of `bench/routing.py` share: one simulation as a job for any process, and many at once.

A job is named, not built: a system (ours, or a rival), a fleet, a traffic, a seed. The same job gives the same results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import fmean
from typing import TypeVar

import msgspec
import rivals
from gateway import ROOT, Verdict

from penstock.balancing.balancer import Balancer
from penstock.balancing.queue_options import QueueOptions
from penstock.cli.trace_files import open_trace
from penstock.sim.cost_model import MODEL_A
from penstock.sim.engine_model import EngineModel
from penstock.sim.results import Results, Slo
from penstock.sim.run import Deployment, Listed, Simulation, balanced_by
from penstock.traffic.arrival import Arrival
from penstock.traffic.options import read
from penstock.traffic.source import Source

DATA = ROOT.parent / "shared" / "data"
MOONCAKE = DATA / "traces" / "mooncake" / "conversation_first_half.jsonl"
TRACES = open_trace(Path())  # by their whole paths
POOL = "main"
GOOD = Slo(ttft=2.0, itl=0.050)

PENSTOCK = "Penstock"
FCFS, AT_ONCE = "Penstock, order: fcfs", "Penstock, no queue"
QUEUES = {PENSTOCK: QueueOptions(), FCFS: QueueOptions(order="fcfs")}
NAMED = {"round robin": "round_robin", "least requests": "least_requests"}
RIVALS = (*NAMED, *rivals.RIVALS)
SYSTEMS = (*RIVALS, AT_ONCE, FCFS, PENSTOCK)

Told = TypeVar("Told")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Scale:
    """How much of it is run: all of it for figures, a little to see that the bench itself works."""

    seeds: int = 5
    requests: int | None = None  # of a trace; None: all
    share: float = 1.0  # of the time, or the number, that a part takes

    def cut(self, n: int) -> int:
        return max(1, round(n * self.share))


@dataclass
class Part:
    """What one part has to say."""

    title: str
    said: list[str]  # lines of Markdown: what was measured, and the tables
    verdicts: list[Verdict]
    record: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Replay:
    """The Mooncake trace against so many workers of cost model A, under one system."""

    system: str
    workers: int
    speed: float  # times as fast as it was recorded
    seed: int
    requests: int | None = None
    evenly: bool = False  # the same requests in the same order, with the same time between any two


@dataclass(frozen=True)
class Replayed:
    job: Replay
    results: Results
    queued: float  # share of requests that had to wait for others' prompts, or for room; 0..1


def arrivals(speed: float, requests: int | None, evenly: bool = False) -> Iterable[Arrival]:
    """Of the Mooncake trace, whose order no seed changes."""
    options = {"arrivals": {"kind": "trace", "file": str(MOONCAKE), "format": "mooncake"}, "speed": speed}
    source = Source(read(options), TRACES, Random(0))
    found = list(islice(iter(source.next, None), requests))
    if evenly:
        gap = found[-1].at / len(found)
        found = [msgspec.structs.replace(one, at=place * gap) for place, one in enumerate(found)]
    return found


def replay(job: Replay) -> Replayed:
    known: dict[str, Simulation] = {}
    simulation = known["it"] = Simulation(
        {POOL: Deployment(replicas=job.workers, engine=MODEL_A)},
        Listed(arrivals(job.speed, job.requests, job.evenly)),
        balancer=balancer_of(job.system, lambda name: known["it"].engines.by_name[name].model),
        queue=QUEUES.get(job.system),
        seed=job.seed,
    )
    simulation.run()
    return Replayed(job, simulation.results(GOOD), _queued(simulation))


def balancer_of(system: str, look: Callable[[str], EngineModel]) -> Balancer:
    """Ours with its defaults; others' rules in its place."""
    if system in rivals.RIVALS:
        return rivals.balanced_by_rival(system, POOL, look)
    if system in NAMED:
        return balanced_by(NAMED[system])
    return Balancer()


def _queued(simulation: Simulation) -> float:
    """Those whose first token came later than twice what their own prompt and a step take, and a tenth of a second."""
    log = simulation.log
    late = 0
    for arrived, first, prompt, cached in zip(log.arrived, log.first, log.prompt, log.cached, strict=True):
        alone = (prompt - cached) * MODEL_A.per_prefill_token + MODEL_A.step
        late += first - arrived > 2 * alone + 0.1
    return late / max(1, len(log))


def on_all_cores(work: Callable[[Told], Made], jobs: Sequence[Told]) -> list[Made]:
    """The answers, in the order of the jobs."""
    workers = min(len(jobs), os.cpu_count() or 1)
    if workers <= 1:
        return [work(job) for job in jobs]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, jobs))


def mean(values: Iterable[float]) -> float:
    return fmean(values)


def spread(values: Iterable[float], digits: int) -> str:
    """Their mean, and half of the distance between the least and the largest."""
    known = list(values)
    half = (max(known) - min(known)) / 2
    return f"{fmean(known):.{digits}f}" + (f" ± {half:.{digits}f}" if len(known) > 1 else "")


def absent(path: Path) -> str:
    """What a person is told who does not have the data."""
    return f"{path.relative_to(ROOT.parent)} is not here: nothing of this is measured, and nothing is met"
