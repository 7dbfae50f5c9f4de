"""What is said of organisations, teams and keys to those who look after them, and why something is refused.

Never a key and never a digest. Times are written as in the configuration file.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from penstock.config.schema import Access
from penstock.config.units import instant

Where: TypeAlias = Literal["database", "file"]
Words: TypeAlias = dict[str, Any]

OPTIONS: Final = Access.__struct_fields__


class TenantView(Access, frozen=True, kw_only=True, omit_defaults=True):
    """An organisation, or with `team` a part of one, and its own options."""

    org: str
    team: str = ""
    where: Annotated[Where, Meta(description="What is in the configuration file is changed there.")]
    created: str | None = None
    version: Annotated[int, Meta(description="Another one after each change; 0 for what is in the file.")] = 0


class KeyView(Access, frozen=True, kw_only=True, omit_defaults=True):
    """A key and its own options; what it has from its team and organisation is in `effective`, of a single key."""

    id: str
    org: str = ""
    team: str = ""
    where: Annotated[Where, Meta(description="What is in the configuration file is changed there.")]
    digest: Annotated[
        Literal["hmac", "sha256"], Meta(description="How it is stored: an HMAC under the pepper, or a plain SHA-256.")
    ]
    previous_until: Annotated[str | None, Meta(description="The key that it replaced works until then.")] = None
    created: str | None = None
    last_used: str | None = None
    version: Annotated[int, Meta(description="Another one after each change; 0 for what is in the file.")] = 0
    effective: Words | None = None


class NewKey(msgspec.Struct, frozen=True):
    """`secret` is the key: it is told this once and kept nowhere."""

    secret: str
    key: KeyView


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """`next` is what to ask for as `after` to get the page that follows; without it, this is the last."""

    items: tuple[Any, ...]
    next: str | None = None


class Fault(msgspec.Struct, frozen=True):
    """`at` is the dotted path of a field, "" for all of it; `message` goes on from there: "is missing"."""

    at: str
    message: str

    def __str__(self) -> str:
        return f"{self.at} {self.message}".strip()


class Refused(Exception):
    """It was understood and is not done. Nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotThere(Refused):
    """There is no such thing, or it belongs to somebody else."""


class Exists(Refused):
    """There is one of this name already."""


class Declared(Refused):
    """It is in the configuration file, and is changed there."""


class Changed(Refused):
    """Somebody else changed it since it was looked at."""


class Invalid(Refused):
    """What was asked for would be wrong in the configuration file too."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


def written(access: Access) -> Words:
    """The options that are given, as plain values."""
    said: Words = _said(access)
    return {name: said[name] for name in OPTIONS if name in said}


def _said(value: Any) -> Any:
    if not isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    fields = {one.name: getattr(value, one.name) for one in msgspec.structs.fields(value)}
    defaults = {one.name: one.default for one in msgspec.structs.fields(value)}
    return {name: _said(inner) for name, inner in fields.items() if inner != defaults[name] and inner is not None}


def options(access: Access) -> dict[str, Any]:
    """The fields of an `Access`, for another one."""
    return {name: getattr(access, name) for name in OPTIONS}


def moment(unix_seconds: float | None) -> str | None:
    return None if unix_seconds is None else instant(unix_seconds)
