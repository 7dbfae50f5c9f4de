"""Which limits apply, what they cost, and what callers are told about them."""

from datetime import UTC, datetime
from math import inf
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.limits.book import Book
from penstock.limits.charges import MICRO, MOST, Granted, Kind, Refused
from penstock.limits.headers import duration, rate_headers
from penstock.limits.limit import Account, Amounts, Limit, Meter
from penstock.limits.periods import Period, span
from penstock.limits.refusal import refusal
from penstock.limits.rules import Rules

WALL = datetime(2026, 11, 12, 9, 30, tzinfo=UTC).timestamp()
ME = Account(org="acme", team="ml", key="web", user="u1", model="chat")
REQUESTS = Limit("web requests", Meter.REQUESTS, 60, 60)
OUTPUT = Limit("web output", Meter.OUTPUT_TOKENS, 40_000, 60)
SLOTS = Limit("web slots", Meter.CONCURRENT_REQUESTS, 4)
MONTHLY = Limit("acme money", Meter.MONEY, 50 * 10**9, period=Period.MONTH, per=("org",))
SOME = Amounts(input_tokens=100, output_tokens=500, nanos=7_000)


def test_each_limit_charges_its_own_meter():
    limits = [
        REQUESTS,
        OUTPUT,
        Limit("in", Meter.INPUT_TOKENS, 9, 60),
        Limit("all", Meter.TOKENS, 9, 60),
        SLOTS,
        MONTHLY,
    ]
    applied = Rules(limits).apply(ME, SOME, WALL)
    assert [charge.cost for charge in applied.charges] == [1, 500, 100, 600, 1, 7_000]
    assert [charge.kind for charge in applied.charges] == [Kind.RATE] * 4 + [Kind.GAUGE, Kind.BUDGET]
    assert applied.costs(Amounts(90, 20, 300)) == [1, 20, 90, 110, 1, 300]


def test_a_limit_applies_where_it_matches_and_only_to_those_who_have_what_it_counts_by():
    limit = Limit("free users", Meter.REQUESTS, 10, 60, per=("org", "user"), where=(("model", "chat"),))
    rules = Rules([limit])
    assert len(rules.apply(ME, SOME, WALL).charges) == 1
    assert rules.apply(Account(org="acme", user="u1", model="other"), SOME, WALL).charges == ()
    assert rules.apply(Account(org="acme", model="chat"), SOME, WALL).charges == ()


names = st.text(st.sampled_from("a|%7C"), min_size=1, max_size=4)


@given(st.tuples(names, names), st.tuples(names, names))
def test_no_two_callers_ever_share_a_counter(one, other):
    assume(one != other)
    rules = Rules([Limit("n", Meter.REQUESTS, 1, 1, per=("org", "user"))])
    counters = {rules.apply(Account(org=org, user=user), SOME, WALL).charges[0].counter for org, user in (one, other)}
    assert len(counters) == 2


def test_users_of_keys_without_an_organisation_are_counted_together_and_teams_are_not():
    rules = Rules([Limit(who, Meter.REQUESTS, 1, 1, per=("org", who)) for who in ("user", "team")])
    charges = rules.apply(Account(key="web", user="u1", team="ml"), SOME, WALL).charges
    assert [charge.counter for charge in charges] == ["user||u1|1s"]


whos = st.sampled_from(["org", "team", "key", "user", "model"])
accounts = st.builds(Account, *[st.sampled_from(["", "a", "b"])] * 5)
limits = st.builds(
    lambda per, where: (tuple(sorted(per)), tuple(sorted(where.items()))),
    st.sets(whos),
    st.dictionaries(whos, st.sampled_from("ab")),
)


@given(st.lists(limits, max_size=12), st.lists(accounts, min_size=1, max_size=8))
def test_looking_limits_up_finds_those_that_asking_each_would_find(scopes, callers):
    all_limits = [Limit(f"{i}", Meter.REQUESTS, 1, 1, per=per, where=where) for i, (per, where) in enumerate(scopes)]
    rules = Rules(all_limits)
    for caller in callers * 2:  # what is remembered of one is not another's
        found = rules.apply(caller, SOME, WALL).limits
        assert {limit.name for limit in found} == {
            limit.name
            for limit in all_limits
            if all(getattr(caller, who) == value for who, value in limit.where)
            and all(getattr(caller, who) or (who == "org" and "user" in limit.per) for who in limit.per)
        }


def test_thousands_of_limits_of_others_cost_a_caller_nothing():
    """By what is looked at, not by the clock."""
    keys = [Limit(f"key k{n}: requests", Meter.REQUESTS, 1, 1, where=(("key", f"k{n}"),)) for n in range(5_000)]
    rules = Rules([*keys, REQUESTS])
    looked_at = list(rules._of(Account(key="k4999")))
    assert [limit.name for limit in looked_at] == ["web requests", "key k4999: requests"]
    assert len(rules._shapes) == 2


