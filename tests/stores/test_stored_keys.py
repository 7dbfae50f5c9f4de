"""Every store of keys keeps the same promises: found by digest, changed in an order, revoked for good."""

import asyncio

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec import structs

from penstock.stores.databases import open_database
from penstock.stores.keys import SqlKeys, StoredKey
from penstock.stores.migrate import migrate


@pytest.fixture
def keys(database):
    return SqlKeys(database)


def key(n, **fields):
    return StoredKey(
        **{"id": f"k{n}", "digest": f"d{n}", "org": "acme", "team": "", "attributes": "{}"} | fields, created_at=1.5
    )


def test_a_key_is_found_by_id_and_by_digest(keys, loop):
    async def main():
        made = key(1, team="search", attributes='{"models":["chat"]}', expires_at=1e9 + 0.125)
        assert await keys.create(made)
        assert await keys.get("k1") == await keys.find("d1") == structs.replace(made, version=1)
        assert await keys.get("d1") is None
        assert await keys.find("k1") is None

    loop.run(main())


def test_neither_an_id_nor_a_digest_is_there_twice(keys, loop):
    async def main():
        assert await keys.create(key(1))
        assert not await keys.create(key(1, digest="other"))
        assert not await keys.create(key(2, digest="d1"))
        assert [one.id for one in await keys.owned()] == ["k1"]
        assert (await keys.get("k1")).digest == "d1"

    loop.run(main())


def test_keys_come_by_owner_and_in_pages(keys, loop):
    async def main():
        for n in range(9):
            await keys.create(key(n, org="abc"[n % 3], team="xy"[n % 2]))
        assert [one.id for one in await keys.owned("a")] == ["k0", "k3", "k6"]
        assert [one.id for one in await keys.owned("a", "x")] == ["k0", "k6"]
        assert [one.id for one in await keys.owned(team="y", most=2)] == ["k1", "k3"]
        assert [one.id for one in await keys.owned(team="y", after="k3", most=2)] == ["k5", "k7"]

    loop.run(main())


def test_a_key_is_replaced_by_whoever_saw_it_as_it_is(keys, loop):
    async def main():
        await keys.create(key(1))
        seen = await keys.get("k1")
        revoked = structs.replace(seen, revoked_at=10.0, digest="d2", attributes='{"scopes":[]}', created_at=99.0)
        assert await keys.replace(revoked)
        assert not await keys.replace(structs.replace(seen, expires_at=5.0))
        assert not await keys.replace(structs.replace(seen, id="k2"))
        assert await keys.get("k1") == structs.replace(revoked, created_at=1.5, version=2)
        assert not await keys.create(key(1))
        assert await keys.find("d1") is None
        assert len(await keys.changes(0)) == 1

    loop.run(main())


def test_what_is_new_is_told_in_the_order_in_which_it_happened(keys, loop):
    async def main():
        for n in range(4):
            await keys.create(key(n))
        seen = (await keys.changes(0))[-1].version
        assert [one.id for one in await keys.changes(0)] == ["k0", "k1", "k2", "k3"]
        await keys.replace(structs.replace(await keys.get("k2"), revoked_at=5.0))
        await keys.replace(structs.replace(await keys.get("k0"), expires_at=9.0))
        await keys.used({"k1": 7.0})  # nobody needs to know
        changed = await keys.changes(seen)
        assert [one.id for one in changed] == ["k2", "k0"]
        assert [one.id for one in await keys.changes(seen, most=1)] == ["k2"]
        assert await keys.changes(changed[-1].version) == []

    loop.run(main())


def test_the_last_use_only_goes_forward(keys, loop):
    async def main():
        await keys.create(key(1))
        await keys.create(key(2))
        await keys.used({"k1": 7.0, "k2": 3.0, "gone": 1.0})
        await keys.used({"k1": 5.0, "k2": 4.0})
        await keys.used({})
        assert [one.last_used_at for one in await keys.owned()] == [7.0, 4.0]

    loop.run(main())


