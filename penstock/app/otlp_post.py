"""Carries bodies of OTLP to one address, over connections that are kept. Its answers never have a secret in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from penstock.config.secrets import resolved
from penstock.http.client import Call, Pool, TransportError
from penstock.http.options import ClientOptions
from penstock.telemetry.export import Answer
from penstock.telemetry.options import Exporter
from penstock.telemetry.otlp import CONTENT_TYPE

MAX_ANSWER: Final = 64 * 1024  # bytes; what is beyond is not looked at
_ALWAYS: Final = f"content-type: {CONTENT_TYPE}\r\ncontent-encoding: gzip\r\nuser-agent: penstock\r\n".encode()


class OtlpPost:
    """A `telemetry.export.Post`. Secrets are read anew for every body, so that a rotated one is seen."""

    def __init__(self, exporter: Exporter, secret: Callable[[str], str], loop: asyncio.AbstractEventLoop) -> None:
        parts = urlsplit(exporter.endpoint)
        self._exporter, self._secret, self._loop = exporter, secret, loop
        origin = f"{parts.scheme}://{parts.netloc}"
        self._pool = Pool(origin, options=ClientOptions(connect_timeout=exporter.timeout), loop=loop)
        self._head = b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (parts.path.encode("ascii"), self._pool.host)

    async def __call__(self, body: bytes) -> Answer:
        try:
            headers = self._headers()
        except LookupError as error:
            return Answer(0, None, str(error.args[0]))
        exchange = _Exchange(self._loop)
        exchange.call = self._pool.send(self._head, _ALWAYS + headers, body, exchange)
        try:
            async with asyncio.timeout(self._exporter.timeout):
                return await exchange.answer
        except TimeoutError:
            return Answer(0, None, f"no answer within {self._exporter.timeout:g} s")
        finally:
            exchange.call.close()

    def close(self) -> None:
        self._pool.abort()

    def _headers(self) -> bytes:
        """Raises `LookupError`, with a sentence."""
        lines = b""
        for name, value in self._exporter.headers:
            text = resolved(value, self._secret)
            if not text.isascii() or not text.isprintable():
                raise LookupError(f"what {value} names cannot be sent as a header: it must be ASCII, on one line")
            lines += f"{name}: {text}\r\n".encode("ascii")
        return lines


class _Exchange:
    """The transport's receiver. The body of the answer is read, so that its connection can be kept, and let go."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self.call: Call | None = None
        self._status = 0
        self._retry_after: float | None = None
        self._n_bytes = 0

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        for name, value in headers:
            if name.lower() == b"retry-after" and value.isdigit():  # the form with a date is not worth a clock
                self._retry_after = float(value)

    def on_data(self, data: bytes, ended: bool) -> None:
        self._n_bytes += len(data)
        if ended or self._n_bytes > MAX_ANSWER:
            self._end(Answer(self._status, self._retry_after))
            if not ended and self.call is not None:
                self.call.close()

    def on_failure(self, failure: TransportError) -> None:
        self._end(Answer(0, None, str(failure)))

    def _end(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
