"""Who asks? The key's digest is looked up in the plane: no I/O, and the secret is never kept."""

from __future__ import annotations

import hashlib
import hmac

from penstock.core.errors import Unauthorized
from penstock.core.request import ANYONE, Caller
from penstock.gateway.exchange import Exchange
from penstock.gateway.plane import Plane

_HOW = "Send it as `Authorization: Bearer sk-pen-...` (or `x-api-key`); `penstock key create` makes one."


def identify(plane: Plane, exchange: Exchange) -> Caller:
    """The caller behind an exchange's key. Raises `Unauthorized`; its text never repeats what was sent.

    SHA-256 suffices for keys of 256 random bits: there is nothing to guess. The table is searched by the first bytes
    of the digest, and the whole of it is compared in constant time.
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
    digest = hashlib.sha256(key.strip()).digest()
    found = plane.callers.get(digest[:8])
    if found is None or not hmac.compare_digest(found[0], digest):
        raise Unauthorized("This API key is not known here: it may be mistyped, revoked or for another gateway.")
    return found[1]
