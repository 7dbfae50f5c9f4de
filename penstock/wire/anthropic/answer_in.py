"""Claude's answers, read into deltas: events of a stream, and whole bodies.

Sources: https://platform.claude.com/docs/en/build-with-claude/streaming and /handling-stop-reasons. New types of
events, blocks and deltas may come at any time (/api/versioning there) and mean nothing to us. Blocks of server tools
are such: a request that was translated cannot have asked for any.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.wire.anthropic.failures import Told, failure_inside
from penstock.wire.anthropic.usage import Tokens, latest
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


class _Block(msgspec.Struct, gc=False):
    type: str
    text: str = ""
    citations: list[msgspec.Raw] | None = None
    thinking: str = ""
    signature: str = ""
    data: object = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Details(msgspec.Struct, gc=False):
    explanation: str | None = None


class _Delta(msgspec.Struct, gc=False):
    """Of a block, or (the last three) of the message."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: msgspec.Raw = msgspec.Raw(b"null")
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _Details | None = None


class _Message(msgspec.Struct, gc=False):
    type: str = ""
    id: str = ""
    model: str = ""
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _Details | None = None
    usage: Tokens | None = None
    error: Told | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Tokens | None = None
    error: Told | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_message = msgspec.json.Decoder(_Message).decode


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
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
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
                usage = None if self._tokens is None else self._tokens.usage()
                return [Begin(id=message.id, model=message.model, usage=usage)]
            case "message_delta":
                self._count(seen.usage)
                delta = seen.delta or _Delta()
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
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
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

    def _start(self, block: _Block) -> list[Delta]:
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

    def _delta(self, delta: _Delta) -> list[Delta]:
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

    def _finish(self, reason: str | None, sequence: str | None, details: _Details | None) -> list[Delta]:
        deltas: list[Delta] = []
        if details is not None and details.explanation:
            deltas.append(RefusalDelta(details.explanation))
        if reason is not None:
            deltas.append(Finish(REASONS.get(reason, FinishReason.STOP), sequence))
        if self._tokens is not None:
            deltas.append(Counted(self._tokens.usage()))
        return deltas


_: type[AnswerReader] = MessagesReader
