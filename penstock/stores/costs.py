"""Asks the ledger what was used and what it cost: sums by whatever it records, of which the rest is never left out.

Whole days and hours come from the rollups where they know enough, everything else from the rows, in one statement: what
is asked for twice in different words adds up to the same nano-dollar. What was let go is said to be missing, not
counted as nothing. Days of another zone are those of UTC, less the hours that are of another day there, which are added
to that one: a twelfth of the hours has to be read for a zone two hours off, and not all of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache, partial
from itertools import pairwise
from typing import Final

import msgspec

from penstock.stores.entry import Entry
from penstock.stores.ledger import ESTIMATED, HOUR_MICROS, IN_ROLLUPS, LEDGER, REQUEST, Attribute, By, Query, Total
from penstock.stores.sql import BIGINT, Database, Value, names

DAY_MICROS: Final = 24 * HOUR_MICROS
ALWAYS: Final = 2**53  # microseconds: the end of all times in the ledger, in 2255
MOST_GROUPS: Final = 10_000
ROWS_AT_ONCE: Final = 2_000

HOUR: Final = "hour"
DAY: Final = "day"
_MICROS: Final = {HOUR: HOUR_MICROS, DAY: DAY_MICROS}
_SUMS: Final = Total.__struct_fields__[1:]
_OF_ONE_ROW: Final = {
    "requests": f"case when {REQUEST} then 1 else 0 end",
    "errors": f"case when {REQUEST} and error is not null then 1 else 0 end",
    "unpriced": "case when cost_nanos is null then 1 else 0 end",
    "estimated": f"case when {ESTIMATED} then 1 else 0 end",
    "cost_nanos": "coalesce(cost_nanos, 0)",
}
_NUMBERED: Final = (Attribute.HOUR, Attribute.STATUS)
_AT: Final = Entry.__struct_fields__.index("at_micros")
_EPOCH: Final = date(1970, 1, 1)
_UTC_DAY: Final = "(hour / 24)"
_BOTH_WAYS: Final = "(select 1 as sign union all select -1) as both_ways"

Answered = str | int | None


class Question(msgspec.Struct, frozen=True):
    """Which requests, and by what. A range holds its beginning and not its end, in microseconds since 1970.

    A request counts when for every attribute of `only` it has one of the values. HOUR is the Unix second that an hour
    of UTC begins with; DAY is a date such as 2027-01-31, which begins at midnight in `zone`.
    """

    by: tuple[By, ...] = ()
    since_micros: int = 0
    until_micros: int = ALWAYS
    only: tuple[tuple[By, tuple[Answered, ...]], ...] = ()
    zone: tzinfo = UTC
    most: int = MOST_GROUPS

    def __post_init__(self) -> None:
        """Raises ValueError for what no ledger can be asked."""
        if not 0 <= self.since_micros <= self.until_micros <= ALWAYS:
            raise ValueError("a range in the ledger begins in 1970 or later and does not end before it begins")
        if self.most < 1 or len(set(self.by)) < len(self.by):
            raise ValueError("sums are by different attributes, and at least of one group")


class Answer(msgspec.Struct, frozen=True):
    """`groups`, the most expensive first, and `others` together are `total`; `others` stands for `n_others` groups."""

    groups: tuple[Total, ...]
    n_others: int
    others: Total
    total: Total
    missing: tuple[tuple[int, int], ...]  # ranges of time whose rows were let go and were needed; microseconds


class Costs:
    """Every method raises `StoreFailed`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sums(self, question: Question) -> Answer:
        parts = list(_parts(question))
        values: list[Value] = []
        source = " union all ".join(self._select(part, question, values) for part in parts)
        columns = [f"g{n}" for n in range(len(question.by))]
        sums = ", ".join(f"cast(coalesce(sum({name}), 0) as bigint) as {name}" for name in _SUMS)
        listed = ", ".join([*columns, *_SUMS])
        # A group whose hours have all been moved to other days is none.
        having = " having sum(there) <> 0" if any(part.moved for part in parts) else ""
        values.append(question.most)
        # The groups, and one row that is the total and knows how many groups there are: from the same moment.
        rows = await self._database.read(
            f"with source as ({source}),"
            f" grouped as (select {', '.join([*columns, sums])} from source"
            + (f" group by {', '.join(columns)}{having})" if columns else ")")
            + f" select * from (select cast(0 as bigint) as n, {listed} from grouped order by cost_nanos desc,"
            f" requests desc{''.join(f', {name} is null, {name}' for name in columns)} limit ${len(values)}) as dearest"
            f" union all select {', '.join(['count(*)', *['null' for _ in columns], sums])} from grouped",
            values,
        )
        *groups, total = sorted(rows, key=lambda row: row[0])
        n_groups = total[0] if columns else 0
        found = sorted((_total(row, question.by) for row in groups), key=_order) if columns else []
        whole = Total((), *total[1 + len(columns) :])
        others = Total((), *(of_all - sum(some) for of_all, *some in zip(*map(_numbers, (whole, *found)), strict=True)))
        # Asked last: what is let go meanwhile is said to be missing although it may have been counted.
        kept = await self.kept_since()
        missing = [(part.since, min(part.until, kept)) for part in parts if not part.unit and part.since < kept]
        return Answer(tuple(found), n_groups - len(found), others, whole, tuple(missing))

    async def newest(self, question: Question, most_rows: int) -> Question:
        """The same about as many of its last hours as have `most_rows`, or about the last one in which there is any.
        About all of its time where rollups, or the index of users, know what is asked for."""
        rows = next((part for part in _parts(question) if not part.unit), None)
        of_users = any(_names_users(attribute, wanted) for attribute, wanted in question.only)
        if rows is None or rows.until - rows.since < HOUR_MICROS or of_users:
            return question
        hours = await self._database.read(
            "select hour, cast(sum(requests) as bigint) from ledger_hours where hour >= $1 and hour < $2"
            " group by hour order by hour desc",
            (rows.since // HOUR_MICROS, -(-rows.until // HOUR_MICROS)),
        )
        since = rows.since
        for (_, n), (before, more) in pairwise(hours):
            most_rows -= n
            if most_rows < more:
                since = max(since, (before + 1) * HOUR_MICROS)
                break
        return msgspec.structs.replace(question, since_micros=since)

    async def kept_since(self) -> int:
        """From when on all rows are there, in microseconds; 0 when none was ever let go."""
        return int((await self._database.read("select since_micros from ledger_kept"))[0][0])

    async def rows(self, question: Question) -> AsyncIterator[list[Entry]]:
        """The requests themselves, oldest first, in pages; `by` and `most` mean nothing here. Not from one moment."""
        after: tuple[int, str] | None = None
        while True:
            query = Query(self._database.dialect, rollups=False)
            query.bound("at_micros", question.since_micros, question.until_micros)
            _only(query, question, ROWS)
            if after is not None:
                query.also(f"(at_micros, request_id) > ({query.bind(after[0])}, {query.bind(after[1])})")
            sql = f"select {names(LEDGER)} from ledger where {query.where} order by at_micros, request_id"
            page = await self._database.read(f"{sql} limit {query.bind(ROWS_AT_ONCE)}", query.values)
            if page:
                yield [Entry(*row) for row in page]
            if len(page) < ROWS_AT_ONCE:
                return
            after = page[-1][_AT], page[-1][0]

    def _select(self, part: _Part, question: Question, values: list[Value]) -> str:
        query = Query(self._database.dialect, part.unit == HOUR, values)
        groups = [f"{_column(query, by, question, part)} as g{n}" for n, by in enumerate(question.by)]
        if part.unit:
            query.bound(part.unit, part.since // _MICROS[part.unit], part.until // _MICROS[part.unit])
        else:
            query.bound("at_micros", part.since, part.until)
        _only(query, question, part)
        table, there = f"ledger_{part.unit}s", "hours" if part.unit == DAY else "1"
        sums = list(_SUMS)
        if part.moved:
            table, there = f"({self._moved(part, question, values)}) as moved cross join {_BOTH_WAYS}", "sign * hours"
            sums = [f"sign * {name} as {name}" for name in _SUMS]
        elif not part.unit:
            table, sums = "ledger", [f"{_OF_ONE_ROW.get(name, name)} as {name}" for name in _SUMS]
        return f"select {', '.join([*groups, *sums, f'{there} as there'])} from {table} where {query.where}"

    def _moved(self, part: _Part, question: Question, values: list[Value]) -> str:
        """The hours that are of another day than in UTC, with no more attributes than are asked for."""
        query = Query(self._database.dialect, True, values)
        query.bound(HOUR, part.since // HOUR_MICROS, part.until // HOUR_MICROS)
        query.also(f"{_local_day(query, question, HOUR)} <> {_UTC_DAY}")
        asked = {*question.by, *(attribute for attribute, _ in question.only)} - {Attribute.DAY}
        columns = ", ".join([HOUR, *sorted(map(str, asked))])
        sums = ", ".join(f"sum({name}) as {name}" for name in _SUMS)
        return f"select {columns}, count(*) as hours, {sums} from ledger_hours where {query.where} group by {columns}"


class _Part(msgspec.Struct, frozen=True):
    """A range of time, and which rollups are asked about it: those by DAY or by HOUR, or ("") the rows.

    `moved`: only hours whose day is another one than that of UTC, and each twice: added to its own, taken from UTC's.
    """

    since: int
    until: int
    unit: str
    moved: bool = False


ROWS: Final = _Part(0, ALWAYS, "")


def _parts(question: Question) -> Iterator[_Part]:
    """One or more, without overlap."""
    since, until = question.since_micros, question.until_micros
    asked = {*question.by, *(attribute for attribute, _ in question.only)}
    begin, end = -(-since // HOUR_MICROS) * HOUR_MICROS, until // HOUR_MICROS * HOUR_MICROS
    whole_hours = Attribute.DAY not in asked or all(
        moment % HOUR_MICROS == 0 == offset % HOUR_MICROS for moment, offset in _offsets(question.zone, since, until)
    )
    if begin >= end or not whole_hours or not IN_ROLLUPS.issuperset(asked):
        yield _Part(since, until, "")
        return
    if since < begin:
        yield _Part(since, begin, "")
    yield from _whole(begin, end, question, asked)
    if end < until:
        yield _Part(end, until, "")


def _whole(begin: int, end: int, question: Question, asked: set[By]) -> Iterator[_Part]:
    """Of whole hours: those that are whole days of UTC by the day, where nobody asks for less."""
    first, last = -(-begin // DAY_MICROS) * DAY_MICROS, end // DAY_MICROS * DAY_MICROS
    if first >= last or Attribute.HOUR in asked:
        yield _Part(begin, end, HOUR)
        return
    if begin < first:
        yield _Part(begin, first, HOUR)
    yield _Part(first, last, DAY)
    if Attribute.DAY in asked and any(offset for _, offset in _offsets(question.zone, begin, end)):
        yield _Part(first, last, HOUR, moved=True)
    if last < end:
        yield _Part(last, end, HOUR)


def _only(query: Query, question: Question, part: _Part) -> None:
    for attribute, wanted in question.only:
        if not wanted:
            query.also("1 = 0")
            continue
        if _names_users(attribute, wanted):
            query.also("user_hash <> ''")  # which is what the index of users is for
        some = [_stored(attribute, value) for value in wanted if value is not None]
        column = _column(query, attribute, question, part)
        either = [f"{column} is null"] if None in wanted else []
        if some:
            either.append(f"{column} in ({', '.join(query.bind(value) for value in some)})")
        query.also(f"({' or '.join(either)})")


def _names_users(attribute: By, wanted: tuple[Answered, ...]) -> bool:
    return attribute is Attribute.USER and "" not in wanted and None not in wanted


def _column(query: Query, by: By, question: Question, part: _Part) -> str:
    if by is not Attribute.DAY:
        return query.column(by)
    if part.unit == DAY:
        return DAY
    day = _local_day(query, question, part.unit)
    return f"(case when sign = 1 then {day} else {_UTC_DAY} end)" if part.moved else day


def _local_day(query: Query, question: Question, rollups: str) -> str:
    """Of an hour, or of a row."""
    # A day more and a day less: integers are divided towards zero, and a zone may be behind 1970.
    unit, moment = (HOUR_MICROS, HOUR) if rollups else (1, "at_micros")
    pieces = _offsets(question.zone, question.since_micros, question.until_micros)

    def bind(micros: int) -> str:
        return f"cast({query.bind(micros // unit)} as {BIGINT})"

    offset = bind(pieces[-1][1])
    if len(pieces) > 1:
        cases = (f"when {moment} < {bind(until)} then {bind(offset)}" for (_, offset), (until, _) in pairwise(pieces))
        offset = f"case {' '.join(cases)} else {offset} end"
    day = DAY_MICROS // unit
    return f"(({moment} + ({offset}) + {day}) / {day} - 1)"


@lru_cache(64)
def _offsets(zone: tzinfo, since: int, until: int) -> tuple[tuple[int, int], ...]:
    """From when on local time is how far ahead of UTC, in microseconds; the first moment is 0."""

    def ahead(second: int) -> int:
        offset = datetime.fromtimestamp(second, zone).utcoffset()
        assert offset is not None
        return offset // timedelta(microseconds=1)

    def changed(offset: int, second: int) -> bool:
        return ahead(second) == offset

    first, last = since // 1_000_000, -(-until // 1_000_000)
    pieces = [(0, ahead(first))]
    if zone is UTC:
        return tuple(pieces)
    for day in range(first, last, 86_400):  # nobody changes their clocks twice in a day
        following = min(day + 86_400, last)
        offset = ahead(following)
        if offset != pieces[-1][1]:
            change = bisect_left(range(day, following), True, key=partial(changed, offset))
            pieces.append(((day + change) * 1_000_000, offset))
    return tuple(pieces)


def _stored(by: By, value: str | int) -> Value:
    """Raises ValueError for a value that the attribute never has."""
    if by is Attribute.DAY:
        return (date.fromisoformat(str(value)) - _EPOCH).days
    return int(value) if by in _NUMBERED else str(value)


def _total(row: Sequence[Answered], by: tuple[By, ...]) -> Total:
    group = (
        (_EPOCH + timedelta(days=int(value))).isoformat() if attribute is Attribute.DAY and value is not None else value
        for attribute, value in zip(by, row[1:], strict=False)
    )
    return Total(tuple(group), *row[1 + len(by) :])  # type: ignore[arg-type]  # a row's types are those of its columns


def _numbers(total: Total) -> tuple[int, ...]:
    return tuple(getattr(total, name) for name in _SUMS)


def _order(total: Total) -> tuple[object, ...]:
    return -total.cost_nanos, -total.requests, tuple((value is None, value) for value in total.group)
