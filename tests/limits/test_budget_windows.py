"""A budget's counter says in its name whose money it counts and in which calendar window: both can be read back."""

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.limits.limit import Account, Amounts, Limit, Meter
from penstock.limits.periods import Period, span, window
from penstock.limits.rules import Rules

ZONES = (UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/Sao_Paulo"))


@given(
    period=st.sampled_from(Period),
    wall=st.floats(1e9, 2e9),
    zone=st.sampled_from(ZONES),
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
    | st.sampled_from(["|", "%7C", "%25"]),
)
def test_the_window_of_a_charge_is_around_the_request(period, wall, zone, key):
    rules = Rules([Limit("a|b", Meter.MONEY, 10**9, period=period, per=("key",), where=(("model", "m"),))], zone)
    (charge,) = rules.apply(Account(key=key, model="m"), Amounts(1, 1, 5), wall).charges
    counted = rules.counted(charge.counter)
    assert (counted.account.key, counted.account.model) == (key, "m")
    since, until = window(period, counted.window, zone)
    assert since <= wall < until


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("period", [Period.DAY, Period.WEEK, Period.MONTH])
def test_windows_follow_one_another_without_a_gap(period, zone):
    at = 1_000_000_000.0
    for _ in range(400):
        here = span(period, at, zone)
        since, until = window(period, here.label, zone)
        assert since <= at < until == here.ends_at
        assert window(period, span(period, until, zone).label, zone)[0] == until
        at = until


@pytest.mark.parametrize(
    ("period", "label"), [(Period.MONTH, "2026-13"), (Period.DAY, "2026-11"), (Period.WEEK, "2026-11-02")]
)
def test_what_is_no_label_is_no_window(period, label):
    with pytest.raises(ValueError, match=r".+"):
        window(period, label)
