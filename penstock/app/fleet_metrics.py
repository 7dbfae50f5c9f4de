"""What `/metrics` says of queues and replicas: read from whoever knows, before each snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from penstock.gateway.plane import Plane
from penstock.telemetry.engine_metrics import EngineReport
from penstock.telemetry.metrics import Labels, Registry

_GAUGES: Final[Mapping[str, str]] = {
    "penstock_replica_running_requests": "running",
    "penstock_replica_waiting_requests": "waiting",
    "penstock_replica_kv_used_ratio": "kv_used",
    "penstock_replica_kv_capacity_tokens": "kv_tokens",
}
_COUNTERS: Final[Mapping[str, str]] = {
    "penstock_replica_prompt_tokens_total": "prompt_tokens",
    "penstock_replica_prefix_hit_tokens_total": "prefix_hit_tokens",
    "penstock_replica_generated_tokens_total": "generation_tokens",
    "penstock_replica_preemptions_total": "preemptions",
}


def read_fleet(registry: Registry, plane: Callable[[], Plane], reports: Mapping[str, EngineReport]) -> None:
    """`reports` are the prober's, by replica; what an engine does not say has no series."""

    def of_engines(field: str) -> Callable[[], Iterable[tuple[Labels, float]]]:
        def read() -> Iterable[tuple[Labels, float]]:
            for replica in plane().replicas():
                report = reports.get(replica.name)
                value = None if report is None else getattr(report, field)
                if value is not None:
                    yield (replica.deployment, replica.name), value

        return read

    for name, field in _GAUGES.items():
        registry.read_gauge(name, of_engines(field))
    for name, field in _COUNTERS.items():
        registry.read_counter(name, of_engines(field))
    registry.read_gauge(
        "penstock_queued_requests",
        lambda: [((queued.key[0],), queued.line.queue.waiting) for queued in plane().queues],
    )
    ejections = registry.counter("penstock_ejections_total")

    def count_ejections() -> None:
        for deployment, watch in plane().watches.items():
            ejections.labels(deployment).value = watch.outliers.ejections

    registry.before_snapshot(count_ejections)
