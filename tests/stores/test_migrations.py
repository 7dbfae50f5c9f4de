"""Numbered migrations: each once, in order, whoever runs them, from whatever was there before."""

import asyncio
import os
import stat

import pytest
from msgspec import structs

from penstock.stores.audit import SqlAuditLog, Verified
from penstock.stores.base import StoreFailed, StoreRefused
from penstock.stores.databases import open_database
from penstock.stores.entry import CORRECTION, Entry
from penstock.stores.keys import SqlKeys, StoredKey
from penstock.stores.ledger import HOUR_MICROS, LEDGER, Attribute, SqlLedger
from penstock.stores.migrate import TABLE, SchemaMismatch, check_schema, migrate, migrations, schema_status
from penstock.stores.sql import Dialect, Statement
from penstock.stores.tenants import SqlTenants, StoredTenant, creation
from tests.stores.sums import sums

NEWEST = len(migrations(Dialect.SQLITE))


def with_database(url, work):
    async def main():
        database = await open_database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(main())


def test_both_databases_have_the_same_migrations():
    names = {dialect: [(one.number, one.name) for one in migrations(dialect)] for dialect in Dialect}
    assert names[Dialect.SQLITE] == names[Dialect.POSTGRES]
    assert NEWEST >= 2


def test_an_empty_database_gets_them_all_once(url):
    async def work(database):
        assert [one.number for one in await migrate(database, now=5.0)] == list(range(1, NEWEST + 1))
        assert await migrate(database, now=6.0) == []
        status = await schema_status(database)
        assert status.version == NEWEST and not status.pending
        assert [one.applied_at for one in status.applied] == [5.0] * NEWEST
        await check_schema(database)

    with_database(url, work)


@pytest.mark.parametrize("version", range(NEWEST))
def test_a_database_that_is_behind_is_refused_with_the_verb_that_helps(url, version):
    async def work(database):
        await migrate(database, now=0.0, upto=version)
        with pytest.raises(SchemaMismatch, match=rf"version {version} .* needs {NEWEST}. Run `penstock db migrate`"):
            await check_schema(database)

    with_database(url, work)


def test_a_database_of_a_newer_version_is_refused(url):
    async def work(database):
        await migrate(database, now=0.0)
        later = (NEWEST + 1, "later", "digest", 0.0)
        await database.write([Statement(f"insert into {TABLE} values ($1, $2, $3, $4)", later)])
        with pytest.raises(SchemaMismatch, match=f"version {NEWEST + 1} and this version of Penstock knows {NEWEST}"):
            await check_schema(database)

    with_database(url, work)


def test_a_migration_that_was_edited_after_it_ran_is_noticed(url):
    async def work(database):
        await migrate(database, now=0.0)
        await database.write([Statement(f"update {TABLE} set digest = 'of another file' where number = 1")])
        with pytest.raises(SchemaMismatch, match=r"migration 1 of the database .* is not the one of this version"):
            await migrate(database, now=0.0)

    with_database(url, work)


def test_of_many_who_migrate_at_once_each_migration_is_run_by_one(url):
    async def main():
        databases = [await open_database(url) for _ in range(4)]
        done = await asyncio.gather(*(migrate(database, now=0.0) for database in databases))
        assert sorted(one.number for some in done for one in some) == list(range(1, NEWEST + 1))
        for database in databases:
            await check_schema(database)
            await database.close()

    asyncio.run(main())


def test_a_migration_that_fails_leaves_nothing_of_itself(url, monkeypatch):
    async def work(database):
        good = migrations(database.dialect)
        bad = structs.replace(good[0], sql="create table half (n bigint);\ncreate table half (n bigint);\n")
        monkeypatch.setattr("penstock.stores.migrate.migrations", lambda dialect: (bad, *good[1:]))
        with pytest.raises(StoreFailed, match="half"):
            await migrate(database, now=0.0)
        assert (await schema_status(database)).version == 0
        monkeypatch.undo()
        assert len(await migrate(database, now=0.0)) == NEWEST
        with pytest.raises(StoreFailed, match="half"):
            await database.read("select * from half")

    with_database(url, work)


