"""Values of a request, checked by name: `messages.3.content.0.type` is where an error is."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from penstock.core.errors import BadRequest
from penstock.wire.prompts import NULL, UNREADABLE

FALSE: Final = msgspec.Raw(b"false")

_PLACE: Final = re.compile(r" - at `\$(.*)`$")
_INDEX: Final = re.compile(r"\[(\d+|\.\.\.)\]")

as_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


def read(decode: Any, raw: msgspec.Raw | None, at: str) -> Any:
    if raw is None:
        return None
    try:
        return decode(raw)
    except UNREADABLE as error:
        what = str(error)
        place = _PLACE.search(what)
        if place is not None:
            at += _INDEX.sub(r".\1", place[1])
            what = what[: place.start()]
        raise BadRequest(f"`{at}`: {what}", param=at) from None


def need(value: str | None, at: str) -> str:
    if not value:
        raise BadRequest(f"`{at}` is missing", param=at)
    return value


class Extra(dict[str, msgspec.Raw]):
    """What has no canonical place, under the caller's name for it."""

    def keep(self, members: dict[str, msgspec.Raw]) -> None:
        """All but null and false, which say no more than leaving them out."""
        for name, raw in members.items():
            if raw != NULL and raw != FALSE:
                self[name] = raw
