"""A request that ends with its worker has a row: whatever kills the worker, wherever it was writing, and only one."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.clock import SystemClock
from penstock.core.request import Usage
from penstock.pricing.usage_report import read_report
from penstock.stores import flight as flights
from penstock.stores.base import StoreFailed
from penstock.stores.begun import GATEWAY_CRASHED, Begun, row_of
from penstock.stores.bookkeeper import Bookkeeper
from penstock.stores.corrections import Corrections
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.entry_checks import MAX_TEXT_BYTES
from penstock.stores.flight import FIRST, NAME, NONE, SLOT, Flight
from penstock.stores.ledger import HOUR_MICROS, Span, SqlLedger
from penstock.stores.migrate import migrate
from penstock.stores.spool import Spool
from tests.stores.sums import sums


def begun(id, **more):
    return Begun(id, 1_700_000_000.25, model="gpt-5-mini", prompt_tokens=10, max_tokens=100, cost_nanos=5_000, **more)


def left(folder):
    """Ids that the next process would find; looked at in a copy."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        flight, found = Flight(Path(copy)), []
        flight.hand_over(lambda record: found.append(row_of(record).request_id) is None)
        flight.close()
        return found


class FakeLedger:
    def __init__(self):
        self.rows = {}
        self.away = False

    async def append(self, entries):
        if self.away:
            raise StoreFailed("away")
        new = [entry for entry in entries if entry.request_id not in self.rows]
        for entry in entries:
            self.rows.setdefault(entry.request_id, entry)
        return len(new)


def books_in(folder, ledger=None, **options):
    return Bookkeeper(ledger or FakeLedger(), Spool(folder, **options), SystemClock(), Random(1))


async def write_all(books):
    while books.waiting:
        await books.write_batch()


def test_what_has_begun_is_found_by_the_next_process_until_it_has_ended(tmp_path):
    flight = Flight(tmp_path)
    first, second = flight.begin(begun("r1")), flight.begin(begun("r2"))
    assert left(tmp_path) == ["r1", "r2"] and flight.in_use == 2
    flight.end(first)
    assert left(tmp_path) == ["r2"]
    assert flight.begin(begun("r3")) == first  # whose memory is warm
    flight.end(second)
    assert left(tmp_path) == ["r3"] and flight.refused == 0
    flight.close()
    assert left(tmp_path) == ["r3"]


def test_its_row_says_that_it_is_an_estimate_and_why():
    request = begun(
        "r1", org="acme", team="ads", key_id="web", user_hash="u", feature="chat", session="s", tags=("app=x", "beta"),
        deployment="openai", endpoint="chat.completions", price_version="table 2026-01-01",
    )  # fmt: skip
    assert row_of(msgspec.msgpack.encode(request)) == Entry(
        "r1", 1_700_000_000_250_000, org="acme", team="ads", key_id="web", user_hash="u", feature="chat", session="s",
        tags='{"app":"x","beta":""}', model="gpt-5-mini", deployment="openai", endpoint="chat.completions", status=500,
        error=GATEWAY_CRASHED, input_tokens=10, output_tokens=100, usage_source="estimate", cost_nanos=5_000,
        price_version="table 2026-01-01",
    )  # fmt: skip


def test_when_nothing_is_in_flight_nothing_is_left_behind(tmp_path):
    flight = Flight(tmp_path)
    slot = flight.begin(begun("r1"))
    flight.end(slot)
    flight.close()
    flight.close()
    assert list(tmp_path.iterdir()) == []
    assert flight.begin(begun("r2")) == NONE  # too late
    flight.end(slot)


def test_there_are_slots_for_as_many_as_are_allowed_and_more_go_without(tmp_path):
    flight = Flight(tmp_path, most=FIRST * 3)
    slots = [flight.begin(begun(f"r{n}")) for n in range(FIRST * 3 + 2)]
    assert slots[-2:] == [NONE, NONE] and flight.refused == 2
    assert len(set(slots[:-2])) == flight.in_use == FIRST * 3
    flight.end(NONE)
    flight.end(slots[7])
    assert flight.begin(begun("again")) == slots[7]
    assert sorted(left(tmp_path)) == sorted([*(f"r{n}" for n in range(FIRST * 3) if n != 7), "again"])


def test_a_file_that_was_long_is_as_short_again_as_what_is_left_in_it(tmp_path):
    flight = Flight(tmp_path)
    slots = [flight.begin(begun(f"r{n}")) for n in range(FIRST * 2)]
    for slot in slots[5:]:
        flight.end(slot)
    flight.close()
    assert (tmp_path / NAME).stat().st_size == FIRST * 2 * SLOT
    flight = Flight(tmp_path, most=3)  # the one before was allowed more
    assert (tmp_path / NAME).stat().st_size == 5 * SLOT
    assert flight.begin(begun("r")) != NONE and flight.in_use == 6
    assert sorted(left(tmp_path)) == ["r", *(f"r{n}" for n in range(5))]


