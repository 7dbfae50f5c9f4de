"""A stand-in for whatever answers: every request takes `answer` seconds."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import count
from random import Random
from typing import Any

from penstock.traffic.arrival import Arrival
from penstock.traffic.options import read
from penstock.traffic.source import Source


def traced(files: Mapping[str, str]):
    """Opens what is in memory; a name that ends in "/" is a folder."""

    def opened(name: str):
        return [(file, text.splitlines()) for file, text in sorted(files.items()) if file.startswith(name)]

    return opened


def arrivals(
    tree: Any,
    *,
    most: int = 10_000,
    answer: float = 1.0,
    seed: int = 1,
    files: Mapping[str, str] | None = None,
    ok=lambda arrival: True,
) -> list[Arrival]:
    """All of them in the order in which they were given out, `most` at the most."""
    source = Source(read(tree), traced(files or {}), Random(seed))
    given: list[Arrival] = []
    ends: list[tuple[float, int, Arrival]] = []
    order = count()
    coming = source.next()
    while len(given) < most and (coming is not None or ends):
        if coming is not None and (not ends or coming.at <= ends[0][0]):
            arrival, coming = coming, source.next()
        else:
            now, _, ended = heapq.heappop(ends)
            following = source.ended(ended, now, ok(ended))
            if following is None:
                continue
            assert following.at >= now
            arrival = following
        given.append(arrival)
        heapq.heappush(ends, (arrival.at + answer, next(order), arrival))
    return given
