"""A key that somebody was given, and what it is held to. Apart from the keyring, which is compiled."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from math import inf

import msgspec

from penstock.config.spec import Scope
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
