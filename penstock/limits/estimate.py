"""How many tokens an answer will have: learned, so that limits reserve what is likely and not what is allowed.

For each key and model a small histogram of `used / allowed` on a logarithmic scale; the answer is its 90th percentile,
rounded up to the next bin. Counts are halved now and then, so that what was long ago weighs less.
"""

from __future__ import annotations

from math import ceil, log2
from typing import Final

BINS: Final = 33  # bin n is for ratios up to 2 ** (-n / 4): a fifth apart, from 1 down to 1/256
QUANTILE: Final = 0.9
ENOUGH: Final = 20  # answers before a key's own histogram is believed
HALVE_AT: Final = 512
KEPT: Final = 10_000  # histograms; those longest unused are forgotten

Subject = tuple[str, str]  # model, key; the model's own has an empty key


class Estimates:
    """What answers of each model, and of each key with it, have used of what they were allowed."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Subject, list[int]] = {}  # least recently learned first

    def expect(self, model: str, key: str, allowed: int) -> int:
        """Output tokens that nine of ten such answers stay within; `allowed` itself while too little is known."""
        for subject in ((model, key), (model, "")):
            counts = self._kept.get(subject)
            if counts is not None and sum(counts) >= ENOUGH:
                return max(1, ceil(allowed * _quantile(counts)))
        return allowed

    def learn(self, model: str, key: str, allowed: int, used: int) -> None:
        """An answer that was allowed `allowed` tokens (> 0) has used `used`."""
        ratio = used / allowed
        which = 0 if ratio >= 1 else BINS - 1 if ratio <= 2 ** (-(BINS - 1) / 4) else int(-4 * log2(ratio))
        for subject in ((model, key), (model, "")):
            counts = self._kept.pop(subject, None) or [0] * BINS
            counts[which] += 1
            if sum(counts) >= HALVE_AT:
                counts = [count // 2 for count in counts]
            self._kept[subject] = counts
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]


def _quantile(counts: list[int]) -> float:
    above = (1 - QUANTILE) * sum(counts)
    for which, count in enumerate(counts):
        above -= count
        if above < 0:
            return float(2 ** (-which / 4))
    raise AssertionError("no counts")
