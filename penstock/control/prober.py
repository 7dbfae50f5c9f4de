"""Active health checks: each replica is asked now and then whether it is there, and `ready` follows; and an engine is
asked how busy it is, which the balancer adds to what it knows by itself.

Passive signs (failed requests) are the breakers' business; this is what finds a replica that nobody is sent to, and
what brings one back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from penstock.balancing.balancer import Balancer
from penstock.config.spec import PlaneSpec
from penstock.core.clock import Clock
from penstock.core.fleet import Replica
from penstock.telemetry.engine_metrics import EngineReport, read
from penstock.upstreams.base import Call, Transport

TICK: Final = 0.25  # seconds; a replica that is new is asked within so long
TIMEOUT: Final = 2.0  # seconds for an answer
FAILURES: Final = 2  # in a row, before a replica that was well is taken out
MAX_PAGE: Final = 8 * 1024 * 1024  # bytes of metrics; vLLM has some 200 kB
LATER: Final = 60.0  # seconds until an engine that has no metrics is asked for them again


class View(Protocol):
    """What is needed of a plane."""

    @property
    def spec(self) -> PlaneSpec: ...
    @property
    def pools(self) -> Mapping[str, Sequence[Replica]]: ...
    @property
    def transports(self) -> Mapping[str, Transport]: ...
    @property
    def balancer(self) -> Balancer: ...


class Serving(Protocol):
    @property
    def plane(self) -> View: ...


class Health:
    """What is known of one replica. Times are Clock.now() seconds."""

    __slots__ = ("failed_in_a_row", "health", "next_at", "page", "report_at", "was_well")

    def __init__(self) -> None:
        self.next_at = 0.0
        self.report_at = 0.0
        self.failed_in_a_row = 0
        self.was_well = False
        self.health: Question | None = None  # under way
        self.page: Question | None = None

    def learned(self, replica: Replica, *, well: bool) -> None:
        if well:
            self.failed_in_a_row, self.was_well, replica.ready = 0, True, True
            return
        self.failed_in_a_row += 1
        if not self.was_well or self.failed_in_a_row >= FAILURES:
            replica.ready = self.was_well = False

    def give_up(self) -> None:
        for question in (self.health, self.page):
            if question is not None:
                question.give_up()


class Question:
    """One GET under way; the transport's receiver. `answered` is called once, with the status (0: no answer) and, where
    the `page` is wanted, with all of it; never after `give_up`.
    """

    __slots__ = ("_answered", "_call", "_page", "_status", "_timer", "_wanted")

    def __init__(self, path: str, transport: Transport, answered: Callable[[int, bytes], None], *, page: bool) -> None:
        self._answered: Callable[[int, bytes], None] | None = answered
        self._wanted, self._page, self._status = page, bytearray(), 0
        head = b"GET %b HTTP/1.1\r\nhost: %b\r\nuser-agent: penstock\r\n" % (path.encode("ascii"), transport.host)
        self._timer = asyncio.get_running_loop().call_later(TIMEOUT, self._end, 0)
        self._call: Call = transport.send(head, b"", b"", self)

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        if not self._wanted and self._answered is not None:  # the connection is kept until the body has come
            answered, self._answered = self._answered, None
            answered(status, b"")

    def on_data(self, data: bytes, ended: bool) -> None:
        if self._wanted:
            self._page += data
            if len(self._page) > MAX_PAGE:
                self._end(0)
        if ended:
            self._end(self._status)

    def on_failure(self, error: object) -> None:
        self._end(0)

    def give_up(self) -> None:
        self._timer.cancel()
        self._call.close()
        self._answered = None

    def _end(self, status: int) -> None:
        answered, page = self._answered, bytes(self._page)
        self.give_up()
        if answered is not None:
            answered(status, page)


class Prober:
    """Checks every replica that has a health path, each `probe_interval` seconds of the plane's spec, and looks at the
    metrics of every engine that has some, each `report_interval`. `reports` are the last ones, by replica.
    """

    def __init__(self, gateway: Serving, clock: Clock) -> None:
        self._gateway, self._clock = gateway, clock
        self._known: dict[tuple[str, str], Health] = {}  # by name and origin: a new place is a new replica
        self.reports: dict[str, EngineReport] = {}

    async def run(self) -> None:
        try:
            while True:
                self.look()
                await asyncio.sleep(TICK)
        finally:
            for health in self._known.values():
                health.give_up()

    def look(self) -> None:
        """Ask those whose turn it is; forget those that are gone."""
        plane, now = self._gateway.plane, self._clock.now()
        known, self._known = self._known, {}
        for deployment in plane.spec.deployments:
            for place, replica in zip(deployment.replicas, plane.pools[deployment.name], strict=True):
                if place.health_path is None and place.metrics_path is None:
                    continue
                key = place.name, place.origin
                health = self._known[key] = known.pop(key) if key in known else Health()
                transport = plane.transports[place.name]
                if place.health_path is not None and health.health is None and health.next_at <= now:
                    health.next_at = now + plane.spec.probe_interval
                    told = partial(self._health, health, replica)
                    health.health = Question(place.health_path, transport, told, page=False)
                if place.metrics_path is not None and health.page is None and health.report_at <= now:
                    health.report_at = now + plane.spec.report_interval
                    told = partial(self._page, health, replica)
                    health.page = Question(place.metrics_path, transport, told, page=True)
        for (name, _), health in known.items():
            health.give_up()
            if all(name != other for other, _ in self._known):
                self.reports.pop(name, None)

    def _health(self, health: Health, replica: Replica, status: int, page: bytes) -> None:
        """Any answer below 500 is a sign of life."""
        health.health = None
        health.learned(replica, well=0 < status < 500)

    def _page(self, health: Health, replica: Replica, status: int, page: bytes) -> None:
        health.page = None
        if status != 200:
            self.reports.pop(replica.name, None)
            if status:
                health.report_at = self._clock.now() + LATER
            return
        before, report = self.reports.get(replica.name), read(page)
        self.reports[replica.name] = report
        if before is not None and (before.prompt_tokens or 0) > (report.prompt_tokens or 0):
            self._gateway.plane.balancer.restarted(replica.name)  # it counts anew
        replica.reported(
            waiting=int(report.waiting or 0),
            running=int(report.running or 0),
            kv_used=min(1.0, report.kv_used or 0.0),
            kv_tokens=None if report.kv_tokens is None else int(report.kv_tokens),
            max_running=None if report.max_running is None else int(report.max_running),
        )
