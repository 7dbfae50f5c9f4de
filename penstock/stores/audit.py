"""Who changed what and when: an append-only log in which every row has the digest of all before it.

A row that is changed, left out, put in or moved breaks the chain from there on. Rows cut off at the end do not, nor
does a chain that is written anew as a whole: whoever fears that keeps a head (`Verified`) elsewhere and shows it later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from penstock.stores.base import StoreFailed
from penstock.stores.receipts import plain
from penstock.stores.sql import Database, Statement

MAX_RECORD_BYTES: Final = 64 * 1024
MOST_EVENTS: Final = 1_000
GENESIS: Final = "0" * 64  # what the first row follows
_TRIES: Final = 100  # by then a hundred others were faster, one after another


class Event(msgspec.Struct, frozen=True):
    """One administrative act."""

    seq: int  # from 1, without gaps
    at_micros: int  # since the Unix epoch
    actor: str
    action: str  # such as `key.revoke`
    target: str
    detail: dict[str, Any]  # JSON


class Verified(msgspec.Struct, frozen=True):
    """All `seq` rows are what they were when they were written; `head` is the digest of the last one."""

    seq: int
    head: str


class Broken(msgspec.Struct, frozen=True):
    """`seq` is the first row that is not what it was, or not there."""

    seq: int
    why: str


class AuditLog(Protocol):
    """Every method raises `StoreFailed`."""

    async def append(
        self, at_micros: int, actor: str, action: str, target: str, detail: Mapping[str, Any] | None = None
    ) -> Event:
        """Raises ValueError for a `detail` that is no JSON or, with all else, has more than `MAX_RECORD_BYTES`."""
        ...

    async def act(
        self,
        along: Sequence[Statement],
        at_micros: int,
        actor: str,
        action: str,
        target: str,
        detail: Mapping[str, Any] | None = None,
    ) -> Event | None:
        """`append`, in one transaction with the statements of the act, each of which must change a row: None when one
        did not, and then nothing was done and nothing is told of it.
        """
        ...

    async def events(self, after: int = 0, most: int = MOST_EVENTS) -> list[Event]:
        """In their order; `after` is the `seq` of the last one of the page before."""
        ...

    async def verify(self, seen: Verified | None = None) -> Verified | Broken:
        """Read all of it. `seen` is what an earlier call said: it must still be true of the rows it spoke of."""
        ...


_INSERT: Final = "insert into audit (seq, previous, record, hash) values ($1, $2, $3, $4) on conflict do nothing"
_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Event)


def digest(previous: str, record: str) -> str:
    """SHA-256, in hex, of the digest before it and of the canonical JSON of the event: sorted names, no spaces."""
    return hashlib.sha256(f"{previous}{record}".encode()).hexdigest()


class SqlAuditLog:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self, at_micros: int, actor: str, action: str, target: str, detail: Mapping[str, Any] | None = None
    ) -> Event:
        event = await self.act((), at_micros, actor, action, target, detail)
        assert event is not None, "there is nothing beside it that could be refused"
        return event

    async def act(
        self,
        along: Sequence[Statement],
        at_micros: int,
        actor: str,
        action: str,
        target: str,
        detail: Mapping[str, Any] | None = None,
    ) -> Event | None:
        for _ in range(_TRIES):
            last = await self._database.read("select seq, hash from audit order by seq desc limit 1")
            seq, previous = last[0] if last else (0, GENESIS)
            event = Event(seq + 1, at_micros, plain(actor), plain(action), plain(target), dict(detail or {}))
            record = _canonical(event)
            row = (event.seq, previous, record, digest(previous, record))
            refused = await self._database.write_all([*along, Statement(_INSERT, row)])
            if refused is None:
                return event
            if refused < len(along):
                return None
            # Somebody else has taken this number since.
        raise StoreFailed(f"the audit log is written to by so many that {_TRIES} tries were not enough")

    async def events(self, after: int = 0, most: int = MOST_EVENTS) -> list[Event]:
        rows = await self._database.read("select record from audit where seq > $1 order by seq limit $2", (after, most))
        try:
            return [_decoder.decode(record) for (record,) in rows]
        except msgspec.DecodeError:
            raise StoreFailed("a row of the audit log is not what was written; `verify` says which") from None

    async def verify(self, seen: Verified | None = None) -> Verified | Broken:
        sql = "select seq, previous, record, hash from audit where seq > $1 order by seq limit $2"
        last, head = 0, GENESIS
        while rows := await self._database.read(sql, (last, MOST_EVENTS)):
            for seq, previous, record, hash in rows:
                if seq != last + 1:
                    return Broken(last + 1, "it is missing")
                if previous != head:
                    return Broken(seq, "it does not follow the row before it")
                if digest(previous, record) != hash:
                    return Broken(seq, "its content is not what its digest was made of")
                if seen is not None and seq == seen.seq and hash != seen.head:
                    return Broken(seq, "the log up to here is another one than was seen before")
                last, head = seq, hash
        if seen is not None and last < seen.seq:
            return Broken(last + 1, "it was seen before and is gone, with all that followed")
        return Verified(last, head)


def _canonical(event: Event) -> str:
    try:
        record = _encoder.encode(event)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"the detail of an audited act must be JSON: {error}") from None
    if len(record) > MAX_RECORD_BYTES:
        raise ValueError(f"an audited act has at most {MAX_RECORD_BYTES:,} bytes of JSON, not {len(record):,}")
    return record.decode()


_: type[AuditLog] = SqlAuditLog
