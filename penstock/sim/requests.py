"""A simulated request: drives the live `Attempts` and `Balancer` as `gateway.try_upstreams` does, without bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

import msgspec

from penstock.balancing.balancer import Balancer, nobody_may, wait_for_any
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
from penstock.resilience.breaker import Breaker
from penstock.resilience.retry_budget import RetryBudget
from penstock.sim.world import World


class Response(msgspec.Struct, frozen=True):
    """What a replica will do with one attempt. Seconds."""

    first: float  # to the first token, or to the failure
    failure: UpstreamError | None
    rest: float  # from the first token to the end


class Fleet(msgspec.Struct):
    """What simulated requests share: the same objects that a live plane is made of."""

    pools: Mapping[str, Sequence[Replica]]
    breakers: Mapping[str, Breaker]
    balancer: Balancer
    budget: RetryBudget
    rng: Random
    engine: Callable[[Replica, Request], Response]


class SimulatedRequest:
    """From arrival to the last token. `opened` names the replicas asked, in order; `ttft` is in seconds."""

    def __init__(
        self, world: World, fleet: Fleet, request: Request, plan: Plan, done: Callable[[SimulatedRequest], None]
    ) -> None:
        self.world, self.fleet, self.request, self.done = world, fleet, request, done
        self.pools = [fleet.pools[name] for name in plan.deployments]
        self.machine = Attempts(plan, fleet.budget, fleet.rng, request.received_at + plan.total_timeout)
        self.tokens = request.prompt_tokens + request.max_tokens
        self.tries: dict[int, tuple[Replica, Response]] = {}
        self.live: set[int] = set()
        self.opened: list[str] = []
        self.ttft: float | None = None
        self.failed: FailureKind | None = None
        fleet.budget.on_request()
        self._act(self.machine.start(world.now))

    def _on(self, event: Event) -> None:
        if not self.machine.done:
            self._act(self.machine.on(event, self.world.now))

    def _act(self, actions: Sequence[Action]) -> None:
        world = self.world
        for action in actions:
            match action:
                case Open(number):
                    self._open(number)
                case Cancel(number, failure):
                    self._end(number, failure or CANCELLED)
                case WakeAt(at):
                    world.at(at, lambda: self._on(Woke()))
                case Commit(number):
                    self.ttft = world.now - self.request.received_at
                    world.at(world.now + self.tries[number][1].rest, partial(self._finish, number))
                case GiveUp(failed):
                    self.failed = failed.kind
                    self.done(self)

    def _open(self, number: int) -> None:
        fleet, now = self.fleet, self.world.now
        picked = fleet.balancer.pick(self.request, self.pools, fleet.breakers, self.opened, now, fleet.rng)
        if picked is None:
            failed = Failed(number, nobody_may(self.pools, now), wait_for_any(self.pools, now))
            self.world.at(now, lambda: self._on(failed))
            return
        replica = self.pools[picked[0]][picked[1]]
        replica.started(self.tokens)
        fleet.breakers[replica.name].on_start(now)
        fleet.balancer.sent(self.request, replica.name)
        self.opened.append(replica.name)
        response = fleet.engine(replica, self.request)
        self.tries[number] = (replica, response)
        self.live.add(number)
        self.world.at(now + response.first, partial(self._settled, number))

    def _settled(self, number: int) -> None:
        if number not in self.live or self.machine.done:
            return
        replica, response = self.tries[number]
        failure = response.failure
        if failure is None:
            self._on(FirstToken(number))
            return
        now = self.world.now
        if failure.retry_after is not None:
            replica.cool(now + failure.retry_after, rate_limited=failure.kind is FailureKind.RATE_LIMITED)
        self._end(number, failure.kind)
        self._on(Failed(number, failure, wait_for_any(self.pools, now)))

    def _end(self, number: int, ended: FailureKind | str) -> None:
        if number not in self.live:
            return
        self.live.discard(number)
        replica = self.tries[number][0]
        replica.ended(self.tokens)
        self.fleet.breakers[replica.name].on_end(ended, self.world.now)

    def _finish(self, number: int) -> None:
        self._end(number, OK)
        self.done(self)
