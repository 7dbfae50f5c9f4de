"""Databases for tests of what is kept in them: a SQLite file, and an empty schema in a PostgreSQL of this run's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from penstock.stores.databases import open_database
from penstock.stores.sql import Database
from tests.stores.postgres_server import PostgresServer, postgres_server

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Each call answers the URL of another empty database."""
    if request.param == "sqlite":
        return lambda: str(tmp_path / f"books-{next(_numbers)}.db")
    server = request.getfixturevalue("postgres")

    def schema() -> str:
        return asyncio.run(empty_schema(server))

    return schema


async def empty_schema(server: PostgresServer) -> str:
    import asyncpg

    name = f"schema_{next(_numbers)}"
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"create schema {name}")
    await connection.close()
    return f"{server.url}?search_path={name}"


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    """Runs coroutines one after another in one loop, which a database's connections belong to."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def database(loop: asyncio.Runner, url: str) -> Iterator[Database]:
    """With the newest schema."""
    from penstock.stores.migrate import migrate

    opened = loop.run(open_database(url))
    loop.run(migrate(opened, now=0.0))
    yield opened
    loop.run(opened.close())
