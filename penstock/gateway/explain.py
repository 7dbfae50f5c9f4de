"""`POST /v1/route/explain`: where a request would go now, and why all else lost. Asks nobody and takes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final
from urllib.parse import parse_qs

import msgspec
from msgspec.structs import replace

from penstock.balancing import explain as balancing
from penstock.core.errors import BadRequest
from penstock.core.request import Attribution, Endpoint, Request
from penstock.gateway.accounting import Accounting
from penstock.gateway.operations import OPERATIONS, Operation
from penstock.gateway.plane import Plane, Route
from penstock.gateway.pressure import Pressure
from penstock.gateway.routing import Asking, Course, Header, direct
from penstock.routing.decision import Asked, Decision, Explained, ReplicaChoice, Waiting
from penstock.routing.router import MAX_MODELS
from penstock.routing.spec import UNCHANGED

PATH: Final = b"/v1/route/explain"
_BY_ENDPOINT: Final[Mapping[str, Operation]] = {
    str(operation.endpoint): operation for operation in reversed(OPERATIONS.values())
}
_encode = msgspec.json.Encoder().encode


def operation_of(query: bytes) -> Operation:
    """Which endpoint the body is for, by `?endpoint=`; chat completions without it. Raises `BadRequest`."""
    said = parse_qs(query.decode("latin-1")).get("endpoint", [str(Endpoint.CHAT)])[-1]
    operation = _BY_ENDPOINT.get(said)
    if operation is None:
        raise BadRequest(f"`endpoint` is none of {', '.join(_BY_ENDPOINT)}", param="endpoint")
    return operation


def explain(
    plane: Plane, accounting: Accounting, pressure: Pressure, request: Request, said: Attribution, header: Header
) -> bytes:
    """The answer. What chance decides is decided by a number drawn anew each time, as it is for a request."""
    seed = plane.rng.getrandbits(32)
    course = direct(replace(plane, rng=Random(seed)), accounting, pressure, request, said, header)
    asking, rng = Asking(plane, accounting, request, said, header), Random(seed)
    model, inside, changes = request.model, False, UNCHANGED
    rules: tuple[Asked, ...] = ()
    for _ in range(MAX_MODELS):
        router = plane.routers[model]
        found = router.explain(*asking.about(router), rng, inside=inside, changes=changes)
        rules += found.rules
        if found.decision.model == model:
            break
        model, inside, changes = found.decision.model, found.decision.inside, found.decision.changes
    if course.route.model != model:  # it is degraded to another one
        router = plane.routers[course.route.model]
        found = router.explain(*asking.about(router), rng, inside=course.inside, changes=changes)
        rules += found.rules
    nowhere = course.refusal is not None or course.say is not None
    decision = Decision(
        () if nowhere else course.route.plan.deployments,
        course.route.model,
        course.arm or None,
        course.cascade,
        found.decision.changes,
        course.refusal,
        course.why,
        found.decision.dropped,
        course.inside,
    )
    return _encode(
        Explained(
            decision,
            found.candidates,
            rules,
            found.facts,
            () if nowhere else _replicas(plane, course.route, request),
            pressure.saturations.get(course.route.model, 0.0),
            _degraded(course),
            course.say,
            course.max_tokens,
            _queue(course.route, plane.clock.now()),
        )
    )


def _replicas(plane: Plane, route: Route, request: Request) -> tuple[ReplicaChoice, ...]:
    now, pools = plane.clock.now(), route.pools
    chosen = plane.balancer.choose(request, pools, plane.gates, (), now, Random(0))
    return tuple(
        [
            ReplicaChoice(
                one.replica,
                one.deployment,
                one.verdict == "chosen",
                one.cost,
                one.wait,
                request.prompt_tokens - one.cached_tokens,
                "" if one.verdict == "chosen" else one.verdict,
            )
            for one in balancing.consider(plane.balancer, request, pools, plane.gates, (), now, chosen)
        ]
    )


def _degraded(course: Course) -> tuple[str, ...]:
    fewer = () if course.max_tokens is None else (f"max_tokens={course.max_tokens}",)
    return (*fewer, *course.degraded)


def _queue(route: Route, now: float) -> tuple[Waiting, ...]:
    queued = route.queued
    if queued is None or not queued.engaged:
        return ()
    classes = queued.line.queue.view(now).classes
    return tuple([Waiting(one.priority, one.waiting, one.drain) for one in classes])
