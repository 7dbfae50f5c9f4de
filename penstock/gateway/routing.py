"""Where one request goes: what its model's router decides from what is the case now, and what its ladder gives up.

Asked only for models with `routing` or `degrade`. Nothing is taken or sent here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from penstock.balancing.balancer import obstacle
from penstock.balancing.policies import predicted_wait
from penstock.balancing.rates import KNOWN
from penstock.core.fleet import Replica
from penstock.core.request import Attribution, Endpoint, Request
from penstock.gateway.accounting import Accounting
from penstock.gateway.degrading import SPOKEN, given_up
from penstock.gateway.plane import Plane, Route
from penstock.gateway.pressure import Pressure
from penstock.gateway.try_upstreams import GENERATION
from penstock.pricing.cost import max_cost_nanos
from penstock.pricing.prices import Price
from penstock.resilience.options import Ladder
from penstock.routing.decision import Decision, Refusal
from penstock.routing.facts import Facts
from penstock.routing.router import Router, follow
from penstock.routing.spec import UNCHANGED, CascadeSpec, PlanChanges
from penstock.wire.heard import CARRY_PROBABILITIES

MAX_TOLD: Final = 300  # characters of a reason that a header tells
Header = Callable[[bytes], bytes | None]


class Course(msgspec.Struct, frozen=True):
    """What was decided for one request. Of the three, at most one: `refusal`, a text to `say`, a `cascade`."""

    route: Route  # of the deployments that may answer, in their order
    ladder: Ladder = ()  # of the model that it is for
    refusal: Refusal | None = None
    say: str | None = None
    cascade: CascadeSpec | None = None
    inside: bool = False  # nothing that is not self-hosted may ever see it
    changes: PlanChanges = UNCHANGED
    max_tokens: int | None = None  # its answer is no longer
    why: tuple[str, ...] = ()
    arm: str = ""
    degraded: tuple[str, ...] = ()  # what was given up, in the header's words

    def sent(self, request: Request) -> Request:
        """As upstreams are to be told it: under the name of the model that answers."""
        model = self.route.model
        if model == request.model:
            return request
        fields = request.fields
        if "model" in fields:
            fields = fields | {"model": msgspec.Raw(msgspec.json.encode(model))}
        return replace(request, model=model, fields=fields)

    def headers(self, why: Iterable[str], degraded: Iterable[str]) -> bytes:
        """Lines that tell its caller. `why`: what more there is to say by now; `degraded`: what was given up."""
        lines = b""
        if self.arm:
            lines += b"x-penstock-arm: %b\r\n" % _told(self.arm)
        if reasons := (*self.why, *why):
            lines += b"x-penstock-route: %b\r\n" % _told("; ".join(reasons))
        if given := ", ".join(degraded):
            lines += b"x-penstock-degraded: %b\r\n" % _told(given)
        return lines


class Now:
    """The deployments of one model, for one request. Looks only when it is asked."""

    __slots__ = ("_able", "_accounting", "_model", "_now", "_plane", "_request")

    def __init__(self, plane: Plane, accounting: Accounting, model: str, request: Request) -> None:
        self._plane, self._accounting, self._model, self._request = plane, accounting, model, request
        self._now = plane.clock.now()
        able = plane.routes[model].by_endpoint.get(request.endpoint)
        self._able = () if able is None else able.plan.deployments

    # --- View ---

    def serves(self, deployment: str) -> bool:
        return deployment in self._able

    def ready(self, deployment: str) -> bool:
        return bool(self._askable(deployment))

    def cost(self, deployment: str) -> int | None:
        """What limits would reserve."""
        plane, request = self._plane, self._request
        expected = self._accounting.expects(request)
        price = plane.routes[self._model].prices[deployment]
        return max_cost_nanos(request.prompt_tokens, expected, price, plane.clock.wall())

    def first_token(self, deployment: str) -> float | None:
        """The soonest of its replicas, once enough first tokens have been seen there, after what waits in the queue."""
        plane, request = self._plane, self._request
        balancer, queued = plane.balancer, plane.routes[self._model].queued
        known = [one for one in self._askable(deployment) if balancer.rates(one).points >= KNOWN]
        if not known:
            return None
        ask = balancer.ask(request, self._now)
        soonest = min(predicted_wait(ask, replica, ask.uncached(replica.name)) for replica in known)
        return soonest + (queued.drains[request.caller.priority] if queued is not None and queued.engaged else 0.0)

    def window(self, deployment: str) -> int | None:
        """The largest of its replicas' KV caches."""
        return max((replica.kv_tokens for replica in self._plane.pools[deployment]), default=0) or None

    def _askable(self, deployment: str) -> list[Replica]:
        plane = self._plane
        return [replica for replica in plane.pools[deployment] if not obstacle(replica, plane.gates, self._now)]


class Asking:
    """One request, as routers are asked about it."""

    __slots__ = ("_accounting", "_header", "_plane", "_request", "_said")

    def __init__(
        self, plane: Plane, accounting: Accounting, request: Request, said: Attribution, header: Header
    ) -> None:
        self._plane, self._accounting, self._request = plane, accounting, request
        self._said, self._header = said, header

    def about(self, router: Router) -> tuple[Now, Facts]:
        """What that router decides from: the request, as if its model had been asked for."""
        plane, request = self._plane, self._request
        if router.model != request.model:
            request = replace(request, model=router.model)
        facts = router.facts(request, self._said, self._header, plane.clock.wall(), plane.zone)
        return Now(plane, self._accounting, router.model, request), facts

    def follow(self, model: str, inside: bool = False, changes: PlanChanges = UNCHANGED) -> Decision:
        plane = self._plane
        return follow(plane.routers, model, self.about, plane.rng, inside=inside, changes=changes)


