"""Requests as they end, for those who watch: server-sent events, bounded for each of them.

Somebody who reads slowly, or too much for anybody to read, is told how many they did not see; nothing is kept for them
and nobody waits for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from penstock.console.refusals import HEADERS, Denied
from penstock.http.server import Exchange

MOST_LISTENERS: Final = 64
MOST_WAITING: Final = 200  # lines of one listener
A_SECOND: Final = 50  # lines of one listener
EVERY: Final = 0.25  # seconds

Line = dict[str, Any]
Wants = Callable[[Line], bool]

_encode: Final = msgspec.json.Encoder().encode


class Listener:
    def __init__(self, wants: Wants) -> None:
        self._wants = wants
        self._lines: deque[Line] = deque()
        self._dropped = 0
        self._room = A_SECOND

    def hear(self, lines: Sequence[Line], unseen: int) -> None:
        """`unseen` more have ended, of which nobody knows whether they are wanted."""
        self._dropped += unseen
        for line in lines:
            if not self._wants(line):
                continue
            if len(self._lines) >= MOST_WAITING:
                self._dropped += 1
            else:
                self._lines.append(line)

    def take(self, now: dict[str, Any] | None) -> bytes:
        """What is to be written. With `now`, a new second begins."""
        if now is not None:
            self._room = A_SECOND
        parts = []
        while self._lines and self._room:
            parts.append(_event("line", self._lines.popleft()))
            self._room -= 1
        if now is not None:
            self._dropped += len(self._lines)  # more came in this second than anybody reads
            self._lines.clear()
            if self._dropped:
                parts.append(_event("dropped", {"n": self._dropped}))
                self._dropped = 0
            parts.append(_event("now", now))
        return b"".join(parts)


class Feed:
    """`hear` what has ended; `listen` answers an exchange until its caller leaves, or may no longer look."""

    def __init__(self, now: Callable[[], dict[str, Any]]) -> None:
        self._now = now
        self._listeners: set[Listener] = set()
        self._closed = False

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def hear(self, lines: Sequence[Line], unseen: int) -> None:
        for listener in self._listeners:
            listener.hear(lines, unseen)

    async def listen(self, exchange: Exchange, wants: Wants, still: Callable[[], bool]) -> None:
        """Raises `Denied` when there are too many."""
        if len(self._listeners) >= MOST_LISTENERS or self._closed:
            raise Denied(503, "too_many_listeners", f"{MOST_LISTENERS} are listening already", 5)
        listener = Listener(wants)
        self._listeners.add(listener)
        try:
            exchange.start(200, HEADERS + b"x-accel-buffering: no\r\n")
            turn = 0
            while still() and not self._closed:
                data = listener.take(self._now() if turn % 4 == 0 else None)
                if data:
                    exchange.write(data)
                    await exchange.drain()  # who does not read, waits here alone
                turn += 1
                await asyncio.sleep(EVERY)
            exchange.finish()
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Everybody's answer ends with their next turn."""
        self._closed = True


def _event(name: str, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(data))
