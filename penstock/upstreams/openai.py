"""Any server that speaks OpenAI's chat and completions dialect: vLLM, SGLang, llama.cpp, Ollama, providers, our engine.

Same dialect in and out, so events pass through as they came; the meter reads each one on the way. The first token, not
the first byte, is what ends the wait: comments, role-only and empty deltas are held back until something follows.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.clock import Clock
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Endpoint, Request, Usage
from penstock.resilience.failures import kind_of_status
from penstock.upstreams.base import Call, Listener, Sink, Transport, Upstream
from penstock.wire.openai_chat import Meter, upstream_body
from penstock.wire.openai_shapes import Said, Wrapped
from penstock.wire.sse import EventCutter

MAX_ERROR_BYTES: Final = 64 * 1024  # of an error body; the rest is not kept
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024  # of a plain answer
MAX_HELD_BYTES: Final = 1024 * 1024  # of events before the first token; who talks so long and says nothing is broken
_DONE: Final = b"data: [DONE]\n\n"


class OpenAIUpstream:
    """One replica. `served` is its own name for the model (None: the caller's), `secret` goes out as a bearer token."""

    __slots__ = ("_clock", "_prefixes", "_served", "_transport")

    def __init__(
        self, transport: Transport, clock: Clock, *, base_path: str, served: str | None, secret: str | None
    ) -> None:
        self._transport, self._clock = transport, clock
        self._served = None if served is None else msgspec.Raw(msgspec.json.encode(served))
        headers = (
            f"host: {transport.host.decode('ascii')}\r\ncontent-type: application/json\r\nuser-agent: penstock\r\n"
        )
        if secret is not None:
            if any(ord(c) < 33 or ord(c) > 126 for c in secret):
                raise ValueError("a credential must be printable ASCII without spaces")
            headers += f"authorization: Bearer {secret}\r\n"
        self._prefixes = {
            endpoint: f"POST {base_path}/{path} HTTP/1.1\r\n{headers}".encode("ascii")
            for endpoint, path in ((Endpoint.CHAT, "chat/completions"), (Endpoint.COMPLETION, "completions"))
        }

    def open(self, request: Request, listener: Listener) -> OpenAIStream:
        stream = OpenAIStream(request, listener, self._clock)
        body = upstream_body(request, self._served)
        stream.call = self._transport.send(self._prefixes[request.endpoint], b"", body, stream)
        return stream


class OpenAIStream:
    """One answer: the transport's receiver on one side, a `Stream` on the other."""

    __slots__ = (
        "_clock", "_cutter", "_ended", "_held", "_held_bytes", "_listener", "_meter", "_request", "_retry_after",
        "_sink", "_status", "call", "progressed_at",
    )  # fmt: skip

    def __init__(self, request: Request, listener: Listener, clock: Clock) -> None:
        self._request, self._clock = request, clock
        self._listener: Listener | None = listener
        self._sink: Sink | None = None
        self._meter = Meter()
        self._cutter: EventCutter | None = None  # only a stream has one
        self._held: list[bytes] = []  # events before the first token; or the pieces of a plain or error body
        self._held_bytes = 0
        self._status = 0
        self._retry_after: float | None = None
        self._ended: UpstreamError | bool = False  # True: ended whole
        self.call: Call | None = None
        self.progressed_at = clock.now()

    # --- Stream ---

    @property
    def plain(self) -> bytes | None:
        return None if self._request.stream else b"".join(self._held)

    @property
    def finish_reason(self) -> str | None:
        return self._meter.finish_reason

    def usage(self) -> tuple[Usage, UsageSource]:
        return self._meter.billed(self._request)

    def relay(self, sink: Sink) -> None:
        self._sink = sink
        held, self._held = self._held, []
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
        kind = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value
            elif name == b"retry-after":
                self._retry_after = _seconds(value)
        if status == 200 and self._request.stream:
            if kind and not kind.lower().startswith(b"text/event-stream"):
                self._fail(UpstreamError(FailureKind.BAD_PAYLOAD, f"a stream was asked for, {kind[:60]!r} came"))
                return
            self._cutter = EventCutter()

    def on_data(self, data: bytes, ended: bool) -> None:
        if self._ended is not False:
            return
        cutter = self._cutter
        try:
            if cutter is None:
                self._on_body(data, ended)
                return
            block = cutter.feed(data)
            if block:
                block, meaningful = self._meter.events(block, not self._request.include_usage)
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
        if self._meter.done:  # the answer is whole; how its connection ends afterwards does not matter
            self._finish()
            return
        kind, detail = getattr(error, "kind", "reset"), getattr(error, "detail", "")
        self._fail(UpstreamError(_TRANSPORT_KINDS.get(kind, FailureKind.NETWORK), f"{kind} {detail}".strip()))

    def _before_relay(self, block: bytes, meaningful: bool, ended: bool) -> None:
        self._hold(block)
        if meaningful and self._listener is not None and not ended:
            listener, self._listener = self._listener, None
            listener.on_first_token()

    def _on_stream_end(self) -> None:
        if not self._meter.complete or (self._cutter is not None and self._cutter.holds_data):
            raise UpstreamError(FailureKind.TRUNCATED, "the stream ended without its terminal event")
        if not self._meter.done:  # servers that never say [DONE]; our callers' clients wait for it
            if self._sink is not None:
                self._sink.on_events(_DONE)
            else:
                self._hold(_DONE)
        self._finish()

    def _on_body(self, data: bytes, ended: bool) -> None:
        self._hold(data)
        if not ended:
            return
        body = b"".join(self._held)
        if self._status == 200:
            self._meter.answer(body)
            self._held = [body]
            self._finish()
            return
        kind = kind_of_status(self._status)
        raise UpstreamError(
            kind,
            f"status {self._status}",
            retry_after=self._retry_after,
            status=self._status,
            body=_error_body(body) if kind is FailureKind.REJECTED else b"",
        )

    def _hold(self, data: bytes) -> None:
        self._held_bytes += len(data)
        if self._cutter is not None:
            # a committed stream holds at most what came between its first token and the caller's next turn
            limit = MAX_HELD_BYTES if self._listener is not None else MAX_ANSWER_BYTES
        else:
            limit = MAX_ANSWER_BYTES if self._status == 200 else MAX_ERROR_BYTES
        if self._held_bytes > limit:
            if self._status != 200:
                return
            raise UpstreamError(FailureKind.BAD_PAYLOAD, f"more than {limit} bytes without an answer in them")
        if data:
            self._held.append(data)

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


def _seconds(value: bytes) -> float | None:
    """`Retry-After` in seconds; its date form is not used by model servers and is ignored. RFC 9110, 10.2.3."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None


def _error_body(body: bytes) -> bytes:
    """An upstream's own words about the request, wrapped (OpenAI) or bare (older vLLM); b"" when it has none."""
    try:
        said = msgspec.json.decode(body, type=Wrapped).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        try:
            said = msgspec.json.decode(body, type=Said)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return b""
    return msgspec.json.encode({"error": said})


_: type[Upstream] = OpenAIUpstream