def direct(
    plane: Plane, accounting: Accounting, pressure: Pressure, request: Request, said: Attribution, header: Header
) -> Course:
    """Of a model that has routing, or a ladder, or both.

    A refusal stands whatever is degraded, but for one: where nobody inside is ready, the model's ladder holds as it
    does when nobody is ready at all. What has to stay inside stays there, on any rung.
    """
    asking, endpoint = Asking(plane, accounting, request, said, header), request.endpoint
    route = plane.routes[request.model].by_endpoint[endpoint]
    if route.router is None:
        course = Course(route, route.ladder)
    else:
        course = _course(plane, asking.follow(request.model), endpoint)
    route, refusal = course.route, course.refusal
    nobody = refusal is not None and refusal.code == "no_private_deployment"
    if not route.ladder or (refusal is not None and not nobody):
        return course
    held = route.ladder if nobody or not _anybody(plane, route) else pressure.steps.get(route.model, ())
    return _stepped(plane, asking, course, held, endpoint) if held else course


def rescue(
    plane: Plane, accounting: Accounting, request: Request, said: Attribution, header: Header, course: Course
) -> Course | None:
    """After all of that course have turned out not to be there: what the ladder has instead, if anything."""
    asking = Asking(plane, accounting, request, said, header)
    stepped = _stepped(plane, asking, course, course.ladder, request.endpoint)
    return None if stepped.say is None and stepped.route.model == course.route.model else stepped


def _stepped(plane: Plane, asking: Asking, course: Course, held: Ladder, endpoint: Endpoint) -> Course:
    """With what these steps give up."""

    def instead(model: str) -> Course | None:
        """Where that model answers it; None: it does not."""
        if model == course.route.model or endpoint not in plane.routes[model].by_endpoint:
            return None
        found = _course(plane, asking.follow(model, course.inside, course.changes), endpoint)
        return found if found.refusal is None and _anybody(plane, found.route) else None

    given = given_up(held, instead, speaks=endpoint in SPOKEN)
    if given.answer is not None:
        return replace(course, refusal=None, say=given.answer, cascade=None, degraded=(given.answer_name,))
    if given.instead is not None:
        why = (*course.why, *given.instead.why)
        course = replace(given.instead, ladder=course.ladder, why=why, degraded=(given.model_name,))
    return replace(course, max_tokens=given.max_tokens)


def narrowed(route: Route, names: tuple[str, ...], changes: PlanChanges = UNCHANGED) -> Route:
    """To these deployments, in this order."""
    plan = route.plan
    if names == plan.deployments and changes == UNCHANGED:
        return route
    pools = dict(zip(plan.deployments, route.pools, strict=True))
    said = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not None}
    plan = replace(plan, deployments=names, **said)
    return replace(
        route,
        plan=plan,
        plain_plan=plan.for_plain(),
        pools=[pools[name] for name in names],
        prices={name: route.prices[name] for name in names},
    )


def self_hosted(plane: Plane, route: Route) -> Route | None:
    """To those of its deployments that may see what has to stay inside; None: there are none."""
    targets = plane.routers[route.model].targets
    names = tuple(name for name in route.plan.deployments if targets[name].self_hosted)
    return narrowed(route, names) if names else None


def _course(plane: Plane, decision: Decision, endpoint: Endpoint) -> Course:
    whole = plane.routes[decision.model]
    course = Course(
        whole,
        whole.ladder,
        decision.refusal,
        inside=decision.inside,
        changes=decision.changes,
        why=decision.why,
        arm=decision.arm or "",
    )
    if decision.refusal is not None:
        return course
    cascade, names = decision.cascade, decision.deployments
    if cascade is not None and endpoint not in GENERATION:
        cascade = None
    elif cascade is not None and cascade.wants_logprobs and endpoint not in CARRY_PROBABILITIES:
        course = replace(course, why=(*course.why, f"no cascade: {endpoint} carries no probabilities"))
        names, cascade = cascade.steps[-1], None
    route = narrowed(whole.by_endpoint[endpoint], names, decision.changes)
    if cascade is not None:
        route = replace(route, asks=_asks(plane, route, cascade))
    return replace(course, route=route, cascade=cascade)


def _asks(plane: Plane, route: Route, cascade: CascadeSpec) -> list[list[Price | None]]:
    """Who may all be paid for one request. A judge reads what was asked and answered, which costs no more than to be
    asked and answer it."""
    asks = [[route.prices[name] for name in step] for step in cascade.steps]
    judge = cascade.escalation.judge
    if judge is not None:
        asks += [list(plane.routes[judge].prices.values())] * (len(cascade.steps) - 1)
    return asks


def _anybody(plane: Plane, route: Route) -> bool:
    """Whether any replica may be asked, soon at least: one that asked to be left alone a while will be."""
    now, gates = plane.clock.now(), plane.gates
    return any(obstacle(replica, gates, now) in ("", "cooling") for pool in route.pools for replica in pool)


def _told(text: str) -> bytes:
    """One line of ASCII."""
    return text[:MAX_TOLD].encode("ascii", "replace").translate(_ONE_LINE)


_ONE_LINE: Final = bytes(code if 32 <= code < 127 else ord(" ") for code in range(256))
