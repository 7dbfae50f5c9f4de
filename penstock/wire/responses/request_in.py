"""A caller's Responses request, read into the hub.

What concerns only the answer as an object (`store`, `metadata`, `previous_response_id` once it is resolved) has no
place there: whoever writes the answer echoes it. `include` asks for what the hub gives anyway, or does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.wire.canonical import (
    Ask,
    Audio,
    Document,
    Format,
    Image,
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
from penstock.wire.openai_values import (
    Turns,
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
from penstock.wire.responses.shapes import TextFormat

REDACTED: Final = "redacted."
"""Before the seal of reasoning that has no text: this dialect has one field for it and for signatures. No signature
begins so, for they are base64."""

_SCALARS: Final[Mapping[str, tuple[str, Callable[[msgspec.Raw], object]]]] = {
    "stream": ("stream", decode_flag),
    "temperature": ("temperature", decode_number),
    "top_p": ("top_p", decode_number),
    "max_output_tokens": ("max_tokens", decode_count),
    "top_logprobs": ("top_logprobs", decode_count),
    "parallel_tool_calls": ("parallel_tool_calls", decode_flag),
    "user": ("user", decode_string),
    "safety_identifier": ("user", decode_string),  # what replaces `user`
    "service_tier": ("service_tier", decode_string),
}
_READ: Final = frozenset(
    {
        *_SCALARS,
        "model", "input", "instructions", "text", "reasoning", "tools", "tool_choice", "include", "stream_options",
        "store", "metadata",
    }
)  # fmt: skip
_SAYS_NOTHING: Final[Mapping[str, object]] = {"background": False, "truncation": "disabled"}
_INCLUDED_ANYWAY: Final = "reasoning.encrypted_content"
_LOGPROBS: Final = "message.output_text.logprobs"


def read_request(fields: dict[str, msgspec.Raw]) -> Ask:
    """Raises `BadRequest` naming the field that is wrong."""
    fields = said(fields)
    if "previous_response_id" in fields:
        raise refusal("previous_response_id", "names no response that is kept here")
    for name in ("model", "input"):
        if name not in fields:
            raise refusal(name, "is missing")
    extra: dict[str, msgspec.Raw] = {}
    values: dict[str, Any] = {
        ours: read(fields[name], name, decode) for name, (ours, decode) in _SCALARS.items() if name in fields
    }
    for name in fields.keys() - _READ:
        if name not in _SAYS_NOTHING or read(fields[name], name, decode_any) != _SAYS_NOTHING[name]:
            extra[name] = fields[name]
    if "include" in fields:
        included = set(read(fields["include"], "include", decode_strings))
        if _LOGPROBS in included:
            values["logprobs"] = True
        for name in sorted(included - {_INCLUDED_ANYWAY, _LOGPROBS}):
            extra[f"include.{name}"] = msgspec.Raw(b"true")
    if "stream_options" in fields:
        options = members(read(fields["stream_options"], "stream_options", decode_any), "stream_options")
        keep_unknown(extra, options, ("include_obfuscation",), "stream_options")
    turns = Turns()
    if "instructions" in fields:
        turns.add("system", [Text(read(fields["instructions"], "instructions", decode_string))])
    _input(fields["input"], turns, extra)
    form, verbosity = _text(fields, extra)
    tools, choice = _tools(fields, extra)
    return Ask(
        model=read(fields["model"], "model", decode_string),
        messages=turns.messages(),
        response_format=form,
        verbosity=verbosity,
        reasoning=_reasoning(fields, extra),
        tools=tools,
        tool_choice=choice,
        extra=extra,
        **values,
    )


# --- items -----------------------------------------------------------------------------------------------------------

_decode_items = msgspec.json.Decoder(list[dict[str, Any]]).decode
_KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "message": frozenset({"type", "id", "status", "role", "content", "phase"}),
    "function_call": frozenset({"type", "id", "status", "call_id", "name", "arguments"}),
    "function_call_output": frozenset({"type", "id", "status", "call_id", "output"}),
    "reasoning": frozenset({"type", "id", "status", "summary", "content", "encrypted_content"}),
}


def _input(raw: msgspec.Raw, turns: Turns, extra: dict[str, msgspec.Raw]) -> None:
    if bytes(memoryview(raw)[:1]) == b'"':
        turns.user([Text(read(raw, "input", decode_string))])
        return
    for number, item in enumerate(read(raw, "input", _decode_items)):
        where = f"input[{number}]"
        kind = text(item.get("type") or "message", f"{where}.type")
        match kind:
            case "message":
                _message(item, turns, extra, where)
            case "function_call":
                call = ToolCall(
                    id=text(item.get("call_id"), f"{where}.call_id"),
                    name=text(item.get("name"), f"{where}.name"),
                    arguments=text(item.get("arguments"), f"{where}.arguments"),
                )
                turns.assistant([call])
            case "function_call_output":
                turns.user([_result(item, extra, where)])
            case "reasoning":
                turns.assistant([_thinking(item, where)])
            case "item_reference":
                raise refusal(where, f"names no item that is kept here: {str(item.get('id'))[:80]!r}")
            case _:
                extra.setdefault(f"input.{kind}", msgspec.Raw(encode(item)))
                continue
        keep_unknown(extra, item, _KNOWN[kind], f"input.{kind}")


def _message(item: Mapping[str, Any], turns: Turns, extra: dict[str, msgspec.Raw], where: str) -> None:
    content = item.get("content")
    if isinstance(content, str):
        parts: list[Part] = [Text(content)] if content else []
    else:
        parts = _parts(content, extra, f"{where}.content")
    match item.get("role"):
        case "user":
            turns.user(parts)
        case "system" | "developer":
            turns.add("system", parts)
        case "assistant":
            turns.assistant(parts)
        case _:
            raise refusal(f"{where}.role", "must be one of user, assistant, system, developer")


def _parts(content: object, extra: dict[str, msgspec.Raw], where: str) -> list[Part]:
    parts: list[Part] = []
    for number, value in enumerate(elements(content, where)):
        place = f"{where}[{number}]"
        part = members(value, place)
        kind = text(part.get("type"), f"{place}.type")
        match kind:
            case "input_text" | "output_text" | "text":
                words = text(part.get("text"), f"{place}.text")
                if words:
                    parts.append(Text(words))
                known: tuple[str, ...] = ("type", "text", "annotations", "logprobs")
            case "input_image":
                parts.append(_image(part, place))
                known = ("type", "image_url", "file_id", "detail")
            case "input_file":
                parts.append(document_of(part, None, place))
                known = ("type", "file_data", "file_id", "file_url", "filename")
            case "input_audio":
                audio = members(part.get("input_audio"), f"{place}.input_audio")
                parts.append(
                    Audio(text(audio.get("data"), f"{place}.data"), text(audio.get("format"), f"{place}.format"))
                )
                known = ("type", "input_audio")
            case "refusal":
                parts.append(Refusal(text(part.get("refusal"), f"{place}.refusal")))
                known = ("type", "refusal")
            case _:
                extra.setdefault(f"input.content.{kind}", msgspec.Raw(encode(part)))
                continue
        keep_unknown(extra, part, known, "input.content")
    return parts


def _image(part: Mapping[str, object], where: str) -> Image:
    file_id = optional_text(part.get("file_id"), f"{where}.file_id")
    if file_id is not None:
        return Image(file_id=file_id, detail=optional_text(part.get("detail"), f"{where}.detail"))
    return image_of(part.get("image_url"), part.get("detail"), None, f"{where}.image_url")


def _result(item: Mapping[str, Any], extra: dict[str, msgspec.Raw], where: str) -> ToolResult:
    id, output = text(item.get("call_id"), f"{where}.call_id"), item.get("output")
    if isinstance(output, str):
        return ToolResult(id, (Text(output),) if output else ())
    parts = _parts(output, extra, f"{where}.output")
    kept = tuple(part for part in parts if isinstance(part, Text | Image | Document))
    if len(kept) != len(parts):
        raise refusal(f"{where}.output", "may hold text, images and files")
    return ToolResult(id, kept)


def _thinking(item: Mapping[str, Any], where: str) -> Thinking:
    """The summary is what was shown of it; some servers show the reasoning itself, as `content`."""
    texts = []
    for name in ("summary", "content"):
        for number, value in enumerate(elements(item.get(name) or [], f"{where}.{name}")):
            place = f"{where}.{name}[{number}]"
            texts.append(text(members(value, place).get("text"), f"{place}.text"))
        if texts:
            break
    shown = "\n\n".join(texts)
    sealed = optional_text(item.get("encrypted_content"), f"{where}.encrypted_content")
    if not sealed:
        return Thinking(shown)
    signature, origin = unseal(sealed, Origin.OPENAI)
    if origin is not Origin.OPENAI and signature.startswith(REDACTED):
        return Thinking(redacted=signature.removeprefix(REDACTED), origin=origin)
    return Thinking(shown, signature, origin=origin)


# --- text, reasoning, tools ------------------------------------------------------------------------------------------


_decode_format = msgspec.json.Decoder(TextFormat).decode


def _text(fields: Mapping[str, msgspec.Raw], extra: dict[str, msgspec.Raw]) -> tuple[Format | None, str | None]:
    if "text" not in fields:
        return None, None
    settings = said(read(fields["text"], "text", decode_object))
    for name in settings.keys() - {"format", "verbosity"}:
        extra[f"text.{name}"] = settings[name]
    verbosity = read(settings["verbosity"], "text.verbosity", decode_string) if "verbosity" in settings else None
    if "format" not in settings:
        return None, verbosity
    form = read(settings["format"], "text.format", _decode_format)
    match form.type:
        case "text":
            return None, verbosity
        case "json_object":
            return Format("json_object"), verbosity
        case "json_schema":
            schema = None if is_null(form.schema) else form.schema
            return Format("json_schema", form.name, schema, form.strict, form.description), verbosity
    extra["text.format"] = settings["format"]
    return None, verbosity


def _reasoning(fields: Mapping[str, msgspec.Raw], extra: dict[str, msgspec.Raw]) -> Reasoning | None:
    if "reasoning" not in fields:
        return None
    settings = said(read(fields["reasoning"], "reasoning", decode_object))
    for name in settings.keys() - {"effort", "summary", "generate_summary"}:
        extra[f"reasoning.{name}"] = settings[name]
    reasoning = Reasoning()
    if "effort" in settings:
        reasoning = effort_of(read(settings["effort"], "reasoning.effort", decode_string))
    if "summary" in settings or "generate_summary" in settings:
        reasoning = msgspec.structs.replace(reasoning, show=True)
    return reasoning


def _tools(
    fields: Mapping[str, msgspec.Raw], extra: dict[str, msgspec.Raw]
) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    tools = []
    for number, tool in enumerate(read(fields["tools"], "tools", decode_objects) if "tools" in fields else []):
        where = f"tools[{number}]"
        kind = read(tool["type"], f"{where}.type", decode_string) if "type" in tool else ""
        if kind == "function":
            tools.append(function_tool(tool, extra, where))
        elif kind:
            extra.setdefault(f"tools.{kind}", msgspec.Raw(encode(tool)))
        else:
            raise refusal(f"{where}.type", "is missing")
    if "tool_choice" not in fields:
        return tuple(tools), None
    choice = _tool_choice(read(fields["tool_choice"], "tool_choice", decode_any))
    if choice is None:
        extra["tool_choice"] = fields["tool_choice"]
    return tuple(tools), choice


def _tool_choice(choice: object) -> ToolChoice | None:
    """None: a kind that the hub does not know."""
    match choice:
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case {"type": "function", "name": str(name)}:
            return ToolChoice("tool", (name,))
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": [*tools]}:
            names = []
            for tool in tools:
                match tool:
                    case {"type": "function", "name": str(name)}:
                        names.append(name)
                    case _:
                        return None
            return ToolChoice("allowed_auto" if mode == "auto" else "allowed_required", tuple(names))
        case {"type": str()}:
            return None
    raise refusal("tool_choice", "is none of auto, none, required, a function by name, allowed_tools")
