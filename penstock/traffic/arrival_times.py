"""When requests come: a renewal process in operational time, laid along a rate that changes.

Gaps of mean 1 are drawn first, and a gap is over when the integral of the rate has grown by it. So the rate is met
exactly whatever the gaps, and bursts stay bursts while the rate changes (for exponential gaps this is the inhomogeneous
Poisson process; Cinlar, Introduction to Stochastic Processes, 1975, 4.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, pairwise
from math import cos, exp, inf, lgamma, log, pi, sqrt
from random import Random
from typing import Final, NamedTuple

from penstock.traffic.options import Constant, Diurnal, Gamma, Poisson, Ramp, Rate, Steps, Weibull

Gap = Callable[[], float]

_SINE_PIECES: Final = 96  # of a period: a quarter of an hour of a day; 0.05 % off at the most


class Segment(NamedTuple):
    """The rate goes straight from `first` to `last` (per second) between two instants (seconds)."""

    start: float
    end: float
    first: float
    last: float


def arrival_times(process: Constant | Poisson | Gamma | Weibull, rng: Random) -> Iterator[float]:
    """Seconds, rising, without end unless the rate stays 0."""
    gap = gap_of(process, rng)
    return along((segment, gap) for segment in segments(process.rate))


def along(pieces: Iterable[tuple[Segment, Gap]]) -> Iterator[float]:
    """The instants at which gaps end. A gap that outlasts a segment goes on in the next; `pieces` rise in time."""
    need = -1.0
    for (start, end, first, last), gap in pieces:
        if need < 0.0:
            need = gap()
        slope = (last - first) / (end - start) if end < inf else 0.0
        at, rate = start, first
        while True:
            ahead = (end - at) * (rate + last) / 2 if rate or last else 0.0
            if need > ahead or not ahead:
                need -= ahead
                break
            if slope:
                # the smaller root of slope/2 x^2 + rate x = need, in the form that does not cancel
                at += 2 * need / (rate + sqrt(max(0.0, rate * rate + 2 * slope * need)))
                at = min(at, end)  # which rounding may pass
            else:
                at += need / rate
            rate = first + slope * (at - start)
            yield at
            need = gap()


def segments(rate: Rate) -> Iterator[Segment]:
    match rate:
        case Diurnal():
            return _sine(rate)
        case Steps(points=points, period=period):
            whole = (*points, (period, 0.0) if period is not None else (inf, 0.0))
            lines = [Segment(a, b, level, level) for (a, level), (b, _) in pairwise(whole)]
            before = Segment(0.0, points[0][0], 0.0, 0.0)
            return _repeated([before, *lines] if points[0][0] > 0 else lines, period)
        case Ramp(points=points, period=period):
            lines = [Segment(a, b, low, high) for (a, low), (b, high) in pairwise(points)]
            (begin, low), (end, high) = points[0], points[-1]
            if begin > 0:
                lines.insert(0, Segment(0.0, begin, low, low))
            return _repeated([*lines, Segment(end, inf if period is None else period, high, high)], period)
    return iter((Segment(0.0, inf, rate, rate),))


def _sine(rate: Diurnal) -> Iterator[Segment]:
    piece = rate.period / _SINE_PIECES
    high = rate.peak_at / piece

    def level(i: int) -> float:
        return rate.mean * max(0.0, 1 + rate.swing * cos(2 * pi * (i - high) / _SINE_PIECES))

    return (Segment(i * piece, (i + 1) * piece, level(i), level(i + 1)) for i in count())


def _repeated(lines: list[Segment], period: float | None) -> Iterator[Segment]:
    if period is None:
        yield from lines
        return
    for i in count():
        shift = i * period
        for start, end, first, last in lines:
            yield Segment(start + shift, end + shift, first, last)


def gap_of(process: Constant | Poisson | Gamma | Weibull, rng: Random) -> Gap:
    """What draws gaps of mean 1."""
    match process:
        case Poisson():
            return lambda: rng.expovariate(1.0)
        case Gamma(cv=cv):
            return gamma_gap(1 / (cv * cv), rng)
        case Weibull(cv=cv):
            return weibull_gap(weibull_shape(cv), rng)
        case Constant():
            return lambda: 1.0


def gamma_gap(shape: float, rng: Random) -> Gap:
    return lambda: rng.gammavariate(shape, 1 / shape)


def weibull_gap(shape: float, rng: Random) -> Gap:
    scale = exp(-lgamma(1 + 1 / shape))
    return lambda: rng.weibullvariate(scale, shape)


def weibull_shape(cv: float) -> float:
    """The shape k for which cv^2 = gamma(1 + 2/k) / gamma(1 + 1/k)^2 - 1, by bisection; within 0.05 to 1,000."""
    low, high = log(0.05), log(1_000.0)
    for _ in range(60):
        middle = (low + high) / 2
        k = exp(middle)
        if exp(lgamma(1 + 2 / k) - 2 * lgamma(1 + 1 / k)) - 1 > cv * cv:
            low = middle
        else:
            high = middle
    return exp(low)
