"""The admin API's own listener, which has the console too, from its start to its end. In a server of many workers it is
in the parent process.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from importlib.util import find_spec
from typing import Any, Final

import msgspec

from penstock.config.schema import Admin, Config
from penstock.console import views
from penstock.console.acts import Asked, ConfigView, House, Usage, Watch
from penstock.console.api import MAX_BODY, Api, handler_document, told
from penstock.console.desk import Desk
from penstock.console.identify import Doorkeeper, Tokens
from penstock.console.pages import Pages
from penstock.console.refusals import HEADERS, Denied, body
from penstock.console.sessions import LASTS, Gate, set_cookie
from penstock.console.through import Through
from penstock.console.views import PREFIX as CONSOLE
from penstock.console.views import VIEWS
from penstock.control.tenancy import Tenancy
from penstock.control.users import Users
from penstock.core.clock import Clock
from penstock.core.keys import Pepper
from penstock.http.options import ServerOptions
from penstock.http.server import Exchange, Server
from penstock.stores.audit import SqlAuditLog
from penstock.stores.costs import Costs
from penstock.stores.sql import Database

MAX_CONNECTIONS = 256
DRAIN_SECONDS = 5.0
LOGIN: Final = f"{CONSOLE}/login".encode()
LOGOUT: Final = f"{CONSOLE}/logout".encode()
_MISSING = "admin.oidc needs PyJWT. Install it with: pip install 'penstock[oidc]'."


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    secret: str


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
        desk: Desk | None = None,
        gateway: Through | None = None,
        shown: ConfigView | None = None,
        watch: Watch | None = None,
        on_login: Callable[[str], object] = str,
    ) -> None:
        """`config` answers the configuration of the moment, whose `admin` says who gets in. `entropy` answers so many
        bytes of a cryptographic random source. What comes after `usage` is the console's, as in `House`. Raises
        `MissingExtra` when its `oidc` needs what is not installed."""
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
            desk=desk,
            gateway=gateway,
            shown=shown,
            watch=watch,
        )
        admin = config().admin
        if admin is not None and admin.oidc is not None and find_spec("jwt") is None:
            raise MissingExtra(_MISSING)
        self._gate = Gate(config, self._door, clock=clock, entropy=entropy, on_login=on_login)
        self._api = Api(self._house, self._gate, clock=clock)
        self._console = Api(self._house, self._gate, clock=clock, routes=VIEWS, prefix=CONSOLE)
        self._pages = Pages()
        self._secure = False
        self._server: Server | None = None

    async def start(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Listen on sockets that are bound."""
        options = ServerOptions(max_body_bytes=MAX_BODY, max_connections=MAX_CONNECTIONS, drain_seconds=DRAIN_SECONDS)
        self._secure = tls is not None
        self._server = Server(self.handle, options, on_crash=self._crashed, error_body=body)
        for bound in sockets:
            await self._server.start(sock=bound, ssl=tls)

    @property
    def port(self) -> int:
        assert self._server is not None, "not started"
        return self._server.port

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        path = exchange.path
        if path == b"/":
            exchange.respond(302, b"", HEADERS + b"location: /console\r\n")
        elif self._pages.answers(path):
            self._pages.answer(exchange)
        elif path in (LOGIN, LOGOUT):
            return self._sign(exchange)
        elif path.startswith(CONSOLE.encode() + b"/"):
            return self._console.handle(exchange)
        else:
            return self._api.handle(exchange)
        return None

    async def _sign(self, exchange: Exchange) -> None:
        """In or out."""
        try:
            if exchange.method != b"POST":
                raise Denied(405, "method_not_allowed", "this path takes POST")
            if exchange.path == LOGOUT:
                self._gate.logout(exchange)
                exchange.respond(204, b"", HEADERS + set_cookie(b"", 0, secure=self._secure))
                return
            principal, token = await self._gate.login(exchange, _secret(exchange.body))
            answer = await views.me(self._house, Asked(principal, {}, {}, {}))
            cookie = set_cookie(token, LASTS, secure=self._secure)
            exchange.respond(200, msgspec.json.encode(answer.value), HEADERS + cookie)
        except Denied as error:
            status, body, lines = told(error)
            exchange.respond(status, body, HEADERS + lines)

    async def stop(self) -> None:
        """What is being done may end, for a few seconds. Again is harmless."""
        if self._house.desk is not None:
            self._house.desk.feed.close()
        if self._house.gateway is not None:
            self._house.gateway.close()
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


def _secret(body: bytes) -> str:
    """Raises `Denied`."""
    try:
        return msgspec.json.decode(body, type=Login).secret
    except (msgspec.DecodeError, RecursionError):
        raise Denied(400, "malformed", 'send `{"secret": "..."}`, an admin key or a token') from None
