"""Configuration to `PlaneSpec`: what was written becomes what a gateway worker must know, every default decided."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from penstock.config.balancing_options import balancing_of, weight_of
from penstock.config.kv_cache import events_rule, prefill_rule
from penstock.config.limits import limits_of, thresholds_of
from penstock.config.places import Place, place_of
from penstock.config.prices import options_of
from penstock.config.providers import PROVIDERS
from penstock.config.queue import queue_of
from penstock.config.resilience import concurrency_rule, hedge_after, hedge_of, ladder_of, outlier_rule, shed_rule
from penstock.config.routing import routing_of, target
from penstock.config.schema import Config, Deployment, Model
from penstock.config.spec import DeploymentSpec, MaxTokens, ModelSpec, PlaneSpec, ReplicaSpec
from penstock.config.stored_keys import with_tenants
from penstock.config.telemetry import telemetry_of
from penstock.config.tenancy import Grants
from penstock.config.units import n_bytes, seconds
from penstock.core.plan import Plan
from penstock.stores.tenants import StoredTenant


def compile_plane(
    config: Config,
    version: int,
    engines: Mapping[str, tuple[str, ...]],
    *,
    published: Mapping[str, tuple[tuple[str, str], ...]] | None = None,
    insecure_dev: bool = False,
    tenants: Iterable[StoredTenant] = (),
) -> PlaneSpec:
    """`engines`: for each deployment of the embedded engine, the origins of its replicas, from whoever started them;
    `published`: likewise, where they publish their KV events and repeat them, each "" where they do not.
    `tenants` were made at run time. Raises ValueError when one of these has options that cannot be read.

    Replicas are named by their position, so one whose process was started anew elsewhere keeps its name.
    """
    assert isinstance(config.keys, tuple), "`load` puts the keys of a file in the place of its name"
    hash, declared, organisations = config_hash(config), Grants(config), config.organisations
    routing = routing_of(config)
    config = with_tenants(config, tenants)
    assert isinstance(config.keys, tuple), "tenants have no keys"
    grants = Grants(config)
    return PlaneSpec(
        version=version,
        config_hash=hash,
        models=tuple(
            ModelSpec(
                name,
                _plan(model),
                model.on_disconnect,
                model.on_cut,
                _max_tokens(model),
                routing.get(name),
                hedge_of(model),
                ladder_of(model),
            )
            for name, model in config.models.items()
        ),
        deployments=tuple(
            _deployment(
                name, deployment, engines.get(name, ()), (published or {}).get(name, ()), config.queue.threshold
            )
            for name, deployment in config.deployments.items()
        ),
        keys=tuple(map(grants.key, config.keys)),
        grants=grants.table(),
        tenants=tuple(
            declared.around(org, team)
            for org, organisation in organisations.items()
            for team in ("", *organisation.teams)
        ),
        keys_pepper=config.keys_pepper,
        limits=limits_of(config),
        thresholds=thresholds_of(config),
        timezone=config.timezone,
        cost_tags=config.cost.tags,
        ledger_retention=seconds(config.cost.ledger_retention),
        trusted_proxies=config.server.trusted_proxies,
        insecure_dev=insecure_dev,
        max_in_flight=config.server.max_in_flight,
        responses_retention=seconds(config.responses.retention),
        responses_max=config.responses.max,
        images_fetch=config.images.fetch == "allow",
        images_max_bytes=n_bytes(config.images.max_bytes),
        images_timeout=seconds(config.images.timeout),
        images_hosts=tuple(host.lower() for host in config.images.hosts),
        shed=shed_rule(config.shed),
        queue=queue_of(config.queue),
        telemetry=telemetry_of(config.telemetry),
    )


def config_hash(config: Config) -> str:
    """16 hex digits that change when anything in the configuration does; comments and order of options do not count."""
    return hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest()[:16]


def embedded(config: Config) -> dict[str, Deployment]:
    """The deployments whose replicas are processes that Penstock starts."""
    return {name: deployment for name, deployment in config.deployments.items() if deployment.model is not None}


def _plan(model: Model) -> Plan:
    return Plan(
        deployments=model.deployments,
        max_attempts=model.max_attempts,
        first_token_timeout=seconds(model.timeouts.first_token),
        idle_timeout=seconds(model.timeouts.idle),
        total_timeout=seconds(model.timeouts.total),
        hedge_after=hedge_after(model),
    )


def _max_tokens(model: Model) -> MaxTokens | None:
    said = model.max_tokens
    return None if said is None else MaxTokens(said.most, said.most if said.default is None else said.default)


def _deployment(
    name: str,
    deployment: Deployment,
    origins: tuple[str, ...],
    published: tuple[tuple[str, str], ...],
    threshold: int,
) -> DeploymentSpec:
    place, seen = place_of(deployment), target(name, deployment)
    return DeploymentSpec(
        name=name,
        served=served_name(deployment),
        replicas=tuple(_replicas(name, deployment, place, origins, published)),
        credential=deployment.key,
        connect_timeout=seconds(deployment.connect_timeout),
        breaker_failures=deployment.breaker.failures,
        breaker_open_for=seconds(deployment.breaker.open_for),
        dialect=place.dialect,
        auth=place.auth,
        native=place.native,
        quirks=place.quirks,
        lose=_names(deployment.lose),
        beta=place.beta if deployment.beta is None else _names(deployment.beta),
        inline_media=deployment.provider is None or place.dialect in _CANNOT_FETCH,
        region=deployment.region,
        project=deployment.project,
        api_version=deployment.api_version,
        provider=deployment.provider if deployment.provider is not None and deployment.provider in PROVIDERS else "",
        price=options_of(deployment),
        self_hosted=seen.self_hosted,
        location=seen.location,
        context_window=seen.window,
        kv_events=events_rule(deployment),
        balancing=balancing_of(deployment.balancing, threshold),
        prefill=prefill_rule(deployment),
        outliers=outlier_rule(deployment.outliers),
        concurrency=concurrency_rule(deployment.concurrency),
    )


# Bedrock and Vertex take pictures only in the request, or from their own company's storage
_CANNOT_FETCH: Final = frozenset({"converse", "invoke", "gemini", "vertex-anthropic"})


def _names(given: tuple[str, ...] | str) -> tuple[str, ...]:
    return ("*",) if given == "all" else tuple(given)


def served_name(deployment: Deployment) -> str | None:
    """What the upstream calls the model. The embedded engine calls it by the last part of its path."""
    if deployment.served is None and deployment.model is not None:
        return deployment.model.rstrip("/").rpartition("/")[2] or "model"
    return deployment.served


def _replicas(
    name: str, deployment: Deployment, place: Place, origins: tuple[str, ...], published: tuple[tuple[str, str], ...]
) -> list[ReplicaSpec]:
    if deployment.model is not None:
        told = published or (("", ""),) * len(origins)
        return [
            ReplicaSpec(f"{name}/{i}", origin, metrics_path=place.metrics, kv_events=events, kv_replay=replay)
            for i, (origin, (events, replay)) in enumerate(zip(origins, told, strict=True))
        ]
    health, metrics = deployment.health or place.health, deployment.metrics or place.metrics
    return [
        ReplicaSpec(
            f"{name}/{i}",
            address.origin,
            address.base_path,
            None if health == "off" else health,
            None if metrics == "off" else metrics,
            weight=weight_of(deployment.balancing, i),
        )
        for i, address in enumerate(place.addresses)
    ]
