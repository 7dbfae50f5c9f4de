"""A spec made live, aside from the path of requests: this may fail, the swap that follows cannot.

Replicas that stay keep their counts, breakers and connections, so a reload is not felt by anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Final

import msgspec
from msgspec import structs

from penstock.balancing.balancer import Balancer
from penstock.balancing.prefix_index import Index
from penstock.balancing.queued import Queued, overlapping
from penstock.config.limits import lookup
from penstock.config.prices import bundled, price_for
from penstock.config.spec import DeploymentSpec, ModelSpec, PlaneSpec, ReplicaSpec
from penstock.config.units import zone
from penstock.core.clock import Clock
from penstock.core.fleet import Replica
from penstock.core.keys import USERS, Pepper
from penstock.core.request import Endpoint
from penstock.gateway.alarm import waker
from penstock.gateway.inline_media import Fetcher
from penstock.gateway.issued_keys import IssuedKeys
from penstock.gateway.keyring import Keyring
from penstock.gateway.plane import Plane, Route
from penstock.gateway.ways import authorization_of, ways_of
from penstock.limits.rules import Rules
from penstock.pricing.prices import Table
from penstock.resilience.breaker import Breaker, BreakerRule
from penstock.resilience.concurrency import Concurrency, Limited
from penstock.resilience.hedging import Hedging
from penstock.resilience.options import ConcurrencyRule
from penstock.resilience.outliers import Outliers
from penstock.resilience.retry_budget import RetryBudget
from penstock.resilience.watch import Watch
from penstock.routing.router import Router
from penstock.routing.spec import RoutingSpec, Target
from penstock.upstreams.base import Transport, Upstream
from penstock.upstreams.credentials import Authorization
from penstock.upstreams.http_upstream import HttpUpstream
from penstock.upstreams.kv_tokens import TokenAsker

_GOOGLES: Final = "env:GOOGLE_APPLICATION_CREDENTIALS"  # where all of Google's tools look first

_NO_TABLE: Final = Table(())


class PrepareError(Exception):
    """The spec cannot be made live; nothing has changed."""


class Parts(msgspec.Struct, frozen=True):
    """What a plane is built from. `secret` resolves a reference such as `env:NAME` and raises `LookupError` with a
    sentence when it cannot; `transport` makes connections to one replica, opening none yet."""

    clock: Clock
    rng: Random
    secret: Callable[[str], str]
    transport: Callable[[DeploymentSpec, ReplicaSpec], Transport]
    fetcher: Callable[[PlaneSpec], Fetcher | None] = lambda spec: None
    issued: IssuedKeys | None = None  # keys made at run time, which all planes share
    index: Index | None = None  # what is known of prefix caches; None: what was sent is remembered
    tokens: TokenAsker | None = None  # of the same index: finds out how engines read what they were sent


class LiveReplica(msgspec.Struct, frozen=True):
    """What is carried over when a replica stays as it was."""

    spec: tuple[DeploymentSpec, ReplicaSpec]
    secret: str | None
    upstream: Upstream
    transport: Transport
    authorization: Authorization

    def close(self) -> None:
        self.authorization.close()
        self.transport.close()


class Preparer:
    """Builds planes one after another, reusing what did not change."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._live: dict[str, LiveReplica] = {}

    def prepare(self, spec: PlaneSpec, previous: Plane | None) -> tuple[Plane, Callable[[], None]]:
        """A plane for `spec`, and what to call once it has been swapped in. Raises `PrepareError`.

        Until that call the previous plane is untouched; after it, connections of replicas that are gone are closed
        when they become idle, while requests in flight on them finish.
        """
        live: dict[str, LiveReplica] = {}
        pools: dict[str, list[Replica]] = {}
        breakers: dict[str, Breaker] = {}
        gates: dict[str, Breaker | Limited] = {}
        known = {} if previous is None else {replica.name: replica for replica in previous.replicas()}
        for deployment in spec.deployments:
            secret = self._secret(deployment)
            pools[deployment.name] = []
            for place in deployment.replicas:
                was = self._live.get(place.name)
                same_place = was is not None and (was.spec[0].name, was.spec[1]) == (deployment.name, place)
                if was is not None and was.spec == (deployment, place) and was.secret == secret:
                    live[place.name] = was
                else:
                    live[place.name] = self._start(deployment, place, secret)
                rule = BreakerRule(failures=deployment.breaker_failures, open_for=deployment.breaker_open_for)
                breaker = previous.breakers.get(place.name) if previous is not None and same_place else None
                if breaker is None or breaker.rule != rule:
                    breaker = Breaker(rule)
                breakers[place.name] = breaker
                gate = previous.gates.get(place.name) if previous is not None and same_place else None
                gates[place.name] = _gate(gate, breaker, deployment.concurrency)
                kept = known.get(place.name) if same_place else None
                # at the start nothing is known; later a new replica is trusted until the prober has asked it, so
                # that a reload which replaces every replica leaves no gap
                ready = place.health_path is None or previous is not None
                ready = ready and live[place.name].authorization.constant is not None
                pools[deployment.name].append(
                    kept or Replica(place.name, deployment.name, ready=ready, weight=place.weight)
                )
        balancer = previous.balancer if previous is not None else Balancer(self._parts.index)
        budgets = self._budgets(spec, previous)
        queues = self._queues(spec, balancer, previous)
        deployments = {deployment.name: deployment for deployment in spec.deployments}
        balancing = {one.name: one.balancing for one in spec.deployments}
        issued, asker = self._parts.issued, self._parts.tokens
        routers = {model.name: _router(model, deployments) for model in spec.models}
        plane = Plane(
            spec=spec,
            routes={
                model.name: _route(
                    model,
                    routers[model.name],
                    pools,
                    live,
                    deployments,
                    budgets[model.name],
                    _queue_of(model, queues),
                    _hedging(model, previous),
                )
                for model in spec.models
            },
            routers=routers,
            pools=pools,
            upstreams={name: one.upstream for name, one in live.items()},
            transports={name: one.transport for name, one in live.items()},
            breakers=breakers,
            gates=gates,
            watches=_watches(spec, pools, previous),
            queues=queues,
            prefills={one.name: one.prefill for one in spec.deployments if one.prefill is not None},
            tokens={} if asker is None else {one.name: asker for one in spec.deployments if one.kv_events is not None},
            renewed={name: one.authorization for name, one in live.items() if one.authorization.constant is None},
            served={one.name: one.served for one in spec.deployments if one.served is not None},
            keyring=self._keyring(spec, previous),
            rules=Rules(spec.limits, zone(spec.timezone), lookup(spec, None if issued is None else issued.limits_of)),
            zone=zone(spec.timezone),
            balancer=balancer,
            fetcher=self._parts.fetcher(spec) if spec.images_fetch else None,
            clock=self._parts.clock,
            rng=self._parts.rng,
        )

        def swapped() -> None:
            before, self._live = self._live, live
            for name, one in before.items():
                if live.get(name) is not one:
                    one.close()
                if name not in live:
                    balancer.forget(name)
            now = self._parts.clock.now()
            balancer.configure(balancing)
            for name, watch in plane.watches.items():
                watch.serve(pools[name], now)
            for queued in queues:
                queued.serve([pools[name] for name in queued.key])

        return plane, swapped

    def close(self) -> None:
        for one in self._live.values():
            one.close()
        self._live = {}

    def _budgets(self, spec: PlaneSpec, previous: Plane | None) -> dict[str, RetryBudget]:
        """One for each model; those whose terms are the same are carried over."""
        terms = (spec.retry_budget_ratio, spec.retry_budget_per_second)
        kept: Mapping[str, Route] = {}
        if previous is not None and terms == (previous.spec.retry_budget_ratio, previous.spec.retry_budget_per_second):
            kept = previous.routes
        return {
            model.name: kept[model.name].budget if model.name in kept else RetryBudget(*terms) for model in spec.models
        }

    def _queues(self, spec: PlaneSpec, balancer: Balancer, previous: Plane | None) -> tuple[Queued, ...]:
        """One for all models whose deployments overlap; those that are as they were are carried over."""
        kept = {} if previous is None else {one.key: one for one in previous.queues if one.options == spec.queue}
        parts = self._parts
        return tuple(
            kept.get(key) or Queued(key, spec.queue, balancer, parts.rng, parts.clock.now, waker(parts.clock))
            for key in overlapping([model.plan.deployments for model in spec.models])
        )

    def _keyring(self, spec: PlaneSpec, previous: Plane | None) -> Keyring:
        """The previous one, where nothing about keys has changed: a hundred thousand take a while."""
        try:
            secret = None if spec.keys_pepper is None else self._parts.secret(spec.keys_pepper)
            pepper = None if secret is None else Pepper(secret.encode())
        except (LookupError, ValueError) as error:
            raise PrepareError(f"keys_pepper: {error.args[0]}") from None
        if previous is not None and _of_keys(previous.spec) == _of_keys(spec):
            kept = previous.keyring
            if kept.user_secret == (USERS if pepper is None else pepper.user_secret):  # the pepper is the same
                return kept if previous.spec.tenants == spec.tenants else kept.within(spec)
        return Keyring(spec, pepper, self._parts.issued)

    def _secret(self, deployment: DeploymentSpec) -> str | None:
        credential = deployment.credential or (_GOOGLES if deployment.auth == "google" else None)
        if credential is None:
            return None
        try:
            return self._parts.secret(credential)
        except LookupError as error:
            raise PrepareError(f"deployments.{deployment.name}.key: {error.args[0]}") from None

    def _start(self, deployment: DeploymentSpec, place: ReplicaSpec, secret: str | None) -> LiveReplica:
        transport = self._parts.transport(deployment, place)
        try:
            authorization = authorization_of(deployment, transport.host, secret, self._parts.clock)
            ways = ways_of(deployment, place, self._parts.clock)
            upstream = HttpUpstream(transport, self._parts.clock, ways, authorization)
        except (ValueError, LookupError) as error:
            transport.close()
            raise PrepareError(f"deployments.{deployment.name}: {error.args[0]}") from None
        return LiveReplica((deployment, place), secret, upstream, transport, authorization)


