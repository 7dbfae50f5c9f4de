"""Drives the central queue: gives out its answers until there are none, and wakes it when its time has come.

The live gateway and the simulator drive it with this same file; what differs is the clock and the alarm.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import Protocol

from penstock.balancing.choice import Choice
from penstock.balancing.queue import Queue
from penstock.balancing.queue_values import Preempt, Refusal
from penstock.balancing.ticket import Ticket
from penstock.core.fleet import Replica


class Owner(Protocol):
    """Whose ticket it is. Told once for each offer, perhaps from within the call; none of these may raise."""

    def chosen(self, choice: Choice) -> None:
        """Its turn: dispatch it there, now."""
        ...

    def refused(self, refusal: Refusal) -> None: ...

    def preempted(self) -> None:
        """Its attempt has to make room: stop that, and offer the ticket again."""
        ...


class Line:
    """`wake` is asked to call `settle` at a time (Clock.now() seconds); being called early or late is harmless."""

    __slots__ = ("_now", "_owners", "_rng", "_settling", "_wake", "_wakes_at", "queue")

    def __init__(self, queue: Queue, rng: Random, now: Callable[[], float], wake: Callable[[float], None]) -> None:
        self.queue = queue
        self._rng = rng
        self._now = now
        self._wake = wake
        self._owners: dict[int, Owner] = {}  # by the id of their tickets
        self._settling = False
        self._wakes_at = inf

    def offer(self, ticket: Ticket, owner: Owner) -> None:
        self._owners[id(ticket)] = owner
        answer = self.queue.offer(ticket, self._now(), self._rng)
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

    def finished(self, ticket: Ticket, uncached: int) -> None:
        self._owners.pop(id(ticket), None)
        self.queue.finished(ticket, uncached)
        self.settle()

    def leave(self, ticket: Ticket) -> None:
        self._owners.pop(id(ticket), None)
        self.queue.leave(ticket)
        self.settle()

    def room(self, replica: Replica) -> None:
        if self.queue.waiting:
            self.queue.room(replica)
            self.settle()

    def look_again(self) -> None:
        self.queue.look_again()
        self.settle()

    def settle(self) -> None:
        """Give out answers until there are none."""
        if self._settling or not self.queue.waiting:
            return
        self._settling = True
        queue, now = self.queue, self._now()
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
            self._wake(max(now, wake_at))

    def woke(self) -> None:
        """The time has come that `wake` was told."""
        self._wakes_at = inf
        self.settle()
