"""Drives `Attempts` with the event loop: opens upstreams, arms the alarm, waits for the first token.

No task per attempt: streams call back, and one future wakes the request when something has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from penstock.balancing.balancer import nobody_may, wait_for_any
from penstock.balancing.choice import Choice
from penstock.balancing.line import Line
from penstock.balancing.queue_values import Reason, Refusal
from penstock.balancing.ticket import Ticket
from penstock.core.errors import FailureKind, PenstockError, QueueRefused, Untranslatable, UpstreamError
from penstock.core.fleet import Replica
from penstock.core.microseconds import to_microsecond
from penstock.core.plan import CANCELLED, OK, Attempt, Plan
from penstock.core.request import Endpoint, Request
from penstock.gateway.alarm import Alarm, Alarms
from penstock.gateway.leases import Leases
from penstock.gateway.plane import Plane, Route
from penstock.gateway.prefill import COMPUTED, open_elsewhere
from penstock.resilience.attempt_events import (
    Action,
    Cancel,
    Commit,
    Event,
    Failed,
    FirstToken,
    GiveUp,
    Open,
    Suspected,
    WakeAt,
    Woke,
)
from penstock.resilience.attempts import Attempts
from penstock.resilience.concurrency import Limited
from penstock.resilience.failures import for_caller
from penstock.resilience.hedging import with_hedge
from penstock.upstreams.base import Stream
from penstock.wire.so_far import SoFar
from penstock.wire.trace_context import for_attempt

_WOKE: Final = Woke()
GENERATION: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETION, Endpoint.MESSAGES, Endpoint.RESPONSES})


class Try:
    """One attempt while it lives; the listener of its stream. `end` gives back everything it holds."""

    __slots__ = (
        "_owner",
        "_predicted",
        "_uncached",
        "_watch",
        "dispatch",
        "ended",
        "first_token_at",
        "number",
        "queued",
        "replica",
        "started_at",
        "stream",
        "ticket",
    )

    def __init__(self, owner: TryUpstreams, number: int, replica: Replica, choice: Choice, now: float) -> None:
        request, plane = owner.request, owner.plane
        self._owner, self.number, self.replica = owner, number, replica
        self._predicted: float = choice.wait
        self.started_at = now
        self.first_token_at: float | None = None
        self.ended = False
        self.queued = False  # it runs on the request's place in the central queue; a hedge runs beside it
        self.ticket = 0  # of its watch
        self._watch = plane.watches.get(replica.deployment)
        rule = plane.prefills.get(replica.deployment)
        elsewhere: Stream | None = None
        if rule is not None and owner.so_far is None:
            elsewhere = open_elsewhere(plane, rule, request, self, replica, choice, now)
        if elsewhere is None:
            self.stream: Stream = plane.upstreams[replica.name].open(request, self, now, owner.so_far)
        else:
            self.stream, choice = elsewhere, structs.replace(choice, uncached=COMPUTED)
        self.dispatch = plane.balancer.dispatch(request, replica, choice, now)
        plane.gates[replica.name].on_start(now)
        if self._watch is not None:
            self._watch.started(self, choice.wait, now)

    def on_first_token(self) -> None:
        owner = self._owner
        self.first_token_at = now = owner.plane.clock.now()
        self.dispatch.first_token(now)
        owner.began(self, self._predicted, now)
        if self._watch is not None:
            self._watch.first_token(self, now)
        asker = owner.plane.tokens.get(self.replica.deployment)
        if asker is not None:
            asker.offer(owner.request, self.replica.deployment, owner.plane.upstreams[self.replica.name])
        owner.tell(FirstToken(self.number))

    def on_failed(self, failure: UpstreamError) -> None:
        owner = self._owner
        now = owner.plane.clock.now()
        if failure.retry_after is not None:
            self.replica.cool(now + failure.retry_after, rate_limited=failure.kind is FailureKind.RATE_LIMITED)
        owner.end(self, failure.kind)
        owner.failed(failure)
        owner.tell(Failed(self.number, failure, wait_for_any(owner.pools, now)))

    @property
    def progressed_at(self) -> float:
        return self.stream.progressed_at

    def traceparent(self) -> bytes:
        owner = self._owner
        trace = owner.trace
        return b"" if trace is None else for_attempt(owner.request.id, self.number, trace[0], trace[1])

    def suspected(self) -> None:
        """Its replica has been left out, and nothing has come from it yet."""
        if not self.ended:
            self._owner.tell(Suspected(self.number))

    def end(self, ended: FailureKind | str) -> Attempt | None:
        """ "ok", "cancelled", or why it failed. The first call counts, later ones do nothing."""
        if self.ended:
            return None
        self.ended = True
        owner = self._owner
        plane, received_at = owner.plane, owner.request.received_at
        now = plane.clock.now()
        first, output, cached = self.first_token_at, 0, 0
        if first is not None:
            usage, _ = self.stream.usage()
            output, cached = usage.completion_tokens, usage.cached_tokens
        self.stream.close()
        self.dispatch.ended(now, output if ended == OK else 0)
        # an endpoint that a server does not have says nothing of its health: any caller may ask for one
        if ended is FailureKind.MISCONFIGURED and owner.request.endpoint not in GENERATION:
            ended_there: FailureKind | str = CANCELLED
        else:
            ended_there = ended
        plane.gates[self.replica.name].on_end(ended_there, now)
        if self._watch is not None:
            empty = ended == OK and not output and owner.request.endpoint in GENERATION
            self._watch.ended(self, ended_there, now, output, empty=empty)
        owner.gave_back(self, ended, owner.request.prompt_tokens - cached)
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
        "_hedging",
        "_inbox",
        "_line",
        "_machine",
        "_raised",
        "_started_at",
        "_ticket",
        "_tried",
        "_tries",
        "_waiting",
        "_wake_at",
        "_wanted",
        "choice",
        "deadline",
        "on_news",
        "plan",
        "plane",
        "pools",
        "queued_for",
        "records",
        "request",
        "so_far",
        "trace",
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
        self.trace: tuple[str, bool] | None = None  # what upstreams are told of it; to be set before `start`
        self._alarms, self._alarm = alarms, alarm
        self.pools: Sequence[Sequence[Replica]] = route.pools
        self._budget = route.budget
        self._hedging = route.hedging if request.stream else None
        queued = route.queued
        self._line: Line | None = queued.line if queued is not None and queued.engaged else None
        self._ticket: Ticket | None = None
        self._wanted = 0  # the attempt for which the ticket waits in the central queue; -1: none
        self._raised: PenstockError | None = None  # while nobody was there to catch it
        self.queued_for = 0.0  # seconds before the first attempt
        self.choice: Choice | None = None  # of the first attempt
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
        """Raises `PenstockError` when nobody may be asked at all."""
        self._started_at = now = self.plane.clock.now()
        self._budget.on_request()
        hedging = self._hedging
        if hedging is not None:
            hedging.budget.on_request()
        self._wake_at = self.deadline
        if self._line is None:
            self._wanted = -1
            choice = self._choose(now)
            if choice is None:
                self._nobody(0, now)
            else:
                self._first(choice, now)
        else:
            self._ask_queue(self._line)
        self._raise()

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
        self._raise()
        inbox = self._inbox
        if not inbox:
            return None
        self._alarm.mute()
        machine, plane = self._machine, self.plane
        if machine is None:
            if isinstance(inbox[0], FirstToken):
                return self._tries[0]
            machine = self._make_machine()
        chosen: Try | None = None
        while inbox and not machine.done:
            now = plane.clock.now()
            for action in machine.on(inbox.pop(0), now):
                chosen = self._act(action, now) or chosen
        self._raise()
        return chosen

    def go_on(self, broken: Try, failure: UpstreamError, so_far: SoFar, pools: Sequence[Sequence[Replica]]) -> None:
        """The stream that the caller was listening to broke: let another one, out of `pools`, go on with it.

        `news` and `answer` tell of it, as before. Raises `PenstockError` when no more attempts may be made.
        """
        now = self.plane.clock.now()
        self.end(broken, failure.kind)
        self._let_go()
        self.so_far, self.pools = so_far, pools
        machine = self._machine
        if machine is None:
            machine = self._make_machine()
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
        self._wake_up()

    def end(self, this: Try, ended: FailureKind | str) -> None:
        record = this.end(ended)
        if record is not None:
            self.records += (record,)

    def began(self, this: Try, predicted: float, now: float) -> None:
        """That attempt has its first token."""
        hedging, line, ticket = self._hedging, self._line, self._ticket
        if hedging is not None:
            hedging.learn(predicted, now - this.started_at)
        gate = self.plane.gates[this.replica.name]
        if isinstance(gate, Limited):
            gate.on_first_token(predicted, now - this.started_at)
        if this.queued and line is not None and ticket is not None:
            line.first_token(ticket)

    def gave_back(self, this: Try, ended: FailureKind | str, uncached: int) -> None:
        """That attempt holds nothing at its replica any more."""
        line, ticket = self._line, self._ticket
        if line is None:
            return
        if not this.queued or ticket is None:
            line.room(this.replica)
        elif ended == OK:
            self._ticket = None
            line.finished(ticket, uncached)
        else:
            line.ended(ticket)

    # What the central queue tells us, perhaps in the middle of somebody else's business: nothing may be raised.

    def chosen(self, choice: Choice) -> None:
        number, self._wanted = self._wanted, -1
        now = self.plane.clock.now()
        try:
            if number or self._machine is not None:
                self._send(number, choice, now)
            else:
                self._first(choice, now)
        except PenstockError as error:
            self._raised = error
        if self._waiting is not None:
            if self._raised is not None:
                self._wake_up()
            else:
                self._alarms.set(self._alarm, self._wake_at - now, self._woke)

    def refused(self, refusal: Refusal) -> None:
        number, self._wanted = self._wanted, -1
        ticket, self._ticket = self._ticket, None
        assert ticket is not None and self._line is not None, "who is refused has asked"
        self._line.leave(ticket)
        if refusal.reason is Reason.NO_REPLICA:
            self._nobody(number, self.plane.clock.now())
        else:
            self._raised = QueueRefused(refusal.told(), refusal.reason.value, max(1.0, refusal.drain))
            self._wake_up()

    def preempted(self) -> None:
        line = self._line
        assert line is not None, "only the central queue preempts"
        for this in self.live:
            if this.queued:
                self.end(this, CANCELLED)
                self._tries.remove(this)  # another with its number takes its place
                self._tried = tuple([name for name in self._tried if name != this.replica.name])
                self._wanted = this.number
                self._ask_queue(line)
                return

    def _ask_queue(self, line: Line) -> None:
        ticket = self._ticket
        if ticket is None:
            ticket = self._ticket = Ticket(self.request, self.pools, self.plane.gates)
        ticket.tried = self._tried
        line.offer(ticket, self)

    # What is done

    def _first(self, choice: Choice, now: float) -> None:
        """The first attempt goes there."""
        self.choice = choice
        self.queued_for = now - self._started_at
        self._started_at = now
        plan = self.plan = with_hedge(self.plan, self._hedging, choice.wait)
        # no later than the machine would say; waking early is harmless
        self._wake_at = min(now + (plan.hedge_after or plan.first_token_timeout), self.deadline)
        self._send(0, choice, now)

    def _send(self, number: int, choice: Choice, now: float) -> None:
        """Raises `Untranslatable` when nobody is left who could be told this request."""
        replica = self.pools[choice.pool][choice.place]
        self._tried += (replica.name,)
        try:
            this = Try(self, number, replica, choice, now)
        except UpstreamError as failure:  # no credential to send it with
            self._let_go()
            self.tell(Failed(number, failure, wait_for_any(self.pools, now)))
        except Untranslatable as error:  # its whole deployment is of no use to this request
            self._let_go()
            self.pools = [() if i == choice.pool else pool for i, pool in enumerate(self.pools)]
            if not any(self.pools):
                raise (error if self._failed is None else for_caller(self._failed)) from None
            self._open(number, now)
        else:
            this.queued = self._ticket is not None and not self.live
            self._tries.append(this)

    def _open(self, number: int, now: float) -> None:
        """A retry waits in the central queue as a request does; a hedge starts at once, or not at all."""
        line = self._line
        if line is not None and self._wanted < 0 and not self.live:
            self._wanted = number
            self._ask_queue(line)
            return
        choice = self._choose(now)
        if choice is None:
            self._nobody(number, now)
        else:
            self._send(number, choice, now)

    def _choose(self, now: float) -> Choice | None:
        plane = self.plane
        return plane.balancer.choose(self.request, self.pools, plane.gates, self._tried, now, plane.rng)

    def _nobody(self, number: int, now: float) -> None:
        self.tell(Failed(number, nobody_may(self.pools, now), wait_for_any(self.pools, now)))

    def _let_go(self) -> None:
        """Of the place in the central queue; what is asked for next has a new one."""
        line, ticket = self._line, self._ticket
        if line is not None and ticket is not None:
            self._ticket = None
            line.leave(ticket)

    def _make_machine(self) -> Attempts:
        """As if it had been asked from the start."""
        hedging = self._hedging
        hedges = None if hedging is None else hedging.budget
        machine = self._machine = Attempts(self.plan, self._budget, self.plane.rng, self.deadline, hedges)
        machine.start(self._started_at)
        return machine

    def _raise(self) -> None:
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised

    def _wake_up(self) -> None:
        if self.on_news is not None:
            self.on_news()
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

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
                if number == self._wanted:  # it is overdue before it had its turn
                    self._wanted = -1
                    self._let_go()
                for this in self._tries:
                    if this.number == number:
                        self.end(this, failure or CANCELLED)
            case GiveUp(failed):
                raise for_caller(failed) from None
        return None

    def _end_all(self) -> None:
        for this in self._tries:
            if not this.ended:
                self.end(this, CANCELLED)
        self._tries.clear()  # they point back here: without the cycle nothing waits for the collector
        self._let_go()
