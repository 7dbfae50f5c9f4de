"""Part `http` of `bench/routing.py`: Penstock and other people's routers, over HTTP, before the same engines.

The engines are processes with the simulator's engine in them (`modelled_engine.py`), `SPEED` times as fast as cost
model A, and the trace comes as many times as fast: queues, caches and lengths are those of the simulation, and a second
here is `SPEED` of its. Prompts are as long as in the trace, tens of kilobytes each. Every router runs alone, in turn,
and gets other texts, so that no engine remembers the last one's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import machine
import peers
from gateway import ROOT, Verdict
from machine import GATEWAY_CORE, LOAD_CORE, Child, Unusable
from modelled_engine import MODEL
from routing_simulated import MOONCAKE, Part, Scale, absent, mean
from stacks import all_stacks

HERE = Path(__file__).parent
WORKERS, SPEED = 8, 4.0
REQUESTS = 2_400  # of the trace, which takes two and a half minutes
ROUNDS = 2
START_SECONDS = 40.0
BUSY = 0.5  # share of a core; above it the machine is measured and not the router
PENSTOCK = "Penstock"
TRACE_SPEED = 1.25
SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class Asked:
    """One router, once. Seconds as measured; `busy`: the share of a core that the busiest of those beside it used."""

    ttft: float
    p99: float
    e2e: float
    cached: float
    failed: int
    router_busy: float
    busy: float


def measure(scale: Scale) -> Part:
    if not MOONCAKE.exists():
        return Part("Over HTTP", [absent(MOONCAKE)], [Verdict(absent(MOONCAKE), "-", None)])
    machine.check()
    found: dict[str, list[Asked]] = {}
    missing: list[str] = []
    for round_number in range(scale.cut(ROUNDS)):
        for name, (start, why_not) in ROUTERS.items():
            if reason := why_not():
                if round_number == 0:
                    missing.append(f"{name}: {reason}")
                continue
            asked = ask(start, seed=1 + round_number, requests=scale.cut(REQUESTS))
            found.setdefault(name, []).append(asked)
    said = [
        f"{WORKERS} engine processes with cost model A, {SPEED:g} times as fast; Mooncake conversation "
        f"x{TRACE_SPEED:g}, as many times as fast, {scale.cut(REQUESTS):,} requests, "
        f"{scale.cut(ROUNDS)} rounds. Seconds as measured.",
        "",
        "| | TTFT mean s | p99 s | E2E mean s | cached | failed | router's core | busiest beside it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in found.items():
        label = f"{name} {peers.version(name)}".strip() if name in peers.PEERS else name
        said.append(
            f"| {label} | {_each(each, lambda a: a.ttft)} | {_each(each, lambda a: a.p99)} | "
            f"{_each(each, lambda a: a.e2e)} | {mean(a.cached for a in each):.3f} | {sum(a.failed for a in each)} | "
            f"{mean(a.router_busy for a in each):.0%} | {max(a.busy for a in each):.0%} |"
        )
    said += [f"\nNot measured: {line}." for line in missing]
    record: dict[str, object] = {name: [vars(one) for one in each] for name, each in found.items()}
    return Part("Over HTTP", said, list(_judge(found)), record)


def _each(found: list[Asked], of: Callable[[Asked], float]) -> str:
    return " ".join(f"{of(one):.3f}" for one in found)


def _judge(found: dict[str, list[Asked]]) -> Iterable[Verdict]:
    ours = found[PENSTOCK]
    busiest = max(max(one.busy, one.router_busy) for each in found.values() for one in each)
    yield Verdict("nothing uses more than half of a core", f"{busiest:.0%}", busiest <= BUSY)
    failed = sum(one.failed for one in ours)
    yield Verdict("Penstock answers every request", f"{failed} failed", failed == 0)
    for name in ROUTERS:
        if name == PENSTOCK:
            continue
        if name not in found:
            yield Verdict(f"mean and p99 TTFT below those of {name}", "-", None)
            continue
        for what, of in (("mean", lambda a: a.ttft), ("p99", lambda a: a.p99)):
            mine, its = mean(map(of, ours)), mean(map(of, found[name]))
            yield Verdict(f"{what} TTFT below that of {name}", f"{mine:.3f} s, {its:.3f} s", mine < its)


# --- one run ---


def ask(start: Callable[[Path, int, list[int]], Child], seed: int, requests: int) -> Asked:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as place:
        folder = Path(place)
        first = machine.free_ports(WORKERS + 2)
        ports = list(range(first + 2, first + 2 + WORKERS))
        children: list[Child] = []
        try:
            for port in ports:
                engine = [sys.executable, HERE / "modelled_engine.py", str(port), f"{SPEED:g}"]
                sources = {"PYTHONPATH": str(ROOT)}  # the engine's clock is not the simulator's
                children.append(Child(engine, core=LOAD_CORE, log=folder / f"engine-{port}.log", environ=sources))
            for port, engine_process in zip(ports, children, strict=True):
                wait_for(f"http://127.0.0.1:{port}/health", engine_process)
            router = start(folder, first, ports)
            children.append(router)
            wait_for(f"http://127.0.0.1:{first}/v1/models", router)
            engines = children[:-1]
            before = [machine.cpu_seconds(child.pid) for child in children]
            begun = time.monotonic()
            trace = f"{{ kind: trace, file: {MOONCAKE}, format: mooncake }}"
            traffic = f"traffic:\n  arrivals: {trace}\n  speed: {TRACE_SPEED * SPEED:g}\n"
            told, load_busy = load(folder, first, MODEL, traffic, seed, requests)
            seconds = time.monotonic() - begun
            used = [machine.cpu_seconds(child.pid) - was for child, was in zip(children, before, strict=True)]
        finally:
            for child in children:
                child.stop()
    results = told["results"]
    return Asked(
        ttft=results["ttft"]["mean"],
        p99=next(p["value"] for p in results["ttft"]["percentiles"] if p["percent"] == 99.0),
        e2e=results["e2e"]["mean"],
        cached=results["cached_fraction"] or 0.0,
        failed=sum(results["failures"].values()),
        router_busy=used[-1] / seconds,
        busy=max(sum(used[: len(engines)]) / seconds, load_busy),
    )


def load(
    folder: Path, port: int, model: str, traffic: str, seed: int, requests: int
) -> tuple[dict[str, dict[str, Any]], float]:
    """What `penstock load` reports, and the share of a core that it used. Its samples are in `folder`."""
    (folder / "traffic.yaml").write_text(traffic)
    report = folder / "load.json"
    command = [sys.executable, "-m", "penstock.cli.main", "load", f"http://127.0.0.1:{port}", "--model", model]
    command += ["--traffic", folder / "traffic.yaml", "--requests", str(requests), "--seed", str(seed), "--exact"]
    command += ["--json", report, "--samples", folder / SAMPLES]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PENSTOCK_API_KEY": key()}
    before, begun = os.times(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    after, seconds = os.times(), time.monotonic() - begun
    if not report.exists():
        raise Unusable(f"penstock load failed:\n{done.stderr[-2_000:]}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(report.read_text()), used / seconds


def wait_for(url: str, child: Child) -> None:
    until = time.monotonic() + START_SECONDS
    asked = urllib.request.Request(url, headers={"authorization": f"Bearer {key()}"})
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=5):
                return
        except OSError as error:
            if child.process.poll() is not None or time.monotonic() > until:
                raise Unusable(f"{url} does not answer ({error}):\n{child.last_words()}") from None
            time.sleep(0.1)


# --- the routers ---


def key() -> str:
    """Penstock's; the others ask for none."""
    return next(stack.key for stack in all_stacks() if stack.name == "penstock")


