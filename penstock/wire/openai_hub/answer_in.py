"""The answer of an upstream of OpenAI's chat dialect, read into the hub: OpenAI's own, and what others make of it.

Thinking comes under three names and at times under two at once; calls come with the wrong index, a new id in each
chunk, or none; the reason for the end comes with the last words, or says `stop` where tools were called.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.request import Usage
from penstock.wire.canonical import (
    AnswerReader,
    Ask,
    Begin,
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
    unseal,
)
from penstock.wire.openai_chat import failure_inside
from penstock.wire.openai_hub.request_in import google_signature
from penstock.wire.openai_hub.shapes import CallSaid, Choice, Chunk, Function, Said
from penstock.wire.openai_shapes import TokenCounts
from penstock.wire.openai_values import decode_any, encode, usage_of
from penstock.wire.prompts import UNREADABLE, is_null
from penstock.wire.tool_names import ToolNames

_decode = msgspec.json.Decoder(Chunk).decode

_ENDS: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.CONTEXT,  # Mistral
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "stop_sequence": FinishReason.STOP_SEQUENCE,  # TGI
}
"""Any other word (`eos`, `eos_token`, `end_turn`...) is one server's own for `stop`."""
_BROKEN: Final = {
    "error": FailureKind.SERVER_ERROR,  # OpenRouter, vLLM
    "abort": FailureKind.SERVER_ERROR,  # vLLM: somebody ended it inside the engine
    "insufficient_system_resource": FailureKind.OVERLOADED,  # DeepSeek
}
_FORMATS: Final = (("anthropic", Origin.ANTHROPIC), ("openai", Origin.OPENAI), ("google", Origin.GEMINI))


class _Call:
    """A tool call so far. `foreign_id`: the upstream's, which need not be unique."""

    __slots__ = ("arguments", "foreign_id", "index", "name")

    def __init__(self, index: int) -> None:
        self.index = index
        self.foreign_id: str | None = None
        self.name = ""
        self.arguments: list[str] = []

    @property
    def whole(self) -> bool:
        arguments = "".join(self.arguments)
        try:
            return bool(arguments) and isinstance(msgspec.json.decode(arguments), dict)
        except (msgspec.MsgspecError, RecursionError):
            return False


