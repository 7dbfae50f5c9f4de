"""OpenAI's Responses API, as its provider would answer. Source: platform.openai.com/docs/api-reference/responses.

Nothing is kept: whatever id is asked for, there is a response with it. Requests may wish for a `response_id` and a
`status` of their response in their `metadata`.
"""

from __future__ import annotations

import json
from typing import Any, Final

from tests.conformance.reply import Query, Refused, Reply, event, json_reply, stream
from tests.conformance.script import Says, Tool, Turn, play

CREATED: Final = 1_767_225_600  # Unix seconds
USAGE: Final = {
    "input_tokens": 15,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 22,
}


def reply(query: Query, rest: list[str]) -> Reply:
    fields = query.fields
    match query.method, rest:
        case "POST", []:
            wishes = fields.get("metadata") or {}
            name, status = wishes.get("response_id", "resp_1"), wishes.get("status", "completed")
            says = play(turn(fields))
            if fields.get("stream"):
                return stream(*stream_events(fields, says, name))
            return json_reply(response(fields, items(says), status, USAGE, name))
        case "POST", ["input_tokens"]:
            return json_reply({"object": "response.input_tokens", "input_tokens": 15})
        case "POST", ["compact"]:
            kept = {"id": "cmp_1", "type": "compaction", "encrypted_content": "c2VhbGVk"}
            about = {"id": "resp_1", "object": "response.compaction", "created_at": CREATED}
            return json_reply({**about, "output": [kept], "usage": USAGE})
        case "GET", [name]:
            says = play(Turn())
            if query.parameters.get("stream") == "true":
                return stream(*stream_events({}, says, name))
            return json_reply(response({}, items(says), "completed", USAGE, name))
        case "POST", [name, "cancel"]:
            return json_reply(response({}, [], "cancelled", None, name))
        case "DELETE", [name]:
            return json_reply({"id": name, "object": "response", "deleted": True})
        case "GET", [_, "input_items"]:
            said = {"type": "message", "id": "msg_0", "role": "user", "status": "completed"}
            rows = [{**said, "content": [{"type": "input_text", "text": "Hello"}]}]
            return json_reply(
                {"object": "list", "data": rows, "first_id": "msg_0", "last_id": "msg_0", "has_more": False}
            )
    raise Refused("Invalid URL", 404)


def turn(fields: dict[str, Any]) -> Turn:
    """Raises `Refused` for a result without its call: there is nothing here that remembers calls."""
    text, results, used, asked = "", [], set(), set()
    given = fields.get("input") or ""
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"):
            case "function_call":
                used.add(item["name"])
                asked.add(item["call_id"])
                results = []
            case "function_call_output":
                if item["call_id"] not in asked:
                    raise Refused(f"No tool call found for function call output with call_id {item['call_id']}.")
                results.append(text_of(item["output"]))
            case "message":
                if item["role"] == "user":
                    text, results = text_of(item["content"]), []
    choice = fields.get("tool_choice") or "auto"
    form = (fields.get("text") or {}).get("format") or {}
    return Turn(
        text=text,
        results=tuple(results),
        used=frozenset(used),
        tools=tuple(
            Tool(tool["name"], tool.get("parameters") or {})
            for tool in fields.get("tools") or ()
            if tool["type"] == "function"
        ),
        choice=choice if isinstance(choice, str) else choice.get("name", "auto"),
        schema=form.get("schema"),
    )


def text_of(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def items(says: Says) -> list[dict[str, Any]]:
    if not says.calls:
        part = {"type": "output_text", "text": says.text, "annotations": [], "logprobs": []}
        return [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}]
    return [
        {
            "type": "function_call",
            "id": f"fc_{i}",
            "call_id": f"call_{i}",
            "name": call.name,
            "arguments": json.dumps(call.arguments),
            "status": "completed",
        }
        for i, call in enumerate(says.calls)
    ]


def response(
    fields: dict[str, Any],
    output: list[dict[str, Any]],
    status: str,
    usage: dict[str, Any] | None,
    name: str = "resp_1",
) -> dict[str, Any]:
    return {
        "id": name,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": fields.get("model") or "gpt-scripted",
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": {},
    }


def stream_events(fields: dict[str, Any], says: Says, name: str = "resp_1") -> list[bytes]:
    begun = response(fields, [], "in_progress", None, name)
    output = items(says)
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for i, item in enumerate(output):
        here = {"output_index": i, "item_id": item["id"]}
        empty = {"content": []} if item["type"] == "message" else {"arguments": ""}
        added = {**item, "status": "in_progress", **empty}
        events.append({"type": "response.output_item.added", "output_index": i, "item": added})
        events += text_events(here, says) if item["type"] == "message" else call_events(here, item)
        events.append({"type": "response.output_item.done", "output_index": i, "item": item})
    events.append({"type": "response.completed", "response": response(fields, output, "completed", USAGE, name)})
    return [event({**data, "sequence_number": i}, data["type"]) for i, data in enumerate(events)]


def text_events(here: dict[str, Any], says: Says) -> list[dict[str, Any]]:
    here = {**here, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    text = "response.output_text"
    return [
        {"type": "response.content_part.added", **here, "part": part},
        *({"type": f"{text}.delta", **here, "delta": piece, "logprobs": []} for piece in says.pieces),
        {"type": f"{text}.done", **here, "text": says.text, "logprobs": []},
        {"type": "response.content_part.done", **here, "part": {**part, "text": says.text}},
    ]


def call_events(here: dict[str, Any], item: dict[str, Any]) -> list[dict[str, Any]]:
    arguments, kind = item["arguments"], "response.function_call_arguments"
    return [
        *({"type": f"{kind}.delta", **here, "delta": half} for half in (arguments[:7], arguments[7:])),
        {"type": f"{kind}.done", **here, "name": item["name"], "arguments": arguments},
    ]