def _gate(before: Breaker | Limited | None, breaker: Breaker, rule: ConcurrencyRule | None) -> Breaker | Limited:
    if rule is None:
        return breaker
    if isinstance(before, Limited) and before.breaker is breaker and before.concurrency.rule == rule:
        return before
    return Limited(breaker, Concurrency(rule))


def _watches(spec: PlaneSpec, pools: Mapping[str, list[Replica]], previous: Plane | None) -> dict[str, Watch]:
    """Where there is somebody to be compared with."""
    found = {}
    for deployment in spec.deployments:
        rule, pool = deployment.outliers, pools[deployment.name]
        if rule is None or len(pool) < 2:
            continue
        watch = None if previous is None else previous.watches.get(deployment.name)
        if watch is None or watch.outliers.rule != rule:
            watch = Watch(Outliers(rule, pool))
        found[deployment.name] = watch
    return found


def _queue_of(model: ModelSpec, queues: Iterable[Queued]) -> Queued | None:
    first = model.plan.deployments[0]
    return next((one for one in queues if first in one.key), None)


def _hedging(model: ModelSpec, previous: Plane | None) -> Hedging | None:
    if model.hedge is None:
        return None
    before = None if previous is None or model.name not in previous.routes else previous.routes[model.name].hedging
    return before if before is not None and before.rule == model.hedge else Hedging(model.hedge)


