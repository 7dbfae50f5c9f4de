"""Error budgets: how fast they burn, when somebody is told, and what a ring of minutes remembers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.quality.ring import Ring
from penstock.quality.sli import HISTOGRAMS, Indicator, bounds_of, sli_of
from penstock.quality.slo import DAY, HOUR, WINDOWS, Seen, Slo, budget_left, burn, rate

PROMISE = Slo("chat", 0.999)


def test_over_thirty_days_the_factors_are_those_of_the_workbook():
    assert [window.factor(30 * DAY) for window in WINDOWS] == [
        pytest.approx(14.4),
        pytest.approx(6),
        pytest.approx(3),
        pytest.approx(1),
    ]
    assert [(window.long, window.short) for window in WINDOWS][:2] == [(HOUR, 300.0), (6 * HOUR, 1800.0)]


def test_burning_at_the_factor_uses_up_the_share_of_the_budget_within_the_long_window():
    for window in WINDOWS:
        for period in (7 * DAY, 28 * DAY, 90 * DAY):
            assert window.factor(period) * window.long / period == pytest.approx(window.share)


def test_a_burn_that_is_over_already_tells_nobody():
    fast = Seen(20, 1_000)  # 2 %, of a budget of 0.1 %: 20 times
    over, stopped = burn(PROMISE, WINDOWS[0], fast, fast), burn(PROMISE, WINDOWS[0], fast, Seen(0, 100))
    assert over.long == pytest.approx(20)
    assert over.alerts
    assert not stopped.alerts


def test_a_short_burst_that_does_not_matter_tells_nobody():
    assert not burn(PROMISE, WINDOWS[0], Seen(10, 100_000), Seen(10, 100)).alerts


def test_few_events_say_nothing():
    assert not burn(PROMISE, WINDOWS[0], Seen(1, 49), Seen(1, 2)).alerts
    assert burn(PROMISE, WINDOWS[0], Seen(1, 50), Seen(1, 2)).alerts


def test_without_an_event_nobody_knows_the_rate():
    assert rate(Seen(0, 0), 0.001) is None
    assert budget_left(Seen(0, 0), 0.001) is None
    assert budget_left(Seen(1, 1_000), 0.001) == pytest.approx(0)
    assert budget_left(Seen(3, 1_000), 0.001) == pytest.approx(-2)


def test_every_indicator_has_bad_events_among_all_events():
    for indicator in Indicator:
        sli = sli_of(indicator, 2.0 if indicator in HISTOGRAMS else None, ("chat",))
        assert all(term.where[-1].label == "model" for term in (*sli.bad, *sli.events))
        assert not sli.bad[0].minus
    assert bounds_of(sli_of(Indicator.TTFT, 3.0).bad) == {"penstock_time_to_first_token_seconds": {3.0}}


def test_a_ring_forgets_what_is_older_than_the_span():
    ring = Ring(60.0, 10)
    ring.add(1, 10, 0.0)
    ring.add(2, 20, 120.0)
    assert ring.back(60.0, 120.0) == Seen(2, 20)
    assert ring.back(180.0, 120.0) == Seen(3, 30)
    assert ring.back(60.0, 300.0) == Seen(0, 0)
    assert ring.back(540.0, 100_000.0) == Seen(0, 0)


def test_a_clock_that_goes_back_counts_in_the_newest_minute():
    ring = Ring(60.0, 10)
    ring.add(0, 1, 600.0)
    ring.add(0, 1, 0.0)
    assert ring.back(60.0, 600.0) == Seen(0, 2)


def test_a_ring_goes_on_in_the_next_process_and_another_width_begins_anew():
    ring = Ring(60.0, 10)
    ring.add(1, 10, 0.0)
    kept = ring.keep()
    again = Ring(60.0, 10, kept)
    again.add(1, 10, 120.0)
    assert again.back(300.0, 120.0) == Seen(2, 20)
    assert Ring(30.0, 10, kept).back(300.0, 120.0) == Seen(0, 0)
    assert Ring(60.0, 11, kept).back(300.0, 120.0) == Seen(0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(0, 100)), max_size=60),
    st.integers(1, 30),
    st.integers(2, 32),
)
def test_a_ring_counts_what_a_list_of_all_events_counts(added, span, n):
    """Against the definition: everything of the last `span` slots, this one included, as far back as the ring goes."""
    ring, now = Ring(1.0, n), 0
    events: list[tuple[int, int, int]] = []
    for later, bad, more in added:
        now += later
        ring.add(bad, bad + more, float(now))
        events.append((now, bad, bad + more))
        back = min(span, n - 1)
        recent = [(b, e) for at, b, e in events if at > now - back]
        assert ring.back(float(span), float(now)) == Seen(sum(b for b, _ in recent), sum(e for _, e in recent))
