"""The desk that the console looks at, put together: the store of single requests, and the way that workers tell it.

There is one, in the process that has the port. It is there for the store alone too, where nobody serves a console.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

from penstock.app.options import BooksOptions
from penstock.app.register import traces_file
from penstock.app.reports import EVERY
from penstock.app.source import ConfigSource
from penstock.app.telemetry import served_by
from penstock.app.worker import Worker
from penstock.app.workers import Workers
from penstock.config.prices import bundled, price_for
from penstock.config.schema import Config
from penstock.config.spec import PlaneSpec
from penstock.config.units import n_bytes, seconds
from penstock.console.acts import ConfigView
from penstock.console.desk import Desk, InFlight
from penstock.console.masked import Masked
from penstock.console.reports import OpenSeen, Shown
from penstock.console.through import GatewayAddress
from penstock.core.clock import Clock
from penstock.core.outcome import Outcome
from penstock.gateway.accounting import cost_of_answer
from penstock.pricing.bill import UNPRICED, Cost
from penstock.stores.base import StoreFailed
from penstock.stores.outcomes import Outcomes, Retention
from penstock.telemetry.catalogue import Metric
from penstock.telemetry.metrics import Labels, Registry

COUNT_EVERY: Final = 1.0  # seconds between looks at what has been counted
MOST_CHANGES: Final = 50
ALONE: Final = "worker-0"


class OneWorker:
    """What is in flight, where there is only this worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def look(self, only: Mapping[str, str], most: int) -> list[OpenSeen | None]:
        return [self._worker.look(only, most)]

    async def cancel(self, id: str) -> bool:
        return self._worker.gateway.cancel(id)


_one: type[InFlight] = OneWorker
_many: type[InFlight] = Workers


class ConsoleDesk:
    """`follow` one worker or many; `close` after they have ended. Tasks run in `group`."""

    def __init__(self, desk: Desk, *, group: asyncio.TaskGroup, clock: Clock, tell: Callable[[str], None]) -> None:
        self.desk = desk
        self._group, self._clock, self._tell = group, clock, tell
        self._tasks: list[asyncio.Task[None]] = []
        self._alone: Worker | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        config: Config,
        source: ConfigSource,
        books: BooksOptions,
        *,
        catalogue: Iterable[Metric],
        group: asyncio.TaskGroup,
        clock: Clock,
        tell: Callable[[str], None],
    ) -> ConsoleDesk:
        """Never raises: where requests cannot be kept, `tell` hears why, and they are not."""
        file, kept = traces_file(config, source, books), None
        store = config.store
        if file is not None:
            try:
                keep = Retention(store.traces_rows, seconds(store.traces_retention), n_bytes(store.traces_size))
                kept = await Outcomes.open(file, clock, keep)
            except StoreFailed as error:
                tell(f"Single requests are not kept, because of {file}: {error} Name another place: store.traces.")
        desk = Desk(clock, kept, catalogue)
        await desk.open()
        made = cls(desk, group=group, clock=clock, tell=tell)
        if kept is not None:
            made._spawn(kept.run(tell))
        return made

    def serves(self, spec: PlaneSpec) -> None:
        """Who the deployments are and what they cost."""
        self.desk.served = served_by(spec)
        self.desk.bill = bills_of(spec)

    def follow_one(self, worker: Worker) -> None:
        self._alone = worker
        self.desk.in_flight = OneWorker(worker)
        self._spawn(self._hear(worker))
        self._spawn(self._count(lambda: self.desk.counted(worker.snapshot())))

    def follow_many(self, workers: Workers) -> None:
        workers.listener = self.desk
        self.desk.in_flight = workers
        self._spawn(self._count(lambda: self.desk.counted(workers.numbers())))

    def metrics(self, registry: Registry) -> None:
        """Of this process: how the keeping goes."""
        kept = self.desk.outcomes
        if kept is None:
            return

        def written() -> list[tuple[Labels, float]]:
            return [((), kept.written)]

        def dropped() -> list[tuple[Labels, float]]:
            return [((), kept.dropped)]

        registry.read_counter("penstock_kept_requests_total", written)
        registry.read_counter("penstock_kept_requests_dropped_total", dropped)

    async def close(self) -> None:
        """Again is harmless."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self.desk.feed.close()
        if self._alone is not None:
            self._take(self._alone)
        if self.desk.outcomes is not None:
            await self.desk.outcomes.close()

    async def _hear(self, worker: Worker) -> None:
        looked_at = 0.0
        while True:
            self._take(worker)
            if self._clock.now() - looked_at >= worker.look_every:
                looked_at = self._clock.now()
                self.desk.seen(ALONE, worker.see())
            await asyncio.sleep(EVERY)

    def _take(self, worker: Worker) -> None:
        batch = None if worker.reports is None else worker.reports.take()
        if batch is not None:
            self.desk.ended(batch)

    async def _count(self, count: Callable[[], None]) -> None:
        while True:
            count()
            await asyncio.sleep(COUNT_EVERY)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._group.create_task(work))


class ConfigShown:
    """What is served and what reloads have changed, for people: a `ConfigView`."""

    def __init__(self, source: ConfigSource, version: Callable[[], int], clock: Clock) -> None:
        self._source, self._version, self._clock = source, version, clock
        self._loaded_at = clock.wall()
        self.masked = Masked(source.text)
        self._changes: deque[tuple[int, float, tuple[str, ...]]] = deque(maxlen=MOST_CHANGES)

    def changed(self, version: int, lines: Iterable[str]) -> None:
        self._loaded_at, self.masked = self._clock.wall(), Masked(self._source.text)
        self._changes.appendleft((version, self._loaded_at, tuple(lines)))

    def shown(self) -> Shown:
        path = self._source.name if self._source.is_file else None
        return Shown(self._version(), path, self._loaded_at, self.masked.text, tuple(self._changes))


_shown: type[ConfigView] = ConfigShown


def bills_of(spec: PlaneSpec) -> Callable[[Outcome], Cost]:
    """What an answer costs by the prices of this plane."""
    deployments = {one.name: one for one in spec.deployments}

    def bill(outcome: Outcome) -> Cost:
        one = deployments.get(outcome.deployment)
        if one is None or not (one.provider or one.price):
            return UNPRICED
        price = price_for(one, outcome.model, bundled())
        return cost_of_answer(outcome.usage, outcome.usage_source, price, outcome.received_at)

    return bill


def gateway_address(bound: socket.socket, certificate: str) -> GatewayAddress:
    """Where this machine reaches the gateway that listens there."""
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if bound.family == socket.AF_INET else "::1"
    host = f"[{host}]" if ":" in host else host
    return GatewayAddress(f"{'https' if certificate else 'http'}://{host}:{port}", certificate)
