"""Every ledger keeps the same promises: each request once, sums that add up, and nothing that can be changed."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec import structs

from penstock.stores.base import StoreFailed, StoreRefused
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.ledger import HOUR_MICROS, IN_ROLLUPS, Attribute, Span, SqlLedger, Tag, Total
from penstock.stores.migrate import migrate
from penstock.stores.sql import Statement
from tests.stores.conftest import empty_schema
from tests.stores.sums import sums

ALWAYS = 2**53
HOSTILE = (
    "'); drop table ledger; --",
    "$1",
    "?1",
    "%s{0}",
    '"; select 1; "',
    "\\'\\x00\\",
    "a\r\nb\x1b[2J\x7f",
    "null",
    "\u202e\ufeff\U0001f4a3",
    "{1,2}",  # arrays are one way to send many rows
)


@pytest.fixture
def ledger(database):
    return SqlLedger(database)


def entry(n, hour=0, **fields):
    return Entry(f"r{n}", hour * HOUR_MICROS + n, **fields)


def test_a_request_is_counted_once_however_often_it_is_told(ledger, database, loop):
    async def main():
        assert await ledger.append([entry(1, cost_nanos=5), entry(2, cost_nanos=7), entry(1, cost_nanos=5)]) == 2
        assert await ledger.append([entry(1, cost_nanos=99), entry(3, cost_nanos=11)]) == 1
        assert await ledger.append([]) == 0
        (total,) = await sums(database, [], 0, HOUR_MICROS - 1)  # of the rows
        (of_hours,) = await sums(database, [], 0, HOUR_MICROS)
        assert (total.requests, total.cost_nanos) == (3, 23)
        assert of_hours == total

    loop.run(main())


def test_an_unknown_price_is_counted_as_unknown_and_a_correction_is_below_zero(ledger, database, loop):
    async def main():
        await ledger.append([entry(1, cost_nanos=10), entry(2), entry(3, cost_nanos=-4), entry(4, cost_nanos=0)])
        (total,) = await sums(database, [], 0, HOUR_MICROS)
        assert (total.requests, total.unpriced, total.cost_nanos) == (4, 1, 6)

    loop.run(main())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_in_every_column_is_only_text(ledger, database, loop, hostile):
    texts = [name for name in Entry.__struct_fields__ if isinstance(getattr(Entry("r", 0), name), str)]
    assert len(texts) == 15  # all of them, with `error` below
    fields = dict.fromkeys([*texts, "error"], hostile) | {"tags": "{}"}
    told = Entry(**fields | {"at_micros": 1, "cost_nanos": 3})

    async def main():
        await ledger.append([told, entry(2, cost_nanos=4)])
        assert await ledger.entries(0, ALWAYS, after=None) == [told, entry(2, cost_nanos=4)]
        assert await ledger.entries(0, ALWAYS, after=structs.replace(told, request_id=hostile)) == [
            entry(2, cost_nanos=4)
        ]
        assert await ledger.forget_user(hostile) == 1
        assert await ledger.disagreeing_hours(0, ALWAYS) == []
        assert (await sums(database, [], 0, ALWAYS))[0].cost_nanos == 7

    loop.run(main())


def test_texts_of_the_greatest_length_fit_every_index_together(ledger, loop, rng):
    long = ["".join(rng.choices([chr(n) for n in range(0x4E00, 0x9000)], k=85)) for _ in range(16)]  # no repetition
    names = [name for name in Entry.__struct_fields__ if isinstance(getattr(Entry("r", 0, error=""), name), str)]
    fields = dict(zip([name for name in names if name != "tags"], long, strict=False))
    told = Entry(**fields | {"at_micros": 1})
    assert loop.run(ledger.append([told])) == 1
    assert loop.run(ledger.entries(0, 2)) == [told]


@pytest.mark.parametrize("name", ["project", "a.b", "0", "$.x", 'quo"te', "[0]", "x'y", ""])
def test_a_tag_of_any_name_can_be_asked_by(ledger, database, loop, name):
    from msgspec.json import encode

    async def main():
        tags = [{name: "x"}, {name: "y", "other": "x"}, {"other": "x"}, {}]
        await ledger.append([entry(n, tags=encode(one).decode(), cost_nanos=10 - n) for n, one in enumerate(tags)])
        totals = await sums(database, [Tag(name)], 0, ALWAYS)
        assert {total.group[0]: total.requests for total in totals} == {"x": 1, "y": 1, None: 2}
        assert [one.request_id for one in await ledger.entries(0, ALWAYS, {Tag(name): "y"})] == ["r1"]
        assert [one.request_id for one in await ledger.entries(0, ALWAYS, {Tag(name): None})] == ["r2", "r3"]

    loop.run(main())


def test_rows_come_in_pages_that_leave_none_out(ledger, loop):
    rows = [Entry(f"r{n:02}", 1000 + n // 4) for n in range(25)]  # four at the same moment

    async def main():
        await ledger.append(rows[::-1])
        found, after = [], None
        while page := await ledger.entries(1000, 1006, after=after, most=3):
            assert len(page) <= 3
            found += page
            after = page[-1]
        assert found == rows[:24]

    loop.run(main())


def test_what_was_written_cannot_be_changed(ledger, database, loop):
    loop.run(ledger.append([entry(1, cost_nanos=5)]))
    for change in ("cost_nanos = 0", "output_tokens = 0", "org = 'other'", "request_id = 'r9'", "cost_nanos = null"):
        with pytest.raises(StoreRefused, match="append-only"):
            loop.run(database.write([Statement(f"update ledger set {change}")]))
    assert loop.run(ledger.entries(0, ALWAYS)) == [entry(1, cost_nanos=5)]


def test_a_forgotten_user_is_in_no_row_and_what_they_used_stays_counted(ledger, database, loop):
    mine = {"user_hash": "u1", "session": "s1", "tags": '{"a":"b"}', "cost_nanos": 5}

    async def main():
        await ledger.append([entry(1, **mine), entry(2, **mine | {"user_hash": "u2"}), entry(3, cost_nanos=1)])
        before = await sums(database, [Attribute.MODEL], 0, HOUR_MICROS)
        assert await ledger.forget_user("u1") == 1
        assert await ledger.forget_user("u1") == 0
        assert await ledger.forget_user("") == 0
        assert await ledger.append([entry(1, **mine)]) == 0  # repeated from a spool
        assert await ledger.entries(0, ALWAYS) == [
            entry(1, cost_nanos=5),
            entry(2, **mine | {"user_hash": "u2"}),
            entry(3, cost_nanos=1),
        ]
        assert await sums(database, [Attribute.MODEL], 0, HOUR_MICROS) == before

    loop.run(main())


def test_rows_that_are_let_go_stay_in_the_hours_and_are_not_counted_again(ledger, database, loop):
    async def main():
        rows = [entry(n, hour=n, cost_nanos=1) for n in range(6)]
        await ledger.append(rows)
        assert await ledger.let_go(3 * HOUR_MICROS + 5) == 3  # the third hour is not over
        assert await ledger.kept_since() == 3 * HOUR_MICROS
        assert await ledger.append([rows[1], entry(7, hour=2, cost_nanos=100)]) == 0
        assert await ledger.entries(0, ALWAYS) == rows[3:]
        await ledger.derive_hours(0, ALWAYS)
        assert (await sums(database, [], 0, 6 * HOUR_MICROS))[0].cost_nanos == 6
        assert await ledger.disagreeing_hours(0, ALWAYS) == []
        assert await ledger.let_go(0) == 0  # it does not come back
        assert await ledger.kept_since() == 3 * HOUR_MICROS
        assert await ledger.let_go_hours(5 * HOUR_MICROS) == 3
        assert (await sums(database, [], 0, 6 * HOUR_MICROS))[0].cost_nanos == 3

    loop.run(main())


def test_many_rows_are_let_go_in_pieces(ledger, loop, monkeypatch):
    monkeypatch.setattr("penstock.stores.ledger.AT_ONCE", 7)
    loop.run(ledger.append([entry(n) for n in range(30)]))
    assert loop.run(ledger.let_go(HOUR_MICROS)) == 30
    assert loop.run(ledger.entries(0, ALWAYS)) == []


def test_hours_that_are_wrong_are_found_and_derived_again(ledger, database, loop):
    async def main():
        await ledger.append([entry(n, hour=n % 30, org=f"o{n % 3}", cost_nanos=n) for n in range(90)])
        right = await sums(database, [Attribute.HOUR, Attribute.ORG], 0, 30 * HOUR_MICROS)
        broken = (
            "update ledger_hours set cost_nanos = cost_nanos + 1 where hour = 3",
            "delete from ledger_hours where hour = 5",
            "insert into ledger_hours select 40, org, team, key_id, feature, model, deployment, endpoint, cache,"
            " 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 from ledger_hours where hour = 7 and org = 'o0'",
        )
        await database.write([Statement(sql) for sql in broken])
        assert await sums(database, [Attribute.HOUR, Attribute.ORG], 0, 30 * HOUR_MICROS) != right  # read from hours
        assert await ledger.disagreeing_hours(0, ALWAYS) == [3 * HOUR_MICROS, 5 * HOUR_MICROS]
        await database.write([Statement("update ledger_hours set hour = 41 where hour = 6")])
        assert await ledger.disagreeing_hours(0, ALWAYS) == [n * HOUR_MICROS for n in (3, 5, 6, 41)]
        await ledger.derive_hours(4 * HOUR_MICROS, 6 * HOUR_MICROS)  # only these
        assert await ledger.disagreeing_hours(0, ALWAYS) == [n * HOUR_MICROS for n in (3, 6, 41)]
        await ledger.derive_hours(0, ALWAYS)
        assert await ledger.disagreeing_hours(0, ALWAYS) == []
        assert await sums(database, [Attribute.HOUR, Attribute.ORG], 0, 30 * HOUR_MICROS) == right

    loop.run(main())


def test_writers_that_tell_the_same_rows_at_once_while_hours_are_derived_count_them_once(url):
    """Three processes would behave as these three do: each has a database of its own."""
    rows = [entry(n, hour=n % 3, org=f"o{n % 5}", cost_nanos=n) for n in range(120)]

    async def main():
        databases = [await open_database(url) for _ in range(4)]
        await migrate(databases[0], now=0.0)
        ledgers = [SqlLedger(database) for database in databases]

        async def write(ledger, mine):
            new = 0
            for n in range(0, len(mine), 10):
                new += await ledger.append(mine[n : n + 10])
            return new

        async def derive():
            for _ in range(10):
                await ledgers[3].derive_hours(0, ALWAYS)

        *new, _ = await asyncio.gather(
            write(ledgers[0], rows), write(ledgers[1], rows), write(ledgers[2], rows[60:] + rows[:60]), derive()
        )
        assert sum(new) == len(rows)
        assert await ledgers[0].entries(0, ALWAYS) == sorted(rows, key=lambda one: one.at_micros)
        assert await ledgers[0].disagreeing_hours(0, ALWAYS) == []
        assert (await sums(databases[0], [], 0, 3 * HOUR_MICROS))[0].cost_nanos == sum(range(120))
        for database in databases:
            await database.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("other", "work"),
    [
        # A row whose hours are not committed; hours that somebody else derives.
        ("insert into ledger_hours select * from ledger_hours where false", "derive_hours"),
        ("lock table ledger_hours in share row exclusive mode", "let_go"),
    ],
)
def test_who_derives_hours_waits_for_writers_and_retention_waits_for_them(postgres, loop, other, work):
    async def main():
        import asyncpg

        url = await empty_schema(postgres)
        database = await open_database(url)
        await migrate(database, now=0.0)
        ledger = SqlLedger(database)
        await ledger.append([entry(1)])
        connection = await asyncpg.connect(url)
        async with asyncio.timeout(10):
            async with connection.transaction():
                await connection.execute(other)
                arguments = {"derive_hours": (0, HOUR_MICROS), "let_go": (HOUR_MICROS,)}[work]
                task = asyncio.create_task(getattr(ledger, work)(*arguments))  # noqa: TID251 - awaited below
                while not await connection.fetchval("select count(*) from pg_locks where not granted"):
                    assert not task.done(), "it did not wait"
            await task
        await connection.close()
        await database.close()

    loop.run(main())


def test_a_server_that_went_away_is_a_failure_and_is_found_again(postgres, loop):
    async def main():
        database = await open_database(await empty_schema(postgres))
        await migrate(database, now=0.0)
        ledger = SqlLedger(database)
        assert await ledger.append([entry(1)]) == 1
        await asyncio.to_thread(postgres.stop)
        try:
            for _ in range(2):
                with pytest.raises(StoreFailed):
                    await ledger.append([entry(2)])
        finally:
            await asyncio.to_thread(postgres.start)
        assert await ledger.append([entry(1), entry(2)]) == 1
        await database.close()

    loop.run(main())


words = st.sampled_from(["", "a", "b"])
entries = st.builds(
    Entry,
    request_id=st.integers(0, 30).map("r{}".format),
    at_micros=st.builds(lambda hour, more: hour * HOUR_MICROS + more, st.integers(0, 4), st.integers(0, 2)),
    org=words,
    user_hash=words,
    model=words,
    replica=words,
    error=st.none() | words,
    tags=st.sampled_from(["{}", '{"t":"x"}', '{"t":"y"}']),
    status=st.sampled_from([200, 500]),
    usage_source=st.sampled_from(["", "provider", "provider_partial", "tokenizer", "estimate", "none", "correction"]),
    cost_nanos=st.none() | st.integers(-5, 10**12),
    input_tokens=st.integers(0, 10**12),
    output_tokens=st.integers(0, 5),
    duration_micros=st.integers(0, 10),
)
groupings = st.lists(
    st.sampled_from(
        [
            *(Attribute.HOUR, Attribute.DAY, Attribute.ORG, Attribute.MODEL),
            *(Attribute.USER, Attribute.REPLICA, Attribute.ERROR, Attribute.STATUS, Tag("t")),
        ]
    ),
    max_size=3,
    unique=True,
)
moments = st.builds(lambda hour, more: hour * HOUR_MICROS + more, st.integers(0, 5), st.sampled_from([0, 0, 1]))


def value(one, by):
    if by is Attribute.HOUR:
        return one.at_micros // HOUR_MICROS * 3600
    if by is Attribute.DAY:
        return datetime.fromtimestamp(one.at_micros // 1_000_000, UTC).date().isoformat()
    if isinstance(by, Tag):
        return {"{}": None, '{"t":"x"}': "x", '{"t":"y"}': "y"}[one.tags]
    return getattr(one, by)


def expected(rows, by):
    groups = defaultdict(list)
    for one in rows:
        groups[tuple(value(one, attribute) for attribute in by)].append(one)
    return {
        group: Total(
            group,
            sum(one.usage_source != "correction" for one in some),
            sum(one.error is not None and one.usage_source != "correction" for one in some),
            sum(one.cost_nanos is None for one in some),
            sum(one.usage_source in ("provider_partial", "tokenizer", "estimate") for one in some),
            *(sum(getattr(one, name) or 0 for one in some) for name in Total.__struct_fields__[5:]),
        )
        for group, some in groups.items()
    }


class Books(RuleBasedStateMachine):
    """A ledger beside a list. `counted` is what the rollups hold: rows that were let go are still in it."""

    def __init__(self, loop, new_url):
        super().__init__()
        self.loop, self.new_url = loop, new_url

    @initialize()
    def begin(self):
        # The one place that runs a loop of its own: the schema is made before ours has connections.
        self.database = self.loop.run(open_database(self.new_url()))
        self.loop.run(migrate(self.database, now=0.0))
        self.ledger = SqlLedger(self.database)
        self.rows, self.counted, self.kept = {}, [], 0

    @rule(told=st.lists(entries, max_size=8))
    def append(self, told):
        new = 0
        for one in told:
            if one.at_micros >= self.kept and one.request_id not in self.rows:
                self.rows[one.request_id] = one
                self.counted.append(one)
                new += 1
        assert self.loop.run(self.ledger.append(told)) == new

    @rule(by=groupings, since=moments, until=moments, only=groupings, word=words)
    def ask(self, by, since, until, only, word):
        since, until = sorted((since, until))
        wanted = {one: word for one in only if one not in (Attribute.HOUR, Attribute.DAY, Attribute.STATUS)}
        if Attribute.ERROR in wanted and not word:
            wanted[Attribute.ERROR] = None
        begin, end = -(-since // HOUR_MICROS) * HOUR_MICROS, until // HOUR_MICROS * HOUR_MICROS
        if begin >= end or not IN_ROLLUPS.issuperset([*by, *wanted]):
            begin = end = since
        hours = [one for one in self.counted if begin <= one.at_micros < end]
        around = [one for one in self.rows.values() if since <= one.at_micros < until]
        around = [one for one in around if not begin <= one.at_micros < end]
        rows = [one for one in hours + around if all(value(one, by) == what for by, what in wanted.items())]
        totals = self.loop.run(sums(self.database, by, since, until, wanted))
        if by:
            assert {total.group: total for total in totals} == expected(rows, by)
        else:
            assert totals == list(expected(rows, by).values()) or (not rows and totals == [Total((), *[0] * 12)])

    @rule(user=words)
    def forget_user(self, user):
        mine = [one for one in self.rows.values() if user and one.user_hash == user]
        assert self.loop.run(self.ledger.forget_user(user)) == len(mine)
        for one in mine:
            self.rows[one.request_id] = structs.replace(one, user_hash="", session="", tags="{}")

    @rule(before=moments)
    def let_go(self, before):
        self.kept = max(self.kept, before // HOUR_MICROS * HOUR_MICROS)
        old = [id for id, one in self.rows.items() if one.at_micros < before // HOUR_MICROS * HOUR_MICROS]
        assert self.loop.run(self.ledger.let_go(before)) == len(old)
        for id in old:
            del self.rows[id]

    @rule(before=moments)
    def let_go_hours(self, before):
        self.loop.run(self.ledger.let_go_hours(before))
        until = min(before // HOUR_MICROS * HOUR_MICROS, self.kept)
        self.counted = [one for one in self.counted if one.at_micros >= until]

    @rule(since=moments, until=moments)
    def derive(self, since, until):
        self.loop.run(self.ledger.derive_hours(since, until))

    @invariant()
    def rows_and_hours_agree(self):
        if hasattr(self, "ledger"):
            assert self.loop.run(self.ledger.disagreeing_hours(0, ALWAYS)) == []
            ours = sorted(self.rows.values(), key=lambda one: (one.at_micros, one.request_id))
            assert self.loop.run(self.ledger.entries(0, ALWAYS)) == ours

    def teardown(self):
        if hasattr(self, "database"):
            self.loop.run(self.database.close())


@pytest.mark.timeout(120)  # a new database for each of forty runs
def test_a_ledger_is_a_list_that_can_be_asked_for_sums(loop, new_url):
    run_state_machine_as_test(
        lambda: Books(loop, new_url),
        settings=settings(
            max_examples=40,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        ),
    )


MINUTE = 60_000_000


def spent_by_hand(entries, span):
    return sum(
        one.cost_nanos or 0
        for one in entries
        if span.since_micros <= one.at_micros < span.until_micros
        and all(getattr(one, attribute) == value for attribute, value in span.only)
    )


def test_what_was_spent_is_what_the_rows_say_for_any_range_and_whomever(ledger, loop):
    rng = Random(4)
    entries = [
        Entry(
            f"r{n}",
            rng.randrange(5 * HOUR_MICROS),
            org=rng.choice("ab"),
            team=rng.choice("xy"),
            key_id=rng.choice("kl"),
            user_hash=rng.choice(("", "u")),
            model=rng.choice("mn"),
            cost_nanos=rng.choice((None, 0, 1, 10**15)),
        )
        for n in range(300)
    ]
    whom = (
        (),
        ((Attribute.ORG, "a"),),
        ((Attribute.ORG, "a"), (Attribute.TEAM, "x")),
        ((Attribute.KEY, "k"), (Attribute.MODEL, "m")),
        ((Attribute.ORG, "b"), (Attribute.USER, "u")),
        ((Attribute.KEY, "nobody"),),
    )
    when = (
        (0, 5 * HOUR_MICROS),
        (HOUR_MICROS, 2 * HOUR_MICROS),
        (30 * MINUTE, 4 * HOUR_MICROS + 45 * MINUTE),
        (30 * MINUTE, 40 * MINUTE),
        (30 * MINUTE, HOUR_MICROS + 1),
        (HOUR_MICROS - 1, HOUR_MICROS),
        (0, 4 * 10**17),
        (7, 7),
    )
    spans = [Span(only, *times) for only in whom for times in when]

    async def main():
        await ledger.append(entries)
        assert await ledger.spent(spans) == [spent_by_hand(entries, span) for span in spans]
        assert await ledger.spent([]) == []

    loop.run(main())


def test_what_was_spent_is_still_known_when_the_rows_have_been_let_go(ledger, loop):
    async def main():
        await ledger.append([entry(n, hour=n, key_id="k", cost_nanos=2**n) for n in range(4)])
        await ledger.let_go(2 * HOUR_MICROS)
        assert await ledger.spent([Span(((Attribute.KEY, "k"),), 0, 4 * HOUR_MICROS)]) == [0b1111]

    loop.run(main())
