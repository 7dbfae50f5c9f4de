"""How finely receipts tell the time."""

from __future__ import annotations


def to_microsecond(seconds: float) -> float:
    """Rounded for the receipt; `round` would cost three times as much."""
    return int(seconds * 1e6 + 0.5) / 1e6
