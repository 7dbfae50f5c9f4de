"""Serves the admin API where the configuration has `admin`, with a connection to the database of its own."""

from __future__ import annotations

import os
from collections.abc import Callable

from penstock.app.errors import StartError
from penstock.app.limits_used import LimitsUsed
from penstock.app.listen import bind, tls_context
from penstock.app.options import BooksOptions
from penstock.app.source import ConfigSource
from penstock.config.schema import Config
from penstock.config.secrets import resolved
from penstock.console.acts import ConfigView, Watch
from penstock.console.desk import Desk
from penstock.console.server import AdminServer, MissingExtra
from penstock.console.through import GatewayAddress, Through
from penstock.core.clock import Clock
from penstock.core.keys import Pepper
from penstock.stores.base import Counters, StoreFailed
from penstock.stores.databases import open_database
from penstock.stores.sql import Database


class AdminListener:
    """What is to be stopped in the end. Again is harmless."""

    def __init__(self, server: AdminServer, database: Database) -> None:
        self.port = server.port
        self._server, self._database = server, database

    async def stop(self) -> None:
        """What is being done may end, for a few seconds."""
        await self._server.stop()
        await self._database.close()


async def serve_admin(
    config: Callable[[], Config],
    books: BooksOptions,
    source: ConfigSource,
    *,
    clock: Clock,
    secret: Callable[[str], str],
    tell: Callable[[str], None],
    counters: Counters,
    desk: Desk | None = None,
    gateway: GatewayAddress | None = None,
    shown: ConfigView | None = None,
    watch: Watch | None = None,
    on_login: Callable[[str], object] = str,
) -> AdminListener | None:
    """None where there is no `admin`. `counters` are those of this host's limits; whoever gives them closes them. What
    follows is for the console.

    Who gets in follows `config`; the address, TLS and pepper are those of the start. Raises `StartError`.
    """
    now = config()
    admin = now.admin
    if admin is None:
        return None
    if not books.database:
        raise StartError("admin: there is no database to keep things in. Name one: store.database.")
    sockets = bind(admin.host, admin.port, section="admin")
    database: Database | None = None
    try:
        pepper = None if now.keys_pepper is None else Pepper(secret(now.keys_pepper).encode())
        tls = None
        if admin.tls is not None:
            tls = tls_context(str(source.beside(admin.tls.certificate)), str(source.beside(admin.tls.key)), "admin")
        database = await open_database(resolved(books.database, secret))
        used = LimitsUsed(config, database, counters, clock)
        server = AdminServer(
            database,
            config,
            clock=clock,
            entropy=os.urandom,
            pepper=pepper,
            tell=tell,
            usage=used.uses,
            desk=desk,
            gateway=None if gateway is None else Through(gateway),
            shown=shown,
            watch=watch,
            on_login=on_login,
        )
        await server.start(sockets, tls)
    except (LookupError, ValueError, StoreFailed, MissingExtra, StartError) as error:
        for bound in sockets:
            bound.close()
        if database is not None:
            await database.close()
        if isinstance(error, StartError):
            raise
        raise StartError(f"admin: {error.args[0]}") from None
    host = f"[{admin.host}]" if ":" in admin.host else admin.host
    place = f"{'http' if tls is None else 'https'}://{host}:{server.port}"
    tell(f"The admin API is at {place}/admin/v1")
    tell(f"The console is at {place}/console")
    return AdminListener(server, database)
