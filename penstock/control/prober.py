"""Active health checks: each replica is asked now and then whether it is there, and `ready` follows.

Passive signs (failed requests) are the breakers' business; this is what finds a replica that nobody is sent to, and
what brings one back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from penstock.config.spec import PlaneSpec, ReplicaSpec
from penstock.core.clock import Clock
from penstock.core.fleet import Replica
from penstock.upstreams.base import Call, Transport

TICK: Final = 0.25  # seconds; a replica that is new is asked within so long
TIMEOUT: Final = 2.0  # seconds for an answer
FAILURES: Final = 2  # in a row, before a replica that was well is taken out


class View(Protocol):
    """What is needed of a plane."""

    @property
    def spec(self) -> PlaneSpec: ...
    @property
    def pools(self) -> Mapping[str, Sequence[Replica]]: ...
    @property
    def transports(self) -> Mapping[str, Transport]: ...


class Serving(Protocol):
    @property
    def plane(self) -> View: ...


class Health:
    """What is known of one replica. `next_at` is Clock.now() seconds."""

    __slots__ = ("asked", "failed_in_a_row", "next_at", "was_well")

    def __init__(self) -> None:
        self.next_at = 0.0
        self.failed_in_a_row = 0
        self.was_well = False
        self.asked: Question | None = None

    def learned(self, replica: Replica, *, well: bool) -> None:
        if well:
            self.failed_in_a_row, self.was_well, replica.ready = 0, True, True
            return
        self.failed_in_a_row += 1
        if not self.was_well or self.failed_in_a_row >= FAILURES:
            replica.ready = self.was_well = False


class Question:
    """One check under way; the transport's receiver. Any answer below 500 is a sign of life."""

    __slots__ = ("_call", "_health", "_replica", "_timer")

    def __init__(self, health: Health, replica: Replica, place: ReplicaSpec, transport: Transport) -> None:
        self._health, self._replica = health, replica
        health.asked = self
        path = f"{place.health_path}".encode("ascii")
        head = b"GET %b HTTP/1.1\r\nhost: %b\r\nuser-agent: penstock\r\n" % (path, transport.host)
        self._timer = asyncio.get_running_loop().call_later(TIMEOUT, self._answered, False)
        self._call: Call = transport.send(head, b"", b"", self)

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._health.learned(self._replica, well=status < 500)

    def on_data(self, data: bytes, ended: bool) -> None:
        if ended:
            self.give_up()

    def on_failure(self, error: object) -> None:
        self._answered(False)

    def give_up(self) -> None:
        self._timer.cancel()
        self._call.close()
        self._health.asked = None

    def _answered(self, well: bool) -> None:
        self._health.learned(self._replica, well=well)
        self.give_up()


class Prober:
    """Checks every replica that has a health path, each `probe_interval` seconds of the plane's spec."""

    def __init__(self, gateway: Serving, clock: Clock) -> None:
        self._gateway, self._clock = gateway, clock
        self._known: dict[tuple[str, str], Health] = {}  # by name and origin: a new place is a new replica

    async def run(self) -> None:
        try:
            while True:
                self.look()
                await asyncio.sleep(TICK)
        finally:
            for health in self._known.values():
                if health.asked is not None:
                    health.asked.give_up()

    def look(self) -> None:
        """Ask those whose turn it is; forget those that are gone."""
        plane, now = self._gateway.plane, self._clock.now()
        known, self._known = self._known, {}
        for deployment in plane.spec.deployments:
            for place, replica in zip(deployment.replicas, plane.pools[deployment.name], strict=True):
                if place.health_path is None:
                    continue
                key = place.name, place.origin
                health = self._known[key] = known.pop(key) if key in known else Health()
                if health.asked is None and health.next_at <= now:
                    health.next_at = now + plane.spec.probe_interval
                    Question(health, replica, place, plane.transports[place.name])
        for health in known.values():
            if health.asked is not None:
                health.asked.give_up()
