"""What a server asks of its database before it serves, and goes on asking: does the schema fit, who are the tenants,
are there keys? For the process that reads the configuration; the workers have connections of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from penstock.app.errors import StartError
from penstock.app.follow_keys import TenantFollower
from penstock.app.options import BooksOptions
from penstock.app.source import ConfigSource
from penstock.config.schema import NO_DATABASE, Config
from penstock.config.secrets import resolved
from penstock.core.clock import Clock
from penstock.stores.base import StoreAway, StoreFailed
from penstock.stores.databases import open_database, sqlite_file
from penstock.stores.migrate import SchemaMismatch, check_schema, migrate, schema_status
from penstock.stores.sql import Database, Dialect
from penstock.stores.tenants import StoredTenant

DATABASE: Final = "penstock.db"
SPOOL: Final = ".spool"
TRACES: Final = ".traces.db"
ANSWER_WITHIN: Final = 5.0  # seconds for a database server to answer at the start


def books_options(config: Config, source: ConfigSource, secret: Callable[[str], str]) -> BooksOptions:
    """Beside a configuration file a ledger is kept, also where nothing is said of it; without a file there is none.

    Raises `StartError`. Addresses of servers stay references, where they are.
    """
    store = config.store
    place = store.database or (DATABASE if source.is_file else "")
    if place in ("", NO_DATABASE):
        return BooksOptions(counters=store.counters or "")
    try:
        file = sqlite_file(resolved(place, secret))
    except (LookupError, StoreFailed) as error:
        raise StartError(f"store.database: {error.args[0]}") from None
    if file is not None:
        file = source.beside(str(file))
        place, spool = str(file), file.with_suffix(SPOOL)
    else:
        spool = source.beside((Path(source.name).stem if source.is_file else "penstock") + SPOOL)
    if store.spool is not None:
        spool = source.beside(store.spool)
    return BooksOptions(database=place, spool=str(spool), counters=store.counters or "")


def traces_file(config: Config, source: ConfigSource, books: BooksOptions) -> Path | None:
    """Where single requests are kept: beside the ledger, if there is one and nothing else is said. None: nowhere."""
    place = config.store.traces
    if place == NO_DATABASE or (place is None and not books.database):
        return None
    if place is not None:
        return source.beside(place)
    try:
        file = sqlite_file(books.database)
    except StoreFailed:  # a reference to an address
        file = None
    if file is not None:
        return file.with_suffix(TRACES)
    return source.beside((Path(source.name).stem if source.is_file else "penstock") + TRACES)


class Register:
    """`tenants` and `n_keys` as the database last said. `options` are for the workers."""

    def __init__(
        self, options: BooksOptions, database: Database | None = None, follower: TenantFollower | None = None
    ) -> None:
        self.options = options
        self._database, self._follower = database, follower
        self._away = False

    @classmethod
    async def open(
        cls,
        options: BooksOptions,
        *,
        asked: bool,
        clock: Clock,
        secret: Callable[[str], str],
        tell: Callable[[str], None],
    ) -> Register:
        """Raises `StartError`. A SQLite file is made, and brought to the newest schema; a server's database is not, and
        one that is away is waited for while others are served. Where nobody `asked` for a ledger, one that cannot be
        kept is done without.
        """
        if not options.database:
            return cls(options)
        database: Database | None = None
        try:
            await asyncio.to_thread(Path(options.spool).mkdir, mode=0o700, parents=True, exist_ok=True)
            database = await open_database(resolved(options.database, secret))
            register = cls(options, database, TenantFollower(database, tell))
            await register._begin(clock, tell)
            return register
        except (StoreFailed, LookupError, OSError) as error:
            if database is not None:
                await database.close()
            if not asked and isinstance(error, OSError | StoreFailed) and not isinstance(error, SchemaMismatch):
                tell(f"No ledger is kept, because of {options.database}: {error} Name another place: store.database.")
                return cls(BooksOptions(counters=options.counters))
            what = "store.spool" if isinstance(error, OSError) else "store.database"
            raise StartError(f"{what}: {error.args[0] if isinstance(error, LookupError) else error}") from None

    async def _begin(self, clock: Clock, tell: Callable[[str], None]) -> None:
        """Raises `StoreFailed`."""
        database, follower = self._database, self._follower
        assert database is not None
        assert follower is not None
        if database.dialect is Dialect.SQLITE:
            before = (await schema_status(database)).version
            for one in await migrate(database, clock.wall()):
                if before:
                    tell(f"{self.options.database}: applied {one.number:04d} {one.name}.")
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await check_schema(database)
                await follower.catch_up()
        except (StoreAway, TimeoutError) as error:
            why = str(error) or f"no answer within {ANSWER_WITHIN:g} s"
            tell(f"The database is away ({why}). Serving begins without what it knows, and has it when it is back.")
            self._away = True

    @property
    def tenants(self) -> tuple[StoredTenant, ...]:
        return () if self._follower is None else self._follower.known

    @property
    def n_keys(self) -> int:
        """1 where there are any. Nobody knows of a database that was away at the start: there may be."""
        return int(self._follower is not None and (self._follower.any_keys or self._away))

    async def run(self, on_change: Callable[[], object]) -> None:
        """Until it is cancelled."""
        if self._follower is not None:
            await self._follower.run(on_change)

    async def close(self) -> None:
        if self._database is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._database.close()
