"""A SQLite file: one thread writes, another reads on a connection of its own, and neither waits for the other.

WAL with `synchronous = FULL`: what was committed survives a loss of power, at the price of an `fsync` per transaction
(https://sqlite.org/pragma.html#pragma_synchronous). That is why ledgers write in batches.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from penstock.stores.base import StoreFailed, StoreRefused
from penstock.stores.sql import Database, Dialect, NoneChanged, Row, Statement, Table, Value, names, positional

BUSY_SECONDS: Final = 5.0  # to wait for another process's write
MOST_WAITING: Final = 256  # calls; beyond it the disk does not keep up and more of them only cost memory
OLDEST: Final = (3, 35)  # `returning`, and `on conflict` as we write it

Result = TypeVar("Result")
# Values that no column can hold, or that a constraint forbids: trying again would not help.
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError, UnicodeEncodeError)


class SqliteDatabase:
    """May be shared by the processes of one machine. `refused_busy` counts calls that were turned away as too many."""

    dialect: Final = Dialect.SQLITE

    def __init__(self, path: Path, *, most_waiting: int = MOST_WAITING) -> None:
        """Makes the file, readable by its owner alone, when there is none. Raises `StoreFailed`."""
        if sqlite3.sqlite_version_info < OLDEST:
            raise StoreFailed(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 is needed")
        self.refused_busy = 0
        self._waiting = 0
        self._most_waiting = most_waiting
        self._closed = False
        try:
            with suppress(FileExistsError):
                # Never a file that is there: closing any descriptor of it drops the locks that this process has on it
                # (https://sqlite.org/howtocorrupt.html, 2.2), and another one could delete the log under our hands.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._writer = _connect(path)
            self._writer.execute("pragma journal_mode = wal")
            self._writer.execute("pragma synchronous = full")
            self._writer.execute("pragma fullfsync = on")  # macOS only: its fsync does not reach the disk
            self._reader = _connect(path)
            self._reader.execute("pragma query_only = on")
        except (OSError, sqlite3.Error) as error:
            raise StoreFailed(f"{path} cannot be used as a database: {error}") from None
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="penstock-write")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="penstock-read")

    async def read(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        return await self._run(self._reading, lambda: _execute(self._reader, sql, values).fetchall())

    async def insert(self, table: Table, rows: Sequence[Row]) -> int:
        return await self._transaction(lambda: max(0, self._writer.executemany(_insert(table), rows).rowcount))

    async def write(self, statements: Sequence[Statement], alone_on: str = "") -> list[int]:
        # Every transaction is alone on the whole file.
        return await self._transaction(lambda: [self._execute(statement) for statement in statements])

    async def write_all(self, statements: Sequence[Statement]) -> int | None:
        def run() -> None:
            for place, statement in enumerate(statements):
                if not self._execute(statement):
                    raise NoneChanged(place)

        try:
            await self._transaction(run)
        except NoneChanged as none:
            return none.place
        return None

    async def run_once(self, claim: Statement, script: str) -> bool:
        def run() -> bool:
            if not self._execute(claim):
                return False
            for statement in _statements(script):
                self._writer.execute(statement)
            return True

        return await self._transaction(run)

    async def close(self) -> None:
        """After what has been asked for is done."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writing.shutdown()
        self._reading.shutdown()
        self._reader.close()
        self._writer.close()

    def _execute(self, statement: Statement) -> int:
        return max(0, _execute(self._writer, statement.sql, statement.values).rowcount)

    async def _transaction(self, work: Callable[[], Result]) -> Result:
        def run() -> Result:
            with self._writer:  # commits, or rolls back when it raises
                self._writer.execute("begin immediate")
                return work()

        return await self._run(self._writing, run)

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        if self._closed:
            raise StoreFailed("the database has been closed")
        if self._waiting >= self._most_waiting:
            self.refused_busy += 1
            raise StoreFailed(f"{self._waiting} calls wait for the database already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        except _REFUSALS as error:
            raise StoreRefused(f"{type(error).__name__}: {error}") from None
        except sqlite3.Error as error:
            raise StoreFailed(f"{type(error).__name__}: {error}") from None
        finally:
            self._waiting -= 1


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)


def _execute(connection: sqlite3.Connection, sql: str, values: Sequence[Value]) -> sqlite3.Cursor:
    text, places = positional(sql)
    return connection.execute(text, [values[place] for place in places])


@cache
def _insert(table: Table) -> str:
    fresh = ", ".join(f"? as {name}" for name, _ in table.columns)
    return (
        f"insert into {table.name} ({names(table)}) select * from (select {fresh}) where {table.where}"
        " on conflict do nothing"
    )


def _statements(script: str) -> Iterator[str]:
    """One by one, because `executescript` would commit first. A trigger's body is part of its statement."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), f"a statement without its semicolon: {statement!r}"


_: type[Database] = SqliteDatabase
