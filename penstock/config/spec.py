"""PlaneSpec: all a gateway worker must know, as plain data. It can be stored, compared, sent and replayed."""

from __future__ import annotations

import msgspec

from penstock.core.plan import Plan


class ReplicaSpec(msgspec.Struct, frozen=True):
    """`origin` is `http://host:port`, `https://host` or `unix:/path`; `base_path` comes before `/chat/completions`."""

    name: str  # unique in the plane: "local/0"
    origin: str
    base_path: str = "/v1"
    health_path: str | None = "/health"  # None: not probed (provider APIs)


class DeploymentSpec(msgspec.Struct, frozen=True):
    name: str
    served: str | None  # the name the upstream knows the model by; None: whatever the caller wrote
    replicas: tuple[ReplicaSpec, ...]
    credential: str | None = None  # a reference, never the secret: "env:NAME" or "file:/path"
    connect_timeout: float = 5.0  # seconds
    breaker_failures: int = 5  # in a row, to open
    breaker_open_for: float = 10.0  # seconds before it is asked again


class ModelSpec(msgspec.Struct, frozen=True):
    name: str
    plan: Plan


class KeySpec(msgspec.Struct, frozen=True):
    id: str
    sha256: str  # of the whole key, hex
    tenant: str = ""
    models: tuple[str, ...] | None = None  # None: all


class PlaneSpec(msgspec.Struct, frozen=True):
    version: int
    config_hash: str
    models: tuple[ModelSpec, ...]
    deployments: tuple[DeploymentSpec, ...]
    keys: tuple[KeySpec, ...]
    insecure_dev: bool = False  # no keys asked for; the server then listens on loopback only
    max_in_flight: int = 20_000  # requests inside one worker; more are told 503 at once
    retry_budget_ratio: float = 0.2  # retries and hedges per request, on average
    retry_budget_per_second: float = 10.0  # and this many always
    probe_interval: float = 2.0  # seconds between health checks of a replica
