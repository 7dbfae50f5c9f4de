"""What simulated requests share, and what they ask of whoever answers them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from penstock.balancing.balancer import Gate
from penstock.balancing.choice import Choice
from penstock.balancing.line import Line
from penstock.balancing.queued import Queued
from penstock.core.fleet import Replica
from penstock.core.plan import Plan
from penstock.core.request import Priority, Request
from penstock.resilience.breaker import Breaker
from penstock.resilience.concurrency import Limited
from penstock.resilience.hedging import Hedging
from penstock.resilience.options import Ladder, ShedRule
from penstock.resilience.pressure import Looked, Pressed, look
from penstock.resilience.retry_budget import RetryBudget
from penstock.resilience.shed import shed
from penstock.resilience.watch import Watch

if TYPE_CHECKING:
    from penstock.sim.requests import Try

SWEEP_EVERY: Final = 1.0  # seconds between two looks for replicas that do worse than their like, as live


class Held(Protocol):
    """What a balancer wants to hear of an attempt that it dispatched."""

    def first_token(self, now: float) -> None: ...

    def ended(self, now: float, output_tokens: int = 0) -> None: ...


class Chooser(Protocol):
    """`balancing.balancer.Balancer`, or a rival of it."""

    def choose(
        self,
        request: Request,
        pools: Sequence[Sequence[Replica]],
        gates: Mapping[str, Gate],
        tried: Collection[str],
        now: float,
        rng: Random,
    ) -> Choice | None: ...

    def dispatch(self, request: Request, replica: Replica, choice: Choice, now: float) -> Held: ...

    def restarted(self, replica: str) -> None:
        """Its cache is empty."""
        ...


class Upstream(Protocol):
    """Who answers: engines with a cost model, or a script."""

    def open(self, attempt: Try) -> None:
        """Begin; tell the attempt what becomes of it, later and never from within this call."""
        ...

    def cancel(self, attempt: Try) -> None:
        """Nobody listens any more."""
        ...

    def progressed_at(self, attempt: Try) -> float:
        """When the last of its tokens came."""
        ...


class Route:
    """Where a model's requests go, as `gateway.plane.Route`."""

    __slots__ = ("budget", "hedging", "ladder", "model", "plan", "pools", "queued")

    def __init__(
        self,
        model: str,
        plan: Plan,
        pools: Mapping[str, Sequence[Replica]],
        budget: RetryBudget,
        *,
        queued: Queued | None = None,
        hedging: Hedging | None = None,
        ladder: Ladder = (),
    ) -> None:
        """`pools` by deployment; those of the plan are its."""
        self.model = model
        self.plan = plan
        self.pools: list[Sequence[Replica]] = [pools[name] for name in plan.deployments]
        self.budget = budget
        self.queued = queued
        self.hedging = hedging
        self.ladder = ladder


class Fleet:
    """The same objects that a live plane is made of; only `upstream` is not."""

    __slots__ = ("_swept_at", "balancer", "gates", "pressed", "queues", "rng", "routes", "shed", "upstream", "watches")

    def __init__(
        self, balancer: Chooser, gates: Mapping[str, Breaker | Limited], rng: Random, upstream: Upstream
    ) -> None:
        """`gates` by replica."""
        self.balancer = balancer
        self.gates = gates
        self.rng = rng
        self.upstream = upstream
        self.routes: dict[str, Route] = {}  # by model
        self.watches: dict[str, Watch] = {}  # by deployment
        self.queues: list[Queued] = []
        self.shed: ShedRule | None = None  # None: nobody is refused for the sake of others
        self.pressed = Pressed()
        self._swept_at = 0.0

    @property
    def line(self) -> Line | None:
        """Of the first queue, which nearly always is the only one; None: nobody waits."""
        return self.queues[0].line if self.queues else None

    @property
    def tended(self) -> bool:
        """There is something to look at."""
        return bool(self.queues or self.watches or [route for route in self.routes.values() if route.ladder])

    def tend(self, now: float) -> None:
        """Some times a second: as `gateway.serve.Gateway.tend`."""
        for queued in self.queues:
            queued.tend(now)
        looked: list[Looked] = []
        for route in self.routes.values():
            queue = route.queued
            drains = queue.drains if queue is not None and queue.engaged else None
            if route.ladder or (drains is not None and self.shed is not None):
                timeout: float = route.plan.first_token_timeout
                looked.append(Looked(route.model, route.pools, timeout, route.ladder, drains))
        if looked:
            self.pressed = look(self.shed or ShedRule(), looked, self.pressed, now)
        if now - self._swept_at >= SWEEP_EVERY:
            self._swept_at = now
            for watch in self.watches.values():
                watch.sweep(now)

    def refuses(self, route: Route, priority: Priority) -> bool:
        """Whether one that comes now is turned away for the sake of others: as `gateway.pressure.Pressure.admit`."""
        rule, queued = self.shed, route.queued
        pressures: dict[str, float] = self.pressed.saturations
        if rule is None or queued is None or route.model not in pressures:
            return False
        target: float = route.plan.first_token_timeout if rule.target is None else rule.target
        return shed(rule, priority, pressures[route.model], queued.drains[priority], target, self.rng) is not None
