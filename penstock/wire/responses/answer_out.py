"""An answer of the hub, written as OpenAI's Responses events or as one response object.

Items open in the order in which they begin. A message ends when a tool call or reasoning begins; calls stay open side
by side, as they may interleave, and end with the answer. Citations are left out: no request read here asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.core.errors import PenstockError
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
from penstock.wire.openai_values import decode_object, decode_objects, encode, said
from penstock.wire.prompts import NULL, UNREADABLE
from penstock.wire.responses.request_in import REDACTED
from penstock.wire.responses.shapes import Logprob, Logprobs

_CUT: Final = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTEXT: "max_output_tokens",
    FinishReason.PAUSE: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",  # unless it says in words why not
}
_ERROR_CODES: Final = {400: "invalid_prompt", 429: "rate_limit_exceeded"}  # of the few that the API knows

Json = dict[str, Any]


class _Message:
    """The texts of an open message: parts that are done, and the words of the one that is not."""

    __slots__ = ("done", "id", "index", "kind", "logprobs", "prefix", "words")

    def __init__(self, id: str, index: int) -> None:
        self.id, self.index = id, index
        self.done: list[Json] = []
        self.kind: str | None = None  # of the open part: output_text, refusal
        self.prefix = b""  # of its delta events
        self.words: list[str] = []
        self.logprobs: list[Json] = []


class _Call:
    __slots__ = ("arguments", "begin", "id", "index")

    def __init__(self, id: str, index: int, begin: ToolCallBegin) -> None:
        self.id, self.index, self.begin = id, index, begin
        self.arguments: list[str] = []

    def item(self, status: str) -> Json:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self.begin.id,
            "name": self.begin.name,
            "arguments": "".join(self.arguments),
        }


class ResponsesWriter:
    """Echoes the settings in `asked.fields`, as OpenAI does."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._settings = _settings(asked.fields)
        self._sequence = 0
        self._output: list[Json | None] = []  # by output_index; None while it is open
        self._message: _Message | None = None
        self._thoughts: tuple[str, int, list[str]] | None = None  # id, output_index, words
        self._calls: dict[int, _Call] = {}
        self._usage: Usage | None = None
        self._begun = self._refused = False
        self._status = "in_progress"
        self._cut: str | None = None
        self._final: bytes | None = None

    def events(self, deltas: list[Delta]) -> bytes:
        return b"".join(map(self._event, deltas))

    def end(self) -> bytes:
        self._final = encode(self._response())
        return self._emit(f"response.{self._status}", response=msgspec.Raw(self._final))

    def whole(self, deltas: list[Delta]) -> bytes:
        self.events(deltas)
        self._final = encode(self._response())
        return self._final

    def final_response(self) -> bytes | None:
        """The whole response object, once `end` or `whole` has been called."""
        return self._final

    def failed_event(self, error: PenstockError) -> bytes:
        """The last event of a stream that broke, with what had been said."""
        opening = self._begin()
        said = self._close("incomplete")
        self._status = "failed"
        told = {"code": _ERROR_CODES.get(error.status, "server_error"), "message": error.message}
        return opening + said + self._emit("response.failed", response=self._response() | {"error": told})

    # --- the response ---

    def _response(self) -> Json:
        return {
            "id": f"resp_{self._asked.id}",
            "object": "response",
            "created_at": self._asked.created,
            "status": self._status,
            "background": False,
            "error": None,
            "incomplete_details": None if self._cut is None else {"reason": self._cut},
            "model": self._asked.model,
            "output": [item for item in self._output if item is not None],
            "usage": None if self._usage is None else usage_object(self._usage),
            **self._settings,
        }

    def _emit(self, type: str, **fields: object) -> bytes:
        event = encode({"type": type, **fields, "sequence_number": self._sequence})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (type.encode(), event)

    def _open(self, kind: str) -> tuple[str, int]:
        index = len(self._output)
        self._output.append(None)
        return f"{kind}_{self._asked.id}{index}", index

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        response = msgspec.Raw(encode(self._response()))
        return self._emit("response.created", response=response) + self._emit("response.in_progress", response=response)

    # --- deltas ---

    def _event(self, delta: Delta) -> bytes:
        opening = b"" if self._begun else self._begin()
        match delta:
            case TextDelta(text=text, logprobs=logprobs):
                return opening + self._text(text, logprobs)
            case ThinkingDelta(text=text):
                return opening + self._think(text)
            case ThinkingEnd(signature=signature, origin=origin):
                return opening + self._signed(seal(signature, origin, Origin.OPENAI))
            case Redacted(data=data, origin=origin):
                data = data if origin is Origin.OPENAI else REDACTED + data
                return opening + self._end_thoughts() + self._signed(seal(data, origin, Origin.OPENAI))
            case ToolCallBegin():
                return opening + self._end_message() + self._end_thoughts() + self._call(delta)
            case ToolCallDelta(index=index, arguments=arguments):
                call = self._calls[index]
                call.arguments.append(arguments)
                return opening + self._emit(
                    "response.function_call_arguments.delta",
                    item_id=call.id,
                    output_index=call.index,
                    delta=arguments,
                )
            case RefusalDelta(text=text):
                self._refused = True
                return opening + self._refuse(text)
            case Finish(reason=reason):
                return opening + self._finish(reason)
            case Counted(usage=usage):
                self._usage = usage
            case Begin(usage=usage):
                self._usage = usage or self._usage
            case Citation():
                pass
        return opening

    def _finish(self, reason: FinishReason) -> bytes:
        if reason in _CUT and not (reason is FinishReason.REFUSAL and self._refused):
            self._status, self._cut = "incomplete", _CUT[reason]
        else:
            self._status = "completed"
        return self._close(self._status)

    def _close(self, status: str) -> bytes:
        """All that is open. Of an answer that was cut off, the last item is what was being written."""
        last = len(self._output) - 1
        calls, self._calls = self._calls, {}
        return (
            self._end_thoughts(status=status)
            + self._end_message(status)
            + b"".join(self._end_call(call, status if call.index == last else "completed") for call in calls.values())
        )

    # --- reasoning ---

    def _think(self, text: str) -> bytes:
        opening = b""
        if self._thoughts is None:
            opening = self._end_message()
            id, index = self._open("rs")
            self._thoughts = id, index, []
            opening += self._emit("response.output_item.added", output_index=index, item=_reasoning(id, [], None))
            opening += self._emit(
                "response.reasoning_summary_part.added",
                item_id=id,
                output_index=index,
                summary_index=0,
                part={"type": "summary_text", "text": ""},
            )
        id, index, words = self._thoughts
        words.append(text)
        return opening + self._emit(
            "response.reasoning_summary_text.delta", item_id=id, output_index=index, summary_index=0, delta=text
        )

    def _signed(self, sealed: str) -> bytes:
        if self._thoughts is not None:
            return self._end_thoughts(sealed)
        opening = self._end_message()  # nothing of it was shown
        id, index = self._open("rs")
        item = self._output[index] = _reasoning(id, [], sealed)
        return (
            opening
            + self._emit("response.output_item.added", output_index=index, item=_reasoning(id, [], None))
            + self._emit("response.output_item.done", output_index=index, item=item)
        )

    def _end_thoughts(self, sealed: str | None = None, status: str = "completed") -> bytes:
        if self._thoughts is None:
            return b""
        id, index, words = self._thoughts
        self._thoughts = None
        text = "".join(words)
        place = {"item_id": id, "output_index": index, "summary_index": 0}
        item = self._output[index] = _reasoning(id, [text], sealed)
        return (
            self._emit("response.reasoning_summary_text.done", **place, text=text)
            + self._emit("response.reasoning_summary_part.done", **place, part={"type": "summary_text", "text": text})
            + self._emit("response.output_item.done", output_index=index, item=item)
        )

    # --- messages ---

    def _text(self, text: str, logprobs: msgspec.Raw | None) -> bytes:
        message = self._message
        opening = b""
        if message is None or message.kind != "output_text":
            opening, message = self._open_part("output_text")
        message.words.append(text)
        told = _logprobs(logprobs)
        message.logprobs += told
        event = message.prefix + encode(text) + b',"logprobs":' + encode(told)
        return opening + event + self._numbered()

    def _refuse(self, text: str) -> bytes:
        message = self._message
        opening = b""
        if message is None or message.kind != "refusal":
            opening, message = self._open_part("refusal")
        message.words.append(text)
        return opening + message.prefix + encode(text) + self._numbered()

    def _numbered(self) -> bytes:
        number = self._sequence
        self._sequence += 1
        return b',"sequence_number":%d}\n\n' % number

    def _open_part(self, kind: str) -> tuple[bytes, _Message]:
        opening = self._end_thoughts()
        message = self._message
        if message is None:
            message = self._message = _Message(*self._open("msg"))
            item = _message(message, "in_progress")
            opening += self._emit("response.output_item.added", output_index=message.index, item=item)
        else:
            opening += self._end_part(message)
        message.kind, message.words, message.logprobs = kind, [], []
        place = {"item_id": message.id, "output_index": message.index, "content_index": len(message.done)}
        type = f"response.{kind}.delta"
        start = encode({"type": type, **place})[:-1] + b',"delta":'
        message.prefix = b"event: %b\ndata: %b" % (type.encode(), start)
        return opening + self._emit("response.content_part.added", **place, part=_part(message)), message

    def _end_part(self, message: _Message) -> bytes:
        part = _part(message)
        place = {"item_id": message.id, "output_index": message.index, "content_index": len(message.done)}
        message.done.append(part)
        if message.kind == "refusal":
            done = self._emit("response.refusal.done", **place, refusal=part["refusal"])
        else:
            done = self._emit("response.output_text.done", **place, text=part["text"], logprobs=part["logprobs"])
        return done + self._emit("response.content_part.done", **place, part=part)

    def _end_message(self, status: str = "completed") -> bytes:
        message, self._message = self._message, None
        if message is None:
            return b""
        done = self._end_part(message)
        item = self._output[message.index] = _message(message, status)
        return done + self._emit("response.output_item.done", output_index=message.index, item=item)

    # --- tool calls ---

    def _call(self, begin: ToolCallBegin) -> bytes:
        call = self._calls[begin.index] = _Call(*self._open("fc"), begin)
        return self._emit("response.output_item.added", output_index=call.index, item=call.item("in_progress"))

    def _end_call(self, call: _Call, status: str) -> bytes:
        item = self._output[call.index] = call.item(status)
        return self._emit(
            "response.function_call_arguments.done",
            item_id=call.id,
            output_index=call.index,
            name=call.begin.name,
            arguments=item["arguments"],
        ) + self._emit("response.output_item.done", output_index=call.index, item=item)