@pytest.mark.parametrize("version", range(NEWEST))
def test_what_was_kept_under_every_earlier_schema_is_there_after_the_upgrade(url, version):
    old = Entry("old", 7 * HOUR_MICROS, org="acme", model="m", input_tokens=3, cost_nanos=5, usage_source="estimate")
    more = Entry("old+correction", 7 * HOUR_MICROS, org="acme", model="m", usage_source=CORRECTION, cost_nanos=-1)
    fresh = Entry("fresh", 7 * HOUR_MICROS + 1, org="acme", model="m", output_tokens=2)
    key = StoredKey("web", "d1", "acme", "", "{}", 1.0)
    team = StoredTenant("acme", "search", '{"models":["m"]}', 2.0)

    async def work(database):
        ledger, keys, audit = SqlLedger(database), SqlKeys(database), SqlAuditLog(database)
        await migrate(database, now=0.0, upto=version)
        if version:
            await database.insert(structs.replace(LEDGER, where="true"), [structs.astuple(old)])
            assert await keys.create(key)
            await audit.append(1, "ann", "key.create", "web")
        if version >= 3:
            assert await database.write_all(creation(team)) is None
        await migrate(database, now=0.0)
        assert await ledger.append([old, more, fresh]) == (2 if version else 3)
        assert await ledger.entries(0, 8 * HOUR_MICROS) == [old, more, fresh]
        (total,) = await sums(database, [Attribute.HOUR], 0, 8 * HOUR_MICROS)
        assert (total.group, total.requests, total.unpriced, total.estimated) == ((7 * 3600,), 2, 1, 1)
        assert (total.input_tokens, total.output_tokens, total.cost_nanos) == (3, 2, 4)
        assert await ledger.disagreeing_hours(0, 8 * HOUR_MICROS) == []
        assert await keys.create(key) == (version == 0)
        assert (await keys.get("web")).digest == "d1"
        assert (await database.write_all(creation(team)) is None) == (version < 3)
        assert structs.replace(await SqlTenants(database).get("acme", "search"), version=0) == team
        assert (await audit.verify()) == Verified(await n_audited(database), (await head(database)))

    async def n_audited(database):
        return (await database.read("select count(*) from audit"))[0][0]

    async def head(database):
        rows = await database.read("select hash from audit order by seq desc limit 1")
        return rows[0][0] if rows else "0" * 64

    with_database(url, work)


def test_a_sqlite_file_can_be_read_by_its_owner_alone_and_syncs_every_commit(tmp_path):
    def mode(file):
        return stat.S_IMODE(os.stat(tmp_path / file).st_mode)

    async def work(database):
        await migrate(database, now=0.0)
        assert (mode("books.db"), mode("books.db-wal")) == (0o600, 0o600)
        modes = [database._writer.execute(f"pragma {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        assert modes == ["wal", 2]  # 2 is FULL
        with pytest.raises(StoreFailed, match="readonly"):
            await database.read("delete from ledger")

    with_database(str(tmp_path / "books.db"), work)


def test_what_is_no_database_is_told_and_not_written_to(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, whatever it is called" * 100)
    before = path.read_bytes()

    async def main():
        with pytest.raises(StoreFailed, match=r"notes\.txt cannot be used as a database"):
            await open_database(str(path))
        with pytest.raises(StoreFailed, match="cannot be used as a database"):
            await open_database(os.fspath(tmp_path))

    asyncio.run(main())
    assert path.read_bytes() == before


@pytest.mark.parametrize("url", ["mysql://root@localhost/x", "sqlite://x.db", "sqlite:x", ""])
def test_a_url_of_another_kind_is_refused(url):
    async def main():
        with pytest.raises(StoreFailed, match="a database is postgres://"):
            await open_database(url)

    asyncio.run(main())


@pytest.mark.parametrize("url", ["postgres://ann:hunter2@127.0.0.1:port/x", "postgres://ann:hunter2@127.0.0.1:1/x"])
def test_a_server_that_cannot_be_asked_is_told_without_its_password(url):
    async def work(database):
        with pytest.raises(StoreFailed) as refused:
            await schema_status(database)
        assert "hunter2" not in str(refused.value)

    with_database(url, work)


def test_more_calls_than_the_disk_can_take_are_turned_away_and_counted(tmp_path):
    async def main():
        from penstock.stores.sqlite_database import SqliteDatabase

        database = SqliteDatabase(tmp_path / "books.db", most_waiting=3)
        ran = await asyncio.gather(*(database.read("select 1") for _ in range(8)), return_exceptions=True)
        assert [type(one) for one in ran] == [list] * 3 + [StoreFailed] * 5
        assert database.refused_busy == 5
        assert await database.read("select 2") == [(2,)]
        await database.close()
        with pytest.raises(StoreFailed, match="closed"):
            await database.read("select 1")

    asyncio.run(main())


def test_a_value_that_no_column_can_hold_is_refused_and_not_failed(database, loop):
    for name, value in (("status", 2**70), ("model", "\ud800"), ("model", None)):
        good = zip(LEDGER.columns, structs.astuple(Entry("r", 1)), strict=True)
        row = tuple(value if column == name else old for (column, _), old in good)
        with pytest.raises(StoreRefused):
            loop.run(database.insert(LEDGER, [row]))
    assert loop.run(database.read("select count(*) from ledger")) == [(0,)]
