"""What one worker has in flight, kept where the next process finds it: a request that ends with its worker has a row.

A request's row of the ledger is written when it ends. A worker that is killed in the middle of an answer would leave
none, although its provider has got the request and asks to be paid. So each request has a slot in a mapped file from
before its first upstream is called until its own row is in the spool. The kernel keeps what was written there when the
process dies, however it dies; not when the machine does.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from penstock.stores.base import StoreFailed
from penstock.stores.begun import Begun

NAME: Final = "requests.flight"  # beside the spool, whose lock is that of both
MOST: Final = 1 << 15  # slots: 20,000 requests in flight are what a worker takes, and drains
FIRST: Final = 64  # slots to begin with; then twice as many whenever there are too few
SLOT: Final = 3072  # bytes; a request without tags fits whatever its texts are
NONE: Final = -1  # no slot

_WORD: Final = 8  # bytes, which the processor writes at once
_WORDS: Final = SLOT // _WORD
_ROOM: Final = SLOT - _WORD
_LENGTH: Final = 0xFFFF_FFFF


_encoder = msgspec.msgpack.Encoder()


class Flight:
    """Of one worker: of whoever has the spool in the same folder, and only of one thread.

    A slot is a word and a record. The word, length and checksum, is written after the record and is 0 while the slot is
    free: a process that dies on its way leaves a slot that is free, or one whose record is whole. `refused` counts
    requests that went without a slot, because all were taken or the disk was full.
    """

    def __init__(self, folder: Path, *, most: int = MOST) -> None:
        """What a process left that died here is kept until it is handed over. Raises `StoreFailed`."""
        self._path = folder / NAME
        self.refused = 0
        self._closed = False
        try:
            file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                n_slots = os.fstat(file).st_size // SLOT
                self._most = max(most, n_slots)
                os.ftruncate(file, self._most * SLOT)  # so long that all of it can be mapped once and for all,
                self._file = mmap.mmap(file, self._most * SLOT)
                os.ftruncate(file, n_slots * SLOT)  # and then only as long as there is a disk under it
                self._words = memoryview(self._file).cast("Q")
                self._left = [slot for slot in range(n_slots) if self._record(slot)]
                self._ready = max(self._left, default=-1) + 1  # slots there are
                os.ftruncate(file, self._ready * SLOT)
            finally:
                os.close(file)
        except OSError as error:
            raise StoreFailed(f"{self._path} cannot be used for what is in flight: {error}") from None
        left = set(self._left)
        self._free = [slot for slot in range(self._ready) if slot not in left]
        for slot in self._free:
            self._words[slot * _WORDS] = 0  # what a loss of power spoiled

    @property
    def in_use(self) -> int:
        return self._ready - len(self._free)

    def begin(self, begun: Begun) -> int:
        """From now on the request has a row, come what may; the slot is for `end`, and `NONE` when there was none."""
        try:
            record = _encoder.encode(begun)
        except (UnicodeEncodeError, OverflowError):  # a lone surrogate, a count of tokens that is none
            record = _cut(begun)
        if len(record) > _ROOM:
            record = _cut(begun)
        if not self._free and not self._grow():
            self.refused += 1
            return NONE
        slot = self._free.pop()
        at = slot * SLOT + _WORD
        self._file[at : at + len(record)] = record
        self._words[slot * _WORDS] = _word(record)
        return slot

    def end(self, slot: int) -> None:
        """The request's own row is in the spool."""
        if slot != NONE and not self._closed:
            assert self._words[slot * _WORDS], f"slot {slot} was ended before"
            self._words[slot * _WORDS] = 0
            self._free.append(slot)

    def hand_over(self, take: Callable[[bytes], bool]) -> int:
        """Offer each record that a dead process left, for `row_of`, and end those that are taken. How many were.

        Its own rows have to go before, from the spool: of two rows of a request the ledger keeps the first.
        """
        kept = []
        for slot in self._left:
            if take(self._record(slot)):
                self.end(slot)
            else:
                kept.append(slot)
        taken = len(self._left) - len(kept)
        self._left = kept
        return taken

    def close(self) -> None:
        """What is in flight is left for the next process. Before the spool is closed; again is harmless."""
        if self._closed:
            return
        if not self.in_use:
            self._path.unlink(missing_ok=True)
        self._closed = True
        self._free = []
        self._words.release()
        self._file.close()

    def _record(self, slot: int) -> bytes:
        """Empty when nothing has begun there, or it is torn."""
        word = self._words[slot * _WORDS]
        length = word & _LENGTH
        if not 0 < length <= _ROOM:
            return b""
        at = slot * SLOT + _WORD
        record = self._file[at : at + length]
        return record if _word(record) == word else b""

    def _grow(self) -> bool:
        """A page that the disk has no room for would end this process when it is written to: ask for it beforehand."""
        more = min(max(self._ready, FIRST), self._most - self._ready)
        if self._closed or not more:
            return False
        try:
            file = os.open(self._path, os.O_RDWR)
            try:
                os.posix_fallocate(file, self._ready * SLOT, more * SLOT)
            finally:
                os.close(file)
        except OSError:
            return False
        self._free += range(self._ready + more - 1, self._ready - 1, -1)  # the last of them is taken first
        self._ready += more
        return True


def _word(record: bytes) -> int:
    """Never 0, because no record is empty."""
    return len(record) | zlib.crc32(record) << 32


def _cut(begun: Begun) -> bytes:
    """In the form in which it fits: as its row will be, and without tags."""
    row = begun.entry()
    return _encoder.encode(
        Begun(
            row.request_id,
            begun.at,
            row.org,
            row.team,
            row.key_id,
            row.user_hash,
            row.feature,
            row.session,
            (),
            row.model,
            row.deployment,
            row.endpoint,
            row.input_tokens,
            row.output_tokens,
            row.cost_nanos,
            row.price_version,
        )
    )
