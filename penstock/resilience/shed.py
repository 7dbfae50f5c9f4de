"""Refuse some of the less important requests before all of them are late. Pure.

The chance to be refused grows with the square of how far saturation is beyond where it begins for that class, so that
the first signs cost nearly nobody and the queue never has to be full.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from random import Random
from typing import Final

import msgspec

from penstock.core.fleet import Replica
from penstock.core.request import Priority
from penstock.resilience.options import NO_REPLICA, ShedRule

NARROWEST: Final = 0.15  # of the range from "some" to "all": a class that begins at 1 ends at 1.15
JITTER: Final = 0.25  # of the time to stay away, so that not all come back at once


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Come back in `retry_after` seconds. `chance` is what it was decided with."""

    retry_after: float
    chance: float


def saturation(rule: ShedRule, drain: float, first_token_timeout: float, kv_used: float) -> float:
    """1: whoever comes now waits as long as anybody may, or the KV cache is full; 0: nobody waits.

    `drain`: predicted seconds until a newcomer's turn comes, inf where nobody is there to answer. `kv_used`: 0..1, of
    all replicas together. Not bounded above.
    """
    if drain == inf:
        return NO_REPLICA
    full = max(0.0, kv_used - rule.kv_from) / (1.0 - rule.kv_from)
    return max(drain / (first_token_timeout if rule.target is None else rule.target), full)


def kv_of(pool: Iterable[Replica], now: float) -> float:
    """The mean of those replicas that may be asked; 0 where there is none."""
    used = [one.kv_used for one in pool if one.ready and one.ejected_until <= now]
    return sum(used) / len(used) if used else 0.0


def chance(rule: ShedRule, priority: Priority, saturation: float) -> float:
    """Of being refused: 0 up to where it begins for the class, 1 at saturation 1 and beyond."""
    begins = rule.begins(priority)
    if not saturation > begins:
        return 0.0
    return min(1.0, (saturation - begins) / max(NARROWEST, 1.0 - begins)) ** 2


def shed(
    rule: ShedRule, priority: Priority, saturation: float, drain: float, target: float, rng: Random
) -> Refused | None:
    """None: it may come in. `rng` is asked only where the outcome is open.

    It is asked to stay away until the queue, with nobody else coming, is back where its class is not refused. Without
    any replica nothing is shed: there is nothing to spare, and another answer to give.
    """
    risk = 0.0 if saturation == NO_REPLICA else chance(rule, priority, saturation)
    if risk <= 0.0 or (risk < 1.0 and rng.random() >= risk):
        return None
    wait = max(1.0, drain - rule.begins(priority) * target)
    return Refused(min(rule.longest, wait * (1.0 + JITTER * rng.random())), risk)
