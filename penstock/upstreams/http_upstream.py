"""One replica, whoever it is: a table of ways to ask, one for each endpoint that it can answer."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from penstock.core.clock import Clock
from penstock.core.request import Endpoint, Request
from penstock.upstreams.answer import AnswerStream
from penstock.upstreams.base import Listener, Transport, Upstream
from penstock.upstreams.way import Way
from penstock.wire.so_far import How, SoFar


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

    def goes_on(self, endpoint: Endpoint, how: How) -> bool:
        return how in self._ways[endpoint].goes_on

    def open(self, request: Request, listener: Listener, now: float, so_far: SoFar | None = None) -> AnswerStream:
        way = self._ways[request.endpoint]
        if so_far is None or way.ask_on is None:
            body, reading, lost = way.ask(request)
        else:
            body, reading, lost = way.ask_on(request, so_far)
        stream = AnswerStream(request, reading, listener, self._clock, way.failure_of, way.media)
        stream.lost = lost
        extra = b"" if way.headers is None else way.headers(request, body)
        if request.deadline != inf:
            extra += b"x-request-timeout: %.3f\r\n" % max(0.0, request.deadline - now)
        prefix = way.stream_prefix if request.stream and way.stream_prefix else way.prefix
        stream.call = self._transport.send(prefix, extra, body, stream)
        return stream


_: type[Upstream] = HttpUpstream