class ChatReader:
    """`ask`: what was asked, for the callers' names of its tools. `id`: of the request, to name calls that came without
    an id; a provider may want them to be unique in a whole conversation."""

    def __init__(self, ask: Ask | None = None, *, id: str = "") -> None:
        self.complete = False
        self._ask, self._id = ask, id
        self._names: ToolNames | None = None
        self._begun = self._finished = False
        self._thought = False  # some reasoning has come since it was last signed
        self._refused = False
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._ids: set[str] = set()
        self._usage: Usage | None = None

    def event(self, data: bytes) -> list[Delta]:
        """One chunk. Raises `UpstreamError` at an error, at a second choice, and at what comes after the end."""
        out: list[Delta] = []
        if data == b"[DONE]":
            if self._begun and not self._finished:  # a server that gives no reason says at least that this is all
                self._finish("stop", None, out)
            return out
        seen = self._read(data)
        choices = seen.choices
        if choices:
            choice = self._only(choices)
            self._begin(seen, out)
            if choice.delta is not None:
                self._say(choice.delta, choice.logprobs, out)
            if choice.finish_reason and not self._finished:
                self._finish(choice.finish_reason, choice.stop_reason, out)
        if seen.usage is not None:
            self._count(seen.usage, out)
        return out

    def whole(self, body: bytes) -> list[Delta]:
        """A plain answer. Raises `UpstreamError` likewise."""
        seen = self._read(body)
        if not seen.choices:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an answer without `choices`")
        choice = self._only(seen.choices)
        if choice.message is None:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "a choice without `message`")
        out: list[Delta] = []
        self._begin(seen, out)
        message = choice.message
        if message.thinking_blocks:  # which say it all here; in a stream they repeat what came before them
            for block in message.thinking_blocks:
                self._thought = False
                self._block(block, out)
            message.thinking_blocks = message.reasoning_content = message.reasoning = message.reasoning_details = None
        for number, call in enumerate(message.tool_calls or ()):  # each is whole, whatever it says of itself
            call.index = number
        self._say(message, choice.logprobs, out)
        if seen.usage is not None:
            self._count(seen.usage, out)
        self._finish(choice.finish_reason or "stop", choice.stop_reason, out)
        return out

    def _read(self, data: bytes) -> Chunk:
        try:
            seen = _decode(data)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        if seen.error is not None:
            raise failure_inside(seen.error)
        if seen.object == "error":
            raise failure_inside(decode_any(msgspec.Raw(data)))
        return seen

    def _only(self, choices: list[Choice]) -> Choice:
        if len(choices) > 1 or choices[0].index != 0:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "a second choice; one was asked for")
        return choices[0]

    def _begin(self, seen: Chunk, out: list[Delta]) -> None:
        if not self._begun:
            self._begun = True
            self._id = self._id or seen.id or ""
            out.append(Begin(seen.id or "", seen.model or "", int(seen.created or 0)))

    def _count(self, counts: TokenCounts, out: list[Delta]) -> None:
        usage = usage_of(counts)
        if usage is not None and usage != self._usage:
            self._usage = usage
            out.append(Counted(usage))

    def _finish(self, word: str, stop_reason: str | int | None, out: list[Delta]) -> None:
        if word in _BROKEN:
            raise UpstreamError(_BROKEN[word], f"finish_reason {word}")
        if any(not call.name for call in self._calls):
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "a tool call without a name")
        self._finished = self.complete = True
        reason, stopped_by = _ENDS.get(word, FinishReason.STOP), None
        if reason in (FinishReason.STOP, FinishReason.STOP_SEQUENCE, FinishReason.TOOL_CALLS):
            if self._calls:
                reason = FinishReason.TOOL_CALLS
            elif self._refused:
                reason = FinishReason.REFUSAL
            elif isinstance(stop_reason, str):
                reason, stopped_by = FinishReason.STOP_SEQUENCE, stop_reason
            elif reason is FinishReason.TOOL_CALLS:  # and yet it called none
                reason = FinishReason.STOP
        out.append(Finish(reason, stopped_by))

    def _say(self, said: Said, logprobs: msgspec.Raw, out: list[Delta]) -> None:
        before = len(out)
        if said.thinking_blocks:
            self._think(said.reasoning_content, out)
            for block in said.thinking_blocks:
                self._block(block, out)
        elif said.reasoning_details:
            self._details(said.reasoning_details, said.reasoning or said.reasoning_content, out)
        else:
            self._think(said.reasoning_content or said.reasoning, out)
        content = said.content
        if content:
            if isinstance(content, str):
                out.append(TextDelta(content, None if is_null(logprobs) else logprobs))
            else:
                self._parts(content, out)
        if said.refusal:
            self._refused = True
            out.append(RefusalDelta(said.refusal))
        if said.tool_calls:
            for call in said.tool_calls:
                self._call(call, out)
        elif said.function_call is not None:
            self._call(CallSaid(index=0, function=said.function_call), out)
        if self._finished and len(out) > before:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "more of the answer after its end")

    # --- thinking ---

    def _think(self, text: str | None, out: list[Delta]) -> None:
        if text:
            self._thought = True
            out.append(ThinkingDelta(text))

    def _signed(self, signature: str, origin: Origin, out: list[Delta]) -> None:
        self._thought = False
        out.append(ThinkingEnd(signature, origin))

    def _block(self, block: dict[str, Any], out: list[Delta]) -> None:
        """A block says again in `thinking` what came as `reasoning_content`, in this chunk or before it."""
        if block.get("type") == "redacted_thinking":
            data, origin = unseal(_string(block, "data"), Origin.ANTHROPIC)
            self._thought = False
            out.append(Redacted(data, origin or Origin.ANTHROPIC))
            return
        if not self._thought:
            self._think(_string(block, "thinking"), out)
        if block.get("signature"):
            signature, origin = unseal(_string(block, "signature"), Origin.ANTHROPIC)
            self._signed(signature, origin or Origin.ANTHROPIC, out)

    def _details(self, details: list[dict[str, Any]], text: str | None, out: list[Delta]) -> None:
        """https://openrouter.ai/docs/use-cases/reasoning-tokens; `format` says whose they are. `text`: the same again,
        or all there is to read beside what is sealed."""
        if not any(detail.get("text") or detail.get("summary") for detail in details):
            self._think(text, out)
        for detail in details:
            form = str(detail.get("format"))
            origin = next((origin for name, origin in _FORMATS if form.startswith(name)), None)
            self._think(_string(detail, "text") or _string(detail, "summary"), out)
            if origin is None:  # sealed by somebody we do not know: nobody could be given it back
                continue
            if detail.get("data"):
                out.append(Redacted(_string(detail, "data"), origin))
            elif detail.get("signature"):
                self._signed(_string(detail, "signature"), origin, out)

    def _parts(self, parts: list[dict[str, Any]], out: list[Delta]) -> None:
        """Mistral's: text, and thinking that is itself a list of texts."""
        for part in parts:
            if part.get("type") == "thinking":
                thinking = part.get("thinking")
                if isinstance(thinking, list):
                    thinking = "".join(_string(inner, "text") for inner in thinking if isinstance(inner, dict))
                self._think(thinking if isinstance(thinking, str) else None, out)
            elif _string(part, "text"):
                out.append(TextDelta(_string(part, "text")))

    # --- tool calls ---

    def _call(self, seen: CallSaid, out: list[Delta]) -> None:
        function = seen.function or Function()
        name, arguments = function.name or "", function.arguments or ""
        if isinstance(arguments, dict):
            arguments = encode(arguments).decode()
        call = self._which(seen.index, seen.id, name, arguments)
        if call is None:
            call = _Call(len(self._calls))
            self._calls.append(call)
        if seen.index is not None:
            self._by_index[seen.index] = call
        call.foreign_id = seen.id or call.foreign_id
        if arguments:
            call.arguments.append(arguments)
        if not call.name:
            if not name:
                return  # its arguments wait for its name
            call.name = name
            signature = google_signature(seen.extra_content)
            out.append(ToolCallBegin(call.index, self._own_id(call), self._home(name), signature))
            arguments = "".join(call.arguments)
        if arguments:
            out.append(ToolCallDelta(call.index, arguments))

    def _which(self, index: int | None, id: str | None, name: str, arguments: str) -> _Call | None:
        """The call that is meant, None for a new one. An index may be missing, or the same for all; an id may change
        in the middle of a call; a name may come again with each chunk. That a call's arguments are whole tells."""
        if index is not None:
            call = self._by_index.get(index)
        else:
            by_id = (call for call in self._calls if id and call.foreign_id == id)
            call = next(by_id, self._calls[-1] if self._calls else None)
        if call is None or not name or not call.name or (id and id == call.foreign_id):
            return call
        if id and call.foreign_id:
            return None if name != call.name or call.whole else call
        return None if (arguments or name != call.name) and call.whole else call

    def _own_id(self, call: _Call) -> str:
        id = call.foreign_id or f"call_{self._id}{call.index}"
        if id in self._ids:
            id = f"{id}_{call.index}"
        self._ids.add(id)
        return id

    def _home(self, name: str) -> str:
        if self._ask is None:
            return name
        if self._names is None:
            self._names = ToolNames.of(self._ask)
        return self._names.home(name)


def _string(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


_: type[AnswerReader] = ChatReader
