"""What the gateway costs, beside nginx and other gateways, in the same run: `python bench/gateway.py`.

Every gateway runs alone on core 0; the mock upstream and the load generator (both C) share core 1. Repetitions are
interleaved, so that a noisy minute hits all alike; each figure is the best repetition (the least disturbed one), with
the median beside it. Cost is CPU time of the whole process tree, because wall time on a shared machine says little.
Trust the ratios, not the absolute figures. "waited" is the share of time in
which the gateway was ready to run and others had its core: above 10 % a run is disturbed, and whatever depends on wall
time looks worse than it is. A run whose answers are not all right is an error, not a figure.

    --quick             one short repetition
    --only A,B5         A, B5, L, latency, C5000, start, import
    --stacks a,b        direct, nginx, penstock, vllm-router, sglang-router, litellm
    --repetitions 3
    --write             put the table into docs/figures.md
    --nice -20          priority of everything that is measured (below 0 needs root)

Ends with 1 when a target is missed or an answer of Penstock was not right, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import peers
from machine import LOAD_CORE, Child, Unusable
from stacks import MODEL, ROOT, Place, Stack, all_stacks, penstock_as_shipped

HERE = Path(__file__).parent
BUILD = HERE / ".build"
RESULTS = HERE / "results"
FIGURES = ROOT / "docs" / "figures.md"
N_REPLICAS = 4
MEASURES = ("A", "B5", "X", "XB5", "L", "latency", "C5000", "start", "import")
MESSAGES = "/v1/messages"

Figures = dict[str, float]


# ---------------------------------------------------------------- what is sent


def _body(text: str, *, events: int = 0, interval_us: int = 0) -> bytes:
    """A chat request of about 900 bytes plus `text`; a stream when `events` are asked for."""
    system = (
        "You are a careful assistant for the operators of a large fleet of model servers. Answer briefly, name the "
        "trade-offs, and say what you do not know. Prefer figures over adjectives, and say where they come from. "
        "When the question is about routing, think of queue depth, cached prefixes and the cost of being wrong. "
        "Answer in plain text, without headings, in at most six sentences, and end with the one thing you would "
        "measure first if you had an hour and two cores."
    )
    question = (
        "Compare least-active routing with round robin for replicas of one model, when request lengths differ by two "
        "orders of magnitude and one of the four replicas is half as fast as the others. Which one, and why? "
    )
    marker = f"@c{events}i{interval_us}@ " if events else ""
    fields: dict[str, Any] = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": marker + question + text},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
        "stream": bool(events),
    }
    if events:
        fields["stream_options"] = {"include_usage": True}
    return json.dumps(fields, separators=(",", ":")).encode()


def _long_body() -> bytes:
    """41 messages, 107 KB."""
    body = json.loads(_body(""))
    turn = "The replica answered after a while, and the operator looked at the queue depth again. " * 32
    body["messages"] += [{"role": ("assistant", "user")[i % 2], "content": turn[:2_690]} for i in range(39)]
    return json.dumps(body, separators=(",", ":")).encode()


def _as_messages(body: bytes) -> bytes:
    """The same request in Anthropic's dialect."""
    fields = json.loads(body)
    system, *turns = fields["messages"]
    fields |= {"system": system["content"], "messages": turns}
    fields.pop("stream_options", None)
    return json.dumps(fields, separators=(",", ":")).encode()


# ---------------------------------------------------------------- the world around a gateway


class Invalid(Exception):
    """A run whose answers were not what they should be."""


