"""Traces and what logs say, for one worker: exporters are made from the plane, started, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from penstock import __version__
from penstock.app.otlp_post import OtlpPost
from penstock.config.spec import PlaneSpec
from penstock.telemetry.conventions import PROVIDERS, Convention
from penstock.telemetry.export import SpanExporter
from penstock.telemetry.metrics import Labels, Registry
from penstock.telemetry.observe import Observer
from penstock.telemetry.options import TelemetryOptions
from penstock.telemetry.otlp import Encoder
from penstock.telemetry.spans import Served

CLOSE_WITHIN: Final = 3.0  # seconds, for the last traces


class Telemetry:
    """`serves` with every plane. Exporters whose options have not changed go on as they are."""

    def __init__(
        self,
        observer: Observer,
        registry: Registry,
        *,
        group: asyncio.TaskGroup,
        rng: Random,
        secret: Callable[[str], str],
        tell: Callable[[str], None],
        instance: str = "",
    ) -> None:
        """`instance` tells this worker from the others."""
        self.observer = observer
        self._registry, self._group, self._rng = registry, group, rng
        self._secret, self._tell, self._instance = secret, tell, instance
        self._options: TelemetryOptions | None = None
        self._served: Mapping[str, Served] = {}
        self._running: list[tuple[SpanExporter, OtlpPost, asyncio.Task[None]]] = []
        registry.read_gauge("penstock_telemetry_waiting_traces", self._waiting)

    def serves(self, spec: PlaneSpec) -> None:
        """Never raises: a secret that is missing is told when it is wanted, and requests are served meanwhile."""
        self._served = served_by(spec)
        options = spec.telemetry
        if options == self._options:
            return
        for exporter, _, _ in self._running:
            exporter.close()  # it sends what it has, and ends
        self._options = options
        self._running = []
        loop = asyncio.get_running_loop()
        resource = {
            "service.name": options.service,
            "service.version": __version__,
            "service.instance.id": self._instance,
            "deployment.environment.name": options.environment,
        }
        for one in options.exporters:
            post = OtlpPost(one, self._secret, loop)
            exporter = SpanExporter(
                one.name,
                Encoder(Convention(one.naming, one.dialect), resource, __version__),
                post,
                rng=self._rng,
                served=lambda: self._served,
                sent=self._registry.counter("penstock_telemetry_sent_total"),
                dropped=self._registry.counter("penstock_telemetry_dropped_total"),
                tell=self._tell,
            )
            task = self._group.create_task(_run(exporter, post))
            self._running.append((exporter, post, task))
        self.observer.use(options, [exporter for exporter, _, _ in self._running], self._hash_key(options))

    async def close(self) -> None:
        """After the last request: send what waits, for a short while."""
        self.observer.look()
        for exporter, _, _ in self._running:
            exporter.close()
        tasks = [task for _, _, task in self._running]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WITHIN)
        self.let_go()

    def let_go(self) -> None:
        """At once; again is harmless."""
        for exporter, post, task in self._running:
            task.cancel()
            exporter.give_up()
            post.close()
        self._running = []

    def _hash_key(self, options: TelemetryOptions) -> bytes:
        reference = options.capture.hash_key
        if reference is None:
            return b""
        try:
            return self._secret(reference).encode()
        except LookupError as error:
            self._tell(f"telemetry.content.hash_key: {error.args[0]} Hashes are made with a random key instead.")
            return self._rng.randbytes(32)

    def _waiting(self) -> list[tuple[Labels, float]]:
        return [((exporter.name,), exporter.waiting) for exporter, _, _ in self._running]


async def _run(exporter: SpanExporter, post: OtlpPost) -> None:
    try:
        await exporter.run()
    finally:
        post.close()


def served_by(spec: PlaneSpec) -> dict[str, Served]:
    """By deployment."""
    return {one.name: Served(PROVIDERS.get(one.provider, one.provider), one.served or "") for one in spec.deployments}
