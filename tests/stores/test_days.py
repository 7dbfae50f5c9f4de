"""Days are sums of hours, whatever has happened to the hours; and what is asked of them is what the rows say."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.stores.costs import DAY_MICROS, Costs, Question
from penstock.stores.entry import Entry
from penstock.stores.ledger import HOUR_MICROS, Attribute, SqlLedger
from penstock.stores.sql import Statement

DAYS = 4
SUMS = ["requests", "errors", "unpriced", "input_tokens", "output_tokens", "cost_nanos", "duration_micros", "estimated"]
_numbers = iter(range(10**9))

rows = st.lists(
    st.builds(
        lambda at, org, model, cost, error: Entry(
            f"r{next(_numbers)}", at, org=org, model=model, cost_nanos=cost, error=error, output_tokens=3
        ),
        st.integers(0, DAYS * DAY_MICROS - 1),
        st.sampled_from("ab"),
        st.sampled_from("xy"),
        st.none() | st.integers(0, 9),
        st.none() | st.just("upstream_error"),
    ),
    max_size=30,
)


async def agree(database):
    """Every day is the sum of its hours, and there is none without."""
    sums = ", ".join(f"cast(sum({name}) as bigint)" for name in SUMS)
    by_hours = await database.read(
        f"select hour / 24, org, model, count(*), {sums} from ledger_hours"
        " group by hour / 24, org, model order by 1, 2, 3"
    )
    by_days = await database.read(
        "select day, org, model, cast(sum(hours) as bigint), "
        f"{sums} from ledger_days group by day, org, model order by 1, 2, 3"
    )
    assert by_days == by_hours
    return by_days


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows, st.integers(0, DAYS * 24), st.integers(0, DAYS * 24))
def test_days_are_the_sums_of_their_hours_whatever_is_done(loop, database, entries, one, other):
    async def story():
        for table in ("ledger", "ledger_hours"):
            await database.write([Statement(f"delete from {table}")])
        await database.write([Statement("update ledger_kept set since_micros = 0")])
        assert await agree(database) == []
        ledger, costs = SqlLedger(database), Costs(database)
        await ledger.append(entries)
        await agree(database)
        since, until = sorted((one * HOUR_MICROS, other * HOUR_MICROS + 7))
        for by in ((), (Attribute.ORG,), (Attribute.DAY, Attribute.MODEL)):
            asked = Question(by, since, until)
            rolled = await costs.sums(asked)
            # a range that no rollup has is read from the rows
            exact = await costs.sums(Question((*by, Attribute.SESSION), since, until))
            assert rolled.total == exact.total
            assert sum(group.cost_nanos for group in rolled.groups) == (rolled.total.cost_nanos if by else 0)
        await ledger.derive_hours(since, until)
        await agree(database)
        await ledger.let_go(since)
        await ledger.let_go_hours(since)
        await agree(database)

    loop.run(story())


def test_an_hour_that_is_changed_or_moved_changes_its_day(loop, database):
    async def story():
        await SqlLedger(database).append([Entry("a", 5 * HOUR_MICROS, org="a", cost_nanos=4)])
        await database.write([Statement("update ledger_hours set cost_nanos = 9")])
        assert (await agree(database))[0][9] == 9
        await database.write([Statement("update ledger_hours set hour = 30")])
        assert [row[0] for row in await agree(database)] == [1]

    loop.run(story())


@pytest.mark.parametrize(("since", "until", "table"), [(0, 24, "days"), (0, 23, "hours"), (1, 49, "both")])
def test_whole_days_are_read_by_the_day(loop, database, since, until, table):
    """Told apart by changing what is read: nothing else keeps a day from its hours."""

    async def story():
        await SqlLedger(database).append(
            [Entry(f"r{n}", n * HOUR_MICROS, org="a", cost_nanos=1) for n in range(3 * 24)]
        )
        await database.write([Statement("update ledger_days set cost_nanos = cost_nanos + 1000")])
        return (await Costs(database).sums(Question((), since * HOUR_MICROS, until * HOUR_MICROS))).total.cost_nanos

    assert loop.run(story()) == {"days": 1_024, "hours": 23, "both": 1_048}[table]
