"""Makes the ledger agree with what a provider says of each request: by rows that are added, because none is changed.

What a request cost is the sum of its row and of its corrections; each is the difference to what was known before it.
That is how the estimates of requests whose worker was killed become what the provider asks for, and nothing that the
provider never got is paid for. The same report again changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from penstock.pricing.cost import cost_of
from penstock.pricing.prices import Price
from penstock.pricing.usage_report import TOKENS, Reported
from penstock.stores.begun import GATEWAY_CRASHED
from penstock.stores.entry import CORRECTION, Entry
from penstock.stores.ledger import LEDGER, Attribute, By, Query, Span, SqlLedger
from penstock.stores.sql import Database, names

AT_ONCE: Final = 500  # requests
MOST_NAMED: Final = 100  # of those that something is said about

PriceOf = Callable[[Entry], Price | None]
"""What the request of this row is paid for by, where a report says what was used and not what it costs."""


class Corrected(msgspec.Struct, frozen=True):
    """What came of a report. `nanos` is what the ledger's total has grown by, or would have."""

    agreed: int  # requests of which the ledger said the same
    corrected: int
    nanos: int
    unknown: int  # requests that the ledger does not have (any more)
    some_unknown: tuple[str, ...]  # the first of them
    unpriced: int  # requests of which the report and we know what was used and not what it costs; left alone
    never_got: int  # of the corrected: requests that crashed before any provider got them


class _Booked(msgspec.Struct):
    """What the ledger says of one request by now."""

    row: Entry
    tokens: list[int]
    nanos: int
    corrections: int


class Corrections:
    """Every method raises `StoreFailed`; what was done until then is right, and the rest is done by doing it again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ledger = SqlLedger(database)

    async def apply(
        self,
        reported: Iterable[Reported],
        *,
        price_of: PriceOf = lambda row: None,
        complete: Span | None = None,
        write: bool = True,
    ) -> Corrected:
        """`reported` names no request twice: reports of several providers are read as one.

        `complete` says of which requests of the ledger the report knows all: those that crashed, and that it does not
        name, cost nothing. Without `write` nothing is done but told.
        """
        told = {one.request_id: one for one in reported}
        counts = {"agreed": 0, "unknown": 0, "unpriced": 0, "never_got": 0}
        unknown: list[str] = []
        n = nanos = 0

        async def add(rows: list[Entry]) -> None:
            nonlocal n, nanos
            if rows and write:
                await self._ledger.append(rows)
            n += len(rows)
            nanos += sum(row.cost_nanos or 0 for row in rows)

        ids = list(told)
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            booked = await self._booked(some)
            rows = []
            for id in some:
                if id not in booked:
                    counts["unknown"] += 1
                    unknown += [id] * (len(unknown) < MOST_NAMED)
                    continue
                asked = _asked(told[id], booked[id].row, price_of)
                if asked is None:
                    counts["unpriced"] += 1
                elif (row := _correction(booked[id], told[id].tokens, asked)) is None:
                    counts["agreed"] += 1
                else:
                    rows.append(row)
            await add(rows)
        if complete is not None:
            async for crashed in self._crashed(complete):
                booked = await self._booked([row.request_id for row in crashed if row.request_id not in told])
                rows = []
                for one in booked.values():
                    if not one.corrections and (row := _correction(one, (0,) * len(TOKENS), 0)) is not None:
                        rows.append(row)
                counts["never_got"] += len(rows)
                await add(rows)
        return Corrected(corrected=n, nanos=nanos, some_unknown=tuple(unknown), **counts)

    async def _booked(self, ids: Sequence[str]) -> dict[str, _Booked]:
        booked = {
            row.request_id: _Booked(row, _tokens(row), row.cost_nanos or 0, 0) for row in await self._rows(list(ids))
        }
        number, left = 1, {_id(id, 1): id for id in booked}
        while left:
            found = await self._rows(list(left))
            number += 1
            again = {}
            for row in found:
                id = left[row.request_id]
                one = booked[id]
                one.tokens = [had + more for had, more in zip(one.tokens, _tokens(row), strict=True)]
                one.nanos += row.cost_nanos or 0
                one.corrections += 1
                again[_id(id, number)] = id
            left = again
        return booked

    async def _rows(self, ids: Sequence[str]) -> list[Entry]:
        if not ids:
            return []
        query = Query(self._database.dialect, rollups=False)
        query.also(f"request_id in ({', '.join(query.bind(id) for id in ids)})")
        rows = await self._database.read(f"select {names(LEDGER)} from ledger where {query.where}", query.values)
        return [Entry(*row) for row in rows]

    async def _crashed(self, span: Span) -> AsyncIterator[list[Entry]]:
        only: dict[By, str | int | None] = {**dict(span.only), Attribute.ERROR: GATEWAY_CRASHED}
        after: Entry | None = None
        while page := await self._ledger.entries(span.since_micros, span.until_micros, only, after, AT_ONCE):
            yield [row for row in page if row.usage_source != CORRECTION]
            after = page[-1]


def _id(request_id: str, number: int) -> str:
    """Of the correction with this number, from 1: who corrects the same at the same time writes the same row."""
    return f"{request_id}+correction" if number == 1 else f"{request_id}+correction-{number}"


def _asked(told: Reported, row: Entry, price_of: PriceOf) -> int | None:
    if told.nanos is not None:
        return told.nanos
    return cost_of(told.usage, price_of(row), row.at_micros / 1e6).nanos


def _correction(booked: _Booked, tokens: Sequence[int] | None, nanos: int) -> Entry | None:
    """The row that is missing; None when none is."""
    more = [0] * len(TOKENS)
    if tokens is not None:
        more = [is_now - was for is_now, was in zip(tokens, booked.tokens, strict=True)]
    if not any(more) and nanos == booked.nanos:
        return None
    return replace(
        booked.row,
        request_id=_id(booked.row.request_id, booked.corrections + 1),
        usage_source=CORRECTION,
        cost_nanos=nanos - booked.nanos,
        duration_micros=0,
        **dict(zip(TOKENS, more, strict=True)),
    )


def _tokens(row: Entry) -> list[int]:
    return [getattr(row, name) for name in TOKENS]
