"""The keys of a plane by their digests, and what each is held to. All in memory: nobody is asked."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from ipaddress import ip_network
from math import inf
from typing import Final

from msgspec import structs

from penstock.config.spec import GrantSpec, KeySpec, PlaneSpec
from penstock.config.tenancy import narrowed
from penstock.core.keys import USERS, Pepper
from penstock.core.request import Caller
from penstock.gateway.issued_keys import Alike, Issued, IssuedKeys
from penstock.gateway.known_key import Known, Terms

REMEMBERED: Final = 10_000  # issued keys, and kinds of them: what one may do in this plane is worked out in 10 us


class Keyring:
    """Finds a key by the first 8 bytes of its digest; the whole of it is compared in constant time.

    Each key is digested once or, where some are stored as SHA-256 and others under the pepper, twice at most. What is
    not in the plane may be among the `issued` keys, which come and go without it.
    """

    __slots__ = (
        "_around",
        "_generation",
        "_held",
        "_issued",
        "_known",
        "_pepper",
        "_plain",
        "_recent",
        "proxies",
        "user_secret",
    )

    def __init__(
        self,
        spec: PlaneSpec,
        pepper: Pepper | None,
        issued: IssuedKeys | None = None,
        known: dict[bytes, Known] | None = None,
    ) -> None:
        """`known` are the keys of `spec` in another one's form, which is not changed."""
        self._known = {one.digest[:8]: one for one in _known(spec)} if known is None else known
        self._pepper = pepper
        self._issued = issued
        self._generation = -1  # of the tenants that are made at run time
        self._plain = pepper is None or issued is not None or any(_has_plain(key) for key in spec.keys)
        self.proxies = tuple(map(ip_network, spec.trusted_proxies))
        self.user_secret = USERS if pepper is None else pepper.user_secret
        self._surround(spec)

    def __len__(self) -> int:
        """Digests of the plane's keys, of which one that is being replaced has two."""
        return len(self._known)

    def within(self, spec: PlaneSpec) -> Keyring:
        """The same keys, where only what is around issued ones has changed."""
        return Keyring(spec, self._pepper, self._issued, self._known)

    def find(self, key: bytes) -> Known | None:
        """None for a key that nobody was given."""
        if self._pepper is not None:
            known = self._look(self._pepper.digest(key))
            if known is not None or not self._plain:
                return known
        return self._look(hashlib.sha256(key).digest())

    def _look(self, digest: bytes) -> Known | None:
        known = self._known.get(digest[:8])
        if known is not None and hmac.compare_digest(known.digest, digest):
            return known
        if self._issued is not None:
            issued = self._issued.find(digest)
            if issued is not None and hmac.compare_digest(issued.digest, digest):
                return self._known_of(issued)
        return None

    def _known_of(self, issued: Issued) -> Known | None:
        assert self._issued is not None
        if self._generation != self._issued.generation:
            self._generation = self._issued.generation
            self._held.clear()
            self._recent.clear()
        recent = self._recent.get(issued.digest)
        if recent is not None and recent[0] is issued:
            return recent[1]
        known = self._make(issued)
        if len(self._recent) >= REMEMBERED:
            self._recent.clear()
        self._recent[issued.digest] = issued, known
        return known

    def _make(self, issued: Issued) -> Known | None:
        alike = issued.alike
        try:
            held = self._held[alike]
        except KeyError:
            if len(self._held) >= REMEMBERED:
                self._held.clear()
            held = self._held[alike] = self._hold(alike)
        if held is None:
            return None
        grant, models, terms = held
        if min(issued.revoked, issued.expires, issued.replaced) < inf:
            terms = terms or _NONE
            revoked, expires = min(terms.revoked, issued.revoked), min(terms.expires, issued.expires)
            terms = structs.replace(terms, revoked=revoked, expires=expires, replaced=issued.replaced)
        caller = Caller(issued.id, grant.org, models, grant.team, grant.priority, grant.max_cost)
        return Known(issued.digest, caller, terms)

    def _hold(self, alike: Alike) -> _Held | None:
        """None: such keys let nobody in, because their organisation or team is not there any more."""
        around = self._around_of(alike.org, alike.team)
        if around is None:
            return None
        grant = narrowed(around, alike.access)
        return grant, None if grant.models is None else frozenset(grant.models), _terms(grant, inf)

    def _around_of(self, org: str, team: str) -> GrantSpec | None:
        """The file goes before what was made at run time, where both know the name. What neither knows is just a name,
        or has been taken out of the file, which is why it is None where there are others in it."""
        assert self._issued is not None
        declared, around = self._around.get((org, team)), self._around.get((org, ""))
        if declared is not None or not org:
            return declared or GrantSpec(team=team)
        made, made_team = self._issued.tenant(org), self._issued.tenant(org, team)
        if around is not None:
            return None if made_team is None else narrowed(structs.replace(around, team=team), made_team)
        if made is None:
            return None if self._around else GrantSpec(org=org, team=team)
        around = narrowed(GrantSpec(org=org, team=team), made)
        return narrowed(around, made_team) if team and made_team is not None else around

    def _surround(self, spec: PlaneSpec) -> None:
        self._around = {(grant.org, grant.team): grant for grant in spec.tenants}
        self._generation = -1
        self._held: dict[Alike, _Held | None] = {}
        self._recent: dict[bytes, tuple[Issued, Known | None]] = {}


_Held = tuple[GrantSpec, frozenset[str] | None, Terms | None]


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
            caller = Caller(key.id, grant.org, models[key.grant], grant.team, grant.priority, grant.max_cost)
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
