"""Bedrock's streams, whose events come in binary frames: Converse's own, and Anthropic's inside InvokeModel's."""

from __future__ import annotations

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.wire import hosted_claude
from penstock.wire.anthropic import MessagesMeter
from penstock.wire.canonical import AnswerReader, AnswerWriter, Delta
from penstock.wire.converse_answer import ConverseReader
from penstock.wire.eventstream import EventType, MessageCutter
from penstock.wire.prompts import UNREADABLE
from penstock.wire.readings import Passing, Translated, checked, truncated


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

    __slots__ = ("_converse",)

    def __init__(self, reader: ConverseReader, writer: AnswerWriter) -> None:
        super().__init__(reader, writer)
        self._converse = reader

    def _read(self, data: bytes) -> list[Delta]:
        deltas: list[Delta] = []
        for message in self._frames.feed(data):
            checked(message.payload)
            deltas += self._converse.message(message)
        return deltas


class UnwrappedTranslated(_Framed):
    """Anthropic's events, each in a frame."""

    __slots__ = ()

    def _read(self, data: bytes) -> list[Delta]:
        payloads = [hosted_claude.unwrap_chunk(message) for message in self._frames.feed(data)]
        return [delta for payload in payloads if payload for delta in self._reader.event(checked(payload))]


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
                except UNREADABLE as error:
                    raise UpstreamError(FailureKind.BAD_PAYLOAD, f"chunk: {error}") from None
                events.append(b"event: %b\ndata: %b\n\n" % (name.encode("utf-8"), payload))
        return self.meter.events(b"".join(events), False) if events else (b"", False)

    def ended(self) -> bytes:
        if self._frames.holds_data:
            raise truncated()
        return super().ended()


_named = msgspec.json.Decoder(EventType).decode
