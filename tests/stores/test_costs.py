"""Sums of the ledger: however they are asked for, they are the plain sums of the rows, and nothing is left out."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.stores.costs import ALWAYS, DAY_MICROS, Costs, Question
from penstock.stores.entry import Entry
from penstock.stores.ledger import HOUR_MICROS, IN_ROLLUPS, Attribute, SqlLedger, Tag, Total
from penstock.stores.sql import Statement

ESTIMATED = ("provider_partial", "tokenizer", "estimate")
COUNTS = Total.__struct_fields__[1:]
HOSTILE = (
    "'); drop table ledger; --",
    "$1",
    "?1",
    "%s{0}",
    '"',
    "\\",
    "a\r\nb\x1b[2J",
    "=1+1",
    "\u202e\U0001f4a3",
    " ",
)
ZONES = (
    UTC,
    ZoneInfo("America/New_York"),
    ZoneInfo("Asia/Kolkata"),
    ZoneInfo("Pacific/Auckland"),
    ZoneInfo("Australia/Lord_Howe"),  # half an hour of summer
    timezone(timedelta(hours=-12)),
)
SPRING = int(datetime(2027, 3, 14, tzinfo=UTC).timestamp()) * 1_000_000  # New York's clocks change at 07:00


@pytest.fixture
def ledger(database):
    return SqlLedger(database)


@pytest.fixture
def costs(database):
    return Costs(database)


def value(one, by, zone):
    if by is Attribute.HOUR:
        return one.at_micros // HOUR_MICROS * 3600
    if by is Attribute.DAY:
        return datetime.fromtimestamp(one.at_micros // 1_000_000, zone).date().isoformat()
    if isinstance(by, Tag):
        return {"{}": None, '{"t":"x"}': "x", '{"t":""}': ""}[one.tags]
    return getattr(one, by)


def summed(group, rows):
    return Total(
        group,
        len(rows),
        sum(one.error is not None for one in rows),
        sum(one.cost_nanos is None for one in rows),
        sum(one.usage_source in ESTIMATED for one in rows),
        *(sum(getattr(one, name) or 0 for one in rows) for name in Total.__struct_fields__[5:]),
    )


def added(totals):
    return Total((), *(sum(getattr(one, name) for one in totals) for name in COUNTS))


words = st.sampled_from(["", "a", "b"])
moments = st.builds(
    lambda base, hours, more: base + hours * HOUR_MICROS + more,
    st.sampled_from([0, SPRING]),
    st.integers(0, 30),
    st.sampled_from([0, 0, 1, 29 * 60_000_000, HOUR_MICROS - 1]),
)
entries = st.builds(
    Entry,
    request_id=st.integers(0, 60).map("r{}".format),
    at_micros=moments,
    org=words,
    team=words,
    user_hash=words,
    model=words,
    replica=words,
    error=st.none() | words,
    tags=st.sampled_from(["{}", '{"t":"x"}', '{"t":""}']),
    status=st.sampled_from([200, 500]),
    usage_source=st.sampled_from(["", "provider", *ESTIMATED, "none"]),
    cost_nanos=st.none() | st.integers(-5, 10**12),
    input_tokens=st.integers(0, 10**12),
    output_tokens=st.integers(0, 5),
    duration_micros=st.integers(0, 10),
)
in_rollups = [Attribute.HOUR, Attribute.DAY, Attribute.ORG, Attribute.TEAM, Attribute.MODEL]
only_in_rows = [Attribute.USER, Attribute.REPLICA, Attribute.ERROR, Attribute.STATUS, Tag("t")]
groupings = st.lists(st.sampled_from(in_rollups), max_size=3, unique=True) | st.lists(
    st.sampled_from([*in_rollups, *only_in_rows]), max_size=3, unique=True
)


@st.composite
def questions(draw, rows):
    since, until = sorted((draw(moments | st.just(0)), draw(moments | st.just(ALWAYS))))
    zone = draw(st.sampled_from(ZONES))
    only = []
    for by in draw(groupings):
        known = sorted({value(one, by, zone) for one in rows} | {value(Entry("r", 0), by, zone)}, key=repr)
        only.append((by, tuple(draw(st.lists(st.sampled_from(known), max_size=2)))))
    return Question(tuple(draw(groupings)), since, until, tuple(only), zone, draw(st.sampled_from([1, 2, 10_000])))


@pytest.mark.timeout(120)
def test_every_question_is_answered_with_the_plain_sums_of_the_rows(costs, ledger, database, loop):
    @settings(
        max_examples=120,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(st.data(), st.lists(entries, max_size=12, unique_by=lambda one: one.request_id))
    def check(data, rows):
        loop.run(database.write([Statement("delete from ledger"), Statement("delete from ledger_hours")]))
        loop.run(ledger.append(rows))
        asked = data.draw(questions(rows))
        chosen = [
            one
            for one in rows
            if asked.since_micros <= one.at_micros < asked.until_micros
            and all(value(one, by, asked.zone) in wanted for by, wanted in asked.only)
        ]
        groups = defaultdict(list)
        for one in chosen:
            groups[tuple(value(one, by, asked.zone) for by in asked.by)].append(one)
        answer = loop.run(costs.sums(asked))
        assert answer.total == summed((), chosen)
        assert added([*answer.groups, answer.others]) == answer.total
        assert answer.missing == ()
        if asked.by:
            dearest = sorted((summed(group, some) for group, some in groups.items()), key=lambda one: -one.cost_nanos)
            assert len(answer.groups) == min(asked.most, len(groups))
            assert answer.n_others == len(groups) - len(answer.groups)
            assert [one.cost_nanos for one in answer.groups] == [one.cost_nanos for one in dearest[: asked.most]]
            assert {one.group: one for one in answer.groups}.items() <= {one.group: one for one in dearest}.items()

    check()


def test_whole_hours_come_from_the_rollups_and_the_rest_from_the_rows(costs, ledger, database, loop):
    async def main():
        await ledger.append([Entry(f"r{n}", n * HOUR_MICROS // 2, org="a", cost_nanos=1) for n in range(10)])
        # A rollup that is wrong shows who was asked.
        await database.write([Statement("update ledger_hours set cost_nanos = 1000 where hour = 2")])
        half = HOUR_MICROS // 2
        for since, until, expected in [
            (0, 5 * HOUR_MICROS, 1008),
            (half, 4 * HOUR_MICROS + half, 1006),
            (2 * HOUR_MICROS, 3 * HOUR_MICROS, 1000),
            (2 * HOUR_MICROS + 1, 3 * HOUR_MICROS, 1),  # only a part of the hour: the row
        ]:
            assert (await costs.sums(Question((), since, until))).total.cost_nanos == expected
        assert (await costs.sums(Question((Attribute.REPLICA,), 0, ALWAYS))).total.cost_nanos == 10

    loop.run(main())


def test_a_day_begins_at_midnight_of_its_zone_and_may_have_23_hours(costs, ledger, loop):
    new_york = ZoneInfo("America/New_York")

    async def main():
        await ledger.append([Entry(f"r{n}", SPRING + n * HOUR_MICROS, cost_nanos=1) for n in range(48)])
        answer = await costs.sums(Question((Attribute.DAY,), 0, ALWAYS, zone=new_york))
        assert {one.group[0]: one.requests for one in answer.groups} == {
            "2027-03-13": 5,
            "2027-03-14": 23,
            "2027-03-15": 20,
        }
        (one,) = ((await costs.sums(Question((), 0, ALWAYS, ((Attribute.DAY, ("2027-03-14",)),), new_york))).total,)
        assert one.requests == 23

    loop.run(main())


def test_a_day_whose_hours_are_all_of_another_day_elsewhere_is_none_there(costs, ledger, loop):
    async def main():
        await ledger.append([Entry("r1", 24 * HOUR_MICROS - 1, org="a", cost_nanos=1)])
        answer = await costs.sums(Question((Attribute.DAY,), 0, ALWAYS, zone=ZoneInfo("Europe/Berlin")))
        assert ([one.group for one in answer.groups], answer.n_others) == ([("1970-01-02",)], 0)
        first = ((Attribute.DAY, ("1970-01-01",)),)
        answer = await costs.sums(Question((Attribute.ORG,), 0, ALWAYS, first, ZoneInfo("Europe/Berlin")))
        assert (answer.groups, answer.total.requests) == ((), 0)

    loop.run(main())


def test_as_many_of_the_last_hours_are_read_as_there_is_room_for(costs, ledger, loop):
    async def main():
        rows = [Entry(f"r{n}", n // 10 * HOUR_MICROS, user_hash="ab", cost_nanos=1) for n in range(50)]  # ten an hour
        await ledger.append([*rows, Entry("r", 9 * HOUR_MICROS, cost_nanos=1)])

        async def since(question, most):
            newest = await costs.newest(question, most)
            assert (newest.by, newest.until_micros) == (question.by, question.until_micros)
            return newest.since_micros / HOUR_MICROS

        by_user = Question((Attribute.USER,), 0, 10 * HOUR_MICROS)
        assert [await since(by_user, most) for most in (51, 50, 21, 20, 11, 1, 0)] == [0, 1, 3, 4, 4, 5, 5]
        assert await since(Question((Attribute.MODEL,), 0, ALWAYS), 0) == 0  # rollups know
        assert await since(Question((), 0, ALWAYS, ((Attribute.USER, ("ab",)),)), 0) == 0  # an index does
        assert await since(Question((), 0, ALWAYS, ((Attribute.USER, ("ab", "")),)), 0) == 5
        assert await since(Question((Attribute.USER,), 20 * HOUR_MICROS, ALWAYS), 0) == 20  # nothing there

    loop.run(main())


def test_what_was_let_go_and_is_needed_is_said_to_be_missing(costs, ledger, loop):
    async def main():
        await ledger.append([Entry(f"r{n}", n * HOUR_MICROS, org="a", user_hash="u", cost_nanos=1) for n in range(6)])
        await ledger.let_go(3 * HOUR_MICROS)
        by_org = await costs.sums(Question((Attribute.ORG,), 0, 6 * HOUR_MICROS))
        assert (by_org.total.cost_nanos, by_org.missing) == (6, ())
        by_user = await costs.sums(Question((Attribute.USER,), 0, 6 * HOUR_MICROS))
        assert (by_user.total.cost_nanos, by_user.missing) == (3, ((0, 3 * HOUR_MICROS),))
        a_part = await costs.sums(Question((Attribute.ORG,), HOUR_MICROS + 1, 6 * HOUR_MICROS))
        assert (a_part.total.cost_nanos, a_part.missing) == (4, ((HOUR_MICROS + 1, 2 * HOUR_MICROS),))
        half_hours = Question((Attribute.DAY,), 0, 6 * HOUR_MICROS, zone=ZoneInfo("Asia/Kolkata"))
        assert (await costs.sums(half_hours)).missing == ((0, 3 * HOUR_MICROS),)

    loop.run(main())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_only_text_in_every_part_of_a_question(costs, ledger, loop, hostile):
    texts = [name for name in Entry.__struct_fields__ if isinstance(getattr(Entry("r", 0, error=""), name), str)]
    told = Entry(**dict.fromkeys(texts, hostile) | {"tags": "{}", "at_micros": 1, "cost_nanos": 3})

    async def main():
        await ledger.append([told, Entry("other", 2, error="", cost_nanos=4)])
        for by in Attribute:
            if by in (Attribute.HOUR, Attribute.DAY, Attribute.STATUS):
                continue
            for until in (HOUR_MICROS, HOUR_MICROS - 1):
                answer = await costs.sums(Question((by,), 0, until, ((by, (hostile, "neither")),)))
                assert [(one.group, one.cost_nanos) for one in answer.groups] == [((hostile,), 3)]
                assert (await costs.sums(Question((by,), 0, until))).total.cost_nanos == 7
        tagged = await costs.sums(Question((Tag(hostile),), only=((Tag(hostile), (hostile, None)),)))
        assert [(one.group, one.requests) for one in tagged.groups] == [((None,), 2)]
        assert await ledger.disagreeing_hours(0, ALWAYS) == []

    loop.run(main())


def test_the_rows_come_in_pages_and_only_those_asked_for(costs, ledger, loop, monkeypatch):
    monkeypatch.setattr("penstock.stores.costs.ROWS_AT_ONCE", 3)
    rows = [Entry(f"r{n:02}", 1000 + n // 4, org="ab"[n % 2]) for n in range(24)]

    async def main():
        await ledger.append(rows)
        pages = [page async for page in costs.rows(Question((), 1000, 1005))]
        assert [len(page) for page in pages] == [3] * 6 + [2]
        assert [one for page in pages for one in page] == rows[:20]
        some = [one async for page in costs.rows(Question(only=((Attribute.ORG, ("b", "c")),))) for one in page]
        assert some == rows[1::2]
        assert [page async for page in costs.rows(Question((), 0, 5))] == []

    loop.run(main())


def test_nothing_used_is_a_total_of_nothing(costs, loop):
    for by in ((), (Attribute.ORG,), (Attribute.DAY, Tag("t"))):
        answer = loop.run(costs.sums(Question(by, 5, 5, zone=ZONES[1])))
        assert (answer.groups, answer.n_others, answer.total.requests, answer.others.requests) == ((), 0, 0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"since_micros": 2, "until_micros": 1},
        {"since_micros": -1},
        {"until_micros": ALWAYS + 1},
        {"by": (Attribute.ORG, Attribute.ORG)},
        {"most": 0},
    ],
)
def test_a_question_that_no_ledger_can_be_asked_is_refused(wrong):
    with pytest.raises(ValueError, match=r"in the ledger|sums are by"):
        Question(**wrong)


def test_what_the_rollups_know_is_what_their_table_has(database, loop):
    """A column that is added to one and not to the other would be asked of the wrong one."""
    view = "select * from ledger_by_hour where 1 = 0 union all select * from ledger_hours limit 1"
    loop.run(SqlLedger(database).append([Entry("r", 1)]))
    (row,) = loop.run(database.read(view))
    assert len(row) == len(IN_ROLLUPS - {Attribute.DAY}) + len(COUNTS)
    assert DAY_MICROS == 24 * HOUR_MICROS
