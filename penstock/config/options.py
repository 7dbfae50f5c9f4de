"""What every group of options is made of."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


def says(meaning: str) -> Meta:
    """What editors show beside the option, by way of the JSON Schema."""
    return Meta(description=meaning)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