def start_penstock(folder: Path, port: int, engines: list[int], model: str = MODEL) -> Child:
    """With all of its defaults."""
    from penstock.core.keys import digest

    urls = ", ".join(f"http://127.0.0.1:{engine}/v1" for engine in engines)
    (folder / "penstock.yaml").write_text(
        f"models: {{ {model}: {{ deployments: [pool] }} }}\n"
        f"deployments: {{ pool: {{ engine: [{urls}], served: {model} }} }}\n"
        f"keys: [{{ id: bench, tenant: bench, sha256: {digest(key())} }}]\n"
        f"server: {{ host: 127.0.0.1, port: {port}, access_log: {folder / 'access.log'} }}\n"
        "store: { database: off }\n"
    )
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "--config", folder / "penstock.yaml"]
    python = {"PYTHONPATH": str(penstock()), "PYTHONSAFEPATH": "1"}
    return Child(command, core=GATEWAY_CORE, log=folder / "router.log", environ=python)


def penstock() -> Path:
    """Where it is imported from: what this process imports."""
    return Path(import_module("penstock").__path__[0]).parent


def _start_router(name: str, *verb: str) -> Callable[[Path, int, list[int]], Child]:
    """With its cache-aware policy, and that with its defaults."""

    def start(folder: Path, port: int, engines: list[int]) -> Child:
        command: list[str | Path] = [peers.program(name), *verb, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", *(f"http://127.0.0.1:{engine}" for engine in engines)]
        command += ["--policy", "cache_aware", "--log-level", "error"]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(port + 1)]
        return Child(command, core=GATEWAY_CORE, log=folder / "router.log")

    return start


def _missing(name: str) -> Callable[[], str]:
    return lambda: "" if peers.program(name).exists() else f"not installed (python bench/peers.py {name})"


ROUTERS: dict[str, tuple[Callable[[Path, int, list[int]], Child], Callable[[], str]]] = {
    PENSTOCK: (start_penstock, lambda: ""),
    "sglang-router": (_start_router("sglang-router", "launch"), _missing("sglang-router")),
    "vllm-router": (_start_router("vllm-router"), _missing("vllm-router")),
}
