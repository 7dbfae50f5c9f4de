"""Amazon Bedrock's Converse and ConverseStream, the answer: whole, or as event-stream messages, or a failure.

Sources: the Amazon Bedrock API reference (Converse, ConverseStream) and the service model that botocore ships.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from typing import Any, Final

import msgspec

from penstock.core.errors import FailureKind, Said, UpstreamError, kind_of_status
from penstock.core.request import Usage
from penstock.wire.canonical import (
    AnswerReader,
    Ask,
    Begin,
    Citation,
    Counted,
    Delta,
    Finish,
    FinishReason,
    Redacted,
    TextDelta,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallBegin,
    ToolCallDelta,
    compact,
)
from penstock.wire.converse_turns import origin_of
from penstock.wire.eventstream import Message
from penstock.wire.prompts import UNREADABLE
from penstock.wire.tool_names import ToolNames

_NOTHING: Final = msgspec.Raw()  # a union with None would decode nothing but null


class _ToolUse(msgspec.Struct, gc=False):
    toolUseId: str
    name: str
    input: msgspec.Raw = _NOTHING


class _ReasoningText(msgspec.Struct, gc=False):
    text: str = ""
    signature: str | None = None


class _Reasoning(msgspec.Struct, gc=False):
    """Of a whole answer, where text and signature stand together; of a delta, where they come one by one."""

    reasoningText: _ReasoningText | None = None
    text: str | None = None
    signature: str | None = None
    redactedContent: str | None = None


class _CitedText(msgspec.Struct, gc=False):
    text: str = ""


class _Citations(msgspec.Struct, gc=False):
    content: list[_CitedText] = []
    citations: list[msgspec.Raw] = []


class _Block(msgspec.Struct, gc=False):
    text: str | None = None
    toolUse: _ToolUse | None = None
    reasoningContent: _Reasoning | None = None
    citationsContent: _Citations | None = None
    image: Any = None
    audio: Any = None


class _PartialInput(msgspec.Struct, gc=False):
    input: str = ""


class _BlockDelta(msgspec.Struct, gc=False):
    text: str | None = None
    toolUse: _PartialInput | None = None
    reasoningContent: _Reasoning | None = None
    citation: msgspec.Raw = _NOTHING
    image: Any = None


class _Start(msgspec.Struct, gc=False):
    toolUse: _ToolUse | None = None
    image: Any = None


class _BlockStart(msgspec.Struct, gc=False):
    start: _Start
    contentBlockIndex: int = 0


class _BlockDeltaEvent(msgspec.Struct, gc=False):
    delta: _BlockDelta
    contentBlockIndex: int = 0


class _BlockStop(msgspec.Struct, gc=False):
    contentBlockIndex: int = 0


class _Stop(msgspec.Struct, gc=False):
    stopReason: str
    additionalModelResponseFields: Any = None


class _CacheDetail(msgspec.Struct, gc=False):
    ttl: str = ""
    inputTokens: int = 0


class _Usage(msgspec.Struct, gc=False):
    inputTokens: int = 0
    outputTokens: int = 0
    cacheReadInputTokens: int | None = None
    cacheWriteInputTokens: int | None = None
    cacheDetails: list[_CacheDetail] | None = None


class _Metadata(msgspec.Struct, gc=False):
    usage: _Usage | None = None


class _AnswerMessage(msgspec.Struct, gc=False):
    content: list[_Block]


class _Output(msgspec.Struct, gc=False):
    message: _AnswerMessage


class _Answer(msgspec.Struct, gc=False):
    output: _Output
    stopReason: str
    additionalModelResponseFields: Any = None
    usage: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_block_start = msgspec.json.Decoder(_BlockStart).decode
_block_delta = msgspec.json.Decoder(_BlockDeltaEvent).decode
_block_stop = msgspec.json.Decoder(_BlockStop).decode
_stop = msgspec.json.Decoder(_Stop).decode
_metadata = msgspec.json.Decoder(_Metadata).decode

_REASONS: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.CONTEXT,
    "tool_use": FinishReason.TOOL_CALLS,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
    "pause_turn": FinishReason.PAUSE,
}
_BROKEN: Final = frozenset({"malformed_model_output", "malformed_tool_use"})


class ConverseReader:
    """Reads one answer to `ask`. Implements `AnswerReader` for whole answers; a stream is fed by `message`.

    `complete` at messageStop: the usage that follows it belongs to the receipt, not to the answer.
    """

    __slots__ = ("_calls", "_names", "_origin", "_redacted", "complete")

    def __init__(self, ask: Ask, *, served: str) -> None:
        self._names = ToolNames.of(ask)
        self._origin = origin_of(served)
        self._calls: dict[int, int] = {}  # content block to call
        self._redacted: dict[int, bytes] = {}  # content block to what has come of it
        self.complete = False

    def message(self, message: Message) -> list[Delta]:
        """One message of a stream. Raises `UpstreamError`: an exception, or not this dialect."""
        if message.kind != "event":
            raise failure_of_message(message)
        try:
            return self._event(message.name, message.payload)
        except (*UNREADABLE, NotBase64) as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, f"{message.name[:40]}: {error}") from None

    def event(self, data: bytes) -> list[Delta]:
        raise UpstreamError(FailureKind.BAD_PAYLOAD, "server-sent events from Converse, which has none")

    def whole(self, body: bytes) -> list[Delta]:
        try:
            answer = _answer(body)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        deltas: list[Delta] = [Begin()]
        for block in answer.output.message.content:
            deltas += self._whole_block(block)
        deltas.append(self._finish(answer))
        if answer.usage is not None:
            deltas.append(Counted(_usage(answer.usage)))
        return deltas

    def _event(self, name: str, payload: bytes) -> list[Delta]:
        match name:
            case "contentBlockDelta":
                seen = _block_delta(payload)
                return self._delta(seen.contentBlockIndex, seen.delta)
            case "contentBlockStart":
                begun = _block_start(payload)
                _refuse_media(begun.start.image)
                if begun.start.toolUse is None:
                    return []
                index = self._calls[begun.contentBlockIndex] = len(self._calls)
                return [self._call(index, begun.start.toolUse)]
            case "contentBlockStop":
                return self._unheld(_block_stop(payload).contentBlockIndex)
            case "messageStart":
                return [Begin()]
            case "messageStop":
                held = [delta for block in list(self._redacted) for delta in self._unheld(block)]
                return [*held, self._finish(_stop(payload))]
            case "metadata":
                usage = _metadata(payload).usage
                return [] if usage is None else [Counted(_usage(usage))]
        return []  # an event that did not exist when this was written

    def _delta(self, block: int, delta: _BlockDelta) -> list[Delta]:
        if delta.text is not None:
            return [TextDelta(delta.text)] if delta.text else []
        if delta.toolUse is not None:
            if block not in self._calls:
                raise UpstreamError(FailureKind.BAD_PAYLOAD, f"arguments of block {block}, which is no tool call")
            return [ToolCallDelta(self._calls[block], delta.toolUse.input)] if delta.toolUse.input else []
        reasoning = delta.reasoningContent
        if reasoning is not None:
            if reasoning.redactedContent:  # in pieces of base64, each with its own padding
                piece = b64decode(reasoning.redactedContent, validate=True)
                self._redacted[block] = self._redacted.get(block, b"") + piece
            return self._thought(reasoning.text, reasoning.signature)
        _refuse_media(delta.image)
        return [Citation(delta.citation)] if _is_object(delta.citation) else []

    def _whole_block(self, block: _Block) -> list[Delta]:
        if block.text is not None:
            return [TextDelta(block.text)] if block.text else []
        if block.toolUse is not None:
            index = self._calls[len(self._calls)] = len(self._calls)
            arguments = block.toolUse.input
            return [
                self._call(index, block.toolUse),
                ToolCallDelta(index, compact(arguments)),
            ]
        reasoning = block.reasoningContent
        if reasoning is not None:
            if reasoning.redactedContent is not None:
                return self._sealed(reasoning.redactedContent)
            said = reasoning.reasoningText
            return [] if said is None else self._thought(said.text, said.signature)
        cited = block.citationsContent
        if cited is not None:
            said_here: list[Delta] = [TextDelta(piece.text) for piece in cited.content if piece.text]
            return said_here + [Citation(raw) for raw in cited.citations]
        _refuse_media(block.image, block.audio)
        return []

    def _call(self, index: int, use: _ToolUse) -> ToolCallBegin:
        return ToolCallBegin(index, use.toolUseId, self._names.home(use.name))

    def _thought(self, text: str | None, signature: str | None) -> list[Delta]:
        deltas: list[Delta] = [ThinkingDelta(text)] if text else []
        if signature and self._origin is not None:
            deltas.append(ThinkingEnd(signature, self._origin))
        return deltas

    def _unheld(self, block: int) -> list[Delta]:
        redacted = self._redacted.pop(block, None)
        return [] if redacted is None else self._sealed(b64encode(redacted).decode())

    def _sealed(self, data: str) -> list[Delta]:
        return [] if self._origin is None else [Redacted(data, self._origin)]

    def _finish(self, stop: _Stop | _Answer) -> Finish:
        if stop.stopReason in _BROKEN:
            raise UpstreamError(FailureKind.SERVER_ERROR, f"stopReason {stop.stopReason}")
        self.complete = True
        reason = _REASONS.get(stop.stopReason, FinishReason.STOP)
        if reason is not FinishReason.STOP_SEQUENCE or not isinstance(stop.additionalModelResponseFields, dict):
            return Finish(reason)
        sequence = stop.additionalModelResponseFields.get("stop_sequence")
        return Finish(reason, sequence if isinstance(sequence, str) else None)


def _is_object(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b"{"


def _refuse_media(*media: object) -> None:
    if any(medium is not None for medium in media):
        raise UpstreamError(FailureKind.BAD_PAYLOAD, "the answer holds an image or sound, which cannot be told")


def _usage(seen: _Usage) -> Usage:
    """`inputTokens` are those that were neither read from the cache nor written to it."""
    read, written = seen.cacheReadInputTokens or 0, seen.cacheWriteInputTokens or 0
    return Usage(
        prompt_tokens=seen.inputTokens + read + written,
        completion_tokens=seen.outputTokens,
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=sum(detail.inputTokens for detail in seen.cacheDetails or () if detail.ttl == "1h"),
    )


# --- failures --------------------------------------------------------------------------------------------------------


class _Failure(msgspec.Struct, gc=False):
    message: str | None = None
    Message: str | None = None  # some of AWS's front ends
    type: str | None = msgspec.field(default=None, name="__type")
    originalStatusCode: int | None = None
    originalMessage: str | None = None


_failure = msgspec.json.Decoder(_Failure).decode

_KINDS: Final = {
    "AccessDeniedException": FailureKind.AUTH,
    "ExpiredTokenException": FailureKind.AUTH,
    "IncompleteSignature": FailureKind.AUTH,
    "InvalidSignatureException": FailureKind.AUTH,
    "UnrecognizedClientException": FailureKind.AUTH,
    "InternalServerException": FailureKind.SERVER_ERROR,
    "ModelErrorException": FailureKind.SERVER_ERROR,
    "ModelNotReadyException": FailureKind.OVERLOADED,
    "ModelStreamErrorException": FailureKind.SERVER_ERROR,
    "ModelTimeoutException": FailureKind.SERVER_ERROR,
    "ResourceNotFoundException": FailureKind.MISCONFIGURED,
    "ServiceQuotaExceededException": FailureKind.QUOTA,
    "ServiceUnavailableException": FailureKind.OVERLOADED,
    "ThrottlingException": FailureKind.RATE_LIMITED,
    "ValidationException": FailureKind.REJECTED,
}
_TOO_LONG: Final = (
    "too long",
    "context length",
    "context window",
    "context limit",
    "maximum tokens you requested exceeds",
)
_POLICY: Final = ("content filtering policy", "content policy", "blocked by our content")
_OURS: Final = ("model identifier", "on-demand throughput", "Operation not allowed", "end of its life")


def failure_of(status: int, body: bytes, error_type: str = "") -> UpstreamError:
    """What an answer with another status than 200 means. `error_type` is the header x-amzn-ErrorType, which names the
    exception (and may go on behind a colon); the body alone does so only sometimes."""
    # 424 is the model's failure, not the caller's
    kind = FailureKind.SERVER_ERROR if status == 424 else kind_of_status(status)
    return _failure_from(kind, body, error_type, status)


def failure_of_message(message: Message) -> UpstreamError:
    """What an exception or an error in a stream means."""
    if message.kind == "error":
        detail = message.headers.get(":error-message")
        return UpstreamError(FailureKind.SERVER_ERROR, f"{message.name}: {detail!r}"[:300])
    return _failure_from(FailureKind.SERVER_ERROR, message.payload, message.name, 0)


def _failure_from(kind: FailureKind, body: bytes, error_type: str, status: int) -> UpstreamError:
    try:
        seen = _failure(body)
    except UNREADABLE:
        seen = _Failure()
    name = (error_type or seen.type or "").partition(":")[0].rpartition("#")[2]
    name = name[:1].upper() + name[1:]  # in streams they begin with a small letter
    text = seen.message or seen.Message or seen.originalMessage or ""
    kind = _KINDS.get(name, kind)
    match kind:
        case FailureKind.REJECTED if any(word in text for word in _OURS):
            kind = FailureKind.MISCONFIGURED
        case FailureKind.REJECTED if any(word in text for word in _TOO_LONG):
            kind = FailureKind.CONTEXT_LENGTH
        case FailureKind.REJECTED if any(word in text for word in _POLICY):
            kind = FailureKind.CONTENT_POLICY
        case FailureKind.RATE_LIMITED if "per day" in text:
            kind = FailureKind.QUOTA
        case FailureKind.SERVER_ERROR if seen.originalStatusCode is not None:
            original = kind_of_status(seen.originalStatusCode)
            if original in (FailureKind.RATE_LIMITED, FailureKind.OVERLOADED):
                kind = original
    said = Said(text, code=_CODES[kind]) if kind in _CODES and text else None
    return UpstreamError(
        kind, " ".join(filter(None, (f"status {status}" if status else "", name))), status=status, said=said
    )


_CODES: Final = {
    FailureKind.REJECTED: None,
    FailureKind.CONTEXT_LENGTH: "context_length_exceeded",
    FailureKind.CONTENT_POLICY: "content_policy_violation",
}


_: type[AnswerReader] = ConverseReader
