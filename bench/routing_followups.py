"""Part `followups` of `bench/routing.py`: how soon the embedded engine answers the later turns of a conversation.

Two replicas of the bundled model behind `penstock serve`; users who converse in turns, after a long text. What is
compared: the same traffic, once as shipped, where a turn goes to the replica that holds the turns before it, and once
with the prefix cache of both engines off, where every turn is computed from its first word.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import fmean, median

import machine
from gateway import ROOT, Verdict
from machine import LOAD_CORE, Child
from routing_http import SAMPLES, load, start_penstock, wait_for
from routing_simulated import Part, Scale

MODEL = "tiny"
REPLICAS = 2
LOWER = 3.0  # times
TRAFFIC = """\
traffic:
  arrivals: { kind: users, users: 2 }
  shared_prefix: { tokens: 1200, prompts: 100000 }  # so many that each conversation has its own
  prompt_tokens: { kind: uniform, min: 20, max: 60 }
  output_tokens: 16
  turns: 6
  think: 300ms
  context_tokens: 2000
"""
REQUESTS = 240
SHIPPED, OFF = "as shipped", "prefix cache off"
ENGINE = (
    "from penstock.engine.options import EngineOptions; from penstock.engine.replica import run_engine; "
    "run_engine(EngineOptions(model={model!r}, port={port}, prefix_cache={cache}, kv_tokens=65_536))"
)


def measure(scale: Scale) -> Part:
    machine.check()
    requests = scale.cut(REQUESTS)
    found = {name: converse(cache, requests) for name, cache in ((SHIPPED, True), (OFF, False))}
    said = [
        f"{REPLICAS} replicas of `{MODEL}` behind `penstock serve`, {requests} requests of 2 users: conversations of 6 "
        "turns after a text of 1,200 tokens. TTFT from sending, ms.",
        "",
        "| | first turn, mean | turn 2+, mean | p50 | cached of their prompts |",
        "|---|---|---|---|---|",
    ]
    means = {}
    for name, samples in found.items():
        first = [_ttft(one) for one in samples if not one.get("turn")]
        later = [one for one in samples if one.get("turn")]
        ttfts = [_ttft(one) for one in later]
        cached = sum(one.get("cached_tokens") or 0 for one in later) / sum(one["prompt_tokens"] for one in later)
        means[name] = fmean(ttfts)
        said.append(f"| {name} | {fmean(first):.1f} | {means[name]:.1f} | {median(ttfts):.1f} | {cached:.1%} |")
    ratio = means[OFF] / means[SHIPPED]
    verdict = Verdict(
        f"mean TTFT of turn 2+ at least {LOWER:g} times lower than without prefix reuse",
        f"{ratio:.1f} times",
        ratio >= LOWER,
    )
    return Part("Follow-ups on the embedded engine", said, [verdict])


def _ttft(sample: dict[str, float]) -> float:
    """Milliseconds."""
    return 1e3 * (sample["first"] - sample["sent"])


def converse(cache: bool, requests: int) -> list[dict[str, float]]:
    """The samples of one run; all went well."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as place:
        folder = Path(place)
        first = machine.free_ports(REPLICAS + 1)
        ports = [first + 1 + number for number in range(REPLICAS)]
        children: list[Child] = []
        try:
            for number, port in enumerate(ports):
                code = ENGINE.format(model=MODEL, port=port, cache=cache)
                core = (LOAD_CORE, 0)[number % 2]
                environ = {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))}
                log = folder / f"engine-{port}.log"
                children.append(Child([sys.executable, "-c", code], core=core, log=log, environ=environ))
            for port, engine in zip(ports, children, strict=True):
                wait_for(f"http://127.0.0.1:{port}/health", engine)
            gateway = start_penstock(folder, first, ports, MODEL)
            children.append(gateway)
            wait_for(f"http://127.0.0.1:{first}/v1/models", gateway)
            load(folder, first, MODEL, TRAFFIC, 1, requests)
        finally:
            for child in children:
                child.stop()
        samples = [json.loads(line) for line in (folder / SAMPLES).read_text().splitlines()]
    failed = [one for one in samples if one.get("failure")]
    assert not failed, f"{len(failed)} of {len(samples)} failed, the first: {failed[0]}"
    return samples
