"""Claude's answers, read into deltas: events of a stream, and whole bodies.

Sources: https://platform.claude.com/docs/en/build-with-claude/streaming and /handling-stop-reasons. New types of
events, blocks and deltas may come at any time (/api/versioning there) and mean nothing to us. Blocks of server tools
are such: a request that was translated cannot have asked for any.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.wire.anthropic.answer_shapes import Answer, Block, BlockDelta, Event, StopDetails, Tokens, Told
from penstock.wire.anthropic.failures import failure_inside
from penstock.wire.anthropic.usage import latest, usage_of
from penstock.wire.canonical import (
    AnswerReader,
    Begin,
    Citation,
    Counted,
    Delta,
    Finish,
    FinishReason,
    Origin,
    Redacted,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallBegin,
    ToolCallDelta,
)
from penstock.wire.prompts import UNREADABLE
from penstock.wire.tool_names import ToolNames

REASONS: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "pause_turn": FinishReason.PAUSE,
    "refusal": FinishReason.REFUSAL,
    "model_context_window_exceeded": FinishReason.CONTEXT,
}


_decode_event = msgspec.json.Decoder(Event).decode
_decode_message = msgspec.json.Decoder(Answer).decode


class MessagesReader:
    """`names` are those of the request (`tool_names`), so that calls come home under the caller's own names."""

    __slots__ = ("_call", "_calls", "_empty", "_names", "_signature", "_tokens", "complete")

    def __init__(self, names: ToolNames | None = None) -> None:
        self.complete = False
        self._names = names
        self._tokens: Tokens | None = None
        self._calls = 0
        self._call: int | None = None  # of the open block, where that is a tool call
        self._empty = True  # that call has no arguments yet
        self._signature = ""  # of the open block

    def event(self, data: bytes) -> list[Delta]:
        try:
            seen = _decode_event(data)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        match seen.type:
            case "content_block_delta" if seen.delta is not None:
                return self._delta(seen.delta)
            case "content_block_start" if seen.content_block is not None:
                return self._start(seen.content_block)
            case "content_block_stop":
                return self._stop()
            case "message_start" if seen.message is not None:
                message = seen.message
                self._count(message.usage)
                usage = None if self._tokens is None else usage_of(self._tokens)
                return [Begin(id=message.id, model=message.model, usage=usage)]
            case "message_delta":
                self._count(seen.usage)
                delta = seen.delta or BlockDelta()
                return self._finish(delta.stop_reason, delta.stop_sequence, delta.stop_details)
            case "message_stop":
                self.complete = True
                return []
        if seen.type == "error" or seen.error is not None:
            raise failure_inside(seen.error or Told(), "an error event")
        if not seen.type:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an event without `type`")
        return []

    def whole(self, body: bytes) -> list[Delta]:
        try:
            seen = _decode_message(body)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        if seen.error is not None:
            raise failure_inside(seen.error, "an error with status 200")
        if seen.content is None:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an answer without `content`")
        deltas: list[Delta] = [Begin(id=seen.id, model=seen.model)]
        for block in seen.content:
            deltas += self._start(block)
            deltas += self._stop()
        self._count(seen.usage)
        self.complete = True
        return deltas + self._finish(seen.stop_reason or "end_turn", seen.stop_sequence, seen.stop_details)

    def _start(self, block: Block) -> list[Delta]:
        self._call, self._signature = None, ""
        match block.type:
            case "text":
                deltas: list[Delta] = [TextDelta(block.text)] if block.text else []
                return deltas + [Citation(raw) for raw in block.citations or ()]
            case "thinking":
                self._signature = block.signature
                return [ThinkingDelta(block.thinking)] if block.thinking else []
            case "redacted_thinking" if isinstance(block.data, str):
                return [Redacted(block.data, Origin.ANTHROPIC)]
            case "tool_use":
                self._call, self._empty = self._calls, True
                self._calls += 1
                name = block.name if self._names is None else self._names.home(block.name)
                begin = ToolCallBegin(self._call, block.id, name)
                arguments = bytes(block.input)
                return (
                    [begin] if arguments == b"{}" else [begin, *self._arguments(arguments.decode("utf-8", "replace"))]
                )
        return []

    def _delta(self, delta: BlockDelta) -> list[Delta]:
        match delta.type:
            case "text_delta":
                return [TextDelta(delta.text)] if delta.text else []
            case "input_json_delta" if self._call is not None:
                return self._arguments(delta.partial_json)
            case "thinking_delta":
                return [ThinkingDelta(delta.thinking)] if delta.thinking else []
            case "signature_delta":
                self._signature += delta.signature
            case "citations_delta":
                return [Citation(delta.citation)]
        return []

    def _arguments(self, text: str) -> list[Delta]:
        if self._call is None or not text:
            return []
        self._empty = False
        return [ToolCallDelta(self._call, text)]

    def _stop(self) -> list[Delta]:
        """The end of a block: here a signature is whole, and a call without arguments has an empty object of them."""
        signature, self._signature = self._signature, ""
        deltas: list[Delta] = [ThinkingEnd(signature, Origin.ANTHROPIC)] if signature else []
        if self._call is not None and self._empty:
            deltas += self._arguments("{}")
        self._call = None
        return deltas

    def _count(self, tokens: Tokens | None) -> None:
        if tokens is not None:
            self._tokens = latest(self._tokens, tokens)

    def _finish(self, reason: str | None, sequence: str | None, details: StopDetails | None) -> list[Delta]:
        deltas: list[Delta] = []
        if details is not None and details.explanation:
            deltas.append(RefusalDelta(details.explanation))
        if reason is not None:
            deltas.append(Finish(REASONS.get(reason, FinishReason.STOP), sequence))
        if self._tokens is not None:
            deltas.append(Counted(usage_of(self._tokens)))
        return deltas


_: type[AnswerReader] = MessagesReader
