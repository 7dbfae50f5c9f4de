"""A database as the stores see it: SQL with parameters, transactions, and rows that are inserted once.

What stores remember is written once on top of this, for SQLite and PostgreSQL alike. Their SQL is the part that both
understand, with parameters written `$1`, `$2`. Values never become part of a statement's text; names of tables and
columns are constants of this program.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, Final, Protocol

import msgspec

_PARAMETER: Final = re.compile(r"\$([0-9]+)")

Value = str | int | float | bytes | None
Row = tuple[Any, ...]  # what a database answers; the reader of a row knows its types

TEXT: Final = "text"
BIGINT: Final = "bigint"
DOUBLE: Final = "double precision"


class Dialect(StrEnum):
    """The value is the name of its directory of migrations."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


class Statement(msgspec.Struct, frozen=True):
    sql: str
    values: tuple[Value, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """What `insert` needs to know. `where` can leave out rows, by their columns' names."""

    name: str
    columns: tuple[tuple[str, str], ...]  # name and type
    where: str = "true"


class NoneChanged(Exception):
    """Inside of a `Database`: takes back the transaction of `write_all`."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class Database(Protocol):
    """Every method raises `StoreFailed` when the database cannot do it now, and `StoreRefused` when it never will."""

    @property
    def dialect(self) -> Dialect: ...

    async def read(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """The rows of a query, from what is committed; a long one keeps no writer waiting."""
        ...

    async def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """In one transaction, leaving alone those that are there already by a unique column. How many were new."""
        ...

    async def write(self, statements: Sequence[Statement], alone_on: str = "") -> list[int]:
        """In one transaction: all or none. How many rows each changed.

        `alone_on` names a table that nobody else may write to until the end.
        """
        ...

    async def write_all(self, statements: Sequence[Statement]) -> int | None:
        """In one transaction, each of which must change a row: the place of the first that did not, and then none of
        them was done; None when all were.
        """
        ...

    async def run_once(self, claim: Statement, script: str) -> bool:
        """Run `claim`; when it changed a row, run the statements of `script` in the same transaction. Whether it did.

        Of many who try at once with a claim on the same row, one runs the script and the others wait for it.
        """
        ...

    async def close(self) -> None: ...


@cache
def names(table: Table) -> str:
    """`a, b, c`: its columns."""
    return ", ".join(name for name, _ in table.columns)


@lru_cache(512)
def positional(sql: str) -> tuple[str, tuple[int, ...]]:
    """The same statement with `?` for each parameter, as sqlite3 wants it, and the places of their values in order."""
    return _PARAMETER.sub("?", sql), tuple(int(number) - 1 for number in _PARAMETER.findall(sql))


def changed(tag: str) -> int:
    """The number of rows in PostgreSQL's answer to a statement: `INSERT 0 5`, `UPDATE 5`; 0 for `LOCK TABLE`."""
    last = tag.rpartition(" ")[2]
    return int(last) if last.isdecimal() else 0
