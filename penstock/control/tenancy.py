"""Organisations, teams and keys that are made at run time, beside those of the configuration file: the one service
behind the command line and the admin API.

What somebody asks for is held to the rules of the file. Each act is written to the audit log in its own transaction,
with who did it and what was before and after: either both are there or none. Keys and digests are in no record.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from penstock.config.problems import nearest
from penstock.config.schema import Access, Config, Key, Organisation, PreviousKey
from penstock.config.stored_keys import KeyOptions, key_of, read_options, with_tenants, write_options
from penstock.config.tenancy import Grants, org_of
from penstock.config.units import instant, unix_seconds
from penstock.control.tenancy_rules import Rules, check_name
from penstock.control.tenants import (
    Changed,
    Declared,
    Exists,
    Fault,
    Invalid,
    KeyView,
    NewKey,
    NotThere,
    Page,
    TenantView,
    Words,
    moment,
    options,
    written,
)
from penstock.core.clock import Clock
from penstock.core.keys import ENTROPY_BYTES, Pepper, digest, mint, public_part
from penstock.core.money import show as show_money
from penstock.stores import keys as stored_keys
from penstock.stores import tenants as stored_tenants
from penstock.stores.audit import SqlAuditLog
from penstock.stores.keys import SqlKeys, StoredKey
from penstock.stores.sql import Database, Statement
from penstock.stores.tenants import SqlTenants, StoredTenant

MOST: Final = 500  # of a page
USUAL: Final = 100
MAX_OVERLAP: Final = 366 * 86_400.0  # seconds
_HINTS: Final = 1_000  # names that a wrong one is compared with


class Tenancy:
    """`config` answers the configuration of the moment. Every method may raise `StoreFailed`, and those that change
    something `Refused`. `by` is who asks, for the audit log; `version` is that of what they looked at, None for any.
    """

    def __init__(
        self,
        database: Database,
        config: Callable[[], Config],
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        pepper: Pepper | None = None,
    ) -> None:
        """`entropy` answers so many bytes of a cryptographic random source."""
        self._keys, self._tenants, self._audit = SqlKeys(database), SqlTenants(database), SqlAuditLog(database)
        self._config, self._clock, self._entropy, self._pepper = config, clock, entropy, pepper
        self._of: tuple[Config, Rules, list[Key]] | None = None

    # Organisations and teams.

    async def tenants(self, org: str | None = None, after: str = "", most: int = USUAL) -> Page:
        """Organisations, or with `org` the teams of that one, by name."""
        config = self._config()
        if org is None:
            stored = await self._tenants.organisations(after, most + 1)
            declared = {name: _tenant_view(name, "", one) for name, one in config.organisations.items()}
            views = {one.org: _stored_tenant_view(one) for one in stored} | declared
        else:
            around = await self._around(org)
            stored = await self._tenants.teams(org, after, most + 1)
            found = config.organisations.get(org)
            declared = (
                {} if found is None else {name: _tenant_view(org, name, one) for name, one in found.teams.items()}
            )
            views = {one.team: _stored_tenant_view(one) for one in stored} | declared
            if around is None and not views:
                raise NotThere(f"there is no organisation `{org[:64]}`")
        return _page([(name, views[name]) for name in sorted(views) if name > after], most)

    async def tenant(self, org: str, team: str = "") -> TenantView:
        if self._is_declared(org, team):
            found = self._config().organisations[org]
            return _tenant_view(org, team, found.teams[team] if team else found)
        return _stored_tenant_view(await self._stored_tenant(org, team))

    async def create_tenant(self, by: str, org: str, team: str, entry: Mapping[str, Any]) -> TenantView:
        """With the options of `entry`, as in the file."""
        access = await self._valid_tenant(org, team, entry)
        made = StoredTenant(org, team, write_options(access), self._clock.wall())
        along, target = stored_tenants.creation(made), _name(org, team)
        if self._is_declared(org, team) or not await self._act(
            along, by, f"{_kind(team)}.create", target, after=written(access)
        ):
            raise Exists(f"there is {_a(team)} `{team or org}` already")
        return await self.tenant(org, team)

    async def change_tenant(
        self, by: str, org: str, team: str, entry: Mapping[str, Any], version: int | None = None
    ) -> TenantView:
        """Options that are not in `entry` stay, and those that are None there are taken away."""
        stored = await self._mine(org, team, version)
        before = written(read_options(stored.attributes, Access))
        access = await self._valid_tenant(org, team, _merged(before, entry))
        if written(access) != before:
            changed = replace(stored, attributes=write_options(access))
            await self._replace_tenant(by, changed, "change", before=before, after=written(access))
        return await self.tenant(org, team)

    async def revoke_tenant(self, by: str, org: str, team: str, version: int | None = None) -> TenantView:
        """No key of theirs is valid from now on. Again changes nothing."""
        stored = await self._mine(org, team, version)
        if stored.revoked_at is None:
            await self._replace_tenant(by, replace(stored, revoked_at=self._clock.wall()), "revoke")
        return await self.tenant(org, team)

    # Keys.

    async def keys(self, org: str | None = None, team: str | None = None, after: str = "", most: int = USUAL) -> Page:
        """By their ids."""
        stored = await self._keys.owned(org, team, after, most + 1)
        views = {one.id: _stored_key_view(one) for one in stored}
        declared = self._rules()[2]
        first = bisect_right(declared, after, key=lambda one: one.id)
        theirs = (
            one for one in islice(declared, first, None) if org in (None, org_of(one)) and team in (None, one.team)
        )
        views |= {one.id: _key_view(one) for one in islice(theirs, most + 1)}
        return _page([(id, views[id]) for id in sorted(views)], most)

    async def key(self, id: str) -> KeyView:
        """With what it may do in the end, as `effective`."""
        if (declared := self.declared(id)) is not None:
            key, view = declared, _key_view(declared)
        else:
            stored = await self._stored_key(id)
            key, view = key_of(stored), _stored_key_view(stored)
        config = with_tenants(self._config(), await self._both(view.org, view.team))
        grant: Words = msgspec.to_builtins(Grants(config).of(key))
        for name in ("not_before", "expires", "revoked"):
            grant[name] = moment(grant[name])
        if (nanos := grant["max_cost"]) is not None:
            grant["max_cost"] = show_money(nanos)
        return replace(view, effective={name: value for name, value in grant.items() if name not in ("org", "team")})

    async def create_key(self, by: str, entry: Mapping[str, Any]) -> NewKey:
        """`entry` as in the file, without a digest; without an `id`, it is called by its public part."""
        secret = mint(self._entropy(ENTROPY_BYTES))
        key = await self._valid_key({"id": public_part(secret)} | {n: v for n, v in entry.items() if v is not None})
        made = self._made(key, self._digest(secret), self._pepper is not None)
        if self.declared(key.id) is not None or not await self._create_keys(by, "create", [made]):
            raise Exists(f"there is a key `{key.id}` already")
        return NewKey(secret, await self.key(key.id))

    async def import_keys(self, by: str, keys: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Keys that others have given out, as the SHA-256 of each and an entry as in the file. All or none."""
        made = []
        for sha256, entry in keys:
            key = await self._valid_key(entry)
            if self.declared(key.id) is not None:
                raise Exists(f"there is a key `{key.id}` already")
            made.append(self._made(key, sha256, False))
        if made and not await self._create_keys(by, "import", made):
            raise Exists("one of these keys is there already")

    async def check_import(self, sha256: str, entry: Mapping[str, Any]) -> None:
        """Raises `Refused` for what `import_keys` would refuse."""
        key = await self._valid_key(entry)
        if self.declared(key.id) is not None or await self._keys.get(key.id) is not None:
            raise Exists(f"there is a key `{key.id}` already")
        if (same := await self._keys.find(sha256)) is not None:
            raise Exists(f"it is the same key as `{same.id}`")

    async def change_key(self, by: str, id: str, entry: Mapping[str, Any], version: int | None = None) -> KeyView:
        """Options that are not in `entry` stay, and those that are None there are taken away."""
        stored = await self._my_key(id, version)
        faults = [Fault(name, "cannot be changed: make another key") for name in ("id", "org", "team") if name in entry]
        if faults:
            raise Invalid(*faults)
        was = read_options(stored.attributes, KeyOptions)
        before = written(was) | _expiry(stored.expires_at)
        owner = {name: value for name, value in (("org", stored.org), ("team", stored.team)) if value}
        key = await self._valid_key(_merged(before, entry) | owner | {"id": id})
        fields = options(key) | {"expires": None}
        changed = replace(
            stored,
            attributes=write_options(KeyOptions(**fields, previous=was.previous, peppered=was.peppered)),
            expires_at=None if key.expires is None else unix_seconds(key.expires),
        )
        if written(key) != before:
            await self._replace_key(by, changed, "change", before=before, after=written(key))
        return await self.key(id)

    async def rotate_key(self, by: str, id: str, overlap: float, version: int | None = None) -> NewKey:
        """Another secret for it; the old one works for another `overlap` seconds, and the one before it no more."""
        if not 0 <= overlap <= MAX_OVERLAP:
            raise Invalid(Fault("overlap", f"must be at most {MAX_OVERLAP / 86_400:g}d"))
        stored = await self._my_key(id, version)
        if stored.revoked_at is not None:
            raise Invalid(Fault("", f"`{id}` has been revoked: make another key"))
        was = read_options(stored.attributes, KeyOptions)
        until = instant(self._clock.wall() + overlap)
        old = {"hmac" if was.peppered else "sha256": stored.digest}
        now = KeyOptions(
            **options(was),
            previous=PreviousKey(until=until, **old) if overlap else None,
            peppered=self._pepper is not None or None,
        )
        secret = mint(self._entropy(ENTROPY_BYTES))
        changed = replace(stored, digest=self._digest(secret), attributes=write_options(now))
        await self._replace_key(by, changed, "rotate", previous_until=until if overlap else None)
        return NewKey(secret, await self.key(id))

    async def revoke_key(self, by: str, id: str, version: int | None = None) -> KeyView:
        """It is not valid from now on, nor the one that it replaced. Again changes nothing."""
        stored = await self._my_key(id, version)
        if stored.revoked_at is None:
            await self._replace_key(by, replace(stored, revoked_at=self._clock.wall()), "revoke")
        return await self.key(id)

    # What there is.

    def _rules(self) -> tuple[Config, Rules, list[Key]]:
        """Of the configuration of the moment, with its keys by id; made anew when that is another one."""
        config = self._config()
        if self._of is None or self._of[0] is not config:
            assert isinstance(config.keys, tuple), "`load` puts the keys of a file in the place of its name"
            self._of = config, Rules(config), sorted(config.keys, key=lambda one: one.id)
        return self._of

    def declared(self, id: str) -> Key | None:
        """The key of this id in the configuration file."""
        keys = self._rules()[2]
        place = bisect_right(keys, id, key=lambda one: one.id) - 1
        return keys[place] if place >= 0 and keys[place].id == id else None

    def _is_declared(self, org: str, team: str) -> bool:
        found = self._config().organisations.get(org)
        return found is not None and (not team or team in found.teams)

    async def _both(self, org: str, team: str) -> list[StoredTenant]:
        """The organisation and the team, as far as they are in the database."""
        found = [await self._tenants.get(org)] if org else []
        found += [await self._tenants.get(org, team)] if org and team else []
        return [one for one in found if one is not None]

    async def _around(self, org: str, team: str = "") -> Organisation | None:
        """An organisation, with this one of its teams that are in the database."""
        config = with_tenants(self._config(), await self._both(org, team))
        return config.organisations.get(org)

    async def _stored_tenant(self, org: str, team: str) -> StoredTenant:
        stored = await self._tenants.get(org, team)
        if stored is None:
            known = await (self._tenants.teams(org, most=_HINTS) if team else self._tenants.organisations(most=_HINTS))
            near = nearest(team or org, [one.team or one.org for one in known])
            raise NotThere(f"there is no {_kind(team)} `{(team or org)[:64]}`.{near}")
        return stored

    async def _mine(self, org: str, team: str, version: int | None) -> StoredTenant:
        if self._is_declared(org, team):
            raise Declared(f"{_kind(team)} `{team or org}` is in the configuration file; change it there")
        stored = await self._stored_tenant(org, team)
        if version not in (None, stored.version):
            raise Changed(f"`{team or org}` is version {stored.version} by now")
        return stored

    async def _stored_key(self, id: str) -> StoredKey:
        stored = await self._keys.get(id)
        if stored is None:
            known = [one.id for one in await self._keys.owned(most=_HINTS)]
            known += [one.id for one in self._rules()[2][:_HINTS]]
            raise NotThere(f"there is no key `{id[:64]}`.{nearest(id, known)}")
        return stored

    async def _my_key(self, id: str, version: int | None) -> StoredKey:
        if self.declared(id) is not None:
            raise Declared(f"key `{id}` is in the configuration file; change it there (`penstock key` prints the line)")
        stored = await self._stored_key(id)
        if version not in (None, stored.version):
            raise Changed(f"`{id}` is version {stored.version} by now")
        return stored

    # What may be.

    async def _valid_tenant(self, org: str, team: str, entry: Mapping[str, Any]) -> Access:
        check_name("org", org)
        entry = {name: value for name, value in entry.items() if value is not None}
        rules = self._rules()[1]
        if not team:
            return await asyncio.to_thread(rules.organisation, org, entry)
        check_name("team", team)
        around = await self._around(org)
        if around is None:
            await self._stored_tenant(org, "")  # which says what is near
        return await asyncio.to_thread(rules.team, org, around, team, entry)

    async def _valid_key(self, entry: Mapping[str, Any]) -> Key:
        """Raises `Invalid`, also for an organisation or a team that is not there, if there are any."""
        entry = dict(entry)
        check_name("id", entry.get("id"))
        org, team = entry.get("org") or "", entry.get("team") or ""
        around = None
        for at, name in (("org", org), ("team", team)):
            if name:
                check_name(at, name)
        if org:
            around = await self._around(org, team)
            if around is None and (self._config().organisations or await self._tenants.organisations(most=1)):
                known = [one.org for one in await self._tenants.organisations(most=_HINTS)]
                near = nearest(org, [*known, *self._config().organisations])
                raise Invalid(Fault("org", f"names `{org}`, which is not an organisation.{near}"))
            if around is not None and team and team not in around.teams:
                known = [one.team for one in await self._tenants.teams(org, most=_HINTS)]
                near = nearest(team, [*known, *around.teams])
                raise Invalid(Fault("team", f"names `{team}`, which is not a team of `{org}`.{near}"))
            if around is not None:
                around = replace(around, teams={team: around.teams[team]} if team else {})
        given = {name: value for name, value in entry.items() if value not in (None, "")}
        return await asyncio.to_thread(self._rules()[1].key, given, around)  # milliseconds, and requests are waiting

    def _digest(self, secret: str) -> str:
        return digest(secret) if self._pepper is None else self._pepper.digest(secret.encode()).hex()

    def _made(self, key: Key, digested: str, peppered: bool) -> StoredKey:
        kept = KeyOptions(**options(key) | {"expires": None}, peppered=peppered or None)
        expires = None if key.expires is None else unix_seconds(key.expires)
        return StoredKey(key.id, digested, key.org, key.team, write_options(kept), self._clock.wall(), expires)

    # What is done.

    async def _act(self, along: Sequence[Statement], by: str, action: str, target: str, **detail: Any) -> bool:
        told = {name: value for name, value in detail.items() if value is not None}
        try:
            return await self._audit.act(along, int(self._clock.wall() * 1e6), by, action, target, told) is not None
        except ValueError:
            raise Invalid(Fault("", "is more than one record of the audit log can hold: do less at once")) from None

    async def _create_keys(self, by: str, verb: str, made: Sequence[StoredKey]) -> bool:
        along = [statement for one in made for statement in stored_keys.creation(one)]
        after = [_described(one) for one in made]
        if verb == "import":
            return await self._act(along, by, "key.import", f"{len(made)} keys", after=after)
        return await self._act(along, by, "key.create", made[0].id, after=after[0])

    async def _replace_key(self, by: str, key: StoredKey, verb: str, **detail: Any) -> None:
        along = stored_keys.replacement(key)
        if not await self._act(along, by, f"key.{verb}", key.id, org=key.org, team=key.team, **detail):
            raise Changed(f"`{key.id}` was changed by somebody else meanwhile")

    async def _replace_tenant(self, by: str, tenant: StoredTenant, verb: str, **detail: Any) -> None:
        org, team = tenant.org, tenant.team
        if not await self._act(
            stored_tenants.replacement(tenant), by, f"{_kind(team)}.{verb}", _name(org, team), **detail
        ):
            raise Changed(f"`{team or org}` was changed by somebody else meanwhile")


