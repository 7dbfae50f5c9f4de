"""One answer on its way: the transport's receiver on one side, a `Stream` on the other, a `Reading` in between.

The first token, not the first byte, is what ends the wait: comments, role-only and empty deltas are held back until
something follows. The same for every upstream; only the reading differs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

from penstock.core.clock import Clock
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Request, Usage
from penstock.upstreams.base import Call, Listener, Sink
from penstock.wire.readings import Reading

MAX_ERROR_BYTES: int = 64 * 1024  # of an error body; the rest is not kept
MAX_ANSWER_BYTES: int = 64 * 1024 * 1024  # of a plain answer
MAX_HELD_BYTES: int = 1024 * 1024  # of events before the first token; who talks so long and says nothing is broken
FailureOf = Callable[..., UpstreamError]
"""What an answer with another status than 200 means, from the status and the beginning of the body, and for AWS from
the name of the error, which is in a header."""
_NOTHING: Final[list[bytes]] = []  # what a relayed stream holds: one list for all, which nobody appends to
_EVENTS: Final = b"text/event-stream; charset=utf-8"


class AnswerStream:
    """`media` is the type of body that a stream must have; b"" for any (speech)."""

    __slots__ = (
        "_clock", "_ended", "_error_type", "_failure_of", "_held", "_held_bytes", "_inflate", "_listener", "_media",
        "_reading", "_request", "_retry_after", "_sink", "_status", "_streaming", "call", "content_type", "lost",
        "progressed_at",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        reading: Reading,
        listener: Listener,
        clock: Clock,
        failure_of: FailureOf,
        media: bytes = b"text/event-stream",
    ) -> None:
        self._request, self._reading, self._clock = request, reading, clock
        self._failure_of, self._media = failure_of, media
        self._listener: Listener | None = listener
        self._sink: Sink | None = None
        self._held: list[bytes] = []  # events before the first token; or the pieces of a plain or error body
        self._held_bytes = 0
        self._status = 0
        self._streaming = False  # a stream was asked for, and has begun
        self._inflate: zlib._Decompress | None = None
        self._retry_after: float | None = None
        self._error_type = ""
        self._ended: UpstreamError | bool = False  # True: ended whole
        self.call: Call | None = None
        self.content_type = _EVENTS if request.stream else b"application/json"  # for the caller
        self.lost: tuple[str, ...] = ()
        self.progressed_at = clock.now()

    # --- Stream ---

    @property
    def plain(self) -> bytes | None:
        return None if self._request.stream else b"".join(self._held)

    @property
    def reading(self) -> Reading:
        return self._reading

    @property
    def finish_reason(self) -> str | None:
        return self._reading.finish_reason

    def usage(self) -> tuple[Usage, UsageSource]:
        return self._reading.billed(self._request)

    def relay(self, sink: Sink) -> None:
        self._sink = sink
        held, self._held = self._held, _NOTHING
        if held:
            sink.on_events(b"".join(held))
        if self._ended is not False:
            sink.on_end(None if self._ended is True else self._ended)

    def pause(self) -> None:
        if self.call is not None:
            self.call.pause()

    def resume(self) -> None:
        if self.call is not None:
            self.call.resume()

    def close(self) -> None:
        self._listener = self._sink = None
        call, self.call = self.call, None
        if call is not None:
            call.close()

    # --- the transport's receiver ---

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        self._streaming = status == 200 and self._request.stream
        kind = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value
            elif name == b"retry-after":
                self._retry_after = _seconds(value, self._clock.wall())
            elif name == b"content-encoding" and value.strip().lower() in (b"gzip", b"x-gzip", b"deflate"):
                self._inflate = zlib.decompressobj(
                    zlib.MAX_WBITS | 32
                )  # nobody asked for it; some send it all the same
            elif name == b"x-amzn-errortype":
                self._error_type = value.decode("latin-1")
        if kind and self._reading.keeps_type:
            self.content_type = kind
        if self._streaming and kind and not kind.lower().startswith(self._media):
            self._fail(UpstreamError(FailureKind.BAD_PAYLOAD, f"a stream was asked for, {kind[:60]!r} came"))

    def on_data(self, data: bytes, ended: bool) -> None:
        if self._ended is not False:
            return
        try:
            if self._inflate is not None:
                data = self._inflated(data, ended)
            if not self._streaming:
                self._on_body(data, ended)
                return
            block, meaningful = self._reading.feed(data)
            if meaningful:
                self.progressed_at = self._clock.now()
            if self._sink is None:
                self._before_relay(block, meaningful, ended)
            elif block:
                self._sink.on_events(block)
            if ended:
                self._on_stream_end()
        except UpstreamError as failure:
            self._fail(failure)

    def on_failure(self, error: object) -> None:
        if self._ended is not False:
            return
        if self._streaming and self._reading.done:
            self._finish()  # the answer is whole; how its connection ends afterwards does not matter
            return
        kind, detail = getattr(error, "kind", "reset"), getattr(error, "detail", "")
        self._fail(UpstreamError(_TRANSPORT_KINDS.get(kind, FailureKind.NETWORK), f"{kind} {detail}".strip()))

    def _before_relay(self, block: bytes, meaningful: bool, ended: bool) -> None:
        # a first token may be large; what comes before it may not
        self._hold(block, MAX_ANSWER_BYTES if meaningful or self._listener is None else MAX_HELD_BYTES)
        if meaningful and self._listener is not None and not ended:
            listener, self._listener = self._listener, None
            listener.on_first_token()

    def _on_stream_end(self) -> None:
        rest = self._reading.ended()
        if rest:
            if self._sink is not None:
                self._sink.on_events(rest)
            else:
                self._hold(rest, MAX_ANSWER_BYTES)
        self._finish()

    def _on_body(self, data: bytes, ended: bool) -> None:
        self._hold(data, MAX_ANSWER_BYTES if self._status == 200 else MAX_ERROR_BYTES)
        if not ended:
            return
        body = b"".join(self._held)
        if self._status == 200:
            self._held = [self._reading.whole(body)]
            self._finish()
            return
        hint = (self._error_type,) if self._error_type else ()
        failure = self._failure_of(self._status, body, *hint)
        failure.status = self._status
        if failure.retry_after is None:
            failure.retry_after = self._retry_after
        raise failure

    def _hold(self, data: bytes, limit: int) -> None:
        self._held_bytes += len(data)
        if self._held_bytes > limit:
            if self._status != 200:
                return
            raise UpstreamError(FailureKind.BAD_PAYLOAD, f"more than {limit} bytes without an answer in them")
        if data:
            self._held.append(data)

    def _inflated(self, data: bytes, ended: bool) -> bytes:
        inflate = self._inflate
        assert inflate is not None
        try:
            data = inflate.decompress(data, MAX_ANSWER_BYTES)
        except zlib.error as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, f"content-encoding: {error}") from None
        if inflate.unconsumed_tail:
            raise UpstreamError(
                FailureKind.BAD_PAYLOAD, f"more than {MAX_ANSWER_BYTES} bytes out of one compressed read"
            )
        if ended and not inflate.eof:
            raise UpstreamError(FailureKind.TRUNCATED, "the compressed body ended too early")
        return data

    def _finish(self) -> None:
        self._ended = True
        if self._sink is not None:
            self._sink.on_end(None)
        elif self._listener is not None:
            listener, self._listener = self._listener, None
            listener.on_first_token()

    def _fail(self, failure: UpstreamError) -> None:
        if self._ended is not False:
            return
        self._ended = failure
        if self._sink is not None:
            self._sink.on_end(failure)
        elif self._listener is not None:
            listener, self._listener = self._listener, None
            listener.on_failed(failure)
        # otherwise the first token has come and nobody relays yet: `relay` tells the sink


_TRANSPORT_KINDS: Final = {
    "connect": FailureKind.CONNECT,
    "dns": FailureKind.CONNECT,
    "tls": FailureKind.CONNECT,
    "connect_timeout": FailureKind.CONNECT_TIMEOUT,
    "eof": FailureKind.NETWORK,
    "reset": FailureKind.NETWORK,
    "protocol": FailureKind.BAD_PAYLOAD,
}


def _seconds(value: bytes, wall: float) -> float | None:
    """`Retry-After` in seconds from now, a number or a date (RFC 9110, 10.2.3); None when it is neither or absurd."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(value.decode("ascii")).timestamp() - wall)
        except (ValueError, UnicodeDecodeError):
            return None
    return seconds if 0 <= seconds < 86_400 else None
