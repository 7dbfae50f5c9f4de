"""What the gateway needs of any request body before it knows who will answer: fields by name, sizes, prefix hashes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec
import xxhash

from penstock.core.errors import BadRequest

BYTES_PER_TOKEN: Final = 4  # English prose under common vocabularies; an estimate, settled by the upstream's count
BLOCK_BYTES: Final = 1024  # of prompt under one prefix hash, about 256 tokens: less is not worth steering for
MAX_BLOCKS: Final = 64  # longer prompts are told apart by their first 64 kB
EXPECTED_TOKENS: Final = 256  # of an answer whose caller set no maximum

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_string = msgspec.json.Decoder(str).decode
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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not a JSON object: {error}") from None


def read_field(fields: Mapping[str, msgspec.Raw], name: str, decode: Callable[[msgspec.Raw], Value]) -> Value | None:
    """None when it is not there. Raises `BadRequest` naming the field."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"`{name}`: {error}", param=name) from None


def has_parts(messages: msgspec.Raw) -> bool:
    """Whether anything but plain strings may be in there: parts are in lists, and no escape hides a list."""
    return bytes(messages).find(b"[", 1) >= 0


def prefix_hashes(prompt: memoryview) -> tuple[int, ...]:
    """xxh3 over ever longer prefixes: a routing hint, not a key, so 64 bits that an enemy could collide are enough."""
    if len(prompt) < BLOCK_BYTES:
        return ()
    running = xxhash.xxh3_64()
    update, digest, hashes = running.update, running.intdigest, []
    for end in range(BLOCK_BYTES, min(len(prompt), MAX_BLOCKS * BLOCK_BYTES) + 1, BLOCK_BYTES):
        update(prompt[end - BLOCK_BYTES : end])
        hashes.append(digest())
    return tuple(hashes)
