"""Who asks, and may they? The key's digest is looked up in the plane: no I/O, and the secret is never kept."""

from __future__ import annotations

from datetime import UTC, datetime

from penstock.config.spec import Scope
from penstock.core.errors import (
    KeyExpired,
    KeyNotYetValid,
    KeyRevoked,
    NetworkNotAllowed,
    PenstockError,
    RouteNotAllowed,
    ScopeNotAllowed,
    Unauthorized,
)
from penstock.core.keys import PREFIX, well_formed
from penstock.core.request import ANYONE, Caller, Endpoint
from penstock.gateway.exchange import Exchange
from penstock.gateway.known_key import Terms
from penstock.gateway.peer import address_of
from penstock.gateway.plane import Plane

_HOW = "Send it as `Authorization: Bearer sk-pen-...` (or `x-api-key`); `penstock key create` makes one."


def identify(plane: Plane, exchange: Exchange, endpoint: Endpoint | None, scope: Scope = "call") -> Caller:
    """The caller behind an exchange's key, who may do what `scope` says at `endpoint` (None: at none, such as the list
    of models). Raises `Unauthorized` and `Forbidden`, whose texts never repeat what was sent.
    """
    if plane.spec.insecure_dev:
        return ANYONE
    authorization = exchange.header(b"authorization")
    if authorization is not None:
        if authorization[:7] != b"Bearer " and authorization[:7].lower() != b"bearer ":
            raise Unauthorized(f"The Authorization header is not a bearer token. {_HOW}")
        key = authorization[7:]
    else:  # as Anthropic's and Azure's clients send it
        key = exchange.header(b"x-api-key") or exchange.header(b"api-key") or b""
        if not key:
            raise Unauthorized(f"No API key was sent. {_HOW}")
    key = key.strip()
    known = plane.keyring.find(key)
    if known is None:
        raise _unknown(key)
    if known.terms is not None:
        try:
            _hold_to(known.terms, plane, exchange, endpoint, scope)
        except PenstockError as refusal:
            refusal.caller = known.caller  # for the receipt: somebody goes on using a key that was revoked
            raise
    return known.caller


def _unknown(key: bytes) -> Unauthorized:
    """The checksum tells a typing error from a key of somewhere else. It takes longer than the look-up in memory, so it
    comes after that; whoever asks a store about keys asks it first."""
    text = key.decode("latin-1")
    if text.startswith(PREFIX) and not well_formed(text):
        return Unauthorized("This API key is mistyped, or was not copied whole: its checksum does not fit.")
    return Unauthorized("This API key is not known here: it may be mistyped, removed or for another gateway.")


def _hold_to(terms: Terms, plane: Plane, exchange: Exchange, endpoint: Endpoint | None, scope: Scope) -> None:
    """Only who has shown the whole key is told why it is refused."""
    now = plane.clock.wall()
    if now >= terms.revoked:
        raise KeyRevoked("This API key was revoked.")
    if now >= terms.expires:
        raise KeyExpired(f"This API key expired at {_time(terms.expires)}; ask for a new one.")
    if now >= terms.replaced:
        raise KeyExpired(f"This API key was replaced by a newer one, and stopped to work at {_time(terms.replaced)}.")
    if now < terms.not_before:
        raise KeyNotYetValid(f"This API key is not valid before {_time(terms.not_before)}.")
    if terms.networks is not None:
        address = address_of(exchange, plane.keyring.proxies)
        if address is None or not any(address in network for network in terms.networks):
            raise NetworkNotAllowed("This API key may not be used from this network.")
    if terms.scopes is not None and scope not in terms.scopes:
        what = "call models" if scope == "call" else "list models or fetch stored responses"
        raise ScopeNotAllowed(f"This API key may not {what}: it does not have the scope `{scope}`.")
    if terms.endpoints is not None and endpoint is not None and endpoint not in terms.endpoints:
        raise RouteNotAllowed(f"This API key may not use {endpoint}.")


def _time(unix_seconds: float) -> str:
    return datetime.fromtimestamp(int(unix_seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
