"""Anthropic's Messages API, as its provider would answer. Source: platform.claude.com/docs/en/api/messages."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.conformance.reply import Query, Refused, Reply, event, json_reply, missing, stream
from tests.conformance.script import BROKEN_OFF, LIMITED, RETRY_AFTER, UNKNOWN, Says, Tool, Turn, play

FIELDS: Final = (
    "billing_policy", "cache_control", "compaction", "container", "context_management", "diagnostics",
    "fallback_credit_token", "fallbacks", "inference_geo", "max_tokens", "mcp_servers", "messages", "metadata",
    "model", "output_config", "output_format", "service_tier", "speed", "stop_sequences", "stream", "system",
    "temperature", "thinking", "thread", "tool_choice", "tools", "top_k", "top_p", "user_profile_id", "workspace_id",
)  # fmt: skip
ERRORS: Final = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
USAGE: Final = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "output_tokens": 7,
    "service_tier": "standard",
}


def reply(query: Query) -> Reply:
    try:
        return _reply(query)
    except Refused as refused:
        return refusal(refused)


def refusal(refused: Refused) -> Reply:
    error = {"type": ERRORS[refused.status], "message": str(refused)}
    return json_reply({"type": "error", "error": error, "request_id": "req_1"}, refused.status)


def _reply(query: Query) -> Reply:
    if not query.headers.get("anthropic-version"):
        raise Refused("anthropic-version: header is required")
    if not (query.headers.get("x-api-key") or query.headers.get("authorization")):
        raise Refused("x-api-key header is required", 401)
    match query.method, query.path.strip("/").split("/"):
        case "POST", ["messages"]:
            return messages(query.fields)
        case "POST", ["messages", "count_tokens"]:
            missing(query.fields, "model", "messages")
            return json_reply({"input_tokens": 15})
        case "GET", ["models"]:
            page = {"data": [model("claude-scripted")], "first_id": "claude-scripted", "last_id": "claude-scripted"}
            return json_reply({**page, "has_more": False})
        case "GET", ["models", name]:
            return json_reply(model(name))
    raise Refused("Not Found", 404)


def model(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name.title(),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "capabilities": None,
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


def messages(fields: dict[str, Any]) -> Reply:
    missing(fields, "model", "messages", "max_tokens")
    unknown = sorted(fields.keys() - set(FIELDS))
    if unknown:
        raise Refused(f"{unknown[0]}: Extra inputs are not permitted")
    if fields["model"] == UNKNOWN:
        raise Refused(f"model: {UNKNOWN}", 404)
    if fields["model"] == LIMITED:
        error = {"type": "rate_limit_error", "message": "This request would exceed your rate limit."}
        headers = {"retry-after": str(RETRY_AFTER)}
        return json_reply({"type": "error", "error": error, "request_id": "req_1"}, 429, headers)
    says = play(turn(fields))
    if fields.get("stream"):
        broken_off = fields["model"] == BROKEN_OFF
        events = stream_events(fields["model"], says)
        return stream(*(events[:5] if broken_off else events), broken_off=broken_off)
    return json_reply(message(fields["model"], content(says), stop_reason(says), USAGE))


def turn(fields: dict[str, Any]) -> Turn:
    used, asked, results, text = set(), set(), [], ""
    for i, said in enumerate(fields["messages"]):
        if said.get("role") not in ("user", "assistant", "system"):
            raise Refused(f"messages.{i}.role: Input should be 'user' or 'assistant'")
        blocks = said["content"]
        blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
        if not blocks:
            raise Refused(f"messages.{i}: all messages must have non-empty content")
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if asked != answered:
            raise Refused(
                f"messages.{i}: each `tool_use` must have a `tool_result` in the next message, and only there"
            )
        asked = {block["id"] for block in blocks if block["type"] == "tool_use"}
        used |= {block["name"] for block in blocks if block["type"] == "tool_use"}
        results = [text_of(block.get("content", "")) for block in blocks if block["type"] == "tool_result"]
        if said["role"] == "user" and not results:
            text = text_of(blocks)
    if asked:
        raise Refused("messages: a `tool_use` at the end has no `tool_result`")
    config = fields.get("output_config") or {}
    form = config.get("format") or fields.get("output_format") or {}
    choice = fields.get("tool_choice") or {"type": "auto"}
    return Turn(
        text=text,
        results=tuple(results),
        used=frozenset(used),
        tools=tuple(Tool(tool["name"], tool.get("input_schema", {})) for tool in fields.get("tools") or ()),
        choice={"any": "required", "tool": choice.get("name", "")}.get(choice["type"], choice["type"]),
        schema=form.get("schema"),
    )


def text_of(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else " ".join(block.get("text", "") for block in content)


def content(says: Says) -> list[dict[str, Any]]:
    if not says.calls:
        return [{"type": "text", "text": says.text, "citations": None}]
    return [
        {
            "type": "tool_use",
            "id": f"toolu_{i}",
            "name": call.name,
            "input": call.arguments,
            "caller": {"type": "direct"},
        }
        for i, call in enumerate(says.calls)
    ]


def stop_reason(says: Says) -> str:
    return "tool_use" if says.calls else "end_turn"


def message(name: str, blocks: list[dict[str, Any]], stop: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    about = {"id": "msg_1", "type": "message", "role": "assistant", "model": name}
    return {**about, "content": blocks, "stop_reason": stop, "stop_sequence": None, "usage": usage}


def stream_events(name: str, says: Says) -> list[bytes]:
    start = message(name, [], None, {**USAGE, "output_tokens": 1})
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for i, block in enumerate(content(says)):
        if block["type"] == "text":
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in says.pieces]
        else:
            empty = {**block, "input": {}}
            arguments = json.dumps(block["input"])
            halves = ("", arguments[:7], arguments[7:])
            deltas = [{"type": "input_json_delta", "partial_json": half} for half in halves]
        events.append({"type": "content_block_start", "index": i, "content_block": empty})
        events += [{"type": "content_block_delta", "index": i, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": i})
    delta = {"stop_reason": stop_reason(says), "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": USAGE["output_tokens"]}})
    events.append({"type": "message_stop"})
    return [event(data, data["type"]) for data in events]
