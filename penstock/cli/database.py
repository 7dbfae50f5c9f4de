"""Opens the database that a verb works with: the one that was told, or the one of the configuration file."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from penstock.cli.config_file import load_file
from penstock.cli.mistake import Failure, Mistake

if TYPE_CHECKING:
    from penstock.stores.sql import Database

DEFAULT: Final = "penstock.db"  # beside the configuration file

Result = TypeVar("Result")


def with_database(url: str, work: Callable[[Database], Awaitable[Result]], make: bool = True) -> Result:
    """What `work` answers about the database of this URL. Raises `Failure`; `Mistake` when there is none to open."""
    import asyncio

    from penstock.stores.base import StoreFailed
    from penstock.stores.databases import open_database, sqlite_file

    try:
        file = sqlite_file(url)
    except StoreFailed as error:
        raise Mistake(str(error)) from None
    if file is not None and not make and not file.exists():
        raise Mistake(f"there is no {file}. `penstock db migrate` makes it.")

    async def main() -> Result:
        database = await open_database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(main())
    except StoreFailed as error:
        raise Failure(f"the database: {error}") from None


def configured_database(told: str | None, file: Path) -> str:
    """The URL that was told; else `store.database` of the file; else `penstock.db` beside it. Raises `Mistake`."""
    from penstock.app.secrets import Secrets
    from penstock.config.schema import NO_DATABASE
    from penstock.config.stores import is_reference
    from penstock.stores.base import StoreFailed
    from penstock.stores.databases import sqlite_file

    if told is not None:
        return told
    url = load_file(file).store.database if file.exists() else None
    if url == NO_DATABASE:
        raise Mistake(f"{file} keeps no ledger (`store.database: off`); name another database with --database.")
    try:
        if url is not None and is_reference(url):
            url = Secrets(os.environ).read(url)
        found = sqlite_file(DEFAULT if url is None else url)
    except (LookupError, StoreFailed) as error:
        raise Mistake(f"store.database of {file}: {error.args[0]}") from None
    return url if url is not None and found is None else str(file.parent / (found or DEFAULT))
