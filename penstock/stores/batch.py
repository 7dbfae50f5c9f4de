"""Some records of a spool that are read together, and acknowledged together."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Position(NamedTuple):
    segment: int
    offset: int


class Batch(msgspec.Struct, frozen=True):
    records: list[bytes]
    end: Position  # what comes after them
