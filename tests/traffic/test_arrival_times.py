"""Rates and gaps: what was asked for is what comes."""

from itertools import islice, pairwise
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.traffic.arrival_times import along, arrival_times, segments, weibull_shape
from penstock.traffic.options import Constant, Diurnal, Gamma, Poisson, Ramp, Seconds, Steps, Weibull

MANY = 40_000


def first(process, n=MANY, seed=1):
    return list(islice(arrival_times(process, Random(seed)), n))


@pytest.mark.parametrize(
    ("process", "cv"),
    [
        (Poisson(rate=5.0), 1.0),
        (Gamma(rate=5.0, cv=3.0), 3.0),
        (Gamma(rate=5.0, cv=0.3), 0.3),
        (Weibull(rate=5.0, cv=2.5), 2.5),
        (Weibull(rate=5.0, cv=0.5), 0.5),
    ],
)
def test_gaps_have_the_mean_and_the_variation_that_were_asked_for(process, cv):
    gaps = [b - a for a, b in pairwise(first(process))]
    assert fmean(gaps) == pytest.approx(0.2, rel=0.05)
    assert stdev(gaps) / fmean(gaps) == pytest.approx(cv, rel=0.1)


def test_constant_arrivals_are_evenly_spaced():
    assert first(Constant(rate=4.0), 4) == pytest.approx([0.25, 0.5, 0.75, 1.0])


@given(st.floats(0.05, 20))
def test_the_shape_of_a_weibull_gives_back_its_variation(cv):
    from math import exp, lgamma, sqrt

    k = weibull_shape(cv)
    assume(0.06 < k < 900)
    assert sqrt(exp(lgamma(1 + 2 / k) - 2 * lgamma(1 + 1 / k)) - 1) == pytest.approx(cv, rel=1e-6)


def test_steps_bring_as_many_as_they_say():
    rate = Steps(points=((Seconds(0), 1.0), (Seconds(100), 0.0), (Seconds(200), 10.0)))
    times = first(Constant(rate=rate), 1_100)
    assert sum(at <= 100.0001 for at in times) == 100
    assert not any(100.0001 < at <= 200 for at in times)
    assert times[-1] == pytest.approx(300)


def test_a_ramp_grows_as_a_line():
    rate = Ramp(points=((Seconds(0), 0.0), (Seconds(100), 10.0)))
    times = first(Constant(rate=rate), 700)
    assert sum(at <= 50.0001 for at in times) == 125
    assert sum(at <= 100.0001 for at in times) == 500
    assert times[-1] == pytest.approx(120)


def test_what_repeats_repeats():
    rate = Steps(points=((Seconds(10), 2.0), (Seconds(20), 0.0)), period=Seconds(50))
    times = first(Constant(rate=rate), 60)
    assert [at % 50 for at in times[:20]] == pytest.approx([at % 50 for at in times[20:40]])
    assert all(10 < at % 50 <= 20.001 for at in times)


def test_a_day_has_its_height_where_it_was_said_and_its_mean():
    day = 86_400.0
    times = first(Constant(rate=Diurnal(mean=1.0, swing=0.8, peak_at=Seconds(14 * 3_600))), 2 * int(day))
    hours = [sum(at // 3_600 % 24 == h for at in times) for h in range(24)]
    assert hours.index(max(hours)) in (13, 14) and hours.index(min(hours)) in (1, 2)
    assert times[-1] == pytest.approx(2 * day, rel=1e-3)
    assert max(hours) / min(hours) == pytest.approx(1.8 / 0.2, rel=0.1)


RATES = st.one_of(st.just(0.0), st.floats(1e-9, 20))
POINTS = st.lists(st.tuples(st.floats(0.01, 50), RATES), min_size=1, max_size=6).filter(
    lambda points: any(rate > 0.01 for _, rate in points)
)


@given(POINTS, st.booleans(), st.booleans())
def test_the_nth_even_arrival_is_where_the_integral_of_the_rate_is_n(points, ramp, repeated):
    at, rising = 0.0, []
    for step, rate in points:
        rising.append((Seconds(at), rate))
        at += step
    kind = Ramp if ramp else Steps
    curve = kind(points=tuple(rising), period=Seconds(at + 1) if repeated else None)
    times = list(islice(along((s, lambda: 1.0) for s in islice(segments(curve), 100)), 50))
    assert times == sorted(times)
    for n, when in enumerate(times, 1):
        area = 0.0
        for start, end, low, high in islice(segments(curve), 100):
            if start >= when:
                break
            until = min(end, when)
            slope = (high - low) / (end - start) if end != float("inf") else 0.0
            area += (until - start) * (low + slope * (until - start) / 2)
        assert area == pytest.approx(n, rel=1e-6)
