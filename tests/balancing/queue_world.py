"""Replicas that a test moves by hand, and a driver that does with the queue's answers what a gateway does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

import msgspec

from penstock.balancing.balancer import Gate
from penstock.balancing.choice import Choice
from penstock.balancing.queue import Queue
from penstock.balancing.queue_options import QueueOptions
from penstock.balancing.queue_values import Preempt, Refusal
from penstock.balancing.ticket import Ticket
from penstock.core.fleet import Replica
from penstock.core.request import Caller, Endpoint, Priority, Request

RATE = 8_000.0  # tokens per second of every replica here
THRESHOLD = 8_192


class Open:
    closed = True

    def allows(self, now: float) -> bool:
        return True


class LeastWait:
    """Cost and wait are the time until the prompt is computed; the first of equals is best."""

    def __init__(self) -> None:
        self.cached: dict[tuple[str, str], int] = {}  # (request id, replica): tokens
        self.calls = 0

    def choose(
        self,
        request: Request,
        pools: Sequence[Sequence[Replica]],
        gates: Mapping[str, Gate],
        tried: Collection[str],
        now: float,
        rng: Random,
    ) -> Choice | None:
        self.calls += 1
        for number, pool in enumerate(pools):
            best: Choice | None = None
            for place, replica in enumerate(pool):
                if not replica.ready or replica.name in tried:
                    continue
                uncached = max(1, request.prompt_tokens - self.cached.get((request.id, replica.name), 0))
                wait = (replica.pending_tokens + uncached) / RATE
                if best is None or wait < best.cost:
                    free = not replica.kv_tokens or replica.pending_tokens < THRESHOLD
                    best = Choice(number, place, wait, wait, uncached, free, request.prompt_tokens + request.max_tokens)
            if best is not None:
                return best
        return None


def request(
    name: str,
    tokens: int = 8_000,
    *,
    tenant: str = "acme",
    priority: Priority = Priority.NORMAL,
    deadline: float = inf,
    stream: bool = True,
) -> Request:
    """Its answer has no tokens that count, so that its work is its prompt's."""
    caller = Caller("web", tenant, priority=priority)
    return Request(name, Endpoint.CHAT, caller, "chat", stream, False, tokens, 0, (), {}, 0.0, deadline)


@dataclass
class Held:
    """What an attempt has at a replica."""

    replica: Replica
    tokens: int
    uncached: int  # pending: 0 after its first token


class World:
    """One pool. `sent` and `refused` are what the driver was told, `stopped` whom it preempted."""

    def __init__(self, replicas: int = 1, options: QueueOptions | None = None, *, kv_tokens: int = 1_000_000) -> None:
        self.replicas = [Replica(f"r{i}", "local", kv_tokens=kv_tokens) for i in range(replicas)]
        self.gates = {replica.name: Open() for replica in self.replicas}
        self.chooser = LeastWait()
        self.queue = Queue(self.chooser, options or QueueOptions())
        self.now = 100.0
        self.rng = Random(1)
        self.tickets: dict[str, Ticket] = {}
        self.held: dict[str, Held] = {}  # by request
        self.sent: list[str] = []
        self.refused: dict[str, Refusal] = {}
        self.stopped: list[str] = []

    def offer(self, name: str, tokens: int = 8_000, **about: object) -> None:
        asked = request(name, tokens, **about)  # type: ignore[arg-type]
        self.offer_ticket(Ticket(asked, (self.replicas,), self.gates))

    def offer_ticket(self, ticket: Ticket) -> None:
        self.tickets[ticket.request.id] = ticket
        answer = self.queue.offer(ticket, self.now, self.rng)
        if answer is not None:
            self._answered(ticket, answer)
        self.drive()

    def drive(self) -> None:
        while (answer := self.queue.next(self.now, self.rng)) is not None:
            self._answered(*answer)
        self.queue.check()

    def first_token(self, name: str) -> None:
        held = self.held[name]
        held.replica.first_token(held.uncached, self.now)
        held.uncached = 0
        self.queue.first_token(self.tickets[name])
        self.drive()

    def end(self, name: str, *, output: int = 0) -> None:
        ticket = self.tickets.pop(name)
        self._let_go(name)
        assert ticket.choice is not None
        self.queue.finished(ticket, ticket.choice.uncached)
        self.drive()

    def leave(self, name: str) -> None:
        if name in self.held:
            self._let_go(name)
        self.queue.leave(self.tickets.pop(name))
        self.drive()

    def retry(self, name: str) -> None:
        """Its attempt failed."""
        ticket = self.tickets[name]
        ticket.tried = {*ticket.tried, self.held[name].replica.name}
        self._let_go(name)
        self.offer_ticket(ticket)

    def pass_time(self, seconds: float) -> None:
        """The driver wakes up whenever the queue asks it to."""
        until = self.now + seconds
        while (at := self.queue.wake_at()) <= until:
            assert at < inf
            self.now = max(self.now, at)
            self.drive()
        self.now = until

    def waiting(self) -> list[str]:
        return sorted(set(self.tickets) - set(self.held))

    def _answered(self, ticket: Ticket, answer: Choice | Refusal | Preempt) -> None:
        name = ticket.request.id
        if isinstance(answer, Choice):
            assert name not in self.held, "nobody is sent twice"
            replica = ticket.pools[answer.pool][answer.place]
            replica.started(answer.tokens, answer.uncached, self.now)
            self.held[name] = Held(replica, answer.tokens, answer.uncached)
            self.sent.append(name)
        elif isinstance(answer, Refusal):
            assert name not in self.held
            self.refused[name] = answer
            del self.tickets[name]
        else:
            self.stopped.append(name)
            self._let_go(name)
            again = self.queue.offer(ticket, self.now, self.rng)
            if again is not None:
                self._answered(ticket, again)

    def _let_go(self, name: str) -> None:
        held = self.held.pop(name)
        held.replica.ended(held.tokens, held.uncached, self.now)


def options(**changes: object) -> QueueOptions:
    return msgspec.structs.replace(QueueOptions(), **changes)
