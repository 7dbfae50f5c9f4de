"""A caller's Messages request, read into the canonical form. Source: https://platform.claude.com/docs/en/api/messages.

What only Anthropic's own platform can do (its server tools, containers, context management, ...) is kept in `extra`
under the caller's name for it, so that another dialect refuses it by that name.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.core.errors import BadRequest, Untranslatable
from penstock.wire.anthropic import request_shapes as shapes
from penstock.wire.anthropic.turns_in import TurnsIn
from penstock.wire.anthropic.values import Extra, as_members, read
from penstock.wire.canonical import Ask, Format, Message, Reasoning, Tool, ToolChoice
from penstock.wire.prompts import decode_text, is_null

_ONLY_CLAUDES: Final = ("allowed_callers", "defer_loading", "eager_input_streaming", "input_examples")
_PLAIN: Final[dict[str, Any]] = {
    name: msgspec.json.Decoder(type).decode
    for name, type in {
        "model": str,
        "max_tokens": int,
        "temperature": float,
        "top_p": float,
        "top_k": int,
        "stop_sequences": tuple[str, ...],
        "stream": bool,
        "service_tier": str,
    }.items()
}
"""Fields whose value is the canonical one; null has been left out."""
_tools = msgspec.json.Decoder(list[shapes.Tool] | None).decode
_choice = msgspec.json.Decoder(shapes.Choice | None).decode
_thinking = msgspec.json.Decoder(shapes.Thinking | None).decode
_format = msgspec.json.Decoder(shapes.Format | None).decode


def read_request(fields: dict[str, msgspec.Raw]) -> Ask:
    """Raises `BadRequest` naming the place that is wrong, as in `messages.3.content.0.type`."""
    extra = Extra()
    rest = {name: raw for name, raw in fields.items() if not is_null(raw)}
    plain = {name: read(decode, rest.pop(name), name) for name, decode in _PLAIN.items() if name in rest}
    if plain.get("max_tokens") == 0:
        raise Untranslatable("max_tokens", "0 asks Claude to fill its prompt cache")
    plain["stop"] = plain.pop("stop_sequences", ())
    if plain.get("service_tier") == "standard_only":
        plain["service_tier"] = "default"
    output = read(as_members, rest.pop("output_config", None), "output_config") or {}
    metadata = read(as_members, rest.pop("metadata", None), "metadata") or {}
    choice = read(_choice, rest.pop("tool_choice", None), "tool_choice")
    alone = None if choice is None else choice.disable_parallel_tool_use
    ask = Ask(
        model=plain.pop("model", ""),
        messages=_messages(rest, extra),
        tools=_tools_of(rest, extra),
        tool_choice=_tool_choice(choice),
        parallel_tool_calls=None if alone is None else not alone,
        response_format=_shape(rest, output),
        reasoning=_reasoning(rest, output, extra),
        user=read(decode_text, metadata.pop("user_id", None), "metadata.user_id"),
        extra=extra,
        **plain,
    )
    if output:
        extra.keep({f"output_config.{name}": raw for name, raw in output.items()})
    if metadata:
        extra.keep({f"metadata.{name}": raw for name, raw in metadata.items()})
    if rest:
        extra.keep(rest)
    return ask


def _messages(rest: dict[str, msgspec.Raw], extra: Extra) -> tuple[Message, ...]:
    turns = TurnsIn(extra)
    system = turns.system(rest.pop("system", None))
    return (*system, *turns.messages(rest.pop("messages", None)))


def _tools_of(rest: dict[str, msgspec.Raw], extra: Extra) -> tuple[Tool, ...]:
    """The caller's own tools; those that Anthropic runs or defines are known by their type alone."""
    tools = []
    for tool in read(_tools, rest.pop("tools", None), "tools") or ():
        if tool.type not in (None, "custom"):
            extra[tool.type] = msgspec.Raw(msgspec.json.encode(tool.name))
            continue
        extra.keep({name: getattr(tool, name) for name in _ONLY_CLAUDES})
        cache = None if tool.cache_control is None else tool.cache_control.ttl
        schema = None if is_null(tool.input_schema) else tool.input_schema
        tools.append(Tool(tool.name, tool.description, schema, tool.strict, cache))
    return tuple(tools)


def _tool_choice(choice: shapes.Choice | None) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case shapes.Choice(type="any"):
            return ToolChoice("required")
        case shapes.Choice(type="tool", name=name):
            if not name:
                raise BadRequest("`tool_choice.name` is missing", param="tool_choice.name")
            return ToolChoice("tool", (name,))
        case shapes.Choice(type="none"):
            return ToolChoice("none")
    return ToolChoice("auto")


def _shape(rest: dict[str, msgspec.Raw], output: dict[str, msgspec.Raw]) -> Format | None:
    """`output_format` is what `output_config.format` was called before."""
    shape = read(_format, output.pop("format", None), "output_config.format")
    older = read(_format, rest.pop("output_format", None), "output_format")
    shape = shape or older
    return None if shape is None else Format("json_schema", schema=shape.schema)


def _reasoning(rest: dict[str, msgspec.Raw], output: dict[str, msgspec.Raw], extra: Extra) -> Reasoning | None:
    thinking = read(_thinking, rest.pop("thinking", None), "thinking")
    effort = read(decode_text, output.pop("effort", None), "output_config.effort")
    if thinking is None:
        return None if effort is None else Reasoning(effort=effort)
    show = {"summarized": True, "omitted": False}.get(thinking.display or "")
    if thinking.display is not None and show is None:
        extra["thinking.display"] = msgspec.Raw(msgspec.json.encode(thinking.display))
    if thinking.type == "enabled" and thinking.budget_tokens is None:
        raise BadRequest("`thinking.budget_tokens` is missing", param="thinking.budget_tokens")
    return Reasoning(
        effort=effort,
        budget=thinking.budget_tokens if thinking.type == "enabled" else None,
        off=thinking.type in ("disabled", "between_tools"),
        show=show,
    )
