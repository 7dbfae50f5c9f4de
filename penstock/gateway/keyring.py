"""The keys of a plane by their digests, and what each is held to. All in memory: nobody is asked."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import inf

import msgspec

from penstock.config.spec import GrantSpec, KeySpec, PlaneSpec, Scope
from penstock.core.keys import USERS, Pepper
from penstock.core.request import Caller, Endpoint


class Terms(msgspec.Struct, frozen=True):
    """What a known key is held to at each request. Times are Unix seconds; None is everything."""

    revoked: float = inf
    expires: float = inf
    replaced: float = inf  # the key was replaced by another, and works until then
    not_before: float = -inf
    scopes: frozenset[Scope] | None = None
    endpoints: frozenset[Endpoint] | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] | None = None


class Known(msgspec.Struct, frozen=True, gc=False):
    """A key: whose it is, and `terms` that keys alike share; None where there are none, as for most."""

    digest: bytes
    caller: Caller
    terms: Terms | None


class Keyring:
    """Finds a key by the first 8 bytes of its digest; the whole of it is compared in constant time.

    Each key is digested once or, where some are stored as SHA-256 and others under the pepper, twice at most.
    """

    __slots__ = ("_known", "_pepper", "_plain", "proxies", "user_secret")

    def __init__(self, spec: PlaneSpec, pepper: Pepper | None) -> None:
        self._known: dict[bytes, Known] = {}
        self._pepper = pepper
        self._plain = pepper is None or any(_has_plain(key) for key in spec.keys)
        self.proxies = tuple(map(ip_network, spec.trusted_proxies))
        self.user_secret = USERS if pepper is None else pepper.user_secret
        for known in _known(spec):
            self._known[known.digest[:8]] = known

    def __len__(self) -> int:
        """Digests, of which a key that is being replaced has two."""
        return len(self._known)

    def find(self, key: bytes) -> Known | None:
        """None for a key that nobody was given."""
        if self._pepper is not None:
            digest = self._pepper.digest(key)
            known = self._known.get(digest[:8])
            if known is not None and hmac.compare_digest(known.digest, digest):
                return known
            if not self._plain:
                return None
        digest = hashlib.sha256(key).digest()
        known = self._known.get(digest[:8])
        return known if known is not None and hmac.compare_digest(known.digest, digest) else None


def _has_plain(key: KeySpec) -> bool:
    return not key.peppered or (key.previous is not None and not key.previous.peppered)


def _known(spec: PlaneSpec) -> Iterator[Known]:
    everything = GrantSpec()
    models = [None if grant.models is None else frozenset(grant.models) for grant in spec.grants]
    terms = [_terms(grant, inf) for grant in spec.grants]
    for key in spec.keys:
        if key.grant is None:
            grant, caller, held_to = everything, Caller(key.id), None
        else:
            grant, held_to = spec.grants[key.grant], terms[key.grant]
            caller = Caller(key.id, grant.org, models[key.grant], grant.team, grant.priority)
        yield Known(bytes.fromhex(key.digest), caller, held_to)
        if key.previous is not None:
            yield Known(bytes.fromhex(key.previous.digest), caller, _terms(grant, key.previous.until))


def _terms(grant: GrantSpec, replaced: float) -> Terms | None:
    terms = Terms(
        inf if grant.revoked is None else grant.revoked,
        inf if grant.expires is None else grant.expires,
        replaced,
        -inf if grant.not_before is None else grant.not_before,
        None if grant.scopes is None else frozenset(grant.scopes),
        None if grant.endpoints is None else frozenset(grant.endpoints),
        None if grant.networks is None else tuple(map(ip_network, grant.networks)),
    )
    return None if terms == _NONE else terms


_NONE = Terms()
