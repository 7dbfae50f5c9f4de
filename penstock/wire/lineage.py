"""What a prompt was made of, as its caller says: the version of its template and the ids of what was retrieved for it.

In headers, `x-penstock-prompt-version` and `x-penstock-context`, or where a program cannot set headers in the body's
`metadata`, as `prompt_version` and `context`. It goes on the receipt and into traces, and decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from penstock.core.errors import BadRequest
from penstock.wire.prompts import UNREADABLE

MAX_IDS: Final = 64  # of one request

NO_LINEAGE: Final[tuple[str, tuple[str, ...]]] = ("", ())

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+#=-]{0,127}").fullmatch
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(str | list[str]).decode


def lineage(header: Callable[[bytes], bytes | None], fields: Mapping[str, msgspec.Raw]) -> tuple[str, tuple[str, ...]]:
    """Version of the prompt, and ids in the order in which they were given. A header is stronger than the body. Raises
    `BadRequest` for a header of ours that is not as documented; what is odd in a body is the upstream's affair.
    """
    version, context = header(b"x-penstock-prompt-version"), header(b"x-penstock-context")
    if version is None and context is None and "metadata" not in fields:
        return NO_LINEAGE
    version_of_body, context_of_body = _in_body(fields) if version is None or context is None else NO_LINEAGE
    return (
        version_of_body if version is None else _version(version),
        context_of_body if context is None else _context(context),
    )


def _version(header: bytes) -> str:
    version = header.decode("latin-1").strip()
    if _ID(version) is None:
        raise BadRequest("x-penstock-prompt-version must be at most 128 letters, digits and . _ : / @ + # = -")
    return version


def _context(header: bytes) -> tuple[str, ...]:
    ids = tuple([one for one in map(str.strip, header.decode("latin-1").split(",")) if one])
    if len(ids) > MAX_IDS or any(_ID(one) is None for one in ids):
        raise BadRequest(
            f"x-penstock-context must be at most {MAX_IDS} ids with commas between them, each of at most 128 letters, "
            "digits and . _ : / @ + # = -"
        )
    return ids


def _in_body(fields: Mapping[str, msgspec.Raw]) -> tuple[str, tuple[str, ...]]:
    raw = fields.get("metadata")
    if raw is None:
        return NO_LINEAGE
    try:
        metadata = _members(raw)
        version = _text(metadata["prompt_version"]) if "prompt_version" in metadata else ""
        said = _texts(metadata["context"]) if "context" in metadata else ""
    except UNREADABLE:
        return NO_LINEAGE
    ids = said.split(",") if isinstance(said, str) else said
    known = [one for one in map(str.strip, ids) if _ID(one) is not None]
    return version if _ID(version) is not None else "", tuple(known[:MAX_IDS])
