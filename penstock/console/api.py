"""The admin API as a handler of HTTP exchanges: find the route, find out who asks, see whether they may, do it.

Who may is decided on the row of the table that will run, never on the text of the path, and before a body is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from penstock.config.schema import Admin, Config
from penstock.console.acts import Answer, Asked, House
from penstock.console.identify import Doorkeeper
from penstock.console.openapi import document
from penstock.console.refusals import Denied, denied
from penstock.console.repeats import Repeats
from penstock.console.roles import BUDGET_OPTIONS, Act
from penstock.console.routes import PREFIX, ROUTES, Of, Route
from penstock.control.tenants import NotThere, Refused
from penstock.core.clock import Clock
from penstock.http.server import Exchange
from penstock.stores.base import StoreFailed

MAX_BODY: Final = 1 << 20
_HEADERS: Final = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
_VERSION: Final = re.compile(rb'"([0-9]{1,18})"')
_MOST_PARAMETERS: Final = 16
_ROOT: Final = f"{PREFIX}/".encode()


class Api:
    """`door` makes the doorkeeper of a configuration's `admin`, anew when that is another one."""

    def __init__(
        self,
        house: House,
        *,
        config: Callable[[], Config],
        door: Callable[[Admin], Doorkeeper],
        clock: Clock,
        routes: tuple[Route, ...] = ROUTES,
    ) -> None:
        self._house, self._config, self._make_door, self._routes = house, config, door, routes
        self._door: tuple[Admin, Doorkeeper] | None = None
        self._repeats = Repeats(clock)

    async def handle(self, exchange: Exchange) -> None:
        try:
            status, body, lines = await self._answer(exchange)
        except (Refused, StoreFailed) as error:
            status, body, lines = _told(denied(error))
        except Denied as error:
            status, body, lines = _told(error)
        exchange.respond(status, body, _HEADERS + lines)

    async def _answer(self, exchange: Exchange) -> tuple[int, bytes, bytes]:
        principal = await self._doorkeeper().principal(exchange.header(b"authorization"), exchange.peer)
        route, path = self._route(exchange)
        body = _body(exchange, route)
        if not principal.may(route.act) and not (
            route.with_budgets and principal.may(Act.SET_BUDGETS) and body and BUDGET_OPTIONS.issuperset(body)
        ):
            raise Denied(403, "forbidden", f"your role, {principal.role}, may not {route.act}")
        asked = Asked(principal, path, _query(exchange, route), body, _if_match(exchange))
        if principal.org:
            asked = await self._within(principal.org, route, asked)
        key = exchange.header(b"idempotency-key") if route.method == "POST" else None
        if key is None:
            return await self._run(route, asked)
        return await self._once(key.decode("latin-1"), route, asked, exchange)

    def _doorkeeper(self) -> Doorkeeper:
        admin = self._config().admin
        if admin is None:
            raise Denied(401, "unauthorized", "`admin` was taken out of the configuration: nobody is let in")
        if self._door is None or self._door[0] != admin:
            self._door = admin, self._make_door(admin)
        return self._door[1]

    def _route(self, exchange: Exchange) -> tuple[Route, dict[str, str]]:
        """The row, and what the path has in the place of its parameters."""
        methods = []
        raw = exchange.path.removeprefix(_ROOT)
        parts = raw.split(b"/") if raw != exchange.path else []
        for route in self._routes:
            path = _matched(route.parts, parts)
            if path is not None:
                if route.method.encode() == exchange.method:
                    return route, path
                methods.append(route.method)
        if methods:
            raise Denied(405, "method_not_allowed", f"this path takes {' and '.join(sorted(methods))}")
        raise Denied(404, "not_found", f"there is no such path; {PREFIX}/openapi.json has all there are")

    async def _within(self, org: str, route: Route, asked: Asked) -> Asked:
        """What somebody may ask who sees one organisation. What belongs to others is not there for them."""
        if route.of is Of.ANYBODY:
            return asked
        if route.of is Of.PATH and asked.path["org"] == org:
            return asked
        if route.of is Of.KEY and (await self._house.tenancy.key(asked.path["id"])).org == org:
            return asked
        if route.of is Of.QUERY and asked.query.get("org", org) == org:
            return msgspec.structs.replace(asked, query={**asked.query, "org": org})
        if route.of is Of.BODY and asked.body.get("org", org) == org:
            return msgspec.structs.replace(asked, body={**asked.body, "org": org})
        if route.of is Of.HOUSE:
            raise Denied(403, "forbidden", f"you look after `{org}` alone, and this is about all organisations")
        raise NotThere("there is no such thing in the organisation that you look after")

    async def _run(self, route: Route, asked: Asked) -> tuple[int, bytes, bytes]:
        answer: Answer = await route.run(self._house, asked)
        lines = b"" if answer.version is None else b'etag: "%d"\r\n' % answer.version
        return route.status, msgspec.json.encode(answer.value), lines

    async def _once(self, key: str, route: Route, asked: Asked, exchange: Exchange) -> tuple[int, bytes, bytes]:
        """What is refused is remembered too; what broke, or was given up by the caller, is not."""
        who = asked.principal.name
        parts = (exchange.path, exchange.query, exchange.header(b"if-match") or b"", exchange.body)
        before = self._repeats.begin(who, key, hashlib.sha256(b"\0".join(parts)).digest())
        if before is not None:
            return before
        done: tuple[int, bytes, bytes] | None = None
        try:
            done = await self._run(route, asked)
        except Refused as error:
            done = _told(denied(error))
        finally:
            self._repeats.end(who, key, done)
        return done


