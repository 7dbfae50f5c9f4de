"""What is behind the gateway and how it does: as one worker sees it, and as all of them together do.

Workers do not talk to each other, so each has a breaker of its own for every replica and counts its own requests there:
what counts is added, and of what each has judged by itself the worst is shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.balancing.queue_values import ClassView, QueueView
from penstock.console.reports import DeploymentSeen, FleetSeen, ModelSeen, QueueSeen, ReplicaSeen
from penstock.core.clock import Clock
from penstock.gateway.plane import Plane
from penstock.resilience.breaker import Phase
from penstock.telemetry.engine_metrics import EngineReport

MOST_EVENTS: Final = 100
STALE_AFTER: Final = 30.0  # seconds without a word: that worker is not there any more

_WORSE: Final = (Phase.CLOSED, Phase.HALF_OPEN, Phase.OPEN)
_NO_REPORT: Final = EngineReport()


def see(plane: Plane, reports: Mapping[str, EngineReport], clock: Clock, in_flight: int) -> FleetSeen:
    """About 10 us for each replica."""
    now, wall = clock.now(), clock.wall()

    def moment(at: float) -> float:
        return wall + at - now if at > now else 0.0

    deployments = []
    for spec in plane.spec.deployments:
        replicas = []
        for place, one in zip(spec.replicas, plane.pools[spec.name], strict=True):
            report = reports.get(one.name, _NO_REPORT)
            replicas.append(
                ReplicaSeen(
                    name=one.name,
                    origin=place.origin,
                    ready=one.ready,
                    phase=plane.breakers[one.name].phase(now),
                    cool_until=moment(one.cool_until),
                    rate_limited=one.rate_limited,
                    ejected_until=moment(one.ejected_until),
                    ramp=one.ramp,
                    weight=one.weight,
                    inflight=one.inflight,
                    inflight_tokens=one.inflight_tokens,
                    pending_tokens=one.pending_tokens,
                    waiting=one.waiting,
                    running=one.running,
                    max_running=one.max_running,
                    kv_used=one.kv_used,
                    kv_tokens=one.kv_tokens,
                    prefill_rate=one.prefill_rate,
                    step_base=one.step_base,
                    itl_slope=one.itl_slope,
                    prefix_hit=_share(report.prefix_hit_tokens, report.prompt_tokens),
                    preemptions=report.preemptions,
                )
            )
        engine = spec.provider or (spec.dialect if not spec.self_hosted else "self-hosted")
        deployments.append(DeploymentSeen(spec.name, engine, spec.balancing.policy, spec.served or "", tuple(replicas)))
    models = tuple(
        ModelSeen(name, route.plan.deployments, tuple(sorted(map(str, route.by_endpoint))))
        for name, route in plane.routes.items()
    )
    queues = tuple(
        QueueSeen(
            tuple(name for name, route in plane.routes.items() if route.queued is queued),
            queued.key,
            queued.engaged,
            queued.line.queue.view(now),
        )
        for queued in plane.queues
    )
    return FleetSeen(wall, plane.version, in_flight, models, queues, tuple(deployments))


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else min(1.0, part / whole)


class Fleet:
    """The last views of all workers, and what has happened to replicas since. `on_tell` hears of each event."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._views: dict[str, FleetSeen] = {}
        self._was: dict[str, dict[str, tuple[bool, str, bool]]] = {}  # by worker and replica
        self._events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self._told: dict[tuple[str, str], float] = {}

    def seen(self, worker: str, view: FleetSeen) -> None:
        self._views[worker] = view
        now_is = {
            one.name: (one.ready, one.phase, one.ejected_until > view.at)
            for deployment in view.deployments
            for one in deployment.replicas
        }
        before = self._was.get(worker, {})
        for name, (ready, phase, ejected) in now_is.items():
            if name in before:
                was_ready, was_phase, was_ejected = before[name]
                if ready != was_ready:
                    self._happened(view.at, name, "ready" if ready else "not_ready")
                if phase != was_phase and Phase.OPEN in (phase, was_phase):
                    self._happened(view.at, name, "breaker_open" if phase == Phase.OPEN else "breaker_closed")
                if ejected != was_ejected:
                    self._happened(view.at, name, "ejected" if ejected else "returned")
        self._was[worker] = now_is

    def gone(self, worker: str) -> None:
        self._views.pop(worker, None)
        self._was.pop(worker, None)

    @property
    def workers(self) -> int:
        return len(self._fresh())

    @property
    def in_flight(self) -> int:
        return sum(view.in_flight for view in self._fresh())

    @property
    def queued(self) -> int:
        return sum(queue.view.waiting for view in self._fresh() for queue in view.queues)

    def ready(self) -> tuple[int, int]:
        """Replicas that at least one worker takes for ready, and all."""
        known: dict[str, bool] = {}
        for view in self._fresh():
            for deployment in view.deployments:
                for one in deployment.replicas:
                    known[one.name] = known.get(one.name, False) or one.ready
        return sum(known.values()), len(known)

    def told(self, recent: Callable[[str], Mapping[str, Any] | None]) -> dict[str, Any]:
        """For the console. `recent` answers what was seen of a replica lately."""
        views = self._fresh()
        newest = _newest(views)
        if newest is None:
            return {"at": None, "workers": 0, "models": [], "queues": [], "deployments": [], "events": []}
        deployments = []
        for place, deployment in enumerate(newest.deployments):
            replicas = []
            for one in deployment.replicas:
                same = [found for view in views if (found := _find(view, place, deployment.name, one.name)) is not None]
                replicas.append(
                    {**_merged(same), "reported_at": None if not one.running and not one.kv_tokens else newest.at}
                    | {"last_5m": recent(one.name)}
                )
            deployments.append(
                {
                    "name": deployment.name,
                    "engine": deployment.engine,
                    "policy": deployment.policy,
                    "upstream_model": deployment.upstream_model,
                    "replicas": replicas,
                }
            )
        return {
            "at": min(view.at for view in views),
            "workers": len(views),
            "models": [{**msgspec.structs.asdict(one), "aliases": []} for one in newest.models],
            "queues": _queues(views, newest),
            "deployments": deployments,
            "events": list(reversed(self._events)),
        }

    def models(self) -> tuple[ModelSeen, ...]:
        """Those of the newest configuration."""
        newest = _newest(self._fresh())
        return () if newest is None else newest.models

    def _fresh(self) -> list[FleetSeen]:
        oldest = self._clock.wall() - STALE_AFTER
        return [view for view in self._views.values() if view.at >= oldest]

    def _happened(self, at: float, replica: str, what: str) -> None:
        """Once, however many workers notice it."""
        if at - self._told.get((replica, what), 0.0) > 10.0:
            self._events.append({"at": at, "replica": replica, "what": what, "why": ""})
        self._told[replica, what] = at
        if len(self._told) > 20 * MOST_EVENTS:
            self._told.clear()


