"""Parts `decisions` and `simulator` of `bench/routing.py`: how long deciding takes, and how fast it can be simulated.

Each figure is from a process of its own, in CPU seconds of that process: others use the machine too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from gateway import Verdict
from machine import Unusable
from routing_simulated import GOOD, POOL, Part, Scale

from penstock.sim import engine_model
from penstock.sim.cost_model import CostModel
from penstock.sim.run import Deployment, Listed, Simulation
from penstock.traffic.arrival import Arrival

HERE = Path(__file__).parent
MICRO = HERE / "routing_micro.py"
P50, P99 = 40.0, 150.0  # microseconds
FLAT = 0.10  # more memory at the last count of blocks than at the middle one
REPETITIONS = 3
LEAST_SPEED = 50_000  # requests per second of CPU, at 16 replicas
MANY, HOUR, MOST_SECONDS = 1_000, 3_600.0, 300.0
# Short questions and answers for an engine that is quick with them: what is measured is the simulator, not the engine.
SHORT = CostModel(step=0.005, per_sequence=0.000_1, per_prefill_token=1e-5)
EACH = 0.2  # requests per second of each of a thousand replicas: an hour of 720,000


def how() -> str:
    return "compiled" if engine_model.__file__.endswith(".so") else "interpreted"


# --- decisions ---


def decisions(scale: Scale) -> Part:
    """The least of some runs of the micro bench, which is the least disturbed one; then its memory."""
    p50s, p99s, compiled = [], [], False
    for _ in range(scale.cut(REPETITIONS)):
        told = _micro()
        compiled = told.startswith("compiled")
        found = re.search(r"^ +64 replicas, .*choose p50 +([\d.]+) us +p99 +([\d.]+) us", told, re.MULTILINE)
        if found is None:
            raise Unusable(f"{MICRO.name} says nothing of 64 replicas:\n{told}")
        p50s.append(float(found[1]))
        p99s.append(float(found[2]))
    said = [
        f"{MICRO.name}, {'compiled' if compiled else 'interpreted'}: choosing among 64 replicas with 100,000 indexed "
        f"blocks takes {min(p50s):.1f} us (p50), {min(p99s):.1f} us (p99); CPU, the best of {len(p50s)} runs."
    ]
    verdicts = [
        Verdict(f"a decision takes at most {P50:g} us, p50", f"{min(p50s):.1f} us", min(p50s) <= P50),
        Verdict(f"a decision takes at most {P99:g} us, p99", f"{min(p99s):.1f} us", min(p99s) <= P99),
    ]
    if scale.share == 1.0:
        kept = _memory(_micro("--memory"))
        middle, last = kept[len(kept) // 2], kept[-1]
        said += ["", "| distinct blocks sent | kept | MB resident |", "|---|---|---|"]
        said += [f"| {sent:,} | {held:,} | {megabytes:.1f} |" for sent, held, megabytes in kept]
        verdicts.append(
            Verdict(
                f"memory of the index flat over {last[0]:,} distinct blocks",
                f"{middle[2]:.1f} MB after {middle[0]:,}, {last[2]:.1f} MB after {last[0]:,}",
                last[2] <= (1 + FLAT) * middle[2],
            )
        )
    return Part("Decisions", said, verdicts)


def _micro(*options: str) -> str:
    """What it prints. It imports what this process does."""
    done = subprocess.run([sys.executable, MICRO, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unusable(f"{MICRO.name} failed:\n{done.stderr[-2_000:]}")
    return done.stdout


def _memory(told: str) -> list[tuple[int, int, float]]:
    """(distinct blocks sent, kept, MB resident)."""
    rows = re.findall(r"^ *([\d,]+) distinct blocks sent, +([\d,]+) kept: +([\d.]+) MB", told, re.MULTILINE)
    if not rows:
        raise Unusable(f"{MICRO.name} says nothing of memory:\n{told}")
    return [(int(sent.replace(",", "")), int(kept.replace(",", "")), float(used)) for sent, kept, used in rows]


# --- simulator ---


def simulate(replicas: int, per_second: float, requests: int) -> tuple[float, float]:
    """CPU seconds, and simulated seconds."""
    rng = Random(1)

    def come() -> list[Arrival]:
        now, made = 0.0, []
        for number in range(requests):
            now += rng.expovariate(per_second)
            made.append(Arrival(number, now, 64, 16))
        return made

    simulation = Simulation({POOL: Deployment(replicas=replicas, engine=SHORT)}, Listed(come()), seed=1)
    begun = time.process_time()
    simulation.run()
    took = time.process_time() - begun
    results = simulation.results(GOOD)
    assert results.completed == requests, f"{requests - results.completed} requests were not answered"
    return took, results.duration


def simulator(scale: Scale) -> Part:
    n = scale.cut(100_000)
    best = min(simulate(16, 1_000.0, n)[0] for _ in range(scale.cut(REPETITIONS)))
    hour = scale.cut(round(EACH * MANY * HOUR))
    took, simulated = simulate(MANY, EACH * MANY, hour)
    whole = took * HOUR / simulated
    said = [
        f"{how()}; 64 prompt tokens and 16 of output each, without a queue. 16 replicas, 1,000 requests/s: "
        f"{n / best:,.0f} requests per CPU second. {MANY:,} replicas, {EACH * MANY:g} requests/s, {simulated:,.0f} s: "
        f"{took:.0f} s of CPU."
    ]
    return Part(
        "The simulator",
        said,
        [
            Verdict(
                f"at least {LEAST_SPEED:,} requests/s on one core at 16 replicas ({how()})",
                f"{n / best:,.0f}",
                n / best >= LEAST_SPEED,
            ),
            Verdict(
                f"{MANY:,} replicas for an hour in under 5 minutes ({EACH:g} requests/s each)",
                f"{whole:.0f} s",
                whole < MOST_SECONDS,
            ),
        ],
        {"cores": os.cpu_count(), "how": how()},
    )
