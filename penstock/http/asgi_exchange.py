"""An exchange under somebody else's server. Apart from the bridge that makes it, because it is compiled with ours."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from penstock.http.server import FINISHED, SENDING, Exchange

Message = MutableMapping[str, Any]

_JSON = b"application/json"
_STREAM = b"text/event-stream; charset=utf-8"


class AsgiExchange(Exchange):
    """An exchange whose answer leaves as ASGI messages. Writing stays synchronous: messages wait in an outbox, and
    `flow` is told to pause while the outbox holds more than the high-water mark.
    """

    __slots__ = ("_aborted", "_high_water", "_news", "_outbox", "_relieved", "_unsent")

    def __init__(self, method: bytes, headers: list[tuple[bytes, bytes]], peer: str, high_water: int) -> None:
        super().__init__(method, headers, peer)
        self._high_water = high_water
        self._outbox: list[tuple[Message, int]] = []
        self._unsent = 0  # bytes in the outbox or being sent
        self._news = asyncio.Event()
        self._relieved = asyncio.Event()
        self._aborted = False

    def respond(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = _JSON) -> None:
        self._open(FINISHED)
        lines = _split(headers, content_type)
        if status not in (204, 304):
            lines.append((b"content-length", b"%d" % len(body)))
        self._put({"type": "http.response.start", "status": status, "headers": lines}, 0)
        self._put({"type": "http.response.body", "body": body, "more_body": False}, len(body))

    def start(self, status: int, headers: bytes = b"", content_type: bytes = _STREAM) -> None:
        self._open(SENDING)
        self._put({"type": "http.response.start", "status": status, "headers": _split(headers, content_type)}, 0)

    def write(self, data: bytes) -> None:
        if self._state != SENDING:
            raise RuntimeError("write comes after start and before finish")
        if data:
            self._put({"type": "http.response.body", "body": data, "more_body": True}, len(data))

    def finish(self, data: bytes = b"") -> None:
        if self._state != SENDING:
            raise RuntimeError("finish comes once, after start")
        self._state = FINISHED
        self._put({"type": "http.response.body", "body": data, "more_body": False}, len(data))

    def abort(self) -> None:
        if self._state != FINISHED:
            self._state = FINISHED
            self._aborted = True
            self._news.set()

    async def drain(self) -> None:
        while self._unsent > self._high_water and not self._gone:
            self._relieved.clear()
            await self._relieved.wait()

    async def deliver(self, send: Callable[[Message], Awaitable[None]]) -> None:
        """Send what is written until the answer ends or is aborted."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._outbox and not self._aborted:
                message, size = self._outbox.pop(0)
                await send(message)
                self._sent(size)
            if self._state == FINISHED and (self._aborted or not self._outbox):
                return

    def leave(self) -> None:
        """The caller is gone. Again is harmless."""
        flow, self.flow = self.flow, None
        self._gone = True
        self._outbox.clear()
        self._relieved.set()
        if flow is not None:
            flow.left()

    def _open(self, state: int) -> None:
        if self.started:
            raise RuntimeError("this exchange has been answered already")
        self._state = state

    def _put(self, message: Message, size: int) -> None:
        if self._gone:
            return
        self._outbox.append((message, size))
        before = self._unsent
        self._unsent = before + size
        self._news.set()
        if self.flow is not None and before <= self._high_water < self._unsent:
            self.flow.pause()

    def _sent(self, size: int) -> None:
        before = self._unsent
        self._unsent = before - size
        if before > self._high_water >= self._unsent:
            self._relieved.set()
            if self.flow is not None:
                self.flow.resume()


def _split(lines: bytes, content_type: bytes) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", content_type)] if content_type else []
    for line in lines.split(b"\r\n"):
        if line:
            name, _, value = line.partition(b":")
            headers.append((name.lower(), value.strip()))
    return headers
