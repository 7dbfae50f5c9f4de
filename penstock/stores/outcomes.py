"""Keeps the receipts of single requests in a SQLite file, as long as there is room: by number, by age and by bytes.

Nothing waits for it: `offer` puts them down, `run` writes what is there once a second in one transaction, and what
comes faster than the disk takes it is dropped, and counted. A search looks at so many rows at most and says where it
stopped, so that no question keeps anybody waiting, however many rows there are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from penstock.core.clock import Clock
from penstock.core.outcome import Outcome
from penstock.stores.base import StoreFailed
from penstock.stores.migrate import check_schema, migrate
from penstock.stores.outcome_terms import Term, condition
from penstock.stores.sql import BIGINT, TEXT, Row, Statement, Table, Value
from penstock.stores.sqlite_database import SqliteDatabase
from penstock.wire.trace_context import traced_as

MIGRATIONS: Final = "outcomes"
MOST_WAITING: Final = 20_000  # outcomes in memory, some 20 MB
AT_ONCE: Final = 2_000  # rows of one transaction
EVERY: Final = 1.0  # seconds between writes
TIDY_EVERY: Final = 30.0  # seconds between looks for what is too much
LOOKED_AT: Final = 20_000  # rows of one search, some 50 ms
MOST_STEPS: Final = 1_500  # of golden signals, of each length
MAX_TEXT: Final = 512  # characters of a column; the whole is in the body

_BYTEA: Final = "blob"
_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Outcome)

TABLE: Final = Table(
    "outcomes",
    (
        ("request_id", TEXT), ("at_micros", BIGINT), ("why", TEXT), ("endpoint", TEXT), ("model", TEXT), ("org", TEXT),
        ("team", TEXT), ("key_id", TEXT), ("feature", TEXT), ("session", TEXT), ("priority", TEXT),
        ("deployment", TEXT), ("replica", TEXT), ("status", BIGINT), ("error", TEXT), ("finish_reason", TEXT),
        ("arm", TEXT), ("trace_id", TEXT), ("ttft_micros", BIGINT), ("duration_micros", BIGINT),
        ("queued_micros", BIGINT), ("prompt_tokens", BIGINT), ("completion_tokens", BIGINT), ("n_attempts", BIGINT),
        ("cost_nanos", BIGINT), ("body", _BYTEA),
    ),
)  # fmt: skip


class Retention(msgspec.Struct, frozen=True):
    """What is kept, whichever is reached first; the oldest goes."""

    rows: int = 500_000
    seconds: float = 14 * 86_400.0
    bytes: int = 1 << 30


class Kept(msgspec.Struct, frozen=True, gc=False):
    """`why` it is kept: a reason of `telemetry.sampling`; `seq` grows with each that is written."""

    outcome: Outcome
    why: str
    seq: int = 0


class Question(msgspec.Struct, frozen=True):
    """Times are Unix seconds; a range holds its beginning and not its end. `before` is `Page.next` of the last page."""

    terms: tuple[Term, ...] = ()
    since: float = 0.0
    until: float | None = None
    before: str = ""
    most: int = 50


class Page(msgspec.Struct, frozen=True):
    """Newest first. With `next` there may be more, even when `items` are few or none: so far it was looked."""

    items: tuple[Kept, ...]
    next: str | None = None


class Outcomes:
    """One process writes, others may read. Questions raise `StoreFailed`, and ValueError for a cursor that is none."""

    def __init__(self, database: SqliteDatabase, retention: Retention, clock: Clock) -> None:
        self._database, self._retention, self._clock = database, retention, clock
        self._waiting: deque[Kept] = deque()
        self._writing: Sequence[Kept] = ()
        self._signals: deque[tuple[int, int, bytes]] = deque(maxlen=MOST_WAITING)
        self.written = 0
        self.dropped = 0  # there was no room, or the disk would not take them

    @classmethod
    async def open(cls, path: Path, clock: Clock, retention: Retention | None = None) -> Outcomes:
        """Makes the file where there is none. Raises `StoreFailed`."""
        database = SqliteDatabase(path)
        try:
            await migrate(database, clock.wall(), folder=MIGRATIONS)
        except StoreFailed:
            await database.close()
            raise
        return cls(database, retention or Retention(), clock)

    @classmethod
    async def look(cls, path: Path, clock: Clock) -> Outcomes:
        """To read what another process writes. Raises `StoreFailed`."""
        database = SqliteDatabase(path)
        try:
            await check_schema(database, folder=MIGRATIONS)
        except StoreFailed:
            await database.close()
            raise
        return cls(database, Retention(), clock)

    # --- writing ---

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def offer(self, some: Sequence[Kept]) -> None:
        """Never raises, never waits."""
        room = MOST_WAITING - len(self._waiting)
        self._waiting.extend(some[:room])
        self.dropped += max(0, len(some) - room)

    def offer_signals(self, step: int, at: int, body: bytes) -> None:
        """A step of `step` seconds that began at `at` is over."""
        self._signals.append((step, at, body))

    async def run(self, tell: Callable[[str], None]) -> None:
        """Until it is cancelled. `tell` hears once of a disk that does not take them, and of its recovery."""
        unwell, tidied_at = False, -TIDY_EVERY
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.write()
                if self._clock.now() - tidied_at >= TIDY_EVERY:
                    tidied_at = self._clock.now()
                    await self.tidy()
            except StoreFailed as error:
                if not unwell:
                    tell(f"Traces of requests are not kept ({error}); requests go on.")
                unwell = True
                continue
            if unwell:
                unwell = False
                tell("Traces of requests are kept again.")

    async def write(self) -> None:
        """All that waits. Raises `StoreFailed`; a batch that failed is dropped, and counted."""
        while self._waiting:
            batch = self._writing = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            rows = [row for one in batch if (row := _row(one)) is not None]
            self.dropped += len(batch) - len(rows)
            try:
                self.written += await self._database.insert(TABLE, rows)
            except StoreFailed:
                self.dropped += len(rows)
                raise
            finally:
                self._writing = ()
        if self._signals:
            signals = [self._signals.popleft() for _ in range(len(self._signals))]
            sql = "insert into signals (step, at, body) values ($1, $2, $3) on conflict do nothing"
            await self._database.write([Statement(sql, one) for one in signals])

    async def tidy(self) -> int:
        """Let go of what is too much or too old. How many rows."""
        keep, gone = self._retention, 0
        oldest = int((self._clock.wall() - keep.seconds) * 1e6)
        while True:
            rows = await self._database.read("select count(*), coalesce(min(at_micros), 0) from outcomes")
            n, first = rows[0]
            too_many = n - keep.rows
            used = await self._used()
            if used > keep.bytes and n:
                too_many = max(too_many, int(n * (1.0 - 0.95 * keep.bytes / used)))
            if too_many <= 0 and (not n or first >= oldest):
                break
            where = "at_micros < $1 or $2 > 0"
            some = f"select seq from outcomes where {where} order by at_micros limit $3"
            sql = f"delete from outcomes where seq in ({some})"
            at_once = AT_ONCE if too_many <= 0 else min(AT_ONCE, too_many)
            done = (await self._database.write([Statement(sql, (oldest, max(0, too_many), at_once))]))[0]
            gone += done
            if not done:
                break
        sql = "delete from signals where at < $1 - step * $2"
        await self._database.write([Statement(sql, (int(self._clock.wall()), MOST_STEPS))])
        return gone

    async def close(self) -> None:
        """After what waits is written, if it can be."""
        try:
            await self.write()
        except StoreFailed:
            self.dropped += len(self._waiting)
        finally:
            await self._database.close()

    # --- reading ---

    async def page(self, question: Question) -> Page:
        micros, last_id = _cursor(question.before)
        if question.until is not None and int(question.until * 1e6) <= micros:
            micros, last_id = int(question.until * 1e6), ""
        since = int(max(0.0, question.since) * 1e6)
        floor = await self._border(micros, last_id) if question.terms else (0, "")
        values: list[Value] = [micros, last_id, *floor, since]
        where = ["(at_micros, request_id) < ($1, $2)", "(at_micros, request_id) >= ($3, $4)", "at_micros >= $5"]
        where += _conditions(question.terms, values)
        values.append(question.most + 1)
        rows = await self._database.read(
            f"select body, why, seq, at_micros, request_id from outcomes where {' and '.join(where)}"
            f" order by at_micros desc, request_id desc limit ${len(values)}",
            values,
        )
        items = tuple(map(_kept, rows[: question.most]))
        if len(rows) > question.most:
            at, id = rows[question.most - 1][3:5]
            return Page(items, f"{at}-{id}")
        return Page(items, f"{floor[0]}-{floor[1]}" if floor[0] > since else None)

    async def since(self, seq: int, terms: Sequence[Term], most: int = 1_000) -> list[Kept]:
        """Those written after that one, in the order of writing."""
        values: list[Value] = [seq]
        where = ["seq > $1", *_conditions(terms, values)]
        values.append(most)
        sql = f"select body, why, seq from outcomes where {' and '.join(where)} order by seq limit ${len(values)}"
        return list(map(_kept, await self._database.read(sql, values)))

    async def last_seq(self) -> int:
        return int((await self._database.read("select coalesce(max(seq), 0) from outcomes"))[0][0])

    async def find(self, id: str) -> Kept | None:
        """By the id of the request, or of its trace; also one that waits to be written, whose `seq` is 0."""
        for one in chain(reversed(self._waiting), self._writing):
            outcome = one.outcome
            if id and id in (outcome.request_id, traced_as(outcome)):
                return one
        for column in ("request_id", "trace_id"):
            sql = f"select body, why, seq from outcomes where {column} = $1 order by at_micros desc limit 1"
            rows = await self._database.read(sql, (id,)) if id else []
            if rows:
                return _kept(rows[0])
        return None

    async def around(self, one: Outcome) -> tuple[str | None, str | None]:
        """The requests before and after it, of the same session."""
        if not one.session:
            return None, None
        values = (one.session, int(one.received_at * 1e6), one.request_id, one.tenant, one.key_id)
        found = []
        for sign, order in (("<", "desc"), (">", "asc")):
            rows = await self._database.read(
                f"select request_id from outcomes where session = $1 and session <> '' and org = $4 and key_id = $5"
                f" and (at_micros, request_id) {sign} ($2, $3)"
                f" order by at_micros {order}, request_id {order} limit 1",
                values,
            )
            found.append(rows[0][0] if rows else None)
        return found[0], found[1]

    async def kept_since(self) -> float | None:
        """Unix seconds of the oldest; None: there is none."""
        rows = await self._database.read("select min(at_micros) from outcomes")
        return None if rows[0][0] is None else rows[0][0] / 1e6

    async def signals(self, step: int, since: int) -> list[tuple[int, bytes]]:
        """The steps of that many seconds from `since` (Unix seconds) on, in order."""
        rows = await self._database.read(
            "select at, body from signals where step = $1 and at >= $2 order by at", (step, since)
        )
        return [(row[0], row[1]) for row in rows]

    async def _border(self, micros: int, last_id: str) -> tuple[int, str]:
        """Where a search from there has to stop: so many rows further down."""
        rows = await self._database.read(
            "select at_micros, request_id from outcomes where (at_micros, request_id) < ($1, $2)"
            " order by at_micros desc, request_id desc limit 1 offset $3",
            (micros, last_id, LOOKED_AT),
        )
        return (rows[0][0], rows[0][1]) if rows else (0, "")

    async def _used(self) -> int:
        """Bytes of the file that hold something."""
        rows = await self._database.read(
            "select (c.page_count - f.freelist_count) * s.page_size"
            " from pragma_page_count as c, pragma_freelist_count as f, pragma_page_size as s"
        )
        return int(rows[0][0])


def _conditions(terms: Sequence[Term], values: list[Value]) -> list[str]:
    """Of SQL; what they compare with is added to `values`."""
    found = []
    for term in terms:
        sql, bound = condition(term)
        for value in bound:
            values.append(value)
            sql = sql.replace("?", f"${len(values)}", 1)
        found.append(f"({sql})")
    return found


def _row(kept: Kept) -> Row | None:
    """None: a text of it is none, and no column can hold it."""
    one = kept.outcome
    try:
        body = _encode(one)
    except UnicodeEncodeError:  # a lone surrogate
        return None
    first = one.first_token_after
    texts = (one.request_id, kept.why, one.endpoint, one.model, one.tenant, one.team, one.key_id, one.feature)
    more = (one.session, str(one.priority), one.deployment, answered_by(one))
    id, why, endpoint, model, org, team, key_id, feature = map(_text, texts)
    session, priority, deployment, replica = map(_text, more)
    return (
        id, int(one.received_at * 1e6), why, endpoint, model, org, team, key_id, feature, session, priority, deployment,
        replica, one.status, None if one.error is None else _text(one.error),
        None if one.finish_reason is None else _text(one.finish_reason), _text(one.arm),
        _text(traced_as(one)),
        None if first is None else int(first * 1e6), int(one.duration * 1e6), int(one.queued_for * 1e6),
        one.usage.prompt_tokens, one.usage.completion_tokens, len(one.attempts), one.cost_nanos, body,
    )  # fmt: skip


def answered_by(outcome: Outcome) -> str:
    """The replica that answered, or failed last; "": none was asked."""
    last = max(outcome.attempts, key=lambda one: (one.ended == "ok", one.ended_after), default=None)
    return "" if last is None else last.replica


def _text(text: str) -> str:
    return text[:MAX_TEXT]


def _kept(row: Row) -> Kept:
    return Kept(_decoder.decode(row[0]), row[1], row[2])


def _cursor(text: str) -> tuple[int, str]:
    """Raises ValueError."""
    if not text:
        return 2**62, ""
    micros, dash, id = text.partition("-")
    if not dash or not micros.isdecimal() or not micros.isascii() or len(micros) > 18 or "\0" in id:
        raise ValueError("`before` is the `next` of a page")
    return int(micros), id
