"""One replica, whoever it is: a table of ways to ask, one for each endpoint that it can answer.

The modules beside this one build the tables: `openai` for engines and the many companies with OpenAI's API,
`anthropic`, `bedrock`, `gemini`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

import msgspec

from penstock.core.clock import Clock
from penstock.core.request import Endpoint, Request
from penstock.upstreams.answer import AnswerStream, FailureOf
from penstock.upstreams.base import Listener, Transport, Upstream
from penstock.wire.readings import Reading

Asking = tuple[bytes, Reading, tuple[str, ...]]
"""The body to send, how to read the answer, and the caller's fields that were left out."""


class Way(msgspec.Struct, frozen=True):
    """How one endpoint is asked: `prefix` is the request line and headers, `stream_prefix` where streams have others.

    `headers` adds lines that depend on the request and its body (a signature, feature flags). `ask` raises
    `PenstockError` for what cannot be said. `media` is the type that a stream must have; b"": any.
    """

    prefix: bytes
    ask: Callable[[Request], Asking]
    failure_of: FailureOf
    stream_prefix: bytes = b""
    headers: Callable[[Request, bytes], bytes] | None = None
    media: bytes = b"text/event-stream"


class HttpUpstream:
    """An upstream is told by `x-request-timeout` how many seconds are left, where the caller set a deadline: ours drop
    work that nobody waits for, and others do not mind.
    """

    __slots__ = ("_clock", "_transport", "_ways")

    def __init__(self, transport: Transport, clock: Clock, ways: Mapping[Endpoint, Way]) -> None:
        self._transport, self._clock, self._ways = transport, clock, ways

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        return frozenset(self._ways)

    def open(self, request: Request, listener: Listener, now: float) -> AnswerStream:
        way = self._ways[request.endpoint]
        body, reading, lost = way.ask(request)
        stream = AnswerStream(request, reading, listener, self._clock, way.failure_of, way.media)
        stream.lost = lost
        extra = b"" if way.headers is None else way.headers(request, body)
        if request.deadline != inf:
            extra += b"x-request-timeout: %.3f\r\n" % max(0.0, request.deadline - now)
        prefix = way.stream_prefix if request.stream and way.stream_prefix else way.prefix
        stream.call = self._transport.send(prefix, extra, body, stream)
        return stream


def header_lines(host: bytes, content_type: str = "application/json") -> str:
    """The lines that every request to one origin has."""
    lines = f"host: {host.decode('ascii')}\r\nuser-agent: penstock\r\n"
    return lines + f"content-type: {content_type}\r\n" if content_type else lines


_: type[Upstream] = HttpUpstream
