"""The central queue in a simulation: the live machine, driven as the gateway drives it."""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING

from penstock.balancing.choice import Choice
from penstock.balancing.queue import Queue
from penstock.balancing.queue_values import Preempt
from penstock.balancing.ticket import Ticket
from penstock.core.fleet import Replica
from penstock.sim.world import World

if TYPE_CHECKING:
    from penstock.sim.requests import SimulatedRequest


class Line:
    """Tells requests what the queue answers them: `chosen`, `refused`, `preempted`."""

    __slots__ = ("_owners", "_rng", "_settling", "_wakes_at", "_world", "queue")

    def __init__(self, world: World, queue: Queue, rng: Random) -> None:
        self._world = world
        self.queue = queue
        self._rng = rng
        self._owners: dict[int, SimulatedRequest] = {}  # by the id of their tickets
        self._settling = False
        self._wakes_at = inf

    def offer(self, ticket: Ticket, owner: SimulatedRequest) -> None:
        self._owners[id(ticket)] = owner
        answer = self.queue.offer(ticket, self._world.now, self._rng)
        if answer is None:
            self.settle()
        elif isinstance(answer, Choice):
            owner.chosen(answer)
        else:
            owner.refused(answer)

    def first_token(self, ticket: Ticket) -> None:
        self.queue.first_token(ticket)
        self.settle()

    def ended(self, ticket: Ticket) -> None:
        """Its attempt has failed; perhaps there will be another."""
        self.queue.ended(ticket)
        self.settle()

    def finished(self, ticket: Ticket, uncached: int, output: int) -> None:
        self._owners.pop(id(ticket), None)
        self.queue.finished(ticket, uncached, output)
        self.settle()

    def leave(self, ticket: Ticket) -> None:
        self._owners.pop(id(ticket), None)
        self.queue.leave(ticket)
        self.settle()

    def room(self, replica: Replica) -> None:
        self.queue.room(replica)
        self.settle()

    def look_again(self) -> None:
        self.queue.look_again()
        self.settle()

    def settle(self) -> None:
        """Give out answers until there are none."""
        if self._settling:
            return
        self._settling = True
        queue, now = self.queue, self._world.now
        while (answer := queue.next(now, self._rng)) is not None:
            ticket, what = answer
            owner = self._owners[id(ticket)]
            if isinstance(what, Choice):
                owner.chosen(what)
            elif isinstance(what, Preempt):
                owner.preempted()
            else:
                owner.refused(what)
        self._settling = False
        wake_at = queue.wake_at()
        if wake_at < self._wakes_at:
            self._wakes_at = wake_at
            self._world.at(max(now, wake_at), self._wake)

    def _wake(self) -> None:
        self._wakes_at = inf
        self.settle()
