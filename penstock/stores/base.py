"""What the gateway asks of a store. Every implementation passes the same tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from penstock.limits.charges import Charge, Granted, Verdict


class StoreFailed(Exception):
    """The store cannot be read or written at the moment. The text is for the operator."""


class StoreAway(StoreFailed):
    """Nobody answers there. Whether what was asked for has been done is not known; later it may answer."""


class StoreRefused(StoreFailed):
    """Asked for something that it will never do: a value that no column can hold, a constraint. Not to be retried."""


class StoredResponse(msgspec.Struct, frozen=True):
    """One answer of the Responses API, kept so that it can be asked for again and built upon.

    `owner` is the caller's tenant or, without one, their key: nobody else can find it. Times are Unix seconds.
    """

    id: str
    owner: str
    body: bytes  # the response object
    input: bytes  # the input items, a JSON list
    created_at: float
    expires_at: float


class Responses(Protocol):
    """Bounded: the oldest are forgotten first. Every method may raise `StoreFailed`."""

    async def put(self, response: StoredResponse, most: int) -> None:
        """Keep it, in the place of one with the same id and owner, and at most `most` of all owners together."""
        ...

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        """None when there is none, when it has expired, and when it is somebody else's."""
        ...

    async def delete(self, owner: str, id: str) -> bool:
        """Whether there was one."""
        ...

    def close(self) -> None: ...


class CountersUnavailable(Exception):
    """The counters did not answer in time, or not at all. Nothing stays reserved."""


class Counters(Protocol):
    """Limits and budgets that several holders share; see `limits.book` for what each verb means.

    Reservations of a holder that is gone are let go of after `hold` seconds (an implementation's argument): long
    requests are kept alive by `tend`.
    """

    def reserve_now(self, id: str, charges: tuple[Charge, ...]) -> Verdict | None:
        """As `reserve`, as far as it can be decided here and now. None: it cannot, and nothing has happened."""
        ...

    async def reserve(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        """All of the charges or none of them; no counter twice, `id` never used before.

        Raises `CountersUnavailable`. Whoever is cancelled here, or sees it raise, has reserved nothing.
        """
        ...

    def settle(self, granted: Granted, costs: Sequence[int]) -> None:
        """What it really cost, a number for each charge. Once: again does nothing. Never suspends, and is not lost
        while the process lives; overshoots are told to `on_over`, an implementation's argument.
        """
        ...

    def spend(self, id: str, charges: Sequence[Charge]) -> None:
        """Count what was used without having been reserved (while the counters were out of reach). Likewise."""
        ...

    async def seed(self, counter: str, settled: int, window: int) -> None:
        """At least so many nano-dollars were spent on this budget, says the ledger; `window` seconds of its calendar
        window are left. Raises `CountersUnavailable`.
        """
        ...

    async def used(self, charges: tuple[Charge, ...]) -> tuple[int, ...]:
        """What the counters of these charges hold now, whatever their costs. Raises `CountersUnavailable`."""
        ...

    async def tend(self) -> None:
        """Keep what this holder has reserved, let go of what dead holders have, forget what nobody uses. To be called
        several times in each `hold`. Raises `CountersUnavailable`.
        """
        ...

    async def close(self) -> None:
        """What was settled is written out before, if that is possible within a few seconds."""
        ...