@pytest.mark.parametrize("hostile", ["'); drop table api_keys; --", "$1", "%s", "\\", '"', "\u202e\n\x1b[31m", "{1}"])
def test_hostile_text_in_every_column_is_only_text(keys, loop, hostile):
    made = StoredKey(hostile, hostile, hostile, hostile, hostile, 1.0)

    async def main():
        assert await keys.create(key(1))
        assert await keys.create(made)
        assert await keys.get(hostile) == await keys.find(hostile) == structs.replace(made, version=2)
        assert await keys.owned(hostile, hostile) == [structs.replace(made, version=2)]
        assert await keys.replace(structs.replace(made, version=2, revoked_at=4.0))
        await keys.used({hostile: 3.0})
        assert (await keys.get(hostile)).last_used_at == 3.0
        assert await keys.get("k1") == key(1, version=1)

    loop.run(main())


@pytest.mark.parametrize(
    "wrong", [{"id": "a\0"}, {"digest": "\ud800"}, {"org": "x" * 257}, {"attributes": "x" * 2**17}]
)
def test_text_that_no_database_takes_is_refused_before_it_gets_there(wrong):
    with pytest.raises(ValueError, match=r"stored|surrogates"):
        key(1, **wrong)


def test_writers_at_once_get_versions_that_nobody_misses(url):
    """Whoever has seen version n has seen all before it, or a revoked key could stay in use somewhere."""

    async def main():
        databases = [await open_database(url) for _ in range(3)]
        await migrate(databases[0], now=0.0)
        stores = [SqlKeys(database) for database in databases]
        seen = []

        async def watch():
            since = 0
            while len(seen) < 60:
                for one in await stores[2].changes(since):
                    seen.append(one.id)
                    since = one.version

        async def write(store, first):
            for n in range(first, first + 30):
                assert await store.create(key(n))

        async with asyncio.timeout(30):
            await asyncio.gather(watch(), write(stores[0], 0), write(stores[1], 30))
        assert sorted(seen) == sorted(f"k{n}" for n in range(60))
        for database in databases:
            await database.close()

    asyncio.run(main())


ids = st.sampled_from(["a", "b", "c"])
times = st.sampled_from([1.0, 2.5, 1e9])


class KeyRing(RuleBasedStateMachine):
    """A store of keys beside a dictionary."""

    def __init__(self, loop, new_url):
        super().__init__()
        self.loop, self.new_url = loop, new_url

    @initialize()
    def begin(self):
        self.database = self.loop.run(open_database(self.new_url()))
        self.loop.run(migrate(self.database, now=0.0))
        self.store, self.keys, self.order = SqlKeys(self.database), {}, []

    def changed(self, id, **fields):
        self.keys[id] = structs.replace(self.keys[id], **fields)
        self.order = [one for one in self.order if one != id] + [id]

    @rule(id=ids, digest=ids, org=ids, at=times, expires=st.none() | times)
    def create(self, id, digest, org, at, expires):
        new = id not in self.keys and all(one.digest != digest for one in self.keys.values())
        made = StoredKey(id, digest, org, "", "{}", at, expires)
        assert self.loop.run(self.store.create(made)) == new
        if new:
            self.keys[id] = made
            self.order.append(id)

    @rule(id=ids, revoked=st.none() | times, attributes=st.sampled_from(["{}", '{"a":1}']), stale=st.booleans())
    def replace(self, id, revoked, attributes, stale):
        old = self.loop.run(self.store.get(id)) or StoredKey(id, "none", "", "", "{}", 1.0)
        new = structs.replace(old, revoked_at=revoked, attributes=attributes, version=old.version - stale)
        done = self.loop.run(self.store.replace(new))
        assert done == (id in self.keys and not stale)
        if done:
            self.changed(id, revoked_at=revoked, attributes=attributes)

    @rule(last=st.dictionaries(ids, times))
    def used(self, last):
        self.loop.run(self.store.used(last))
        for id, at in last.items():
            if id in self.keys:
                one = self.keys[id]
                self.keys[id] = structs.replace(one, last_used_at=max(one.last_used_at or 0.0, at))

    @invariant()
    def both_say_the_same(self):
        if hasattr(self, "store"):
            changes = self.loop.run(self.store.changes(0))
            assert [one.id for one in changes] == self.order
            assert {one.id: structs.replace(one, version=0) for one in changes} == self.keys
            assert self.loop.run(self.store.owned()) == sorted(changes, key=lambda one: one.id)

    def teardown(self):
        if hasattr(self, "database"):
            self.loop.run(self.database.close())


def test_a_store_of_keys_is_a_dictionary_that_says_what_is_new(loop, new_url):
    run_state_machine_as_test(
        lambda: KeyRing(loop, new_url),
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        ),
    )
