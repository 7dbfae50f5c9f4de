"""A request of the hub, written for an upstream of OpenAI's chat dialect.

Left out without a word, because nothing of the answer depends on it: cache marks (these upstreams cache by themselves),
citations and signatures of earlier answers (only their origin can read them), reasoning of earlier turns (there is no
field for it; servers with vLLM's extensions get what nobody has signed), and whether the reasoning should be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
import xxhash

from penstock.wire.canonical import (
    Ask,
    Audio,
    Cache,
    Document,
    Format,
    Image,
    Losses,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from penstock.wire.openai_values import decode_object, encode
from penstock.wire.tool_names import ToolNames

MAX_STOPS: Final = 4
MAX_CALL_ID: Final = 40  # OpenAI refuses longer ids of tool calls; other providers' may be
EFFORTS: Final = ((4_096, "low"), (16_384, "medium"))  # a budget in tokens up to this; more is "high"
_TIERS: Final = {tier: tier for tier in ("auto", "default", "flex", "scale", "priority", "fast")} | {
    "standard_only": "default"  # Anthropic's word
}
_SAME: Final = (
    "temperature", "top_p", "seed", "n", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs",
    "top_logprobs", "user", "metadata", "verbosity",
)  # fmt: skip

_TEXT: Final = (Text,)
_USERS: Final = (Text, Image, Document, Audio)
"""What the messages of each role can hold."""

Json = dict[str, Any]


PrefillBy = Literal["continue_final_message", "prefix", "prefill"]
"""By a field of the request, by one of the message, or by nothing but the message."""


def write_request(
    ask: Ask,
    *,
    served: str,
    losses: Losses,
    reasoning_models: bool = False,
    extensions: bool = False,
    more_sampling: bool | None = None,
    prefill_by: PrefillBy | None = None,
    keep_cache_control: bool = False,
    ask_usage: bool = True,
) -> bytes:
    """The body for an upstream whose name for the model is `served`. Raises `Untranslatable` through `losses`.

    `reasoning_models`: OpenAI's own, which want `max_completion_tokens` and can be told not to think. `extensions`:
    vLLM's: any number of stop texts, reasoning in the history, and what the next two say when they are not given.
    `more_sampling`: `top_k` and `min_p`. `prefill_by`: how it is told to go on from a last message of the assistant's.
    `keep_cache_control`: Claude is behind this upstream. `ask_usage`: off for servers that refuse `stream_options`.
    """
    if extensions:
        more_sampling = more_sampling is not False
        prefill_by = prefill_by or "continue_final_message"
    for name in ask.extra:
        losses.lose(name)
    messages = ask.messages
    prefill = bool(messages) and _is_prefill(messages[-1])
    if prefill and prefill_by is None:
        losses.lose("prefill", "the answer cannot go on from a last message of the assistant's")
        messages, prefill = messages[:-1], False
    names = ToolNames.of(ask)
    written = _Messages(names, losses, extensions, keep_cache_control)
    body: Json = {"model": served, "messages": written.all(messages)}
    if ask.stream:
        body["stream"] = True
        if ask_usage:
            body["stream_options"] = {"include_usage": True}
    if ask.max_tokens is not None:
        body["max_completion_tokens" if reasoning_models else "max_tokens"] = ask.max_tokens
    for name in _SAME:
        value = getattr(ask, name)
        if value is not None:
            body[name] = value
    for name in ("top_k", "min_p"):
        value = getattr(ask, name)
        if value is not None:
            if more_sampling:
                body[name] = value
            else:
                losses.lose(name)
    stop = ask.stop
    if len(stop) > MAX_STOPS and not extensions:
        losses.lose("stop", f"at most {MAX_STOPS} stop texts")
        stop = stop[:MAX_STOPS]
    if stop:
        body["stop"] = stop
    if ask.service_tier is not None:
        if ask.service_tier in _TIERS:
            body["service_tier"] = _TIERS[ask.service_tier]
        else:
            losses.lose("service_tier")
    if ask.tools:  # the two below are refused without them, and mean nothing then
        body["tools"] = [_tool(tool, names, keep_cache_control) for tool in ask.tools]
        if ask.tool_choice is not None:
            body["tool_choice"] = _choice(ask.tool_choice, names)
        if ask.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = ask.parallel_tool_calls
    if ask.response_format is not None:
        body["response_format"] = _format(ask.response_format)
    effort = _effort(ask.reasoning, reasoning_models or extensions)
    if effort is not None:
        body["reasoning_effort"] = effort
    if prefill and prefill_by == "continue_final_message":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    elif prefill and prefill_by == "prefix":
        body["messages"][-1]["prefix"] = True
    return encode(body)


def _is_prefill(last: Message) -> bool:
    return last.role == "assistant" and not any(isinstance(part, ToolCall) for part in last.parts)


# --- messages --------------------------------------------------------------------------------------------------------


class _Messages:
    """The order here is the dialect's: the results of tools come right after their calls, before anything else that the
    user says, and cannot hold images or files, which follow as the user's own."""

    def __init__(self, names: ToolNames, losses: Losses, extensions: bool, keep_cache_control: bool) -> None:
        self._names = names
        self._losses = losses
        self._extensions = extensions
        self._keep_cache_control = keep_cache_control

    def all(self, messages: Iterable[Message]) -> list[Json]:
        written: list[Json] = []
        users: list[Message] = []  # turns of the user's that follow one another
        for message in messages:
            if message.role == "user":
                users.append(message)
                continue
            if users:
                written += self._user(users)
                users = []
            if message.role == "assistant":
                written.append(self._assistant(message))
            else:
                written.append(self._said("system", message.parts, message.name, _TEXT))
        return written + self._user(users) if users else written

    def _user(self, turns: Sequence[Message]) -> list[Json]:
        results: list[Json] = []
        moved: list[Part] = []
        for turn in turns:
            results += [self._result(part, moved) for part in turn.parts if isinstance(part, ToolResult)]
        said = []
        for turn in turns:
            rest = [*moved, *[part for part in turn.parts if not isinstance(part, ToolResult)]]
            if rest or not turn.parts:
                said.append(self._said("user", rest, turn.name, _USERS))
                moved = []
        return results + said

    def _result(self, result: ToolResult, moved: list[Part]) -> Json:
        texts = [part for part in result.parts if isinstance(part, Text)]
        others = [part for part in result.parts if not isinstance(part, Text)]
        if others:
            moved.append(Text(f"From the result of tool call {_call_id(result.call_id)}:"))
            moved += others
            texts = texts or [Text("The result is in the next message of the user.")]
        if result.is_error:
            texts = [Text("Error: " + texts[0].text, texts[0].cache), *texts[1:]] if texts else [Text("Error")]
        message = {
            "role": "tool",
            "tool_call_id": _call_id(result.call_id),
            "content": self._content(texts, "tool", _TEXT) or "",
        }
        self._mark(message, result.cache)
        return message

    def _assistant(self, turn: Message) -> Json:
        calls = [part for part in turn.parts if isinstance(part, ToolCall)]
        refusals = "".join(part.text for part in turn.parts if isinstance(part, Refusal))
        said = [part for part in turn.parts if not isinstance(part, ToolCall | Refusal | Thinking)]
        message = self._said("assistant", said, turn.name, _TEXT)
        if refusals:
            message["refusal"] = refusals
        if calls:
            message["tool_calls"] = [self._call(call) for call in calls]
        if (calls or refusals) and not message["content"]:
            message["content"] = None
        if self._extensions:
            thoughts = [part.text for part in turn.parts if isinstance(part, Thinking) and part.signature is None]
            if any(thoughts):
                message["reasoning_content"] = "".join(thoughts)
        return message

    def _call(self, call: ToolCall) -> Json:
        function = {"name": self._names.outward(call.name), "arguments": call.arguments}
        written: Json = {"id": _call_id(call.id), "type": "function", "function": function}
        self._mark(written, call.cache)
        return written

    def _said(self, role: str, parts: Sequence[Part], name: str | None, kinds: tuple[type[Part], ...]) -> Json:
        message: Json = {"role": role, "content": self._content(parts, role, kinds) or ""}
        if name is not None:
            message["name"] = name
        return message

    def _content(self, parts: Sequence[Part], role: str, kinds: tuple[type[Part], ...]) -> str | list[Json]:
        """One text without a mark is a string: not every server takes parts."""
        if len(parts) == 1 and isinstance(parts[0], Text) and not (self._keep_cache_control and parts[0].cache):
            return parts[0].text
        written = []
        for part in parts:
            if not isinstance(part, kinds):
                self._losses.lose(f"messages.{role}.{type(part).__name__.lower()}")
                continue
            value = self._part(part)
            if value is not None:
                self._mark(value, getattr(part, "cache", None))
                written.append(value)
        return written

    def _part(self, part: Part) -> Json | None:
        match part:
            case Text(text=text):
                return {"type": "text", "text": text}
            case Image():
                return self._image(part)
            case Document():
                return self._document(part)
            case Audio(data=data, format=format):
                return {"type": "input_audio", "input_audio": {"data": data, "format": format}}
        raise AssertionError(f"{type(part).__name__} has a field of its own")

    def _image(self, image: Image) -> Json | None:
        if image.data is not None:
            url = f"data:{image.media_type};base64,{image.data}"
        elif image.url is not None:
            url = image.url
        else:
            self._losses.lose("image.file_id", "only image data and URLs")
            return None
        value = {"url": url}
        if image.detail is not None:
            value["detail"] = image.detail
        return {"type": "image_url", "image_url": value}

    def _document(self, document: Document) -> Json | None:
        if document.text is not None:
            title = "" if document.name is None else f"{document.name}\n\n"
            return {"type": "text", "text": title + document.text}
        if document.file_id is not None:
            return {"type": "file", "file": {"file_id": document.file_id}}
        if document.data is None:
            self._losses.lose("document.url", "only the data of a document")
            return None
        media_type = document.media_type or "application/pdf"
        name = document.name or f"document.{media_type.rpartition('/')[2]}"  # OpenAI wants one
        return {"type": "file", "file": {"filename": name, "file_data": f"data:{media_type};base64,{document.data}"}}

    def _mark(self, value: Json, cache: Cache | None) -> None:
        if cache is not None and self._keep_cache_control:
            value["cache_control"] = _cache_control(cache)


