"""Follows the database: keys that are made, changed and revoked at run time, and whom they belong to.

Each process asks, once a second, for what is new since the last time. While the database is away, what was last known
goes on; a key that is revoked meanwhile works until it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from msgspec import structs

from penstock.config.schema import Access
from penstock.config.stored_keys import read_options
from penstock.core.clock import Clock
from penstock.gateway.issued_keys import IssuedKeys
from penstock.stores.base import StoreFailed
from penstock.stores.keys import Keys
from penstock.stores.sql import Database
from penstock.stores.tenants import SqlTenants, StoredTenant, Tenants

EVERY: Final = 1.0  # seconds
PAGE: Final = 1_000  # keys: 5 ms of this process
USED_EVERY: Final = 60.0  # seconds
MOST_USED: Final = 100_000  # keys whose last use waits to be written
USED_AT_ONCE: Final = 1_000


class KeyFollower:
    """Brings changes to `issued`, and calls `on_limits` when limits of single keys were among them. `synced_at` is when
    the database last answered; -inf: never.
    """

    def __init__(
        self,
        keys: Keys,
        tenants: Tenants,
        issued: IssuedKeys,
        clock: Clock,
        *,
        tell: Callable[[str], None],
        on_limits: Callable[[], object],
        every: float = EVERY,
    ) -> None:
        self.synced_at = float("-inf")
        self._keys, self._tenants, self._issued, self._clock, self._every = keys, tenants, issued, clock, every
        self._tell, self._on_limits = tell, on_limits
        self._version = self._tenants_version = 0
        self._away = False
        self._used: dict[str, float] = {}
        self._used_at = clock.now()

    async def catch_up(self) -> int:
        """Everything that is new, and how many that was. Raises `StoreFailed`; what was read before that is known."""
        n = 0
        while True:
            page = await self._keys.changes(self._version, PAGE)
            # Asked for after the keys, and known before them: no key is there without what is around it.
            while tenants := await self._tenants.changes(self._tenants_version):
                for tenant in tenants:
                    self._issued.put_tenant(tenant)
                    self._tenants_version = tenant.version
            limits_changed = False
            for stored in page:
                limits_changed |= self._issued.put(stored)
                self._version = stored.version
            if limits_changed:
                self._on_limits()
            n += len(page)
            if len(page) < PAGE:
                self.synced_at = self._clock.now()
                return n

    def used(self, id: str, at: float) -> None:
        """A key, perhaps one of the file's, was used at this moment (Unix seconds)."""
        if id in self._issued and (id in self._used or len(self._used) < MOST_USED):
            self._used[id] = at

    async def write_used(self) -> None:
        """Raises `StoreFailed`; what was not written is kept."""
        while self._used:
            some = {id: self._used[id] for id, _ in zip(self._used, range(USED_AT_ONCE), strict=False)}
            await self._keys.used(some)
            for id, at in some.items():
                if self._used[id] == at:
                    del self._used[id]
            if len(some) < USED_AT_ONCE:
                return

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.catch_up()
                if self._clock.now() - self._used_at >= USED_EVERY:
                    self._used_at = self._clock.now()
                    await self.write_used()
            except StoreFailed as error:
                self._tell_away(error)
            else:
                self._tell_back()

    def _tell_away(self, error: StoreFailed) -> None:
        if not self._away:
            self._away = True
            self._tell(
                f"The database does not answer ({error}). Serving goes on with the keys that are known; rows of the "
                "ledger wait on this disk."
            )

    def _tell_back(self) -> None:
        if self._away:
            self._away = False
            self._tell("The database answers again.")


class TenantFollower:
    """What the configuration must know of the database: organisations and teams, and whether there are keys at all."""

    def __init__(self, database: Database, tell: Callable[[str], None]) -> None:
        self.any_keys = False
        self._database, self._tell = database, tell
        self._store = SqlTenants(database)
        self._version = 0
        self._news = False
        self._known: dict[tuple[str, str], StoredTenant] = {}

    @property
    def known(self) -> tuple[StoredTenant, ...]:
        return tuple(self._known.values())

    async def catch_up(self) -> bool:
        """Whether anything is new. Raises `StoreFailed`."""
        while page := await self._store.changes(self._version):
            for tenant in page:
                self._version = tenant.version
                self._known[tenant.org, tenant.team] = self._readable(tenant)
            self._news = True
        if not self.any_keys and await self._database.read("select 1 from api_keys limit 1"):
            self.any_keys = self._news = True
        news, self._news = self._news, False
        return news

    async def run(self, on_change: Callable[[], object], every: float = EVERY) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(every)
            try:
                if await self.catch_up():
                    on_change()
            except StoreFailed:
                continue  # the workers tell of it

    def _readable(self, tenant: StoredTenant) -> StoredTenant:
        try:
            read_options(tenant.attributes, Access)
        except ValueError as error:
            name = f"{tenant.org}/{tenant.team}" if tenant.team else tenant.org
            self._tell(f"What {name} may do cannot be read from the database ({error}). Its keys let nobody in.")
            return structs.replace(tenant, attributes="{}", revoked_at=0.0)
        return tenant
