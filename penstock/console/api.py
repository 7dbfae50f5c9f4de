"""The APIs of this listener as handlers of HTTP exchanges: find the route, find out who asks, see whether they may, do
it. A table of routes makes an API: the admin's own, and the console's.

Who may is decided on the row of the table that will run, never on the text of the path, and before a body is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from penstock.console.acts import Answer, Asked, Body, Flowing, House
from penstock.console.openapi import document
from penstock.console.refusals import HEADERS, Denied, denied
from penstock.console.repeats import Repeats
from penstock.console.roles import BUDGET_OPTIONS, Act
from penstock.console.routes import PREFIX, ROUTES, Of, Route
from penstock.console.sessions import Gate
from penstock.control.tenants import NotThere, Refused
from penstock.core.clock import Clock
from penstock.http.server import Exchange
from penstock.stores.base import StoreFailed

MAX_BODY: Final = 1 << 20
_VERSION: Final = re.compile(rb'"([0-9]{1,18})"')
_MOST_PARAMETERS: Final = 16
_ANY: Final = ":*"  # ends the name of a parameter of which there may be many: tag:team, tag:job
Told: TypeAlias = tuple[int, bytes, bytes]  # status, body and lines of headers


class Api:
    """The routes of a table, under `prefix`."""

    def __init__(
        self, house: House, gate: Gate, *, clock: Clock, routes: tuple[Route, ...] = ROUTES, prefix: str = PREFIX
    ) -> None:
        self._house, self._gate, self._routes = house, gate, routes
        self._root = f"{prefix}/".encode()
        self._repeats = Repeats(clock)

    async def handle(self, exchange: Exchange) -> None:
        try:
            answer = await self._answer(exchange)
        except (Refused, StoreFailed) as error:
            answer = told(denied(error))
        except Denied as error:
            answer = told(error)
        match answer:
            case Flowing(run):
                await run(exchange)
            case Body(data, content_type, lines):
                exchange.respond(200, data, HEADERS + lines, content_type)
            case status, body, lines:
                exchange.respond(status, body, HEADERS + lines)

    async def _answer(self, exchange: Exchange) -> Told | Body | Flowing:
        try:
            principal = await self._gate.principal(exchange)
        except Denied as error:
            if error.status == 401 and exchange.header(b"authorization") is None and self._route(exchange)[0].greets:
                return 200, b"null", b""
            raise
        route, path = self._route(exchange)
        body = _body(exchange, route)
        if not principal.may(route.act) and not (
            route.with_budgets and principal.may(Act.SET_BUDGETS) and body and BUDGET_OPTIONS.issuperset(body)
        ):
            raise Denied(403, "forbidden", f"your role, {principal.role}, may not {route.act}")
        asked = Asked(
            principal,
            path,
            _query(exchange, route),
            body,
            _if_match(exchange),
            exchange.header(b"x-penstock-key") or b"",
            self._gate.still(exchange),
        )
        if principal.org:
            asked = await self._within(principal.org, route, asked)
        key = exchange.header(b"idempotency-key") if route.method == "POST" else None
        if route.flows:
            value = (await route.run(self._house, asked)).value
            assert isinstance(value, Body | Flowing), route.path
            return value
        if key is None:
            return await self._run(route, asked)
        return await self._once(key.decode("latin-1"), route, asked, exchange)

    def _route(self, exchange: Exchange) -> tuple[Route, dict[str, str]]:
        """The row, and what the path has in the place of its parameters."""
        methods = []
        raw = exchange.path.removeprefix(self._root)
        parts = raw.split(b"/") if raw != exchange.path else []
        for route in self._routes:
            path = _matched(route.parts, parts)
            if path is not None:
                if route.method.encode() == exchange.method:
                    return route, path
                methods.append(route.method)
        if methods:
            raise Denied(405, "method_not_allowed", f"this path takes {' and '.join(sorted(methods))}")
        raise Denied(404, "not_found", f"there is no such path; {PREFIX}/openapi.json has those of the admin API")

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

    async def _run(self, route: Route, asked: Asked) -> Told:
        answer: Answer = await route.run(self._house, asked)
        lines = b"" if answer.version is None else b'etag: "%d"\r\n' % answer.version
        return route.status, msgspec.json.encode(answer.value), lines

    async def _once(self, key: str, route: Route, asked: Asked, exchange: Exchange) -> Told:
        """What is refused is remembered too; what broke, or was given up by the caller, is not."""
        who = asked.principal.name
        parts = (exchange.path, exchange.query, exchange.header(b"if-match") or b"", exchange.body)
        before = self._repeats.begin(who, key, hashlib.sha256(b"\0".join(parts)).digest())
        if before is not None:
            return before
        done: Told | None = None
        try:
            done = await self._run(route, asked)
        except Refused as error:
            done = told(denied(error))
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


def told(error: Denied) -> Told:
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
        kind, colon, rest = name.partition(":")
        if name not in route.query and not (colon and rest and kind + _ANY in route.query):
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
