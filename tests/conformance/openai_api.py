"""OpenAI's API, as its provider would answer. Source: platform.openai.com/docs/api-reference.

Chat completions, completions and what is answered in one piece are here; `responses_api` has the Responses API.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, Final

from tests.conformance import responses_api
from tests.conformance.reply import Query, Refused, Reply, event, json_reply, missing, stream
from tests.conformance.script import BROKEN_OFF, GREETING, LIMITED, RETRY_AFTER, UNKNOWN, Says, Tool, Turn, play

FIELDS: Final = (
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "messages", "metadata", "modalities", "model", "moderation", "n", "parallel_tool_calls",
    "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream",
    "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
    "web_search_options",
)  # fmt: skip
CREATED: Final = 1_767_225_600  # Unix seconds
USAGE: Final = {
    "prompt_tokens": 15,
    "completion_tokens": 7,
    "total_tokens": 22,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
DONE: Final = b"data: [DONE]\n\n"
PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CATEGORIES: Final = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def reply(query: Query) -> Reply:
    try:
        return _reply(query)
    except Refused as refused:
        return refusal(refused)


def refusal(refused: Refused) -> Reply:
    error = {"message": str(refused), "type": "invalid_request_error", "param": refused.param, "code": None}
    return json_reply({"error": error}, refused.status)


def _reply(query: Query) -> Reply:
    if not query.headers.get("authorization", "").startswith("Bearer "):
        raise Refused("You didn't provide an API key.", 401)
    fields, path = query.fields, query.path.strip("/").split("/")
    if fields.get("model") == LIMITED:
        error = {"message": "Rate limit reached.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
        return json_reply({"error": error}, 429, {"retry-after": str(RETRY_AFTER)})
    if fields.get("model") == UNKNOWN:
        raise Refused(f"The model `{UNKNOWN}` does not exist.", 404, "model")
    match query.method, path:
        case "POST", ["chat", "completions"]:
            return chat(fields)
        case _, ["chat", "completions", *rest]:
            return stored_chat(query.method, rest)
        case _, ["responses", *rest]:
            return responses_api.reply(query, rest)
        case "POST", ["completions"]:
            return completion(fields)
        case "POST", ["embeddings"]:
            return embeddings(fields)
        case "POST", ["moderations"]:
            return moderations(fields)
        case "POST", ["audio", "speech"]:
            missing(fields, "model", "input", "voice")
            return Reply(body=b"RIFF\x24\x00\x00\x00WAVEfmt ", content_type="audio/wav")
        case "POST", ["audio", "transcriptions" | "translations"]:
            return transcript(fields)
        case "POST", ["images", "generations" | "edits" | "variations" as what]:
            return images(fields, what)
        case "POST", ["rerank"]:
            missing(fields, "query", "documents")
            return json_reply({"id": "rerank-1", "results": [{"index": 0, "relevance_score": 0.5}]})
        case "POST", ["tokenize"]:
            return json_reply({"count": 2, "max_model_len": 4096, "tokens": [1, 2]})
        case "POST", ["detokenize"]:
            missing(fields, "tokens")
            return json_reply({"prompt": GREETING})
        case "GET", ["models"]:
            return json_reply({"object": "list", "data": [model("gpt-scripted")]})
        case "GET", ["models", name]:
            return json_reply(model(name))
        case "DELETE", ["models", name]:
            return json_reply({"id": name, "object": "model", "deleted": True})
    raise Refused(f"Invalid URL ({query.method} {query.path})", 404)


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"}


# --- chat ------------------------------------------------------------------------------------------------------------


def chat(fields: dict[str, Any]) -> Reply:
    missing(fields, "model", "messages")
    unknown = sorted(fields.keys() - set(FIELDS))
    if unknown:
        raise Refused(f"Unrecognized request argument supplied: {unknown[0]}", param=unknown[0])
    says = play(turn(fields))
    finish = "tool_calls" if says.calls else "stop"
    if not fields.get("stream"):
        choice = {"index": 0, "message": message(says), "logprobs": None, "finish_reason": finish}
        return json_reply({**about(fields, "chat.completion"), "choices": [choice], "usage": USAGE})
    whole = about(fields, "chat.completion.chunk")
    events = [event({**whole, "choices": [piece(delta)]}) for delta in deltas(says)]
    if fields["model"] == BROKEN_OFF:
        return stream(*events[:3], broken_off=True)
    events.append(event({**whole, "choices": [piece({}, finish)]}))
    if (fields.get("stream_options") or {}).get("include_usage"):
        events.append(event({**whole, "choices": [], "usage": USAGE}))
    return stream(*events, DONE)


def about(fields: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": fields["model"]}


def message(says: Says) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": says.text or None, "refusal": None, "annotations": []}
    if says.calls:
        said["tool_calls"] = [
            {
                "id": f"call_{i}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for i, call in enumerate(says.calls)
        ]
    return said


def deltas(says: Says) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"role": "assistant", "content": None if says.calls else "", "refusal": None}]
    found += [{"content": text} for text in says.pieces]
    for i, call in enumerate(says.calls):
        arguments = json.dumps(call.arguments)
        begin = {"id": f"call_{i}", "type": "function", "function": {"name": call.name, "arguments": ""}}
        more = ({"function": {"arguments": half}} for half in (arguments[:7], arguments[7:]))
        found += [{"tool_calls": [{"index": i, **part}]} for part in (begin, *more)]
    return found


def piece(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def turn(fields: dict[str, Any]) -> Turn:
    used, asked, results, text = set(), set(), [], ""
    for i, said in enumerate(fields["messages"]):
        match said.get("role"):
            case "tool":
                if said.get("tool_call_id") not in asked:
                    raise Refused(
                        "messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
                        param=f"messages.[{i}].role",
                    )
                asked.discard(said["tool_call_id"])
                results.append(text_of(said["content"]))
            case "system" | "developer" | "user" | "assistant" as role:
                if asked:
                    raise Refused(f"the tool_call_ids {sorted(asked)} did not have response messages", param="messages")
                asked = {call["id"] for call in said.get("tool_calls") or ()}
                used |= {call["function"]["name"] for call in said.get("tool_calls") or ()}
                results = []
                if role == "user":
                    text = text_of(said["content"])
            case other:
                raise Refused(f"Invalid value: {other!r}", param=f"messages[{i}].role")
    if asked:
        raise Refused(f"the tool_call_ids {sorted(asked)} did not have response messages", param="messages")
    choice = fields.get("tool_choice") or "auto"
    form = fields.get("response_format") or {}
    return Turn(
        text=text,
        results=tuple(results),
        used=frozenset(used),
        tools=tuple(
            Tool(tool["function"]["name"], tool["function"].get("parameters") or {})
            for tool in fields.get("tools") or ()
            if tool["type"] == "function"
        ),
        choice=choice if isinstance(choice, str) else choice.get("function", {}).get("name", "auto"),
        schema=form["json_schema"]["schema"] if form.get("type") == "json_schema" else None,
    )


def text_of(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def stored_chat(method: str, rest: list[str]) -> Reply:
    """Chat completions that the provider keeps (`store: true`)."""
    says = play(Turn())
    kept = {
        **about({"model": "gpt-scripted"}, "chat.completion"),
        "choices": [{"index": 0, "message": message(says), "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    match method, rest:
        case "GET", []:
            return json_reply(page([kept]))
        case "GET" | "POST", [_]:
            return json_reply(kept)
        case "DELETE", [name]:
            return json_reply({"object": "chat.completion.deleted", "id": name, "deleted": True})
        case "GET", [name, "messages"]:
            return json_reply(page([{"id": f"{name}-0", **message(says)}]))
    raise Refused("Invalid URL", 404)


def page(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": rows, "first_id": rows[0]["id"], "last_id": rows[-1]["id"], "has_more": False}


# --- the others ------------------------------------------------------------------------------------------------------


def completion(fields: dict[str, Any]) -> Reply:
    missing(fields, "model", "prompt")
    whole = {"id": "cmpl-1", "object": "text_completion", "created": CREATED, "model": fields["model"]}
    if not fields.get("stream"):
        choice = {"index": 0, "text": GREETING, "logprobs": None, "finish_reason": "stop"}
        return json_reply({**whole, "choices": [choice], "usage": USAGE})
    texts = [*Says(GREETING).pieces, ""]
    events = [
        event(
            {
                **whole,
                "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": None if text else "stop"}],
            }
        )
        for text in texts
    ]
    if (fields.get("stream_options") or {}).get("include_usage"):
        events.append(event({**whole, "choices": [], "usage": USAGE}))
    return stream(*events, DONE)


def embeddings(fields: dict[str, Any]) -> Reply:
    missing(fields, "model", "input")
    asked = fields["input"]
    many = len(asked) if isinstance(asked, list) and not isinstance(asked[0], int) else 1
    numbers = (0.25, -0.5, 0.125)  # exact in 32 bits
    vector: object = list(numbers)
    if fields.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *numbers)).decode()
    rows = [{"object": "embedding", "index": i, "embedding": vector} for i in range(many)]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return json_reply({"object": "list", "model": fields["model"], "data": rows, "usage": usage})


def moderations(fields: dict[str, Any]) -> Reply:
    missing(fields, "input")
    asked = fields["input"]
    result = {
        "flagged": False,
        "categories": dict.fromkeys(CATEGORIES, False),
        "category_scores": dict.fromkeys(CATEGORIES, 0.125),
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
    results = [result] * (len(asked) if isinstance(asked, list) and isinstance(asked[0], str) else 1)
    return json_reply({"id": "modr-1", "model": fields.get("model") or "omni-moderation-latest", "results": results})


def transcript(fields: dict[str, Any]) -> Reply:
    missing(fields, "model", "file")
    if fields.get("stream") == "true":
        text = {"type": "transcript.text.delta", "delta": GREETING}
        done = {"type": "transcript.text.done", "text": GREETING}
        return stream(event(text), event(done))
    tokens = {"type": "tokens", "input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    return json_reply({"text": GREETING, "usage": tokens})


def images(fields: dict[str, Any], what: str) -> Reply:
    missing(fields, *{"generations": ("prompt",), "edits": ("prompt", "image"), "variations": ("image",)}[what])
    tokens = {
        "input_tokens": 5,
        "input_tokens_details": {"text_tokens": 5, "image_tokens": 0},
        "output_tokens": 7,
        "total_tokens": 12,
    }
    if fields.get("stream") in (True, "true"):
        kind = {"generations": "image_generation.completed", "edits": "image_edit.completed"}[what]
        settings = {"background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}
        data = {"type": kind, "b64_json": PIXEL, "created_at": CREATED, **settings, "usage": tokens}
        return stream(event(data, kind))
    return json_reply({"created": CREATED, "data": [{"b64_json": PIXEL}], "usage": tokens})
