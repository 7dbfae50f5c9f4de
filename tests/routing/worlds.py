"""A model's deployments at one moment, as a test wants them."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import msgspec

from penstock.routing.decision import Decision
from penstock.routing.facts import Facts
from penstock.routing.router import Router
from penstock.routing.spec import RoutingSpec, Target


class At(msgspec.Struct):
    """One deployment."""

    ready: bool = True
    serves: bool = True
    cost: int | None = None
    first_token: float | None = None
    window: int | None = None


class World:
    def __init__(self, **known: At) -> None:
        self.known = known

    def _at(self, name: str) -> At:
        return self.known.get(name, At())

    def serves(self, deployment: str) -> bool:
        return self._at(deployment).serves

    def ready(self, deployment: str) -> bool:
        return self._at(deployment).ready

    def cost(self, deployment: str) -> int | None:
        return self._at(deployment).cost

    def first_token(self, deployment: str) -> float | None:
        return self._at(deployment).first_token

    def window(self, deployment: str) -> int | None:
        return self._at(deployment).window


LOCAL = Target("local", self_hosted=True, location="eu-west-1", window=2_048)
CHEAP = Target("cheap", location="eu-central-1")
STRONG = Target("strong", location="us-east-1", window=400_000)
TARGETS = (LOCAL, CHEAP, STRONG)


def router(spec: RoutingSpec, targets: Iterable[Target] = TARGETS, model: str = "chat") -> Router:
    return Router(model, spec, targets)


NO_FACTS = Facts()


def decide(spec: RoutingSpec, facts: Facts = NO_FACTS, world: World | None = None, **more: object) -> Decision:
    return router(spec).decide(world or World(), facts, Random(1), **more)
