"""One gateway worker, put together: plane, gateway, HTTP server, prober, metrics, access log. The composition root."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final, cast

import msgspec

from penstock.app.books import Books
from penstock.app.errors import StartError
from penstock.app.fleet_metrics import read_fleet
from penstock.app.kv_caches import KvCaches
from penstock.app.listen import tls_context
from penstock.app.log_writer import LogWriter
from penstock.app.metrics_page import MetricsPage
from penstock.app.options import BooksOptions
from penstock.app.reports import Reports
from penstock.app.system import quiet_libraries
from penstock.app.telemetry import Telemetry
from penstock.balancing.exact_index import ExactIndex
from penstock.balancing.predicted import Predicted
from penstock.balancing.prefix_index import PrefixIndex
from penstock.config.spec import DeploymentSpec, PlaneSpec, ReplicaSpec
from penstock.console.fleet import see
from penstock.console.open_requests import open_requests
from penstock.console.reports import FleetSeen, OpenSeen
from penstock.control.prober import Prober
from penstock.core.clock import Clock
from penstock.core.fleet import Replica
from penstock.core.ids import RequestIds
from penstock.gateway.accounting import Accounting
from penstock.gateway.exchange import Exchange
from penstock.gateway.feedback import FeedbackPage
from penstock.gateway.plane import Plane
from penstock.gateway.prepare import Parts, Preparer
from penstock.gateway.serve import Gateway
from penstock.gateway.stored_responses import StoredResponses
from penstock.http.client import Pool
from penstock.http.fetch import Fetcher
from penstock.http.options import ClientOptions, FetchOptions, ServerOptions
from penstock.http.server import Server
from penstock.http.wheel import Wheel
from penstock.resilience.breaker import Phase
from penstock.stores.base import Responses
from penstock.stores.memory import MemoryResponses
from penstock.stores.sqlite import SqliteResponses
from penstock.telemetry.access_log import AccessLog
from penstock.telemetry.catalogue import with_bounds
from penstock.telemetry.feedback import FeedbackMetrics
from penstock.telemetry.fold import RequestMetrics
from penstock.telemetry.metrics import Labels, Registry, Snapshot
from penstock.telemetry.observe import Observer
from penstock.upstreams.base import Transport
from penstock.upstreams.credentials import Authorization
from penstock.wire.errors import protocol_body

FIRST_CHECKS_WITHIN: Final = 2.0  # seconds
FLUSH_EVERY: Final = 0.1  # seconds, of the access log
TEND_EVERY = 0.25  # seconds
_PHASES: Final[Mapping[Phase, float]] = {Phase.CLOSED: 0, Phase.HALF_OPEN: 1, Phase.OPEN: 2}


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while a worker lives; a reload cannot change it. `access_log` as in the configuration;
    `bounds` are thresholds of SLOs, by histogram, which become bounds of its buckets.

    `certificate` and `private_key` are paths of PEM files; "" for plain http. `responses_file` is the SQLite file that
    keeps stored responses; "" for memory, or for several workers a file that is gone with them.
    """

    max_body_bytes: int
    drain_seconds: float
    access_log: str
    certificate: str = ""
    private_key: str = ""
    responses_file: str = ""
    books: BooksOptions = BooksOptions()
    bounds: dict[str, tuple[float, ...]] = {}
    reports: bool = False  # tell the console of requests and replicas


