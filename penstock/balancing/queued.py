"""The central queue before the deployments of some models, and how full they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from penstock.balancing.line import Line
from penstock.balancing.queue import Chooser, Queue
from penstock.balancing.queue_options import QueueOptions
from penstock.balancing.queue_values import QueueView
from penstock.core.fleet import Replica
from penstock.core.request import Priority


class Queued:
    """Of all models whose deployments overlap: their requests compete.

    Requests wait here only while it is `engaged`: where no engine says how much it can hold, as with companies' APIs,
    nobody could know when there is room.
    """

    __slots__ = ("_slots", "drains", "engaged", "key", "line", "options", "pools")

    def __init__(
        self,
        key: tuple[str, ...],
        options: QueueOptions,
        balancer: Chooser,
        rng: Random,
        now: Callable[[], float],
        wake: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`wake` is asked to call a function at a time (Clock.now() seconds)."""

        def ring(at: float) -> None:
            wake(at, line.woke)

        self.key = key  # its deployments
        self.options = options
        self.line = line = Line(Queue(balancer, options), rng, now, ring)
        self.pools: Sequence[Sequence[Replica]] = ()
        self.engaged = False
        self.drains: dict[Priority, float] = dict.fromkeys(Priority, 0.0)
        """Seconds until what now waits has been sent, as predicted; by class, with those that go before it."""
        self._slots = -1

    def serve(self, pools: Sequence[Sequence[Replica]]) -> None:
        """These are its replicas from now on."""
        self.pools = pools
        self.line.look_again()

    def tend(self, now: float) -> QueueView | None:
        """Now and then: what has changed by itself. How full it is, where anybody waits."""
        slots = 0
        engaged = False
        for pool in self.pools:
            for replica in pool:
                if replica.ready:
                    slots += replica.max_running
                if replica.kv_tokens or replica.max_running:
                    engaged = True
        self.engaged = engaged
        if slots != self._slots:
            self._slots = slots
            self.line.queue.resize(slots)
        self.line.settle()
        if not self.line.queue.waiting:
            self.drains = dict.fromkeys(Priority, 0.0)
            return None
        view: QueueView = self.line.queue.view(now)
        before = 0.0
        for one in view.classes:
            before = self.drains[one.priority] = max(before, one.drain)
        return view


def overlapping(plans: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The deployments of these plans in groups, each for one queue: two that one plan names are in the same."""
    groups: list[dict[str, None]] = []  # as sets that keep their order
    for names in plans:
        joined = dict.fromkeys(names)
        apart: list[dict[str, None]] = []
        for group in groups:
            if joined.keys().isdisjoint(group):
                apart.append(group)
            else:
                joined = group | joined
        groups = [*apart, joined]
    return [tuple(group) for group in groups]
