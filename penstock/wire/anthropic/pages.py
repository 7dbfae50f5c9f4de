"""Answers that no model gives: the models there are, and how long a prompt is.

Sources: https://platform.claude.com/docs/en/api/models-list and /messages-count-tokens.
"""

from __future__ import annotations

import msgspec

_encode = msgspec.json.Encoder().encode


def _row(name: str) -> dict[str, object]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",  # the API's word for "not known"
        "lifecycle": "active",
    }


def model_row(name: str) -> bytes:
    return _encode(_row(name))


def model_list(names: list[str]) -> bytes:
    """All of them: there is never a second page."""
    first, last = (names[0], names[-1]) if names else (None, None)
    return _encode({"data": [_row(name) for name in names], "has_more": False, "first_id": first, "last_id": last})


def count_tokens_body(tokens: int) -> bytes:
    return _encode({"input_tokens": tokens})
