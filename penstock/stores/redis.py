"""One connection to Redis (or Valkey) that any number of callers share: what they send in one turn of the event loop
goes out in one write, together with what nobody waits for, and answers come back in order.

Redis answers strictly in order, so there is nothing to match. Whatever breaks the order (no answer in time, a closed
socket, an answer that makes no sense) ends the connection, fails everything that waits and begins a new one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import hiredis

from penstock.stores.redis_address import Address

MOST_WAITING: Final = 10_000  # commands without an answer; beyond that Redis counts as gone
FIRST_PAUSE: Final = 0.05  # seconds before connecting again, doubled each time up to LAST_PAUSE
LAST_PAUSE: Final = 2.0
LATE: Final = 0.002  # seconds that what nobody waits for may wait for company
# Answers after which the same command may succeed: on this server later, or on the one that takes its place.
PASSING: Final = (
    "NOSCRIPT",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "OOM",
    "BUSY",
    "NOREPLICAS",
)

Answer = Callable[[object], None]  # is called with the reply, a `hiredis.ReplyError` or a `RedisGone`


def packed(*words: str | bytes | int) -> bytes:
    """A command as Redis reads it."""
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub wants one item
    return command


class RedisGone(Exception):
    """No answer: not connected, broken off, or too slow. The command may or may not have been carried out."""


class Redis:
    """Connects by itself, and again when it must, until `close`.

    `on_connect` may `send` what has to come before anything else. An answer that does not come within `timeout`
    seconds (up to half of that again) ends the connection.
    """

    def __init__(
        self, address: Address, *, timeout: float = 0.5, on_connect: Callable[[], None] = lambda: None
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._on_connect = on_connect
        self._loop = asyncio.get_running_loop()
        self._connection: _Connection | None = None
        self._closed = False
        self._up = asyncio.Event()
        self._keeper = self._loop.create_task(self._keep_connected())  # `close` waits for it

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def wait_connected(self, seconds: float) -> bool:
        """Whether there is a connection within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def send(self, command: bytes, answer: Answer, *, late: bool = False) -> None:
        """`command` is as `packed` makes it. `answer` is called exactly once, from the event loop. `late`: nobody waits
        for it. Raises `RedisGone` when nothing was sent.
        """
        if self._connection is None:
            raise RedisGone("not connected")
        self._connection.send(command, answer, late)

    def call(self, command: bytes) -> asyncio.Future[Any]:
        """Its result, `RedisGone` or `hiredis.ReplyError`. Raises `RedisGone` when nothing was sent."""
        if self._connection is None:
            raise RedisGone("not connected")
        return self._connection.call(command)

    def renew(self) -> None:
        """Break off and connect again: what waits is `RedisGone`."""
        if self._connection is not None:
            self._connection.abort("broken off")

    async def close(self) -> None:
        """Again is harmless."""
        self._closed = True
        self._keeper.cancel()
        if self._connection is not None:
            self._connection.abort("closed")
        await asyncio.wait([self._keeper])

    async def _keep_connected(self) -> None:
        pause = FIRST_PAUSE
        while True:
            connection = _Connection(self._loop, self._timeout, self._down)
            try:
                async with asyncio.timeout(max(1.0, self._timeout)):
                    await self._open(connection)
                    await connection.introduce(self._address)
            except (OSError, TimeoutError, RedisGone, hiredis.HiredisError) as error:
                connection.abort(f"no connection: {error}")
            else:
                pause = FIRST_PAUSE
                self._connection = connection
                self._up.set()
                self._on_connect()
                await connection.lost
            await asyncio.sleep(pause)
            pause = min(LAST_PAUSE, 2 * pause)

    def _down(self, connection: _Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._up.clear()

    async def _open(self, connection: _Connection) -> None:
        to = self._address
        if to.path is not None:
            await self._loop.create_unix_connection(lambda: connection, to.path)
        else:
            tls = ssl.create_default_context() if to.tls else None
            await self._loop.create_connection(lambda: connection, to.host, to.port, ssl=tls)


def _resolve(future: asyncio.Future[Any], reply: object) -> None:
    if future.done():  # the caller has left
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)


class _Connection(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, on_lost: Callable[[_Connection], None]) -> None:
        self._loop = loop
        self._timeout = timeout
        self._on_lost = on_lost  # before anybody who waits is told
        self._reader = hiredis.Reader()
        self._transport: Any = None
        self._waiting: deque[tuple[float, Answer]] = deque()
        self._out: list[bytes] = []
        self._soon = False  # they go out in this turn of the loop
        self._late = False  # or within LATE
        self._look: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[None] = loop.create_future()

    async def introduce(self, address: Address) -> None:
        if address.password:
            await self.call(packed("AUTH", *([address.user] if address.user else []), address.password))
        if address.database:
            await self.call(packed("SELECT", address.database))
        await self.call(packed("PING"))

    def call(self, command: bytes) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(command, partial(_resolve, future), late=False)
        return future

    def send(self, command: bytes, answer: Answer, late: bool) -> None:
        if self.lost.done() or len(self._waiting) >= MOST_WAITING:
            raise RedisGone("too many commands wait for an answer" if self._waiting else "not connected")
        self._waiting.append((self._loop.time(), answer))
        self._out.append(command)
        if not late:
            if not self._soon:
                self._soon = True
                self._loop.call_soon(self._flush)
        elif not (self._soon or self._late):
            self._late = True
            self._loop.call_later(LATE, self._flush_late)
        if self._look is None:
            self._look = self._loop.call_later(self._timeout, self._look_at_the_clock)

    def abort(self, why: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(RedisGone(why))

    # What the transport tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self.lost.done():
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while not self.lost.done() and (reply := reader.gets()) is not False:
                if waiting:
                    waiting.popleft()[1](reply)
                else:
                    self.abort("it spoke unasked")
        except hiredis.ProtocolError as error:
            self.abort(f"that is not Redis: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(RedisGone(str(error or "Redis closed the connection")))

    def _flush_late(self) -> None:
        self._late = False
        self._flush()

    def _flush(self) -> None:
        self._soon = False
        if self._out and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _look_at_the_clock(self) -> None:
        self._look = None
        if not self._waiting:
            return
        if self._loop.time() - self._waiting[0][0] >= self._timeout:
            self.abort(f"no answer for {self._timeout:g} s")
        else:
            self._look = self._loop.call_later(self._timeout / 2, self._look_at_the_clock)

    def _end(self, why: RedisGone) -> None:
        if self.lost.done():
            return
        self.lost.set_result(None)
        self._on_lost(self)
        if self._look is not None:
            self._look.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, answer in waiting:
            answer(why)
