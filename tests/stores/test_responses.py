"""Every store of responses keeps the same promises."""

import asyncio

import pytest
from msgspec import structs

from penstock.stores.base import StoredResponse
from penstock.stores.memory import MemoryResponses
from penstock.stores.sqlite import SqliteResponses


@pytest.fixture(params=["memory", "sqlite"])
def make(request, tmp_path):
    made = []

    def make():
        made.append(MemoryResponses() if request.param == "memory" else SqliteResponses(tmp_path / "store.db"))
        return made[-1]

    yield make
    for store in made:
        store.close()


def stored(n=0, owner="acme", **more):
    return StoredResponse(f"resp_{n}", owner, b'{"n":%d}' % n, b"[]", **({"created_at": n, "expires_at": 1e6} | more))


def test_what_was_put_is_found_again_until_it_expires(make):
    async def main():
        store = make()
        await store.put(stored(1, expires_at=50.0), 100)
        assert await store.get("acme", "resp_1", 49.9) == stored(1, expires_at=50.0)
        assert await store.get("acme", "resp_1", 50.0) is None

    asyncio.run(main())


def test_nobody_finds_or_deletes_what_is_anothers(make):
    async def main():
        store = make()
        await store.put(stored(1), 100)
        assert await store.get("rival", "resp_1", 1.0) is None
        assert not await store.delete("rival", "resp_1")
        await store.put(stored(1, owner="rival", created_at=2), 100)
        assert (await store.get("acme", "resp_1", 2.0)).owner == "acme"

    asyncio.run(main())


def test_a_second_put_replaces_the_first(make):
    async def main():
        store = make()
        await store.put(stored(1), 100)
        await store.put(structs.replace(stored(1), body=b"{}"), 100)
        assert (await store.get("acme", "resp_1", 1.0)).body == b"{}"

    asyncio.run(main())


def test_the_oldest_are_forgotten_first(make):
    async def main():
        store = make()
        for n in range(5):
            await store.put(stored(n), 3)
        assert [n for n in range(5) if await store.get("acme", f"resp_{n}", 5.0)] == [2, 3, 4]

    asyncio.run(main())


def test_deleting_says_whether_there_was_one(make):
    async def main():
        store = make()
        await store.put(stored(1), 100)
        assert await store.delete("acme", "resp_1")
        assert not await store.delete("acme", "resp_1")
        assert await store.get("acme", "resp_1", 1.0) is None

    asyncio.run(main())


def test_memory_is_bounded_in_bytes():
    async def main():
        store = MemoryResponses(max_bytes=25)
        for n in range(5):
            await store.put(structs.replace(stored(n), body=b"x" * 8), 100)
        assert [n for n in range(5) if await store.get("acme", f"resp_{n}", 5.0)] == [3, 4]
        await store.put(structs.replace(stored(9), body=b"x" * 30), 100)
        assert await store.get("acme", "resp_9", 5.0) is None

    asyncio.run(main())


def test_two_processes_may_share_a_file(tmp_path):
    async def main():
        one, two = SqliteResponses(tmp_path / "s.db"), SqliteResponses(tmp_path / "s.db")
        await one.put(stored(1), 100)
        assert (await two.get("acme", "resp_1", 1.0)).body == b'{"n":1}'
        one.close(), two.close()

    asyncio.run(main())
