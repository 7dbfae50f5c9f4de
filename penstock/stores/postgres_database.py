"""PostgreSQL through asyncpg (extra `postgres`). Connections are made when they are needed, so that a database that is
away at the start, or goes away, is a `StoreFailed` for whoever asks and nothing more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Final

import asyncpg

from penstock.stores.base import StoreAway, StoreFailed, StoreRefused
from penstock.stores.sql import Database, Dialect, NoneChanged, Row, Statement, Table, Value, changed, names

CONNECTIONS: Final = 4  # per process: a ledger, an administrator, and room
CONNECT_SECONDS: Final = 5.0
COMMAND_SECONDS: Final = 30.0
SCRIPT_SECONDS: Final = 24 * 3600.0  # a migration may read every row

# SQLSTATE 22 (data), 23 (constraints) and 54 (program limits): trying again would not help.
_REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    OverflowError,
    UnicodeEncodeError,
)
_AWAY = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)  # 08, 57
_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class PostgresDatabase:
    dialect: Final = Dialect.POSTGRES

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, *, connections: int = CONNECTIONS) -> PostgresDatabase:
        """`url` as libpq knows it, `postgres://user:password@host:port/name`. Connects to nobody yet."""
        pool = await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings={"application_name": "penstock"},
        )
        return cls(pool)

    async def read(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        async with self._connection() as connection:
            return [tuple(record.values()) for record in await connection.fetch(sql, *values)]

    async def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Columns travel as arrays: one statement for any number of rows (25 us a row; one by one 3,761)."""
        if not rows:
            return 0
        columns = list(zip(*rows, strict=True))
        async with self._connection() as connection:
            return changed(await connection.execute(_insert(table), *columns))

    async def write(self, statements: Sequence[Statement], alone_on: str = "") -> list[int]:
        async with self._connection() as connection, connection.transaction():
            if alone_on:
                await connection.execute(f"lock table {alone_on} in share row exclusive mode")
            return [changed(await connection.execute(one.sql, *one.values)) for one in statements]

    async def write_all(self, statements: Sequence[Statement]) -> int | None:
        try:
            async with self._connection() as connection, connection.transaction():
                for place, one in enumerate(statements):
                    if not changed(await connection.execute(one.sql, *one.values)):
                        raise NoneChanged(place)
        except NoneChanged as none:
            return none.place
        return None

    async def run_once(self, claim: Statement, script: str) -> bool:
        async with self._connection() as connection, connection.transaction():
            if not changed(await connection.execute(claim.sql, *claim.values)):
                return False
            await connection.execute(script, timeout=SCRIPT_SECONDS)
            return True

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
        try:
            async with AsyncExitStack() as held:
                try:
                    connection = await held.enter_async_context(self._pool.acquire(timeout=CONNECT_SECONDS))
                except ValueError:  # not quoted: there is a password in it
                    raise StoreFailed("its URL is not of the form postgres://user@host:5432/name") from None
                yield connection
        except _REFUSALS as error:
            raise StoreRefused(f"{type(error).__name__}: {error}") from None
        except _FAILURES as error:
            # What asyncpg itself finds wrong with a value is an InterfaceError and a ValueError.
            refused = isinstance(error, ValueError)
            kind = StoreRefused if refused else StoreAway if isinstance(error, _AWAY) else StoreFailed
            raise kind(f"{type(error).__name__}: {error}") from None


@cache
def _insert(table: Table) -> str:
    arrays = ", ".join(f"${n}::{type}[]" for n, (_, type) in enumerate(table.columns, 1))
    return (
        f"insert into {table.name} ({names(table)}) select * from unnest({arrays}) as fresh ({names(table)})"
        f" where {table.where} on conflict do nothing"
    )


_: type[Database] = PostgresDatabase
