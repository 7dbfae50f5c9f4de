"""How hard pressed each model is, and what it gives up for it. Pure: the caller keeps the `Pressed`.

Looked at a few times a second, not at each request: between two looks everybody meets the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from penstock.core.fleet import Replica
from penstock.core.request import Priority
from penstock.resilience.degrade import LEVEL, Standing, decide
from penstock.resilience.options import NO_REPLICA, Ladder, ShedRule
from penstock.resilience.shed import kv_of, saturation

CALM: Final = 0.25  # no class is refused, and no ladder that makes sense begins, so far below saturation


class Looked(msgspec.Struct, frozen=True, gc=False):
    """A model, as it is looked at. `drains`: seconds until what waits in the central queue has been sent, by class;
    None: nobody waits there, whatever happens."""

    model: str
    pools: Sequence[Sequence[Replica]]
    first_token_timeout: float
    ladder: Ladder
    drains: Mapping[Priority, float] | None


class Pressed(msgspec.Struct, frozen=True):
    """By model. `saturations` has those above `CALM`; `steps`, those that have given something up."""

    saturations: dict[str, float] = {}
    steps: dict[str, Ladder] = {}
    standings: dict[str, Standing] = {}


def look(rule: ShedRule, models: Iterable[Looked], before: Pressed, now: float) -> Pressed:
    """How it is now, after it was `before`."""
    found = Pressed()
    for one in models:
        pressure = _saturation(rule, one, now)
        if pressure > CALM:
            found.saturations[one.model] = pressure
        if one.ladder:
            standing, held = decide(one.ladder, pressure, before.standings.get(one.model, LEVEL), now)
            found.standings[one.model] = standing
            if held:
                found.steps[one.model] = held
    return found


def _saturation(rule: ShedRule, one: Looked, now: float) -> float:
    if not any(replica.ready for pool in one.pools for replica in pool):
        return NO_REPLICA
    if one.drains is None:
        return 0.0
    kv_used = min(kv_of(pool, now) for pool in one.pools if pool)
    return saturation(rule, max(one.drains.values()), one.first_token_timeout, kv_used)
