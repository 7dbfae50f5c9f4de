"""What a caller was told, read as strictly as a good client library reads it, in either dialect.

`complaints` is what such a client would stumble over. Nothing of the gateway's own code judges it.
Sources: WHATWG HTML 9.2.6 (event streams); platform.openai.com/docs/api-reference/chat-streaming;
docs.anthropic.com/en/api/messages-streaming and /errors.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from penstock.testing.faults.voices import ANTHROPIC_REASONS, Tokens, ToolCall

ANTHROPIC_ERRORS: Final = frozenset(
    {
        "invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
        "request_too_large", "rate_limit_error", "timeout_error", "api_error", "overloaded_error",
    }
)  # fmt: skip
_REASONS: Final = {theirs: ours for ours, theirs in ANTHROPIC_REASONS.items()} | {"stop_sequence": "stop"}


class ToldError(msgspec.Struct, frozen=True):
    message: str
    type: str
    code: str | None = None  # OpenAI's dialect only


class Told(msgspec.Struct):
    """One answer as its caller saw it. Times are Clock.now() seconds."""

    asked_at: float
    status: int = 0  # 0: no answer came
    headers: list[tuple[str, str]] = msgspec.field(default_factory=list)
    head: bytes = b""
    body: bytearray = msgspec.field(default_factory=bytearray)
    pieces: list[str] = msgspec.field(default_factory=list)
    calls: list[ToolCall] = msgspec.field(default_factory=list)
    finish: str | None = None  # in OpenAI's words
    cost: Tokens | None = None
    first_cost: Tokens | None = None  # what the first event said of the prompt; Anthropic's streams only
    terminal: bool = False  # the dialect's last event came; a plain answer: it is there
    error: ToldError | None = None
    complaints: list[str] = msgspec.field(default_factory=list)
    first_text_at: float | None = None
    ended_at: float | None = None
    cut: bool = False  # the HTTP message itself was not whole
    late: bool = False  # the wall lost its patience

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def took(self) -> float:
        """Seconds, to the end or to where it was given up."""
        return 0.0 if self.ended_at is None else self.ended_at - self.asked_at

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def complain(self, what: str) -> None:
        if what not in self.complaints:
            self.complaints.append(what)


class Events:
    """An event stream cut into (event name, data)."""

    def __init__(self) -> None:
        self._begun = False
        self._name, self._data = "", list[str]()
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        self._bytes += data
        *lines, rest = bytes(self._bytes).split(b"\n")
        self._bytes = bytearray(rest)
        found = []
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode()
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif line.startswith("event:"):
                self._name = line[6:].strip()
            elif not line:
                if self._data:
                    found.append((self._name, "\n".join(self._data)))
                self._name, self._data = "", []
        return found


class Reader:
    """Fills in a `Told` from a body in one dialect."""

    def __init__(self, told: Told) -> None:
        self.told = told

    def event(self, name: str, data: str, now: float) -> None:
        told = self.told
        if data == "[DONE]" and not name:
            self.done()
            return
        try:
            value = json.loads(data)
        except ValueError:
            told.complain("an event that is not JSON")
            return
        if told.error is not None:
            told.complain("events after the error event")
        elif not isinstance(value, dict):
            told.complain("an event that is not an object")
        else:
            before = len(told.text) + len(told.calls)
            try:
                self.value(name, value)
            except (KeyError, TypeError, IndexError) as error:
                told.complain(f"not an event of this dialect ({error!r})")
            if told.first_text_at is None and len(told.text) + len(told.calls) > before:
                told.first_text_at = now

    def done(self) -> None: ...
    def value(self, name: str, value: dict[str, Any]) -> None: ...
    def answer(self, value: dict[str, Any]) -> None: ...
    def failure(self, value: dict[str, Any]) -> None: ...
    def end(self) -> None:
        """The stream is over."""

    def body(self, body: bytes) -> None:
        """A body that is no stream: an answer, or an error."""
        told = self.told
        try:
            value = json.loads(body)
        except ValueError:
            told.complain("a body that is not JSON")
            return
        if not isinstance(value, dict):
            told.complain("a body that is not an object")
        elif told.status == 200 and "error" not in value:
            try:
                self.answer(value)
                told.terminal = True
            except (KeyError, TypeError, IndexError) as error:
                told.complain(f"not an answer of this dialect ({error!r})")
        else:
            self.failure(value)


class OpenAIReader(Reader):
    def __init__(self, told: Told) -> None:
        super().__init__(told)
        self._calls: dict[int, list[str]] = {}

    def done(self) -> None:
        if self.told.error is not None:
            self.told.complain("[DONE] after an error")
        self.told.terminal = True

    def value(self, name: str, value: dict[str, Any]) -> None:
        told = self.told
        if value.get("error") is not None:
            self.failure(value)
            return
        if told.terminal:
            told.complain("events after [DONE]")
        usage = value.get("usage")
        if usage is not None:
            told.cost = _openai_cost(usage)
        for choice in value.get("choices", ()):
            delta = choice.get("delta") or {}
            if delta.get("content"):
                if told.finish is not None:
                    told.complain("text after the finish reason")
                told.pieces.append(delta["content"])
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                known = self._calls.setdefault(call["index"], ["", ""])
                known[0] += function.get("name") or ""
                known[1] += function.get("arguments") or ""
            if choice.get("finish_reason") is not None:
                told.finish = choice["finish_reason"]
        told.calls = [ToolCall(name, arguments) for name, arguments in self._calls.values()]

    def answer(self, value: dict[str, Any]) -> None:
        told = self.told
        choice = value["choices"][0]
        message = choice["message"]
        told.pieces.append(message.get("content") or "")
        told.calls = [
            ToolCall(call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        ]
        told.finish = choice["finish_reason"]
        if value.get("usage") is not None:
            told.cost = _openai_cost(value["usage"])

    def failure(self, value: dict[str, Any]) -> None:
        error = value.get("error")
        if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error["message"]:
            self.told.complain("an error that is not OpenAI's {error: {message, type, param, code}}")
            self.told.error = ToldError(str(error)[:200], "")
            return
        code = error.get("code")
        self.told.error = ToldError(error["message"], str(error.get("type")), None if code is None else str(code))


class AnthropicReader(Reader):
    def __init__(self, told: Told) -> None:
        super().__init__(told)
        self._started = self._closing = False
        self._block: int | None = None  # the one that is open
        self._n_blocks = 0
        self._call: list[str] | None = None

    def done(self) -> None:
        self.told.complain("[DONE], which is not of this dialect")

    def value(self, name: str, value: dict[str, Any]) -> None:
        told = self.told
        kind = value.get("type")
        if kind != name:
            told.complain(f"event {name!r} with type {kind!r}")
        if told.terminal and kind != "message_stop":  # twice does no harm
            told.complain("events after message_stop")
        match kind:
            case "ping":
                return
            case "error":
                self.failure(value)
            case "message_start":
                if self._started:
                    told.complain("a second message_start")
                self._started = True
                usage = value["message"].get("usage")
                if usage is None:
                    told.complain("message_start without usage")
                else:
                    told.cost = told.first_cost = _anthropic_cost(usage, None)
            case "content_block_start":
                self._begin(value)
            case "content_block_delta":
                if value["index"] != self._block:
                    told.complain("a delta for a block that is not open")
                delta = value["delta"]
                if delta["type"] == "text_delta":
                    told.pieces.append(delta["text"])
                elif delta["type"] == "input_json_delta" and self._call is not None:
                    self._call[1] += delta["partial_json"]
                    told.calls[-1] = ToolCall(self._call[0], self._call[1])
            case "content_block_stop":
                if value["index"] != self._block:
                    told.complain("a stop for a block that is not open")
                self._block = self._call = None
            case "message_delta":
                if self._block is not None:
                    told.complain("message_delta while a block is open")
                self._closing = True
                told.finish = _reason(value["delta"].get("stop_reason"))
                if value.get("usage") is not None:
                    told.cost = _anthropic_cost(value["usage"], told.cost)
            case "message_stop":
                if not self._closing:
                    told.complain("message_stop without message_delta")
                told.terminal = True
            case _:
                told.complain(f"an event of unknown type {kind!r}")
        if not self._started and kind not in ("error", "message_start"):
            told.complain(f"{kind} before message_start")

    def _begin(self, value: dict[str, Any]) -> None:
        told = self.told
        if self._block is not None:
            told.complain("two blocks open at a time")
        if value["index"] != self._n_blocks:
            told.complain("block indexes that are not 0, 1, 2, ...")
        self._block = value["index"]
        self._n_blocks += 1
        block = value["content_block"]
        if block["type"] == "tool_use":
            self._call = [block["name"], ""]
            told.calls.append(ToolCall(block["name"], ""))
        elif block["type"] == "text" and block.get("text"):
            told.pieces.append(block["text"])

    def answer(self, value: dict[str, Any]) -> None:
        told = self.told
        if value["type"] != "message":
            told.complain(f"an answer of type {value['type']!r}")
        for block in value["content"]:
            if block["type"] == "text":
                told.pieces.append(block["text"])
            elif block["type"] == "tool_use":
                told.calls.append(ToolCall(block["name"], json.dumps(block["input"])))
        told.finish = _reason(value["stop_reason"])
        told.cost = _anthropic_cost(value["usage"], None)

    def failure(self, value: dict[str, Any]) -> None:
        told, error = self.told, value.get("error")
        if value.get("type") != "error" or not isinstance(error, dict) or not isinstance(error.get("message"), str):
            told.complain("an error that is not Anthropic's {type: error, error: {type, message}}")
            told.error = ToldError(str(error)[:200], "")
            return
        if error.get("type") not in ANTHROPIC_ERRORS:
            told.complain(f"an error type that Anthropic does not have: {error.get('type')!r}")
        told.error = ToldError(error["message"], str(error.get("type")))


READERS: Final[dict[str, type[Reader]]] = {"openai": OpenAIReader, "anthropic": AnthropicReader}


def _reason(theirs: str | None) -> str | None:
    return None if theirs is None else _REASONS.get(theirs, theirs)


def _openai_cost(usage: dict[str, Any]) -> Tokens:
    details = usage.get("prompt_tokens_details") or {}
    return Tokens(usage["prompt_tokens"], usage["completion_tokens"], details.get("cached_tokens") or 0)


def _anthropic_cost(usage: dict[str, Any], before: Tokens | None) -> Tokens:
    """`before`: message_delta may say only what has changed since message_start."""
    if "input_tokens" not in usage and before is not None:
        return Tokens(before.prompt, usage["output_tokens"], before.cached)
    cached = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    return Tokens((usage.get("input_tokens") or 0) + cached + written, usage["output_tokens"], cached)
