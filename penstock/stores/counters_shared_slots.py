"""The memory under `SharedCounters`: slots in a mapped file, found by name, changed all together or not at all.

One process at a time, behind a lock that the kernel takes from whoever dies. What is about to change is first copied
to a journal; who gets the lock and finds a journal there puts back what a dead process had begun to change. So it does
not matter where it died. Everything is a *word*, a whole number of 64 bits that the processor writes at once, and
places are the numbers of words.

Nothing here is for several threads, or for both sides of a fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import time
from hashlib import blake2b
from pathlib import Path
from typing import Final

from penstock.core.clock import Clock
from penstock.limits.book import Counter
from penstock.limits.bucket import SIZE, Bucket
from penstock.limits.budget import Budget, Gauge
from penstock.limits.charges import MICRO, Kind
from penstock.stores.base import CountersUnavailable

MOST_SLOTS: Final = 2**19  # 447 MB of addresses; memory, only as they are used
CHUNK: Final = 4096  # slots whose memory is asked for together
MOST_SAVED: Final = 128  # pieces in the journal
HOLDERS: Final = 128

YIELDS: Final = 40  # about 1 us each: most holders of the lock are done in 10
NAPS: Final = 400  # about 0.13 ms each, so 50 ms together
NAP: Final = 50e-6  # seconds, to which Linux adds as much again

# A slot.
SELF: Final = 0  # its own place, for ever
NAME: Final = 1  # of two words
KIND: Final = 3  # 0 while it is free, 1 + Kind for a counter, or
RESERVATION: Final = 1 + len(Kind)
NEXT: Final = 4  # in its chain
STATE: Final = 5  # what its counter or its reservation remembers
SLOT: Final = STATE + SIZE

# The head of the file.
MAGIC: Final = 0
MOST: Final = 1
SAVED: Final = 2  # pieces in the journal; 0 when all is well
NOW: Final = 3  # microseconds: the last time that anybody saw
SHIFT: Final = 4  # by how much the clock was set back since the beginning
CURSOR: Final = 5  # where looking for idle counters goes on
ALLOCATION: Final = 6  # from here on, together with what `allocate` changes, in the journal
FREE: Final = 6  # a chain of slots
UNUSED: Final = 7  # the first slot that never was in use
COUNT: Final = 8  # slots in use
READY: Final = 9  # up to here there is memory
CHAINS: Final = 16  # of reservations, one for each holder
JOURNAL: Final = CHAINS + HOLDERS
INDEX: Final = JOURNAL + MOST_SAVED * SLOT  # chains of counters whose names begin alike
WORD: Final = 8  # bytes

_LAYOUT: Final = 0x50454E_0001  # and its version
_RATE: Final = 1 + Kind.RATE
_GAUGE: Final = 1 + Kind.GAUGE
_ZEROS: Final = bytes((SLOT - NAME) * WORD)
_NAME: Final = struct.Struct("=qq")


def span(place: int) -> slice:
    """The bytes of a slot."""
    return slice(place * WORD, (place + SLOT) * WORD)


class Slots:
    """The file at `path`, made if it is not there; all processes say the same `most`. Closed, it is out of reach."""

    def __init__(self, path: Path, clock: Clock, most: int = MOST_SLOTS) -> None:
        """Raises OSError when there is no room, `CountersUnavailable` when too many have it open."""
        self.most = most
        self._clock = clock
        self._index_mask = (1 << max(0, most.bit_length() - 2)) - 1
        self.first = INDEX + self._index_mask + 1
        self._end = self.first + most * SLOT
        size = (self._end + SLOT) * WORD  # any word can be saved together with the SLOT - 1 after it
        self._pieces = [span(JOURNAL + n * SLOT) for n in range(MOST_SAVED)]
        self._patient = True
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock_file()
            if os.fstat(self._fd).st_size < size:
                os.ftruncate(self._fd, size)
            self._file = mmap.mmap(self._fd, size)
            self.words = memoryview(self._file).cast("q")
            if self.words[MAGIC] != _LAYOUT:
                self._begin_file(most)
            assert self.words[MOST] == most, f"{path} has {self.words[MOST]} slots, not {most}"
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.number, self._claim = self._claim_number()
        except BaseException:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # the mapping has a descriptor of its own
            os.close(self._fd)
            raise

    @property
    def in_use(self) -> int:
        return self.words[COUNT] if self._fd >= 0 else 0

    @property
    def chain(self) -> int:
        """Of this process's reservations."""
        return CHAINS + self.number

    def lock(self) -> int:
        """The time, microseconds; a clock that is set back goes on from the last time that anybody saw.

        Raises `CountersUnavailable` after 50 ms; at once if it did so the last time.
        """
        self._lock_file()
        self._patient = True
        words = self.words
        if words[SAVED]:
            self.roll_back()
        now = int(self._clock.now() * MICRO) + words[SHIFT]
        last = words[NOW]
        if now < last:
            words[SHIFT] += last - now
            now = last
        words[NOW] = now
        return now

    def unlock(self) -> None:
        """What was changed is so from now on."""
        self.words[SAVED] = 0
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def save(self, slots: list[slice]) -> None:
        """To be called before any of these slots is changed, and once for all of them."""
        n = len(slots)
        assert n <= MOST_SAVED, f"{n} slots in one change"
        file, pieces = self._file, self._pieces
        for i in range(n):
            file[pieces[i]] = file[slots[i]]
        self.words[SAVED] = n

    def commit(self) -> None:
        self.words[SAVED] = 0

    def roll_back(self) -> None:
        """Again is harmless, so that it can be interrupted as well."""
        words, file = self.words, self._file
        for n in range(words[SAVED]):
            piece = JOURNAL + n * SLOT
            place = words[piece]
            file[(place + 1) * WORD : (place + SLOT) * WORD] = file[(piece + 1) * WORD : (piece + SLOT) * WORD]
        words[SAVED] = 0

    def state(self, place: int) -> memoryview:
        return self.words[place + STATE : place + SLOT]

    def counter(self, place: int) -> Counter:
        state, kind = self.state(place), self.words[place + KIND]
        if kind == _RATE:
            return Bucket(state)
        return Gauge(state) if kind == _GAUGE else Budget(state)

    def find(self, name: str) -> int:
        """The place of a counter, 0 where there is none."""
        first, second = _hash(name)
        words = self.words
        place = words[INDEX + (first & self._index_mask)]
        while place and (words[place + NAME] != first or words[place + NAME + 1] != second):
            place = words[place + NEXT]
        return place

    def begin(self, name: str, kind: int) -> int:
        """A counter that is not there yet. Raises `CountersUnavailable` when all slots are taken."""
        first, second = _hash(name)
        return self.allocate(INDEX + (first & self._index_mask), kind, first, second)

    def allocate(self, chain: int, kind: int, first: int = 0, second: int = 0) -> int:
        """A slot of zeros, the first of its chain from now on. Nothing may be in the journal. Raises like `begin`."""
        words = self.words
        place = words[FREE] or words[UNUSED]
        if place == self._end:
            raise CountersUnavailable(f"all {words[MOST]:,} slots of the shared counters are in use")
        if place == words[READY]:
            self._get_memory()
        words[place + SELF] = place
        self._save_from((ALLOCATION, chain, place + NAME))
        if words[FREE]:
            words[FREE] = words[place + NEXT]
        else:
            words[UNUSED] = place + SLOT
        words[COUNT] += 1
        words[place + NAME] = first
        words[place + NAME + 1] = second
        words[place + KIND] = kind
        words[place + NEXT] = words[chain]
        words[chain] = place
        self.commit()
        return place

    def free_counter(self, place: int) -> None:
        self.free(place, INDEX + (self.words[place + NAME] & self._index_mask))

    def free(self, place: int, chain: int) -> None:
        """Nothing may be in the journal."""
        words, before = self.words, chain
        while words[before] != place:
            before = words[before] + NEXT
        self._save_from((ALLOCATION, before, place + NAME))
        words[before] = words[place + NEXT]
        self._file[(place + NAME) * WORD : (place + SLOT) * WORD] = _ZEROS
        words[place + NEXT] = words[FREE]
        words[FREE] = place
        words[COUNT] -= 1
        self.commit()

    def claim(self, number: int) -> int:
        """For who finds holder `number` dead: nobody gets that number until `unclaim`. -1: it lives."""
        fd = os.open(f"{self._path}.{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return -1
        return fd

    def unclaim(self, claim: int) -> None:
        os.close(claim)

    def check(self) -> None:
        """Under the lock: every slot is in one chain, and only there. Looks at all of them."""
        words, found, n_free = self.words, set(), 0
        for chain in (FREE, *range(CHAINS, CHAINS + HOLDERS), *range(INDEX, self.first)):
            place = words[chain]
            while place:
                assert place not in found, f"slot {place} is in two chains"
                assert words[place + SELF] == place, f"slot {place} takes itself for {words[place + SELF]}"
                assert (words[place + KIND] == 0) is (chain == FREE), f"slot {place} is in the wrong chain"
                found.add(place)
                n_free += chain == FREE
                place = words[place + NEXT]
        assert found == set(range(self.first, words[UNUSED], SLOT)), "a slot is in no chain"
        assert words[COUNT] == len(found) - n_free, f"{words[COUNT]} slots are not {len(found) - n_free}"

    def close(self) -> None:
        """Others see at once that this holder is gone."""
        if self._fd < 0:
            return
        self.words.release()
        with contextlib.suppress(BufferError):  # a traceback still has a counter: it goes with that
            self._file.close()
        os.close(self._fd)
        os.close(self._claim)
        self._fd = -1

    def _save_from(self, words: tuple[int, ...]) -> None:
        """As `save`, for words that are in no slot: for each, what would be a slot that begins before it."""
        for n, word in enumerate(words):
            self._file[self._pieces[n]] = self._file[span(word - 1)]
            self.words[JOURNAL + n * SLOT] = word - 1
        self.words[SAVED] = len(words)

    def _lock_file(self) -> None:
        if self._fd < 0:
            raise CountersUnavailable("the shared counters are closed")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()

    def _wait(self) -> None:
        for n in range(YIELDS + NAPS if self._patient else YIELDS):
            if n < YIELDS:
                os.sched_yield()
            else:
                time.sleep(NAP)  # noqa: TID251  the holder has lost its processor, perhaps to us
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return
        self._patient = False
        raise CountersUnavailable("another process has held the shared counters for 50 ms: is it stopped?")

    def _begin_file(self, most: int) -> None:
        words = self.words
        os.posix_fallocate(self._fd, 0, (self.first + SLOT) * WORD)
        words[MOST] = most
        words[UNUSED] = words[READY] = words[CURSOR] = self.first
        words[MAGIC] = _LAYOUT

    def _get_memory(self) -> None:
        """A page that cannot be had when it is written to would end this process: ask for it beforehand."""
        words = self.words
        end = min(words[READY] + CHUNK * SLOT, self._end)
        try:
            os.posix_fallocate(self._fd, words[READY] * WORD, (end + SLOT - words[READY]) * WORD)
        except OSError as error:
            raise CountersUnavailable(f"no memory for more shared counters: {error.strerror}") from None
        words[READY] = end

    def _claim_number(self) -> tuple[int, int]:
        for number in range(HOLDERS):
            claim = self.claim(number)
            if claim >= 0:
                return number, claim
        raise CountersUnavailable(f"more than {HOLDERS} processes share these counters")


def _hash(name: str) -> tuple[int, int]:
    """Of a million names, two are the same in one of 10**27 cases; nobody can look for such two (2**64 hashes)."""
    first, second = _NAME.unpack(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest())
    return first, second
