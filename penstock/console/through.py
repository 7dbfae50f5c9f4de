"""A way from the console to the gateway that it looks after: what a page asks is sent on, and the answer comes back as
it is. Nothing is kept of it, least of all the key that it is asked with.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import msgspec

from penstock.console.refusals import HEADERS, Denied
from penstock.http.client import Call, Pool, TransportError
from penstock.http.server import Exchange

MOST_AT_ONCE: Final = 32
ANSWER_WITHIN: Final = 10.0  # seconds, where the whole answer is wanted
MAX_ANSWER: Final = 4 << 20  # bytes, likewise

_PASSED: Final = (b"x-request-id", b"retry-after", b"server-timing")
_OURS: Final = b"x-penstock-"


class GatewayAddress(msgspec.Struct, frozen=True):
    """`certificate` is the PEM file of its own that it shows; "" for plain http. It is asked over loopback, where its
    name would say nothing."""

    origin: str
    certificate: str = ""


class Through:
    """To be made inside the running loop."""

    def __init__(self, address: GatewayAddress) -> None:
        context = None
        if address.certificate:
            context = ssl.create_default_context(cafile=address.certificate)
            context.check_hostname = False
        self._pool = Pool(address.origin, ssl=context)
        self._open = 0

    def relay(self, exchange: Exchange, path: str, body: bytes, key: bytes) -> None:
        """Answer the exchange with the gateway's answer. Raises `Denied` when there are too many."""
        if self._open >= MOST_AT_ONCE:
            raise Denied(429, "too_many_requests", f"{MOST_AT_ONCE} answers are on their way already", 1)
        self._open += 1
        relay = _Relay(exchange, self._ended)
        exchange.flow = relay
        relay.call = self._pool.send(self._head(path, key), b"", body, relay)

    async def ask(self, path: str, body: bytes, key: bytes) -> tuple[int, bytes]:
        """Status and body. Raises `Denied` when the gateway does not answer."""
        answer = _Whole()
        call = self._pool.send(self._head(path, key), b"", body, answer)
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await answer.done
        except (TimeoutError, TransportError):
            raise Denied(502, "gateway_away", "the gateway does not answer", 1) from None
        finally:
            call.close()

    def close(self) -> None:
        self._pool.abort()

    def _head(self, path: str, key: bytes) -> bytes:
        head = b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\n" % (path.encode(), self._pool.host)
        return head + (b"authorization: Bearer %b\r\n" % key if key else b"")

    def _ended(self) -> None:
        self._open -= 1


class _Relay:
    """The receiver of the gateway's answer, and the flow of ours."""

    def __init__(self, exchange: Exchange, ended: object) -> None:
        self.call: Call | None = None
        self._exchange = exchange
        self._ended = ended

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        lines, content_type = HEADERS, b"application/json"
        for name, value in headers:
            if name == b"content-type":
                content_type = value
            elif name in _PASSED or name.startswith(_OURS):
                lines += b"%b: %b\r\n" % (name, value)
        self._exchange.start(status, lines, content_type)

    def on_data(self, data: bytes, ended: bool) -> None:
        if not ended:
            self._exchange.write(data)
            return
        self._over()
        self._exchange.finish(data)

    def on_failure(self, failure: TransportError) -> None:
        self._over()
        if self._exchange.started:
            self._exchange.abort()
        else:
            self._exchange.respond(502, Denied(502, "gateway_away", "the gateway does not answer").body(), HEADERS)

    def pause(self) -> None:
        if self.call is not None:
            self.call.pause()

    def resume(self) -> None:
        if self.call is not None:
            self.call.resume()

    def left(self) -> None:
        if self.call is not None:
            self.call.close()
        self._over()

    def _over(self) -> None:
        self._exchange.flow = None
        ended, self._ended = self._ended, None
        if callable(ended):
            ended()


class _Whole:
    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status, self._body = 0, bytearray()

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status

    def on_data(self, data: bytes, ended: bool) -> None:
        self._body += data
        if (ended or len(self._body) > MAX_ANSWER) and not self.done.done():
            self.done.set_result((self._status, bytes(self._body)))

    def on_failure(self, failure: TransportError) -> None:
        if not self.done.done():
            self.done.set_exception(failure)
