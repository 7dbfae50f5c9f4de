"""Keys that were made at run time, as this process knows them: by their digests, with what each alone is held to; and
the organisations and teams that were.

Whoever follows the database puts them here, one by one; every plane's `Keyring` looks here after its own keys. So a
change of a key rebuilds nothing, and a change of plane does not touch the keys.
"""

from __future__ import annotations

import weakref
from math import inf

import msgspec
from msgspec import structs

from penstock.config.limits import notify_of, own_limits
from penstock.config.schema import Access
from penstock.config.spec import Notify
from penstock.config.stored_keys import KeyOptions, read_options, tenant_access, write_options
from penstock.config.units import instant, unix_seconds
from penstock.limits.limit import Limit
from penstock.stores.keys import StoredKey
from penstock.stores.tenants import StoredTenant


class Alike(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """What keys of one team with the same options have in common."""

    org: str
    team: str
    access: Access


class Issued(msgspec.Struct, frozen=True, gc=False):
    """Times are Unix seconds, after which it does not work: as it is, because it ended or because it was replaced."""

    digest: bytes
    id: str
    alike: Alike
    revoked: float = inf
    expires: float = inf
    replaced: float = inf


class IssuedKeys:
    """Bounded by the keys in the database. What cannot be read lets nobody in; `unreadable` are the ids of those."""

    __slots__ = ("_alike", "_by_digest", "_by_id", "_limits", "_tenants", "generation", "unreadable")

    def __init__(self) -> None:
        self.generation = 0  # another one whenever a tenant has changed
        self._tenants: dict[tuple[str, str], Access] = {}
        self._by_digest: dict[bytes, Issued] = {}  # by the first 8 bytes
        self._by_id: dict[str, tuple[Issued, ...]] = {}  # one, or two while one replaces the other
        self._alike: weakref.WeakValueDictionary[tuple[str, str, str], Alike] = weakref.WeakValueDictionary()
        self._limits: dict[str, tuple[Limit, ...]] = {}
        self.unreadable: set[str] = set()

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def find(self, digest: bytes) -> Issued | None:
        """By the first 8 bytes: whoever asks compares the whole of it."""
        return self._by_digest.get(digest[:8])

    def tenant(self, org: str, team: str = "") -> Access | None:
        """What its keys may do at most."""
        return self._tenants.get((org, team))

    def put_tenant(self, stored: StoredTenant) -> None:
        """Likewise: one that is new, or in the place of what was known of it."""
        try:
            access = tenant_access(stored)
        except ValueError:  # written by a version that knows more: nobody in it gets in
            access = Access(revoked=instant(0.0))
        self._tenants[stored.org, stored.team] = access
        self.generation += 1

    def limits_of(self, id: str) -> tuple[Limit, ...]:
        """Those that stand at this key itself."""
        return self._limits.get(id, ())

    def notify_of(self, id: str, limit: Limit) -> Notify | None:
        """When somebody is told of this budget; None where it does not stand at this key itself."""
        found = self._by_id.get(id)
        return notify_of(found[0].alike.access) if found and limit in self.limits_of(id) else None

    def put(self, stored: StoredKey) -> bool:
        """A key that is new, or in the place of what was known of it. Whether it has other limits of its own now."""
        found: tuple[Issued, ...] = ()
        limits: tuple[Limit, ...] = ()
        try:
            found, limits = self._read(stored)
            self.unreadable.discard(stored.id)
        except ValueError:  # written by a version that knows more
            self.unreadable.add(stored.id)
        for old in self._by_id.pop(stored.id, ()):
            if self._by_digest.get(old.digest[:8]) is old:
                del self._by_digest[old.digest[:8]]
        for new in found:
            self._by_digest[new.digest[:8]] = new
        if found:
            self._by_id[stored.id] = found
        before = self._limits.pop(stored.id, ())
        if limits:
            self._limits[stored.id] = limits
        return before != limits

    def _read(self, stored: StoredKey) -> tuple[tuple[Issued, ...], tuple[Limit, ...]]:
        """Raises ValueError."""
        digest, previous = bytes.fromhex(stored.digest), None
        if len(digest) != 32:
            raise ValueError("not a digest")
        shape = stored.org, stored.team, stored.attributes
        alike = self._alike.get(shape)
        if alike is None:
            options = read_options(stored.attributes, KeyOptions)
            if options.previous is not None:  # a key's own, and nothing that others have in common with it
                previous = options.previous
                options = structs.replace(options, previous=None)
                shape = stored.org, stored.team, write_options(options)
                alike = self._alike.get(shape)
            if alike is None:
                alike = self._alike[shape] = Alike(stored.org, stored.team, options)
        revoked = inf if stored.revoked_at is None else stored.revoked_at
        expires = inf if stored.expires_at is None else stored.expires_at
        found = [Issued(digest, stored.id, alike, revoked, expires)]
        if previous is not None:
            was = previous.hmac or previous.sha256
            assert was is not None, "`read_options` refuses it without a digest"
            until = unix_seconds(previous.until)
            found.append(Issued(bytes.fromhex(was), stored.id, alike, revoked, expires, until))
        return tuple(found), tuple(own_limits((("key", stored.id),), alike.access))
