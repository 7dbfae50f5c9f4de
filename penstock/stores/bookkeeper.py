"""Brings the rows of a ledger from the requests to the database, by way of the local disk: none lost, none twice.

`record` writes a row into the spool and returns; no request ever waits for a database. A loop reads the spool, appends
to the ledger in batches and acknowledges what arrived. A database that is slow or gone only makes the spool longer, and
a process that is killed leaves its spool to the next one, and with it the requests that were in flight. Rows that are
sent again are there already and stay one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from random import Random
from typing import Final, Protocol

import msgspec

from penstock.core.clock import Clock
from penstock.stores.base import StoreFailed, StoreRefused
from penstock.stores.batch import Batch
from penstock.stores.begun import Begun, row_of
from penstock.stores.entry import Entry
from penstock.stores.flight import NAME, NONE, Flight
from penstock.stores.spool import Spool

BATCH_ROWS: Final = 500  # one fsync for all of them; more would only make a repetition longer
BATCH_SECONDS: Final = 0.05  # a row waits at most so long for others
PATIENCE: Final = 15.0  # seconds for one batch; then the database counts as gone
MAX_UNSPOOLED: Final = 10_000  # rows in memory, when the disk is full
BACKOFF_BASE: Final = 0.1
BACKOFF_CAP: Final = 10.0

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


class Appends(Protocol):
    async def append(self, entries: Sequence[Entry]) -> int: ...


class Bookkeeper:
    """For one process. Counts what happened since it began; `lost` should stay 0 and deserves an alarm."""

    def __init__(
        self,
        ledger: Appends,
        spool: Spool,
        clock: Clock,
        rng: Random,
        *,
        batch_rows: int = BATCH_ROWS,
        batch_seconds: float = BATCH_SECONDS,
        patience: float = PATIENCE,
        max_unspooled: int = MAX_UNSPOOLED,
        on_crashed: Callable[[Entry], object] | None = None,
    ) -> None:
        """Takes over what a dead process had in flight in this spool's folder. Raises `StoreFailed`.

        `on_crashed` is told of the rows of such requests, which are in a spool by then; perhaps twice.
        """
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._rng = rng
        self._batch_rows = batch_rows
        self._batch_seconds = batch_seconds
        self._patience = patience
        self._max_unspooled = max_unspooled
        self._on_crashed = on_crashed
        self._unspooled: deque[tuple[Entry, int]] = deque()  # with the slots that keep an estimate of them
        self._oldest_at = clock.now()
        self._news = asyncio.Event()
        self._full = asyncio.Event()
        self.written = 0  # rows that were new in the ledger
        self.repeated = 0  # rows that were there already
        self.failures = 0  # batches that did not arrive, or nobody knows
        self.set_aside = 0  # rows that no database will take; they are in the spool's `set-aside.jsonl`
        self.lost = 0  # rows for which there was no room anywhere
        self.crashed = 0  # rows of requests that ended with their process
        self._flight = Flight(spool.folder)
        self._take_over(spool, self._flight)

    @property
    def in_flight(self) -> int:
        """Requests that would have a row if this process died now."""
        return self._flight.in_use

    @property
    def unguarded(self) -> int:
        """Requests that would have had none, because there was no slot for them."""
        return self._flight.refused

    @property
    def waiting(self) -> int:
        """Rows that are not in the ledger yet."""
        return self._spool.waiting + len(self._unspooled)

    def behind(self, now: float) -> float:
        """For how many seconds something has been waiting without a batch arriving; `now` is the clock's."""
        return now - self._oldest_at if self.waiting else 0.0

    def begin(self, begun: Begun) -> int:
        """A request is about to be sent to its first upstream. What it answers is for `record`."""
        return self._flight.begin(begun)

    def record(self, entry: Entry, slot: int = NONE) -> bool:
        """Take a row; from now on it survives this process. False: it is lost, because disk and memory are full.

        When the disk alone is full, memory keeps it, and it does not survive: then what `begin` took does, in `slot`.
        """
        if not self.waiting:
            self._oldest_at = self._clock.now()
        if not self._spool.append(_encoder.encode(entry)):
            if len(self._unspooled) >= self._max_unspooled:
                self.lost += 1
                return False
            self._unspooled.append((entry, slot))
        else:
            self._flight.end(slot)
        self._news.set()
        if self.waiting >= self._batch_rows:
            self._full.set()
        return True

    async def run(self) -> None:
        """Until it is cancelled, which may be at any time. Begins with what an earlier process left."""
        failures = 0
        while True:
            await self._until_due()
            try:
                await self.write_batch()
                failures = 0
            except (StoreFailed, OSError):
                failures += 1
                with suppress(OSError):  # a disk that fails is told by what `record` answers
                    await asyncio.to_thread(self._spool.sync)
                await asyncio.sleep(min(BACKOFF_CAP, BACKOFF_BASE * 2.0**failures) * self._rng.uniform(0.5, 1.0))

    async def write_batch(self) -> int:
        """Bring the oldest rows to the ledger, and say how many. Raises `StoreFailed` and OSError; nothing is lost."""
        n = await self._write_unspooled() if self._unspooled else await self._write_spooled(self._spool)
        self._oldest_at = self._clock.now()
        return n

    async def adopt(self, parent: Path) -> int:
        """Bring what dead processes left in their spools under `parent` to the ledger, and say how many rows.

        Raises `StoreFailed` and OSError; they are then left as they were. For now and then.
        """
        n = 0
        self._take_over(self._spool, self._flight)  # if the disk was full before
        with ExitStack() as adopted:
            spools = await asyncio.to_thread(Spool.left_behind, parent, NAME)
            for spool in spools:
                adopted.callback(spool.close)
            for spool in spools:
                flight = Flight(spool.folder)
                adopted.callback(flight.close)
                self._take_over(spool, flight)
                while spool.waiting:
                    n += await self._write_spooled(spool)
        return n

    async def hasten(self, parent: Path) -> None:
        """Have in the ledger, when this returns, every row that waited in a spool under `parent` when it was called.

        Living processes keep theirs and will find them there. Raises `StoreFailed` and OSError.
        """
        waiting = self.rows_waiting(parent)
        while (entries := await asyncio.to_thread(next, waiting, None)) is not None:
            await self._hasten(entries)

    def rows_waiting(self, parent: Path) -> Iterator[list[Entry]]:
        """Those rows, a segment at a time; perhaps with some that have just arrived in the ledger.

        To be called here; what it answers may be gone through in another thread, and raises OSError.
        """
        spooled = map(_readable, Spool.waiting_under(parent))
        return chain([[entry for entry, _ in self._unspooled]], spooled)

    async def _hasten(self, entries: Sequence[Entry]) -> None:
        for n in range(0, len(entries), self._batch_rows):
            some = entries[n : n + self._batch_rows]
            try:
                self.written += await self._ledger.append(some)
            except StoreRefused:
                for one in some:
                    with suppress(StoreRefused):  # whoever has it will set it aside
                        self.written += await self._ledger.append([one])

    async def close(self, within: float) -> int:
        """Bring what waits to the ledger, for at most `within` seconds. How many rows are left, safe in the spool.

        After `run` has been cancelled.
        """
        with suppress(StoreFailed, OSError, TimeoutError):
            async with asyncio.timeout(within):
                while self.waiting:
                    await self.write_batch()
        with suppress(OSError):
            await asyncio.to_thread(self._spool.sync)
        left = self.waiting
        self.let_go()
        return left

    def let_go(self) -> None:
        """At once; what waits and what is in flight is left for the next process. Again is harmless."""
        self._flight.close()
        self._spool.close()

    async def _until_due(self) -> None:
        if not self.waiting:
            self._news.clear()
            await self._news.wait()
        left = self._oldest_at + self._batch_seconds - self._clock.now()
        if self.waiting < self._batch_rows and left > 0:
            self._full.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._full.wait()

    async def _write_unspooled(self) -> int:
        entries = [self._unspooled[n][0] for n in range(min(len(self._unspooled), self._batch_rows))]
        await self._append(entries)
        for _ in entries:
            self._flight.end(self._unspooled.popleft()[1])
        return len(entries)

    async def _write_spooled(self, spool: Spool) -> int:
        batch, entries, unreadable = await asyncio.to_thread(_read, spool, self._batch_rows)
        await self._append(entries)
        for record, error in unreadable:
            self._set_aside(record, error)
        spool.acknowledge(batch)
        return len(batch.records)

    async def _append(self, entries: Sequence[Entry]) -> None:
        """A row that the database will never take must not keep the others from it: it is looked for, by halves."""
        if not entries:
            return
        try:
            async with asyncio.timeout(self._patience):
                new = await self._ledger.append(entries)
        except StoreRefused as error:
            if len(entries) == 1:
                self._set_aside(_encoder.encode(entries[0]), error)
                return
            half = len(entries) // 2
            await self._append(entries[:half])
            await self._append(entries[half:])
            return
        except TimeoutError:
            self.failures += 1
            raise StoreFailed(f"the database took more than {self._patience:g} s for {len(entries)} rows") from None
        except StoreFailed:
            self.failures += 1
            raise
        self.written += new
        self.repeated += len(entries) - new

    def _take_over(self, spool: Spool, flight: Flight) -> None:
        """Rows for what was in flight, behind those that are in the spool: a request that has one there keeps that."""

        def take(record: bytes) -> bool:
            row = row_of(record)
            taken = spool.append(record if row is None else _encoder.encode(row))  # unreadable: it will be set aside
            if taken and row is not None and self._on_crashed is not None:
                self._on_crashed(row)
            return taken

        self.crashed += flight.hand_over(take)

    def _set_aside(self, record: bytes, error: Exception) -> None:
        self._spool.set_aside(msgspec.json.encode({"why": str(error), "record": record}))
        self.set_aside += 1


def _readable(records: list[bytes]) -> list[Entry]:
    """Without what a version that knows more has written: whoever has it will set it aside."""
    entries = []
    for record in records:
        with suppress(msgspec.DecodeError):
            entries.append(_decoder.decode(record))
    return entries


def _read(spool: Spool, most: int) -> tuple[Batch, list[Entry], list[tuple[bytes, Exception]]]:
    batch = spool.read(most)
    entries: list[Entry] = []
    unreadable: list[tuple[bytes, Exception]] = []
    for record in batch.records:
        try:
            entries.append(_decoder.decode(record))
        except msgspec.DecodeError as error:  # written by a version that knows more
            unreadable.append((record, error))
    return batch, entries, unreadable
