"""Configuration to `PlaneSpec`: what was written becomes what a gateway worker must know, every default decided."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from penstock.config import addresses
from penstock.config.checks import engine_addresses
from penstock.config.providers import PROVIDERS
from penstock.config.schema import Config, Deployment, Model
from penstock.config.spec import DeploymentSpec, KeySpec, ModelSpec, PlaneSpec, ReplicaSpec
from penstock.config.units import seconds
from penstock.core.plan import Plan


def compile_plane(
    config: Config, version: int, engines: Mapping[str, tuple[str, ...]], *, insecure_dev: bool = False
) -> PlaneSpec:
    """`engines`: for each deployment of the embedded engine, the origins of its replicas, from whoever started them.

    Replicas are named by their position, so one whose process was started anew elsewhere keeps its name.
    """
    assert isinstance(config.keys, tuple), "`load` puts the keys of a file in the place of its name"
    return PlaneSpec(
        version=version,
        config_hash=config_hash(config),
        models=tuple(ModelSpec(name, _plan(model)) for name, model in config.models.items()),
        deployments=tuple(
            _deployment(name, deployment, engines.get(name, ())) for name, deployment in config.deployments.items()
        ),
        keys=tuple(KeySpec(key.id, key.sha256, key.tenant, key.models) for key in config.keys),
        insecure_dev=insecure_dev,
        max_in_flight=config.server.max_in_flight,
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
        hedge_after=None if model.hedge_after is None else seconds(model.hedge_after),
    )


def _deployment(name: str, deployment: Deployment, origins: tuple[str, ...]) -> DeploymentSpec:
    return DeploymentSpec(
        name=name,
        served=served_name(deployment),
        replicas=tuple(_replicas(name, deployment, origins)),
        credential=deployment.key,
        connect_timeout=seconds(deployment.connect_timeout),
        breaker_failures=deployment.breaker.failures,
        breaker_open_for=seconds(deployment.breaker.open_for),
    )


def served_name(deployment: Deployment) -> str | None:
    """What the upstream calls the model. The embedded engine calls it by the last part of its path."""
    if deployment.served is None and deployment.model is not None:
        return deployment.model.rstrip("/").rpartition("/")[2] or "model"
    return deployment.served


def _replicas(name: str, deployment: Deployment, origins: tuple[str, ...]) -> list[ReplicaSpec]:
    if deployment.provider is not None:
        known = PROVIDERS.get(deployment.provider)
        address = (
            addresses.Address(known.origin, known.base_path)
            if known is not None
            else addresses.parse(deployment.provider)
        )
        return [ReplicaSpec(f"{name}/0", address.origin, address.base_path, health_path=None)]
    if deployment.model is not None:
        return [ReplicaSpec(f"{name}/{i}", origin) for i, origin in enumerate(origins)]
    health = deployment.health or "/health"
    found = [addresses.parse(text) for text in engine_addresses(deployment)]
    return [
        ReplicaSpec(f"{name}/{i}", address.origin, address.base_path, None if health == "off" else health)
        for i, address in enumerate(found)
    ]