def _of_keys(spec: PlaneSpec) -> tuple[object, ...]:
    return spec.grants, spec.trusted_proxies, spec.keys


def _router(model: ModelSpec, deployments: Mapping[str, DeploymentSpec]) -> Router:
    """Raises `PrepareError`, where a spec was not checked."""
    targets = [deployments[name] for name in model.plan.deployments]
    try:
        return Router(
            model.name,
            model.routing or RoutingSpec(context=False),  # nothing is to be decided
            [Target(one.name, one.self_hosted, one.location, one.context_window) for one in targets],
        )
    except ValueError as error:
        raise PrepareError(f"models.{model.name}.routing: {error}") from None


def _route(
    model: ModelSpec,
    router: Router,
    pools: Mapping[str, list[Replica]],
    live: Mapping[str, LiveReplica],
    deployments: Mapping[str, DeploymentSpec],
    budget: RetryBudget,
    queued: Queued | None,
    hedging: Hedging | None,
) -> Route:
    """Replicas of a deployment are alike, so what its first one can answer all can."""
    specs = [deployments[name] for name in model.plan.deployments]
    table = bundled() if any(spec.provider or spec.price for spec in specs) else _NO_TABLE
    prices = {spec.name: price_for(spec, model.name, table) for spec in specs}
    plan = structs.replace(model.plan, drain=model.on_disconnect == "drain", on_cut=model.on_cut)

    def route(names: tuple[str, ...]) -> Route:
        narrowed = plan if names == plan.deployments else structs.replace(plan, deployments=names)
        return Route(
            model.name,
            narrowed,
            narrowed.for_plain(),
            [pools[name] for name in names],
            budget,
            {name: prices[name] for name in names},
            model.max_tokens,
            "max_completion_tokens" if any("max_completion_tokens" in one.quirks for one in specs) else "max_tokens",
            inline_media=any(deployments[name].inline_media for name in names),
            queued=queued,
            hedging=hedging,
            router=None if model.routing is None else router,
            ladder=model.degrade,
            directed=model.routing is not None or bool(model.degrade),
        )

    can = {name: live[pools[name][0].name].upstream.endpoints for name in plan.deployments if pools[name]}
    whole = route(plan.deployments)
    by_endpoint = {}
    for endpoint in Endpoint:
        # a deployment without replicas (its processes are still to come) is not in anybody's way
        able = tuple(name for name in plan.deployments if name not in can or endpoint in can[name])
        if able:
            by_endpoint[endpoint] = whole if able == plan.deployments else route(able)
    return structs.replace(whole, by_endpoint=by_endpoint)
