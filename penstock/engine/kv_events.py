"""Publishes what the prefix cache holds, in vLLM's own protocol, so that one subscriber hears both.

The engine's thread writes the changes of a step into a `CacheLog`; the event loop sends them, one batch for each step
that changed anything, numbered from 0, and repeats the last ones for whoever asks (`Publisher`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from penstock.batching.watch import CacheWatcher
from penstock.core.clock import Clock
from penstock.wire.kv_events import Batch, BlockRemoved, BlockStored, Event, encode, short

BUFFERED: Final = 10_000  # batches that can be repeated
LAGGING: Final = 100_000  # batches that may wait for a slow subscriber; then it misses some
UNSALTED: Final = (b"", b"\n")
END: Final = (-1).to_bytes(8, "big", signed=True)


class CacheLog:
    """The changes since they were last taken, in order; what belongs together in one event."""

    def __init__(self, block_size: int) -> None:
        self.events: list[Event] = []
        self._block_size = block_size
        self._last: bytes | None = None  # the digest with which the last event, a `BlockStored`, can be gone on

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        self._last = None
        return events

    def remembered(self, digest: bytes, previous: bytes | None, tokens: Sequence[int], salt: bytes) -> None:
        last = self.events[-1] if self.events else None
        if isinstance(last, BlockStored) and previous is not None and previous == self._last:
            last.block_hashes.append(short(digest))
            last.token_ids.extend(tokens)
            if last.extra_keys is not None:
                last.extra_keys.append(_extra(salt))
        else:
            self.events.append(
                BlockStored(
                    [short(digest)],
                    None if previous is None else short(previous),
                    list(tokens),
                    self._block_size,
                    medium="GPU",  # as it is called where requests are computed; this engine's is the CPU
                    extra_keys=None if salt in UNSALTED else [_extra(salt)],
                )
            )
        self._last = digest

    def forgotten(self, digest: bytes) -> None:
        last = self.events[-1] if self.events else None
        if isinstance(last, BlockRemoved):
            last.block_hashes.append(short(digest))
        else:
            self.events.append(BlockRemoved([short(digest)], medium="GPU"))


class Publisher:
    """Made and used in one event loop. Needs pyzmq."""

    def __init__(self, clock: Clock) -> None:
        import zmq.asyncio

        self._clock = clock
        self._context = zmq.asyncio.Context()
        self._live = zmq.Context(self._context).socket(zmq.PUB)  # never awaited: who is slow misses some, and asks
        self._live.setsockopt(zmq.SNDHWM, LAGGING)
        self._repeats = self._context.socket(zmq.ROUTER)
        self._repeats.setsockopt(zmq.SNDHWM, 2 * BUFFERED)  # it drops what is more, without a word
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=BUFFERED)
        self._next = 0
        self.endpoint = self.replay = ""
        """Where they were bound, with the port that was chosen."""

    def bind(self, endpoint: str, replay: str = "") -> None:
        """Raises OSError (`zmq.ZMQError` is none, and is made one)."""
        import zmq

        try:
            self._live.bind(endpoint)
            self.endpoint = self._live.getsockopt_string(zmq.LAST_ENDPOINT)
            if replay:
                self._repeats.bind(replay)
                self.replay = self._repeats.getsockopt_string(zmq.LAST_ENDPOINT)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, str(error)) from None

    def publish(self, events: list[Event]) -> None:
        payload = encode(Batch(self._clock.wall(), events))
        number, self._next = self._next, self._next + 1
        self._buffer.append((number, payload))
        self._live.send_multipart((b"", number.to_bytes(8, "big"), payload))

    @asynccontextmanager
    async def repeating(self) -> AsyncIterator[None]:
        """Answers whoever missed something, as long as the block runs."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._repeat())
            yield
            task.cancel()

    async def _repeat(self) -> None:
        while True:
            frames = await self._repeats.recv_multipart()
            if len(frames) != 3 or len(frames[2]) != 8:
                continue  # not a question
            caller, empty, first = frames
            start = int.from_bytes(first, "big")
            for number, payload in list(self._buffer):
                if number >= start:
                    await self._repeats.send_multipart((caller, empty, number.to_bytes(8, "big"), payload))
            await self._repeats.send_multipart((caller, empty, END, b""))

    def close(self) -> None:
        self._live.close(linger=0)
        self._repeats.close(linger=0)
        self._context.destroy(linger=0)


def _extra(salt: bytes) -> msgspec.Raw:
    """Tells salts apart without telling them."""
    if salt in UNSALTED:
        return msgspec.Raw(msgspec.msgpack.encode(None))
    return msgspec.Raw(msgspec.msgpack.encode([hashlib.blake2b(salt, digest_size=16).hexdigest()]))


_: type[CacheWatcher] = CacheLog
