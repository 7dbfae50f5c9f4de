"""The file of single requests: bounded, searched, read by others, and never in anybody's way."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.clock import ManualClock
from penstock.stores import outcomes
from penstock.stores.base import StoreFailed
from penstock.stores.outcome_terms import NUMBERS, TEXTS, Term, checked, condition, parse
from penstock.stores.outcomes import MOST_WAITING, Kept, Outcomes, Question, Retention
from penstock.wire.trace_context import trace_id_of
from tests.console.outcomes import HOSTILE, kept, outcome

AT = 1_800_000_000.0


@asynccontextmanager
async def opened(path, retention=None, clock=None):
    store = await Outcomes.open(path / "kept.traces.db", clock or ManualClock(), retention)
    try:
        yield store
    finally:
        await store.close()


def written(tmp_path, some, work, retention=None):
    """What `work` answers about a store with these."""

    async def main():
        async with opened(tmp_path, retention) as store:
            store.offer(some)
            await store.write()
            return await work(store)

    return asyncio.run(main())


async def ids(store, text="", **more):
    page = await store.page(Question(parse(text), **more))
    return [one.outcome.request_id for one in page.items]


def test_a_receipt_comes_back_as_it_was(tmp_path):
    one = outcome(
        error="upstream_error", why=("rule `cheap` holds",), degraded=("model=small",), tags=("team=a",), session="s"
    )

    async def work(store):
        return await store.find(one.request_id)

    assert written(tmp_path, [Kept(one, "error")], work) == Kept(one, "error", 1)


def test_a_request_is_found_while_it_waits_is_written_and_afterwards(tmp_path):
    one, traced = outcome(), outcome(trace_id="4bf92f3577b34da6a3ce929d0e0e4736")

    async def main():
        async with opened(tmp_path) as store:
            store.offer([Kept(one, "error"), Kept(traced, "slow")])
            assert await store.find(one.request_id) == Kept(one, "error")
            assert await store.find(trace_id_of(one.request_id)) == Kept(one, "error")
            assert await store.find(traced.trace_id) == Kept(traced, "slow")
            assert await store.find(trace_id_of(traced.request_id)) is None is await store.find("")
            writing = asyncio.get_running_loop().create_task(store.write())
            seqs = []
            while not writing.done():
                seqs.append((await store.find(one.request_id)).seq)
                await asyncio.sleep(0)
            await writing
            assert set(seqs) <= {0, 1} and (await store.find(one.request_id)).seq == 1

    asyncio.run(main())


def test_what_the_disk_would_not_take_is_not_found(tmp_path):
    async def main():
        async with opened(tmp_path) as store:
            one = outcome()
            with sqlite3.connect(tmp_path / "kept.traces.db") as other:
                other.execute("drop table outcomes")
            store.offer([Kept(one, "error")])
            with pytest.raises(StoreFailed):
                await store.write()
            with pytest.raises(StoreFailed):
                await store.find(one.request_id)

    asyncio.run(main())


def test_a_request_is_found_by_the_id_of_its_trace_too(tmp_path):
    one = outcome(trace_id="4bf92f3577b34da6a3ce929d0e0e4736")

    async def work(store):
        return [await store.find(id) for id in (one.trace_id, "nobody", "")]

    found = written(tmp_path, [Kept(one, "ratio")], work)
    assert [one and one.outcome.request_id for one in found] == [one.request_id, None, None]


def test_pages_hold_every_request_once_and_the_newest_first(tmp_path):
    some = [kept(AT + n // 3, id=f"req_{n:03}") for n in range(100)]  # three at each moment

    async def work(store):
        found, before = [], ""
        while True:
            page = await store.page(Question(before=before, most=7))
            found += page.items
            if page.next is None:
                return found
            before = page.next

    found = [one.outcome for one in written(tmp_path, some, work)]
    assert len(found) == 100 == len({one.request_id for one in found})
    assert all((a.received_at, a.request_id) > (b.received_at, b.request_id) for a, b in pairwise(found))


def test_a_search_that_finds_nothing_near_says_where_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(outcomes, "LOOKED_AT", 10)
    some = [kept(AT, model="rare", id="req_rare"), *(kept(AT + 1 + n) for n in range(35))]

    async def work(store):
        pages, before = [], ""
        while True:
            page = await store.page(Question(parse("model=rare"), before=before))
            pages.append([one.outcome.request_id for one in page.items])
            if page.next is None:
                return pages
            before = page.next

    assert written(tmp_path, some, work) == [[], [], [], ["req_rare"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "dcba"),
        ("model=chat", "dba"),
        ("model!=chat", "c"),
        ("error", "b"),
        ("status=failed", "b"),
        ("status=5xx", "b"),
        ("status=ok ttft>0.5", "d"),
        ("slower=0.7", "d"),
        ("ttft>=0.7s", "d"),
        ("cost>=$0.5", "c"),
        ("error=upstream_error key=web", "b"),
        ("error!=upstream_error", "dca"),
        ("session~ing", "a"),
        ("session='a thing'", "a"),
        ("canary", "d"),
        ("model=chat error replica=local/0", "b"),
        ("duration<0.5", ""),
        ("attempts=1 trace~f", "dcba"),
    ],
)
def test_terms_find_what_they_say(tmp_path, text, found):
    some = [
        kept(AT, id="a", session="a thing"),
        kept(AT + 1, id="b", error="upstream_error"),
        kept(AT + 2, id="c", model="embed", cost_nanos=500_000_000),
        kept(AT + 3, id="d", ttft=0.7, why="slow", degraded=("canary",)),
    ]
    assert "".join(written(tmp_path, some, lambda store: ids(store, text))) == found


def test_a_range_holds_its_beginning_and_not_its_end(tmp_path):
    some = [kept(AT + n, id=str(n)) for n in range(5)]
    assert written(tmp_path, some, lambda store: ids(store, since=AT + 1, until=AT + 3)) == ["2", "1"]


@pytest.mark.parametrize("text", ["modl=x", "ttft=soon", "ttft~1", "model>3", "'", "cost>nan", "x=" + "y" * 300])
def test_an_expression_that_means_nothing_is_refused_with_words(text):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        parse(text)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean `ttft`"):
        parse("tfft>1")


@given(
    st.sampled_from([*TEXTS, *NUMBERS, "nobody", ""]),
    st.sampled_from(["", "=", "!=", "<", "<=", ">", ">=", "~"]),
    st.text(max_size=40),
)
def test_no_value_ever_becomes_part_of_a_statement(name, operator, value):
    try:
        sql, bound = condition(Term(name, operator, value))
    except ValueError:
        return
    assert sql.count("?") == len(bound)
    with sqlite3.connect(":memory:") as connection:
        columns = ", ".join({*TEXTS, *(column for column, _ in NUMBERS.values() if "(" not in column), "body"})
        connection.execute(f"create table outcomes ({columns})")
        connection.execute(f"select 1 from outcomes where {sql}", bound)  # one statement, and a sound one
    connection.close()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_kept_and_found_as_they_are(tmp_path, text):
    one = outcome(model=text, tenant=text, key_id=text, session=text, feature=text, team=text, deployment=text)

    async def work(store):
        found = await store.find(one.request_id)
        askable = 0 < len(text) < 200 and "\0" not in text
        return found, await store.page(Question(checked([Term("model", "=", text)]))) if askable else None

    found, some = written(tmp_path, [Kept(one, "ratio")], work)
    assert found.outcome == one
    assert some is None or [kept.outcome for kept in some.items] == [one]


def test_what_no_column_can_hold_costs_the_others_nothing(tmp_path):
    some = [kept(id="good"), Kept(outcome(model="\ud800"), "ratio")]

    async def work(store):
        return await ids(store), store.written, store.dropped

    assert written(tmp_path, some, work) == (["good"], 1, 1)


def test_the_oldest_go_when_there_are_too_many(tmp_path):
    some = [kept(AT + n, id=str(n)) for n in range(10)]

    async def work(store):
        return await store.tidy(), await ids(store)

    assert written(tmp_path, some, work, Retention(rows=3)) == (7, ["9", "8", "7"])


def test_what_is_too_old_goes(tmp_path):
    some = [kept(AT - 100, id="old"), kept(AT - 10, id="new")]

    async def work(store):
        return await store.tidy(), await ids(store), await store.kept_since()

    assert written(tmp_path, some, work, Retention(seconds=50.0)) == (1, ["new"], AT - 10)


def test_the_file_stays_within_its_bytes(tmp_path):
    most = 300_000

    async def main():
        async with opened(tmp_path, Retention(bytes=most)) as store:
            for n in range(20):
                store.offer([kept(AT + 100 * n + i, why="ratio", session="x" * 400) for i in range(100)])
                await store.write()
                await store.tidy()
            return await store._used(), await ids(store, most=1), await store.kept_since()

    used, newest, since = asyncio.run(main())
    assert used <= most and newest and since > AT
    assert (tmp_path / "kept.traces.db").stat().st_size < 2 * most


def test_a_request_that_is_told_twice_is_kept_once(tmp_path):
    one = kept(id="twice")
    assert written(tmp_path, [one, one], lambda store: ids(store)) == ["twice"]


def test_what_there_is_no_room_for_is_dropped_and_counted(tmp_path):
    async def main():
        async with opened(tmp_path) as store:
            one = kept()
            store.offer([one] * (MOST_WAITING + 5))
            return store.waiting, store.dropped

    assert asyncio.run(main()) == (MOST_WAITING, 5)


def test_a_disk_that_fails_costs_a_batch_and_nothing_else(tmp_path):
    async def main():
        async with opened(tmp_path) as store:
            with sqlite3.connect(tmp_path / "kept.traces.db") as other:
                other.execute("drop table outcomes")
            other.close()
            store.offer([kept(), kept()])
            with pytest.raises(StoreFailed):
                await store.write()
            return store.waiting, store.dropped

    assert asyncio.run(main()) == (0, 2)


def test_another_process_reads_while_this_one_writes(tmp_path):
    async def main():
        async with opened(tmp_path) as store:
            store.offer([kept(id="first")])
            await store.write()
            other = await Outcomes.look(tmp_path / "kept.traces.db", ManualClock())
            seen = await other.last_seq()
            store.offer([kept(id="second"), kept(id="third", model="embed")])
            await store.write()
            found = [one.outcome.request_id for one in await other.since(seen, parse("model=chat"))]
            await other.close()
            return seen, found

    assert asyncio.run(main()) == (1, ["second"])


def test_neighbours_are_those_of_the_same_session_and_caller(tmp_path):
    some = [
        kept(AT, id="a", session="s"),
        kept(AT + 1, id="b", session="s", tenant="globex"),
        kept(AT + 2, id="c", session="s"),
        kept(AT + 3, id="d", session="t"),
        kept(AT + 4, id="e", session="s"),
        kept(AT + 5, id="f"),
    ]

    async def work(store):
        return [await store.around((await store.find(id)).outcome) for id in "ace" + "f"]

    assert written(tmp_path, some, work) == [(None, "c"), ("a", "e"), ("c", None), (None, None)]


def test_after_a_restart_everything_is_there(tmp_path):
    async def main():
        async with opened(tmp_path) as store:
            store.offer([kept(id="before")])
            store.offer_signals(60, 1_800_000_000, b"step")
        async with opened(tmp_path) as store:
            return await ids(store), await store.signals(60, 0), await store.signals(900, 0)

    assert asyncio.run(main()) == (["before"], [(1_800_000_000, b"step")], [])


@pytest.mark.parametrize("cursor", ["x", "1", "-", "1-\0", "9" * 30 + "-a", "١-a"])
def test_a_cursor_that_is_none_is_refused(tmp_path, cursor):
    async def main():
        async with opened(tmp_path) as store:
            with pytest.raises(ValueError, match="next"):
                await store.page(Question(before=cursor))

    asyncio.run(main())


def test_writing_goes_on_after_the_disk_recovers_and_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(outcomes, "EVERY", 0.0)
    told = []

    class Failing(Outcomes):
        fails = 2

        async def write(self):
            self.fails -= 1
            if self.fails >= 0:
                raise StoreFailed("the disk is full")

    async def main():
        async with opened(tmp_path) as store:
            enough = asyncio.Event()

            def tell(line):
                told.append(line)
                if len(told) == 2:
                    enough.set()

            broken = Failing(store._database, Retention(), ManualClock())
            async with asyncio.TaskGroup() as group:
                running = group.create_task(broken.run(tell))
                await enough.wait()
                running.cancel()

    asyncio.run(main())
    assert told == [
        "Traces of requests are not kept (the disk is full); requests go on.",
        "Traces of requests are kept again.",
    ]
