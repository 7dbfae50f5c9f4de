"""One replica, whoever it is: a table of ways to ask, one for each endpoint that it can answer."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from penstock.core.clock import Clock
from penstock.core.request import Endpoint, Request
from penstock.upstreams.answer import AnswerStream
from penstock.upstreams.base import Listener, Transport, Upstream
from penstock.upstreams.credentials import Authorization
from penstock.upstreams.way import Way
from penstock.wire.so_far import How, SoFar


class HttpUpstream:
    """An upstream is told by `x-request-timeout` how many seconds are left, where the caller set a deadline: ours drop
    work that nobody waits for, and others do not mind.
    """

    __slots__ = ("_clock", "_plain", "_signs", "_streams", "_transport")

    def __init__(
        self, transport: Transport, clock: Clock, ways: Mapping[Endpoint, Way], authorization: Authorization
    ) -> None:
        """Raises ValueError for a path that cannot be sent."""
        self._transport, self._clock = transport, clock
        constant = authorization.constant
        self._signs = authorization if constant is None else None

        def ready(way: Way, path: str) -> tuple[Way, str, bytes]:
            """The request line and the headers that are the same for every request are rendered once."""
            lines = f"POST {path} HTTP/1.1\r\nhost: {transport.host.decode('ascii')}\r\nuser-agent: penstock\r\n"
            if way.content_type:
                lines += f"content-type: {way.content_type}\r\n"
            return way, path, lines.encode("ascii") + (constant or b"")

        self._plain = {endpoint: ready(way, way.path) for endpoint, way in ways.items()}
        self._streams = {endpoint: ready(way, way.stream_path or way.path) for endpoint, way in ways.items()}

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        return frozenset(self._plain)

    def goes_on(self, endpoint: Endpoint, how: How) -> bool:
        return how in self._plain[endpoint][0].goes_on

    def open(self, request: Request, listener: Listener, now: float, so_far: SoFar | None = None) -> AnswerStream:
        way, path, prefix = (self._streams if request.stream else self._plain)[request.endpoint]
        if so_far is None or way.ask_on is None:
            body, reading, lost = way.ask(request)
        else:
            body, reading, lost = way.ask_on(request, so_far)
        stream = AnswerStream(request, reading, listener, self._clock, way.failure_of, way.media)
        stream.lost = lost
        extra = b"x-request-id: %b\r\n" % request.id.encode("ascii")  # so that a provider's own report can be compared
        told = listener.traceparent()
        if told:
            extra += b"traceparent: %b\r\n" % told
        if self._signs is not None:
            extra += self._signs.headers(path, body)
        if way.headers is not None:
            extra += way.headers(request)
        if request.deadline != inf:
            extra += b"x-request-timeout: %.3f\r\n" % max(0.0, request.deadline - now)
        stream.call = self._transport.send(prefix, extra, body, stream)
        return stream


_: type[Upstream] = HttpUpstream
