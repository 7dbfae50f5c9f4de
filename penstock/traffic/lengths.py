"""How long prompts, answers and conversations are: one draw at a time, from an rng that the caller owns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil, log, log1p
from random import Random
from statistics import NormalDist
from typing import Final

from penstock.traffic.options import Geometric, Length, Lognormal, Pareto, Uniform

Draw = Callable[[], int]

_Z95: Final = NormalDist().inv_cdf(0.95)


def drawing(length: Length, rng: Random) -> Draw:
    """Something that draws whole numbers from `min` to `max`, both included."""
    match length:
        case Lognormal(median=median, p95=p95, min=low, max=high):
            mu, sigma = log(median), log(p95 / median) / _Z95
            return partial(_lognormal, rng, mu, sigma, low, high)
        case Pareto(min=low, alpha=alpha, max=high):
            return lambda: min(high, int(low * rng.paretovariate(alpha)))
        case Uniform(min=low, max=high):
            return lambda: rng.randint(low, high)
        case Geometric(mean=mean, max=high):
            if mean == 1.0:
                return lambda: 1
            per_step = log1p(-1 / mean)
            return lambda: max(1, min(high, ceil(log1p(-rng.random()) / per_step)))
    return lambda: length


def _lognormal(rng: Random, mu: float, sigma: float, low: int, high: int) -> int:
    return max(low, min(high, round(rng.lognormvariate(mu, sigma))))


def thinking(mean: float, cv: float, rng: Random) -> float:
    """Seconds: gamma distributed with this mean and coefficient of variation; the mean itself when `cv` is 0."""
    if mean == 0.0 or cv == 0.0:
        return mean
    shape = 1 / (cv * cv)
    return rng.gammavariate(shape, mean / shape)
