"""How an upstream speaks: the bytes of its events and answers in two dialects, each event by itself, so that a fault
can be put between any two of them.

Sources: platform.openai.com/docs/api-reference/chat (streaming), docs.anthropic.com/en/api/messages-streaming.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec


class Tokens(msgspec.Struct, frozen=True):
    """What an answer cost. `cached` are part of `prompt`."""

    prompt: int
    completion: int
    cached: int = 0


class ToolCall(msgspec.Struct, frozen=True):
    name: str
    arguments: str
    """JSON, as the upstream wrote it; "" where it wrote nothing."""


TOKENS: Final = (
    "one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten", " eleven", " twelve",
    " thirteen", " fourteen", " fifteen", " sixteen", " seventeen", " eighteen", " nineteen", " twenty",
)  # fmt: skip
TEXT: Final = "".join(TOKENS)
COST: Final = Tokens(prompt=11, completion=20)
BACKUP_TOKENS: Final = ("alpha", " bravo", " charlie", " delta", " echo")
BACKUP_TEXT: Final = "".join(BACKUP_TOKENS)
BACKUP_COST: Final = Tokens(prompt=13, completion=5)

SECRET: Final = "sk-UPSTREAMSECRET-0123456789abcdef"  # must not be seen anywhere; opens nothing
HOST: Final = "gpu-node-7.internal"
SERVED: Final = "internal-"  # every model name between gateway and upstream begins so
CANDID: Final = f"engine {HOST}:8000 failed with key {SECRET} in /srv/{SERVED}vllm/worker.py"
"""What a careless server says about itself when something breaks."""


class Voice(Protocol):
    """The parts of an answer, in the order in which a healthy upstream sends them."""

    dialect: str

    def opening(self, cost: Tokens | None = COST, *, text: bool = True) -> list[bytes]:
        """What comes before the first token and means nothing by itself. `text`: the answer will begin with text."""
        ...

    def token(self, text: str) -> bytes: ...

    def tools(self, calls: Sequence[ToolCall]) -> list[bytes]:
        """Tool calls as a stream; interleaved where the dialect allows it, arguments in pieces of 3 characters."""
        ...

    def finish(self, reason: str) -> list[bytes]:
        """Why it stopped: `stop`, `length`, `tool_calls`, `content_filter`; in Anthropic's dialect with the usage."""
        ...

    def usage(self, cost: Tokens | None) -> list[bytes]: ...

    def end(self) -> bytes:
        """The terminal event."""
        ...

    def ping(self) -> bytes: ...

    def plain(self, text: str, *, reason: str, cost: Tokens | None, calls: Sequence[ToolCall] = ()) -> bytes: ...

    def error(self, kind: str, message: str, code: str | None = None) -> bytes:
        """The body of an error answer; `kind` in this dialect's words."""
        ...

    def error_event(self, message: str) -> bytes: ...


