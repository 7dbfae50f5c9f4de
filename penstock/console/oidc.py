"""Bearer tokens of an OpenID provider: JWTs, verified by PyJWT (extra `oidc`) with the keys that the provider shows.

A signature is checked at each request and nothing is remembered of a token, so there is no cache to be confused. What
is cached is the provider's keys: bounded, fetched again after an hour or for a key that is not known, at most once in a
minute, and used on when the provider cannot be reached (https://openid.net/specs/openid-connect-discovery-1_0.html).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import jwt
import msgspec

from penstock.config import addresses
from penstock.config.admin import wrong_issuer
from penstock.config.schema import Oidc
from penstock.console.identify import ProviderAway, TokenRefused, Tokens
from penstock.console.roles import POWER, Principal
from penstock.core.clock import Clock
from penstock.http.get import GetFailed, get

# Signatures only: with HS256 the public key that everybody can fetch would be the secret.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY: Final = 30.0  # seconds that clocks may differ
MAX_TOKEN: Final = 16 * 1024
MAX_DOCUMENT: Final = 256 * 1024
MOST_KEYS: Final = 64
MAX_AGE: Final = 3600.0
NOT_AGAIN: Final = 60.0
FETCH_SECONDS: Final = 5.0
MAX_NAME: Final = 200

Fetch = Callable[[str], Awaitable[bytes]]


class ProviderTokens:
    def __init__(self, options: Oidc, *, clock: Clock, tell: Callable[[str], None], fetch: Fetch | None = None) -> None:
        """`tell` hears of a provider that cannot be asked. `fetch` is for tests."""
        self._options, self._clock, self._tell = options, clock, tell
        self._fetch = fetch if fetch is not None else _fetch
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching = asyncio.Lock()

    async def principal(self, token: str) -> Principal:
        """Raises `TokenRefused` and `ProviderAway`."""
        if len(token) > MAX_TOKEN:
            raise TokenRefused("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise TokenRefused("the token is not signed in a way that is accepted")
            claims = self._verified(token, await self._key(header.get("kid")))
        except jwt.PyJWTError as error:
            raise TokenRefused(_WHY.get(type(error), "the token is not valid")) from None
        except (ValueError, OverflowError, RecursionError):  # of its JSON, where PyJWT does not expect them
            raise TokenRefused("the token is not valid") from None
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_NAME or not subject.isprintable():
            raise TokenRefused("the token's `sub` is no name")
        said = set(_texts(_claim(claims, self._options.claim)))
        given = {role for value, role in self._options.roles.items() if value in said}
        for role in POWER:
            if role in given:
                return Principal(f"oidc:{subject}", role)
        raise TokenRefused(f"the token's `{self._options.claim}` gives no role here")

    def _verified(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        if key.algorithm_name not in ALGORITHMS:
            raise TokenRefused("the token is not signed in a way that is accepted")
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=self._options.audience,
            issuer=self._options.issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )

    async def _key(self, id: object) -> jwt.PyJWK:
        now = self._clock.now()
        if self._fetched_at is None or now - self._fetched_at > MAX_AGE or self._named(id) is None:
            await self._refresh()
        key = self._named(id)
        if key is not None:
            return key
        if self._fetched_at is None:
            raise ProviderAway("the provider's keys could not be fetched yet")
        raise TokenRefused("the token is signed with a key that its provider does not publish")

    def _named(self, id: object) -> jwt.PyJWK | None:
        """A token without a `kid` is for a provider with one key."""
        if id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(id) if isinstance(id, str) else None

    async def _refresh(self) -> None:
        async with self._fetching:
            now = self._clock.now()
            if self._tried_at is not None and now - self._tried_at < NOT_AGAIN:
                return
            self._tried_at = now
            try:
                self._keys = await self._published()
                self._fetched_at = now
            except (GetFailed, ValueError, jwt.PyJWTError) as error:
                self._tell(f"The keys of {self._options.issuer} could not be fetched: {error}")

    async def _published(self) -> dict[str, jwt.PyJWK]:
        """Raises `GetFailed`, and ValueError for what is not what the specification says."""
        issuer = self._options.issuer
        about = _object(await self._fetch(issuer.rstrip("/") + "/.well-known/openid-configuration"))
        if about.get("issuer") != issuer:
            raise ValueError("its discovery document is that of another issuer")
        where = about.get("jwks_uri")
        if not isinstance(where, str):
            raise ValueError("its discovery document does not say where its keys are")
        listed = _object(await self._fetch(where)).get("keys")
        if not isinstance(listed, list) or len(listed) > MOST_KEYS:
            raise ValueError(f"its keys are not a list of at most {MOST_KEYS}")
        keys = {}
        for number, one in enumerate(listed):
            if isinstance(one, dict) and one.get("use", "sig") == "sig" and one.get("kty") in ("RSA", "EC", "OKP"):
                name = one.get("kid")
                keys[name if isinstance(name, str) else f"\0{number}"] = jwt.PyJWK(one)
        return keys


_WHY: Final[Mapping[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is meant for somebody else",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.MissingRequiredClaimError: "the token lacks one of exp, iss, aud and sub",
}


async def _fetch(url: str) -> bytes:
    if (wrong := wrong_issuer(url.partition("?")[0])) is not None:
        raise GetFailed(f"the address that it names for its keys {wrong}")
    base, mark, query = url.partition("?")
    if not query.isascii() or not query.isprintable() or " " in query or "#" in query:
        raise GetFailed("the address that it names for its keys cannot be asked")
    address = addresses.parse(base, "/")
    return await get(address.origin, address.base_path + mark + query, max_bytes=MAX_DOCUMENT, seconds=FETCH_SECONDS)


def _object(document: bytes) -> dict[str, Any]:
    found = msgspec.json.decode(document)
    if not isinstance(found, dict):
        raise ValueError("it answered with something that is not a JSON object")
    return found


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A name of its own before a path of names: some providers have claims whose names are addresses."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


_: type[Tokens] = ProviderTokens
