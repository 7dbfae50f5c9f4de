"""Error bodies, per dialect. The only place that renders an error."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import PenstockError, Rejected

_encode = msgspec.json.Encoder().encode


def openai_status(error: PenstockError) -> int:
    return error.status


def openai_body(error: PenstockError, id: str = "") -> bytes:
    """`{"error": {message, type, param, code}}`, OpenAI's shape; an upstream's own words where it has any."""
    said = error.said if isinstance(error, Rejected) else None
    if said is not None:
        kind, code = said.type or error.type, error.code if said.code is None else said.code
        return _encode({"error": {"message": said.message, "type": kind, "param": said.param, "code": code}})
    return _encode({"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}})


def openai_event(error: PenstockError, id: str = "") -> bytes:
    """The same, as the last event of a stream that broke. No `[DONE]` follows: the answer is not whole."""
    return b"data: " + openai_body(error) + b"\n\n"


def responses_event(error: PenstockError, number: int) -> bytes:
    """The same in a stream of Responses events: a typed event, after which nothing follows."""
    said = msgspec.json.decode(openai_body(error))["error"]
    event = {
        "type": "error",
        "code": said["code"],
        "message": said["message"],
        "param": said["param"],
        "sequence_number": number,
    }
    return b"event: error\ndata: " + _encode(event) + b"\n\n"


_OVERLOADED: Final = 529
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    _OVERLOADED: "overloaded_error",
}
_TOO_LONG: Final = "prompt is too long"  # clients know by these words that they should shorten the conversation


def anthropic_status(error: PenstockError) -> int:
    """Anthropic says 529 where others say 503: its clients take only that for an overload."""
    return _OVERLOADED if error.status == 503 else error.status


def anthropic_body(error: PenstockError, id: str = "") -> bytes:
    """`{"type": "error", "error": {type, message, details}, "request_id"}`, in Anthropic's closed set of types.

    The stable code goes where its own codes are. Source: https://platform.claude.com/docs/en/api/errors.
    """
    status, message = anthropic_status(error), error.message
    type = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    if error.code == "context_length_exceeded" and _TOO_LONG not in message.lower():
        message = f"{_TOO_LONG}: {message}"
    said = {"type": type, "message": message, "details": {"error_code": error.code}}
    return _encode({"type": "error", "error": said, "request_id": id or None})


def anthropic_event(error: PenstockError, id: str = "") -> bytes:
    """The same, as the last event of a stream that broke. No `message_stop` follows."""
    return b"event: error\ndata: " + anthropic_body(error, id) + b"\n\n"


def protocol_body(status: int, message: str) -> bytes:
    """For faults found before there is a request: HTTP that is malformed, too large or too slow."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _encode({"error": {"message": message, "type": kind, "param": None, "code": f"http_{status}"}})
