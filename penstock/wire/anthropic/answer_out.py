"""Deltas, written for a caller who speaks Messages: events of a stream, and whole bodies.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming. Blocks follow one another, each whole: while a
tool call is open, whatever belongs elsewhere waits until the answer has ended, because more of the call may still come
(other dialects interleave their calls). Nothing follows `message_delta` but `message_stop`, so it waits for the usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.core.request import Usage
from penstock.wire.anthropic import usage as tokens
from penstock.wire.anthropic.blocks import Piece, Pieces
from penstock.wire.canonical import (
    AnswerWriter,
    Asked,
    Begin,
    Counted,
    Delta,
    Finish,
    FinishReason,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from penstock.wire.readings import PlainWriter

PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'

REASONS: Final = {
    FinishReason.STOP: "end_turn",
    FinishReason.STOP_SEQUENCE: "stop_sequence",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.CONTEXT: "model_context_window_exceeded",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.REFUSAL: "refusal",
    FinishReason.PAUSE: "pause_turn",
}
_CHARACTERS_PER_TOKEN: Final = 4  # an estimate, for upstreams that never count
_encode = msgspec.json.Encoder().encode


class MessagesWriter(PlainWriter):
    """One answer. `PING` may be put between any two events that it gives."""

    __slots__ = (
        "_asked", "_begun", "_characters", "_finish", "_next", "_open", "_pieces", "_refused", "_told_all", "_usage",
    )  # fmt: skip

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._pieces = Pieces(asked)
        self._open: Piece | None = None
        self._next = 0  # place of the first block that has not begun
        self._begun = self._told_all = self._refused = False
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._characters = 0  # of text, thinking and arguments

    def events(self, deltas: list[Delta]) -> bytes:
        out: list[bytes] = []
        for delta in deltas:
            if self._told_all:
                break
            self._begin(delta, out)
            self._take(delta)
            piece = None if self._finish is not None else self._pieces.add(delta)
            if piece is not None:
                self._tell(piece, out)
            elif isinstance(delta, Finish):
                self._tell_the_rest(out)
            elif isinstance(delta, Counted) and self._finish is not None:
                self._message_delta(out)
        return b"".join(out)

    def end(self) -> bytes:
        out: list[bytes] = []
        if not self._told_all:
            self._begin(Begin(), out)
            self._tell_the_rest(out)
            self._message_delta(out)
        out.append(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        return b"".join(out)

    def whole(self, deltas: list[Delta]) -> bytes:
        for delta in deltas:
            self._take(delta)
            self._pieces.add(delta)
        reason, sequence = self._stop()
        content = [piece.whole() for piece in self._pieces.list]
        return _encode(self._message(content, reason, sequence, self._counted()))

    def _take(self, delta: Delta) -> None:
        """Remember what the end of the answer needs. The first reason to finish counts, and the last usage."""
        match delta:
            case Finish():
                self._finish = self._finish or delta
            case Counted(usage):
                self._usage = usage
            case TextDelta(text=text) | ThinkingDelta(text=text) | ToolCallDelta(arguments=text):
                self._characters += len(text)
            case RefusalDelta(text):
                self._refused = True
                self._characters += len(text)

    def _begin(self, delta: Delta, out: list[bytes]) -> None:
        if self._begun:
            return
        self._begun = True
        usage = delta.usage if isinstance(delta, Begin) else None
        message = self._message([], None, None, usage or Usage(self._asked.prompt_tokens))
        out.append(_event("message_start", message=message))

    def _tell(self, piece: Piece, out: list[bytes]) -> None:
        """What `piece` has got, if it is its turn: an open tool call keeps it from all others."""
        opened = self._open
        if piece is not opened:
            if opened is not None and opened.kind == "tool_use":
                return
            while self._next <= piece.place:  # the signature of a call comes with its call, as a block before it
                self._start(self._pieces.list[self._next], out)
        self._deltas(piece, out)

    def _tell_the_rest(self, out: list[bytes]) -> None:
        for piece in self._pieces.list[self._next :]:
            self._start(piece, out)
            self._deltas(piece, out)
        self._close(out)

    def _start(self, piece: Piece, out: list[bytes]) -> None:
        self._close(out)
        self._open, self._next = piece, piece.place + 1
        out.append(_event("content_block_start", index=piece.place, content_block=piece.start()))

    def _deltas(self, piece: Piece, out: list[bytes]) -> None:
        out += [_event("content_block_delta", index=piece.place, delta=delta) for delta in piece.deltas()]

    def _close(self, out: list[bytes]) -> None:
        piece, self._open = self._open, None
        if piece is None:
            return
        if piece.sealed is not None:
            delta = {"type": "signature_delta", "signature": piece.sealed}
            out.append(_event("content_block_delta", index=piece.place, delta=delta))
        out.append(_event("content_block_stop", index=piece.place))

    def _message_delta(self, out: list[bytes]) -> None:
        self._told_all = True
        reason, sequence = self._stop()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        out.append(_event("message_delta", delta=delta, usage=tokens.fields(self._counted())))

    def _message(
        self, content: Sequence[object], reason: str | None, sequence: str | None, usage: Usage
    ) -> dict[str, object]:
        return {
            "id": "msg_" + self._asked.id.removeprefix("req_"),
            "type": "message",
            "role": "assistant",
            "model": self._asked.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": tokens.fields(usage),
        }

    def _stop(self) -> tuple[str, str | None]:
        """Some upstreams say `stop` where they mean their tool calls; few say which text has stopped them."""
        finish = self._finish or Finish(FinishReason.STOP)
        reason, called = finish.reason, bool(self._pieces.calls)
        if reason is FinishReason.STOP and (called or self._refused):
            reason = FinishReason.TOOL_CALLS if called else FinishReason.REFUSAL
        elif reason is FinishReason.TOOL_CALLS and not called:
            reason = FinishReason.STOP
        sequence = finish.stop_sequence
        if reason is FinishReason.STOP_SEQUENCE and sequence is None and self._asked.ask is not None:
            stop = self._asked.ask.stop
            sequence = stop[0] if len(stop) == 1 else None
        return REASONS[reason], sequence

    def _counted(self) -> Usage:
        if self._usage is not None:
            return self._usage
        return Usage(self._asked.prompt_tokens, -(-self._characters // _CHARACTERS_PER_TOKEN))


def _event(type: str, **members: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type.encode(), _encode({"type": type, **members}))


_: type[AnswerWriter] = MessagesWriter
