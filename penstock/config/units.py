"""Durations, sizes and instants as people write them: with a unit, because a bare `30` means something else to each
reader.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from msgspec import Meta

from penstock.config.problems import nearest
from penstock.core.durations import (
    DURATION_PATTERN as DURATION_PATTERN,  # here with sizes and instants, for the rooms above
)
from penstock.core.durations import SECONDS as SECONDS
from penstock.core.durations import seconds as seconds

SIZE_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,9})?(B|KB|MB|GB|KiB|MiB|GiB)$"

INSTANT_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2}))?$"

BYTES: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

Duration = Annotated[
    str,
    Meta(
        pattern=DURATION_PATTERN,
        examples=["30s", "500ms", "10m"],
        extra={"expected": "a duration with its unit, such as 30s, 500ms or 10m"},
    ),
]
Size = Annotated[
    str,
    Meta(
        pattern=SIZE_PATTERN,
        examples=["32MiB", "512KiB"],
        extra={"expected": "a size with its unit, such as 32MiB or 512KiB"},
    ),
]

Instant = Annotated[
    str,
    Meta(
        pattern=INSTANT_PATTERN,
        examples=["2027-01-31", "2027-01-31T18:00:00Z"],
        extra={"expected": "a day such as 2027-01-31, or a time with its zone such as 2027-01-31T18:00:00Z"},
    ),
]


def n_bytes(text: str) -> int:
    """Whole bytes, rounded down. Raises `ValueError` when `text` is not a `Size`."""
    if re.search(SIZE_PATTERN, text) is None or text.endswith("\n"):
        raise ValueError(f"not a number with a unit: {text!r}")
    number = text.rstrip("BKMGi")
    return int(float(number) * BYTES[text[len(number) :]])


def unix_seconds(text: str) -> float:
    """Seconds since 1970; a day means its beginning in UTC. Raises `ValueError` when `text` is not an `Instant`, or not
    in the calendar (RFC 3339)."""
    if re.search(INSTANT_PATTERN, text) is None or text.endswith("\n"):
        raise ValueError(f"not a day or time: {text!r}")
    instant = datetime.fromisoformat(text)
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def instant(unix_seconds: float) -> str:
    """`2027-01-31T18:00:00Z`, whole seconds, rounded down."""
    return datetime.fromtimestamp(int(unix_seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def zone(name: str) -> tzinfo:
    """Of the IANA database: `Europe/Berlin`. Raises `ValueError` when there is none of this name on this machine."""
    if name == "UTC":
        return UTC  # exists without a database
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no time zone: {name!r}") from None


def wrong_zone(name: str) -> str | None:
    """What to say about it; None when it is one."""
    try:
        zone(name)
    except ValueError:
        return f"is not a time zone such as Europe/Berlin.{nearest(name, available_timezones())}"
    return None