def _cache_control(cache: Cache) -> Json:
    return {"type": "ephemeral"} if cache == "5m" else {"type": "ephemeral", "ttl": cache}


def _call_id(id: str) -> str:
    return id if len(id) <= MAX_CALL_ID else f"call_{xxhash.xxh3_128_hexdigest(id.encode())}"


# --- tools, format, reasoning ----------------------------------------------------------------------------------------


def _tool(tool: Tool, names: ToolNames, keep_cache_control: bool) -> Json:
    function: Json = {"name": names.outward(tool.name)}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.schema is not None:
        function["parameters"] = _object_schema(tool.schema)
    if tool.strict is not None:
        function["strict"] = tool.strict
    written: Json = {"type": "function", "function": function}
    if tool.cache is not None and keep_cache_control:
        written["cache_control"] = _cache_control(tool.cache)
    return written


_OTHERWISE_TYPED: Final = ("anyOf", "oneOf", "allOf", "$ref", "enum", "const")


def _object_schema(schema: msgspec.Raw) -> object:
    """As it came, but `type` and `properties`, which OpenAI insists on and other providers do not, are filled in."""
    if bytes(memoryview(schema)[:1]) != b"{":
        return schema
    fields = decode_object(schema)
    if any(name in fields for name in _OTHERWISE_TYPED) or ("type" in fields and "properties" in fields):
        return schema
    return {"type": "object", "properties": {}} | fields


def _choice(choice: ToolChoice, names: ToolNames) -> object:
    functions = [{"type": "function", "function": {"name": names.outward(name)}} for name in choice.names]
    match choice.mode:
        case "tool":
            return functions[0]
        case "allowed_auto" | "allowed_required":
            mode = choice.mode.removeprefix("allowed_")
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": functions}}
    return choice.mode


def _format(form: Format) -> Json:
    if form.kind == "json_object":
        return {"type": "json_object"}
    schema: Json = {"name": form.name or "answer"}
    for name in ("schema", "strict", "description"):
        value = getattr(form, name)
        if value is not None:
            schema[name] = value
    return {"type": "json_schema", "json_schema": schema}


def _effort(reasoning: Reasoning | None, can_refrain: bool) -> str | None:
    """An explicit no is left out for models that were never said to reason: they would refuse the word."""
    if reasoning is None:
        return None
    if reasoning.off:
        return "none" if can_refrain else None
    if reasoning.effort is not None or reasoning.budget is None:
        return reasoning.effort
    return next((effort for most, effort in EFFORTS if reasoning.budget <= most), "high")
