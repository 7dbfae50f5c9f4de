"""An HTTP exchange without HTTP: remembers what its caller would have received."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class FakeExchange:
    """The request is given; `status`, `headers`, `sent` and `ended` tell of the answer."""

    def __init__(
        self,
        body: bytes,
        *,
        method: bytes = b"POST",
        path: bytes = b"/v1/chat/completions",
        query: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        peer: str = "127.0.0.1",
    ) -> None:
        self.method, self.path, self.query, self.body = method, path, query, body
        self.peer = peer
        self._request_headers = headers
        self.flow: Any = None
        self.status = 0
        self.headers = b""
        self.sent: list[bytes] = []
        self.ended = False
        self.aborted = False
        self.content_type = b""
        self._over = asyncio.Event()

    async def carry(self, handler: Callable[[Any], Coroutine[Any, Any, None] | None]) -> None:
        """What a server does: hand over, and wait for the end of the answer. Cancelled: the caller has left."""
        coroutine = handler(self)
        if coroutine is not None:
            await coroutine
        if not self.ended:
            try:
                await self._over.wait()
            except asyncio.CancelledError:
                flow, self.flow = self.flow, None
                flow.left()
                raise

    @property
    def started(self) -> bool:
        return self.status != 0

    @property
    def text(self) -> bytes:
        return b"".join(self.sent)

    def header(self, name: bytes) -> bytes | None:
        return next(iter(self.values(name)), None)

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self._request_headers if known == name]

    def respond(
        self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = b"application/json"
    ) -> None:
        assert not self.started, "answered twice"
        self.status, self.headers, self.content_type, self.ended = status, headers, content_type, True
        self.sent.append(body)
        self._over.set()

    def start(
        self, status: int, headers: bytes = b"", content_type: bytes = b"text/event-stream; charset=utf-8"
    ) -> None:
        assert not self.started, "answered twice"
        self.status, self.headers, self.content_type = status, headers, content_type

    def write(self, data: bytes) -> None:
        assert self.started and not self.ended
        self.sent.append(data)

    def forget(self) -> None:
        self.body = b""
        self._request_headers = ()

    def finish(self, data: bytes = b"") -> None:
        assert self.started and not self.ended
        if data:
            self.sent.append(data)
        self.ended = True
        self._over.set()

    def abort(self) -> None:
        assert self.started and not self.ended
        self.ended = self.aborted = True
        self._over.set()
