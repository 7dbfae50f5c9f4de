"""Records that wait on the local disk: files that are appended to, one after another, and read by one reader.

What `append` took survives the process at once, because the kernel has it, and a loss of power after `sync`. What was
read and not acknowledged is read again by the next process, so whoever takes it must not mind having it twice. Each
record has its length and a checksum: one that a crash tore in two is found by them and cut.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.stores.base import StoreFailed
from penstock.stores.batch import Batch, Position

MAX_BYTES: Final = 1 << 30  # two million rows of a ledger
SEGMENT_BYTES: Final = 16 << 20
MAX_RECORD_BYTES: Final = 1 << 20
READ_BYTES: Final = 2 * MAX_RECORD_BYTES  # at a time; never less than one whole record

_MAGIC: Final = b"penstock spool 1\n"
_HEAD: Final = struct.Struct("<II")  # length of the record; CRC-32 of the length and the record
_CURSOR: Final = struct.Struct("<QQ")  # segment and offset of what comes after the last acknowledged record
_CHECKSUM: Final = struct.Struct("<I")


class SpoolTaken(StoreFailed):
    """Another process has it."""


class Spool:
    """Owned by one process, which holds a lock on it as long as it lives.

    `read` and `sync` may run in another thread than the rest. `torn_bytes` counts what was cut because no record could
    be read from it, `refused` what was not taken because the spool, or the disk, was full.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Reads what is there to its end. Raises `SpoolTaken`, and `StoreFailed` when it cannot be used."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._sizes: dict[int, int] = {}  # bytes of each segment, oldest first
        self._left: dict[int, int] = {}  # records of each segment that were not acknowledged
        self._bytes = 0  # of all segments
        self._unsynced: set[int] = set()
        self._done = Position(0, 0)
        self._file = -1  # the segment that is appended to, number `_next - 1`; below 0: none yet, or no more
        self.waiting = 0  # records
        self.torn_bytes = 0
        self.refused = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _open(folder / "lock")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._recover()
            except BaseException:
                os.close(self._lock)
                raise
        except BlockingIOError:
            raise SpoolTaken(f"{folder} is used by another process") from None
        except OSError as error:
            raise StoreFailed(f"{folder} cannot be used as a spool: {error}") from None

    @classmethod
    def claim(cls, parent: Path, *, max_bytes: int = MAX_BYTES) -> Spool:
        """The first of `parent/0`, `parent/1`, ... that no living process has, with what a dead one left in it."""
        number = 0
        while True:
            try:
                return cls(parent / str(number), max_bytes=max_bytes)
            except SpoolTaken:
                number += 1

    @property
    def folder(self) -> Path:
        return self._folder

    @classmethod
    def left_behind(cls, parent: Path, also: str = "") -> list[Spool]:
        """Those under `parent` that no living process has, with segments or a file named `also` in them. They are the
        caller's now.
        """
        found = []
        for folder in sorted(parent.iterdir()):
            if any(folder.glob("*.spool")) or (also and (folder / also).exists()):
                try:
                    found.append(cls(folder))
                except SpoolTaken:
                    continue
        return found

    @staticmethod
    def waiting_under(parent: Path) -> Iterator[list[bytes]]:
        """What was not acknowledged in any spool under `parent`, whoever has it, a segment at a time; perhaps with what
        was, a moment ago. Changes nothing. Raises OSError.
        """
        for folder in sorted(parent.iterdir()):
            for path in sorted(folder.glob("*.spool")):
                try:
                    done = _position((folder / "cursor").read_bytes())
                    with path.open("rb") as file:
                        number = int(path.stem, 16)
                        if number >= done.segment:
                            file.seek(done.offset if number == done.segment else len(_MAGIC))
                            yield _records(file.read())[0]
                except FileNotFoundError:
                    continue  # acknowledged meanwhile

    def append(self, record: bytes) -> bool:
        """Whether it was taken: not when it is closed, or full, or the disk is; and then nothing has changed."""
        assert 0 < len(record) <= MAX_RECORD_BYTES, len(record)
        data = _HEAD.pack(len(record), _checksum(record)) + record
        try:
            taken = self._lock >= 0 and self._room_for(len(data)) and self._write(data)
        except OSError:
            taken = False
        if not taken:
            self.refused += 1
            return False
        number = self._next - 1
        self._sizes[number] += len(data)
        self._bytes += len(data)
        self._left[number] += 1
        self._unsynced.add(number)
        self.waiting += 1
        return True

    def read(self, most: int) -> Batch:
        """The oldest that were not acknowledged, at most `most`; of one segment, so there may be more.

        An empty batch is to be acknowledged like any other: what the disk has spoiled is passed over by it. Raises
        OSError.
        """
        number, offset = self._first_unread()
        size = self._sizes.get(number, 0)
        if offset >= size:
            return Batch([], self._done)
        with self._path(number).open("rb") as file:
            file.seek(offset)
            data = file.read(min(size - offset, READ_BYTES))
        records, used = _records(data, most)
        return Batch(records, Position(number, offset + used if records else size))

    def acknowledge(self, batch: Batch) -> None:
        """Its records are safe elsewhere.

        Raises OSError; they are then read again by the next process, as after a crash.
        """
        if batch.end <= self._done:
            return
        number, offset = batch.end
        if not batch.records:
            self.torn_bytes += offset - self._first_unread().offset
        n = self._left[number] if offset == self._sizes[number] else len(batch.records)
        self._left[number] -= n
        self.waiting -= n
        self._done = batch.end
        cursor = _CURSOR.pack(number, offset)
        os.pwrite(self._cursor, cursor + _CHECKSUM.pack(zlib.crc32(cursor)), 0)
        self._delete_done()

    def sync(self) -> None:
        """Return when everything that was taken before is on the disk itself. Raises OSError."""
        for number in sorted(self._unsynced.copy()):
            self._unsynced.discard(number)  # first: what is appended from now on is for the next time
            try:
                file = os.open(self._path(number), os.O_RDONLY)
            except FileNotFoundError:
                continue  # acknowledged meanwhile
            try:
                os.fsync(file)
            except OSError:
                self._unsynced.add(number)
                raise
            finally:
                os.close(file)
        folder = os.open(self._folder, os.O_RDONLY)  # the names of new segments
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def set_aside(self, line: bytes) -> None:
        """Keep, in a file for people, what will never be taken by whom it is for. Raises OSError."""
        with (self._folder / "set-aside.jsonl").open("ab") as file:
            file.write(line + b"\n")

    def close(self) -> None:
        """Let go of it; what waits is kept for the next process. Again is harmless."""
        if self._lock < 0:
            return
        self._end_segment()
        self._delete_done()
        os.close(self._cursor)
        os.close(self._lock)
        self._lock = -1

    def _recover(self) -> None:
        for path in sorted(self._folder.glob("*.spool")):
            data = path.read_bytes()
            records, used = _records(data[len(_MAGIC) :]) if data.startswith(_MAGIC) else ([], -len(_MAGIC))
            whole = len(_MAGIC) + used
            if whole < len(data):
                self.torn_bytes += len(data) - whole
                os.truncate(path, whole)
            number = int(path.stem, 16)
            self._sizes[number], self._left[number] = whole, len(records)
        self._cursor = _open(self._folder / "cursor")
        self._done = self._acknowledged()
        for number in self._sizes:
            if number < self._done.segment:
                self._left[number] = 0
        if (size := self._sizes.get(self._done.segment)) is not None:
            rest = self._path(self._done.segment).read_bytes()[self._done.offset : size]
            self._left[self._done.segment] = len(_records(rest)[0])
        self.waiting = sum(self._left.values())
        self._bytes = sum(self._sizes.values())
        self._next = max([self._done.segment, *self._sizes]) + 1  # what was there before is never appended to
        self._delete_done()

    def _acknowledged(self) -> Position:
        return _position(os.pread(self._cursor, _CURSOR.size + _CHECKSUM.size, 0))

    def _first_unread(self) -> Position:
        number, offset = self._done
        if offset < self._sizes.get(number, 0):
            return self._done
        following = [one for one in list(self._sizes) if one > number]
        return Position(following[0], len(_MAGIC)) if following else self._done

    def _delete_done(self) -> None:
        """Delete segments that were acknowledged to their end, but for the one that is appended to."""
        for number in [number for number, left in self._left.items() if not left]:
            if self._file < 0 or number != self._next - 1:
                self._path(number).unlink(missing_ok=True)
                self._bytes -= self._sizes.pop(number)
                del self._left[number]
                self._unsynced.discard(number)

    def _room_for(self, size: int) -> bool:
        """Whether there is a segment to append so much to; begins one when it is time. Raises OSError."""
        if self._bytes + size > self._max_bytes:
            return False
        if self._file >= 0 and self._sizes[self._next - 1] + size > self._segment_bytes:
            self._end_segment()
            self._delete_done()
        if self._file < 0:
            number = self._next
            self._file = os.open(self._path(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
            self._next += 1
            if not self._write(_MAGIC):
                self._path(number).unlink()
                return False
            self._sizes[number], self._left[number] = len(_MAGIC), 0
            self._bytes += len(_MAGIC)
        return True

    def _write(self, data: bytes) -> bool:
        """Whether all of it is in the file. When not, the file gets no more: it would be lost behind what is torn."""
        try:
            written = os.write(self._file, data)
        except OSError:
            written = -1
        if written != len(data):
            self._end_segment()
        return written == len(data)

    def _end_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016x}.spool"


def _open(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)


def _position(data: bytes) -> Position:
    """What a cursor says; without one that can be read, everything is read again."""
    cursor, checksum = data[: _CURSOR.size], data[_CURSOR.size :]
    if len(checksum) != _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != zlib.crc32(cursor):
        return Position(0, 0)
    segment, offset = _CURSOR.unpack(cursor)
    return Position(segment, offset)


def _checksum(record: bytes) -> int:
    """Of the length, too: a loss of power may leave zeros, and nothing at all has the checksum zero."""
    return zlib.crc32(record, zlib.crc32(len(record).to_bytes(4, "little")))


def _records(data: bytes, most: int | None = None) -> tuple[list[bytes], int]:
    """The whole records that data begins with, and how many bytes they are."""
    records: list[bytes] = []
    at = 0
    while len(data) - at >= _HEAD.size and len(records) != most:
        size, checksum = _HEAD.unpack_from(data, at)
        record = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(record) != size or _checksum(record) != checksum:
            break
        records.append(record)
        at += _HEAD.size + size
    return records, at
