"""What routing says, as data: for the gateway, and for people who ask why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from penstock.core.request import Priority
from penstock.routing.spec import UNCHANGED, CascadeSpec, PlanChanges


class View(Protocol):
    """What the deployments are like at this moment, for this request."""

    def serves(self, deployment: str) -> bool:
        """Whether it has the endpoint that is asked for."""
        ...

    def ready(self, deployment: str) -> bool:
        """Whether a replica of it would take the request."""
        ...

    def cost(self, deployment: str) -> int | None:
        """What the request would cost there, nano-dollars; None: nobody knows."""
        ...

    def first_token(self, deployment: str) -> float | None:
        """Seconds to its first token there, as predicted; None: nobody knows."""
        ...

    def window(self, deployment: str) -> int | None:
        """Tokens that its engine says it can hold; None: it says nothing."""
        ...


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The request goes nowhere. `status` and `code` are those of HTTP and of the error's body, `message` is for the
    caller and names no deployment."""

    status: int
    code: str
    message: str


class Decision(msgspec.Struct, frozen=True):
    """Deployments best first, never empty unless `refusal` or another `model` says why."""

    deployments: tuple[str, ...]
    model: str  # the one that was asked for, or another whose routing goes on from here
    arm: str | None = None  # "split/arm"
    cascade: CascadeSpec | None = None  # of those of its steps that are left; two at least
    changes: PlanChanges = UNCHANGED
    refusal: Refusal | None = None
    why: tuple[str, ...] = ()  # for people, in the order in which it was decided
    dropped: Mapping[str, str] = {}  # by deployment: the reason
    inside: bool = False  # nothing that is not self-hosted may ever see it


class Candidate(msgspec.Struct, frozen=True):
    """A deployment of the model, won or lost. `rank` counts from 1; None: it lost, `why` says how."""

    deployment: str
    rank: int | None
    why: str
    ready: bool
    self_hosted: bool
    location: str
    window: int | None
    cost: int | None
    first_token: float | None


class Asked(msgspec.Struct, frozen=True):
    """A rule, and whether it held. None: it was not asked, because one before it had decided."""

    rule: str
    when: str
    held: bool | None


class ReplicaChoice(msgspec.Struct, frozen=True):
    """A replica as the balancer sees it; all times in seconds. Filled in by who has one."""

    replica: str
    deployment: str
    chosen: bool
    cost: float | None
    wait: float | None
    uncached: int | None
    why: str


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """One class of the central queue. Without tenants: whose requests wait is nobody else's business."""

    priority: Priority
    waiting: int
    drain: float  # seconds until what now waits has been sent, as predicted


class Explanation(msgspec.Struct, frozen=True):
    """A decision with all that lost."""

    decision: Decision
    candidates: tuple[Candidate, ...]
    rules: tuple[Asked, ...]
    facts: dict[str, object]
    replicas: tuple[ReplicaChoice, ...] = ()


class Explained(Explanation, frozen=True):
    """With what a gateway knows beside routing."""

    saturation: float = 0.0  # 1: newcomers wait as long as they may; 1e9: no replica is ready
    degraded: tuple[str, ...] = ()  # what would be given up for it, in the words of `x-penstock-degraded`
    say: str | None = None  # this text would be the answer
    max_tokens: int | None = None  # the answer would be no longer
    queue: tuple[Waiting, ...] = ()  # highest class first; (): requests of this model never wait in the gateway
