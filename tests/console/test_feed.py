"""Requests as they end: told to those who watch, without anybody waiting for who reads slowly."""

import asyncio
import json

import pytest

from penstock.app.listen import bind
from penstock.config.load import load
from penstock.console import feed
from penstock.console.desk import Desk
from penstock.console.feed import A_SECOND, MOST_WAITING, Feed, Listener
from penstock.console.lines import line
from penstock.console.reports import Ended
from penstock.console.server import AdminServer
from penstock.core.clock import ManualClock
from penstock.stores.migrate import migrate
from penstock.stores.sqlite_database import SqliteDatabase
from tests.console.conftest import FILE, KEYS
from tests.console.outcomes import HOSTILE, kept

NOW = {"at": 0.0}


def events(data):
    """Names and data, as a browser would see them."""
    found = []
    for block in data.decode().split("\n\n"):
        lines = dict(one.split(": ", 1) for one in block.splitlines() if ": " in one)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def everything(_):
    return True


def lines(n, **fields):
    return [line(kept(**fields)) for _ in range(n)]


def test_a_line_is_told_once():
    listener = Listener(everything)
    listener.hear(lines(2), 0)
    assert [name for name, _ in events(listener.take(NOW))] == ["line", "line", "now"]
    assert events(listener.take(None)) == []


def test_nobody_is_told_more_than_they_can_read_in_a_second_and_hears_of_the_rest():
    listener = Listener(everything)
    listener.take(NOW)
    listener.hear(lines(A_SECOND + 30), 0)
    assert len(events(listener.take(None))) == A_SECOND and events(listener.take(None)) == []
    found = events(listener.take(NOW))
    assert sum(name == "line" for name, _ in found) + dict(found).get("dropped", {"n": 0})["n"] == 30


def test_who_does_not_read_costs_bounded_memory_and_is_told_how_much_they_missed():
    listener = Listener(everything)
    for _ in range(100):
        listener.hear(lines(50), 10)
    assert len(listener._lines) == MOST_WAITING
    found = events(listener.take(NOW))
    assert sum(name == "line" for name, _ in found) + dict(found)["dropped"]["n"] == 100 * 60


def test_a_filter_leaves_out_what_was_not_asked_for():
    listener = Listener(lambda one: one["model"] == "embed")
    listener.hear([*lines(3), *lines(1, model="embed")], 0)
    assert [data["model"] for name, data in events(listener.take(NOW)) if name == "line"] == ["embed"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_can_end_an_event_or_begin_another(text):
    listener = Listener(everything)
    listener.hear(lines(1, model=text, session=text), 0)
    found = events(listener.take(NOW))
    assert [name for name, _ in found] == ["line", "now"] and found[0][1]["model"] == text


# --- over real sockets ---


def served(tmp_path, work):
    async def main():
        database = SqliteDatabase(tmp_path / "books.db")
        await migrate(database, now=0.0)
        config = [load(FILE, "")]
        desk = Desk(ManualClock())
        told = []
        server = AdminServer(
            database,
            lambda: config[0],
            clock=ManualClock(),
            entropy=lambda n: b"e" * n,
            pepper=None,
            tell=told.append,
            desk=desk,
        )
        await server.start(bind("127.0.0.1", 0))
        try:
            async with asyncio.timeout(20.0):
                return await work(server, desk, config)
        finally:
            await server.stop()
            await database.close()
            assert told == []

    return asyncio.run(main())


async def watching(server, query="", key=KEYS["owner"]):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"GET /console/api/live{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
    writer.write(head.encode())
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def until(reader, name):
    """The data of the next event that is called that."""
    while True:
        block = await reader.readuntil(b"\n\n")
        if f"event: {name}".encode() in block:
            return json.loads(block.partition(b"data: ")[2])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(feed, "EVERY", 0.001)


def test_what_ends_is_seen_by_who_watches(tmp_path):
    async def work(server, desk, _):
        reader, writer, head = await watching(server, "?model=embed")
        assert b"200 OK" in head and b"text/event-stream" in head and b"cache-control: no-store" in head
        await until(reader, "now")
        desk.ended(Ended((kept(), kept(id="seen", model="embed"))))
        assert (await until(reader, "line"))["id"] == "seen"
        writer.close()

    served(tmp_path, work)


def test_who_leaves_is_forgotten(tmp_path):
    async def work(server, desk, _):
        reader, writer, _ = await watching(server)
        await until(reader, "now")
        writer.close()
        await writer.wait_closed()
        while desk.feed.listeners:  # noqa: ASYNC110 - the server hears of it in some turn of the loop
            await asyncio.sleep(0)

    served(tmp_path, work)


@pytest.mark.parametrize("key", [None, "sk-canary-wrong", KEYS["billing"]])
def test_nobody_watches_who_may_not(tmp_path, key):
    async def work(server, desk, _):
        _, writer, head = await watching(server, key=key)
        writer.close()
        return head

    assert served(tmp_path, work).split(b" ")[1] in (b"401", b"403")


def test_who_looks_after_one_organisation_sees_its_requests_alone(tmp_path):
    async def work(server, desk, _):
        reader, writer, _ = await watching(server, key=KEYS["acme"])
        await until(reader, "now")
        desk.ended(Ended((kept(id="theirs", tenant="globex"), kept(id="ours"))))
        seen = await until(reader, "line")
        writer.close()
        return seen["id"]

    assert served(tmp_path, work) == "ours"


def test_a_reload_that_takes_the_key_out_ends_what_is_being_watched(tmp_path):
    async def work(server, desk, config):
        reader, writer, _ = await watching(server)
        await until(reader, "now")
        config[0] = load("\n".join(one for one in FILE.splitlines() if "id: owner" not in one), "")
        rest = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        return rest

    assert served(tmp_path, work).endswith(b"0\r\n\r\n")


def test_there_are_so_many_who_watch(tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "MOST_LISTENERS", 1)

    async def work(server, desk, _):
        reader, writer, _ = await watching(server)
        await until(reader, "now")
        _, other, head = await watching(server)
        writer.close()
        other.close()
        return head

    assert b" 503 " in served(tmp_path, work).splitlines()[0]


def test_a_server_that_stops_does_not_wait_for_who_watches(tmp_path):
    async def work(server, desk, _):
        reader, writer, _ = await watching(server)
        await until(reader, "now")
        await server.stop()
        assert not desk.feed.listeners
        writer.close()

    served(tmp_path, work)


class Slow:
    """An exchange whose caller does not read."""

    def __init__(self):
        self.reads = asyncio.Event()
        self.sent = []
        self.waits = asyncio.Event()

    def start(self, *_):
        pass

    def write(self, data):
        self.sent.append(data)

    def finish(self):
        pass

    async def drain(self):
        self.waits.set()
        await self.reads.wait()


def test_a_slow_reader_waits_alone():
    async def main():
        told = Feed(lambda: NOW)
        slow = Slow()
        on = [True]
        async with asyncio.TaskGroup() as group:
            group.create_task(told.listen(slow, everything, lambda: on[0]))
            await slow.waits.wait()
            for _ in range(1_000):
                told.hear(lines(1), 0)  # returns at once
            assert len(slow.sent) == 1
            on[0] = False
            slow.reads.set()
        return told.listeners

    assert asyncio.run(main()) == 0
