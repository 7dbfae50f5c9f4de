"""The admin API's own listener, from its start to its end. In a server of many workers it is in the parent process."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from penstock.config.schema import Admin, Config
from penstock.console.acts import House, Usage
from penstock.console.api import MAX_BODY, Api, handler_document
from penstock.console.identify import Doorkeeper, Tokens
from penstock.console.refusals import body
from penstock.control.tenancy import Tenancy
from penstock.control.users import Users
from penstock.core.clock import Clock
from penstock.core.keys import Pepper
from penstock.http.options import ServerOptions
from penstock.http.server import Server
from penstock.stores.audit import SqlAuditLog
from penstock.stores.costs import Costs
from penstock.stores.sql import Database

MAX_CONNECTIONS = 256
DRAIN_SECONDS = 5.0
_MISSING = "admin.oidc needs PyJWT. Install it with: pip install 'penstock[oidc]'."


class MissingExtra(Exception):
    """The text says what to install."""


class AdminServer:
    """`start` it and `stop` it, inside of a running loop. The database is its owner's to close, afterwards."""

    def __init__(
        self,
        database: Database,
        config: Callable[[], Config],
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        pepper: Pepper | None,
        tell: Callable[[str], None],
        usage: Usage | None = None,
    ) -> None:
        """`config` answers the configuration of the moment, whose `admin` says who gets in. `entropy` answers so many
        bytes of a cryptographic random source. Raises `MissingExtra` when its `oidc` needs what is not installed."""
        self._clock, self._pepper, self._tell = clock, pepper, tell
        self._house = House(
            tenancy=Tenancy(database, config, clock=clock, entropy=entropy, pepper=pepper),
            users=Users(database, clock=clock, pepper=pepper),
            audit=SqlAuditLog(database),
            costs=Costs(database),
            config=config,
            clock=clock,
            openapi=handler_document(),
            usage=usage,
        )
        admin = config().admin
        if admin is not None and admin.oidc is not None and find_spec("jwt") is None:
            raise MissingExtra(_MISSING)
        self._api = Api(self._house, config=config, door=self._door, clock=clock)
        self._server: Server | None = None

    async def start(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Listen on sockets that are bound."""
        options = ServerOptions(max_body_bytes=MAX_BODY, max_connections=MAX_CONNECTIONS, drain_seconds=DRAIN_SECONDS)
        self._server = Server(self._api.handle, options, on_crash=self._crashed, error_body=body)
        for bound in sockets:
            await self._server.start(sock=bound, ssl=tls)

    @property
    def port(self) -> int:
        assert self._server is not None, "not started"
        return self._server.port

    async def stop(self) -> None:
        """What is being done may end, for a few seconds. Again is harmless."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.drain()

    def _door(self, admin: Admin) -> Doorkeeper:
        tokens: Tokens | None = None
        if admin.oidc is not None and find_spec("jwt") is None:
            self._tell(f"{_MISSING} Until then, keys alone are let in.")  # it came with a reload
        elif admin.oidc is not None:
            from penstock.console.oidc import ProviderTokens

            tokens = ProviderTokens(admin.oidc, clock=self._clock, tell=self._tell)
        return Doorkeeper(admin, clock=self._clock, pepper=self._pepper, tokens=tokens)

    def _crashed(self, error: Exception) -> None:
        # Its text may hold what was sent.
        self._tell(f"The admin API answered 500: {type(error).__name__}. This is a bug in Penstock; please report it.")
