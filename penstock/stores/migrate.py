"""The schema, as numbered files of SQL that are run once each, in order, and never edited or undone.

A file's digest is kept with its number, so that a database which was made by other files is noticed and not guessed at.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

from penstock.stores.base import StoreFailed
from penstock.stores.sql import Database, Dialect, Statement

TABLE: Final = "penstock_migrations"

_CREATE: Final = f"create table if not exists {TABLE} " + (
    "(number integer primary key, name text not null, digest text not null, applied_at double precision not null)"
)
_BEGIN: Final = {
    Dialect.SQLITE: _CREATE,
    # Without the lock, two who create the same table at once would stumble over its name in the catalogue.
    Dialect.POSTGRES: f"do $$ begin perform pg_advisory_xact_lock(7367673); {_CREATE}; end $$",
}
_EXISTS: Final = {
    Dialect.SQLITE: f"select 1 from sqlite_master where type = 'table' and name = '{TABLE}'",
    Dialect.POSTGRES: f"select 1 where to_regclass('{TABLE}') is not null",
}


class SchemaMismatch(StoreFailed):
    """The database's schema is not the one that this version works with. The text says what to do."""


class Migration(msgspec.Struct, frozen=True):
    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Applied(msgspec.Struct, frozen=True):
    number: int
    name: str
    digest: str
    applied_at: float  # Unix seconds


class SchemaStatus(msgspec.Struct, frozen=True):
    applied: tuple[Applied, ...]
    pending: tuple[Migration, ...]

    @property
    def version(self) -> int:
        """The number of the last migration that was applied; 0: the database is empty."""
        return self.applied[-1].number if self.applied else 0


@cache
def migrations(folder: str) -> tuple[Migration, ...]:
    """All there are, from number 1 on without a gap. The books' are in a folder for each dialect."""
    where = files("penstock.stores") / "migrations" / folder
    found = []
    for file in sorted(where.iterdir(), key=lambda file: file.name):
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    assert [migration.number for migration in found] == list(range(1, len(found) + 1)), "a number twice, or a gap"
    return tuple(found)


async def schema_status(database: Database, folder: str = "") -> SchemaStatus:
    """Changes nothing. `folder` is for what is not the books. Raises `SchemaMismatch` when the database was made by
    something that is not this.
    """
    known = migrations(folder or database.dialect)
    applied: tuple[Applied, ...] = ()
    if await database.read(_EXISTS[database.dialect]):
        rows = await database.read(f"select number, name, digest, applied_at from {TABLE} order by number")
        applied = tuple(Applied(*row) for row in rows)
    if len(applied) > len(known):
        raise SchemaMismatch(
            f"the database has schema version {applied[-1].number} and this version of Penstock knows {len(known)}: "
            "a newer one has been here. Run that one; schemas do not go back."
        )
    for ours, theirs in zip(known, applied, strict=False):
        if (ours.number, ours.digest) != (theirs.number, theirs.digest):
            raise SchemaMismatch(
                f"migration {theirs.number} of the database ({theirs.name}) is not the one of this version "
                f"({ours.name}): the files were edited, or the database belongs to something else"
            )
    return SchemaStatus(applied, known[len(applied) :])


async def check_schema(database: Database, folder: str = "") -> None:
    """Raises `SchemaMismatch` unless every migration has been applied. For the start of whoever uses the database."""
    status = await schema_status(database, folder)
    if status.pending:
        raise SchemaMismatch(
            f"the database has schema version {status.version} and this version of Penstock needs "
            f"{status.pending[-1].number}. Run `penstock db migrate`; it only goes forward, so take a copy first."
        )


async def migrate(database: Database, now: float, upto: int | None = None, folder: str = "") -> list[Migration]:
    """Apply what is pending, each in a transaction of its own, and say which this call applied. `now` is Unix seconds.

    Others may do the same at the same time: each migration runs once. `upto` stops after that number. Raises
    `SchemaMismatch` and `StoreFailed`; what was applied before stays.
    """
    await database.write([Statement(_BEGIN[database.dialect])])
    done = []
    for one in (await schema_status(database, folder)).pending:
        if upto is not None and one.number > upto:
            break
        claim = Statement(
            f"insert into {TABLE} (number, name, digest, applied_at) values ($1, $2, $3, $4) on conflict do nothing",
            (one.number, one.name, one.digest, now),
        )
        if await database.run_once(claim, one.sql):
            done.append(one)
    return done
