"""After a report the ledger's total is the provider's, whatever it was before; and once, however often it is told."""

import asyncio
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from penstock.core.request import Usage
from penstock.pricing.cost import cost_of
from penstock.pricing.prices import Price, Row, schedules
from penstock.pricing.rates import Rates
from penstock.pricing.usage_report import TOKENS, Reported
from penstock.stores.begun import GATEWAY_CRASHED
from penstock.stores.corrections import AT_ONCE, Corrections
from penstock.stores.databases import open_database
from penstock.stores.entry import CORRECTION, Entry
from penstock.stores.ledger import HOUR_MICROS, Attribute, Span, SqlLedger
from penstock.stores.migrate import migrate
from tests.stores.sums import sums

EVERYTHING = Span((), 0, HOUR_MICROS)


def crashed(id, nanos=5_000, **more):
    fields = {"input_tokens": 10, "output_tokens": 100} | more
    return Entry(
        id, 60_000_000, org="acme", user_hash="u", status=500, error=GATEWAY_CRASHED, usage_source="estimate",
        cost_nanos=nanos, duration_micros=0, **fields,
    )  # fmt: skip


@pytest.fixture
def ledger(database):
    return SqlLedger(database)


@pytest.fixture
def corrections(database):
    return Corrections(database)


def rows(loop, ledger):
    return {row.request_id: row for row in loop.run(ledger.entries(0, HOUR_MICROS))}


def test_the_estimate_of_a_crash_becomes_what_the_provider_asks_for(loop, ledger, corrections):
    loop.run(ledger.append([crashed("r1"), Entry("r2", 60_000_000, org="acme", cost_nanos=7)]))
    report = [Reported("r1", (9, 1, 0, 0, 40, 5), 1_234), Reported("r2", None, 7)]
    done = loop.run(corrections.apply(report))
    assert (done.corrected, done.agreed, done.nanos) == (1, 1, 1_234 - 5_000)
    assert rows(loop, ledger)["r1+correction"] == structs.replace(
        crashed("r1"), request_id="r1+correction", usage_source=CORRECTION, cost_nanos=1_234 - 5_000, input_tokens=-1,
        cached_tokens=1, output_tokens=-60, reasoning_tokens=5,
    )  # fmt: skip
    assert loop.run(ledger.spent([EVERYTHING])) == [1_241]
    again = loop.run(corrections.apply(report))
    assert (again.corrected, again.agreed, again.nanos) == (0, 2, 0)


def test_a_correction_is_no_request_and_no_error_in_any_sum(loop, database, ledger, corrections):
    loop.run(ledger.append([crashed("r1")]))
    loop.run(corrections.apply([Reported("r1", None, 1)]))
    for since in (0, 1):  # from the rollups, and from the rows
        (total,) = loop.run(sums(database, [], since, HOUR_MICROS))
        assert (total.requests, total.errors, total.estimated, total.cost_nanos) == (1, 1, 1, 1)
    by_error = loop.run(sums(database, [Attribute.ERROR], 0, HOUR_MICROS))
    assert [(one.group, one.requests, one.cost_nanos) for one in by_error] == [((GATEWAY_CRASHED,), 1, 1)]
    assert loop.run(ledger.disagreeing_hours(0, HOUR_MICROS)) == []


def test_what_the_provider_never_got_costs_nothing_when_its_report_is_complete(loop, ledger, corrections):
    loop.run(ledger.append([crashed("r1"), crashed("r2", model="other"), Entry("r3", 60_000_000, cost_nanos=7)]))
    assert loop.run(corrections.apply([])).corrected == 0
    only = Span(((Attribute.MODEL, "other"),), 0, HOUR_MICROS)
    done = loop.run(corrections.apply([], complete=only))
    assert (done.corrected, done.never_got, done.nanos) == (1, 1, -5_000)
    assert rows(loop, ledger)["r2+correction"].output_tokens == -100
    done = loop.run(corrections.apply([Reported("r1", None, 5_000)], complete=EVERYTHING))
    assert (done.corrected, done.never_got, done.agreed) == (0, 0, 1)
    assert loop.run(ledger.spent([EVERYTHING])) == [5_007]  # that of `r3` is for the provider to explain


def test_a_later_report_corrects_an_earlier_one(loop, ledger, corrections):
    loop.run(ledger.append([crashed("r1")]))
    for nanos in (10, 30, 20, 20, 0):
        loop.run(corrections.apply([Reported("r1", None, nanos)]))
        assert loop.run(ledger.spent([EVERYTHING])) == [nanos]
    assert set(rows(loop, ledger)) == {"r1", "r1+correction", *(f"r1+correction-{n}" for n in (2, 3, 4))}
    loop.run(corrections.apply([Reported("r1", None, 15)], complete=EVERYTHING))
    loop.run(corrections.apply([], complete=EVERYTHING))  # the provider has said that it got this one
    assert loop.run(ledger.spent([EVERYTHING])) == [15]


def test_a_price_that_nobody_knew_is_known_afterwards(loop, database, ledger, corrections):
    loop.run(ledger.append([crashed("r1", nanos=None)]))
    assert loop.run(corrections.apply([Reported("r1", None, 12)])).nanos == 12
    assert loop.run(ledger.spent([EVERYTHING])) == [12]
    (total,) = loop.run(sums(database, [], 0, HOUR_MICROS))
    assert total.priced and not structs.replace(total, cost_nanos=0).priced


