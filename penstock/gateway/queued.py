"""The central queue before the deployments of some models, and how full they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from penstock.balancing.balancer import Balancer
from penstock.balancing.line import Line
from penstock.balancing.queue import Queue
from penstock.balancing.queue_options import QueueOptions
from penstock.balancing.queue_values import QueueView
from penstock.core.clock import Clock
from penstock.core.fleet import Replica
from penstock.core.request import Priority


class Queued:
    """Of all models whose deployments overlap: their requests compete.

    Requests wait here only while it is `engaged`: where no engine says how much it can hold, as with companies' APIs,
    nobody could know when there is room.
    """

    __slots__ = ("_slots", "drains", "engaged", "key", "line", "options", "pools")

    def __init__(
        self, key: tuple[str, ...], options: QueueOptions, balancer: Balancer, rng: Random, clock: Clock
    ) -> None:
        def wake(at: float) -> None:
            asyncio.get_running_loop().call_later(max(0.0, at - clock.now()), line.woke)

        self.key = key  # its deployments
        self.options = options
        self.line = line = Line(Queue(balancer, options), rng, clock.now, wake)
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
        replicas = [replica for pool in self.pools for replica in pool]
        self.engaged = any(replica.kv_tokens or replica.max_running for replica in replicas)
        slots = sum(replica.max_running for replica in replicas if replica.ready)
        if slots != self._slots:
            self._slots = slots
            self.line.queue.resize(slots)
        self.line.settle()
        if not self.line.queue.waiting:
            self.drains = dict.fromkeys(Priority, 0.0)
            return None
        view = self.line.queue.view(now)
        before = 0.0
        for one in view.classes:
            before = self.drains[one.priority] = max(before, one.drain)
        return view
