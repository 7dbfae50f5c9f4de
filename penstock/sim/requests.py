"""A simulated request: drives the live machines as `gateway.try_upstreams` does, without bytes and without tasks.

The two are alike on purpose, method by method, and a property test holds them against each other: what is asked of the
queue, of the balancer, of `Attempts`, and in which order, because each may take a random number.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from penstock.balancing.balancer import nobody_may, wait_for_any
from penstock.balancing.choice import Choice
from penstock.balancing.line import Line
from penstock.balancing.queue_values import Reason, Refusal
from penstock.balancing.ticket import Ticket
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.fleet import Replica
from penstock.core.plan import CANCELLED, OK, Plan
from penstock.core.request import Request
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
from penstock.resilience.hedging import with_hedge
from penstock.resilience.watch import Watch
from penstock.sim.deployment import Response
from penstock.sim.fleet import Fleet, Held, Route
from penstock.sim.world import Sleeper, World
from penstock.traffic.arrival import Arrival

_WOKE: Final = Woke()


class Try:
    """One attempt. Whoever answers it calls `began`, `failed` and `finished`; after its end they do nothing."""

    __slots__ = (
        "_held", "_predicted", "_watch", "cached", "first_token_at", "number", "output", "over", "owner", "queued",
        "replica", "started_at", "ticket", "token",
    )  # fmt: skip

    def __init__(self, owner: SimulatedRequest, number: int, replica: Replica, choice: Choice, now: float) -> None:
        fleet = owner.fleet
        self.owner: SimulatedRequest = owner
        self.number = number
        self.replica = replica
        self._predicted: float = choice.wait
        self.started_at = now
        self.first_token_at: float | None = None
        self.over = False
        self.queued = False  # it runs on the request's place in the central queue; a hedge runs beside it
        self.ticket = 0  # of its watch
        self.cached = 0  # prompt tokens, known at the first token
        self.output = 0  # tokens, when they are all there
        self.token: object = None  # of whoever answers
        fleet.upstream.open(self)
        self._held: Held = fleet.balancer.dispatch(owner.request, replica, choice, now)
        fleet.gates[replica.name].on_start(now)
        self._watch: Watch | None = fleet.watches.get(replica.deployment) if fleet.watches else None
        if self._watch is not None:
            self._watch.started(self, self._predicted, now)

    @property
    def progressed_at(self) -> float:
        """When the last of its tokens came."""
        return self.owner.fleet.upstream.progressed_at(self)

    def began(self) -> None:
        if self.over or self.first_token_at is not None:
            return
        owner = self.owner
        self.first_token_at = now = owner.world.now
        self._held.first_token(now)
        owner.began(self, self._predicted, now)
        if self._watch is not None:
            self._watch.first_token(self, now)
        owner.first_token(self)

    def failed(self, failure: UpstreamError) -> None:
        if self.over:
            return
        owner = self.owner
        now = owner.world.now
        retry_after: float | None = failure.retry_after
        if retry_after is not None:
            self.replica.cool(now + retry_after, rate_limited=failure.kind is FailureKind.RATE_LIMITED)
        self.end(failure.kind)
        owner.failed_try(self, failure)

    def finished(self, output: int) -> None:
        """Its last token came; there were so many."""
        if not self.over and self.owner.answered is not self:  # the first one came in the same step, too
            self.owner.happen(0)
        if not self.over:
            self.output = output
            self.end(OK)
            self.owner.over(None)

    def suspected(self) -> None:
        """Its replica has been left out, and nothing has come from it yet."""
        if not self.over:
            self.owner.tell(Suspected(self.number))

    def end(self, ended: FailureKind | str) -> None:
        """ "ok", "cancelled", or why it failed. The first call counts, later ones do nothing."""
        if self.over:
            return
        self.over = True
        owner = self.owner
        fleet, now = owner.fleet, owner.world.now
        if ended in (CANCELLED, FailureKind.FIRST_TOKEN_TIMEOUT, FailureKind.TOTAL_TIMEOUT):
            fleet.upstream.cancel(self)
        self._held.ended(now, self.output)
        fleet.gates[self.replica.name].on_end(ended, now)
        if self._watch is not None:
            self._watch.ended(self, ended, now, self.output, empty=False)
        owner.gave_back(self, ended)
        self.token = None


class SimulatedRequest(Sleeper):
    """From arrival to the last token. `opened` names the replicas asked, in order; times are seconds."""

    __slots__ = (
        "_armed", "_deadline", "_inbox", "_line", "_machine", "_on_done", "_plan", "_settled", "_started_at",
        "_ticket", "_tried", "_tries", "_wake_at", "_wanted", "answered", "arrival", "failed", "fleet", "hedges",
        "opened", "over_at", "request", "route", "told", "ttft", "world",
    )  # fmt: skip

    def __init__(
        self,
        world: World,
        fleet: Fleet,
        route: Route,
        request: Request,
        done: Callable[[SimulatedRequest], None],
        arrival: Arrival | None = None,
    ) -> None:
        """`done` is told when it is over. `arrival` is what engines with a cost model need to know of it."""
        self.done = False  # it is over
        self._settled = False  # or its answer has begun: there is nothing to decide any more
        self.world = world
        self.fleet = fleet
        self.route = route
        self.request = request
        self.arrival = arrival
        self._on_done = done
        self._plan: Plan = route.plan
        queued = route.queued
        self._line: Line | None = queued.line if queued is not None and queued.engaged else None
        self._ticket: Ticket | None = None
        self._wanted = 0  # the attempt for which the ticket waits in the central queue; -1: none
        self._machine: Attempts | None = None
        self._tries: list[Try] = []
        self._tried: tuple[str, ...] = ()
        self._inbox: list[Event] = []
        self.told = False  # it will be asked what to do about its inbox
        received_at: float = request.received_at
        total: float = self._plan.total_timeout
        deadline: float = request.deadline
        self._deadline = min(received_at + total, deadline)
        self._started_at = received_at
        self._wake_at = self._deadline
        self._armed = inf  # when it will be woken
        self.opened: list[str] = []
        self.ttft: float | None = None
        self.failed: str | None = None
        """Why: a `FailureKind`, or a `Reason` of the central queue."""
        self.answered: Try | None = None  # whose tokens the caller gets; None once `done` was told
        self.hedges = 0
        self.over_at: float = -1.0  # when the last token came, or the failure

    def start(self) -> None:
        """Now; perhaps it is over at once."""
        now = self.world.now
        route = self.route
        self._started_at = now
        route.budget.on_request()
        hedging = route.hedging
        if hedging is not None:
            hedging.budget.on_request()
        line = self._line
        if line is None:
            self._wanted = -1
            choice = self._choose(now)
            if choice is None:
                self._nobody(0, now)
            else:
                self._first(choice, now)
        else:
            self._ask_queue(line)
            if not self._settled:
                self._arm()

    def woke(self) -> None:
        """The time has come for which it was armed."""
        now = self.world.now
        if self._settled:
            if self.answered is not None:
                self._answering(self.answered, now)
            return
        if now < self._armed:  # by an alarm that was set before this one
            return
        self._armed = inf
        if now >= self._wake_at:
            self.tell(_WOKE)
        else:
            self._arm()

    def happen(self, number: int) -> None:
        """Look at what has been told, or at the time."""
        if number:
            self.woke()
            return
        self.told = False
        inbox = self._inbox
        while inbox and not self._settled:
            machine = self._machine
            if machine is None:
                machine = self._make_machine()
            now = self.world.now
            for action in machine.on(inbox.pop(0), now):
                self._act(action, now)
        inbox.clear()
        if not self._settled:
            self._arm()

    def _answering(self, this: Try, now: float) -> None:
        """An answer has its time, too: looked at where an alarm rings that was set before its first token."""
        if now >= self._deadline:
            this.failed(UpstreamError(FailureKind.TOTAL_TIMEOUT))
        else:
            self.world.due(self._deadline, self)

    def tell(self, event: Event) -> None:
        if not self._settled:
            self._inbox.append(event)
            if not self.told:
                self.told = True
                self.world.soon(self)

    def began(self, this: Try, predicted: float, now: float) -> None:
        """That attempt has its first token."""
        hedging, line, ticket = self.route.hedging, self._line, self._ticket
        if hedging is not None:
            hedging.learn(predicted, now - this.started_at)
        gate = self.fleet.gates[this.replica.name]
        if isinstance(gate, Limited):
            gate.on_first_token(predicted, now - this.started_at)
        if this.queued and line is not None and ticket is not None:
            line.first_token(ticket)

    def first_token(self, this: Try) -> None:
        if self._machine is None and not self._inbox:  # nearly always: the first attempt answers
            self._commit(this)
        else:
            self.tell(FirstToken(this.number))

    def gave_back(self, this: Try, ended: FailureKind | str) -> None:
        """That attempt holds nothing at its replica any more."""
        line, ticket = self._line, self._ticket
        if line is None:
            return
        if not this.queued or ticket is None:
            line.room(this.replica)
        elif ended == OK:
            self._ticket = None
            prompt: int = self.request.prompt_tokens
            line.finished(ticket, prompt - this.cached)
        else:
            line.ended(ticket)

    def failed_try(self, this: Try, failure: UpstreamError) -> None:
        """It is over."""
        if this is self.answered:
            self.over(failure.kind)
        else:
            self.tell(Failed(this.number, failure, wait_for_any(self.route.pools, self.world.now)))

    def over(self, failed: str | None) -> None:
        """Nothing more will happen to it."""
        self.done = self._settled = True
        for this in self._tries:
            if not this.over:
                this.end(CANCELLED)
        self._tries.clear()  # they point back here: memory is to be free without a search for circles
        self._let_go()
        self.failed = failed
        self.over_at = self.world.now
        self._on_done(self)
        self.answered = None

    # What the central queue says, perhaps in the middle of somebody else's business

    def chosen(self, choice: Choice) -> None:
        number, self._wanted = self._wanted, -1
        now = self.world.now
        if number or self._machine is not None:
            self._send(number, choice, now)
        else:
            self._first(choice, now)

    def refused(self, refusal: Refusal) -> None:
        number, self._wanted = self._wanted, -1
        ticket, self._ticket = self._ticket, None
        assert ticket is not None and self._line is not None, "who is refused has asked"
        self._line.leave(ticket)
        if refusal.reason is Reason.NO_REPLICA:
            self._nobody(number, self.world.now)
        else:
            self.over(refusal.reason.value)

    def preempted(self) -> None:
        line = self._line
        assert line is not None, "only the central queue preempts"
        for this in self._tries:
            if this.queued and not this.over:
                this.end(CANCELLED)
                self._tries.remove(this)  # another with its number takes its place
                self._tried = tuple([name for name in self._tried if name != this.replica.name])
                self._wanted = this.number
                self._ask_queue(line)
                return

    def _ask_queue(self, line: Line) -> None:
        ticket = self._ticket
        if ticket is None:
            ticket = self._ticket = Ticket(self.request, self.route.pools, self.fleet.gates)
        ticket.tried = self._tried
        line.offer(ticket, self)

    # What is done

    def _act(self, action: Action, now: float) -> None:
        if isinstance(action, Open):
            self._open(action.attempt, now)
        elif isinstance(action, WakeAt):
            self._wake_at = action.at
        elif isinstance(action, Commit):
            for this in self._tries:
                if this.number == action.attempt:
                    self._commit(this)
                    return
        elif isinstance(action, Cancel):
            self._cancel(action.attempt, action.failure or CANCELLED)
        elif isinstance(action, GiveUp):
            self.over(action.failure.kind)

    def _commit(self, this: Try) -> None:
        self._settled = True
        self.answered = this
        received_at: float = self.request.received_at
        self.ttft = self.world.now - received_at

    def _cancel(self, number: int, ended: FailureKind | str) -> None:
        if number == self._wanted:  # it is overdue before it had its turn
            self._wanted = -1
            self._let_go()
        for this in self._tries:
            if this.number == number:
                this.end(ended)

    def _first(self, choice: Choice, now: float) -> None:
        """The first attempt goes there."""
        self._started_at = now
        plan = self._plan
        hedging = self.route.hedging
        if hedging is not None:
            plan = self._plan = with_hedge(plan, hedging, choice.wait)
        hedge_after: float | None = plan.hedge_after
        span: float = plan.first_token_timeout if hedge_after is None else hedge_after
        # no later than the machine would say; waking early is harmless
        self._wake_at = min(now + span, self._deadline)
        if hedging is None and self._wake_at < self._armed:
            self._armed = self._wake_at
            self.world.wake(self._wake_at - now if self._wake_at == self._deadline else span, self)
        else:
            self._arm()
        self._send(0, choice, now)

    def _arm(self) -> None:
        if self._wake_at < self._armed:
            self._armed = self._wake_at
            self.world.due(max(self.world.now, self._wake_at), self)

    def _send(self, number: int, choice: Choice, now: float) -> None:
        replica = self.route.pools[choice.pool][choice.place]
        self._tried += (replica.name,)
        self.opened.append(replica.name)
        alone = True
        for other in self._tries:
            if not other.over:
                alone = False
        if not alone:
            self.hedges += 1
        this = Try(self, number, replica, choice, now)
        this.queued = alone and self._ticket is not None
        self._tries.append(this)

    def _open(self, number: int, now: float) -> None:
        """A retry waits in the central queue as a request does; a hedge starts at once, or not at all."""
        line = self._line
        if line is not None and self._wanted < 0:
            for this in self._tries:
                if not this.over:
                    break
            else:
                self._wanted = number
                self._ask_queue(line)
                return
        choice = self._choose(now)
        if choice is None:
            self._nobody(number, now)
        else:
            self._send(number, choice, now)

    def _choose(self, now: float) -> Choice | None:
        fleet = self.fleet
        return fleet.balancer.choose(self.request, self.route.pools, fleet.gates, self._tried, now, fleet.rng)

    def _nobody(self, number: int, now: float) -> None:
        pools = self.route.pools
        self.tell(Failed(number, nobody_may(pools, now), wait_for_any(pools, now)))

    def _let_go(self) -> None:
        """Of the place in the central queue."""
        line, ticket = self._line, self._ticket
        if line is not None and ticket is not None:
            self._ticket = None
            line.leave(ticket)

    def _make_machine(self) -> Attempts:
        """As if it had been asked from the start."""
        route = self.route
        hedges = None if route.hedging is None else route.hedging.budget
        machine = self._machine = Attempts(self._plan, route.budget, self.fleet.rng, self._deadline, hedges)
        machine.start(self._started_at)
        return machine


class Scripted:
    """Answers as a function says, whatever else goes on."""

    __slots__ = ("_respond", "_world")

    def __init__(self, world: World, respond: Callable[[Replica, Request], Response]) -> None:
        self._world = world
        self._respond = respond

    def open(self, attempt: Try) -> None:
        response = self._respond(attempt.replica, attempt.owner.request)
        failure = response.failure
        at = self._world.now + response.first
        if failure is not None:
            broken: UpstreamError = failure
            self._world.at(at, lambda: attempt.failed(broken))
        else:
            tokens: int = response.tokens
            self._world.at(at, attempt.began)
            self._world.at(at + response.rest, lambda: attempt.finished(tokens))

    def cancel(self, attempt: Try) -> None:
        """What was scheduled finds the attempt over."""

    def progressed_at(self, attempt: Try) -> float:
        return self._world.now
