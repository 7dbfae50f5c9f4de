"""What simulated requests share, and what they ask of whoever answers them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

import msgspec

from penstock.balancing.balancer import Gate
from penstock.balancing.choice import Choice
from penstock.core.errors import UpstreamError
from penstock.core.fleet import Replica
from penstock.core.request import Request
from penstock.resilience.breaker import Breaker
from penstock.resilience.retry_budget import RetryBudget
from penstock.sim.cost_model import CostModel

if TYPE_CHECKING:
    from penstock.sim.line import Line
    from penstock.sim.requests import Try


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


class Response(msgspec.Struct, frozen=True):
    """What a scripted replica will do with one attempt. Seconds."""

    first: float  # to the first token, or to the failure
    failure: UpstreamError | None
    rest: float  # from the first token to the end


class Fleet(msgspec.Struct):
    """The same objects that a live plane is made of; only `upstream` is not."""

    pools: Mapping[str, Sequence[Replica]]
    breakers: Mapping[str, Breaker]
    balancer: Chooser
    budget: RetryBudget
    rng: Random
    upstream: Upstream
    line: Line | None = None  # in which requests wait for a replica with room; None: none waits


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Some replicas that are alike."""

    replicas: int
    engine: CostModel
    gpus: int = 1  # of one replica
    gpu_hour: float = 0.0  # dollars for one of them
