"""The ledger: every request once, who it was for and what it cost. Sums of it are asked of `stores.costs`.

Rows are inserted and never changed, so that a batch may be sent again whenever nobody knows whether it arrived. What
was spent is read from the hourly rollups as far as they know it: hundreds of rows, not millions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from penstock.stores.entry import CORRECTION, Entry
from penstock.stores.sql import BIGINT, TEXT, Database, Dialect, Statement, Table, Value

HOUR_MICROS: Final = 3_600_000_000
MOST_ENTRIES: Final = 1_000
AT_ONCE: Final = 5_000  # rows deleted in one transaction: writers wait for no more than that
HOURS_AT_ONCE: Final = 24
SPANS_AT_ONCE: Final = 50


class Attribute(StrEnum):
    """What the ledger can be asked by. An hour of UTC is the Unix second that it begins with; days are for `Costs`."""

    HOUR = "hour"
    DAY = "day"
    ORG = "org"
    TEAM = "team"
    KEY = "key_id"
    USER = "user_hash"
    FEATURE = "feature"
    SESSION = "session"
    MODEL = "model"
    DEPLOYMENT = "deployment"
    REPLICA = "replica"
    ENDPOINT = "endpoint"
    STATUS = "status"
    ERROR = "error"
    CACHE = "cache"
    USAGE_SOURCE = "usage_source"
    PRICE_VERSION = "price_version"


class Tag(msgspec.Struct, frozen=True):
    """One of the free tags, by its name. Empty for requests that have it without a value, None for those without it."""

    name: str


By = Attribute | Tag

IN_ROLLUPS: Final = frozenset(
    {
        Attribute.HOUR,
        Attribute.DAY,
        Attribute.ORG,
        Attribute.TEAM,
        Attribute.KEY,
        Attribute.FEATURE,
        Attribute.MODEL,
        Attribute.DEPLOYMENT,
        Attribute.ENDPOINT,
        Attribute.CACHE,
    }
)


class Total(msgspec.Struct, frozen=True):
    """Sums over the requests of one group. `cost_nanos` leaves out the `unpriced`, whose cost nobody knows; the tokens
    of the `estimated` were not counted to the end by whoever answered."""

    group: tuple[str | int | None, ...]  # a value for each attribute that was asked for
    requests: int
    errors: int
    unpriced: int
    estimated: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nanos: int
    duration_micros: int

    @property
    def priced(self) -> bool:
        """Whether `cost_nanos` says anything: not when all there is has no price. A correction is one."""
        return self.unpriced < self.requests or not self.requests or self.cost_nanos != 0


class Span(msgspec.Struct, frozen=True):
    """Requests for which all of `only` is true, from a moment on and before another, in microseconds."""

    only: tuple[tuple[Attribute, str], ...]
    since_micros: int
    until_micros: int


class Ledger(Protocol):
    """Times are microseconds since the Unix epoch; a range holds its beginning and not its end.

    Every method raises `StoreFailed`; `append` may then be repeated, and `StoreRefused` says that it must not.
    """

    async def append(self, entries: Sequence[Entry]) -> int:
        """All of them, leaving alone those whose request is there already. How many were new."""
        ...

    async def entries(
        self,
        since_micros: int,
        until_micros: int,
        only: Mapping[By, str | int | None] | None = None,
        after: Entry | None = None,
        most: int = MOST_ENTRIES,
    ) -> list[Entry]:
        """The rows themselves, oldest first; `after` is the last one of the page before."""
        ...

    async def spent(self, spans: Sequence[Span]) -> list[int]:
        """Nano-dollars of each. What has no price adds nothing."""
        ...

    async def forget_user(self, user_hash: str) -> int:
        """Take user, session and tags out of the rows of this user; what it cost stays counted. How many rows.

        Rows that still wait in a spool are not reached: repeat it when they have arrived.
        """
        ...

    async def let_go(self, before_micros: int) -> int:
        """Delete the rows of all whole hours before this, keeping their rollups. How many.

        Rows from that time that arrive later are left out, or they would be counted in the rollups twice.
        """
        ...

    async def let_go_hours(self, before_micros: int) -> int:
        """Delete the rollups of hours before this, as far as their rows have been let go. How many."""
        ...

    async def kept_since(self) -> int:
        """From when on all rows are there; 0 when none was ever let go."""
        ...

    async def derive_hours(self, since_micros: int, until_micros: int) -> None:
        """Make the rollups of these hours anew from their rows, as far as those are kept. Others may go on writing."""
        ...

    async def disagreeing_hours(self, since_micros: int, until_micros: int) -> list[int]:
        """Beginnings of hours, in microseconds, whose rollups are not what their rows say. There should be none."""
        ...


_SUMS: Final = Total.__struct_fields__[5:]
# The same words are in the migrations: what is a request, and was estimated, is counted where it is written.
ESTIMATED: Final = "usage_source in ('provider_partial', 'tokenizer', 'estimate')"
REQUEST: Final = f"usage_source <> '{CORRECTION}'"
_NUMBERS: Final = frozenset({"at_micros", "status", "duration_micros", *_SUMS})

# Rows from a time whose rows were let go have been counted.
LEDGER: Final = Table(
    "ledger",
    tuple((name, BIGINT if name in _NUMBERS else TEXT) for name in Entry.__struct_fields__),
    where="at_micros >= (select since_micros from ledger_kept)",
)
# Hours that can be derived, of those asked for.
_KEPT: Final = "(select since_micros from ledger_kept) / 3600000000"
_IN_RANGE: Final = f"hour >= $1 and hour < $2 and hour >= {_KEPT}"
_COLUMNS: Final = ", ".join(name for name, _ in LEDGER.columns)


class SqlLedger:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[Entry]) -> int:
        return await self._database.insert(LEDGER, [msgspec.structs.astuple(entry) for entry in entries])

    async def entries(
        self,
        since_micros: int,
        until_micros: int,
        only: Mapping[By, str | int | None] | None = None,
        after: Entry | None = None,
        most: int = MOST_ENTRIES,
    ) -> list[Entry]:
        query = Query(self._database.dialect, rollups=False)
        query.bound("at_micros", since_micros, until_micros)
        for attribute, value in (only or {}).items():
            query.only(attribute, value)
        if after is not None:
            query.also(f"(at_micros, request_id) > ({query.bind(after.at_micros)}, {query.bind(after.request_id)})")
        sql = f"select {_COLUMNS} from ledger where {query.where} order by at_micros, request_id"
        rows = await self._database.read(f"{sql} limit {query.bind(most)}", query.values)
        return [Entry(*row) for row in rows]

    async def spent(self, spans: Sequence[Span]) -> list[int]:
        totals: list[int] = []
        for n in range(0, len(spans), SPANS_AT_ONCE):
            values: list[Value] = []
            sums = ", ".join(self._cost_of(span, values) for span in spans[n : n + SPANS_AT_ONCE])
            totals += (await self._database.read(f"select {sums}", values))[0]
        return totals

    def _cost_of(self, span: Span, values: list[Value]) -> str:
        """Whole hours from the rollups, where they tell; what is before and after those from the rows."""
        hours = -(-span.since_micros // HOUR_MICROS), span.until_micros // HOUR_MICROS
        ranges = [(span.since_micros, span.until_micros)]
        if hours[0] < hours[1] and IN_ROLLUPS.issuperset(attribute for attribute, _ in span.only):
            begin, end = hours[0] * HOUR_MICROS, hours[1] * HOUR_MICROS
            ranges = [(span.since_micros, begin), (begin, end), (end, span.until_micros)]
        parts = []
        for since, until in ranges:
            if since == until:
                continue
            rollups = len(ranges) > 1 and since == begin
            query = Query(self._database.dialect, rollups, values)
            if rollups:
                query.bound("hour", *hours)
            else:
                query.bound("at_micros", since, until)
            for attribute, value in span.only:
                query.only(attribute, value)
                if attribute is Attribute.USER:
                    query.also("user_hash <> ''")  # which is what the index of users is for
            table = "ledger_hours" if rollups else "ledger"
            parts.append(f"(select cast(coalesce(sum(cost_nanos), 0) as bigint) from {table} where {query.where})")
        return " + ".join(parts) or "0"

    async def forget_user(self, user_hash: str) -> int:
        if not user_hash:  # the rows of nobody in particular
            return 0
        sql = "update ledger set user_hash = '', session = '', tags = '{}' where user_hash = $1"
        return (await self._database.write([Statement(sql, (user_hash,))]))[0]

    async def let_go(self, before_micros: int) -> int:
        before = before_micros // HOUR_MICROS * HOUR_MICROS
        sql = "update ledger_kept set since_micros = $1 where since_micros < $1"
        # Nobody derives hours meanwhile: they would find the rows gone and the hours still theirs to derive.
        await self._database.write([Statement(sql, (before,))], alone_on="ledger_hours")
        sql = (
            "delete from ledger where request_id in"
            " (select request_id from ledger where at_micros < $1 order by at_micros limit $2)"
        )
        gone = 0
        while True:
            n = (await self._database.write([Statement(sql, (before, AT_ONCE))]))[0]
            gone += n
            if n < AT_ONCE:
                return gone

    async def let_go_hours(self, before_micros: int) -> int:
        sql = f"delete from ledger_hours where hour < $1 and hour < {_KEPT}"
        return (await self._database.write([Statement(sql, (before_micros // HOUR_MICROS,))]))[0]

    async def kept_since(self) -> int:
        rows = await self._database.read("select since_micros from ledger_kept")
        return int(rows[0][0])

    async def derive_hours(self, since_micros: int, until_micros: int) -> None:
        # Not from one end of the range to the other, which may be that of an int: only where there is something.
        hours = await self._database.read(
            f"select distinct hour from (select hour from ledger_hours where {_IN_RANGE} union all"
            f" select hour from ledger_by_hour where {_IN_RANGE}) as any_of_them order by hour",
            _hours(since_micros, until_micros),
        )
        for n in range(0, len(hours), HOURS_AT_ONCE):
            some = hours[n : n + HOURS_AT_ONCE]
            values = (some[0][0], some[-1][0] + 1)
            again = (
                Statement(f"delete from ledger_hours where {_IN_RANGE}", values),
                Statement(f"insert into ledger_hours select * from ledger_by_hour where {_IN_RANGE}", values),
            )
            await self._database.write(again, alone_on="ledger_hours")

    async def disagreeing_hours(self, since_micros: int, until_micros: int) -> list[int]:
        rows = await self._database.read(
            f"with derived as (select * from ledger_by_hour where {_IN_RANGE}),"
            f" stored as (select * from ledger_hours where {_IN_RANGE})"
            " select distinct hour from ("
            "select * from (select * from derived except select * from stored) as missing union all "
            "select * from (select * from stored except select * from derived) as surplus) as differing order by hour",
            _hours(since_micros, until_micros),
        )
        return [hour * HOUR_MICROS for (hour,) in rows]


def _hours(since_micros: int, until_micros: int) -> tuple[int, int]:
    """The hours that a range touches."""
    return since_micros // HOUR_MICROS, -(-until_micros // HOUR_MICROS)


class Query:
    """The conditions of a query and their values, in the words of one database."""

    def __init__(self, dialect: Dialect, rollups: bool, values: list[Value] | None = None) -> None:
        """`values` are those of a statement that this is a part of; they are added to."""
        self._dialect = dialect
        self._hour = "hour" if rollups else "at_micros / 3600000000"
        self._conditions: list[str] = []
        self.values: list[Value] = [] if values is None else values

    @property
    def where(self) -> str:
        return " and ".join(self._conditions)

    def bind(self, value: Value) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def also(self, condition: str) -> None:
        self._conditions.append(condition)

    def bound(self, column: str, since: int, until: int) -> None:
        self.also(f"{column} >= {self.bind(since)} and {column} < {self.bind(until)}")

    def only(self, by: By, value: str | int | None) -> None:
        column = self.column(by)
        self.also(f"{column} is null" if value is None else f"{column} = {self.bind(value)}")

    def column(self, by: By) -> str:
        if isinstance(by, Tag):
            name = self.bind(by.name)
            if self._dialect is Dialect.SQLITE:  # `->` would take a name such as a.b for a path
                return f"(select value from json_each(tags) where key = {name})"
            return f"(tags::jsonb ->> {name}::text)"
        if by is Attribute.HOUR:
            return f"({self._hour}) * 3600"
        assert by is not Attribute.DAY, "days have a time zone, of which `Costs` knows"
        return by.value


_: type[Ledger] = SqlLedger
