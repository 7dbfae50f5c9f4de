"""The canonical form, written as a Messages request for Claude. Source: https://platform.claude.com/docs/en/api/messages.

What a model of this name does not take is refused by the caller's word for it, or left out where that is allowed.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from penstock.wire.anthropic.claude import Claude, claude
from penstock.wire.anthropic.thinking_out import ThinkingOut
from penstock.wire.anthropic.turns_out import Block, Turns, cached
from penstock.wire.canonical import Ask, Losses, Tool, ToolChoice
from penstock.wire.tool_names import ToolNames

NAMES: Final = {
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "reasoning": "thinking",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "response_format": "output_config.format",
    "strict": "tools.strict",
}
"""Anthropic's words for canonical fields, where they differ: for `Losses` of a caller who speaks this dialect."""

MAX_BREAKPOINTS: Final = 4
_TOOL_NAME: Final = 128
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PHONE: Final = re.compile(r"\+[\d\s().-]{7,}|\(?\d{2,4}\)?[\s.-]\d{2,4}[\s.-]\d{3,}")
_TIERS: Final = {"auto": "auto", "default": "standard_only"}
_NO_WORD: Final[dict[str, object]] = {
    "min_p": None,
    "seed": None,
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": None,
    "logprobs": False,
    "top_logprobs": 0,
    "verbosity": None,
    "metadata": None,
}
"""Fields without a counterpart, and the value that says no more than leaving them out."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def tool_names(ask: Ask) -> ToolNames:
    """The names `write_request` uses for the tools of `ask`; `MessagesReader` needs them to name the calls."""
    return ToolNames.of(ask, limit=_TOOL_NAME)


def write_request(ask: Ask, *, served: str, losses: Losses) -> bytes:
    """Raises `Untranslatable` for what this model cannot be told, `BadRequest` for what nobody could be told."""
    model, names = claude(served), tool_names(ask)
    for field, silent in _NO_WORD.items():
        if getattr(ask, field) not in (None, silent):
            losses.lose(field, "the Messages API has no such field")
    for field in ask.extra:
        losses.lose(field)
    turns = Turns(ask, model, names, losses)
    tools = _tools(ask, model, names, losses)
    thinking = ThinkingOut(ask, model, losses, turns.thoughts_are_missing)
    body: dict[str, Any] = {"model": served, "max_tokens": thinking.max_tokens}
    if turns.system:
        body["system"] = turns.system
    body["messages"] = turns.turns
    if tools:
        body["tools"] = tools
    _keep_breakpoints([*tools, *turns.system, *(block for turn in turns.turns for block in turn["content"])], losses)
    choice = _tool_choice(ask, model, names, thinking.on, losses) if tools else None
    if not tools and ask.tool_choice is not None and ask.tool_choice.mode not in ("auto", "none", "allowed_auto"):
        losses.lose("tool_choice", "there are no tools")
    options = {
        "tool_choice": choice,
        "thinking": thinking.config,
        "output_config": _output(ask, model, thinking, losses),
        **sampling(ask, model, thinking.on, losses),
        "stop_sequences": _stop(ask, losses),
        "metadata": _metadata(ask, losses),
        "service_tier": _tier(ask, losses),
        "stream": ask.stream or None,
    }
    body.update((field, value) for field, value in options.items() if value is not None)
    return _encode(body)


def sampling(ask: Ask, model: Claude, thinks: bool, losses: Losses) -> dict[str, object]:
    temperature, top_p, top_k = ask.temperature, ask.top_p, ask.top_k
    if not model.sampling or thinks:
        why = "this model takes its defaults only" if not model.sampling else "not together with thinking"
        if temperature not in (None, 1):
            losses.lose("temperature", why)
        if top_p is not None and top_p < (0.95 if model.sampling else 1):
            losses.lose("top_p", why)
            top_p = None
        if top_k is not None:
            losses.lose("top_k", why)
        return {"top_p": top_p if model.sampling and top_p != 1 else None}
    if temperature is not None and temperature > 1:
        losses.lose("temperature", "Claude's goes from 0 to 1")
        temperature = None
    if temperature is not None and top_p is not None and not model.temperature_and_top_p:
        if temperature == 1:
            temperature = None
        else:
            if top_p != 1:
                losses.lose("top_p", "this model takes either `temperature` or `top_p`")
            top_p = None
    return {"temperature": temperature, "top_p": top_p, "top_k": top_k}


def _tools(ask: Ask, model: Claude, names: ToolNames, losses: Losses) -> list[Block]:
    choice = ask.tool_choice
    tools = []
    for tool in ask.tools:
        if choice is not None and choice.mode.startswith("allowed") and tool.name not in choice.names:
            continue  # Claude knows no list of allowed tools, and need not: it sees the others not at all
        block: Block = {"name": names.outward(tool.name)}
        if tool.description is not None:
            block["description"] = tool.description
        strict = tool.strict
        if strict and not model.structured:
            losses.lose("strict", "this model cannot be held to a schema")
            strict = None
        block["input_schema"] = _schema(tool, bool(strict))
        if strict is not None and model.structured:
            block["strict"] = strict
        tools.append(cached(block, tool.cache))
    return tools


def _schema(tool: Tool, strict: bool) -> object:
    """As it came, but for what Claude insists on: the type is object and, where it is strict, objects are closed."""
    if tool.schema is None:
        return {"type": "object", "properties": {}}
    try:
        members = _members(tool.schema)
    except msgspec.ValidationError:  # not an object: the upstream will say so
        return tool.schema
    if strict:
        return with_closed_objects({"type": "object", **msgspec.json.decode(tool.schema)})
    return tool.schema if "type" in members else {"type": "object", **members}


def with_closed_objects(schema: Any) -> Any:
    """The schema with every object closed. Answers that fit it fit the open one as well."""
    if isinstance(schema, list):
        return [with_closed_objects(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Any] = {}
    for name, value in schema.items():
        if name in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
            closed[name] = {each: with_closed_objects(inner) for each, inner in value.items()}
        else:
            closed[name] = value if name in ("enum", "const", "default", "examples") else with_closed_objects(value)
    if schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def _tool_choice(ask: Ask, model: Claude, names: ToolNames, thinks: bool, losses: Losses) -> Block | None:
    wanted = ask.tool_choice or ToolChoice("auto")
    kind = {"required": "any", "allowed_required": "any", "allowed_auto": "auto"}.get(wanted.mode, wanted.mode)
    if kind in ("any", "tool") and not model.forced_tools and (thinks or model.thinks_unasked):
        losses.lose("tool_choice", "a model that thinks chooses itself whether to call a tool")
        kind = "auto"
    choice: Block = {"type": kind}
    if kind == "tool":
        choice["name"] = names.outward(wanted.names[0])
    if ask.parallel_tool_calls is False and kind != "none":
        choice["disable_parallel_tool_use"] = True
    return choice if ask.tool_choice is not None or len(choice) > 1 else None


def _output(ask: Ask, model: Claude, thinking: ThinkingOut, losses: Losses) -> Block | None:
    output: Block = {}
    if thinking.effort is not None:
        output["effort"] = thinking.effort
    shape = ask.response_format
    if shape is not None:
        if shape.kind != "json_schema" or shape.schema is None:
            losses.lose("response_format", "Claude takes a schema, not just any JSON")
        elif not model.structured:
            losses.lose("response_format", "this model cannot be held to a schema")
        else:
            output["format"] = {"type": "json_schema", "schema": with_closed_objects(msgspec.json.decode(shape.schema))}
    return output or None


def _stop(ask: Ask, losses: Losses) -> list[str] | None:
    if any(not text.strip() for text in ask.stop):
        losses.lose("stop", "Claude does not stop at white space alone")
    return [text for text in ask.stop if text.strip()] or None


def _metadata(ask: Ask, losses: Losses) -> Block | None:
    if ask.user is None:
        return None
    if _EMAIL.fullmatch(ask.user) or _PHONE.fullmatch(ask.user):
        losses.lose("user", "Anthropic takes an opaque id, no address and no phone number")
        return None
    return {"user_id": ask.user}


def _tier(ask: Ask, losses: Losses) -> str | None:
    if ask.service_tier is None:
        return None
    tier = _TIERS.get(ask.service_tier)
    if tier is None:
        losses.lose("service_tier", f"Claude has no tier {ask.service_tier!r}")
    return tier


def _keep_breakpoints(blocks: list[Block], losses: Losses) -> None:
    """The last four stay: each stands for all that comes before it."""
    marked = []
    for block in blocks:
        inner = block.get("content")
        marked += [each for each in inner if "cache_control" in each] if isinstance(inner, list) else []
        marked += [block] if "cache_control" in block else []
    for block in marked[:-MAX_BREAKPOINTS]:
        losses.lose("cache_control", f"Claude keeps {MAX_BREAKPOINTS} breakpoints")
        del block["cache_control"]
