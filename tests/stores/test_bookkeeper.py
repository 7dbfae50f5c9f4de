"""Every row reaches the ledger once: past slow, broken and absent databases, full disks, cancellations and kill -9."""

import asyncio
import base64
import json
import signal
import subprocess
import sys
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.clock import SystemClock
from penstock.stores.base import StoreFailed, StoreRefused
from penstock.stores.bookkeeper import Bookkeeper
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.ledger import HOUR_MICROS, SqlLedger
from penstock.stores.migrate import migrate
from penstock.stores.spool import Spool
from penstock.testing import virtual_loop
from tests.stores.conftest import empty_schema
from tests.stores.sums import sums


class FakeLedger:
    """Does what `behave` says before it takes a batch, or after, when the answer is what gets lost."""

    def __init__(self, loop):
        self.rows = {}
        self.batches = []  # when, and how many
        self.loop = loop
        self.before = self.after = lambda entries: None

    async def append(self, entries):
        await self._wait(self.before(entries))
        self.batches.append((round(self.loop.now(), 3), len(entries)))
        new = [entry for entry in entries if entry.request_id not in self.rows]
        self.rows.update({entry.request_id: entry for entry in new})
        await self._wait(self.after(entries))
        return len(new)

    async def _wait(self, seconds):
        if seconds:
            await asyncio.sleep(seconds)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Runs `main(loop, ledger, make)` in virtual time; `make` makes a bookkeeper, again after a crash."""

    async def here(work, *arguments):
        return work(*arguments)  # a thread would not know that time is virtual

    monkeypatch.setattr(asyncio, "to_thread", here)

    def run(main):
        async def world(loop):
            ledger = FakeLedger(loop)

            def make(spool=None, **options):
                return Bookkeeper(ledger, spool or Spool.claim(tmp_path), loop, Random(1), **options)

            return await main(loop, ledger, make)

        return virtual_loop.run(world)

    return run


def fail(error):
    def behave(entries):
        raise error

    return behave


def rows(first, n=1):
    return [Entry(f"r{number}", number, cost_nanos=number) for number in range(first, first + n)]


async def stop(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_row_waits_for_others_and_no_longer_than_it_should(world):
    async def main(loop, ledger, make):
        books = make(batch_rows=10, batch_seconds=0.05)
        task = loop.create_task(books.run())
        await asyncio.sleep(1)
        assert books.record(rows(0)[0])
        await asyncio.sleep(0.03)
        assert books.record(rows(1)[0])
        assert (books.waiting, books.behind(loop.now())) == (2, pytest.approx(0.03))
        await asyncio.sleep(1)
        assert ledger.batches == [(1.05, 2)]
        assert (books.waiting, books.behind(loop.now())) == (0, 0.0)
        for entry in rows(2, 25):
            books.record(entry)
        await asyncio.sleep(0.001)
        assert ledger.batches[1:] == [(2.03, 10), (2.03, 10)]
        await asyncio.sleep(0.05)
        assert ledger.batches[3:] == [(2.08, 5)]
        assert (books.written, books.repeated, books.failures, books.lost) == (27, 0, 0, 0)
        await stop(task)

    world(main)


def test_a_database_that_is_gone_is_asked_less_and_less_and_gets_everything_when_it_is_back(world):
    async def main(loop, ledger, make):
        asked = []

        def gone(entries):
            asked.append(loop.now())
            raise StoreFailed("away")

        ledger.before = gone
        books = make(batch_rows=10)
        task = loop.create_task(books.run())
        for entry in rows(0, 35):
            assert books.record(entry)
            await asyncio.sleep(1)
        assert books.waiting == 35 and ledger.rows == {}
        assert books.behind(loop.now()) == pytest.approx(35)
        waits = [later - earlier for earlier, later in pairwise(asked)]
        assert books.failures == len(asked) < 12
        assert max(waits) < 11 and waits[0] < 0.3
        ledger.before = lambda entries: None
        await asyncio.sleep(11)
        assert sorted(ledger.rows.values(), key=lambda one: one.at_micros) == rows(0, 35)
        assert (books.written, books.waiting) == (35, 0)
        await stop(task)

    world(main)


def test_while_the_database_is_gone_rows_are_synced_to_the_disk(world, tmp_path, monkeypatch):
    async def main(loop, ledger, make):
        synced = []
        monkeypatch.setattr(Spool, "sync", lambda spool: synced.append(spool.waiting))
        ledger.before = fail(StoreFailed("away"))
        books = make()
        task = loop.create_task(books.run())
        books.record(rows(0)[0])
        await asyncio.sleep(1)
        assert synced and set(synced) == {1}
        await stop(task)

    world(main)


def test_a_database_that_does_not_answer_is_given_up_and_what_it_took_counts_once(world):
    async def main(loop, ledger, make):
        ledger.after = lambda entries: 100.0  # it is written, and nobody hears of it
        books = make(patience=2.0)
        task = loop.create_task(books.run())
        for entry in rows(0, 5):
            books.record(entry)
        await asyncio.sleep(2.1)
        assert (books.failures, books.waiting, len(ledger.rows)) == (1, 5, 5)
        ledger.after = lambda entries: None
        await asyncio.sleep(5)
        assert (books.written, books.repeated, books.waiting) == (0, 5, 0)
        assert list(ledger.rows.values()) == rows(0, 5)
        await stop(task)

    world(main)


def test_a_row_that_the_database_will_never_take_keeps_no_other_from_it(world, tmp_path):
    async def main(loop, ledger, make):
        def refuse(entries):
            if any(entry.at_micros in (3, 17) for entry in entries):
                raise StoreRefused("not this one")

        ledger.before = refuse
        books = make()
        for entry in rows(0, 20):
            books.record(entry)
        assert await books.write_batch() == 20
        assert sorted(one.at_micros for one in ledger.rows.values()) == [n for n in range(20) if n not in (3, 17)]
        assert (books.written, books.set_aside, books.waiting) == (18, 2, 0)
        lines = [json.loads(line) for line in (tmp_path / "0" / "set-aside.jsonl").read_text().splitlines()]
        assert [line["why"] for line in lines] == ["not this one"] * 2
        assert b"r17" in base64.b64decode(lines[1]["record"])

    world(main)


def test_a_record_that_this_version_cannot_read_is_kept_for_people(world, tmp_path):
    async def main(loop, ledger, make):
        spool = Spool.claim(tmp_path)
        books = make(spool)
        spool.append(b"\xc1 never used by MessagePack")
        books.record(rows(1)[0])
        await books.write_batch()
        assert list(ledger.rows.values()) == rows(1)
        assert (books.set_aside, books.waiting) == (1, 0)
        assert "set-aside.jsonl" in {path.name for path in (tmp_path / "0").iterdir()}

    world(main)


def test_rows_of_an_earlier_version_that_knew_less_are_read():
    from msgspec import msgpack

    earlier = msgpack.encode({"request_id": "r", "at_micros": 5, "cost_nanos": 7, "gone_since": "then"})
    assert msgpack.decode(earlier, type=Entry) == Entry("r", 5, cost_nanos=7)


def test_when_the_disk_is_full_memory_keeps_rows_and_only_then_are_they_lost_and_counted(world, tmp_path):
    async def main(loop, ledger, make):
        books = make(Spool(tmp_path / "small", max_bytes=200), max_unspooled=4)
        told = [books.record(entry) for entry in rows(0, 20)]
        n = told.index(False)
        assert 4 < n < 15 and not any(told[n:])
        assert (books.lost, books.waiting) == (20 - n, n)
        task = loop.create_task(books.run())
        await asyncio.sleep(1)
        assert sorted(one.at_micros for one in ledger.rows.values()) == list(range(n))
        assert books.record(rows(30)[0])  # there is room again
        await stop(task)

    world(main)


def test_what_a_killed_process_left_is_written_by_the_next_one(world, tmp_path):
    async def main(loop, ledger, make):
        dead, other = Spool.claim(tmp_path), Spool.claim(tmp_path)
        for spool, first in ((dead, 0), (other, 10)):
            books = make(spool)
            for entry in rows(first, 10):
                books.record(entry)
        dead.close()
        books = make()  # has the place of the first
        task = loop.create_task(books.run())
        await asyncio.sleep(0.1)
        assert sorted(one.at_micros for one in ledger.rows.values()) == list(range(10))
        assert await books.adopt(tmp_path) == 0  # the other lives
        other.close()
        assert await books.adopt(tmp_path) == 10
        assert sorted(one.at_micros for one in ledger.rows.values()) == list(range(20))
        await stop(task)

    world(main)


def test_an_adopted_spool_is_let_go_as_it_was_when_the_database_is_gone(world, tmp_path):
    async def main(loop, ledger, make):
        mine = make()
        for first in (0, 10):
            dead = Spool(tmp_path / f"dead-{first}")
            make(dead).record(rows(first)[0])
            dead.close()
        ledger.before = fail(StoreFailed("away"))
        with pytest.raises(StoreFailed):
            await mine.adopt(tmp_path)
        ledger.before = lambda entries: None
        assert await mine.adopt(tmp_path) == 2

    world(main)


def test_closing_writes_what_waits_and_says_what_is_left(world, tmp_path):
    async def main(loop, ledger, make):
        books = make()
        for entry in rows(0, 3):
            books.record(entry)
        assert await books.close(within=5.0) == 0
        assert len(ledger.rows) == 3
        books = make()
        ledger.before = lambda entries: 60.0
        for entry in rows(3, 2):
            books.record(entry)
        before = loop.now()
        assert await books.close(within=5.0) == 2
        assert loop.now() - before == pytest.approx(5.0)
        ledger.before = lambda entries: None
        assert await make().write_batch() == 2
        assert len(ledger.rows) == 5

    world(main)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.integers(1, 30)  # so many rows
        | st.floats(0.0, 3.0)  # seconds that pass
        | st.sampled_from(["fail", "silent", "slow", "well", "cancel", "crash"]),
        max_size=40,
    )
)
def test_whatever_happens_every_row_that_was_taken_is_in_the_ledger_once(tmp_path_factory, world, steps):
    folder = tmp_path_factory.mktemp("spools")

    async def main(loop, ledger, make):
        def begin():
            books = make(Spool.claim(folder), batch_rows=7, patience=1.0)
            return books, loop.create_task(books.run())

        (books, task), taken = begin(), []
        for step in steps:
            if isinstance(step, int):
                for entry in rows(len(taken), step):
                    assert books.record(entry)
                    taken.append(entry)
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif step in ("cancel", "crash"):
                await stop(task)
                if step == "cancel":
                    await books.close(within=0.5)
                else:
                    books._spool.close()
                books, task = begin()
            else:
                slow, silent = 0.5 * (step == "slow"), 5.0 * (step == "silent")
                ledger.before = fail(StoreFailed("away")) if step == "fail" else lambda entries, slow=slow: slow
                ledger.after = lambda entries, silent=silent: silent
        ledger.before = ledger.after = lambda entries: None
        await asyncio.sleep(30)
        assert sorted(ledger.rows.values(), key=lambda one: one.at_micros) == taken
        assert books.waiting == 0
        await stop(task)
        await books.close(within=1.0)

    world(main)


WORKER = """
import asyncio, sys
from pathlib import Path
from random import Random
from penstock.core.clock import SystemClock
from penstock.stores.bookkeeper import Bookkeeper
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.ledger import SqlLedger
from penstock.stores.spool import Spool

