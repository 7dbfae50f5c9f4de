"""Leasing a part of a shared limit, so that most requests need nobody else.

A holder (a worker process) reserves a block of units on the shared counter, spends from it on its own, and asks for
more in good time. The shared counter counts a block when it is leased, so nothing is ever spent that was not counted.
But a rate drains on the counter while the units wait here: what is used of it in one window may exceed the limit by the
blocks that are held, which is what `overshoot` states. Budgets and gauges do not drain, and are not exceeded.

What a request has reserved and not used goes back to where it is right: of a budget or a gauge into the block; of a
rate to the shared counter, which alone knows how much of it has not drained since. (In a block it would be worth as
much as ever: a caller could open streams for an hour, cancel them together, and burst.)
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Final, Protocol

from msgspec import structs

from penstock.limits.charges import Charge, Granted, Kind

SHARE: Final = 8  # all holders together hold at most a SHARE-th of a limit
SHARE_OF_MONEY: Final = 64  # of a budget: what is held looks spent to the others, and to those who are told of it
FEW: Final = 4  # requests; a block that is not enough for so many is not worth two calls
PIECES: Final = 4  # of a block, each its own lease: it is in pieces that it can be given back


def most(charge: Charge, holders: int) -> int:
    """How many units of its limit each holder may have lying about; 0 when it is too small to be leased at all."""
    return charge.limit // ((SHARE_OF_MONEY if charge.kind is Kind.BUDGET else SHARE) * holders)


def block(charge: Charge, free: int, holders: int) -> int:
    """How many units to lease: less as the limit nears, so that the last of it is not stranded with an idle holder."""
    return max(0, min(most(charge, holders), free // (2 * holders)))


def overshoot(limit: int) -> int:
    """By how many units a leased rate may be exceeded in one window, however many holders there are."""
    return limit // SHARE


def pieces(size: int) -> list[int]:
    """Halves of what is left, so that nearly all of any part can be given back."""
    parts: list[int] = []
    while size > 1 and len(parts) < PIECES - 1:
        parts.append(size - size // 2)
        size //= 2
    return [*parts, size]


class Block(Protocol):
    """What one holder has of one counter, and the best that it knows of what all have used. `now` is in seconds."""

    charge: Charge  # that it began with
    limit: int
    left: int
    lease: Granted | None  # which the next units come from
    idle: bool  # nobody has taken anything since this was set
    leasing: bool  # more has been asked for
    resting: bool  # more is not to be had for now
    most: int  # that may lie about

    @property
    def wants(self) -> bool:
        """Three quarters are gone: time to lease again."""
        ...

    @property
    def unused(self) -> int:
        """What the shared counter takes for used, and is not."""
        ...

    def parts(self, size: int) -> list[int]:
        """The leases to ask for."""
        ...

    def add(self, lease: Granted) -> None: ...

    def take(self, cost: int, now: float) -> int:
        """Not more than is left. How much all have used then, as far as this holder knows."""
        ...

    def settle(self, reserved: int, cost: int, lease: Granted | None) -> bool:
        """What a request took, of which lease, and what it used. Whether there is something to tell."""
        ...

    def tell(self) -> Iterator[tuple[Granted | None, int]]:
        """What the shared counter has to be told now: leases to settle, each with what it cost; without one, what was
        used and not reserved. Also what is left beyond `most`.
        """
        ...

    def drop(self) -> Iterator[tuple[Granted | None, int]]:
        """Likewise, and all leases: requests that are still open have reserved nothing."""
        ...

    def saw(self, used: int, now: float) -> None:
        """What the shared counter says that it holds."""
        ...

    def used(self, now: float) -> int:
        """As far as this holder knows."""
        ...


class RateBlock:
    __slots__ = (
        "_at",
        "_back",
        "_low",
        "_more",
        "_newer",
        "_newer_units",
        "_per_second",
        "_used",
        "charge",
        "idle",
        "lease",
        "leasing",
        "left",
        "limit",
        "most",
        "resting",
    )

    def __init__(self, charge: Charge, most: int) -> None:
        self.charge = charge
        self.limit = charge.limit
        self.most = most
        self.left = 0
        self.lease: Granted | None = None
        self.idle = self.leasing = self.resting = False
        self._newer: Granted | None = None  # the lease of the last `_newer_units` of what is left
        self._newer_units = 0
        self._low = 0
        self._back: dict[int, tuple[Granted, int]] = {}  # units that were not used, by since when they were leased
        self._more = 0  # units that were used beyond what was reserved
        self._per_second = charge.limit / charge.window
        self._used = 0.0
        self._at = 0.0

    @property
    def wants(self) -> bool:
        return self.left <= self._low

    @property
    def unused(self) -> int:
        return self.left + sum([units for _, units in self._back.values()])

    def parts(self, size: int) -> list[int]:
        return [size]

    def add(self, lease: Granted) -> None:
        units = lease.charges[0].cost
        if not self.left:
            self.lease, self._newer, self._newer_units = lease, None, 0
        else:
            self._newer = self._newer or lease
            self._newer_units += units
        self.left += units
        self._low = self.left // 4

    def take(self, cost: int, now: float) -> int:
        self.left = left = self.left - cost
        self.idle = False
        if self._newer_units >= left and self._newer is not None:
            self.lease, self._newer = self._newer, None
            self._newer_units = 0
        used = self._used - (now - self._at) * self._per_second
        self._used = used = cost + (used if used > 0.0 else 0.0)
        self._at = now
        return ceil(used)

    def settle(self, reserved: int, cost: int, lease: Granted | None) -> bool:
        unused = reserved - cost
        if not unused:
            return False
        self._used -= unused
        if unused < 0:
            self._more -= unused
            return True
        assert lease is not None
        _, before = self._back.get(lease.since, (lease, 0))
        self._back[lease.since] = lease, before + unused
        return True

    def tell(self) -> Iterator[tuple[Granted | None, int]]:
        back, self._back = self._back, {}
        for lease, units in back.values():  # as of the oldest of them, the counter would return less of all
            yield self._part(lease, units), 0
        while self.left > self.most and self.lease is not None:
            of_this = min(self.left - self._newer_units, self.left - self.most)
            yield self._part(self.lease, of_this), 0
            self.left -= of_this
            if self._newer is not None and self.left == self._newer_units:
                self.lease, self._newer, self._newer_units = self._newer, None, 0
        if self._more:
            yield None, self._more
            self._more = 0

    def drop(self) -> Iterator[tuple[Granted | None, int]]:
        self.most = 0
        return self.tell()

    def saw(self, used: int, now: float) -> None:
        self._used, self._at = float(used - self.unused), now

    def used(self, now: float) -> int:
        return max(0, ceil(self._used - (now - self._at) * self._per_second))

    def _part(self, lease: Granted, units: int) -> Granted:
        """As if these units had been reserved by themselves: at the same time."""
        charges = (structs.replace(lease.charges[0], cost=units),)
        return Granted(lease.id, charges, lease.used, lease.since, lease.expires_at)


class HeldBlock:
    """Of a gauge or a budget. What is leased is what is left, what requests have reserved, and what of it is spent."""

    __slots__ = (
        "_leases",
        "_low",
        "_spent",
        "_untold",
        "_used",
        "charge",
        "idle",
        "lease",
        "leasing",
        "left",
        "limit",
        "most",
        "resting",
    )

    def __init__(self, charge: Charge, most: int) -> None:
        self.charge = charge
        self.limit = charge.limit
        self.most = most
        self.left = 0
        self.lease: Granted | None = None
        self.idle = self.leasing = self.resting = False
        self._leases: list[Granted] = []
        self._spent = 0  # of what is leased
        self._untold = 0  # nano-dollars that were spent and that the shared counter does not know of
        self._low = 0
        self._used = 0

    @property
    def wants(self) -> bool:
        return self.left <= self._low

    @property
    def unused(self) -> int:
        """What is spent and told is counted twice until its lease is settled."""
        return self.left + max(0, self._spent - self._untold)

    def parts(self, size: int) -> list[int]:
        return pieces(size)

    def add(self, lease: Granted) -> None:
        self._leases.append(lease)
        self._leases.sort(key=_size, reverse=True)
        self.left += _size(lease)
        self._low = self.left // 4

    def take(self, cost: int, now: float) -> int:
        self.left -= cost
        self.idle = False
        self._used = used = self._used + cost
        return used

    def settle(self, reserved: int, cost: int, lease: Granted | None) -> bool:
        if self.charge.kind is Kind.GAUGE:
            self._used -= reserved
            self.left += reserved
            return self.left > self.most
        self._used += cost - reserved
        self._untold += cost
        spent = min(cost, reserved)
        self._spent += spent
        self.left += reserved - spent
        return True

    def tell(self) -> Iterator[tuple[Granted | None, int]]:
        for lease in self._leases.copy():
            size = _size(lease)
            if size <= self._spent + max(0, self.left - self.most):
                self._leases.remove(lease)
                spent = min(size, self._spent)
                self._spent -= spent
                self.left -= size - spent
                untold, self._untold = self._untold, 0
                yield lease, untold
        if self._untold:
            untold, self._untold = self._untold, 0
            yield None, untold

    def drop(self) -> Iterator[tuple[Granted | None, int]]:
        self.most = self.left = 0
        self._spent = sum(map(_size, self._leases))  # so that none is kept
        return self.tell()

    def saw(self, used: int, now: float) -> None:
        self._used = used - self.unused

    def used(self, now: float) -> int:
        return self._used


def _size(lease: Granted) -> int:
    return lease.charges[0].cost


_: tuple[type[Block], ...] = (RateBlock, HeldBlock)
