"""What has been spent of a budget that this gateway meets for the first time: since a start, or in a new month.

The ledger knows, once everything that waits in this host's spools is in it. While it is away, what waits there is all
that is known: it is taken for what was spent, and looked up again as soon as the ledger is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Final

from penstock.core.clock import Clock
from penstock.limits.charges import Charge
from penstock.limits.limit import Counted
from penstock.limits.periods import window
from penstock.stores.base import Counters, CountersUnavailable, StoreFailed
from penstock.stores.bookkeeper import Bookkeeper
from penstock.stores.entry import Entry
from penstock.stores.ledger import Attribute, Ledger, Span

WITHIN: Final = 2.0  # seconds for the ledger to answer, while a request waits
AWAY: Final = 5.0  # seconds in which it is not asked again
MOST_UNSURE: Final = 100_000  # budgets

ATTRIBUTES: Final = {
    "org": Attribute.ORG,
    "team": Attribute.TEAM,
    "key": Attribute.KEY,
    "user": Attribute.USER,
    "model": Attribute.MODEL,
}


def span_of(counted: Counted, zone: tzinfo) -> Span:
    """The rows of the ledger that a budget's counter counts."""
    limit = counted.limit
    assert limit.period is not None, f"{limit.name} is no budget"
    since, until = window(limit.period, counted.window, zone)
    whom = dict.fromkeys((*limit.per, *(who for who, _ in limit.where)))
    only = tuple((ATTRIBUTES[who], str(getattr(counted.account, who))) for who in whom)
    return Span(only, round(since * 1e6), round(until * 1e6))


def spent_by(entries: Iterable[Entry], span: Span) -> int:
    """Nano-dollars: what `Ledger.spent` would say of these rows alone."""
    return sum(
        entry.cost_nanos or 0
        for entry in entries
        if span.since_micros <= entry.at_micros < span.until_micros
        and all(getattr(entry, attribute) == value for attribute, value in span.only)
    )


class Spent:
    """Of the budgets of one worker. `span` says what a counter counts, None for one that nobody has any more."""

    def __init__(
        self, ledger: Ledger, bookkeeper: Bookkeeper, spools: Path, clock: Clock, span: Callable[[str], Span | None]
    ) -> None:
        self._ledger, self._bookkeeper, self._spools = ledger, bookkeeper, spools
        self._clock, self._span = clock, span
        self._away_until = 0.0
        self._unsure: dict[str, Charge] = {}

    @property
    def unsure(self) -> int:
        """Budgets of which the ledger has to be asked as soon as it answers."""
        return len(self._unsure)

    async def of(self, charges: Iterable[Charge]) -> dict[str, int]:
        """Nano-dollars by counter. Raises `CountersUnavailable` when the ledger is away and one of them is strict."""
        charges = tuple(charges)
        if self._clock.now() >= self._away_until:
            try:
                async with asyncio.timeout(WITHIN):
                    return await self._ask(charges)
            except (StoreFailed, OSError):  # of which a TimeoutError is one
                self._away_until = self._clock.now() + AWAY
        if any(charge.strict for charge in charges):
            raise CountersUnavailable("the ledger, which knows what was spent, is away")
        self.doubt(charges)
        return await asyncio.to_thread(_sums, self._bookkeeper.rows_waiting(self._spools), self._spans(charges))

    def doubt(self, charges: Sequence[Charge]) -> None:
        """More may have been spent of these budgets than their counters know."""
        for charge in charges[: MOST_UNSURE - len(self._unsure)]:
            self._unsure[charge.counter] = charge

    async def make_sure(self, counters: Counters) -> None:
        """Tell the counters what the ledger says of those budgets of which it could not be asked, or that are doubted.

        Raises `StoreFailed`, OSError and `CountersUnavailable`: then there is something left to be told.
        """
        unsure = list(self._unsure.values())
        if unsure:
            for counter, nanos in (await self._ask(unsure)).items():
                await counters.seed(counter, nanos, self._unsure[counter].window)
                del self._unsure[counter]

    async def _ask(self, charges: Iterable[Charge]) -> dict[str, int]:
        spans = self._spans(charges)
        await self._bookkeeper.hasten(self._spools)
        nanos = await self._ledger.spent([span for span in spans.values() if span is not None])
        known = iter(nanos)
        return {counter: 0 if span is None else next(known) for counter, span in spans.items()}

    def _spans(self, charges: Iterable[Charge]) -> dict[str, Span | None]:
        return {charge.counter: self._span(charge.counter) for charge in charges}


def _sums(rows: Iterable[list[Entry]], spans: Mapping[str, Span | None]) -> dict[str, int]:
    spent = dict.fromkeys(spans, 0)
    try:
        for entries in rows:
            for counter, span in spans.items():
                if span is not None:
                    spent[counter] += spent_by(entries, span)
    except OSError:  # the disk does not answer either: what has been read is what is known
        return spent
    return spent