class World:
    """The mock upstream, the load generator and the bodies, ready to be used against one gateway after another."""

    def __init__(self, nice: int) -> None:
        machine.check()
        self.nice = nice
        self.mock_program, self.load_program = BUILD / "penstock-mock", BUILD / "penstock-loadgen"
        machine.compile_c(HERE / "mock.c", self.mock_program)
        machine.compile_c(HERE / "loadgen.c", self.load_program)
        self.scratch = BUILD / "run"
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        self.bodies = {
            "small": _body(""),
            "B5": _body("", events=64, interval_us=5_000),
            "C5000": _body("", events=100, interval_us=100_000),
            "long": _long_body(),
        }
        self.bodies |= {f"{name}-messages": _as_messages(self.bodies[name]) for name in ("small", "B5")}
        for name, body in self.bodies.items():
            (self.scratch / f"{name}.json").write_bytes(body)
        first = machine.free_ports(N_REPLICAS + 2)
        self.replicas = tuple(range(first, first + N_REPLICAS))
        self.gateway_port = first + N_REPLICAS
        self.mock = Child(
            [self.mock_program, str(first), str(N_REPLICAS)], core=LOAD_CORE, log=self.scratch / "mock.log", nice=nice
        )
        _wait_until(lambda: self.counters() is not None, 5, "the mock upstream does not answer")

    def close(self) -> None:
        self.mock.stop()

    def counters(self) -> dict[str, Any] | None:
        try:
            status, body = _exchange(self.replicas[0], "GET", "/counters", {}, b"")
        except OSError:
            if self.mock.process.poll() is not None:
                raise Unusable(f"the mock upstream ended.\n{self.mock.last_words()}") from None
            return None
        counted: dict[str, Any] = json.loads(body)
        return counted if status == 200 else None

    @contextmanager
    def running(self, stack: Stack) -> Iterator[Running]:
        """The stack, started and healthy; stopped at the end whatever happened."""
        if stack.start is None:
            yield Running(self, stack, self.replicas[0], self.mock)
            return
        directory = self.scratch / stack.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        child = stack.start(Place(directory, self.gateway_port, self.replicas, self.nice))
        try:
            running = Running(self, stack, self.gateway_port, child)
            running.wait_until_healthy()
            yield running
        finally:
            child.stop()


@dataclass
class Running:
    """One healthy gateway, and how to burden it."""

    world: World
    stack: Stack
    port: int
    child: Child
    start_cpu: float = 0.0  # seconds
    start_wall: float = 0.0

    def wait_until_healthy(self) -> None:
        """Healthy is: a real request is answered with 200."""
        headers = {"Authorization": f"Bearer {self.stack.key}", "Content-Type": "application/json"}

        def healthy() -> bool:
            if self.child.process.poll() is not None:
                raise Unusable(f"{self.stack.name} ended while starting.\n{self.child.last_words()}")
            with suppress(OSError, http.client.HTTPException):
                path, body = "/v1/chat/completions", self.world.bodies["small"]
                return _exchange(self.port, "POST", path, headers, body)[0] == 200
            return False

        try:
            _wait_until(healthy, 90, f"{self.stack.name} gives no healthy answer")
        except Unusable as error:
            raise Unusable(f"{error}\n{self.child.last_words()}") from None
        self.start_wall = time.monotonic() - self.child.started_at
        self.start_cpu = machine.cpu_seconds(self.child.pid)

    def load(
        self,
        body: str,
        connections: int,
        *options: str | float,
        on_begun: Callable[[], None] | None = None,
        warm_up: bool = False,
    ) -> dict[str, Any]:
        """One run of the load generator, validated; a warm-up may end before the first answer does. Raises Invalid."""
        command = [self.world.load_program, "-p", self.port, "-k", self.stack.key, "-c", connections]
        command += ["-b", self.world.scratch / f"{body}.json", *options]
        before = self.world.counters()

        def prepare() -> None:
            os.sched_setaffinity(0, {LOAD_CORE})
            if self.world.nice:
                os.setpriority(os.PRIO_PROCESS, 0, self.world.nice)

        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
        )
        try:
            assert process.stdout is not None
            if process.stdout.readline() == "begun\n" and on_begun is not None:
                on_begun()
            output, errors = process.communicate(timeout=180)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise Unusable(f"the load generator failed: {errors}")
        result: dict[str, Any] = json.loads(output)
        after = self.world.counters()
        assert before is not None
        assert after is not None
        self._validate(body, result, before, after, connections, warm_up)
        return result

    def _validate(
        self,
        body: str,
        result: dict[str, Any],
        before: dict[str, Any],
        after: dict[str, Any],
        connections: int,
        warm_up: bool,
    ) -> None:
        where = f"{self.stack.name}:"
        if result["errors"] or result["connect_errors"] or result["unsent"]:
            raise Invalid(
                f"{where} {result['errors']} of {result['requests']} requests failed (last status "
                f"{result['last_error_status']}: {result['error_sample'][:200]}), {result['connect_errors']} "
                f"connections refused, {result['unsent']} requests never sent"
            )
        if result["bad_events"]:
            raise Invalid(f"{where} {result['bad_events']} of {result['ok']} streams had a wrong number of events")
        if not result["ok"] and not warm_up:
            raise Invalid(f"{where} not one answer came in {result['elapsed']:.1f} s")
        if result["usage_seen"] != result["ok"]:
            raise Invalid(f"{where} {result['usage_seen']} of {result['ok']} answers carried usage")
        accepted = after["accepts"] - before["accepts"]
        if accepted > 2 * connections + 64:  # a gateway that opens one connection per request is another kind of thing
            raise Invalid(f"{where} {accepted} connections to the upstream for {connections} of ours: not kept alive?")
        per_port = [new - old for new, old in zip(after["ports"], before["ports"], strict=True)]
        # whoever knows that a prompt of 107 KB is cached somewhere is right to send it there
        spread = self.stack.start is not None and body != "long"
        if spread and sum(per_port) >= 400 and min(per_port) < 0.1 * sum(per_port):
            raise Invalid(f"{where} the four replicas got {per_port} requests: not balanced")


