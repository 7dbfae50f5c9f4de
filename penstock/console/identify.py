"""Who asks: a key of `admin.keys`, or a token of the OpenID provider. Nobody is let in without either."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from typing import Final, NamedTuple, Protocol

from penstock.config.schema import Admin
from penstock.config.units import unix_seconds
from penstock.console.refusals import Denied
from penstock.console.roles import Principal
from penstock.core.clock import Clock
from penstock.core.keys import Pepper

MOST_FAILURES: Final = 20  # of one address within WINDOW; then it is told to wait before anything is looked at
WINDOW: Final = 60.0
MOST_ADDRESSES: Final = 4_096


class TokenRefused(Exception):
    """The text says why, without anything of the token's."""


class ProviderAway(Exception):
    """The provider's keys could not be had, and there are none from before. The text is for the operator."""


class Tokens(Protocol):
    async def principal(self, token: str) -> Principal:
        """Raises `TokenRefused` and `ProviderAway`."""
        ...


class Proof(NamedTuple):
    """A key that was shown, by its digests: enough to look again whether it is known, and no way back to it."""

    plain: bytes
    peppered: bytes


class Doorkeeper:
    """Looks at every known key in constant time, so that nothing is learnt from how long a refusal takes."""

    def __init__(self, admin: Admin, *, clock: Clock, pepper: Pepper | None, tokens: Tokens | None) -> None:
        self._clock, self._pepper, self._tokens = clock, pepper, tokens
        self._keys = [
            (
                bytes.fromhex(key.hmac or key.sha256 or ""),
                key.hmac is not None,
                None if key.expires is None else unix_seconds(key.expires),
                Principal(f"key:{key.id}", key.role, key.org),
            )
            for key in admin.keys
        ]
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()  # by address: since when, how many

    async def principal(self, authorization: bytes | None, peer: str) -> Principal:
        """Raises `Denied`."""
        scheme, _, given = (authorization or b"").partition(b" ")
        given = given.strip()
        if scheme.lower() != b"bearer" or not given:
            raise Denied(401, "unauthorized", "show a key or a token: `authorization: Bearer ...`")
        found = self.known(self.proof(given))
        if found is not None:
            return found
        if (wait := self._must_wait(peer)) is not None:
            raise Denied(429, "too_many_failures", f"too many wrong keys from your address; wait {wait} s", wait)
        why = "this key is not known here"
        if self._tokens is not None and given.count(b".") == 2:
            try:
                return await self._tokens.principal(given.decode("ascii", "replace"))
            except ProviderAway:
                raise Denied(503, "provider_away", "the provider of tokens cannot be asked for its keys") from None
            except TokenRefused as error:
                why = str(error)
        self._count(peer)
        raise Denied(401, "unauthorized", why)

    def proof(self, given: bytes) -> Proof:
        peppered = b"" if self._pepper is None else self._pepper.digest(given)
        return Proof(hashlib.sha256(given).digest(), peppered)

    def known(self, proof: Proof) -> Principal | None:
        """Whose key it is, now."""
        plain, peppered = proof
        found = None
        for digest, is_peppered, expires, principal in self._keys:
            if hmac.compare_digest(digest, peppered if is_peppered else plain) and (
                expires is None or self._clock.wall() < expires
            ):
                found = principal
        return found

    def _must_wait(self, peer: str) -> int | None:
        """Seconds, for an address that failed too often."""
        since, n = self._failures.get(peer, (0.0, 0))
        left = since + WINDOW - self._clock.now()
        return int(left) + 1 if n >= MOST_FAILURES and left > 0 else None

    def _count(self, peer: str) -> None:
        now = self._clock.now()
        since, n = self._failures.pop(peer, (now, 0))
        if now - since >= WINDOW:
            since, n = now, 0
        self._failures[peer] = since, n + 1
        if len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)
