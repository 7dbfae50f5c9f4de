"""The hub between dialects: a request and its answer in words that every chat dialect can be turned into.

Used only where the caller and the upstream speak differently; same-dialect traffic never passes through here. A dialect
module has four functions or classes: a request read into `Ask` and written from it, an answer read into `Delta`s and
written from them. A plain answer is the same deltas, all at once.

What an upstream's dialect has no word for is refused by name through `Losses`, or left out where the configuration
says so, and then the caller is told. Nothing is lost in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, Literal, Protocol

import msgspec

from penstock.core.errors import PenstockError, Untranslatable
from penstock.core.request import Usage

Cache = Literal["5m", "1h"]
"""A prompt-cache breakpoint behind a part, and how long the provider should keep it."""


class Origin(StrEnum):
    """Whose secret a reasoning signature is sealed with. Only they can read it, on any platform that serves them."""

    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    OPENAI = "openai"


# --- what was asked --------------------------------------------------------------------------------------------------


class Text(msgspec.Struct, frozen=True, tag="text"):
    text: str
    cache: Cache | None = None
    citations: msgspec.Raw | None = None  # Anthropic's, of an earlier answer; kept only on the way back to Claude


class Image(msgspec.Struct, frozen=True, tag="image"):
    """Exactly one of `data` (base64, with `media_type`), `url` and `file_id`."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    detail: str | None = None  # OpenAI's low, high, auto
    cache: Cache | None = None


class Document(msgspec.Struct, frozen=True, tag="document"):
    """A PDF or other file: exactly one of `data` (base64), `text`, `url` and `file_id`."""

    media_type: str | None = None
    data: str | None = None
    text: str | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    cache: Cache | None = None


class Audio(msgspec.Struct, frozen=True, tag="audio"):
    data: str  # base64
    format: str  # wav, mp3


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """`arguments` is the JSON text as it was generated: it may be empty, partial or invalid, and stays as it is."""

    id: str
    name: str
    arguments: str
    cache: Cache | None = None
    signature: str | None = None  # Gemini's thought signature of a call


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    call_id: str
    parts: tuple[Text | Image | Document, ...]
    is_error: bool = False
    cache: Cache | None = None


class Thinking(msgspec.Struct, frozen=True, tag="thinking"):
    """Reasoning of an earlier turn. `redacted` is reasoning that only its origin can read: then `text` is empty.

    `signature` and `redacted` are passed on byte for byte, and only to their origin: anyone else would refuse them.
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    origin: Origin | None = None  # None: unsigned


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    text: str


Part = Text | Image | Document | Audio | ToolCall | ToolResult | Thinking | Refusal


class Message(msgspec.Struct, frozen=True):
    """`system` may stand anywhere. Tool results are parts of a user's message, tool calls of the assistant's, in order.

    A trailing assistant message is a prefill: the answer goes on from there.
    """

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]
    name: str | None = None


class Tool(msgspec.Struct, frozen=True):
    name: str
    description: str | None = None
    schema: msgspec.Raw | None = None  # JSON Schema of the arguments, as received
    strict: bool | None = None
    cache: Cache | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """`names`: the one tool of `tool`; the tools of `allowed`, which may or must be used."""

    mode: Literal["auto", "none", "required", "tool", "allowed_auto", "allowed_required"]
    names: tuple[str, ...] = ()


class Format(msgspec.Struct, frozen=True):
    """What the text must be. `schema` and `name` only for `json_schema`."""

    kind: Literal["json_object", "json_schema"]
    name: str | None = None
    schema: msgspec.Raw | None = None
    strict: bool | None = None
    description: str | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """How hard to think: an effort, or a budget in tokens; `off` is an explicit no. All unset: the model decides."""

    effort: str | None = None  # none, minimal, low, medium, high, xhigh, max
    budget: int | None = None
    off: bool = False
    show: bool | None = None  # whether the caller wants to see the reasoning (or its summary)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a chat answer. Fields carry OpenAI's names where it has one; None: the caller did not say.

    `extra` holds the caller's fields that have no place here; writers must refuse (or lose) each by its name.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    max_tokens: int | None = None
    temperature: float | None = None  # 0..2
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: msgspec.Raw | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    reasoning: Reasoning | None = None
    user: str | None = None  # an opaque id of the end user
    metadata: msgspec.Raw | None = None  # OpenAI's map of strings, for the provider's own records
    service_tier: str | None = None
    verbosity: str | None = None
    extra: Mapping[str, msgspec.Raw] = {}


HINTS: Final = frozenset(
    {
        "prompt_cache_key", "prompt_cache_retention", "prompt_cache_breakpoint", "prompt_cache_options",
        "cache_control", "detail", "reasoning.context",
        "eager_input_streaming", "user", "user_id", "safety_identifier", "metadata",
    }
)  # fmt: skip
"""Callers' fields that say how to work or for whom, not what to answer: they may always be left out, and it is told."""


class Losses:
    """What a translation may leave out, and what it did.

    `names` are the caller's own words for our fields where they differ (`{"stop": "stop_sequences"}`); `allowed` are
    the caller's names that the configuration lets go (`"*"`: all). One `Losses` serves one attempt.
    """

    __slots__ = ("_allowed", "_names", "lost")

    def __init__(self, allowed: Collection[str] = (), names: Mapping[str, str] | None = None) -> None:
        self._allowed, self._names = allowed, names or {}
        self.lost: list[str] = []

    def lose(self, field: str, why: str = "") -> None:
        """`field` cannot be said in the upstream's dialect. Raises `Untranslatable` unless it may be left out."""
        name = self._names.get(field, field)
        is_hint = name in HINTS or name.rpartition(".")[2] in HINTS
        if not is_hint and name not in self._allowed and "*" not in self._allowed:
            raise Untranslatable(name, why)
        if name not in self.lost:
            self.lost.append(name)


