"""One small document by GET, whole or not at all: no redirects are followed."""

import asyncio
from collections.abc import Container
from typing import Final

from penstock.http.client import Call, Pool, TransportError
from penstock.http.options import ClientOptions

_HEADERS: Final = b"user-agent: penstock\r\naccept: application/json\r\naccept-encoding: identity\r\n"


_OK: Final = (200,)


class GetFailed(Exception):
    """The text is for the operator."""


async def get(origin: str, path: str, *, max_bytes: int, seconds: float) -> bytes:
    """`path` is sent as it is: without spaces, line breaks and what is not ASCII. Raises `GetFailed` for everything but
    200 with at most so many bytes within the time."""
    return await ask(origin, b"GET", path, b"", max_bytes=max_bytes, seconds=seconds, fine=_OK)


async def ask(
    origin: str, method: bytes, path: str, body: bytes, *, max_bytes: int, seconds: float, fine: Container[int]
) -> bytes:
    """Likewise with any method; a `body` is JSON. Raises `GetFailed` for a status that is not a `fine` one."""
    loop = asyncio.get_running_loop()
    pool = Pool(origin, options=ClientOptions(connect_timeout=seconds), loop=loop)
    answer = _Answer(loop, max_bytes, fine)
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, path.encode("ascii"), pool.host)
    more = b"content-type: application/json\r\n" if body else b""
    answer.call = pool.send(head, _HEADERS + more + b"connection: close\r\n", body, answer)
    try:
        async with asyncio.timeout(seconds):
            return await answer.body
    except TimeoutError:
        raise GetFailed(f"{origin} did not answer within {seconds:g} s") from None
    finally:
        answer.call.close()
        pool.abort()


class _Answer:
    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int, fine: Container[int]) -> None:
        self.body: asyncio.Future[bytes] = loop.create_future()
        self.call: Call | None = None
        self._max_bytes, self._fine = max_bytes, fine
        self._parts: list[bytes] = []
        self._n_bytes = 0

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if status not in self._fine:
            self._fail(f"answered with status {status}")

    def on_data(self, data: bytes, ended: bool) -> None:
        self._parts.append(data)
        self._n_bytes += len(data)
        if self._n_bytes > self._max_bytes:
            self._fail(f"answered with more than {self._max_bytes:,} bytes")
        elif ended and not self.body.done():
            self.body.set_result(b"".join(self._parts))

    def on_failure(self, failure: TransportError) -> None:
        self._fail(str(failure))

    def _fail(self, why: str) -> None:
        if not self.body.done():
            self.body.set_exception(GetFailed(why))
        if self.call is not None:
            self.call.close()