def test_a_full_disk_costs_the_guard_and_not_the_request(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    flight = Flight(tmp_path)
    assert flight.begin(begun("r1")) == NONE and flight.refused == 1
    monkeypatch.undo()
    assert flight.begin(begun("r2")) != NONE
    assert left(tmp_path) == ["r2"]


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(StoreFailed, match="cannot be used for what is in flight"):
        Flight(tmp_path)


def test_a_slot_is_ended_once(tmp_path):
    flight = Flight(tmp_path)
    slot = flight.begin(begun("r1"))
    flight.end(slot)
    with pytest.raises(AssertionError, match="ended before"):
        flight.end(slot)


@pytest.mark.parametrize("character", ["x", "ü", "\ud800", "\0"])
def test_whatever_texts_a_request_has_they_fit_and_can_be_stored(tmp_path, character):
    text = character * 5_000
    texts = [name for name, kind in Begun.__annotations__.items() if kind == "str"]
    assert len(texts) == 11
    flight = Flight(tmp_path)
    slot = flight.begin(Begun(at=1e9, tags=(text,) * 100, max_tokens=10**30, **dict.fromkeys(texts, text)))
    found = []
    flight.end(slot)
    flight.begin(Begun("r", 1e9, tags=("t" * 200,) * 16))
    flight.close()
    Flight(tmp_path).hand_over(lambda record: found.append(row_of(record)) is None)
    assert found[0].tags == "{}" and found[0].request_id == "r"
    assert slot != NONE
    again = Begun(at=1e9, max_tokens=10**30, **dict.fromkeys(texts, text)).entry()
    assert 250 < len(again.org.encode()) <= MAX_TEXT_BYTES and again.output_tokens == 10**12


@given(data=st.data())
@settings(max_examples=60)
def test_whatever_a_loss_of_power_did_to_the_file_no_row_is_made_up(data):
    """Bytes are changed anywhere; a request is then as it was, or not there."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        flight = Flight(folder)
        for n in range(5):
            flight.begin(begun(f"r{n}"))
        flight.close()
        content = bytearray((folder / NAME).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(
                st.integers(0, 5 * SLOT - 1) | st.sampled_from([n * SLOT + k for n in range(5) for k in range(9)])
            )
            some = data.draw(st.binary(min_size=1, max_size=64))
            content[at : at + len(some)] = some
        (folder / NAME).write_bytes(content[: data.draw(st.integers(0, len(content)))])
        flight, found = Flight(folder), []
        flight.hand_over(lambda record: found.append(row_of(record)) is None)
        assert {row.request_id for row in found} <= {f"r{n}" for n in range(5)}
        assert all(row == begun(row.request_id).entry() for row in found)
        assert flight.in_use == 0
        flight.begin(begun("next"))
        assert left(folder) == ["next"]
        flight.close()


# --- killed at any moment ---


class Watched:
    """Memory that is looked at before it is written, when half of it is written, and afterwards."""

    def __init__(self, inner, look):
        self._inner, self._look = inner, look

    def __setitem__(self, key, value):
        self._look()
        if isinstance(key, slice):
            half = len(value) // 2
            self._inner[key.start : key.start + half] = value[:half]
            self._look()
        self._inner[key] = value
        self._look()

    def __getitem__(self, key):
        return self._inner[key]

    def __getattr__(self, name):
        return getattr(self._inner, name)


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_killed_between_any_two_writes_every_request_has_its_own_row_or_an_estimate_and_never_two(steps):
    """A number that is in flight is recorded, and begins when it is not. The next process looks at a copy of the files
    after every write, and after half of it."""
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(flights, "FIRST", 1)  # so that it has to grow
        folder = Path(place) / "0"
        begins, recorded = {}, []  # by id, whether it is certain
        looks = 0

        def look():
            nonlocal looks
            looks += 1
            copy = Path(shutil.copytree(folder, Path(place) / f"crash-{looks}" / "0"))
            patch.setattr(os, "write", write)
            rows = {}
            next_books = books_in(copy)
            for record in chain.from_iterable(Spool.waiting_under(copy.parent)):
                row = msgspec.msgpack.decode(record, type=Entry)
                rows.setdefault(row.request_id, row)
            assert rows.keys() - {id for id, certain in begins.items() if not certain} == {
                id for id, certain in begins.items() if certain
            }
            for id in recorded:
                assert rows[id] == Entry(id, 5, cost_nanos=7)
            for id, row in rows.items():
                assert row in (Entry(id, 5, cost_nanos=7), begun(id).entry())
            next_books.let_go()
            again = books_in(copy)  # who was killed after taking over, or has not been heard
            assert again.crashed == 0 and again.waiting == next_books.waiting
            again.let_go()
            shutil.rmtree(copy.parent)
            patch.setattr(os, "write", watched_write)

        write = os.write

        def watched_write(file, data):
            n = write(file, data[: len(data) // 2])
            look()
            n += write(file, data[len(data) // 2 :])
            look()
            return n

        books = books_in(folder)
        flight = books._flight
        flight._file, flight._words = Watched(flight._file, look), Watched(flight._words, look)
        patch.setattr(os, "write", watched_write)
        in_flight = {}
        for number, step in enumerate(steps):
            if step in in_flight:
                id, slot = in_flight.pop(step)
                assert books.record(Entry(id, 5, cost_nanos=7), slot)
                recorded.append(id)
            else:
                id = f"r{number}"
                begins[id] = False
                in_flight[step] = id, books.begin(begun(id))
                begins[id] = True
        look()
        patch.undo()
        assert looks > 3 * len(steps)
        books.let_go()


async def adopt(folder, ledger):
    mine = Bookkeeper(ledger, Spool.claim(folder), SystemClock(), Random(1))
    await write_all(mine)
    n = await mine.adopt(folder)
    mine.let_go()
    return n


def test_a_row_of_its_own_goes_before_the_estimate_when_both_are_found(tmp_path):
    """Killed after the row was in the spool, and before the slot was ended."""

    async def main():
        ledger = FakeLedger()
        books = books_in(tmp_path / "5", ledger)
        slots = [books.begin(begun(f"r{n}")) for n in range(2)]
        books.record(Entry("r0", 5, cost_nanos=7))
        assert slots == [0, 1] and books.in_flight == 2
        books.let_go()
        assert await adopt(tmp_path, ledger) == 3
        assert ledger.rows == {"r0": Entry("r0", 5, cost_nanos=7), "r1": begun("r1").entry()}
        assert await adopt(tmp_path, ledger) == 0
        assert {path.name for path in (tmp_path / "5").iterdir()} == {"lock", "cursor"}

    asyncio.run(main())


def test_adopting_waits_for_the_database_and_leaves_the_living_alone(tmp_path):
    async def main():
        ledger = FakeLedger()
        alive, dead = books_in(tmp_path / "7"), books_in(tmp_path / "8")
        for name, books in (("living", alive), ("dead", dead)):
            books.begin(begun(name))
        dead.let_go()
        ledger.away = True
        for _ in range(3):
            with pytest.raises(StoreFailed):
                await adopt(tmp_path, ledger)
        ledger.away = False
        assert await adopt(tmp_path, ledger) == 1
        assert list(ledger.rows) == ["dead"] and alive.in_flight == 1
        alive.let_go()
        assert await adopt(tmp_path, ledger) == 1
        assert list(ledger.rows) == ["dead", "living"]

    asyncio.run(main())


def test_who_has_the_place_of_a_dead_worker_takes_over_what_it_had_in_flight(tmp_path):
    async def main():
        ledger = FakeLedger()
        dead = books_in(tmp_path)
        dead.begin(begun("r1"))
        dead.let_go()
        books = books_in(tmp_path, ledger)
        assert (books.crashed, books.waiting, books.in_flight) == (1, 1, 0)
        slot = books.begin(begun("r2"))
        await write_all(books)
        assert list(ledger.rows) == ["r1"]
        books.record(Entry("r2", 5), slot)
        assert await books.close(within=5.0) == 0
        assert ledger.rows["r2"] == Entry("r2", 5)
        assert not (tmp_path / NAME).exists()

    asyncio.run(main())


def test_while_the_spool_is_full_a_dead_workers_requests_stay_where_they_are(tmp_path):
    async def main():
        ledger = FakeLedger()
        dead = books_in(tmp_path)
        for n in range(20):
            dead.begin(begun(f"r{n}"))
        dead.let_go()
        books = books_in(tmp_path, ledger, max_bytes=1_000, segment_bytes=300)
        assert 0 < books.crashed < 20 and books.in_flight == 20 - books.crashed
        for _ in range(20):
            await write_all(books)
            assert await books.adopt(tmp_path) == 0
        assert set(ledger.rows) == {f"r{n}" for n in range(20)} and books.in_flight == 0

    asyncio.run(main())


def test_a_row_that_is_only_in_memory_has_its_estimate_on_the_disk_until_it_is_in_the_ledger(tmp_path):
    async def main():
        ledger = FakeLedger()
        books = books_in(tmp_path, ledger, max_bytes=1)
        slot = books.begin(begun("r1"))
        assert books.record(Entry("r1", 5, cost_nanos=7), slot)
        assert left(tmp_path) == ["r1"] and books.in_flight == 1
        await write_all(books)
        assert left(tmp_path) == [] and books.in_flight == 0
        assert list(ledger.rows.values()) == [Entry("r1", 5, cost_nanos=7)]

    asyncio.run(main())


def test_what_this_version_cannot_read_is_kept_for_people(tmp_path):
    async def main():
        dead = Flight(tmp_path)
        dead.begin(begun("r1"))
        dead.begin(begun("r2"))
        dead._file[8] = 0xC1  # never used by MessagePack
        record = dead._file[8 : 8 + (dead._words[0] & 0xFFFF_FFFF)]
        dead._words[0] = flights._word(record)
        dead.close()
        ledger = FakeLedger()
        books = books_in(tmp_path, ledger)
        await write_all(books)
        assert list(ledger.rows) == ["r2"] and books.set_aside == 1
        assert "set-aside.jsonl" in {path.name for path in tmp_path.iterdir()}

    asyncio.run(main())


WORKER = """
import asyncio, os, sys
from pathlib import Path
from random import Random
from penstock.core.clock import SystemClock
from penstock.stores.bookkeeper import Bookkeeper
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.begun import Begun
from penstock.stores.ledger import SqlLedger
from penstock.stores.spool import Spool

url, spools, provider, life = sys.argv[1:]
log = os.open(provider, os.O_APPEND | os.O_WRONLY | os.O_CREAT)

async def main():
    rng = Random(int(life))
    ledger = SqlLedger(await open_database(url))
    spool = Spool.claim(Path(spools))
    books = Bookkeeper(ledger, spool, SystemClock(), rng, batch_rows=20, batch_seconds=0.002)
    tasks = [asyncio.create_task(books.run()), asyncio.create_task(books.adopt(Path(spools)))]

    async def request(n):
        id, nanos = f"r{life}-{n}", rng.randrange(1, 10**6)
        slot = books.begin(Begun(id, 60.0, org=f"o{n % 3}", prompt_tokens=9, max_tokens=99, cost_nanos=10**6))
        if n % 7 == 0:
            await asyncio.sleep(0)  # the upstream is being connected to
        if n % 11:  # else it cannot be reached
            os.write(log, b"%s,%d\\n" % (id.encode(), nanos))
        else:
            nanos = 0
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(0.0005 * rng.random())
        assert books.record(Entry(id, 60_000_000, org=f"o{n % 3}", cost_nanos=nanos), slot)

    begun = set()
    for n in range(10**9):
        task = asyncio.create_task(request(n))
        begun.add(task)
        task.add_done_callback(begun.discard)
        if n % 10 == 0:
            await asyncio.sleep(0.001)
            os.write(1, b".")

asyncio.run(main())
"""


@pytest.mark.timeout(180)  # twenty processes, one after another
def test_kill_9_under_load_leaves_books_that_are_the_providers_own_once_it_has_reported(url, tmp_path, rng):
    provider, spools = tmp_path / "provider.csv", tmp_path / "spools"
    provider.write_text("request_id,cost_nanos\n")

    async def prepare():
        database = await open_database(url)
        await migrate(database, now=0.0)
        await database.close()

    async def settle():
        database = await open_database(url)
        ledger, corrections = SqlLedger(database), Corrections(database)
        assert await adopt(spools, ledger) >= 0
        found, after = {}, None
        while page := await ledger.entries(0, HOUR_MICROS, after=after):
            found.update((row.request_id, row) for row in page)
            after = page[-1]
        with provider.open() as file:
            report = read_report(file)
        got = {one.request_id: one.nanos for one in report}
        crashed = {id for id, row in found.items() if row.error == GATEWAY_CRASHED}
        assert got.keys() <= found.keys()  # none is missing
        assert all(got.get(id, 0) == row.cost_nanos for id, row in found.items() if id not in crashed)
        assert 0 < len(crashed) < len(found)
        everything = Span((), 0, HOUR_MICROS)
        done = await corrections.apply(report, complete=everything)
        assert done.corrected == len(crashed) and done.never_got == len(crashed - got.keys()) and not done.unknown
        (total,) = await sums(database, [], 0, HOUR_MICROS)
        assert (total.cost_nanos, total.requests, total.errors) == (sum(got.values()), len(found), len(crashed))
        assert await ledger.spent([everything]) == [sum(got.values())]
        again = await corrections.apply(report, complete=everything)
        assert (again.corrected, again.agreed) == (0, len(got))
        assert await ledger.disagreeing_hours(0, HOUR_MICROS) == []
        await database.close()

    asyncio.run(prepare())
    for life in range(20):
        command = [sys.executable, "-c", WORKER, url, str(spools), str(provider), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
            worker.stdout.read(rng.randrange(1, 60))
            worker.send_signal(signal.SIGKILL)
    asyncio.run(settle())


def test_the_usage_of_an_estimate_is_all_prompt_and_answer():
    row = begun("r").entry()
    assert Usage(row.input_tokens, row.output_tokens) == Usage(10, 100)
