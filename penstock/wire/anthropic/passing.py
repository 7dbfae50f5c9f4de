"""A request to a server that speaks Messages too: read as far as the gateway must, and sent on as it came."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.request import Caller, Endpoint, Request
from penstock.wire.canonical import Origin, unseal
from penstock.wire.prompts import (
    BYTES_PER_TOKEN,
    EMPTY_LIST,
    EXPECTED_TOKENS,
    OPENING,
    decode_count,
    decode_fields,
    decode_flag,
    decode_string,
    prefix_hashes,
    read_field,
)

_SEALED: Final = b'"penstock.'
_encode = msgspec.json.Encoder().encode
_PROMPT: Final = ("tools", "system", "messages")
"""The fields that the model reads, in the order in which prompt caches see them."""


def parse(
    body: bytes,
    *,
    id: str,
    endpoint: Endpoint,
    caller: Caller,
    now: float,
    version: bytes | None = None,
    betas: bytes | None = None,
) -> Request:
    """Read the body of `/v1/messages` or its `count_tokens`; `version` and `betas` are the headers of these names.

    Raises `BadRequest` naming the field that is wrong.
    """
    fields = decode_fields(body)
    model = read_field(fields, "model", decode_string)
    if not model:
        raise BadRequest("`model` is missing: name the model that should answer", param="model")
    limit = read_field(fields, "max_tokens", decode_count) if "max_tokens" in fields else None
    if limit is not None and limit < 0:
        raise BadRequest(f"`max_tokens` is {limit}; it must not be negative", param="max_tokens")
    if limit is None and endpoint is Endpoint.MESSAGES:
        raise BadRequest("`max_tokens` is missing: this API asks for it", param="max_tokens")
    messages = fields.get("messages")
    if messages is None:
        raise BadRequest("`messages` is missing", param="messages")
    if memoryview(messages)[0] != OPENING or EMPTY_LIST(messages):
        raise BadRequest("`messages` must be a list of at least one message", param="messages")
    parts = [fields[name] for name in _PROMPT if name in fields]
    prompt = memoryview(parts[0]) if len(parts) == 1 else memoryview(b"".join(parts))
    return Request(
        id=id,
        endpoint=endpoint,
        caller=caller,
        model=model,
        stream="stream" in fields and bool(read_field(fields, "stream", decode_flag)),
        include_usage=True,  # it is always part of this dialect
        prompt_tokens=len(prompt) // BYTES_PER_TOKEN + 1,
        max_tokens=limit or EXPECTED_TOKENS,
        prefix_hashes=prefix_hashes(prompt),
        fields=fields,
        received_at=now,
        version="" if version is None else version.decode("latin-1"),
        betas=() if betas is None else tuple([flag.strip() for flag in betas.decode("latin-1").split(",")]),
    )


def upstream_body(request: Request, served: msgspec.Raw | None) -> bytes:
    """The request for a server of the same dialect: its own name for the model."""
    fields = upstream_fields(request)
    return _encode(fields if served is None else {**fields, "model": served})


def upstream_fields(request: Request) -> dict[str, msgspec.Raw]:
    """Those of the caller, but of the reasoning in the history only what Claude can have sealed."""
    messages = request.fields.get("messages")
    if messages is None or _SEALED not in bytes(messages):
        return request.fields
    return {**request.fields, "messages": _without_foreign_reasoning(messages)}


def _without_foreign_reasoning(raw: msgspec.Raw) -> msgspec.Raw:
    turns = msgspec.json.decode(raw)
    for turn in turns:
        if isinstance(turn, dict) and isinstance(turn.get("content"), list):
            turn["content"] = [block for block in turn["content"] if not _is_foreign(block)]
    return msgspec.Raw(_encode(turns))


def _is_foreign(block: object) -> bool:
    if not isinstance(block, dict) or block.get("type") not in ("thinking", "redacted_thinking"):
        return False
    sealed = block.get("signature") or block.get("data")
    return isinstance(sealed, str) and unseal(sealed, Origin.ANTHROPIC)[1] is not Origin.ANTHROPIC
