"""What the gateway's workers tell the console: values only, which go from process to process."""

from __future__ import annotations

import msgspec

from penstock.balancing.queue_values import QueueView
from penstock.stores.outcomes import Kept


class Ended(msgspec.Struct, frozen=True):
    """Requests that ended. Those that are nothing special are a sample: each stands for `weight` of them, and
    `n_left_out` were not sent at all. What is special is there as far as there was room; `n_dropped` are not.
    """

    requests: tuple[Kept, ...]
    weight: float = 1.0
    n_left_out: int = 0
    n_dropped: int = 0


class ReplicaSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """As one worker sees it. Instants are Unix seconds, 0: not."""

    name: str
    origin: str
    ready: bool
    phase: str  # of its breaker: closed, open, half_open
    cool_until: float
    rate_limited: bool
    ejected_until: float
    ramp: float
    weight: float
    inflight: int
    inflight_tokens: int
    pending_tokens: int
    waiting: int
    running: int
    max_running: int
    kv_used: float
    kv_tokens: int
    prefill_rate: float
    step_base: float
    itl_slope: float
    prefix_hit: float | None = None
    preemptions: float | None = None
    gpu_memory: float | None = None


class DeploymentSeen(msgspec.Struct, frozen=True):
    name: str
    engine: str
    policy: str
    upstream_model: str
    replicas: tuple[ReplicaSeen, ...]


class ModelSeen(msgspec.Struct, frozen=True):
    name: str
    deployments: tuple[str, ...]
    operations: tuple[str, ...]


class QueueSeen(msgspec.Struct, frozen=True):
    models: tuple[str, ...]
    deployments: tuple[str, ...]
    engaged: bool
    view: QueueView


class FleetSeen(msgspec.Struct, frozen=True):
    """A worker's view of everything behind it, at a moment (Unix seconds)."""

    at: float
    plane: int
    in_flight: int
    models: tuple[ModelSeen, ...]
    queues: tuple[QueueSeen, ...]
    deployments: tuple[DeploymentSeen, ...]


class OpenRequest(msgspec.Struct, frozen=True):
    """One that is in flight. `at` is Unix seconds; `tokens` are those of its answer so far.

    `stage`: admission, queued, sent (nothing has come yet), streaming, or drained (read on though its caller has left).
    """

    id: str
    at: float
    endpoint: str
    model: str
    org: str
    team: str
    key_id: str
    priority: str
    stage: str
    replica: str
    ttft: float | None
    tokens: int


class OpenSeen(msgspec.Struct, frozen=True):
    """The oldest of those that were asked for, and how many they are."""

    requests: tuple[OpenRequest, ...]
    n: int


class Shown(msgspec.Struct, frozen=True):
    """The configuration that is served, as people read it: `text` without secrets. `changes`, the newest first, are
    what reloads have changed: a plane's version, when (Unix seconds), and lines."""

    version: int
    path: str | None
    loaded_at: float
    text: str
    changes: tuple[tuple[int, float, tuple[str, ...]], ...] = ()
