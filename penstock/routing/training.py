"""Makes a classifier of difficulty from labelled requests: logistic regression by AdaGrad (Duchi et al., 2011), which
gives rare words long steps and common ones short. Seconds for thousands of examples; not on the path of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from random import Random
from typing import Final

import msgspec

from penstock.routing.difficulty import MARKS, Classifier, buckets, logistic, marks
from penstock.routing.facts import Reading

BUCKETS: Final = 4_096  # 16 kB of weights
EPOCHS: Final = 15
RATE: Final = 0.2
DECAY: Final = 1e-4  # of weights, at each example that they are in


class Example(msgspec.Struct, frozen=True):
    """A request, and whether only the hard deployments answer it well."""

    reading: Reading
    hard: bool
    max_tokens: int = 256


def train(examples: Sequence[Example], rng: Random, n_buckets: int = BUCKETS) -> Classifier:
    """Of the same examples and `rng`, the same. Raises `ValueError` when all have one label."""
    if len({example.hard for example in examples}) < 2:
        raise ValueError("needs requests of both kinds, hard and not")
    rows = [
        (buckets(one.reading.last or one.reading.words, n_buckets), marks(one.reading, one.max_tokens), float(one.hard))
        for one in examples
    ]
    share = sum(hard for _, _, hard in rows) / len(rows)
    n_marks = len(MARKS)
    weights, slopes = [0.0] * (n_buckets + n_marks), [1e-2] * (n_buckets + n_marks)
    bias, bias_slope = log(share / (1 - share)), 1e-2
    for _ in range(EPOCHS):
        rng.shuffle(rows)
        for places, looks, hard in rows:
            total = bias
            for place in places:
                total += weights[place]
            for i, look in enumerate(looks):
                total += weights[n_buckets + i] * look
            error = logistic(total) - hard
            bias_slope += error * error
            bias -= RATE * error / sqrt(bias_slope)
            for place in places:
                slope = error + DECAY * weights[place]
                slopes[place] += slope * slope
                weights[place] -= RATE * slope / sqrt(slopes[place])
            for i, look in enumerate(looks):
                if look:
                    place = n_buckets + i
                    slope = error * look + DECAY * weights[place]
                    slopes[place] += slope * slope
                    weights[place] -= RATE * slope / sqrt(slopes[place])
    return Classifier(bias, weights[n_buckets:], weights[:n_buckets])


class Held(msgspec.Struct, frozen=True):
    """How well it does on examples that it was not trained on. All 0..1."""

    n: int
    accuracy: float
    always: float  # the accuracy of always saying what is commoner
    auc: float  # how often of a hard and an easy one the hard one scores higher


def held_out(scored: Sequence[tuple[float, bool]], threshold: float = 0.5) -> Held:
    """`scored`: what the classifier said, and what was true; both kinds among them."""
    n = len(scored)
    right = sum((score > threshold) == hard for score, hard in scored)
    n_hard = sum(hard for _, hard in scored)
    ranks, below = 0.0, 0
    ordered = sorted(scored)
    while below < n:  # ties share their middle rank (Mann and Whitney, 1947)
        end = below
        while end < n and ordered[end][0] == ordered[below][0]:
            end += 1
        ranks += sum(hard for _, hard in ordered[below:end]) * (below + 1 + end) / 2
        below = end
    pairs = n_hard * (n - n_hard)
    auc = (ranks - n_hard * (n_hard + 1) / 2) / pairs if pairs else 0.5
    return Held(n, right / n, max(n_hard, n - n_hard) / n, auc)


def threshold_at(scored: Sequence[tuple[float, bool]], missed: float) -> float:
    """The highest threshold below which at most this fraction of all requests are hard: what quality it may cost."""
    allowed = missed * len(scored)
    best = 0.0
    for score, hard in sorted(scored):
        if hard:
            allowed -= 1
            if allowed < 0:
                break
        best = score
    return best
