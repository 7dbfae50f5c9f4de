"""Where answers may be made. Places are named from large to small with dashes between: `eu` holds `eu-west-1`."""

from __future__ import annotations

from collections.abc import Sequence


def inside(location: str, place: str) -> bool:
    return location == place or location.startswith(f"{place}-")


def allowed(location: str, places: Sequence[str]) -> bool:
    """Without `places` everywhere; with them nowhere that has no name."""
    return not places or any(inside(location, place) for place in places)


def rank(location: str, preferred: Sequence[str]) -> int:
    """0 for the place that is liked best; `len(preferred)` for all that are not named."""
    for i, place in enumerate(preferred):
        if inside(location, place):
            return i
    return len(preferred)
