"""References to secrets: the only form in which one appears in a configuration. `app.secrets` reads what they name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

REFERENCE_PATTERN: Final = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.*[^\s])$"

SecretReference = Annotated[
    str,
    Meta(
        pattern=REFERENCE_PATTERN,
        examples=["env:OPENAI_API_KEY", "file:/run/secrets/openai"],
        extra={
            # never "not `sk-...`": what stands here instead of a reference may be the secret itself
            "secret": True,
            "wrong": "must not be the secret itself: write env:NAME (an environment variable) or file:/path",
        },
    ),
]


class EnvReference(msgspec.Struct, frozen=True):
    name: str


class FileReference(msgspec.Struct, frozen=True):
    path: str


def parse(reference: str) -> EnvReference | FileReference:
    """Raises `ValueError`, without the text, when it is not a reference."""
    if re.search(REFERENCE_PATTERN, reference) is None:
        raise ValueError("not a reference to a secret: expected env:NAME or file:/path")
    kind, _, rest = reference.partition(":")
    return EnvReference(rest) if kind == "env" else FileReference(rest)


def resolved(text: str, read: Callable[[str], str]) -> str:
    """`text` itself or, where it is a reference, what `read` makes of it, with the errors of that."""
    return text if re.search(REFERENCE_PATTERN, text) is None else read(text)
