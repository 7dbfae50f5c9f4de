"""Recorded traffic, line by line. The lines are given, since this room opens no file.

Mooncake: JSON lines `{"timestamp": ms, "input_length", "output_length", "hash_ids"}`, one id for each 512 tokens, equal
where prompts begin alike (github.com/kvcache-ai/Mooncake). Azure: CSV `TIMESTAMP,ContextTokens,GeneratedTokens`
(github.com/Azure/AzurePublicDataset). ServeGen: CSV `t_start_s,rate,cv,family,p1,p2` of one client, each row until the
next (github.com/alibaba/ServeGen).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from math import inf
from random import Random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from penstock.traffic.arrival_times import Gap, Segment, gamma_gap, weibull_gap
from penstock.traffic.options import TrafficError

MOONCAKE_BLOCK: Final = 512  # tokens of one hash_id
MOST_IDS: Final = 1 << 47


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One request of a trace. `at` in seconds from the first one of the file."""

    at: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


class _Line(msgspec.Struct, gc=False):
    timestamp: Annotated[float, Meta(ge=0)]
    input_length: Annotated[int, Meta(ge=0)]
    output_length: Annotated[int, Meta(ge=0)]
    hash_ids: tuple[Annotated[int, Meta(ge=0, lt=MOST_IDS)], ...] = ()


def mooncake(lines: Iterable[str], name: str) -> Iterator[Recorded]:
    """In the order of the file, whose times must not fall. Raises `TrafficError`."""
    decode = msgspec.json.Decoder(_Line).decode
    first, latest = None, 0.0
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = decode(text)
        except msgspec.MsgspecError as error:
            raise TrafficError(f"{name}:{number}: is not a Mooncake request: {error}") from None
        if len(line.hash_ids) * MOONCAKE_BLOCK - line.input_length not in range(MOONCAKE_BLOCK) and line.hash_ids:
            raise TrafficError(
                f"{name}:{number}: {len(line.hash_ids)} hash_ids of {MOONCAKE_BLOCK} tokens do not cover an "
                f"input_length of {line.input_length}"
            )
        first = line.timestamp if first is None else first
        at = (line.timestamp - first) / 1000
        latest = _rising(at, latest, name, number)
        yield Recorded(at, max(1, line.input_length), max(1, line.output_length), line.hash_ids)


def azure(lines: Iterable[str], name: str) -> Iterator[Recorded]:
    """As `mooncake`."""
    rows = csv.DictReader(lines)
    wanted = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}
    if not wanted <= set(rows.fieldnames or ()):
        raise TrafficError(f"{name}:1: is not an Azure trace; its first line must name {', '.join(sorted(wanted))}")
    first: datetime | None = None
    latest = 0.0
    for number, row in enumerate(rows, 2):
        try:
            when = datetime.fromisoformat(row["TIMESTAMP"])
            prompt, output = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        except (ValueError, TypeError) as error:
            raise TrafficError(f"{name}:{number}: is not a request of an Azure trace: {error}") from None
        first = when if first is None else first
        at = (when - first).total_seconds()
        latest = _rising(at, latest, name, number)
        yield Recorded(at, max(1, prompt), max(1, output))


def servegen(lines: Iterable[str], name: str, rng: Random) -> Iterator[tuple[Segment, Gap]]:
    """The rate of one client with the gaps that were fitted to it, for `arrival_times.along`.

    The last row lasts as long as the one before it. Raises `TrafficError`.
    """
    before: tuple[float, float, Gap] | None = None
    step = inf
    for number, row in enumerate(csv.reader(lines), 1):
        try:
            start, rate = float(row[0]), float(row[1])
            shape = float(row[4] or 0)
        except (ValueError, IndexError):
            raise TrafficError(f"{name}:{number}: is not a row of t_start_s,rate,cv,family,p1,p2") from None
        if before is not None:
            step = start - before[0]
            if step <= 0:
                raise TrafficError(f"{name}:{number}: comes before the row above it")
            yield Segment(before[0], start, before[1], before[1]), before[2]
        before = (start, rate, _fitted(row[3], shape, rng, f"{name}:{number}"))
    if before is not None:
        yield Segment(before[0], before[0] + step, before[1], before[1]), before[2]


def _fitted(family: str, shape: float, rng: Random, where: str) -> Gap:
    """Gaps of mean 1, since the rate has the scale; without a family the client was silent, or too seldom to fit."""
    if family in ("Gamma", "Weibull") and shape > 0:
        return gamma_gap(shape, rng) if family == "Gamma" else weibull_gap(shape, rng)
    if family in ("", "Exponential"):
        return lambda: rng.expovariate(1.0)
    raise TrafficError(
        f"{where}: the family must be Gamma or Weibull with a shape p1 above 0, not {family!r} {shape:g}"
    )


def _rising(at: float, latest: float, name: str, number: int) -> float:
    if at < latest:
        raise TrafficError(f"{name}:{number}: comes before the line above it; sort the trace by time")
    return at