# --- what was answered -----------------------------------------------------------------------------------------------


class FinishReason(StrEnum):
    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"  # one of the caller's own stop texts; not every upstream can tell it from `stop`
    LENGTH = "length"  # max_tokens
    CONTEXT = "context"  # the model's context is full
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"  # Anthropic's pause_turn: send the answer back to go on


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Once, first. `prompt_tokens` where the upstream knows them already."""

    id: str = ""
    model: str = ""
    created: int = 0  # Unix seconds; 0: not said
    usage: Usage | None = None


class TextDelta(msgspec.Struct, frozen=True, tag="text"):
    text: str
    logprobs: msgspec.Raw | None = None  # OpenAI's `logprobs` object of a chunk


class ThinkingDelta(msgspec.Struct, frozen=True, tag="thinking"):
    text: str


class ThinkingEnd(msgspec.Struct, frozen=True, tag="thinking_end"):
    """The reasoning so far is complete, sealed by its origin."""

    signature: str
    origin: Origin


class Redacted(msgspec.Struct, frozen=True, tag="redacted"):
    """Reasoning that only its origin can read."""

    data: str
    origin: Origin


class ToolCallBegin(msgspec.Struct, frozen=True, tag="tool_call_begin"):
    """`index` counts the calls of the answer from 0. Calls may interleave in the order of their deltas."""

    index: int
    id: str
    name: str
    signature: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, tag="tool_call_delta"):
    """More of the arguments' JSON text."""

    index: int
    arguments: str


def compact(arguments: msgspec.Raw) -> str:
    """The arguments of a call that came as a value: one object, without the line feeds and indentation of a whole
    answer, which would count as the model's own text."""
    if bytes(memoryview(arguments)[:1]) != b"{":
        return "{}"
    return msgspec.json.format(bytes(arguments), indent=-1).decode("utf-8", "replace")


class RefusalDelta(msgspec.Struct, frozen=True, tag="refusal"):
    text: str


class Citation(msgspec.Struct, frozen=True, tag="citation"):
    """A source of the text that was just said, as its origin wrote it."""

    raw: msgspec.Raw


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    reason: FinishReason
    stop_sequence: str | None = None  # the text that stopped it, where known


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Usage so far, cumulative: the last one counts. May come before or after `Finish`."""

    usage: Usage


Delta = (
    Begin
    | TextDelta
    | ThinkingDelta
    | ThinkingEnd
    | Redacted
    | ToolCallBegin
    | ToolCallDelta
    | RefusalDelta
    | Citation
    | Finish
    | Counted
)

MEANS_SOMETHING: Final = (
    TextDelta, ThinkingDelta, Redacted, ToolCallBegin, ToolCallDelta, RefusalDelta, Finish
)  # fmt: skip
"""The deltas that commit an answer; the others are gestures."""


class AnswerReader(Protocol):
    """An upstream's answer, read into deltas. One per attempt."""

    complete: bool
    """The upstream has said that its answer is whole (a terminal event, or a finish reason where it has none)."""

    def event(self, data: bytes) -> list[Delta]:
        """The payload of one event. Raises `UpstreamError`: an error event, or not this dialect."""
        ...

    def whole(self, body: bytes) -> list[Delta]:
        """A plain answer. Raises `UpstreamError` likewise."""
        ...


class AnswerWriter(Protocol):
    """Deltas, written for the caller. One per attempt."""

    def events(self, deltas: list[Delta]) -> bytes:
        """Whole server-sent events for the caller, b"" when nothing can be said yet. `Finish` may be held back for
        `Counted`."""
        ...

    def end(self) -> bytes:
        """The last events, ending with the dialect's terminal one; called once, after `Finish` has been seen."""
        ...

    def whole(self, deltas: list[Delta]) -> bytes:
        """The body of a plain answer."""
        ...

    def final_response(self) -> bytes | None:
        """The whole answer as one object of the Responses API, once it is whole; None in other dialects."""
        ...

    def failed_event(self, error: PenstockError) -> bytes | None:
        """The last event of a stream that broke, where that depends on what was said before; None: it does not."""
        ...


class Asked(msgspec.Struct, frozen=True):
    """What an `AnswerWriter` needs to know of the request."""

    id: str  # of the request: 26 characters or so; answers derive their own id from it where the upstream's is foreign
    model: str  # the public name, as the caller wrote it
    created: int  # Unix seconds, for dialects that tell the time
    include_usage: bool  # OpenAI chat: the caller asked for the usage event
    prompt_tokens: int  # our estimate, for dialects that must say it before the upstream has counted
    ask: Ask | None = None
    fields: Mapping[str, msgspec.Raw] = {}  # the request as the caller wrote it, for dialects that echo its settings


# --- signatures in a foreign dialect ---------------------------------------------------------------------------------

_SEAL: Final = "penstock."


def seal(signature: str, origin: Origin, home: Origin | None) -> str:
    """A signature as it is written in a dialect whose own signatures are `home`'s: foreign ones name their origin."""
    return signature if origin is home else f"{_SEAL}{origin}.{signature}"


def unseal(text: str, home: Origin | None) -> tuple[str, Origin | None]:
    """The reverse of `seal`: the signature, byte for byte, and whose it is."""
    if text.startswith(_SEAL):
        origin, dot, signature = text[len(_SEAL) :].partition(".")
        if dot and origin in Origin.__members__.values():
            return signature, Origin(origin)
    return text, home
