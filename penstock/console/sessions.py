"""Who asks, also in a browser: somebody who has shown a key or a token gets a cookie for it, which holds nothing.

What a session stands for is looked at again with every request: a key that a reload takes away, a token that expires,
and a logout end it at once. A cookie is sent by browsers whoever made them ask, so what changes anything must come with
a header that no other site can make them send (OWASP, "Cross-Site Request Forgery Prevention", custom headers).
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec

from penstock.config.schema import Admin, Config, Oidc
from penstock.console.identify import Doorkeeper, Proof
from penstock.console.refusals import Denied
from penstock.console.roles import Principal
from penstock.core.clock import Clock

COOKIE: Final = b"penstock_console"
LASTS: Final = 12 * 3600.0  # seconds
MOST: Final = 1_000  # sessions; beyond it the oldest ends
MARK: Final = b"x-penstock-console"
MAX_SECRET: Final = 16_384  # bytes
BEARER_LASTS: Final = 3600.0  # seconds that an answer may go on for a token that was shown with it

_READS: Final = (b"GET", b"HEAD")
_SITES: Final = (b"same-origin", b"none")


class Asking(Protocol):
    """What is looked at of an exchange."""

    method: bytes
    peer: str

    def header(self, name: bytes) -> bytes | None: ...


class Session(msgspec.Struct, frozen=True):
    """Of a key: its proof. Of a token: who it said they are, and the options that it was verified by."""

    ends_at: float  # Unix seconds
    proof: Proof | None
    principal: Principal
    oidc: Oidc | None


class Gate:
    """`door` makes the doorkeeper of a configuration's `admin`, anew when that is another one. `entropy` answers so
    many bytes of a cryptographic random source; `on_login` hears how each login went: ok, refused or limited."""

    def __init__(
        self,
        config: Callable[[], Config],
        door: Callable[[Admin], Doorkeeper],
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        on_login: Callable[[str], object] = str,
    ) -> None:
        self._config, self._make_door, self._clock, self._entropy = config, door, clock, entropy
        self._on_login = on_login
        self._door: tuple[Admin, Doorkeeper] | None = None
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()  # by the digest of what is in the cookie

    async def principal(self, exchange: Asking) -> Principal:
        """Raises `Denied`."""
        authorization = exchange.header(b"authorization")
        if authorization is not None:
            return await self._doorkeeper().principal(authorization, exchange.peer)
        token = _cookie(exchange)
        if token is None:
            return await self._doorkeeper().principal(None, exchange.peer)
        found = self._known(token)
        if found is None:
            raise Denied(401, "unauthorized", "you are not logged in, or no longer")
        if exchange.method not in _READS:
            unforged(exchange)
        return found

    def still(self, exchange: Asking) -> Callable[[], bool]:
        """Whether who asked could ask again; costs some microseconds."""
        authorization, token = exchange.header(b"authorization"), _cookie(exchange)
        if authorization is None and token is not None:
            return lambda: self._known(token) is not None
        until = self._clock.now() + BEARER_LASTS
        given = (authorization or b"").partition(b" ")[2].strip()

        def known() -> bool:
            admin = self._config().admin
            if admin is None or self._clock.now() >= until:
                return False
            door = self._doorkeeper()
            return door.known(door.proof(given)) is not None or admin.oidc is not None

        return known

    async def login(self, exchange: Asking, secret: str) -> tuple[Principal, bytes]:
        """Who it is, and what goes into their cookie. Raises `Denied`."""
        unforged(exchange)
        given = secret.strip().encode("utf-8", "replace")[:MAX_SECRET]
        try:
            principal = await self._doorkeeper().principal(b"Bearer " + given, exchange.peer)
        except Denied as error:
            self._on_login("limited" if error.status == 429 else "refused")
            raise
        self._on_login("ok")
        now, door, admin = self._clock.wall(), self._doorkeeper(), self._config().admin
        assert admin is not None, "somebody was let in"
        proof, oidc, ends_at = door.proof(given), None, now + LASTS
        if door.known(proof) is None:
            oidc, ends_at = admin.oidc, min(ends_at, _expiry(given, ends_at))
        token = base64.urlsafe_b64encode(self._entropy(32)).rstrip(b"=")
        self._sessions[_digest(token)] = Session(ends_at, None if oidc is not None else proof, principal, oidc)
        if len(self._sessions) > MOST:
            self._sessions.popitem(last=False)
        return principal, token

    def logout(self, exchange: Asking) -> None:
        """Raises `Denied` for what another site made a browser send."""
        unforged(exchange)
        token = _cookie(exchange)
        if token is not None:
            self._sessions.pop(_digest(token), None)

    def _known(self, token: bytes) -> Principal | None:
        key = _digest(token)
        session = self._sessions.get(key)
        if session is None:
            return None
        found: Principal | None = None
        admin = self._config().admin
        if admin is not None and self._clock.wall() < session.ends_at:
            if session.proof is not None:
                found = self._doorkeeper().known(session.proof)
            elif admin.oidc == session.oidc:
                found = session.principal
        if found is None:
            del self._sessions[key]
        return found

    def _doorkeeper(self) -> Doorkeeper:
        admin = self._config().admin
        if admin is None:
            raise Denied(401, "unauthorized", "`admin` was taken out of the configuration: nobody is let in")
        if self._door is None or self._door[0] != admin:
            self._door = admin, self._make_door(admin)
        return self._door[1]


def unforged(exchange: Asking) -> None:
    """Raises `Denied` unless the page that asks is ours."""
    origin, host = exchange.header(b"origin"), exchange.header(b"host")
    if (
        exchange.header(MARK) != b"1"
        or (exchange.header(b"sec-fetch-site") or b"none") not in _SITES
        or (origin is not None and _place(origin) != host)
    ):
        raise Denied(403, "forged", f"send `{MARK.decode()}: 1` from the console's own pages")


def set_cookie(token: bytes, lasts: float, *, secure: bool) -> bytes:
    """The header line; an empty token takes the cookie away."""
    line = b"set-cookie: %b=%b; HttpOnly; SameSite=Strict; Path=/; Max-Age=%d" % (COOKIE, token, lasts)
    return line + (b"; Secure\r\n" if secure else b"\r\n")


def _place(origin: bytes) -> bytes:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return b""


def _cookie(exchange: Asking) -> bytes | None:
    for part in (exchange.header(b"cookie") or b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == COOKIE and value:
            return value
    return None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _expiry(token: bytes, usual: float) -> float:
    """The `exp` of a token that has been verified."""
    payload = token.split(b".")[1]
    claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    exp = claims.get("exp") if isinstance(claims, dict) else None
    return float(exp) if isinstance(exp, int | float) else usual
