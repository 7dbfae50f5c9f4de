"""What a session consists of: how many turns, how long each is, which system prompt it begins with."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random
from typing import NamedTuple

from penstock.traffic.lengths import drawing, thinking
from penstock.traffic.options import TrafficError, Workload

Pairs = Sequence[tuple[int, int]]
"""Prompt and output tokens of the requests of a trace."""


class Turn(NamedTuple):
    new_tokens: int
    output_tokens: int
    think: float  # seconds before it


class Content:
    """Draws whole sessions. `pairs` are the lengths of a trace, where the workload names one."""

    def __init__(self, workload: Workload, pairs: Pairs | None, rng: Random) -> None:
        self._rng = rng
        self._n_turns = drawing(workload.turns, rng)
        self._lengths = _from_trace(pairs, rng) if pairs is not None else _apart(workload, rng)
        self._think = (float(workload.think), workload.think_cv)
        prefix = workload.shared_prefix
        self._room = workload.context_tokens - (prefix.tokens if prefix is not None else 0)
        self._popularity: list[float] = []
        if prefix is not None:
            self._popularity = list(accumulate(1 / i**prefix.skew for i in range(1, prefix.prompts + 1)))

    def shared(self) -> int:
        """Which shared beginning; -1 where there are none."""
        if not self._popularity:
            return -1
        return bisect(self._popularity, self._rng.random() * self._popularity[-1], hi=len(self._popularity) - 1)

    def turns(self) -> tuple[Turn, ...]:
        """At least one, which is cut to what the context holds; no more than fit into it."""
        room = self._room
        turns: list[Turn] = []
        for _ in range(self._n_turns()):
            new, output = self._lengths()
            if not turns:
                new = min(new, room - 1)
                output = min(output, room - new)
            room -= new + output
            if room < 0:
                break
            turns.append(Turn(new, output, thinking(*self._think, self._rng)))
        return tuple(turns)


def _apart(workload: Workload, rng: Random) -> Callable[[], tuple[int, int]]:
    prompt, output = drawing(workload.prompt_tokens, rng), drawing(workload.output_tokens, rng)
    return lambda: (prompt(), output())


def _from_trace(pairs: Pairs, rng: Random) -> Callable[[], tuple[int, int]]:
    if not pairs:
        raise TrafficError("a trace without requests has no lengths to draw from")
    return lambda: pairs[int(rng.random() * len(pairs))]