def test_users_are_not_told_apart_where_no_limit_asks_who_they_are():
    rules = Rules([REQUESTS, MONTHLY])
    for n in range(50):
        rules.apply(Account(org="acme", key="web", user=f"u{n}", model=f"m{n}"), SOME, WALL)
    assert len(rules._kept) == 1


def test_memory_of_accounts_is_bounded(monkeypatch):
    monkeypatch.setattr("penstock.limits.rules.KEPT", 10)
    rules = Rules([REQUESTS])
    for n in range(25):
        rules.apply(Account(key=f"k{n}"), SOME, WALL)
    assert len(rules._kept) == 10


def test_a_key_brings_its_own_limits_until_they_are_forgotten():
    own = {"web": [Limit("key web: requests", Meter.REQUESTS, 5, 60, where=(("key", "web"),))]}
    rules = Rules([], own=lambda key: own.get(key, ()))
    assert rules.apply(ME, SOME, WALL).limits == tuple(own["web"])
    assert rules.apply(Account(key="other"), SOME, WALL).limits == ()
    del own["web"]
    assert len(rules.apply(ME, SOME, WALL).limits) == 1  # nobody has said so yet
    rules.forget()
    assert rules.apply(ME, SOME, WALL).limits == ()


@given(st.lists(limits, min_size=1, max_size=4), st.builds(Account, *[names] * 5))
def test_the_name_of_a_counter_says_what_it_counts_and_for_whom(scopes, caller):
    every = [
        limit
        for i, (per, where) in enumerate(scopes)
        for limit in (
            Limit(f"a{i}", Meter.REQUESTS, 1, 1, per=per, where=where),
            Limit(f"b|{i}%", Meter.CONCURRENT_REQUESTS, 1, per=per, where=where),
            Limit(f"c{i}", Meter.MONEY, 1, period=Period.WEEK, per=per, where=where),
        )
    ]
    rules = Rules(every)
    applied = rules.apply(caller, SOME, WALL)
    for limit, charge in zip(applied.limits, applied.charges, strict=True):
        counted = rules.counted(charge.counter)
        assert counted.limit is limit
        assert counted.window == ("2026-W46" if limit.meter is Meter.MONEY else "")
        for who in Account.__struct_fields__:
            told = who in limit.per or who in dict(limit.where)
            assert getattr(counted.account, who) == (getattr(caller, who) if told else "")


@pytest.mark.parametrize(
    "counter", ["", "nobody's|web|60s", "web requests", "web requests|web", "web requests|a|b|60s"]
)
def test_a_counter_of_no_limit_counts_nothing(counter):
    assert Rules([REQUESTS]).counted(counter) is None


def test_a_strict_limit_says_so_to_the_counters():
    (charge,) = Rules([Limit("n", Meter.REQUESTS, 1, 1, strict=True)]).apply(ME, SOME, WALL).charges
    assert charge.strict


def test_free_models_are_not_held_by_a_budget():
    assert Rules([MONTHLY]).apply(ME, Amounts(1, 1, nanos=None), WALL).charges == ()


def test_a_new_month_is_a_new_counter_and_the_window_says_how_long_it_lasts():
    rules = Rules([MONTHLY])
    (november,) = rules.apply(ME, SOME, WALL).charges
    assert november.counter == "acme money|acme|2026-11"
    end = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert november.window == end - WALL + 1
    assert rules.apply(ME, SOME, end - 0.001).charges[0].counter == november.counter
    assert rules.apply(ME, SOME, end).charges[0].counter == "acme money|acme|2026-12"


@given(st.sampled_from([Period.DAY, Period.WEEK, Period.MONTH]), st.integers(0, 4_000_000_000),
       st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]))  # fmt: skip
def test_a_calendar_window_has_one_label_until_it_ends_and_another_after(period, wall, zone):
    now = span(period, wall, ZoneInfo(zone))
    assert wall < now.ends_at <= wall + 32 * 86_400
    assert span(period, now.ends_at - 1, ZoneInfo(zone)) == now
    assert span(period, now.ends_at, ZoneInfo(zone)).label != now.label


def test_weeks_are_those_of_iso_8601():
    assert span(Period.WEEK, datetime(2027, 1, 3, 23, tzinfo=UTC).timestamp()).label == "2026-W53"
    assert span(Period.WEEK, datetime(2027, 1, 4, tzinfo=UTC).timestamp()).label == "2027-W01"