def handler_document(routes: tuple[Route, ...] = ROUTES) -> Callable[[], bytes]:
    """The document, made when it is first asked for."""
    made: list[bytes] = []

    def openapi() -> bytes:
        if not made:
            made.append(document(routes))
        return made[0]

    return openapi


def _told(error: Denied) -> tuple[int, bytes, bytes]:
    lines = b"" if error.wait is None else b"retry-after: %d\r\n" % error.wait
    if error.status == 401:
        lines += b"www-authenticate: Bearer\r\n"
    return error.status, error.body(), lines


def _matched(pattern: tuple[str, ...], parts: list[bytes]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    found = {}
    for name, part in zip(pattern, parts, strict=True):
        if not name.startswith("{"):
            if name.encode() != part:
                return None
            continue
        try:
            text = unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            raise Denied(400, "malformed", "the path is not UTF-8") from None
        if not text or "\0" in text:
            return None
        found[name[1:-1]] = text
    return found


def _query(exchange: Exchange, route: Route) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            exchange.query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(exchange.query),
            max_num_fields=_MOST_PARAMETERS,
            errors="strict",
        )
    except ValueError:
        raise Denied(400, "malformed", "the query is not one of names and values") from None
    for name, value in pairs:
        if name not in route.query:
            there = ", ".join(route.query) or "none"
            raise Denied(400, "invalid", f"`{name[:64]}` is not a parameter here; there are {there}")
        if name in found or "\0" in value:
            raise Denied(400, "invalid", f"`{name}` is there twice, or holds what cannot be stored")
        found[name] = value
    return found


def _body(exchange: Exchange, route: Route) -> dict[str, Any]:
    if not exchange.body:
        if route.body is not None and not route.path.endswith("/rotate"):
            raise Denied(400, "malformed", "a JSON object is missing")
        return {}
    if route.body is None:
        raise Denied(400, "malformed", "there is nothing to send here")
    kind = (exchange.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Denied(415, "unsupported_media_type", "send JSON, as `content-type: application/json`")
    try:
        found = msgspec.json.decode(exchange.body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise Denied(400, "malformed", "what was sent is not JSON") from None
    if not isinstance(found, dict):
        raise Denied(400, "malformed", "what was sent is not a JSON object")
    return found


def _if_match(exchange: Exchange) -> int | None:
    given = exchange.header(b"if-match")
    if given is None or given == b"*":
        return None
    matched = _VERSION.fullmatch(given)
    if matched is None:
        raise Denied(400, "invalid", 'if-match must be an etag that was answered, such as "17"')
    return int(matched[1])
