"""What is asked of limits and what they answer: values that the pure `Book`, the stores and the gateway share."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

MICRO: Final = 1_000_000  # microseconds in a second, and millionths of a unit in a unit
MOST: Final = 2**53 // MICRO  # the largest limit of a rate: Redis counts in doubles, which are whole up to 2**53


class Kind(IntEnum):
    RATE = 0  # so many units in a sliding window
    GAUGE = 1  # so many at once
    BUDGET = 2  # so much in a calendar window: settled and reserved together


class Charge(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one request costs on one counter.

    `window` is in seconds: for a rate, the time in which `limit` units may be used (whole seconds); for a budget, what
    is left of its calendar window, whose name is part of `counter`. A `soft` budget is never refused, only told of.
    A cost of 0 always passes. `strict` is for counters that hosts share: see `rules.Limit`.
    """

    counter: str
    kind: Kind
    limit: int  # units; leases; nano-dollars
    cost: int
    window: int = 0
    soft: bool = False
    strict: bool = False


class Granted(msgspec.Struct, gc=False):
    """A reservation: the handle with which it is settled. Only the store that gave it changes it.

    `used` is, for each charge, what its counter holds with this reservation in it, rounded up to whole units.
    Times are microseconds on the store's own scale.
    """

    id: str
    charges: tuple[Charge, ...]
    used: tuple[int, ...]
    since: int
    expires_at: int
    settled: bool = False


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Nothing was taken. `which` is the charge that has to wait longest, `wait` its seconds, inf for never; `used` is
    what the counters hold without this request.
    """

    charges: tuple[Charge, ...]
    which: int
    wait: float
    used: tuple[int, ...]


class Unseeded(msgspec.Struct, frozen=True, gc=False):
    """Nothing was taken, because nobody knows what was spent on these budgets. Look it up, `seed`, and ask again.

    So an empty store (a new window, a restart, a flushed Redis) is never mistaken for an unspent budget.
    """

    counters: tuple[str, ...]


Verdict = Granted | Refused | Unseeded


class Over(msgspec.Struct, frozen=True, gc=False):
    """More was used than reserved, and a counter is beyond its limit, or further beyond it, by `by` units."""

    id: str
    charge: Charge
    by: int