def _newest(views: Sequence[FleetSeen]) -> FleetSeen | None:
    return max(views, key=lambda view: (view.plane, view.at), default=None)


def _find(view: FleetSeen, place: int, deployment: str, replica: str) -> ReplicaSeen | None:
    known = view.deployments[place] if place < len(view.deployments) else None
    if known is None or known.name != deployment:
        return None
    return next((one for one in known.replicas if one.name == replica), None)


_ADDED: Final = ("inflight", "inflight_tokens", "pending_tokens")
_LARGEST: Final = (
    "cool_until", "ejected_until", "ramp", "waiting", "running", "max_running", "kv_used", "kv_tokens", "preemptions",
    "rate_limited",
)  # fmt: skip


def _merged(same: Sequence[ReplicaSeen]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.structs.asdict(same[0])
    for name in _ADDED:
        found[name] = sum(getattr(one, name) for one in same)
    for name in _LARGEST:
        found[name] = max((getattr(one, name) for one in same if getattr(one, name) is not None), default=None)
    found["ready"] = any(one.ready for one in same)
    found["phase"] = max((one.phase for one in same), key=lambda phase: _WORSE.index(Phase(phase)))
    found["open_in"] = sum(one.phase != Phase.CLOSED for one in same)
    found["ejected_why"] = found["checked_at"] = found["failed_in_a_row"] = None
    return found


def _queues(views: Iterable[FleetSeen], newest: FleetSeen) -> list[dict[str, Any]]:
    found = []
    for one in newest.queues:
        same = [queue for view in views for queue in view.queues if queue.deployments == one.deployments]
        found.append(
            {
                "models": one.models,
                "deployments": one.deployments,
                "engaged": any(queue.engaged for queue in same),
                "view": _added([queue.view for queue in same]),
            }
        )
    return found


def _added(views: Sequence[QueueView]) -> QueueView:
    classes: dict[str, list[ClassView]] = {}
    for view in views:
        for one in view.classes:
            classes.setdefault(one.priority, []).append(one)
    return QueueView(
        sum(view.waiting for view in views),
        sum(view.running for view in views),
        max(view.slots for view in views),
        tuple(
            ClassView(
                same[0].priority,
                sum(one.waiting for one in same),
                max(one.oldest for one in same),
                max(one.drain for one in same),
                sum(one.running for one in same),
                max(one.floor for one in same),
                tuple(sorted((t for one in same for t in one.tenants), key=lambda t: -t.waiting)[:10]),
            )
            for same in classes.values()
        ),
    )