async def main():
    ledger = SqlLedger(await open_database(sys.argv[1]))
    spool = Spool.claim(Path(sys.argv[2]))
    books = Bookkeeper(ledger, spool, SystemClock(), Random(1), batch_rows=20, batch_seconds=0.002)
    task = asyncio.create_task(books.run())
    for number in range(int(sys.argv[3]), 10**9):
        assert books.record(Entry(f"r{number}", number, org=f"o{number % 3}", cost_nanos=number))
        print(number, flush=True)
        if number % 10 == 0:
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


@pytest.mark.timeout(180)  # forty processes, one after another
def test_kill_9_at_any_moment_loses_no_row_and_counts_none_twice(url, tmp_path, rng):
    async def prepare():
        database = await open_database(url)
        await migrate(database, now=0.0)
        await database.close()

    async def settle():
        database = await open_database(url)
        ledger = SqlLedger(database)
        books = Bookkeeper(ledger, Spool.claim(tmp_path / "spools"), SystemClock(), Random(1))
        while books.waiting:
            await books.write_batch()
        found, after = [], None
        while page := await ledger.entries(0, HOUR_MICROS, after=after):
            found += page
            after = page[-1]
        assert await ledger.disagreeing_hours(0, HOUR_MICROS) == []
        (total,) = await sums(database, [], 0, HOUR_MICROS)
        assert await books.close(within=5.0) == 0
        await database.close()
        return [one.at_micros for one in found], total

    asyncio.run(prepare())
    told, begin, kills = set(), 0, 20
    for _ in range(kills):
        command = [sys.executable, "-c", WORKER, url, str(tmp_path / "spools"), str(begin)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            lines = [worker.stdout.readline() for _ in range(rng.randrange(1, 300))]
            worker.send_signal(signal.SIGKILL)
            lines += worker.stdout.readlines()
        told.update(int(line) for line in lines if line.endswith("\n"))
        begin = max(told) + 2  # the one after the last may have been taken without our being told
    found, total = asyncio.run(settle())
    assert told <= set(found)
    assert len(found) == len(set(found)) <= len(told) + kills
    assert (total.requests, total.cost_nanos) == (len(found), sum(found))


def test_a_server_that_crashes_and_comes_back_has_every_row_once(postgres, tmp_path):
    async def main():
        database = await open_database(await empty_schema(postgres))
        await migrate(database, now=0.0)
        ledger = SqlLedger(database)
        books = Bookkeeper(ledger, Spool.claim(tmp_path), SystemClock(), Random(1), batch_rows=10, batch_seconds=0.0)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(books.run())
            for n, entry in enumerate(rows(0, 300)):
                assert books.record(entry)
                if n % 20 == 0:
                    await asyncio.sleep(0.005)
                if n == 100:
                    await asyncio.to_thread(postgres.stop)
                if n == 250:
                    assert books.failures and books.waiting > 100
                    await asyncio.to_thread(postgres.start)
            while books.waiting:  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.01)
            task.cancel()
        assert await ledger.entries(0, HOUR_MICROS) == rows(0, 300)
        assert await ledger.disagreeing_hours(0, HOUR_MICROS) == []
        assert await books.close(within=1.0) == 0
        await database.close()

    try:
        asyncio.run(main())
    finally:
        postgres.start()
