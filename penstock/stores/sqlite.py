"""Stores in one SQLite file, shared by the processes of one machine. A thread of their own does the waiting."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from penstock.stores.base import Responses, StoredResponse, StoreFailed

BUSY_SECONDS: Final = 5.0  # to wait for another process's write
_SCHEMA: Final = """
create table if not exists responses (
    owner text not null, id text not null, body blob not null, input blob not null,
    created_at real not null, expires_at real not null,
    primary key (owner, id)
) without rowid;
create index if not exists responses_by_age on responses (created_at);
"""
Result = TypeVar("Result")


class SqliteResponses:
    """Survives restarts. Expired rows and those beyond the number allowed are deleted as new ones come."""

    def __init__(self, path: Path) -> None:
        """Raises `sqlite3.Error` when the file cannot be opened or is no database."""
        self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = normal")
        self._database.executescript(_SCHEMA)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-store")

    async def put(self, response: StoredResponse, most: int) -> None:
        def write() -> None:
            with self._database:
                self._database.execute("begin immediate")
                self._database.execute(
                    "insert or replace into responses values (?, ?, ?, ?, ?, ?)",
                    (
                        response.owner,
                        response.id,
                        response.body,
                        response.input,
                        response.created_at,
                        response.expires_at,
                    ),
                )
                self._database.execute("delete from responses where expires_at <= ?", (response.created_at,))
                self._database.execute(
                    "delete from responses where (owner, id) in (select owner, id from responses"
                    " order by created_at desc limit -1 offset ?)",
                    (most,),
                )

        await self._run(write)

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        def read() -> StoredResponse | None:
            row = self._database.execute(
                "select id, owner, body, input, created_at, expires_at from responses"
                " where owner = ? and id = ? and expires_at > ?",
                (owner, id, now),
            ).fetchone()
            return None if row is None else StoredResponse(*row)

        return await self._run(read)

    async def delete(self, owner: str, id: str) -> bool:
        def write() -> bool:
            return self._database.execute("delete from responses where owner = ? and id = ?", (owner, id)).rowcount > 0

        return await self._run(write)

    def close(self) -> None:
        self._thread.shutdown()
        self._database.close()

    async def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StoreFailed(f"{type(error).__name__}: {error}") from None


_: type[Responses] = SqliteResponses
