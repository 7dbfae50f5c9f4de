"""Everything a request needs, as one immutable bundle. Swapped whole; a request keeps the one it began with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from random import Random

import msgspec

from penstock.balancing.balancer import Balancer
from penstock.balancing.disaggregate import PrefillRule
from penstock.balancing.queued import Queued
from penstock.config.spec import MaxTokens, PlaneSpec
from penstock.core.clock import Clock
from penstock.core.fleet import Replica
from penstock.core.plan import Plan
from penstock.core.request import Endpoint
from penstock.gateway.inline_media import Fetcher
from penstock.gateway.keyring import Keyring
from penstock.limits.rules import Rules
from penstock.pricing.prices import Price
from penstock.resilience.breaker import Breaker
from penstock.resilience.concurrency import Limited
from penstock.resilience.hedging import Hedging
from penstock.resilience.options import Ladder
from penstock.resilience.retry_budget import RetryBudget
from penstock.resilience.watch import Watch
from penstock.routing.router import Router
from penstock.upstreams.base import Transport, Upstream
from penstock.upstreams.credentials import Authorization
from penstock.upstreams.kv_tokens import TokenAsker


class Route(msgspec.Struct, frozen=True):
    """Where a model's requests go: `plan` for streams, `plain_plan` for answers that are not streamed."""

    model: str
    plan: Plan
    plain_plan: Plan
    pools: Sequence[Sequence[Replica]]  # of the plan's deployments, in its order
    budget: RetryBudget  # of the model: one that is down must not take the retries of the others
    prices: Mapping[str, Price | None]  # by deployment; None: not priced
    max_tokens: MaxTokens | None = None
    cap_name: str = "max_tokens"  # what its upstreams call the maximum of an answer in chat completions
    inline_media: bool = False  # pictures by URL must be put into the request
    queued: Queued | None = None  # where its requests wait for a replica with room; None: they never do
    hedging: Hedging | None = None
    router: Router | None = None  # who decides for each request; None: nothing is to be decided
    ladder: Ladder = ()
    directed: bool = False  # it has a router or a ladder, so `routing.direct` has to be asked
    asks: Sequence[Iterable[Price | None]] = ()
    """What may be paid for one request, one after another, where that is more than one of `prices`: each the prices of
    whoever may answer there."""
    by_endpoint: Mapping[Endpoint, Route] = {}
    """The same for each endpoint that at least one of the deployments can answer, with only those that can."""


class Plane(msgspec.Struct, frozen=True):
    """`routes` by model, `pools` by deployment, `upstreams`, `transports`, `breakers` and `gates` by replica, `watches`
    by deployment (of more than one replica). A gate is what an attempt has to pass: a breaker, perhaps with a limit."""

    spec: PlaneSpec
    routes: Mapping[str, Route]
    routers: Mapping[str, Router]  # of every model, also of those with nothing to decide
    pools: Mapping[str, Sequence[Replica]]
    upstreams: Mapping[str, Upstream]
    transports: Mapping[str, Transport]
    breakers: Mapping[str, Breaker]
    gates: Mapping[str, Breaker | Limited]
    watches: Mapping[str, Watch]
    queues: Sequence[Queued]
    prefills: Mapping[str, PrefillRule]  # by deployment: those whose prompts may be computed elsewhere
    tokens: Mapping[str, TokenAsker]  # by deployment: those that tell what they cache, in tokens
    renewed: Mapping[str, Authorization]  # by replica: credentials that must be fetched before it is ready
    served: Mapping[str, str]  # by deployment: what it calls its model, where callers' names are changed to that
    keyring: Keyring
    rules: Rules
    zone: tzinfo  # whose hours routing means
    balancer: Balancer
    fetcher: Fetcher | None  # None: pictures by URL are refused
    clock: Clock
    rng: Random

    @property
    def version(self) -> int:
        return self.spec.version

    def replicas(self) -> list[Replica]:
        return [replica for pool in self.pools.values() for replica in pool]

    def unready_models(self) -> list[str]:
        """Public names for which no replica is ready."""
        return [
            name
            for name, route in self.routes.items()
            if not any(replica.ready for pool in route.pools for replica in pool)
        ]
