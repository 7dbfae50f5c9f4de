"""What a SQLite file owes to the processes that share it."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

from penstock.stores.sql import Statement
from penstock.stores.sqlite_database import SqliteDatabase

ADDS = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
with database:
    database.execute("insert into t values (?)", (sys.argv[2],))
database.close()
"""


def another_process_adds(path: Path, value: str) -> None:
    subprocess.run([sys.executable, "-c", ADDS, str(path), value], check=True, timeout=30)


def test_a_file_that_is_opened_twice_is_not_taken_away_by_a_process_that_comes_and_goes(tmp_path: Path) -> None:
    """POSIX forgets all locks of a process on a file when it closes any descriptor of it. Whoever opened the database's
    own file beside SQLite would leave it unguarded, and the next process to close it would delete its log."""
    path = tmp_path / "a.db"

    async def story() -> None:
        first = SqliteDatabase(path)
        await first.write([Statement("create table t (x text)")])
        await first.write([Statement("insert into t values ('one')")])
        assert await first.read("select count(*) from t") == [(1,)]
        second = SqliteDatabase(path)
        another_process_adds(path, "two")
        assert path.with_name("a.db-wal").exists(), "the log of those who have the file open"
        another_process_adds(path, "three")
        assert await first.read("select count(*) from t") == [(3,)]
        assert await second.read("select count(*) from t") == [(3,)]
        await first.write([Statement("insert into t values ('four')")])
        await first.close()
        await second.close()

    asyncio.run(story())
    with sqlite3.connect(path) as database:
        assert database.execute("select count(*) from t").fetchone() == (4,)
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_new_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    asyncio.run(SqliteDatabase(path).close())
    assert path.stat().st_mode & 0o777 == 0o600
