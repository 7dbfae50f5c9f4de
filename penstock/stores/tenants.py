"""Organisations and teams that were made at run time: what keys of theirs may do at most.

They have their versions from the same counter as keys: whoever asks for what is new asks with one number.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from penstock.stores.entry_checks import check_text
from penstock.stores.keys import MAX_ATTRIBUTES_BYTES, NEXT_VERSION, VERSION
from penstock.stores.sql import Database, Statement

MOST_TENANTS: Final = 1_000


class StoredTenant(msgspec.Struct, frozen=True, gc=False):
    """An organisation, or with `team` a team of one. Times are Unix seconds. Raises ValueError for text that cannot be
    stored."""

    org: str
    team: str
    attributes: str  # a JSON object: what keys of theirs may do, in the words of whoever checks it
    created_at: float
    revoked_at: float | None = None
    version: int = 0  # given by the store

    def __post_init__(self) -> None:
        check_text(self.org)
        check_text(self.team)
        check_text(self.attributes, MAX_ATTRIBUTES_BYTES)


class Tenants(Protocol):
    """Nothing is ever deleted. Every method raises `StoreFailed`."""

    async def get(self, org: str, team: str = "") -> StoredTenant | None: ...

    async def organisations(self, after: str = "", most: int = MOST_TENANTS) -> list[StoredTenant]:
        """In the order of their names; `after` is the last one of the page before."""
        ...

    async def teams(self, org: str, after: str = "", most: int = MOST_TENANTS) -> list[StoredTenant]:
        """Likewise, of one organisation, which may be declared elsewhere."""
        ...

    async def changes(self, since: int, most: int = MOST_TENANTS) -> list[StoredTenant]:
        """Changed after version `since`, in the order of their versions; 0 begins with all of them."""
        ...


_COLUMNS: Final = ", ".join(StoredTenant.__struct_fields__)


class SqlTenants:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, org: str, team: str = "") -> StoredTenant | None:
        found = await self._read("org = $1 and team = $2", "org", org, team)
        return found[0] if found else None

    async def organisations(self, after: str = "", most: int = MOST_TENANTS) -> list[StoredTenant]:
        return await self._read("org > $1 and team = ''", "org limit $2", after, most)

    async def teams(self, org: str, after: str = "", most: int = MOST_TENANTS) -> list[StoredTenant]:
        return await self._read("org = $1 and team > $2", "team limit $3", org, after, most)

    async def changes(self, since: int, most: int = MOST_TENANTS) -> list[StoredTenant]:
        return await self._read("version > $1", "version limit $2", since, most)

    async def _read(self, where: str, order: str, *values: str | int) -> list[StoredTenant]:
        rows = await self._database.read(f"select {_COLUMNS} from tenants where {where} order by {order}", values)
        return [StoredTenant(*row) for row in rows]


def creation(tenant: StoredTenant) -> tuple[Statement, ...]:
    """For `Database.write_all`, beside others. Changes nothing when there is one of this name."""
    values = msgspec.structs.astuple(tenant)[:-1]
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    sql = f"insert into tenants ({_COLUMNS}) values ({places}, {VERSION}) on conflict do nothing"
    return NEXT_VERSION, Statement(sql, values)


def replacement(tenant: StoredTenant) -> tuple[Statement, ...]:
    """Likewise. In the place of the one of this name, if that still has the version that `tenant` says."""
    sql = (
        f"update tenants set attributes = $3, revoked_at = $4, version = {VERSION}"
        " where org = $1 and team = $2 and version = $5"
    )
    values = (tenant.org, tenant.team, tenant.attributes, tenant.revoked_at, tenant.version)
    return NEXT_VERSION, Statement(sql, values)


_: type[Tenants] = SqlTenants
