"""Amazon Bedrock: Converse for any model, InvokeModel for Claude in Anthropic's own dialect. Streams are binary frames.

Sources: the API references of Converse, ConverseStream and InvokeModelWithResponseStream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec

from penstock.core.clock import Clock
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.request import Endpoint, Request
from penstock.upstreams.anthropic import refused_flags
from penstock.upstreams.credentials import Authorization
from penstock.upstreams.way import Asking, Way, header_lines
from penstock.wire import converse, hosted_claude
from penstock.wire.anthropic import MessagesMeter, MessagesReader, tool_names, upstream_fields, write_request
from penstock.wire.canonical import AnswerReader, AnswerWriter, Delta
from penstock.wire.converse_answer import ConverseReader, failure_of
from penstock.wire.dialects import CALLERS, translated
from penstock.wire.eventstream import MessageCutter
from penstock.wire.readings import Passing, Translated, checked, truncated

MEDIA: Final = b"application/vnd.amazon.eventstream"
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def converse_ways(
    clock: Clock, host: bytes, *, base_path: str, served: str, authorization: Authorization, lose: Collection[str] = ()
) -> dict[Endpoint, Way]:
    """Any model that Converse has; every dialect of callers is translated."""

    def hub(request: Request) -> Asking:
        return translated(
            request,
            lambda ask, losses: converse.write_request(ask, served=served, losses=losses),
            lambda ask: ConverseReader(ask, served=served),
            lose,
            clock.wall(),
            ConverseTranslated,
        )

    way = _way(host, lambda stream: base_path + converse.path(served, stream=stream), hub, authorization)
    return dict.fromkeys(CALLERS, way)


def invoke_ways(
    clock: Clock,
    host: bytes,
    *,
    base_path: str,
    served: str,
    authorization: Authorization,
    betas: Collection[str] = (),
    lose: Collection[str] = (),
) -> dict[Endpoint, Way]:
    """Claude in its own dialect; flags that Bedrock would not know stay here and are told as lost."""

    def path(stream: bool) -> str:
        return base_path + hosted_claude.bedrock_path(served, stream=stream)

    def messages(request: Request) -> Asking:
        refused = refused_flags(request, betas)
        body = hosted_claude.bedrock_body(
            upstream_fields(request), [flag for flag in request.betas if flag not in refused]
        )
        lost = tuple(f"anthropic-beta.{flag}" for flag in refused)
        return body, Unwrapped(MessagesMeter()), lost

    def hub(request: Request) -> Asking:
        body, reading, lost = translated(
            request,
            lambda ask, losses: write_request(ask, served=served, losses=losses),
            lambda ask: MessagesReader(tool_names(ask)),
            lose,
            clock.wall(),
            UnwrappedTranslated,
        )
        return hosted_claude.bedrock_body(_fields(body)), reading, lost

    through_hub = _way(host, path, hub, authorization)
    return dict.fromkeys(CALLERS, through_hub) | {Endpoint.MESSAGES: _way(host, path, messages, authorization)}


def _way(
    host: bytes, path: Callable[[bool], str], ask: Callable[[Request], Asking], authorization: Authorization
) -> Way:
    def prefix(stream: bool) -> bytes:
        return f"POST {path(stream)} HTTP/1.1\r\n{header_lines(host)}".encode("ascii")

    return Way(
        prefix(False),
        ask,
        failure_of,
        stream_prefix=prefix(True),
        headers=lambda request, body: authorization.headers(path(request.stream), body),
        media=MEDIA,
    )


class _Framed(Translated):
    __slots__ = ("_frames",)

    def __init__(self, reader: AnswerReader, writer: AnswerWriter) -> None:
        super().__init__(reader, writer)
        self._frames = MessageCutter()

    def _read_rest(self) -> list[Delta]:
        if self._frames.holds_data:
            raise truncated()
        return []


class ConverseTranslated(_Framed):
    """The reader takes whole messages, whose headers name the event."""

    __slots__ = ()
    _reader: ConverseReader

    def _read(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        for message in self._frames.feed(data):
            checked(message.payload)
            deltas += self._reader.message(message)
        return deltas


class UnwrappedTranslated(_Framed):
    """Anthropic's events, each in a frame."""

    __slots__ = ()

    def _read(self, data: bytes) -> list[Delta]:
        payloads = [hosted_claude.unwrap_chunk(message) for message in self._frames.feed(data)]
        return [delta for payload in payloads if payload for delta in self._reader.event(checked(payload))]


class _Named(msgspec.Struct, gc=False):
    type: str = ""


class Unwrapped(Passing):
    """Anthropic's events taken out of their frames, for a caller who speaks the dialect."""

    __slots__ = ("_frames",)

    def __init__(self, meter: MessagesMeter) -> None:
        super().__init__(meter)
        self._frames = MessageCutter()

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        events = []
        for message in self._frames.feed(data):
            payload = hosted_claude.unwrap_chunk(message)
            if payload:
                try:
                    name = _named(payload).type
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise UpstreamError(FailureKind.BAD_PAYLOAD, f"chunk: {error}") from None
                events.append(b"event: %b\ndata: %b\n\n" % (name.encode("utf-8"), payload))
        return self.meter.events(b"".join(events), False) if events else (b"", False)

    def ended(self) -> bytes:
        if self._frames.holds_data:
            raise truncated()
        return super().ended()


_named = msgspec.json.Decoder(_Named).decode