def _exchange(port: int, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _wait_until(done: Callable[[], bool], seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Unusable(f"{complaint} within {seconds} s")
        time.sleep(0.01)


# ---------------------------------------------------------------- scenarios


def scenario_a(running: Running, scale: float) -> Figures:
    """Short answers, closed loop, 64 connections."""
    connections, seconds = (8, 8 * scale) if running.stack.heavy else (64, 3 * scale)
    running.load("small", connections, "-d", seconds if running.stack.heavy else 0.5, warm_up=True)
    return _closed_loop(running, "A", "small", connections, seconds)


def scenario_l(running: Running, scale: float) -> Figures:
    """A prompt of 107 KB, closed loop, 16 connections."""
    running.load("long", 16, "-d", 0.5, warm_up=True)
    return _closed_loop(running, "L", "long", 16, 2 * scale)


def scenario_b5(running: Running, scale: float) -> Figures:
    """200 streams of 64 events, one each 5 ms, closed loop: 40,000 events/s offered."""
    running.load("B5", 200, "-s", "-e", 64, "-d", 0.7, warm_up=True)
    cpu = machine.cpu_seconds(running.child.pid)
    result = running.load("B5", 200, "-s", "-e", 64, "-d", 3 * scale)
    cpu = machine.cpu_seconds(running.child.pid) - cpu
    return {
        "B5 us/event": cpu / result["events"] * 1e6,
        "B5 events/s": result["events"] / result["elapsed"],
        "B5 TTFT p50 ms": result["first_event_us"]["p50"] / 1e3,
    }


def scenario_x(running: Running, scale: float) -> Figures:
    """A, asked in Anthropic's dialect of upstreams that have OpenAI's."""
    running.load("small-messages", 64, "-P", MESSAGES, "-d", 0.5, warm_up=True)
    return _closed_loop(running, "X", "small-messages", 64, 3 * scale, "-P", MESSAGES)


def scenario_xb5(running: Running, scale: float) -> Figures:
    """B5 likewise: 64 events of the upstream become 65."""
    options = ("-P", MESSAGES, "-s", "-e", 65)
    running.load("B5-messages", 200, *options, "-d", 0.7, warm_up=True)
    cpu = machine.cpu_seconds(running.child.pid)
    result = running.load("B5-messages", 200, *options, "-d", 3 * scale)
    cpu = machine.cpu_seconds(running.child.pid) - cpu
    return {"XB5 us/event": cpu / result["events"] * 65 / 64 * 1e6}


def scenario_latency(running: Running, scale: float) -> Figures:
    """1,000 requests per second, open loop, latency from the moment each was due."""
    n = int(4_000 * scale)
    result = running.load("small", 64, "-n", n, "-r", 1_000, "-W", 500)
    latency = result["latency_us"]
    return {"p50 us": latency["p50"], "p99 us": latency["p99"]}


def scenario_c5000(running: Running, scale: float) -> Figures:
    """5,000 open streams of 10 events/s each. CPU and events of the five seconds in which all are open.

    On a disturbed machine they may not all be open then. What memory a stream takes cannot be told from such a run, and
    would come out too low: it is left out.
    """
    n, opening, start, end = 5_000, 3.0, 4.0, 9.0
    pid = running.child.pid
    idle, idle_sockets = machine.rss_bytes(pid), machine.open_sockets(pid)
    seen: dict[str, float] = {}
    waits: dict[int, float] = {}

    def watch() -> None:
        begun = time.monotonic()
        time.sleep(start)
        seen["cpu"], seen["at"] = machine.cpu_seconds(pid), time.monotonic()
        waits.update(machine.waits(pid))
        time.sleep((start + end) / 2 - (time.monotonic() - begun))
        seen["rss"], seen["sockets"] = machine.rss_bytes(pid), machine.open_sockets(pid) - idle_sockets
        time.sleep(end - (time.monotonic() - begun))
        seen["cpu"] = machine.cpu_seconds(pid) - seen["cpu"]
        seen["waited"] = machine.waited_seconds(pid, waits)
        seen["seconds"] = time.monotonic() - seen["at"]

    window = f"{start},{end}"
    options = ("-s", "-e", 100, "-i", 100_000, "-1", "-R", opening, "-w", window, "-d", 40)
    result = running.load("C5000", n, *options, on_begun=watch)
    events = result["window_events"]
    all_open = seen["sockets"] >= 2 * n - 64  # one to the caller, one to the upstream; some were there before
    memory = {"C5000 kB/stream": (seen["rss"] - idle) / n / 1e3} if all_open else {}
    return {
        "C5000 CPU %": 100 * seen["cpu"] / seen["seconds"],
        "C5000 waited %": 100 * seen["waited"] / seen["seconds"],
        "C5000 us/event": seen["cpu"] / events * 1e6,
        "C5000 delivered %": 100 * events / (n * 10 * (end - start)),
        "C5000 jitter p50 ms": result["jitter_us"]["p50"] / 1e3,
        **memory,
        "C5000 RSS MB": seen["rss"] / 1e6,
    }


def _closed_loop(running: Running, name: str, body: str, connections: int, seconds: float, *options: str) -> Figures:
    pid = running.child.pid
    cpu, waits = machine.cpu_seconds(pid), machine.waits(pid)
    result = running.load(body, connections, "-d", seconds, *options)
    cpu, waited = machine.cpu_seconds(pid) - cpu, machine.waited_seconds(pid, waits)
    return {
        f"{name} us/request": cpu / result["requests"] * 1e6,
        f"{name} rps": result["requests"] / result["elapsed"],
        f"{name} waited %": 100 * waited / result["elapsed"],
    }


# C5000 comes first: its memory is judged against a process that has not been busy yet
SCENARIOS: dict[str, Callable[[Running, float], Figures]] = {
    "C5000": scenario_c5000,
    "A": scenario_a,
    "B5": scenario_b5,
    "X": scenario_x,
    "XB5": scenario_xb5,
    "L": scenario_l,
    "latency": scenario_latency,
}

IMPORT = """
import sys, time
sockets = []
sys.addaudithook(lambda event, args: sockets.append(event) if event.startswith("socket.") else None)
before = time.process_time()
import penstock.cli.main, penstock.cli.serve, penstock.app.serve
print(time.process_time() - before, len(sockets))
"""


def measure_import() -> Figures:
    """All that `penstock serve` imports, in a fresh process: CPU seconds, and audit events about sockets."""
    done = subprocess.run([sys.executable, "-c", IMPORT], cwd=penstock_as_shipped(), capture_output=True, text=True)
    if done.returncode != 0:
        raise Invalid(f"penstock cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    cpu, sockets = done.stdout.split()
    return {"import CPU s": float(cpu), "import sockets": float(sockets)}


# ---------------------------------------------------------------- repetitions


class Results:
    """Figures of all repetitions, by stack; and why something is missing."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, list[float]]] = {}
        self.missing: dict[str, str] = {}
        self.invalid: dict[str, list[str]] = {}

    def add(self, stack: str, figures: Figures) -> None:
        for name, value in figures.items():
            self.runs.setdefault(stack, {}).setdefault(name, []).append(value)

    def best(self, stack: str, name: str) -> float | None:
        values = self.runs.get(stack, {}).get(name)
        if not values:
            return None
        return max(values) if name.endswith(("rps", "events/s", "delivered %")) else min(values)

    def median(self, stack: str, name: str) -> float | None:
        values = self.runs.get(stack, {}).get(name)
        return statistics.median(values) if values else None


def measure(world: World, stacks: list[Stack], wanted: set[str], repetitions: int, scale: float) -> Results:
    results = Results()
    for stack in stacks:
        reason = stack.missing()
        if reason is not None:
            results.missing[stack.name] = reason
    for repetition in range(repetitions):
        if "import" in wanted and any(stack.name == "penstock" for stack in stacks):
            _note(results, "penstock", lambda: results.add("penstock", measure_import()))
        turn = repetition % len(stacks)
        for stack in stacks[turn:] + stacks[:turn]:  # nobody is always first
            if stack.name in results.missing:
                continue
            print(f"  {repetition + 1}/{repetitions} {stack.name:14}", end="", flush=True, file=sys.stderr)
            _note(results, stack.name, lambda stack=stack: _measure_one(world, stack, wanted, scale, results))  # type: ignore[misc]
            print(file=sys.stderr)
    return results


def _measure_one(world: World, stack: Stack, wanted: set[str], scale: float, results: Results) -> None:
    names = [name for name in SCENARIOS if name in wanted and name in stack.scenarios]
    if stack.start is None:
        names = [name for name in names if name != "C5000"]
    if not names and "start" not in wanted:
        return
    with world.running(stack) as running:
        if stack.start is not None:
            time.sleep(1)
            idle = {"idle RSS MB": machine.rss_bytes(running.child.pid) / 1e6}
            results.add(stack.name, {**idle, "start CPU s": running.start_cpu, "start wall s": running.start_wall})
        for name in names:
            print(f" {name}", end="", flush=True, file=sys.stderr)
            _note(results, stack.name, lambda name=name: results.add(stack.name, SCENARIOS[name](running, scale)))  # type: ignore[misc]


def _note(results: Results, stack: str, act: Callable[[], None]) -> None:
    """Do it; what is invalid or cannot be started is written down, and the run goes on."""
    try:
        act()
    except Invalid as error:
        print(f" INVALID ({error})", end="", file=sys.stderr)
        results.invalid.setdefault(stack, []).append(str(error))
    except Unusable as error:
        print(f" FAILED ({error})", end="", file=sys.stderr)
        results.missing[stack] = str(error).splitlines()[0]


# ---------------------------------------------------------------- targets


@dataclass(frozen=True)
class Verdict:
    target: str
    figure: str
    met: bool | None  # None: not measured


def judge(results: Results, wanted: set[str]) -> list[Verdict]:
    """All by the best repetition. A target whose peer is not there is neither met nor missed."""
    best = results.best
    verdicts: list[Verdict] = []

    def at_most(scenario: str, target: str, value: float | None, limit: float, unit: str) -> None:
        if scenario in wanted:
            figure = "not measured" if value is None else f"{value:,.3g} {unit}".strip()
            verdicts.append(Verdict(target, figure, None if value is None else value <= limit))

    def ratio(name: str, over: str, under: str) -> float | None:
        a, b = best(over, name), best(under, name)
        return None if a is None or b is None else a / b

    a, event = "A us/request", "B5 us/event"
    at_most("A", "A: CPU at most 2.5 x nginx", ratio(a, "penstock", "nginx"), 2.5, "x")
    at_most("A", "A: CPU below vllm-router p2c", ratio(a, "penstock", "vllm-router"), 1.0, "x")
    at_most("A", "A: CPU below sglang-router p2c", ratio(a, "penstock", "sglang-router"), 1.0, "x")
    if "A" in wanted:
        times = ratio(a, "litellm", "penstock")
        figure = "not measured" if times is None else f"{times:,.0f} x"
        verdicts.append(Verdict("A: CPU at least 100 x below LiteLLM", figure, None if times is None else times >= 100))
    at_most("B5", "B5: CPU per event at most 1.2 x nginx", ratio(event, "penstock", "nginx"), 1.2, "x")
    at_most("X", "X: CPU across dialects at most 2 x A", _over(best, "X us/request", a), 2, "x")
    at_most("XB5", "XB5: CPU per event across dialects at most 2 x B5", _over(best, "XB5 us/event", event), 2, "x")
    if "C5000" in wanted:
        delivered, cpu = best("penstock", "C5000 delivered %"), best("penstock", "C5000 CPU %")
        known = delivered is not None and cpu is not None
        figure = "not measured"
        if known:
            waited = best("penstock", "C5000 waited %") or 0
            figure = f"{delivered:.1f} % of the events on time, {cpu:.0f} % of a core (others had it {waited:.0f} %)"
        met = known and delivered is not None and delivered >= 98
        verdicts.append(Verdict("C5000: 5,000 streams at 10 events/s on one core", figure, met if known else None))
    at_most("C5000", "C5000: at most 8 kB of memory per stream", best("penstock", "C5000 kB/stream"), 8, "kB")
    at_most("L", "L: a 107 KB body in at most 150 us", best("penstock", "L us/request"), 150, "us")
    p50, direct = best("penstock", "p50 us"), best("direct", "p50 us")
    added = None if p50 is None or direct is None else (p50 - direct) / 1e3
    at_most("latency", "latency: p50 at 1,000 rps at most 0.2 ms more than direct", added, 0.2, "ms")
    at_most("start", "start: idle memory at most 60 MB", best("penstock", "idle RSS MB"), 60, "MB")
    at_most("start", "start: first healthy answer within 1 s of CPU", best("penstock", "start CPU s"), 1, "s")
    at_most("import", "import: below 0.3 s of CPU", best("penstock", "import CPU s"), 0.3, "s")
    at_most("import", "import: opens no socket", best("penstock", "import sockets"), 0, "")
    return verdicts


def _over(best: Callable[[str, str], float | None], name: str, base: str) -> float | None:
    """Two figures of Penstock's own."""
    one, other = best("penstock", name), best("penstock", base)
    return None if one is None or other is None else one / other


# ---------------------------------------------------------------- telling

COLUMNS = (
    ("A us/request", "A us/request", 1),
    ("A rps", "A rps", 0),
    ("A waited %", "waited %", 0),
    ("p50 us", "p50 us", 0),
    ("p99 us", "p99 us", 0),
    ("B5 us/event", "B5 us/event", 1),
    ("B5 TTFT p50 ms", "B5 TTFT ms", 1),
    ("X us/request", "X us/request", 1),
    ("XB5 us/event", "XB5 us/event", 1),
    ("L us/request", "L us/request", 0),
    ("C5000 CPU %", "C5000 CPU %", 0),
    ("C5000 us/event", "C5000 us/event", 1),
    ("C5000 kB/stream", "kB/stream", 1),
    ("idle RSS MB", "idle MB", 0),
    ("start CPU s", "start CPU s", 2),
    ("start wall s", "start wall s", 2),
)


def table(results: Results, stacks: list[Stack]) -> str:
    """Markdown: best, and the median in brackets where there are several repetitions."""
    columns = [column for column in COLUMNS if any(results.best(stack.name, column[0]) is not None for stack in stacks)]
    lines = ["| stack | " + " | ".join(title for _, title, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for stack in stacks:
        cells = []
        for name, _, digits in columns:
            best, median = results.best(stack.name, name), results.median(stack.name, name)
            if best is None or median is None:
                cells.append("-")
            elif len(results.runs[stack.name][name]) == 1:
                cells.append(f"{best:,.{digits}f}")
            else:
                cells.append(f"{best:,.{digits}f} ({median:,.{digits}f})")
        label = stack.name
        if stack.name in peers.PEERS:
            label = f"{stack.name} {peers.version(stack.name)}".strip()
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict_lines(verdicts: list[Verdict]) -> list[str]:
    words = {True: "met", False: "MISSED", None: "not measured"}
    lines = [f"{words[verdict.met]:13} {verdict.target}: {verdict.figure}" for verdict in verdicts]
    met = sum(verdict.met is True for verdict in verdicts)
    missed = sum(verdict.met is False for verdict in verdicts)
    without = len(verdicts) - met - missed
    lines.append(f"{met} met, {missed} missed" + (f", {without} not measured" if without else ""))
    return lines


def conditions(repetitions: int) -> str:
    return (
        f"{repetitions} repetition{'s' * (repetitions != 1)}, interleaved; gateway on one core, mock upstream and load "
        f"generator on another; {os.cpu_count()} shared cores, {platform.system()} "
        f"{'.'.join(platform.release().split('.')[:2])}, Python {platform.python_version()}"
    )


BEGIN, END = "<!-- gateway:begin (written by bench/gateway.py --write) -->", "<!-- gateway:end -->"


def write_figures(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace our section of the file, or add it at the end."""
    section = f"{begin}\n{text}\n{end}\n"
    old = path.read_text() if path.exists() else "# Figures\n\n"
    before, found, rest = old.partition(begin)
    if found:
        after = rest.partition(end)[2].strip("\n")
        section += f"\n{after}\n" if after else ""
    elif not before.endswith("\n\n"):
        before += "\n"
    path.parent.mkdir(exist_ok=True)
    path.write_text(before + section)


def figures_text(results: Results, stacks: list[Stack], verdicts: list[Verdict], repetitions: int) -> str:
    lines = [
        "## Gateway",
        "",
        f"Measured with `python bench/gateway.py`: {conditions(repetitions)}. Best repetition, median in brackets. "
        "CPU is user and system time of the whole process tree; waited is the share of A in which others had the core. "
        "Ratios travel to other machines, absolute figures do not.",
        "",
        "A: short answers, 64 connections, closed loop. X, XB5: A and B5 asked in Anthropic's dialect of upstreams "
        "that have OpenAI's. p50, p99: 1,000 requests per second, open loop. B5: 200 "
        "streams, 5 ms between events. L: a 107 KB body, 16 connections. C5000: 5,000 open streams at 10 events/s. "
        "nginx only forwards; Penstock has keys, balancing, breakers, metrics and an access log on. TTFT is the first "
        "event of any kind: Penstock keeps the opening one, which says only `assistant`, until a token follows, here "
        "5 ms later.",
        "",
        table(results, stacks),
        "",
        "| target | measured | |",
        "|---|---|---|",
    ]
    words = {True: "met", False: "**missed**", None: "-"}
    lines += [f"| {verdict.target} | {verdict.figure} | {words[verdict.met]} |" for verdict in verdicts]
    lines += [f"\nNot measured: {name}: {reason}." for name, reason in results.missing.items()]
    return "\n".join(lines)


def main() -> int:
    options = _options()
    wanted = set(options.only.split(",")) if options.only else set(MEASURES)
    stacks = list(all_stacks())
    names = {stack.name for stack in stacks}
    chosen = set(options.stacks.split(",")) if options.stacks else names
    unknown = (wanted - set(MEASURES)) | (chosen - names)
    if unknown:
        print(
            f"There is no {', '.join(sorted(unknown))}. Measures: {', '.join(MEASURES)}. "
            f"Stacks: {', '.join(sorted(names))}."
        )
        return 2
    stacks = [stack for stack in stacks if stack.name in chosen]
    repetitions, scale = (1, 0.5) if options.quick else (options.repetitions, 1.0)
    try:
        world = World(options.nice)
    except Unusable as error:
        print(f"Nothing can be measured here: {error}")
        return 2
    try:
        results = measure(world, stacks, wanted, repetitions, scale)
    finally:
        world.close()

    verdicts = judge(results, wanted)
    print(conditions(repetitions) + "\n")
    print(table(results, stacks) + "\n")
    for name, reason in results.missing.items():
        print(f"not measured: {name}: {reason}")
    for complaints in results.invalid.values():
        print("\n".join(f"invalid: {complaint}" for complaint in complaints))
    print("\n".join(["", *verdict_lines(verdicts)]))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("gateway-%Y%m%d-%H%M%S.json", time.gmtime())
    record = {
        "conditions": conditions(repetitions),
        "versions": {name: peers.version(name) for name in peers.PEERS},
        "runs": results.runs,
        "missing": results.missing,
        "invalid": results.invalid,
        "verdicts": [vars(verdict) for verdict in verdicts],
    }
    path.write_text(json.dumps(record, indent=1))
    print(f"written: {path.relative_to(ROOT)}")
    if options.write:
        write_figures(FIGURES, figures_text(results, stacks, verdicts, repetitions))
        print(f"written: {FIGURES.relative_to(ROOT)}")
    return 1 if "penstock" in results.invalid or any(verdict.met is False for verdict in verdicts) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short repetition")
    parser.add_argument("--only", default="", help=",".join(MEASURES))
    parser.add_argument("--stacks", default="")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into docs/figures.md")
    parser.add_argument("--nice", type=int, default=0, help="priority of what is measured; below 0 needs root")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
