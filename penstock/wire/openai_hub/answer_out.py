"""An answer of the hub, written for a caller of OpenAI's chat dialect.

Reasoning goes out as `reasoning_content`, and once it is signed also as a whole block of `thinking_blocks`, which the
caller can put into the history as it is. Citations are left out: no request of this dialect can ask for them.
"""

from __future__ import annotations

from typing import Any, Final

from penstock.core.request import Usage
from penstock.wire.canonical import (
    AnswerWriter,
    Asked,
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
    seal,
)
from penstock.wire.openai_values import encode
from penstock.wire.readings import PlainWriter

_DONE: Final = b"data: [DONE]\n\n"
_REASONS: Final = {
    FinishReason.STOP: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTEXT: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",  # unless it says in words why not
    FinishReason.PAUSE: "length",  # not whole
}

Json = dict[str, Any]


class ChatWriter(PlainWriter):
    """A request in the old style, with `functions`, is answered in it."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._legacy = "functions" in asked.fields
        head = {"id": f"chatcmpl-{asked.id}", "object": "chat.completion.chunk", "created": asked.created}
        self._head = b"data: " + encode(head | {"model": asked.model})[:-1] + b',"choices":['
        # a stream that will say its usage says in every chunk that it has not yet
        self._tail = b'],"usage":null}\n\n' if asked.include_usage else b"]}\n\n"
        self._begun = self._refused = False
        self._thoughts: list[str] = []
        self._usage: Usage | None = None

    def events(self, deltas: list[Delta]) -> bytes:
        return b"".join(map(self._event, deltas))

    def end(self) -> bytes:
        if self._usage is None or not self._asked.include_usage:
            return _DONE
        return self._head + b'],"usage":' + encode(usage_object(self._usage)) + b"}\n\n" + _DONE

    def _event(self, delta: Delta) -> bytes:
        opening = b""
        if not self._begun:
            self._begun = True
            opening = self._chunk(b'{"role":"assistant","content":""}')
        match delta:
            case TextDelta(text=text, logprobs=logprobs):
                said = b'{"content":' + encode(text) + b"}"
                if logprobs is None:
                    return opening + self._chunk(said)
                return opening + self._chunk(said, logprobs=bytes(logprobs))
            case ThinkingDelta(text=text):
                self._thoughts.append(text)
                return opening + self._chunk(b'{"reasoning_content":' + encode(text) + b"}")
            case ThinkingEnd() | Redacted():
                return opening + self._chunk(encode({"thinking_blocks": [self._block(delta)]}))
            case ToolCallBegin(index=index):
                call = _call(delta, "")
                if self._legacy:
                    return opening + self._chunk(encode({"function_call": call["function"]}))
                return opening + self._chunk(encode({"tool_calls": [{"index": index, **call}]}))
            case ToolCallDelta(index=index, arguments=arguments):
                function = {"arguments": arguments}
                if self._legacy:
                    return opening + self._chunk(encode({"function_call": function}))
                return opening + self._chunk(encode({"tool_calls": [{"index": index, "function": function}]}))
            case RefusalDelta(text=text):
                self._refused = True
                return opening + self._chunk(b'{"refusal":' + encode(text) + b"}")
            case Finish():
                end = encode(self._reason(delta))
                return opening + self._head + b'{"index":0,"delta":{},' + end[1:] + self._tail
            case Counted(usage=usage):
                self._usage = usage
            case Begin(usage=usage):
                self._usage = usage or self._usage
            case Citation():
                pass
        return opening

    def _chunk(self, delta: bytes, logprobs: bytes = b"null") -> bytes:
        choice = b'{"index":0,"delta":' + delta + b',"logprobs":' + logprobs + b',"finish_reason":null}'
        return self._head + choice + self._tail

    def _block(self, delta: ThinkingEnd | Redacted) -> Json:
        thought = "".join(self._thoughts)
        self._thoughts.clear()
        if isinstance(delta, Redacted):
            return {"type": "redacted_thinking", "data": seal(delta.data, delta.origin, Origin.ANTHROPIC)}
        signature = seal(delta.signature, delta.origin, Origin.ANTHROPIC)
        return {"type": "thinking", "thinking": thought, "signature": signature}

    def _unsigned(self) -> list[Json]:
        return [{"type": "thinking", "thinking": "".join(self._thoughts)}] if self._thoughts else []

    def _reason(self, finish: Finish) -> Json:
        word = _REASONS[finish.reason]
        if finish.reason is FinishReason.REFUSAL and self._refused:
            word = "stop"
        if self._legacy and word == "tool_calls":
            word = "function_call"
        if finish.stop_sequence is None:
            return {"finish_reason": word}
        return {"finish_reason": word, "stop_reason": finish.stop_sequence}  # vLLM's name for it

    def whole(self, deltas: list[Delta]) -> bytes:
        content: list[str] = []
        thoughts: list[str] = []
        refusals: list[str] = []
        blocks: list[Json] = []
        calls: dict[int, tuple[ToolCallBegin, list[str]]] = {}
        logprobs = None
        reason: Json = {"finish_reason": "stop"}
        for delta in deltas:
            match delta:
                case TextDelta(text=text):
                    content.append(text)
                    logprobs = delta.logprobs or logprobs
                case ThinkingDelta(text=text):
                    self._thoughts.append(text)
                    thoughts.append(text)
                case ThinkingEnd():
                    blocks.append(self._block(delta))
                case Redacted():
                    blocks += self._unsigned()
                    blocks.append(self._block(delta))
                case ToolCallBegin(index=index):
                    calls[index] = delta, []
                case ToolCallDelta(index=index, arguments=arguments):
                    calls[index][1].append(arguments)
                case RefusalDelta(text=text):
                    self._refused = True
                    refusals.append(text)
                case Finish():
                    reason = self._reason(delta)
                case Counted(usage=usage):
                    self._usage = usage
                case Begin(usage=usage):
                    self._usage = usage or self._usage
                case Citation():
                    pass
        message: Json = {
            "role": "assistant",
            "content": "".join(content) if content or not (calls or refusals) else None,
            "refusal": "".join(refusals) if refusals else None,
        }
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if blocks:
            message["thinking_blocks"] = blocks + self._unsigned()  # they say all of it, or nothing
        if calls:
            written = [_call(begin, "".join(arguments)) for begin, arguments in calls.values()]
            if self._legacy:
                message["function_call"] = written[0]["function"]
            else:
                message["tool_calls"] = written
        body: Json = {
            "id": f"chatcmpl-{self._asked.id}",
            "object": "chat.completion",
            "created": self._asked.created,
            "model": self._asked.model,
            "choices": [{"index": 0, "message": message, "logprobs": logprobs, **reason}],
        }
        if self._usage is not None:
            body["usage"] = usage_object(self._usage)
        return encode(body)


def _call(begin: ToolCallBegin, arguments: str) -> Json:
    call: Json = {"id": begin.id, "type": "function", "function": {"name": begin.name, "arguments": arguments}}
    if begin.signature is not None:  # where Google's own endpoint of this dialect puts it
        call["extra_content"] = {"google": {"thought_signature": begin.signature}}
    return call


def usage_object(usage: Usage) -> Json:
    """OpenAI's, and beside it the name that clients of Claude behind this dialect look for."""
    written: Json = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if usage.cache_write_tokens:
        written["cache_creation_input_tokens"] = usage.cache_write_tokens
    return written


_: type[AnswerWriter] = ChatWriter
