"""Who may do what. Deny by default: a role may do what its row says and nothing else."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from penstock.config.schema import Role


class Act(StrEnum):
    """What a route is about. The value is what a refusal says."""

    LOOK = "use this API"
    SEE_TENANTS = "see organisations, teams and keys"
    RUN_TENANTS = "make and change organisations, teams and keys"
    SET_BUDGETS = "change what may be spent"
    SEE_COSTS = "see costs and budgets"
    SEE_AUDIT = "see the audit log"
    CHECK_CONFIG = "check configurations"
    SEE_CONFIG = "see the configuration"
    SEE_REQUESTS = "see requests, models and replicas"
    CANCEL_REQUESTS = "cancel requests"
    FORGET_USERS = "delete what is kept of users"


ROLES: Final[dict[Role, frozenset[Act]]] = {
    "owner": frozenset(Act),
    "admin": frozenset(Act) - {Act.FORGET_USERS},
    "viewer": frozenset(Act) - {Act.RUN_TENANTS, Act.SET_BUDGETS, Act.CANCEL_REQUESTS, Act.FORGET_USERS},
    "billing": frozenset({Act.LOOK, Act.SEE_TENANTS, Act.SEE_COSTS, Act.SET_BUDGETS}),
}
POWER: Final[tuple[Role, ...]] = ("owner", "admin", "billing", "viewer")  # the most powerful first
BUDGET_OPTIONS: Final = frozenset({"budget", "max_cost"})


class Principal(msgspec.Struct, frozen=True):
    """Who asks. `name` is for the audit log; `org` is the one organisation that they see, "" for all."""

    name: str
    role: Role
    org: str = ""

    def may(self, act: Act) -> bool:
        return act in ROLES[self.role]