def _page(views: list[tuple[str, Any]], most: int) -> Page:
    """`views` in their order, of which there is one more than `most` where there is a next page."""
    some = views[:most]
    return Page(tuple(view for _, view in some), some[-1][0] if len(views) > most else None)


def _kind(team: str) -> str:
    return "team" if team else "org"


def _a(team: str) -> str:
    return "a team" if team else "an organisation"


def _name(org: str, team: str) -> str:
    return f"{org}/{team}" if team else org


def _merged(before: Mapping[str, Any], entry: Mapping[str, Any]) -> Words:
    return {name: value for name, value in {**before, **entry}.items() if value is not None}


def _expiry(expires_at: float | None) -> Words:
    return {} if expires_at is None else {"expires": instant(expires_at)}


def _described(key: StoredKey) -> Words:
    """For the audit log."""
    said = written(read_options(key.attributes, KeyOptions)) | _expiry(key.expires_at)
    return {"id": key.id, "org": key.org, "team": key.team, **said}


def _tenant_view(org: str, team: str, access: Access) -> TenantView:
    return TenantView(org=org, team=team, where="file", **options(access))


def _stored_tenant_view(stored: StoredTenant) -> TenantView:
    fields = options(read_options(stored.attributes, Access)) | {"revoked": moment(stored.revoked_at)}
    created = instant(stored.created_at)
    return TenantView(
        org=stored.org, team=stored.team, where="database", created=created, version=stored.version, **fields
    )


def _key_view(key: Key) -> KeyView:
    until = None if key.previous is None else key.previous.until
    kind: Any = "hmac" if key.hmac else "sha256"
    return KeyView(
        id=key.id, org=org_of(key), team=key.team, where="file", digest=kind, previous_until=until, **options(key)
    )


def _stored_key_view(stored: StoredKey) -> KeyView:
    return replace(
        _key_view(key_of(stored)),
        where="database",
        created=instant(stored.created_at),
        last_used=moment(stored.last_used_at),
        version=stored.version,
    )