class Worker:
    """Everything that serves requests in this process. `run` inside a task group, then `swap` planes as they come.

    `directory` is where several workers offer each other their numbers, `name` is how this one is called there.
    """

    def __init__(
        self,
        spec: PlaneSpec,
        options: WorkerOptions,
        *,
        group: asyncio.TaskGroup,
        clock: Clock,
        rng: Random,
        entropy: bytes,
        secret: Callable[[str], str],
        tell: Callable[[str], None],
        directory: Path | None = None,
        name: str = "",
    ) -> None:
        """Raises `PrepareError` for a spec that cannot be served, `StartError` for a log that cannot be written or
        counters that cannot be used.
        """
        quiet_libraries()
        loop = asyncio.get_running_loop()
        wheel = Wheel(loop)

        def transport(deployment: DeploymentSpec, replica: ReplicaSpec) -> Transport:
            limits = ClientOptions(connect_timeout=deployment.connect_timeout)
            return Pool(replica.origin, options=limits, loop=loop, wheel=wheel)

        self.options = options
        self._tls = tls_context(options.certificate, options.private_key) if options.certificate else None
        self._group, self._tell = group, tell

        def fetcher(spec: PlaneSpec) -> Fetcher:
            hosts = tuple(host.removeprefix("*") for host in spec.images_hosts)
            limits = FetchOptions(hosts=hosts, max_bytes=spec.images_max_bytes, timeout=spec.images_timeout)
            return Fetcher(loop, options=limits)

        catalogue = with_bounds(options.bounds)
        registry = Registry(catalogue)
        self.registry = registry
        self._clock = clock
        self.books = books = Books(
            options.books,
            group=group,
            clock=clock,
            rng=rng,
            secret=secret,
            tell=tell,
            registry=registry,
            directory=directory,
        )
        index = ExactIndex(PrefixIndex())  # a guess for those of whom nothing is heard
        self._caches = KvCaches(index, clock)
        parts = Parts(
            clock=clock,
            rng=rng,
            secret=secret,
            transport=transport,
            fetcher=fetcher,
            issued=books.issued,
            index=Predicted(index),
            tokens=self._caches.tokens,
        )
        self._preparer = Preparer(parts)
        plane, swapped = self._preparer.prepare(spec, None)
        books.serves(plane)
        self._prepared: tuple[Plane, Callable[[], None]] | None = None
        self._metrics = RequestMetrics(registry)
        self._feedback = FeedbackMetrics(registry, clock.wall)
        self._metrics.on_session = self._feedback.on_outcome
        self._writer: LogWriter | None = None
        self._log: AccessLog | None = None
        if options.access_log != "off":
            self._writer = LogWriter(options.access_log, lambda line: _tell_from_thread(loop, tell, line))
            dropped = registry.counter("penstock_access_log_dropped_total").labels()
            self._log = AccessLog(self._writer.write, dropped=dropped)
        self._telemetry = Telemetry(
            Observer(registry, self._metrics, self._log),
            registry,
            group=group,
            rng=rng,
            secret=secret,
            tell=tell,
            instance=name,
        )
        self._page = MetricsPage(registry.snapshot, directory=directory, own=name, catalogue=catalogue)
        self._responses = _responses(options.responses_file, directory)
        self.gateway = Gateway(
            plane,
            ids=RequestIds(clock.wall(), entropy),
            on_outcome=self._telemetry.observer.on_outcome,
            on_content=self._telemetry.observer.on_outcome,
            pages={b"/metrics": self._page.answer},
            stored=StoredResponses(self._responses, clock, tell),
            feedback=FeedbackPage(lambda: books.feedback, clock, self._feedback.count),
            accounting=Accounting(
                books.counters,
                spent=books.spent,
                begin=books.begin if books.keeps_ledger else None,
                on_entry=books.record if books.keeps_ledger else None,
                on_crossing=books.crossed,
            ),
        )
        swapped()
        self._metrics.serves(plane.routes)
        self._fill_gauges(registry)
        self.server = Server(
            self.gateway.handle if directory is None else self._handle,
            ServerOptions(max_body_bytes=options.max_body_bytes, drain_seconds=options.drain_seconds),
            on_crash=self.crashed,
            error_body=protocol_body,
            loop=loop,
        )
        self.prober = Prober(self.gateway, clock)
        read_fleet(registry, lambda: self.gateway.plane, self.prober.reports)
        self.reports: Reports | None = None
        if options.reports:
            self.reports = Reports()
            self._telemetry.observer.listener = self.reports.hear
        self._background: list[asyncio.Task[None]] = []

    async def listen(self, sockets: Iterable[socket.socket]) -> None:
        """Begin to serve at sockets that are bound. The first checks of the replicas begin too. Raises `StartError`."""
        await self.books.open()
        self._telemetry.serves(self.gateway.plane.spec)
        running = (self.prober.run(), self._tend(), self._flush(), self._caches.run())
        self._background = [self._group.create_task(one) for one in running]
        self._caches.follow(self.gateway.plane.spec)
        self._authorize(self.gateway.plane)
        for bound in sockets:
            await self.server.start(sock=bound, ssl=self._tls)

    async def first_checks(self) -> list[str]:
        """Waits, for a short while, until every model has a replica that is known to be ready. Lines about those that
        have none."""
        until = self._clock.now() + FIRST_CHECKS_WITHIN
        # the prober writes `ready` and rings no bell; this runs once, before anybody is served
        while self.gateway.plane.unready_models() and self._clock.now() < until:  # noqa: ASYNC110
            await asyncio.sleep(FIRST_CHECKS_WITHIN / 100)
        plane = self.gateway.plane
        return [
            f"No replica of {model} answers its health check yet; until one does, requests for it are answered 503. "
            f"Looked at: {', '.join(_looked_at(plane, model))}."
            for model in plane.unready_models()
        ]

    def prepare(self, spec: PlaneSpec) -> None:
        """First half of a change: everything that may fail. Raises `PrepareError`; what is served stays as it was."""
        self._prepared = self._preparer.prepare(spec, self.gateway.plane)

    def swap(self) -> None:
        """Second half, which cannot fail: new requests see the prepared plane, those in flight keep theirs."""
        assert self._prepared is not None, "nothing was prepared"
        (plane, swapped), self._prepared = self._prepared, None
        self._metrics.serves(plane.routes)
        self.books.serves(plane)
        self.gateway.plane = plane
        swapped()
        self._caches.follow(plane.spec)
        self._authorize(plane)
        self._telemetry.serves(plane.spec)

    def _authorize(self, plane: Plane) -> None:
        """Fetch the credentials that have to be fetched; their replicas are ready once that is done."""

        async def fetch(replica: Replica, authorization: Authorization) -> None:
            try:
                await authorization.prepare()
                replica.ready = True
            except LookupError as error:
                self._tell(f"deployments.{replica.deployment}: {error.args[0]} Its replica is not used.")

        self._background = [task for task in self._background if not task.done()]
        for replica in plane.replicas():
            if replica.name in plane.renewed and not replica.ready:
                self._background.append(self._group.create_task(fetch(replica, plane.renewed[replica.name])))

    def snapshot(self) -> Snapshot:
        return self.registry.snapshot()

    def see(self) -> FleetSeen:
        """How everything behind this worker does; costs about 10 us for each replica."""
        return see(self.gateway.plane, self.prober.reports, self._clock, self.gateway.in_flight)

    def look(self, only: Mapping[str, str], most: int) -> OpenSeen:
        """At the requests that are in flight."""
        return open_requests(self.gateway.calls.values(), self._clock, only, most)

    @property
    def look_every(self) -> float:
        """Seconds between two looks: a thousandth of the time at most."""
        return max(1.0, len(self.prober.reports) / 100, len(self.gateway.plane.breakers) / 100)

    def reopen_log(self) -> None:
        """For log rotation: a file that was moved away is made anew."""
        if self._writer is not None:
            self._writer.reopen()

    async def drain(self, seconds: float | None = None) -> None:
        """Take no more requests, let those in flight end within the time (default: configured), then let go of all."""
        await self.server.drain(seconds)
        await self.books.close()
        await self._telemetry.close()
        self.close()

    def close(self) -> None:
        """Let go of everything, at once; again is harmless."""
        self.server.close()
        self.books.let_go()
        self._telemetry.let_go()
        self._caches.stop()
        for task in self._background:
            task.cancel()
        self._preparer.close()
        self._responses.close()
        if self._log is not None and self._writer is not None:
            self._log.flush()
            self._writer.close()
            self._log = self._writer = self._telemetry.observer.log = None

    def _handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """With several workers: their numbers have to be waited for, which the gateway's pages cannot do."""
        if exchange.path == b"/metrics" and exchange.method in (b"GET", b"HEAD"):
            return self._page.answer_for_all(exchange)
        return self.gateway.handle(exchange)

    async def _tend(self) -> None:
        while True:
            self.gateway.tend()
            self._feedback.look()
            await asyncio.sleep(TEND_EVERY)

    async def _flush(self) -> None:
        while True:
            self._telemetry.observer.look()
            if self._log is not None:
                self._log.flush()
            await asyncio.sleep(FLUSH_EVERY)

    def crashed(self, error: Exception) -> None:
        # the type and the place, not the message: that may hold a prompt
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f" at {Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where is not None else ""
        self._tell(f"A request failed because of a bug in Penstock ({type(error).__name__}{place}); others go on.")

    def _fill_gauges(self, registry: Registry) -> None:
        gateway, clock = self.gateway, self._clock

        def each(value: Callable[[Plane, str, int], float]) -> Callable[[], Iterable[tuple[Labels, float]]]:
            def read() -> Iterable[tuple[Labels, float]]:
                plane = gateway.plane
                for deployment, pool in plane.pools.items():
                    for i, replica in enumerate(pool):
                        yield (deployment, replica.name), value(plane, deployment, i)

            return read

        registry.read_gauge(
            "penstock_saturation_ratio", lambda: [((model,), value) for model, value in gateway.saturations.items()]
        )
        registry.read_gauge("penstock_in_flight_requests", lambda: [((), gateway.in_flight)])
        registry.read_gauge("penstock_plane_version", lambda: [((), gateway.plane.version)])
        registry.read_gauge("penstock_replica_ready", each(lambda plane, name, i: int(plane.pools[name][i].ready)))
        registry.read_gauge(
            "penstock_replica_in_flight_attempts", each(lambda plane, name, i: plane.pools[name][i].inflight)
        )
        registry.read_gauge(
            "penstock_breaker_phase",
            each(lambda plane, name, i: _PHASES[plane.breakers[plane.pools[name][i].name].phase(clock.now())]),
        )


def _responses(file: str, directory: Path | None) -> Responses:
    """Raises `StartError`. `directory` is shared by the workers and gone with them."""
    if not file and directory is None:
        return MemoryResponses()
    path = Path(file) if file else cast(Path, directory) / "responses.db"
    try:
        return SqliteResponses(path)
    except sqlite3.Error as error:
        raise StartError(f"responses.file: {path} cannot be used ({error}).") from None


def _looked_at(plane: Plane, model: str) -> list[str]:
    tried = plane.routes[model].plan.deployments
    places = [replica for one in plane.spec.deployments if one.name in tried for replica in one.replicas]
    return [f"{replica.origin}{replica.health_path}" for replica in places[:4]]


def _tell_from_thread(loop: asyncio.AbstractEventLoop, tell: Callable[[str], None], line: str) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(tell, line)