@pytest.mark.parametrize(
    "wrong",
    [
        {"meter": Meter.MONEY, "amount": 1},
        {"meter": Meter.REQUESTS, "amount": 1, "window": 60, "period": Period.DAY},
        {"meter": Meter.REQUESTS, "amount": 1},
        {"meter": Meter.CONCURRENT_REQUESTS, "amount": 1, "window": 60},
        {"meter": Meter.REQUESTS, "amount": MOST + 1, "window": 60},
        {"meter": Meter.REQUESTS, "amount": -1, "window": 60},
        {"meter": Meter.REQUESTS, "amount": 1, "window": 60, "soft": True},
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"^odd: "):
        Limit("odd", **wrong)


def asked(*limits, amounts=SOME, times=1, seeded=0):
    """The last answer of a fresh book to `times` equal requests."""
    book, applied = Book(), Rules(limits).apply(ME, amounts, WALL)
    for charge in applied.charges:
        if charge.kind is Kind.BUDGET:
            book.seed(charge.counter, seeded, charge.window, 0)
    for n in range(times):
        verdict = book.reserve(f"r{n}", applied.charges, 0, 60 * MICRO)
    return applied, verdict


def test_headers_tell_the_numbers_that_decided():
    applied, verdict = asked(REQUESTS, OUTPUT, SLOTS, MONTHLY, times=2)
    assert type(verdict) is Granted
    assert rate_headers(applied, verdict.used).decode() == (
        'ratelimit-policy: "web requests";q=60;w=60, "web output";q=40000;qu="tokens";w=60, '
        '"web slots";q=4;qu="concurrent-requests"\r\n'
        'ratelimit: "web requests";r=58;t=2, "web output";r=39000;t=2, "web slots";r=2\r\n'
        "x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 58\r\nx-ratelimit-reset-requests: 2s\r\n"
        "x-ratelimit-limit-tokens: 40000\r\nx-ratelimit-remaining-tokens: 39000\r\nx-ratelimit-reset-tokens: 2s\r\n"
    )


def test_the_scarcest_of_several_is_told_where_a_header_has_room_for_one():
    applied, verdict = asked(OUTPUT, Limit("hourly", Meter.OUTPUT_TOKENS, 1_000, 3600))
    assert b"x-ratelimit-remaining-tokens: 500\r\n" in rate_headers(applied, verdict.used)


def test_who_is_scarcest_may_change_from_one_request_to_the_next():
    hourly = Limit("100% hourly", Meter.OUTPUT_TOKENS, 1_000, 3600)
    applied = Rules([OUTPUT, hourly, SLOTS, MONTHLY]).apply(ME, SOME, WALL)
    first, second = rate_headers(applied, (39_999, 10, 1, 0)), rate_headers(applied, (40_001, 999, 1, 0))
    assert b"x-ratelimit-limit-tokens: 40000\r\nx-ratelimit-remaining-tokens: 1\r\n" in first
    assert b"x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 1m1s\r\n" in second
    assert b'"100% hourly";r=1;t=3597, "web slots";r=3\r\n' in second
    assert b"x-ratelimit-limit-tokens: 1000\r\n" in rate_headers(applied, (0, 10, 1, 0))


def test_a_hostile_name_cannot_leave_its_header():
    applied, verdict = asked(Limit('a"\\\r\nx: y é', Meter.REQUESTS, 2, 60))
    head = rate_headers(applied, verdict.used)
    assert b'"a\\"\\\\??x: y ?";r=1' in head
    assert head.count(b"\r\n") == 5


def test_without_limits_there_are_no_headers():
    assert rate_headers(*asked(MONTHLY)[:1], used=[5]) == b""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0121, "13ms"), (1, "1s"), (1.2, "2s"), (360, "6m0s"), (3603, "1h0m3s")],
)
def test_durations_are_written_as_openai_writes_them(seconds, text):
    assert duration(seconds) == text


def test_a_refusal_names_the_limit_its_use_and_when():
    applied, refused = asked(Limit("key web", Meter.TOKENS, 1_000, 60), times=2)
    assert type(refused) is Refused
    told = refusal(applied, refused)
    assert told.code == "token_rate_limit"
    assert told.message == (
        "key web: 600 of 1,000 tokens per minute are used or reserved, and this request may need 600. "
        "Retry after 12.0 s."
    )
    assert told.retry_after == 12.0


def test_a_refusal_for_money_speaks_of_money():
    applied, refused = asked(MONTHLY, seeded=50 * 10**9)
    told = refusal(applied, refused)
    assert told.code == "budget_exceeded"
    assert told.message.startswith("acme money: $50.00 of $50.00 spent this month are used or reserved")
    assert told.retry_after == applied.charges[0].window


def test_what_can_never_fit_is_not_told_to_wait():
    applied, refused = asked(Limit("small", Meter.OUTPUT_TOKENS, 100, 60))
    assert type(refused) is Refused and refused.wait == inf
    told = refusal(applied, refused)
    assert told.retry_after is None
    assert "may need 500, more than small ever allows: 100 output tokens per minute" in told.message
