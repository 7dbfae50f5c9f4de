"""What an upstream's bytes mean and what the caller gets of them: passed on as they came, or translated.

One `Reading` serves one attempt. It is fed the body of the upstream's answer and knows when that is whole.
"""

from __future__ import annotations

from typing import Protocol

from penstock.core.errors import FailureKind, PenstockError, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Request, Usage
from penstock.wire.canonical import (
    MEANS_SOMETHING,
    AnswerReader,
    AnswerWriter,
    Counted,
    Delta,
    Finish,
    TextDelta,
)
from penstock.wire.prompts import BYTES_PER_TOKEN
from penstock.wire.sse import EventCutter, data_of


class Reading:
    """What is common to all. A class and not a Protocol: compiled, calls to it are then calls in C."""

    __slots__ = ()

    keeps_type = False
    """What the answer is, its upstream's content-type says; else it is JSON, or server-sent events."""

    @property
    def done(self) -> bool:
        """Nothing that matters can follow, so how the connection ends does not matter either."""
        raise NotImplementedError

    @property
    def finish_reason(self) -> str | None:
        return None

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Bytes of a stream: whole events for the caller, and whether any of them was a token or an end.

        Raises `UpstreamError` at an error event, and at what is not the dialect.
        """
        raise NotImplementedError

    def ended(self) -> bytes:
        """The stream ended cleanly: what remains to be said. Raises `UpstreamError` (truncated) if it was not whole."""
        raise NotImplementedError

    def whole(self, body: bytes) -> bytes:
        """A plain answer, for the caller. Raises `UpstreamError`."""
        raise NotImplementedError

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        """What it cost so far, and who says so."""
        raise NotImplementedError

    def final_response(self) -> bytes | None:
        """The whole answer as one object of the Responses API, once it is whole; None in other dialects."""
        return None

    def broken(self, error: PenstockError) -> bytes | None:
        """The last event of a stream that broke, where that depends on what was said before; None: it does not."""
        return None


class PlainWriter:
    """For dialects that keep no answers, and whose error events do not depend on what was said."""

    __slots__ = ()

    def final_response(self) -> bytes | None:
        return None

    def failed_event(self, error: PenstockError) -> bytes | None:
        return None


class Meter(Protocol):
    """Reads an answer of the caller's own dialect as it goes by; changes nothing but what it is told to leave out."""

    @property
    def terminator(self) -> bytes: ...

    @property
    def done(self) -> bool: ...

    @property
    def finish_reason(self) -> str | None: ...

    @property
    def complete(self) -> bool: ...

    def events(self, block: bytes, strip_usage: bool) -> tuple[bytes, bool]: ...

    def answer(self, body: bytes) -> None: ...

    def billed(self, request: Request) -> tuple[Usage, UsageSource]: ...


class Passing(Reading):
    """The same dialect on both sides: events go on as they came, and a meter reads them."""

    __slots__ = ("_cutter", "_strip_usage", "meter")

    def __init__(self, meter: Meter, strip_usage: bool = False) -> None:
        self.meter = meter
        self._strip_usage = strip_usage
        self._cutter: EventCutter | None = None  # only a stream has one

    @property
    def done(self) -> bool:
        return self.meter.done

    @property
    def finish_reason(self) -> str | None:
        return self.meter.finish_reason

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        cutter = self._cutter
        if cutter is None:
            cutter = self._cutter = EventCutter()
        block = cutter.feed(data)
        if self.meter.done:  # what a server may say after its last word is nobody's business
            return b"", False
        return self.meter.events(block, self._strip_usage) if block else (b"", False)

    def ended(self) -> bytes:
        meter, cutter, last = self.meter, self._cutter, b""
        if cutter is not None and cutter.holds_data and not meter.done:
            rest = cutter.rest().rstrip(b"\n")
            try:  # some servers leave out the last blank line
                last = meter.events(rest + b"\n\n", self._strip_usage)[0] if data_of(rest) else b""
            except UpstreamError:
                raise truncated() from None
        if not meter.complete:
            raise truncated()
        return last if meter.done else last + meter.terminator

    def whole(self, body: bytes) -> bytes:
        self.meter.answer(body)
        return body

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        return self.meter.billed(request)


class Translated(Reading):
    """Two dialects: an upstream's events become deltas, and the deltas events for the caller.

    Streams that are not server-sent events override `_read` and `_read_rest`.
    """

    __slots__ = ("_cutter", "_done", "_finish_reason", "_reader", "_tokens_seen", "usage", "writer")

    def __init__(self, reader: AnswerReader, writer: AnswerWriter) -> None:
        self._reader, self.writer = reader, writer
        self._cutter = EventCutter()
        self._tokens_seen = 0
        self._done = False
        self._finish_reason: str | None = None
        self.usage: Usage | None = None

    @property
    def done(self) -> bool:
        return self._done

    @property
    def finish_reason(self) -> str | None:
        return self._finish_reason

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        return (b"", False) if self._done else self._tell(self._read(data))

    def ended(self) -> bytes:
        try:
            last, _ = self._tell(self._read_rest())
        except UpstreamError:
            raise truncated() from None
        if not self._reader.complete:
            raise truncated()
        self._done = True
        return last + self.writer.end()

    def _read(self, data: bytes) -> list[Delta]:
        block = self._cutter.feed(data)
        deltas: list[Delta] = []
        if block:
            for event in block[:-2].split(b"\n\n"):
                payload = data_of(event)
                if payload:
                    deltas += self._reader.event(checked(payload))
        return deltas

    def _read_rest(self) -> list[Delta]:
        """Some servers leave out the last blank line."""
        payload = data_of(self._cutter.rest().rstrip(b"\n"))
        return self._reader.event(checked(payload)) if payload else []

    def _tell(self, deltas: list[Delta]) -> tuple[bytes, bool]:
        meaningful = False
        for delta in deltas:
            if isinstance(delta, MEANS_SOMETHING):
                meaningful = True
                self._tokens_seen += 1
                if isinstance(delta, Finish):
                    self._finish_reason = delta.reason
            elif isinstance(delta, Counted):
                self.usage = delta.usage
        return (self.writer.events(deltas) if deltas else b""), meaningful

    def whole(self, body: bytes) -> bytes:
        deltas = self._reader.whole(checked(body))
        self._tell_nobody(deltas)
        return self.writer.whole(deltas)

    def final_response(self) -> bytes | None:
        return self.writer.final_response()

    def broken(self, error: PenstockError) -> bytes | None:
        return self.writer.failed_event(error)

    def _tell_nobody(self, deltas: list[Delta]) -> None:
        self._done = True
        for delta in deltas:
            if isinstance(delta, Finish):
                self._finish_reason = delta.reason
            elif isinstance(delta, Counted):
                self.usage = delta.usage
            elif isinstance(delta, TextDelta):
                self._tokens_seen += max(1, len(delta.text) // BYTES_PER_TOKEN)

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        if self.usage is not None:
            source = UsageSource.PROVIDER if self._reader.complete else UsageSource.PROVIDER_PARTIAL
            return self.usage, source
        if self._tokens_seen:
            return Usage(request.prompt_tokens, self._tokens_seen), UsageSource.ESTIMATE
        return Usage(), UsageSource.NONE


def checked(payload: bytes) -> bytes:
    """What is copied into our own answer must be text. Raises `UpstreamError`."""
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
    return payload


def truncated() -> UpstreamError:
    return UpstreamError(FailureKind.TRUNCATED, "the stream ended without its terminal event")
