"""The audit log says what was done, and whether that is still what it said."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.stores.audit import GENESIS, MAX_RECORD_BYTES, Broken, Event, SqlAuditLog, Verified, digest
from penstock.stores.base import StoreFailed, StoreRefused
from penstock.stores.databases import open_database
from penstock.stores.migrate import migrate
from penstock.stores.sql import Dialect, Statement

HOSTILE = ("'); drop table audit; --", "$1", '"', "\\u0000", "a\r\nb\x1b[2J", "\u202e", "{1,2}")


@pytest.fixture
def log(database):
    return SqlAuditLog(database)


async def acts(log, n):
    for number in range(1, n + 1):
        await log.append(number, "ann", "key.create", f"k{number}", {"org": "acme"})


def tamper(database, *statements):
    """As somebody would who owns the database: without the triggers that refuse it."""
    off = {
        Dialect.SQLITE: ("drop trigger audit_is_append_only", "drop trigger audit_is_kept"),
        Dialect.POSTGRES: ("drop trigger audit_is_append_only on audit",),
    }
    return database.write([Statement(sql) for sql in (*off[database.dialect], *statements)])


def test_acts_come_back_in_their_order_and_the_chain_holds(log, loop):
    async def main():
        assert await log.verify() == Verified(0, GENESIS)
        first = await log.append(5, "ann", "key.create", "web", {"models": ["chat"], "nested": {"b": 1, "a": None}})
        assert first == Event(1, 5, "ann", "key.create", "web", {"models": ["chat"], "nested": {"b": 1, "a": None}})
        second = await log.append(4, "bob", "key.revoke", "web")
        assert await log.events() == [first, second]
        assert await log.events(after=1) == [second]
        assert await log.events(most=1) == [first]
        verified = await log.verify()
        assert (verified.seq, len(verified.head)) == (2, 64)

    loop.run(main())


def test_the_digest_is_of_all_before_and_of_canonical_json(log, database, loop):
    """Another program can check it, as `sha256sum` did here: what is hashed must never change."""
    loop.run(log.append(1, "ann", "key.create", "wéb", {"b": 1, "a": "x"}))
    ((previous, record, hash),) = loop.run(database.read("select previous, record, hash from audit"))
    assert (
        record == '{"action":"key.create","actor":"ann","at_micros":1,"detail":{"a":"x","b":1},"seq":1,"target":"wéb"}'
    )
    assert previous == "0" * 64
    assert hash == digest(previous, record) == "922d5de078057020c631745fbd635e5ad5ea30218693fa45a37ac78dca8fd190"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("update audit set record = replace(record, 'ann', 'eve') where seq = 3", Broken(3, "its content")),
        ("update audit set hash = previous where seq = 3", Broken(3, "its content")),
        ("update audit set previous = hash where seq = 3", Broken(3, "it does not follow")),
        ("delete from audit where seq = 3", Broken(3, "it is missing")),
        ("delete from audit where seq = 1", Broken(1, "it is missing")),
        ("update audit set seq = 99 where seq = 5", Broken(5, "it is missing")),
        ("update audit set seq = 0 where seq = 1", Broken(1, "it is missing")),
    ],
)
def test_a_row_that_was_tampered_with_is_found(log, database, loop, change, found):
    async def main():
        await acts(log, 5)
        assert isinstance(await log.verify(), Verified)
        await tamper(database, change)
        broken = await log.verify()
        assert isinstance(broken, Broken)
        assert broken.seq == found.seq and broken.why.startswith(found.why)

    loop.run(main())


def test_a_row_that_cannot_be_read_is_a_failure_that_says_what_to_do(log, database, loop):
    loop.run(acts(log, 2))
    loop.run(tamper(database, "update audit set record = 'x' where seq = 2"))
    with pytest.raises(StoreFailed, match="`verify` says which"):
        loop.run(log.events())
    assert loop.run(log.verify()) == Broken(2, "its content is not what its digest was made of")


def test_rows_that_changed_places_with_their_digests_are_found(log, database, loop):
    async def main():
        await acts(log, 4)
        swap = "update audit set seq = case seq when 2 then 12 else 13 end where seq in (2, 3)"
        await tamper(database, swap, "update audit set seq = case seq when 12 then 3 else 2 end where seq in (12, 13)")
        assert (await log.verify()).seq == 2

    loop.run(main())


def test_a_tail_that_was_cut_and_a_chain_written_anew_are_found_by_who_kept_a_head(log, database, loop):
    async def main():
        await acts(log, 3)
        seen = await log.verify()
        await acts(log, 2)
        assert (await log.verify(seen)).seq == 5
        await tamper(database, "delete from audit where seq >= 3")
        assert (await log.verify()).seq == 2  # alone it cannot know
        assert await log.verify(seen) == Broken(3, "it was seen before and is gone, with all that followed")
        await log.append(3, "eve", "nothing", "at all")
        assert await log.verify(seen) == Broken(3, "the log up to here is another one than was seen before")

    loop.run(main())


def test_the_database_itself_refuses_changes(log, database, loop):
    loop.run(acts(log, 2))
    for change in ("update audit set record = ''", "delete from audit", "delete from audit where seq = 2"):
        with pytest.raises(StoreRefused, match="append-only"):
            loop.run(database.write([Statement(change)]))
    assert loop.run(log.verify()).seq == 2


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_in_every_field_is_only_text(log, loop, hostile):
    async def main():
        await log.append(1, hostile, hostile, hostile, {hostile: hostile, "n": [hostile]})
        assert await log.events() == [Event(1, 1, hostile, hostile, hostile, {hostile: hostile, "n": [hostile]})]
        assert (await log.verify()).seq == 1

    loop.run(main())


def test_what_is_no_json_or_too_much_of_it_is_refused_and_nothing_is_written(log, loop):
    async def main():
        for wrong in ({"a": object()}, {"a": "x" * MAX_RECORD_BYTES}, {"a": "\ud800"}):
            with pytest.raises(ValueError, match=r"JSON|surrogates"):
                await log.append(1, "ann", "act", "on", wrong)
        await log.append(1, "a\0n\ud800", "act" * 200, "on")
        (event,) = await log.events()
        assert event.actor == "a?n?" and len(event.action) == 256

    loop.run(main())


def test_writers_at_once_make_one_chain(url):
    async def main():
        databases = [await open_database(url) for _ in range(4)]
        await migrate(databases[0], now=0.0)

        async def write(database, who):
            for n in range(10):
                await SqlAuditLog(database).append(n, who, "act", "on")

        await asyncio.gather(*(write(database, f"w{n}") for n, database in enumerate(databases)))
        log = SqlAuditLog(databases[0])
        assert (await log.verify()).seq == 40
        for n in range(4):
            mine = [event.at_micros for event in await log.events() if event.actor == f"w{n}"]
            assert mine == list(range(10))
        for database in databases:
            await database.close()

    asyncio.run(main())


def test_more_rows_than_are_read_at_once_are_verified(log, database, loop, monkeypatch):
    monkeypatch.setattr("penstock.stores.audit.MOST_EVENTS", 3)
    loop.run(acts(log, 8))
    assert loop.run(log.verify()).seq == 8
    loop.run(tamper(database, "update audit set record = '{}' where seq = 7"))
    assert loop.run(log.verify()).seq == 7


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(detail=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=10), values, max_size=4))
def test_any_json_comes_back_as_it_was_and_keeps_the_chain(log, loop, detail):
    event = loop.run(log.append(1, "ann", "act", "on", detail))
    assert event.detail == detail
    assert loop.run(log.events(after=event.seq - 1)) == [event]
    assert loop.run(log.verify()).seq == event.seq


def test_an_act_and_its_record_are_both_there_or_neither(log, database, loop):
    def rows(sql):
        return loop.run(database.read(sql))

    change = Statement("update api_keys_version_counter set version = version + 1")
    nothing = Statement("update api_keys set team = 'x' where id = $1", ("nobody",))
    wrong = Statement("insert into api_keys_version_counter values (null)")
    assert loop.run(log.act([change], 1, "ann", "key.create", "web")).seq == 1
    assert loop.run(log.act([change, nothing], 2, "ann", "key.create", "web")) is None
    with pytest.raises(StoreRefused):
        loop.run(log.act([change, wrong], 3, "ann", "key.create", "web"))
    with pytest.raises(ValueError, match="at most"):
        loop.run(log.act([change], 4, "ann", "key.create", "web", {"x": "y" * MAX_RECORD_BYTES}))
    assert rows("select version from api_keys_version_counter") == [(1,)]
    assert loop.run(log.verify()).seq == 1


def test_acts_at_once_are_each_done_once_and_recorded_once(url):
    change = Statement("update api_keys_version_counter set version = version + 1")

    async def main():
        databases = [await open_database(url) for _ in range(3)]
        await migrate(databases[0], now=0.0)
        logs = [SqlAuditLog(database) for database in databases]
        await asyncio.gather(*(logs[n % 3].act([change], n, "ann", "key.create", f"k{n}") for n in range(30)))
        assert (await logs[0].verify()).seq == 30
        assert await databases[0].read("select version from api_keys_version_counter") == [(30,)]
        for database in databases:
            await database.close()

    asyncio.run(main())
