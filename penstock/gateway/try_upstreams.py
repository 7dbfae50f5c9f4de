"""Drives `Attempts` with the event loop: opens upstreams, arms the alarm, waits for the first token.

No task per attempt: streams call back, and one future wakes the request when something has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from penstock.balancing.balancer import nobody_may, wait_for_any
from penstock.core.errors import FailureKind, Untranslatable, UpstreamError
from penstock.core.fleet import Replica
from penstock.core.microseconds import to_microsecond
from penstock.core.plan import CANCELLED, Attempt, Plan
from penstock.core.request import Endpoint, Request
from penstock.gateway.alarm import Alarm, Alarms
from penstock.gateway.leases import Leases
from penstock.gateway.plane import Plane, Route
from penstock.resilience.attempts import (
    Action,
    Attempts,
    Cancel,
    Commit,
    Event,
    Failed,
    FirstToken,
    GiveUp,
    Open,
    WakeAt,
    Woke,
)
from penstock.resilience.failures import for_caller
from penstock.upstreams.base import Stream
from penstock.wire.so_far import SoFar

_WOKE: Final = Woke()
GENERATION: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETION, Endpoint.MESSAGES, Endpoint.RESPONSES})


class Try:
    """One attempt while it lives; the listener of its stream. `end` gives back everything it holds."""

    __slots__ = ("_owner", "ended", "first_token_at", "number", "replica", "started_at", "stream", "tokens")

    def __init__(self, owner: TryUpstreams, number: int, replica: Replica, now: float) -> None:
        request, plane = owner.request, owner.plane
        self._owner, self.number, self.replica = owner, number, replica
        self.tokens = request.prompt_tokens + request.max_tokens
        self.started_at = now
        self.first_token_at: float | None = None
        self.ended = False
        self.stream: Stream = plane.upstreams[replica.name].open(request, self, now, owner.so_far)
        replica.started(self.tokens)
        plane.breakers[replica.name].on_start(now)
        plane.balancer.sent(request, replica.name)

    def on_first_token(self) -> None:
        self.first_token_at = self._owner.plane.clock.now()
        self._owner.tell(FirstToken(self.number))

    def on_failed(self, failure: UpstreamError) -> None:
        owner = self._owner
        now = owner.plane.clock.now()
        if failure.retry_after is not None:
            self.replica.cool(now + failure.retry_after, rate_limited=failure.kind is FailureKind.RATE_LIMITED)
        owner.end(self, failure.kind)
        owner.failed(failure)
        owner.tell(Failed(self.number, failure, wait_for_any(owner.pools, now)))

    def end(self, ended: FailureKind | str) -> Attempt | None:
        """ "ok", "cancelled", or why it failed. The first call counts, later ones do nothing."""
        if self.ended:
            return None
        self.ended = True
        self.stream.close()
        self.replica.ended(self.tokens)
        owner = self._owner
        plane, received_at = owner.plane, owner.request.received_at
        now = plane.clock.now()
        # an endpoint that a server does not have says nothing of its health: any caller may ask for one
        lacks = ended is FailureKind.MISCONFIGURED and owner.request.endpoint not in GENERATION
        plane.breakers[self.replica.name].on_end(CANCELLED if lacks else ended, now)
        first = self.first_token_at
        return Attempt(
            self.number,
            self.replica.name,
            ended,
            to_microsecond(self.started_at - received_at),
            None if first is None else to_microsecond(first - received_at),
            to_microsecond(now - received_at),
        )


class TryUpstreams:
    """The attempts of one request. `records` are those that are over, in the order in which they ended.

    Nearly always the first attempt answers, and then `Attempts` has nothing to decide: so it is made only when
    something else happens, and told what has been done in its name. Being a pure machine it cannot tell the difference.
    """

    __slots__ = (
        "_alarm",
        "_alarms",
        "_budget",
        "_failed",
        "_inbox",
        "_machine",
        "_started_at",
        "_tried",
        "_tries",
        "_waiting",
        "_wake_at",
        "deadline",
        "on_news",
        "plan",
        "plane",
        "pools",
        "records",
        "request",
        "so_far",
    )

    def __init__(
        self,
        plane: Plane,
        request: Request,
        plan: Plan,
        route: Route,
        alarms: Alarms,
        alarm: Alarm,
        leases: Leases,
        so_far: SoFar | None = None,
    ) -> None:
        """`so_far`: what the caller has been told, where a stream that breaks may be gone on with."""
        self.plane, self.request, self.plan, self.so_far = plane, request, plan, so_far
        self._alarms, self._alarm = alarms, alarm
        self.pools: Sequence[Sequence[Replica]] = route.pools
        self._budget = route.budget
        self._failed: UpstreamError | None = None  # what went wrong last
        self.on_news: Callable[[], None] | None = None  # who listens when nobody awaits `news` any more
        self.deadline = min(request.received_at + plan.total_timeout, request.deadline)
        self._machine: Attempts | None = None
        self._tries: list[Try] = []
        self._tried: tuple[str, ...] = ()
        self._inbox: list[Event] = []
        self._waiting: asyncio.Future[None] | None = None
        self.records: tuple[Attempt, ...] = ()
        leases.hold(self._end_all)

    def start(self) -> None:
        plane, plan = self.plane, self.plan
        self._started_at = now = plane.clock.now()
        self._budget.on_request()
        # no later than the machine would say; waking early is harmless
        self._wake_at = min(now + (plan.hedge_after or plan.first_token_timeout), self.deadline)
        self._open(0, now)

    def news(self) -> asyncio.Future[None]:
        """Done when something has happened that `answer` should look at."""
        self._waiting = waiting = self._alarms.loop.create_future()
        self._alarms.set(self._alarm, self._wake_at - self.plane.clock.now(), self._woke)
        return waiting

    def answer(self) -> Try | None:
        """Look at what has happened: the attempt that has begun to answer, if any.

        Raises `PenstockError` when nobody will.
        """
        self._waiting = None
        inbox = self._inbox
        if not inbox:
            return None
        self._alarm.mute()
        machine, plane = self._machine, self.plane
        if machine is None:
            if isinstance(inbox[0], FirstToken):
                return self._tries[0]
            machine = self._machine = Attempts(self.plan, self._budget, plane.rng, self.deadline)
            machine.start(self._started_at)
        chosen: Try | None = None
        while inbox and not machine.done:
            now = plane.clock.now()
            for action in machine.on(inbox.pop(0), now):
                chosen = self._act(action, now) or chosen
        return chosen

    def go_on(self, broken: Try, failure: UpstreamError, so_far: SoFar, pools: Sequence[Sequence[Replica]]) -> None:
        """The stream that the caller was listening to broke: let another one, out of `pools`, go on with it.

        `news` and `answer` tell of it, as before. Raises `PenstockError` when no more attempts may be made.
        """
        now = self.plane.clock.now()
        self.end(broken, failure.kind)
        self.so_far, self.pools = so_far, pools
        machine = self._machine
        if machine is None:
            machine = self._machine = Attempts(self.plan, self._budget, self.plane.rng, self.deadline)
            machine.start(self._started_at)
            machine.on(FirstToken(broken.number), now)
        for action in machine.broke(failure, wait_for_any(pools, now), now):
            self._act(action, now)

    @property
    def live(self) -> list[Try]:
        """The attempts that are under way."""
        return [this for this in self._tries if not this.ended]

    def watch(self, at: float, ring: Callable[[], None]) -> None:
        """Ring at `at` (Clock.now() seconds) instead of whatever the alarm was set to."""
        self._alarms.set(self._alarm, max(0.0, at - self.plane.clock.now()), ring)

    def failed(self, failure: UpstreamError) -> None:
        self._failed = failure

    def tell(self, event: Event) -> None:
        self._inbox.append(event)
        if self.on_news is not None:
            self.on_news()
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def end(self, this: Try, ended: FailureKind | str) -> None:
        record = this.end(ended)
        if record is not None:
            self.records += (record,)

    def _woke(self) -> None:
        self.tell(_WOKE)

    def _act(self, action: Action, now: float) -> Try | None:
        match action:
            case Open(number):
                self._open(number, now)
            case WakeAt(at):
                self._wake_at = at
            case Commit(number):
                return next(this for this in self._tries if this.number == number)
            case Cancel(number, failure):
                for this in self._tries:
                    if this.number == number:
                        self.end(this, failure or CANCELLED)
            case GiveUp(failed):
                raise for_caller(failed) from None
        return None

    def _open(self, number: int, now: float) -> None:
        plane = self.plane
        picked = plane.balancer.pick(self.request, self.pools, plane.breakers, self._tried, now, plane.rng)
        if picked is None:
            self.tell(Failed(number, nobody_may(self.pools, now), wait_for_any(self.pools, now)))
            return
        replica = self.pools[picked[0]][picked[1]]
        self._tried += (replica.name,)
        try:
            self._tries.append(Try(self, number, replica, now))
        except UpstreamError as failure:  # no credential to send it with
            self.tell(Failed(number, failure, wait_for_any(self.pools, now)))
        except Untranslatable as error:  # its whole deployment is of no use to this request
            self.pools = [() if i == picked[0] else pool for i, pool in enumerate(self.pools)]
            if not any(self.pools):
                raise (error if self._failed is None else for_caller(self._failed)) from None
            self._open(number, now)

    def _end_all(self) -> None:
        for this in self._tries:
            if not this.ended:
                self.end(this, CANCELLED)
        self._tries.clear()  # they point back here: without the cycle nothing waits for the collector