def _reasoning(id: str, texts: list[str], sealed: str | None) -> Json:
    summary = [{"type": "summary_text", "text": text} for text in texts]
    return {"id": id, "type": "reasoning", "summary": summary, "encrypted_content": sealed}


def _message(message: _Message, status: str) -> Json:
    return {"id": message.id, "type": "message", "status": status, "role": "assistant", "content": list(message.done)}


def _part(message: _Message) -> Json:
    words = "".join(message.words)
    if message.kind == "refusal":
        return {"type": "refusal", "refusal": words}
    return {"type": "output_text", "text": words, "annotations": [], "logprobs": list(message.logprobs)}


def in_progress(asked: Asked) -> bytes:
    """The response object of a request that runs in the background, before anything has come of it."""
    return encode(ResponsesWriter(asked)._response() | {"background": True})


_decode_logprobs = msgspec.json.Decoder(Logprobs).decode


def _logprobs(raw: msgspec.Raw | None) -> list[Json]:
    """Those of a chat completion, whose `bytes` may be null where these may not."""
    if raw is None:
        return []
    try:
        seen = _decode_logprobs(raw)
    except UNREADABLE:
        return []  # of a form that is not OpenAI's: the text stands without them
    return [
        _logprob(token) | {"top_logprobs": [_logprob(other) for other in token.top_logprobs or ()]}
        for token in seen.content or ()
    ]


