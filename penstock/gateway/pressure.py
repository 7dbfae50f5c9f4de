"""How hard pressed each model is, and what follows: who is told to come back later, and what is given up first."""

from __future__ import annotations

from random import Random

from penstock.core.errors import QueueRefused
from penstock.core.request import Request
from penstock.gateway.plane import Plane, Route
from penstock.resilience.options import Ladder, ShedRule
from penstock.resilience.pressure import Looked, Pressed, look
from penstock.resilience.shed import shed


class Pressure:
    """Of one worker's models. `saturations` has those that are pressed; `steps`, those that have given something up."""

    __slots__ = ("_found", "saturations", "steps")

    def __init__(self) -> None:
        self._found = Pressed()
        self.saturations: dict[str, float] = {}
        self.steps: dict[str, Ladder] = {}

    def look(self, plane: Plane, now: float) -> None:
        looked = []
        for model in plane.spec.models:
            route = plane.routes[model.name]
            queued = route.queued
            drains = queued.drains if queued is not None and queued.engaged else None
            looked.append(Looked(model.name, route.pools, route.plan.first_token_timeout, model.degrade, drains))
        found = self._found = look(plane.spec.shed or ShedRule(), looked, self._found, now)
        self.saturations, self.steps = found.saturations, found.steps

    def admit(self, plane: Plane, route: Route, request: Request, rng: Random) -> None:
        """Raises `QueueRefused` when it is one of those that are turned away for the sake of others. What counts is the
        pressure on the model that is to answer, which may be another one than was asked for."""
        rule, pressed = plane.spec.shed, self.saturations.get(route.model)
        if rule is None or pressed is None or route.queued is None:
            return
        target = route.plan.first_token_timeout if rule.target is None else rule.target
        drain = route.queued.drains[request.caller.priority]
        refused = shed(rule, request.caller.priority, pressed, drain, target, rng)
        if refused is not None:
            who = f"The model {request.model!r} is overloaded; requests of class {request.caller.priority}"
            raise QueueRefused(f"{who} are turned away for now.", "shed", refused.retry_after)
