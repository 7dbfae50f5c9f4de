"""A caller's chat completion request, read into the hub.

Besides OpenAI's own fields it takes what people write to other models behind gateways of this dialect:
`reasoning_content` and `thinking_blocks` in the history, `thinking`, `cache_control`, vLLM's `top_k` and `min_p`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.wire.canonical import (
    Ask,
    Audio,
    Cache,
    Document,
    Format,
    Image,
    Message,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    unseal,
)
from penstock.wire.openai_hub.shapes import AskedFormat, AskedThinking
from penstock.wire.openai_values import (
    Turns,
    cache_mark,
    decode_any,
    decode_count,
    decode_flag,
    decode_number,
    decode_object,
    decode_objects,
    decode_string,
    decode_strings,
    document_of,
    effort_of,
    elements,
    encode,
    function_tool,
    image_of,
    keep_unknown,
    members,
    optional_text,
    read,
    refusal,
    said,
    text,
)
from penstock.wire.prompts import is_null

_SCALARS: Final[Mapping[str, Callable[[msgspec.Raw], object]]] = {
    "stream": decode_flag,
    "temperature": decode_number,
    "top_p": decode_number,
    "top_k": decode_count,
    "min_p": decode_number,
    "seed": decode_count,
    "n": decode_count,
    "presence_penalty": decode_number,
    "frequency_penalty": decode_number,
    "logprobs": decode_flag,
    "top_logprobs": decode_count,
    "parallel_tool_calls": decode_flag,
    "user": decode_string,
    "service_tier": decode_string,
    "verbosity": decode_string,
}
"""Fields that the hub has under the same name."""

_READ: Final = frozenset(
    {
        *_SCALARS,
        "model", "messages", "max_tokens", "max_completion_tokens", "stop", "logit_bias", "metadata",
        "tools", "functions", "tool_choice", "function_call", "response_format", "reasoning_effort", "thinking",
        "safety_identifier", "stream_options",
    }
)  # fmt: skip
_SAYS_NOTHING: Final[Mapping[str, object]] = {
    "store": False,
    "modalities": ["text"],
    "continue_final_message": False,
    "add_generation_prompt": True,
}
"""Defaults that clients spell out."""


def read_request(fields: dict[str, msgspec.Raw]) -> Ask:
    """Raises `BadRequest` naming the field that is wrong."""
    fields = said(fields)
    if "model" not in fields or "messages" not in fields:
        name = "messages" if "model" in fields else "model"
        raise refusal(name, "is missing")
    extra: dict[str, msgspec.Raw] = {}
    values: dict[str, Any] = {
        name: read(fields[name], name, decode) for name, decode in _SCALARS.items() if name in fields
    }
    for name in ("max_tokens", "max_completion_tokens"):  # the newer one wins
        if name in fields:
            values["max_tokens"] = read(fields[name], name, decode_count)
    if "stop" in fields:
        values["stop"] = tuple(read(fields["stop"], "stop", _stop))
    if "safety_identifier" in fields:  # what replaces `user` as the name of a person
        values["user"] = read(fields["safety_identifier"], "safety_identifier", decode_string)
    for name in ("logit_bias", "metadata"):
        if name in fields and read(fields[name], name, decode_object):
            values[name] = fields[name]
    tools, choice = _tools(fields, extra)
    if "functions" in fields:
        values["parallel_tool_calls"] = False  # that API knows one call at a time
    for name in fields.keys() - _READ:
        if name not in _SAYS_NOTHING or read(fields[name], name, decode_any) != _SAYS_NOTHING[name]:
            extra[name] = fields[name]
    if "stream_options" in fields:
        options = read(fields["stream_options"], "stream_options", decode_any)
        keep_unknown(
            extra, members(options, "stream_options"), ("include_usage", "include_obfuscation"), "stream_options"
        )
    messages = _messages(fields["messages"], extra)
    if messages and messages[-1].role == "assistant":  # vLLM's way to say that this one is to be continued
        for name, value in (("continue_final_message", True), ("add_generation_prompt", False)):
            if name in extra and decode_any(extra[name]) is value:
                del extra[name]
    return Ask(
        model=read(fields["model"], "model", decode_string),
        messages=messages,
        tools=tools,
        tool_choice=choice,
        response_format=_format(fields, extra),
        reasoning=_reasoning(fields),
        extra=extra,
        **values,
    )


def _stop(raw: msgspec.Raw) -> list[str]:
    return [decode_string(raw)] if bytes(memoryview(raw)[:1]) == b'"' else decode_strings(raw)


# --- messages --------------------------------------------------------------------------------------------------------

_decode_messages = msgspec.json.Decoder(list[dict[str, Any]]).decode
_COMMON: Final = ("role", "content", "name", "cache_control")
_OF_ROLE: Final[Mapping[str, frozenset[str]]] = {
    "system": frozenset(_COMMON),
    "user": frozenset(_COMMON),
    "tool": frozenset({*_COMMON, "tool_call_id"}),
    "assistant": frozenset(
        {
            *_COMMON, "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning", "thinking_blocks",
            "annotations",  # an answer's, sent back with it; no dialect takes them in a request
        }
    ),
}  # fmt: skip


def _messages(raw: msgspec.Raw, extra: dict[str, msgspec.Raw]) -> tuple[Message, ...]:
    turns = Turns()
    functions: dict[str, str] = {}  # name to id, of calls in the old style, which have none
    for number, message in enumerate(read(raw, "messages", _decode_messages)):
        where, role = f"messages[{number}]", message.get("role")
        name = optional_text(message.get("name"), f"{where}.name")
        mark = cache_mark(message.get("cache_control"), f"{where}.cache_control")
        match role:
            case "system" | "developer":
                role = "system"
                turns.add("system", _content(message, where, mark, extra), name)
            case "user":
                turns.user(_content(message, where, mark, extra), name)
            case "assistant":
                parts = _assistant(message, f"call_{number}", where, mark, extra)
                legacy = message.get("function_call")
                if legacy is not None:
                    functions[legacy["name"]] = f"call_{number}"
                turns.add("assistant", parts, name)
            case "tool" | "function":
                if role == "tool":
                    id = text(message.get("tool_call_id"), f"{where}.tool_call_id")
                elif name in functions:
                    id = functions[name]
                else:
                    raise refusal(f"{where}.name", "must be that of a function that was called before")
                role = "tool"
                results = _content(message, where, None, extra)
                kept = tuple(part for part in results if isinstance(part, Text | Image | Document))
                if len(kept) != len(results):
                    raise refusal(f"{where}.content", "may hold text, images and files")
                turns.user([ToolResult(id, kept, cache=mark)])
            case _:
                raise refusal(f"{where}.role", "must be one of system, developer, user, assistant, tool, function")
        keep_unknown(extra, message, _OF_ROLE[role], "messages")
    return turns.messages()


def _content(message: Mapping[str, Any], where: str, mark: Cache | None, extra: dict[str, msgspec.Raw]) -> list[Part]:
    """`mark`: the whole message's, which is behind its last part."""
    content = message.get("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content, mark)] if content else []
    parts: list[Part] = []
    for number, value in enumerate(elements(content, f"{where}.content")):
        place = f"{where}.content[{number}]"
        part = _part(members(value, place), place, extra)
        if part is not None:
            parts.append(part)
    if mark is not None and parts and isinstance(parts[-1], Text | Image | Document) and parts[-1].cache is None:
        parts[-1] = msgspec.structs.replace(parts[-1], cache=mark)
    return parts


def _part(part: dict[str, object], where: str, extra: dict[str, msgspec.Raw]) -> Part | None:
    kind = text(part.get("type"), f"{where}.type")
    cache = cache_mark(part.get("cache_control"), f"{where}.cache_control")
    if kind not in ("text", "image_url", "input_audio", "file", "refusal"):
        extra.setdefault(f"messages.content.{kind}", msgspec.Raw(encode(part)))
        return None
    keep_unknown(extra, part, ("type", "cache_control", kind), "messages.content")
    value, place = part.get(kind), f"{where}.{kind}"
    match kind:
        case "text":
            said = text(value, place)
            return Text(said, cache) if said else None
        case "image_url":
            if isinstance(value, str):  # some clients leave the object out
                return image_of(value, None, cache, place)
            image = members(value, place)
            return image_of(image.get("url"), image.get("detail"), cache, f"{place}.url")
        case "input_audio":
            audio = members(value, place)
            return Audio(text(audio.get("data"), f"{place}.data"), text(audio.get("format"), f"{place}.format"))
        case "file":
            return document_of(members(value, place), cache, place)
    return Refusal(text(value, place))


def _assistant(
    message: Mapping[str, Any], legacy_id: str, where: str, mark: Cache | None, extra: dict[str, msgspec.Raw]
) -> list[Part]:
    parts = _thinking(message, where)
    parts += _content(message, where, mark, extra)
    refused = optional_text(message.get("refusal"), f"{where}.refusal")
    if refused:
        parts.append(Refusal(refused))
    for number, value in enumerate(elements(message.get("tool_calls") or [], f"{where}.tool_calls")):
        place = f"{where}.tool_calls[{number}]"
        call = members(value, place)
        if call.get("type", "function") != "function":
            extra.setdefault(f"messages.tool_calls.{call['type']}", msgspec.Raw(encode(call)))
            continue
        parts.append(_call(call, call.get("function"), text(call.get("id"), f"{place}.id"), f"{place}.function"))
    legacy = message.get("function_call")
    if legacy is not None:
        parts.append(_call({}, legacy, legacy_id, f"{where}.function_call"))
    return parts


def _call(call: Mapping[str, object], function: object, id: str, where: str) -> ToolCall:
    function = members(function, where)
    return ToolCall(
        id=id,
        name=text(function.get("name"), f"{where}.name"),
        arguments=text(function.get("arguments", ""), f"{where}.arguments"),
        cache=cache_mark(call.get("cache_control"), f"{where}.cache_control"),
        signature=google_signature(call.get("extra_content")),
    )


def google_signature(extra_content: object) -> str | None:
    """Where Google's own OpenAI-type endpoint puts the thought signature of a call:
    `{"google": {"thought_signature": "..."}}`."""
    google = extra_content.get("google") if isinstance(extra_content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def _thinking(message: Mapping[str, Any], where: str) -> list[Part]:
    """`thinking_blocks` say all that `reasoning_content` says, and their signatures besides."""
    parts: list[Part] = []
    for number, value in enumerate(elements(message.get("thinking_blocks") or [], f"{where}.thinking_blocks")):
        place = f"{where}.thinking_blocks[{number}]"
        block = members(value, place)
        if block.get("type") == "redacted_thinking":
            data, origin = unseal(text(block.get("data"), f"{place}.data"), Origin.ANTHROPIC)
            parts.append(Thinking(redacted=data, origin=origin))
            continue
        thought = text(block.get("thinking"), f"{place}.thinking")
        signature = optional_text(block.get("signature"), f"{place}.signature")
        if signature:
            signature, origin = unseal(signature, Origin.ANTHROPIC)
            parts.append(Thinking(thought, signature, origin=origin))
        else:
            parts.append(Thinking(thought))
    if not parts:
        for name in ("reasoning_content", "reasoning"):
            thought = optional_text(message.get(name), f"{where}.{name}") or ""
            if thought:
                return [Thinking(thought)]
    return parts


# --- tools, format, reasoning ----------------------------------------------------------------------------------------


def _tools(
    fields: Mapping[str, msgspec.Raw], extra: dict[str, msgspec.Raw]
) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    tools = []
    for number, tool in enumerate(read(fields["tools"], "tools", decode_objects) if "tools" in fields else []):
        where = f"tools[{number}]"
        kind = read(tool["type"], f"{where}.type", decode_string) if "type" in tool else "function"
        if kind != "function":
            extra.setdefault(f"tools.{kind}", msgspec.Raw(encode(tool)))
            continue
        if "function" not in tool:
            raise refusal(f"{where}.function", "is missing")
        made = function_tool(read(tool["function"], f"{where}.function", decode_object), extra, f"{where}.function")
        mark = tool.get("cache_control")
        if mark is not None:
            made = msgspec.structs.replace(made, cache=cache_mark(decode_any(mark), f"{where}.cache_control"))
        for name in tool.keys() - {"type", "function", "cache_control"}:
            if not is_null(tool[name]):
                extra.setdefault(f"tools.{name}", tool[name])
        tools.append(made)
    if "functions" in fields:
        for number, function in enumerate(read(fields["functions"], "functions", decode_objects)):
            tools.append(function_tool(function, extra, f"functions[{number}]"))
    name = "tool_choice" if "tool_choice" in fields else "function_call"
    choice = _tool_choice(read(fields[name], name, decode_any), name) if name in fields else None
    if choice is None and name in fields:
        extra[name] = fields[name]
    return tuple(tools), choice


def _tool_choice(choice: object, where: str) -> ToolChoice | None:
    """None: a kind that the hub does not know."""
    match choice:
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case {"type": "function", "function": {"name": str(name)}} | {"name": str(name)}:
            return ToolChoice("tool", (name,))
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": [*tools]}}:
            names = []
            for tool in tools:
                match tool:
                    case {"type": "function", "function": {"name": str(name)}}:
                        names.append(name)
                    case _:
                        return None
            return ToolChoice("allowed_auto" if mode == "auto" else "allowed_required", tuple(names))
        case {"type": str()}:
            return None
    raise refusal(where, "is none of auto, none, required, a function by name, allowed_tools")


_decode_format = msgspec.json.Decoder(AskedFormat).decode


def _format(fields: Mapping[str, msgspec.Raw], extra: dict[str, msgspec.Raw]) -> Format | None:
    if "response_format" not in fields:
        return None
    seen = read(fields["response_format"], "response_format", _decode_format)
    match seen.type:
        case "text":
            return None
        case "json_object":
            return Format("json_object")
        case "json_schema":
            form = seen.json_schema
            if form is None:
                raise refusal("response_format.json_schema", "is missing")
            schema = None if is_null(form.schema) else form.schema
            return Format("json_schema", form.name, schema, form.strict, form.description)
    extra["response_format"] = fields["response_format"]
    return None


_decode_thinking = msgspec.json.Decoder(AskedThinking).decode


def _reasoning(fields: Mapping[str, msgspec.Raw]) -> Reasoning | None:
    """`reasoning_effort`, and Anthropic's `thinking` as its own endpoint of this dialect takes it."""
    effort = None
    if "reasoning_effort" in fields:
        effort = effort_of(read(fields["reasoning_effort"], "reasoning_effort", decode_string))
    if "thinking" not in fields:
        return effort
    thinking = read(fields["thinking"], "thinking", _decode_thinking)
    if thinking.type == "disabled":
        return Reasoning(off=True)
    if thinking.type not in ("enabled", "adaptive"):
        raise refusal("thinking.type", "must be one of enabled, disabled, adaptive")
    return msgspec.structs.replace(effort or Reasoning(), budget=thinking.budget_tokens, off=False)
