"""What the gateway needs of any request body before it knows who will answer: fields by name, sizes, prefix hashes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec
from xxhash import xxh3_64_intdigest

from penstock.core.errors import BadRequest
from penstock.core.request import PREFIX_TOKENS, Received

BYTES_PER_TOKEN: Final = 4  # English prose under common vocabularies; an estimate, settled by the upstream's count
PREFIX_BYTES: Final = tuple(tokens * BYTES_PER_TOKEN for tokens in PREFIX_TOKENS)
EXPECTED_TOKENS: Final = 256  # of an answer whose caller set no maximum
LONG_BODY: Final = 16_384  # bytes; a shorter one is written anew in less than a microsecond

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
NULL: Final = msgspec.Raw(b"null")
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be."""
decode_string = msgspec.json.Decoder(str).decode
decode_text = msgspec.json.Decoder(str | None).decode
decode_flag = msgspec.json.Decoder(bool | None).decode
decode_count = msgspec.json.Decoder(int | None).decode
OPENING: Final = ord("[")
EMPTY_LIST: Final = re.compile(rb"\[\s*\]").match
Value = TypeVar("Value")


def decode_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, each as it came. Raises `BadRequest`."""
    try:
        if not body.isascii():
            body.decode()  # raw values are passed on unread: they must at least be text
        return _decode_fields(body)
    except UNREADABLE as error:
        raise BadRequest(f"the body is not a JSON object: {error}") from None


def is_null(raw: msgspec.Raw) -> bool:
    return raw == NULL


def read_field(fields: Mapping[str, msgspec.Raw], name: str, decode: Callable[[msgspec.Raw], Value]) -> Value | None:
    """None when it is not there. Raises `BadRequest` naming the field."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except UNREADABLE as error:
        raise BadRequest(f"`{name}`: {error}", param=name) from None


def received(body: bytes, fields: dict[str, msgspec.Raw]) -> Received | None:
    """For `Request.received`: None where writing a body anew costs next to nothing, or would change it.

    A body of this length has room for the fields and nothing else: no white space, no escape in a name, no second value
    under a name that came before.
    """
    if len(body) < LONG_BODY:
        return None
    needed = 1
    for name, raw in fields.items():
        needed += len(name) + len(memoryview(raw)) + 4  # quotes, colon, comma; the last comma is the second brace
    return Received(body, dict(fields)) if needed == len(body) else None


def prefix_hashes(prompt: memoryview) -> tuple[int, ...]:
    """xxh3 over ever longer prefixes: a routing hint, not a key, so 64 bits that an enemy could collide are enough."""
    length, start, running, hashes = len(prompt), 0, 0, []
    for end in PREFIX_BYTES:
        if end > length:
            break
        running = xxh3_64_intdigest(prompt[start:end], running)  # each is the seed of the next
        hashes.append(running)
        start = end
    return tuple(hashes)
