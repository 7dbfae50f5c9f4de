"""Error bodies, per dialect. The only place that renders an error."""

from __future__ import annotations

import msgspec

from penstock.core.errors import PenstockError, Rejected

_encode = msgspec.json.Encoder().encode


def openai_body(error: PenstockError) -> bytes:
    """`{"error": {message, type, param, code}}`, OpenAI's shape; an upstream's own words where it spoke."""
    if isinstance(error, Rejected) and error.body:
        return error.body
    return _encode({"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}})


def openai_event(error: PenstockError) -> bytes:
    """The same, as the last event of a stream that broke. No `[DONE]` follows: the answer is not whole."""
    return b"data: " + openai_body(error) + b"\n\n"


def protocol_body(status: int, message: str) -> bytes:
    """For faults found before there is a request: HTTP that is malformed, too large or too slow."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _encode({"error": {"message": message, "type": kind, "param": None, "code": f"http_{status}"}})
