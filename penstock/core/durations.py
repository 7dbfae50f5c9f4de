"""Spans of time as people write them: with a unit, because a bare `30` means something else to each reader."""

from __future__ import annotations

import re
from typing import Final

DURATION_PATTERN: Final = r"^[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d)$"
SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SPLIT: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)").fullmatch


def seconds(text: str) -> float:
    """Of `30s`, `500ms` or `10m`. Raises `ValueError` for what does not fit `DURATION_PATTERN`."""
    found = _SPLIT(text)
    if found is None:
        raise ValueError(f"not a number with a unit: {text!r}")
    return float(found[1]) * SECONDS[found[2]]
