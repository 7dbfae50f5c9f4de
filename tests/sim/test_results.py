"""What is made of the log of a simulation."""

from __future__ import annotations

from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.fit import Decoded, Prefilled, fit
from penstock.sim.log import Log
from penstock.sim.pooled import PooledCache
from penstock.sim.results import Slo, jain, percentile, service_gap, spread, summarise


def logged(*rows):
    """Rows are (arrived, first, ended, prompt, output, tenant, failed)."""
    log = Log()
    for number, (arrived, first, ended, prompt, output, tenant, failed) in enumerate(rows):
        log.add(number, arrived, first, ended, prompt, output, 0, 1, 0, tenant, "m", "normal", "main", failed)
    return log


def test_good_is_what_answered_within_both_bounds():
    log = logged(
        (0.0, 1.0, 2.0, 10, 101, "a", ""),  # good
        (0.0, 2.5, 3.0, 10, 101, "a", ""),  # late
        (0.0, 1.0, 9.0, 10, 101, "a", ""),  # slow
        (0.0, 1.0, 1.5, 10, 0, "a", "network"),  # broken
        (0.0, nan, 4.0, 10, 0, "a", "overloaded"),  # never began
        (0.0, 0.5, 0.5, 10, 1, "a", ""),  # one token has no time between tokens
    )
    results = summarise(log, slo=Slo(2.0, 0.05), duration=10.0, prefix_bound=0.0)
    assert results.good == pytest.approx(2 / 6)
    assert results.goodput == pytest.approx(0.2)
    assert results.completed == 4
    assert results.failures == {"network": 1, "overloaded": 1}
    assert results.tpot.max == pytest.approx(0.08)
    assert sum(interval.requests for interval in results.intervals) == 6


def test_nothing_at_all_has_results_too():
    results = summarise(Log(), slo=Slo(), duration=0.0, prefix_bound=0.0)
    assert (results.requests, results.good, results.ttft.p99, results.intervals) == (0, 0.0, 0.0, [])


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_values_that_there_were_and_rise(values):
    found = spread(values)
    steps = [found.p50, found.p90, found.p95, found.p99, found.max]
    assert steps == sorted(steps)
    assert set(steps) <= set(values)
    assert percentile(sorted(values), 1.0) == max(values)


def test_jain_is_one_for_equals_and_one_in_n_for_one_who_has_all():
    assert jain([5.0, 5.0, 5.0]) == pytest.approx(1.0)
    assert jain([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)


def test_a_service_gap_opens_only_while_both_wait():
    both = logged(*((0.0, float(n), float(n), 100, 0, "a", "") for n in range(1, 10)), (0.0, 9.5, 9.5, 100, 0, "b", ""))
    assert service_gap(both, 10.0) == pytest.approx(800)  # at 9 s the last of them is served, and only b waits
    apart = logged(
        *((0.0, float(n), float(n), 100, 0, "a", "") for n in range(1, 10)), (9.2, 9.5, 9.5, 100, 0, "b", "")
    )
    assert service_gap(apart, 10.0) == 0.0


def test_one_cache_for_all_finds_prefixes_until_it_is_full():
    cache = PooledCache(1_024, 512)
    cache.see((1, 2), (512, 1_024), 1_025)
    assert cache.reuse == 0.0
    cache.see((1, 2), (512, 1_024), 1_025)
    assert cache.reuse == pytest.approx(1_024 / 2_050)
    cache.see((8, 9), (512, 1_024), 1_025)  # pushes both out
    cache.see((1,), (512,), 513)
    assert cache.reuse == pytest.approx(1_024 / (3 * 1_025 + 513))


def test_the_last_token_of_a_prompt_is_never_found():
    cache = PooledCache(10_000, 512)
    for _ in range(2):
        cache.see((1, 2), (512, 1_024), 1_024)
    assert cache.reuse == pytest.approx(512 / 2_048)


@given(st.floats(1e-3, 5e-2), st.floats(1e-5, 1e-3), st.floats(1e-6, 1e-3), st.floats(1e-9, 1e-6), st.floats(0, 0.05))
def test_a_fit_finds_the_model_that_the_points_were_made_of(step, per_sequence, per_prefill, per_context, overhead):
    decoded = [
        Decoded(n, n * context, step + per_sequence * n + per_context * n * context)
        for n in (1, 2, 4, 8, 16, 32)
        for context in (30, 600)
    ]
    prefilled = [
        Prefilled(n, overhead + step * -(-n // 512) + per_prefill * n) for n in (64, 128, 256, 512, 1_024, 2_048)
    ]
    found = fit(decoded, prefilled, 512)
    assert found.step == pytest.approx(step, rel=1e-3)
    assert found.per_sequence == pytest.approx(per_sequence, rel=1e-2)
    assert found.per_context_token == pytest.approx(per_context, rel=1e-2)
    assert found.per_prefill_token == pytest.approx(per_prefill, rel=1e-2)
    assert found.decode_error < 1e-6
    assert found.prefill_error < 1e-3
    assert "per_sequence: " in found.yaml


def test_a_fit_of_one_batch_size_is_refused():
    with pytest.raises(ValueError, match="two batch sizes"):
        fit([Decoded(1, 10, 0.01)], [Prefilled(64, 0.1), Prefilled(128, 0.2)], 512)


def test_no_term_of_a_fit_is_negative():
    decoded = [Decoded(n, n * 100, 0.01 + 0.001 * n - 1e-6 * n * 100) for n in (1, 2, 4, 8)]
    decoded += [Decoded(n, n * 900, 0.01 + 0.001 * n - 1e-6 * n * 900) for n in (1, 2, 4, 8)]
    found = fit(decoded, [Prefilled(64, 0.05), Prefilled(128, 0.06)], 512)
    assert found.per_context_token == 0.0
