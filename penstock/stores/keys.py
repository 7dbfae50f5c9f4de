"""API keys that were made at run time: their digests, whose they are, and until when. Never a key itself.

Every change to a key gets the next version number of all, so that whoever holds the keys in memory can ask for what
is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from penstock.stores.entry_checks import check_text
from penstock.stores.sql import Database, Row, Statement

MOST_KEYS: Final = 1_000
MAX_ATTRIBUTES_BYTES: Final = 64 * 1024


class StoredKey(msgspec.Struct, frozen=True, gc=False):
    """Times are Unix seconds. Raises ValueError for text that cannot be stored."""

    id: str
    digest: str  # what `core.keys.digest` makes of the key
    org: str
    team: str
    attributes: str  # a JSON object: what the key may do, in the words of whoever checks it
    created_at: float
    expires_at: float | None = None  # None: never
    revoked_at: float | None = None
    last_used_at: float | None = None
    version: int = 0  # given by the store

    def __post_init__(self) -> None:
        for text in (self.id, self.digest, self.org, self.team):
            check_text(text)
        check_text(self.attributes, MAX_ATTRIBUTES_BYTES)


class Keys(Protocol):
    """Nothing is ever deleted: that a key was revoked must be found. Every method raises `StoreFailed`."""

    async def create(self, key: StoredKey) -> bool:
        """False, and nothing is changed, when there is one with this id or this digest."""
        ...

    async def get(self, id: str) -> StoredKey | None: ...

    async def find(self, digest: str) -> StoredKey | None: ...

    async def owned(
        self, org: str | None = None, team: str | None = None, after: str = "", most: int = MOST_KEYS
    ) -> list[StoredKey]:
        """In the order of their ids; `after` is the id of the last one of the page before."""
        ...

    async def replace(self, key: StoredKey) -> bool:
        """In the place of the one with this id, if that still has the version that `key` says. Whether it had.

        When it was made and last used stay as they are.
        """
        ...

    async def used(self, last: Mapping[str, float]) -> None:
        """When keys were last used, by id. An earlier moment than the stored one changes nothing; no new version."""
        ...

    async def changes(self, since: int, most: int = MOST_KEYS) -> list[StoredKey]:
        """Keys changed after version `since`, in the order of their versions; 0 begins with all of them."""
        ...


_COLUMNS: Final = ", ".join(StoredKey.__struct_fields__)
# Keys, and the organisations and teams that they belong to, have their versions from one counter.
NEXT_VERSION: Final = Statement("update api_keys_version_counter set version = version + 1")
VERSION: Final = "(select version from api_keys_version_counter)"


class SqlKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: StoredKey) -> bool:
        return await self._database.write_all(creation(key)) is None

    async def get(self, id: str) -> StoredKey | None:
        return _only(await self._database.read(f"select {_COLUMNS} from api_keys where id = $1", (id,)))

    async def find(self, digest: str) -> StoredKey | None:
        return _only(await self._database.read(f"select {_COLUMNS} from api_keys where digest = $1", (digest,)))

    async def owned(
        self, org: str | None = None, team: str | None = None, after: str = "", most: int = MOST_KEYS
    ) -> list[StoredKey]:
        conditions, values = ["id > $1"], [after]
        for column, value in (("org", org), ("team", team)):
            if value is not None:
                values.append(value)
                conditions.append(f"{column} = ${len(values)}")
        sql = f"select {_COLUMNS} from api_keys where {' and '.join(conditions)} order by id limit ${len(values) + 1}"
        return [StoredKey(*row) for row in await self._database.read(sql, (*values, most))]

    async def replace(self, key: StoredKey) -> bool:
        return await self._database.write_all(replacement(key)) is None

    async def used(self, last: Mapping[str, float]) -> None:
        sql = "update api_keys set last_used_at = $2 where id = $1 and (last_used_at is null or last_used_at < $2)"
        # In one order for everybody: two processes that tell about the same keys do not wait for each other.
        await self._database.write([Statement(sql, one) for one in sorted(last.items())])

    async def changes(self, since: int, most: int = MOST_KEYS) -> list[StoredKey]:
        sql = f"select {_COLUMNS} from api_keys where version > $1 order by version limit $2"
        return [StoredKey(*row) for row in await self._database.read(sql, (since, most))]


def creation(key: StoredKey) -> tuple[Statement, ...]:
    """For `Database.write_all`, beside others: `Keys.create`."""
    values = msgspec.structs.astuple(key)[:-1]
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    sql = f"insert into api_keys ({_COLUMNS}) values ({places}, {VERSION}) on conflict do nothing"
    return NEXT_VERSION, Statement(sql, values)


def replacement(key: StoredKey) -> tuple[Statement, ...]:
    """Likewise: `Keys.replace`."""
    sql = (
        "update api_keys set digest = $2, org = $3, team = $4, attributes = $5, expires_at = $6, revoked_at = $7,"
        f" version = {VERSION} where id = $1 and version = $8"
    )
    values = (key.id, key.digest, key.org, key.team, key.attributes, key.expires_at, key.revoked_at, key.version)
    return NEXT_VERSION, Statement(sql, values)


def _only(rows: list[Row]) -> StoredKey | None:
    return StoredKey(*rows[0]) if rows else None


_: type[Keys] = SqlKeys
