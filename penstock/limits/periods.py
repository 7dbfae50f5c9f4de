"""Calendar windows of budgets: which one a moment is in, and when it ends."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final

import msgspec

FOREVER: Final = 100 * 366 * 86_400  # seconds: how long a budget without an end is remembered


class Period(StrEnum):
    DAY = "day"
    WEEK = "week"  # ISO 8601: from Monday
    MONTH = "month"
    TOTAL = "total"


class Span(msgspec.Struct, frozen=True):
    label: str  # of this window and no other: 2026-11-09, 2026-W46, 2026-11, total
    ends_at: float  # Unix seconds


def span(period: Period, wall: float, zone: tzinfo = UTC) -> Span:
    """The window of `period` around `wall` (Unix seconds), in the calendar of `zone`."""
    if period is Period.TOTAL:
        return Span("total", wall + FOREVER)
    today = datetime.fromtimestamp(wall, zone).date()
    if period is Period.DAY:
        label, end = today.isoformat(), today + timedelta(days=1)
    elif period is Period.WEEK:
        year, week, day = today.isocalendar()
        label, end = f"{year}-W{week:02d}", today + timedelta(days=8 - day)
    else:
        label, end = f"{today:%Y-%m}", (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return Span(label, datetime(end.year, end.month, end.day, tzinfo=zone).timestamp())


def window(period: Period, label: str, zone: tzinfo = UTC) -> tuple[float, float]:
    """When the window of this label begins and ends, in Unix seconds. Raises ValueError when there is none."""
    if period is Period.TOTAL:
        return 0.0, 10.0 * FOREVER
    if period is Period.WEEK:
        year, week = label.split("-W")
        first = date.fromisocalendar(int(year), int(week), 1)
    else:
        first = date.fromisoformat(label if period is Period.DAY else f"{label}-01")
    began = datetime(first.year, first.month, first.day, tzinfo=zone).timestamp()
    return began, span(period, began, zone).ends_at
