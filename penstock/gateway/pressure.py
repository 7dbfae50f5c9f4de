"""How hard pressed each model is, and what follows: who is told to come back later, and what is given up first.

Looked at a few times a second, not at each request: between two looks everybody meets the same answer.
"""

from __future__ import annotations

from random import Random
from typing import Final

from penstock.core.errors import QueueRefused
from penstock.core.request import Request
from penstock.gateway.plane import Plane, Route
from penstock.resilience.degrade import LEVEL, Standing, decide
from penstock.resilience.options import NO_REPLICA, Ladder, ShedRule
from penstock.resilience.shed import kv_of, saturation, shed

CALM: Final = 0.25  # no class is refused, and no ladder that makes sense begins, so far below saturation


class Pressure:
    """Of one worker's models. `saturations` has those above `CALM`; `steps`, those that have given something up."""

    __slots__ = ("_standings", "saturations", "steps")

    def __init__(self) -> None:
        self.saturations: dict[str, float] = {}
        self.steps: dict[str, Ladder] = {}
        self._standings: dict[str, Standing] = {}

    def look(self, plane: Plane, now: float) -> None:
        rule = plane.spec.shed or ShedRule()
        saturations: dict[str, float] = {}
        standings: dict[str, Standing] = {}
        steps: dict[str, Ladder] = {}
        for model in plane.spec.models:
            route = plane.routes[model.name]
            found = _saturation(rule, route, now)
            if found > CALM:
                saturations[model.name] = found
            if model.degrade:
                standing, held = decide(model.degrade, found, self._standings.get(model.name, LEVEL), now)
                standings[model.name] = standing
                if held:
                    steps[model.name] = held
        self.saturations, self._standings, self.steps = saturations, standings, steps

    def admit(self, plane: Plane, route: Route, request: Request, rng: Random) -> None:
        """Raises `QueueRefused` when it is one of those that are turned away for the sake of others."""
        rule, pressed = plane.spec.shed, self.saturations.get(route.model)
        if rule is None or pressed is None or route.queued is None:
            return
        target = route.plan.first_token_timeout if rule.target is None else rule.target
        drain = route.queued.drains[request.caller.priority]
        refused = shed(rule, request.caller.priority, pressed, drain, target, rng)
        if refused is not None:
            who = f"The model {route.model!r} is overloaded; requests of class {request.caller.priority}"
            raise QueueRefused(f"{who} are turned away for now.", "shed", refused.retry_after)


def _saturation(rule: ShedRule, route: Route, now: float) -> float:
    pools, queued = route.pools, route.queued
    if not any(replica.ready for pool in pools for replica in pool):
        return NO_REPLICA
    if queued is None or not queued.engaged:
        return 0.0
    kv_used = min(kv_of(pool, now) for pool in pools if pool)
    return saturation(rule, max(queued.drains.values()), route.plan.first_token_timeout, kv_used)
