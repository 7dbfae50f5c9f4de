"""A simulated request: drives the live `Attempts` and `Balancer` as `gateway.try_upstreams` does, without bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from penstock.balancing.balancer import nobody_may, wait_for_any
from penstock.balancing.choice import Choice
from penstock.balancing.queue_values import Reason, Refusal
from penstock.balancing.ticket import Ticket
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.fleet import Replica
from penstock.core.plan import CANCELLED, OK, Plan
from penstock.core.request import Request
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
from penstock.sim.fleet import Fleet, Held, Response
from penstock.sim.world import World
from penstock.traffic.arrival import Arrival


class Try:
    """One attempt. Whoever answers it calls `began`, `failed` and `finished`; after its end they do nothing."""

    __slots__ = ("cached", "held", "number", "over", "owner", "replica", "streams", "ticketed", "token")

    def __init__(self, owner: SimulatedRequest, number: int, replica: Replica, held: Held, ticketed: bool) -> None:
        self.owner = owner
        self.number = number
        self.replica = replica
        self.held = held
        self.ticketed = ticketed  # it runs on the request's place in the central queue; a hedge runs beside it
        self.streams = False  # it has a first token
        self.over = False
        self.cached = 0  # prompt tokens, known at the first token
        self.token: object = None  # of whoever answers

    def began(self) -> None:
        if not self.over and not self.streams:
            self.streams = True
            self.owner.began_try(self)

    def failed(self, failure: UpstreamError) -> None:
        if not self.over:
            self.owner.failed_try(self, failure)

    def finished(self) -> None:
        if not self.over:
            self.owner.finished_try(self)


class SimulatedRequest:
    """From arrival to the last token. `opened` names the replicas asked, in order; times are seconds."""

    __slots__ = (
        "_gates", "_given", "_machine", "_pools", "_ticket", "_tried", "_tries", "_wakes_at", "_wanted", "answered",
        "arrival", "ended_at", "failed", "fleet", "hedges", "on_done", "opened", "plan", "request", "ttft", "world",
    )  # fmt: skip

    def __init__(
        self,
        world: World,
        fleet: Fleet,
        request: Request,
        plan: Plan,
        done: Callable[[SimulatedRequest], None],
        arrival: Arrival | None = None,
    ) -> None:
        """`done` is told when it is over. `arrival` is what engines with a cost model need to know of it."""
        self.world = world
        self.fleet = fleet
        self.request = request
        self.arrival = arrival
        self.plan = plan
        self.on_done = done
        self.opened: list[str] = []
        self.ttft: float | None = None
        self.ended_at: float = world.now
        self.failed: FailureKind | None = None
        self.answered: Try | None = None  # whose tokens the caller gets; None once `done` was told
        self.hedges = 0
        self._pools = [fleet.pools[name] for name in plan.deployments]
        self._gates = fleet.breakers
        self._tries: dict[int, Try] = {}  # those not over
        self._wakes_at = inf
        self._tried: list[str] = []
        self._given: Choice | None = None  # for the first attempt, which the central queue chose
        self._wanted = -1  # the attempt for which the ticket waits there
        self._ticket: Ticket | None = None
        self._machine = Attempts(plan, fleet.budget, fleet.rng, request.received_at + plan.total_timeout)
        fleet.budget.on_request()
        if fleet.line is None:
            self._act(self._machine.start(world.now))
        else:
            self._ask_queue()

    @property
    def done(self) -> bool:
        """Nothing is to be waited for before a first token any more."""
        return self._machine.done

    def woke(self) -> None:
        if self.world.now >= self._wakes_at:
            self._wakes_at = inf
            self.on(Woke())

    def on(self, event: Event) -> None:
        if not self._machine.done:
            self._act(self._machine.on(event, self.world.now))

    def chosen(self, choice: Choice) -> None:
        """The central queue says where to."""
        if self._wanted < 0:
            self._given = choice
            self._act(self._machine.start(self.world.now))
        else:
            number, self._wanted = self._wanted, -1
            self._send(number, choice, True)

    def refused(self, refusal: Refusal) -> None:
        """The central queue says no: nobody may be asked, or it would take too long."""
        self._leave()
        if refusal.reason is not Reason.NO_REPLICA:
            self._over(FailureKind.OVERLOADED)
        elif self._wanted < 0:
            self._act(self._machine.start(self.world.now))
        else:
            number, self._wanted = self._wanted, -1
            self._nobody(number)

    def preempted(self) -> None:
        """The central queue needs the place of our attempt, which goes on elsewhere or later."""
        for one in list(self._tries.values()):
            if one.ticketed:
                self._cancel(one.number, CANCELLED)
                self._tried.remove(one.replica.name)
                self._wanted = one.number
                self._ask_queue()

    def began_try(self, one: Try) -> None:
        """Called by `Try.began`."""
        one.held.first_token(self.world.now)
        self.on(FirstToken(one.number))
        line, ticket = self.fleet.line, self._ticket
        if line is not None and ticket is not None and one.ticketed:
            line.first_token(ticket)

    def failed_try(self, one: Try, failure: UpstreamError) -> None:
        """Called by `Try.failed`."""
        now = self.world.now
        if failure.retry_after is not None:
            one.replica.cool(now + failure.retry_after, rate_limited=failure.kind is FailureKind.RATE_LIMITED)
        self._end(one, failure.kind)
        if one is self.answered:
            self._give_up(failure.kind)
        else:
            self.on(Failed(one.number, failure, wait_for_any(self._pools, now)))

    def finished_try(self, one: Try) -> None:
        """Called by `Try.finished`."""
        arrival = self.arrival
        self._end(one, OK, arrival.output_tokens if arrival is not None else 0)
        self._leave()
        self._over(None)

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Open):
                self._open(action.attempt)
            elif isinstance(action, WakeAt):
                if action.at < self._wakes_at:  # a later one is asked for again when this has come
                    self._wakes_at = action.at
                    self.world.wake(action.at, self)
            elif isinstance(action, Commit):
                self.answered = self._tries[action.attempt]
                self.ttft = self.world.now - self.request.received_at
            elif isinstance(action, Cancel):
                self._cancel(action.attempt, action.failure or CANCELLED)
            elif isinstance(action, GiveUp):
                self._give_up(action.failure.kind)

    def _open(self, number: int) -> None:
        fleet, now = self.fleet, self.world.now
        given = self._given
        if given is not None:
            self._given = None
            self._send(number, given, True)
        elif fleet.line is not None and number and not self._tries and self._wanted < 0:  # a retry waits, a hedge not
            self._wanted = number
            self._ask_queue()
        else:
            choice = fleet.balancer.choose(self.request, self._pools, self._gates, self._tried, now, fleet.rng)
            if choice is None:
                self._nobody(number)
            else:
                self._send(number, choice, False)

    def _ask_queue(self) -> None:
        line = self.fleet.line
        assert line is not None, "there is no central queue"
        if self._ticket is None:
            self._ticket = Ticket(self.request, self._pools, self._gates, self._tried)
        line.offer(self._ticket, self)

    def _nobody(self, number: int) -> None:
        now = self.world.now
        failed = Failed(number, nobody_may(self._pools, now), wait_for_any(self._pools, now))
        self.world.at(now, lambda: self.on(failed))

    def _send(self, number: int, choice: Choice, ticketed: bool) -> None:
        fleet, now = self.fleet, self.world.now
        replica = self._pools[choice.pool][choice.place]
        self.opened.append(replica.name)
        self._tried.append(replica.name)
        fleet.breakers[replica.name].on_start(now)
        if self._tries:
            self.hedges += 1
        one = Try(self, number, replica, fleet.balancer.dispatch(self.request, replica, choice, now), ticketed)
        self._tries[number] = one
        fleet.upstream.open(one)

    def _cancel(self, number: int, ended: FailureKind | str) -> None:
        one = self._tries.get(number)
        if number == self._wanted:
            self._wanted = -1
            self._leave()
        elif one is not None:
            self.fleet.upstream.cancel(one)
            self._end(one, ended)

    def _end(self, one: Try, ended: FailureKind | str, output_tokens: int = 0) -> None:
        one.over = True
        one.token = None
        del self._tries[one.number]
        now = self.world.now
        one.held.ended(now, output_tokens)
        self.fleet.breakers[one.replica.name].on_end(ended, now)
        line, ticket = self.fleet.line, self._ticket
        if line is not None:
            if ticket is None or not one.ticketed:
                line.room(one.replica)
            elif ended == OK:
                self._ticket = None
                line.finished(ticket, self.request.prompt_tokens - one.cached, output_tokens)
            else:
                line.ended(ticket)

    def _leave(self) -> None:
        """Give the place in the central queue back."""
        line, ticket = self.fleet.line, self._ticket
        if line is not None and ticket is not None:
            self._ticket = None
            line.leave(ticket)

    def _give_up(self, failure: FailureKind) -> None:
        self._leave()
        self._over(failure)

    def _over(self, failure: FailureKind | None) -> None:
        self.failed = failure
        self.ended_at = self.world.now
        self.on_done(self)
        self.answered = None  # which knows us: memory is to be free without a search for circles


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
            self._world.at(at, attempt.began)
            self._world.at(at + response.rest, attempt.finished)

    def cancel(self, attempt: Try) -> None:
        """What was scheduled finds the attempt over."""