def _logprob(token: Logprob) -> Json:
    return {"token": token.token, "logprob": token.logprob, "bytes": token.bytes or list(token.token.encode())}


def usage_object(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


_ECHOED: Final = (
    "instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "prompt_cache_key",
    "safety_identifier", "service_tier", "temperature", "top_p", "user",
)  # fmt: skip
_DEFAULTS: Final = {
    "metadata": msgspec.Raw(b"{}"),
    "parallel_tool_calls": msgspec.Raw(b"true"),
    "store": msgspec.Raw(b"true"),
    "tool_choice": msgspec.Raw(b'"auto"'),
    "top_logprobs": msgspec.Raw(b"0"),
    "truncation": msgspec.Raw(b'"disabled"'),
}
_NO_REASONING: Final = {"effort": NULL, "summary": NULL}
_PLAIN_TEXT: Final = {"format": msgspec.Raw(b'{"type":"text"}')}
_FUNCTION: Final = {"description": NULL, "parameters": NULL, "strict": NULL}


def _settings(fields: Mapping[str, msgspec.Raw]) -> Json:
    """The request's own words where it has any, and where it has none OpenAI's default, or null where the default is
    the model's."""
    fields = said(fields)
    settings: Json = {name: fields.get(name, NULL) for name in _ECHOED}
    settings |= {name: fields.get(name, default) for name, default in _DEFAULTS.items()}
    settings["reasoning"] = _NO_REASONING | (decode_object(fields["reasoning"]) if "reasoning" in fields else {})
    settings["text"] = _PLAIN_TEXT | (said(decode_object(fields["text"])) if "text" in fields else {})
    tools = decode_objects(fields["tools"]) if "tools" in fields else []
    settings["tools"] = [_FUNCTION | tool if bytes(tool["type"]) == b'"function"' else tool for tool in tools]
    return settings


_: type[AnswerWriter] = ResponsesWriter
