"""Which database a URL names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from penstock.stores.base import StoreFailed
from penstock.stores.sql import Database
from penstock.stores.sqlite_database import SqliteDatabase

_POSTGRES = ("postgres://", "postgresql://")
_SQLITE = "sqlite:///"


async def open_database(url: str) -> Database:
    """`postgres://user@host/name`, `sqlite:///relative.db`, `sqlite:////absolute.db`, or just a file's path.

    Raises `StoreFailed`; a database server that is away is told by what is asked of it, not here.
    """
    file = sqlite_file(url)
    if file is not None:
        return SqliteDatabase(file)
    if find_spec("asyncpg") is None:
        raise StoreFailed("PostgreSQL needs asyncpg. Install it with: pip install 'penstock[postgres]'")
    from penstock.stores.postgres_database import PostgresDatabase

    return await PostgresDatabase.open(url)


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None when it is PostgreSQL's. Raises `StoreFailed` for anything else."""
    if url.startswith(_POSTGRES):
        return None
    path = url.removeprefix(_SQLITE)
    if not path or "://" in path or path.startswith("sqlite:"):
        raise StoreFailed("a database is postgres://user@host/name, sqlite:///file.db, or the path of a SQLite file")
    return Path(path)