class OpenAIVoice:
    dialect = "openai"

    def opening(self, cost: Tokens | None = COST, *, text: bool = True) -> list[bytes]:
        del cost, text  # told at the end; needs no announcement
        return [_chunk({"role": "assistant", "content": ""})]

    def token(self, text: str) -> bytes:
        return _chunk({"content": text})

    def tools(self, calls: Sequence[ToolCall]) -> list[bytes]:
        """All begin, then their arguments come in turns: OpenAI tells them apart by `index`."""
        events = [
            _chunk({"tool_calls": [{"index": i, "id": f"call_{i}", "type": "function", "function": _named(call)}]})
            for i, call in enumerate(calls)
        ]
        pieces = [_pieces(call.arguments) for call in calls]
        for turn in range(max(map(len, pieces), default=0)):
            events += [
                _chunk({"tool_calls": [{"index": i, "function": {"arguments": parts[turn]}}]})
                for i, parts in enumerate(pieces)
                if turn < len(parts)
            ]
        return events

    def finish(self, reason: str) -> list[bytes]:
        return [_chunk({}, reason)]

    def usage(self, cost: Tokens | None) -> list[bytes]:
        if cost is None:
            return []
        return [_data({**_CHUNK, "choices": [], "usage": _openai_usage(cost)})]

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def ping(self) -> bytes:
        return b": ping\n\n"

    def token_with_usage(self, text: str, cost: Tokens) -> bytes:
        """As vLLM does with `continuous_usage_stats`."""
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return _data({**_CHUNK, "choices": [choice], "usage": _openai_usage(cost)})

    def plain(self, text: str, *, reason: str, cost: Tokens | None, calls: Sequence[ToolCall] = ()) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if calls:
            message["tool_calls"] = [
                {"id": f"call_{i}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for i, call in enumerate(calls)
            ]
        choice = {"index": 0, "message": message, "finish_reason": reason}
        answer: dict[str, Any] = {**_CHUNK, "object": "chat.completion", "choices": [choice]}
        if cost is not None:
            answer["usage"] = _openai_usage(cost)
        return _json(answer)

    def error(self, kind: str, message: str, code: str | None = None) -> bytes:
        return _json({"error": {"message": message, "type": kind, "param": None, "code": code}})

    def error_event(self, message: str) -> bytes:
        return b"data: " + self.error("server_error", message, "internal_error") + b"\n\n"


class AnthropicVoice:
    dialect = "anthropic"

    def __init__(self) -> None:
        self._reason = "end_turn"
        self._last_block = 0

    def opening(self, cost: Tokens | None = COST, *, text: bool = True) -> list[bytes]:
        message: dict[str, Any] = {**_MESSAGE, "content": [], "stop_reason": None}
        if cost is not None:  # output tokens begin at 1 and are corrected by message_delta
            message["usage"] = _anthropic_usage(cost, completion=min(1, cost.completion))
        events = [_event({"type": "message_start", "message": message}), _event({"type": "ping"})]
        if text:
            block = {"type": "text", "text": ""}
            events.append(_event({"type": "content_block_start", "index": 0, "content_block": block}))
        return events

    def token(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return _event({"type": "content_block_delta", "index": 0, "delta": delta})

    def tools(self, calls: Sequence[ToolCall]) -> list[bytes]:
        """One block after the other: this dialect cannot interleave."""
        events = []
        for i, call in enumerate(calls):
            block = {"type": "tool_use", "id": f"toolu_{i}", "name": call.name, "input": {}}
            events.append(_event({"type": "content_block_start", "index": i, "content_block": block}))
            for part in _pieces(call.arguments):
                delta = {"type": "input_json_delta", "partial_json": part}
                events.append(_event({"type": "content_block_delta", "index": i, "delta": delta}))
            if i + 1 < len(calls):  # `finish` closes the last one
                events.append(_event({"type": "content_block_stop", "index": i}))
        self._last_block = len(calls) - 1
        return events

    def finish(self, reason: str) -> list[bytes]:
        self._reason = ANTHROPIC_REASONS[reason]
        return [_event({"type": "content_block_stop", "index": self._last_block})]

    def usage(self, cost: Tokens | None) -> list[bytes]:
        delta = {"stop_reason": self._reason, "stop_sequence": None}
        told: dict[str, Any] = {"type": "message_delta", "delta": delta}
        if cost is not None:
            told["usage"] = _anthropic_usage(cost)
        return [_event(told)]

    def end(self) -> bytes:
        return _event({"type": "message_stop"})

    def ping(self) -> bytes:
        return _event({"type": "ping"})

    def plain(self, text: str, *, reason: str, cost: Tokens | None, calls: Sequence[ToolCall] = ()) -> bytes:
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        content += [
            {"type": "tool_use", "id": f"toolu_{i}", "name": call.name, "input": json.loads(call.arguments or "{}")}
            for i, call in enumerate(calls)
        ]
        answer: dict[str, Any] = {**_MESSAGE, "content": content, "stop_reason": ANTHROPIC_REASONS[reason]}
        if cost is not None:
            answer["usage"] = _anthropic_usage(cost)
        return _json(answer)

    def error(self, kind: str, message: str, code: str | None = None) -> bytes:
        del code  # this dialect has none
        return _json({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_upstream"})

    def error_event(self, message: str) -> bytes:
        return b"event: error\ndata: " + self.error("api_error", message) + b"\n\n"


ANTHROPIC_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

_CHUNK: Final = {"id": "chatcmpl-wall", "object": "chat.completion.chunk", "created": 1_800_000_000, "model": "wall"}
_MESSAGE: Final = {"id": "msg_wall", "type": "message", "role": "assistant", "model": "wall", "stop_sequence": None}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _data(value: object) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"event: %b\n%b" % (str(value["type"]).encode(), _data(value))


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return _data({**_CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _named(call: ToolCall) -> dict[str, str]:
    return {"name": call.name, "arguments": ""}


def _pieces(text: str) -> list[str]:
    return [text[i : i + 3] for i in range(0, len(text), 3)]


def _openai_usage(cost: Tokens) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": cost.prompt,
        "completion_tokens": cost.completion,
        "total_tokens": cost.prompt + cost.completion,
    }
    if cost.cached:
        usage["prompt_tokens_details"] = {"cached_tokens": cost.cached}
    return usage


def _anthropic_usage(cost: Tokens, completion: int | None = None) -> dict[str, int]:
    """Here `input_tokens` are those that came from no cache."""
    return {
        "input_tokens": cost.prompt - cost.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cost.cached,
        "output_tokens": cost.completion if completion is None else completion,
    }
