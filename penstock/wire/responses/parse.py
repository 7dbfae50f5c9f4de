"""What the gateway needs of a Responses request before it knows who will answer, and its body for an upstream that
speaks the dialect itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.request import Caller, Endpoint, Request
from penstock.wire.canonical import Origin, unseal
from penstock.wire.openai_values import decode_count, decode_flag, decode_string, encode, read, refusal
from penstock.wire.prompts import BYTES_PER_TOKEN, EXPECTED_TOKENS, decode_fields, is_null, prefix_hashes

INSTEAD_OF_INPUT: Final = ("previous_response_id", "prompt", "conversation")
_decode_items: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def parse(body: bytes, *, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str = "") -> Request:
    """Read a request body; `model` where the path has named it. Raises `BadRequest` naming the field that is wrong."""
    fields = decode_fields(body)
    model = model or _optional(fields, "model", decode_string) or ""
    if not model:
        raise BadRequest("`model` is missing: name the model that should answer", param="model")
    limit = _optional(fields, "max_output_tokens", decode_count)
    if limit is not None and limit < 0:
        raise refusal("max_output_tokens", f"is {limit}; it must not be negative")
    _check_input(fields)
    tokens, hashes = sizes(fields)
    return Request(
        id=id,
        endpoint=endpoint,
        caller=caller,
        model=model,
        stream=endpoint is Endpoint.RESPONSES and bool(_optional(fields, "stream", decode_flag)),
        include_usage=True,  # every answer of this dialect ends with it
        prompt_tokens=tokens,
        max_tokens=limit or EXPECTED_TOKENS,
        prefix_hashes=hashes,
        fields=fields,
        received_at=now,
    )


def _optional(fields: Mapping[str, msgspec.Raw], name: str, decode: Any) -> Any:
    raw = fields.get(name)
    return None if raw is None or is_null(raw) else read(raw, name, decode)


def _check_input(fields: Mapping[str, msgspec.Raw]) -> None:
    raw = fields.get("input")
    if raw is None or is_null(raw):
        if not any(name in fields and not is_null(fields[name]) for name in INSTEAD_OF_INPUT):
            raise refusal("input", "is missing")
    elif bytes(memoryview(raw)[:1]) not in (b'"', b"["):
        raise refusal("input", "must be a string or a list of items")


def sizes(fields: Mapping[str, msgspec.Raw]) -> tuple[int, tuple[int, ...]]:
    """Tokens of the prompt, estimated, and its prefix hashes: the instructions come first, as they do for the model."""
    prompt = b"".join(bytes(fields[name]) for name in ("instructions", "input") if name in fields)
    return len(prompt) // BYTES_PER_TOKEN + 1, prefix_hashes(memoryview(prompt))


def upstream_body(request: Request, served: msgspec.Raw | None) -> bytes:
    """The request for an upstream of this dialect: its own name for the model, and of the reasoning in the history only
    what it can have written itself."""
    fields = dict(request.fields)
    if served is not None:
        fields["model"] = served
    raw = fields.get("input")
    if raw is not None and b'"penstock.' in bytes(raw):
        fields["input"] = _without_foreign_reasoning(raw)
    return encode(fields)


def _without_foreign_reasoning(raw: msgspec.Raw) -> msgspec.Raw:
    if bytes(memoryview(raw)[:1]) != b"[":
        return raw
    return msgspec.Raw(encode([item for item in read(raw, "input", _decode_items) if not _is_foreign(item)]))


def _is_foreign(item: Mapping[str, msgspec.Raw]) -> bool:
    sealed = item.get("encrypted_content")
    if sealed is None or bytes(memoryview(sealed)[:1]) != b'"':
        return False
    return unseal(decode_string(sealed), Origin.OPENAI)[1] is not Origin.OPENAI
