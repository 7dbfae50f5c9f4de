"""The rounds of `bench/observe.py`, in a process of their own, which imports Penstock from where it was told to.

Prints JSON: microseconds of process CPU by round, under the names of what was measured.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from random import Random

import msgspec

from penstock.core.errors import FailureKind
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import OK, Attempt
from penstock.core.request import Endpoint, Usage
from penstock.telemetry.access_log import AccessLog
from penstock.telemetry.catalogue import Kind, Metric
from penstock.telemetry.content import Content
from penstock.telemetry.conventions import Convention
from penstock.telemetry.export import Answer, SpanExporter
from penstock.telemetry.fold import RequestMetrics
from penstock.telemetry.metrics import Registry
from penstock.telemetry.observe import Observer
from penstock.telemetry.options import Sampling, TelemetryOptions
from penstock.telemetry.otlp import Encoder
from penstock.telemetry.prometheus import Exposition, Format
from penstock.wire.lineage import lineage
from penstock.wire.trace_context import for_attempt, passed_on, read_traceparent

REQUESTS, CHUNKS, SERIES, RATIO = 10_000, 200_000, 500, 0.01
EACH_SECOND = 500.0  # requests of one worker
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def receipts(rng: Random) -> list[Outcome]:
    """Streams, mostly; one in fifty is retried, one in a thousand fails."""
    found = []
    for i in range(REQUESTS):
        ttft, tokens = rng.lognormvariate(-1.5, 0.4), int(rng.lognormvariate(5.0, 0.8)) + 2
        duration, dice = ttft + tokens * 0.01, rng.random()
        attempts: tuple[Attempt, ...] = (Attempt(0, f"local/{i % 4}", OK, 0.0004, ttft, duration - 0.0002),)
        if dice < 0.02:
            attempts = (
                Attempt(0, "local/0", FailureKind.SERVER_ERROR, 0.0004, None, 0.02),
                Attempt(1, "local/1", OK, 0.05, ttft + 0.05, duration),
            )
        failed = dice > 0.999
        if failed:
            attempts = (Attempt(0, "local/0", FailureKind.IDLE_TIMEOUT, 0.0004, ttft, duration),)
        found.append(
            Outcome(
                received_at=1.8e9 + i / EACH_SECOND,
                request_id=f"req_01a1f99a2fef29c6837feb{i:06x}",
                endpoint=Endpoint.CHAT,
                tenant="acme",
                key_id="web",
                model=f"model-{i % 5}",
                stream=True,
                status=200,
                error="idle_timeout" if failed else None,
                attempts=attempts,
                usage=Usage(rng.randrange(50, 4_000), tokens, rng.randrange(50)),
                usage_source=UsageSource.PROVIDER,
                finish_reason=None if failed else "length" if dice < 0.05 else "stop",
                first_token_after=ttft,
                duration=duration,
                plane_version=3,
                deployment="local",
                team="search",
                feature="summaries" if i % 2 else "",
                cost_nanos=rng.randrange(10_000, 3_000_000),
                admitted_after=0.0003,
                predicted_ttft=0.2,
                matched_tokens=128,
            )
        )
    return found


class Everything:
    """What a worker has, but for the network behind the exporter, and the disk behind the log."""

    def __init__(self) -> None:
        registry = Registry()
        self.registry = registry
        metrics = RequestMetrics(registry)
        metrics.serves(f"model-{i}" for i in range(5))
        nowhere = os.open(os.devnull, os.O_WRONLY)

        def write(lines: bytes) -> None:
            os.write(nowhere, lines)

        async def post(body: bytes) -> Answer:
            return Answer(200)

        self.exporter = SpanExporter(
            "bench",
            Encoder(Convention(), {"service.name": "penstock"}, "0"),
            post,
            rng=Random(1),
            served=dict,
            sent=registry.counter("penstock_telemetry_sent_total"),
            dropped=registry.counter("penstock_telemetry_dropped_total"),
            tell=print,
        )
        self.observer = Observer(registry, metrics, AccessLog(write))
        self.observer.use(TelemetryOptions(sampling=Sampling(ratio=RATIO)), [self.exporter])


def header(name: bytes) -> bytes | None:
    return TRACEPARENT if name == b"traceparent" else None


async def watched(everything: Everything, outcomes: list[Outcome]) -> float:
    """Seconds of CPU for all of them, until the last trace is away."""
    fields: dict[str, msgspec.Raw] = {}
    on_outcome, observer, exporter = everything.observer.on_outcome, everything.observer, everything.exporter
    running = asyncio.get_running_loop().create_task(exporter.run())
    started = time.process_time()
    for i, outcome in enumerate(outcomes):
        trace_id, sampled = passed_on(outcome.request_id, read_traceparent(header(b"traceparent")), RATIO)
        lineage(header, fields)
        for_attempt(outcome.request_id, 0, trace_id, sampled)
        on_outcome(outcome)
        if not i % 50:
            await asyncio.sleep(0)
    observer.look()
    assert observer.log is not None
    observer.log.flush()
    exporter.close()
    await running
    took = time.process_time() - started
    exporter._closing = False
    return took


async def unwatched(outcomes: list[Outcome]) -> float:
    def on_outcome(outcome: Outcome) -> None:
        pass

    started = time.process_time()
    for i, outcome in enumerate(outcomes):
        on_outcome(outcome)
        if not i % 50:
            await asyncio.sleep(0)
    return time.process_time() - started


def chunks(write: Callable[[bytes], None]) -> float:
    data = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    started = time.process_time()
    for _ in range(CHUNKS):
        write(data)
    return time.process_time() - started


def registry_of_many() -> Registry:
    metric = Metric(
        "penstock_many_seconds",
        Kind.HISTOGRAM,
        "seconds",
        ("who",),
        "Many.",
        tuple(0.005 * 1.5**i for i in range(26)),
    )
    registry = Registry((metric,))
    rng = Random(2)
    for i in range(SERIES):
        child = registry.histogram(metric.name).labels(f"series {i}")
        for _ in range(20):
            child.observe(rng.expovariate(1.0))
        child.show(0.5, f"{i:032x}", 1.8e9)
    return registry


def scrapes(registry: Registry, exposition: Exposition) -> float:
    started = time.process_time()
    exposition.render(registry.snapshot(), Format.OPENMETRICS)
    return time.process_time() - started


async def main(rounds: int) -> None:
    outcomes = receipts(Random(3))
    everything = Everything()
    many = registry_of_many()
    exposition = Exposition(many.catalogue.values())
    names = {
        "all of it, per request": REQUESTS,
        "the same loop without, per request": REQUESTS,
        "an open trace, per chunk": CHUNKS,
        "none, per chunk": CHUNKS,
        f"scrape of {SERIES} histogram series": 1,
    }
    found: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.freeze()  # as `serve` does it
    for _ in range(rounds):
        content = Content(b"")
        seconds = (
            await watched(everything, outcomes),
            await unwatched(outcomes),
            chunks(content.tee(_nothing)),
            chunks(_nothing),
            scrapes(many, exposition),
        )
        for (name, n), one in zip(names.items(), seconds, strict=True):
            found[name].append(one / n * 1e6)
    kept = {row.labels[0]: row.value for row in everything.registry.snapshot().series["penstock_traces_total"]}
    sys.stderr.write(f"{kept}\n")
    print(json.dumps(found))


def _nothing(data: bytes) -> None:
    pass


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
