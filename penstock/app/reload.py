"""From a changed file to a new plane: load, start what it needs, prepare everywhere, swap. Or nothing, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from penstock.app.engines import Engines
from penstock.app.errors import StartError
from penstock.app.kv_caches import need_kv_events
from penstock.app.source import ConfigSource
from penstock.config.compile import compile_plane
from penstock.config.diff import diff
from penstock.config.load import ConfigError
from penstock.config.schema import Config, Server, Store
from penstock.config.spec import PlaneSpec
from penstock.stores.tenants import StoredTenant

POLL_EVERY: Final = 1.0  # seconds
SETTLED_AFTER: Final = 0.1  # seconds without another change: editors write a file in several steps


class PublishRefused(Exception):
    """No worker serves the new plane; all serve the last one. The message says why."""


class Reloader:
    """Owns the version of the plane. `allowed(config)` raises `StartError` for a configuration that may not be served
    here; `publish` swaps the plane everywhere or raises `PublishRefused`.
    """

    def __init__(
        self,
        source: ConfigSource,
        engines: Engines,
        *,
        config: Config,
        spec: PlaneSpec,
        allowed: Callable[[Config], bool],
        publish: Callable[[PlaneSpec], Awaitable[None]],
        tell: Callable[[str], None],
        tenants: Callable[[], tuple[StoredTenant, ...]] = tuple,
        poll_every: float = POLL_EVERY,
        noted: Callable[[int, list[str]], None] | None = None,
        followed: Callable[[Config], object] = str,
    ) -> None:
        """`noted` hears of each new plane's version, and of what is different in it; `followed`, of the configuration
        that is served from then on."""
        self._source, self._engines = source, engines
        self._config, self.spec = config, spec
        self._allowed, self._publish, self._tell = allowed, publish, tell
        self._tenants = tenants
        self._poll_every, self._noted, self._followed = poll_every, noted, followed
        self._asked = asyncio.Event()  # by SIGHUP
        self._moved = asyncio.Event()  # an engine is at another address
        self._wake = asyncio.Event()
        self._changing = asyncio.Lock()

    @property
    def config(self) -> Config:
        """What is served now."""
        return self._config

    def ask(self) -> None:
        """Reload even if no file changed: secrets may have."""
        self._asked.set()
        self._wake.set()

    def moved(self) -> None:
        """Publish the same configuration with the engines' new addresses, and with the tenants there are now."""
        self._moved.set()
        self._wake.set()

    async def run(self) -> None:
        """For ever: looks at the file, and does what it is asked."""
        while True:
            try:
                async with asyncio.timeout(self._poll_every):
                    await self._wake.wait()
            except TimeoutError:
                if not self._source.changed():
                    continue
                await self._settled()
                await self.reload()
                continue
            self._wake.clear()
            if self._moved.is_set():
                self._moved.clear()
                await self.republish()
            if self._asked.is_set():
                self._asked.clear()
                await self.reload()

    async def reload(self) -> bool:
        """Whether what the file says is served now. When not, its problems have been told."""
        async with self._changing:
            try:
                # beside the event loop: a file with a thousand keys takes a second to read
                config = await asyncio.to_thread(self._source.read)
                need_kv_events(config)
                insecure_dev = self._allowed(config)
                wanted = await self._engines.prepare(config)
            except (ConfigError, StartError) as error:
                self._tell(f"{error}\nThe configuration was not changed; what was served before goes on.")
                return False
            origins = self._engines.origins(wanted)
            spec = self._compile(config, origins, self._engines.published(wanted), insecure_dev)
            try:
                await self._publish(spec)
            except PublishRefused as error:
                self._engines.abandon(wanted)
                self._tell(f"{error}\nThe configuration was not changed; what was served before goes on.")
                return False
            self._engines.adopt(wanted)
            self._tell_difference(spec, config)
            self._config, self.spec = config, spec
            self._followed(config)
            return True

    async def republish(self) -> None:
        """The same configuration, with the engines and tenants of now."""
        async with self._changing:
            try:
                insecure_dev = self._allowed(self._config)
            except StartError as error:
                self._tell(f"{error}\nThe configuration was not changed; what was served before goes on.")
                return
            spec = self._compile(self._config, self._engines.origins(), self._engines.published(), insecure_dev)
            if msgspec.structs.replace(spec, version=self.spec.version) == self.spec:
                return
            try:
                await self._publish(spec)
            except PublishRefused as error:
                self._tell(f"{error}\nWhat has changed, of engines or of tenants, is not in use.")
            else:
                self.spec = spec

    def _compile(
        self,
        config: Config,
        origins: Mapping[str, tuple[str, ...]],
        published: Mapping[str, tuple[tuple[str, str], ...]],
        insecure_dev: bool,
    ) -> PlaneSpec:
        return compile_plane(
            config,
            self.spec.version + 1,
            origins,
            insecure_dev=insecure_dev,
            tenants=self._tenants(),
            published=published,
        )

    async def _settled(self) -> None:
        while True:
            before = self._source.stamps()
            await asyncio.sleep(SETTLED_AFTER)
            if self._source.stamps() == before:
                return

    def _tell_difference(self, spec: PlaneSpec, config: Config) -> None:
        lines = diff(self.spec, spec)
        waiting = [
            f"! {section}.{name} changed; it takes effect at the next start of Penstock"
            for section in ("server", "store")
            for name in _changed(getattr(self._config, section), getattr(config, section))
            if name not in ("max_in_flight", "trusted_proxies")
        ]
        if self._noted is not None:
            self._noted(spec.version, [*lines, *waiting])
        said = "\n  ".join([*lines, *waiting]) or "it means the same as before"
        self._tell(f"{self._source.name} was read again (plane {spec.version}):\n  {said}")


def _changed(old: Server | Store, new: Server | Store) -> list[str]:
    before, after = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
    return [name for name in before if before[name] != after[name]]