def test_what_was_used_is_paid_for_by_our_prices_and_left_alone_without_one(loop, ledger, corrections):
    loop.run(ledger.append([crashed("r1", model="known"), crashed("r2", model="unknown")]))
    price = Price("p", "known", (Row(schedules=schedules(Rates(input=2_000_000, output=8_000_000))),))
    report = [Reported(id, (1_000, 0, 0, 0, 50, 0), None) for id in ("r1", "r2")]
    done = loop.run(corrections.apply(report, price_of=lambda row: price if row.model == "known" else None))
    assert (done.corrected, done.unpriced) == (1, 1)
    asked = cost_of(Usage(1_000, 50), price, 60.0).nanos
    assert asked and loop.run(ledger.spent([EVERYTHING])) == [asked + 5_000]


def test_requests_that_the_ledger_does_not_have_are_named_and_nothing_is_made_up(loop, ledger, corrections):
    report = [Reported(f"r{n}", None, 5) for n in range(AT_ONCE * 2 + 1)]
    done = loop.run(corrections.apply(report))
    assert (done.unknown, done.corrected) == (len(report), 0)
    assert done.some_unknown[:2] == ("r0", "r1") and len(done.some_unknown) == 100
    assert rows(loop, ledger) == {}


def test_it_can_be_looked_at_before_anything_is_written(loop, ledger, corrections):
    loop.run(ledger.append([crashed("r1"), crashed("r2")]))
    told = loop.run(corrections.apply([Reported("r1", None, 1)], complete=EVERYTHING, write=False))
    assert (told.corrected, told.never_got, told.nanos) == (2, 1, -9_999)
    assert set(rows(loop, ledger)) == {"r1", "r2"}
    assert loop.run(corrections.apply([Reported("r1", None, 1)], complete=EVERYTHING)) == told


def test_many_crashed_requests_are_gone_through_in_pages(loop, ledger, corrections):
    loop.run(ledger.append([crashed(f"r{n:04}") for n in range(AT_ONCE + 7)]))
    assert loop.run(corrections.apply([], complete=EVERYTHING)).never_got == AT_ONCE + 7
    assert loop.run(corrections.apply([], complete=EVERYTHING)).never_got == 0
    assert loop.run(ledger.spent([EVERYTHING])) == [0]


def test_two_who_correct_the_same_at_once_correct_it_once(url):
    async def main():
        databases = [await open_database(url) for _ in range(3)]
        await migrate(databases[0], now=0.0)
        ledger = SqlLedger(databases[0])
        await ledger.append([crashed(f"r{n}") for n in range(50)])
        report = [Reported(f"r{n}", (1, 0, 0, 0, n, 0), n) for n in range(50)]
        await asyncio.gather(*(Corrections(database).apply(report) for database in databases))
        (total,) = await sums(databases[0], [], 0, HOUR_MICROS)
        assert (total.cost_nanos, total.output_tokens) == (sum(range(50)), sum(range(50)))
        for database in databases:
            await database.close()

    asyncio.run(main())


_hours = count(1)
COUNTS = st.lists(st.integers(0, 1_000), min_size=6, max_size=6).map(tuple)
ENTRIES = st.dictionaries(
    st.sampled_from([f"r{n}" for n in range(6)]), st.tuples(COUNTS, st.none() | st.integers(0, 9_999), st.booleans())
)
REPORTS = st.lists(
    st.dictionaries(
        st.sampled_from([f"r{n}" for n in range(6)]), st.tuples(st.none() | COUNTS, st.integers(0, 9_999)), max_size=6
    ),
    max_size=3,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(booked=ENTRIES, reports=REPORTS)
def test_after_any_reports_each_request_costs_what_was_said_last(loop, database, ledger, corrections, booked, reports):
    """Each example has an hour of its own."""
    hour = next(_hours)
    begin, end = hour * HOUR_MICROS, (hour + 1) * HOUR_MICROS

    async def story():
        expected, entries = {}, []
        for id, (tokens, nanos, is_crash) in booked.items():
            row = crashed(id, nanos) if is_crash else Entry(id, 0, cost_nanos=nanos)
            fields = dict(zip(TOKENS, tokens, strict=True))
            entries.append(structs.replace(row, request_id=f"{hour}-{id}", at_micros=begin, **fields))
            expected[id] = (tokens, nanos or 0)
        await ledger.append(entries)
        for report in reports:
            told = [Reported(f"{hour}-{id}", tokens, nanos) for id, (tokens, nanos) in report.items()]
            done = await corrections.apply(told)
            assert done.agreed + done.corrected + done.unknown == len(report)
            for id, (tokens, nanos) in report.items():
                if id in expected:
                    expected[id] = (expected[id][0] if tokens is None else tokens, nanos)
            assert (await corrections.apply(told)).corrected == 0
        (total,) = await sums(database, [], begin, end)
        assert total.cost_nanos == sum(nanos for _, nanos in expected.values())
        assert total.requests == len(expected)
        for number, name in enumerate(TOKENS):
            assert getattr(total, name) == sum(tokens[number] for tokens, _ in expected.values())
        assert await ledger.disagreeing_hours(begin, end) == []

    loop.run(story())
