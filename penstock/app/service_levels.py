"""Service levels and alerts of this host: looked at every few seconds, told to those who asked for it, kept on disk.

There is one of these, beside the workers, whose numbers it gets added up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random
from typing import Final

from penstock.app.alerts import Alerts
from penstock.config.schema import Config
from penstock.config.slos import rules_of, slos_of, targets_of, thresholds_of
from penstock.control.slo import TICK, SloWatch
from penstock.core.clock import Clock
from penstock.quality.notices import Notices, Target
from penstock.telemetry.catalogue import Metric, with_bounds
from penstock.telemetry.metrics import Registry, Snapshot

KEEP_EVERY: Final = 300.0  # seconds
FILE: Final = "slos.bin"  # beside the spool


def catalogue_for(config: Config) -> tuple[Metric, ...]:
    """The metrics, with the thresholds of service levels and alerts as bounds."""
    return with_bounds(thresholds_of(slos_of(config), rules_of(config)))


class ServiceLevels:
    """`run` it in a task. `read` answers the numbers of all workers together, or None when some are missing.

    `registry` gets the gauges; it is of this process, and has the same catalogue. `directory` keeps the budgets.
    """

    def __init__(
        self,
        config: Config,
        *,
        read: Callable[[], Awaitable[Snapshot | None]],
        registry: Registry,
        clock: Clock,
        rng: Random,
        secret: Callable[[str], str],
        tell: Callable[[str], None],
        directory: Path | None,
    ) -> None:
        self._read, self._clock, self._tell = read, clock, tell
        self._file = None if directory is None else directory / FILE
        kept = b""
        if self._file is not None and self._file.is_file():
            kept = self._file.read_bytes()
        self.watch = SloWatch(registry.catalogue.values(), slos_of(config), rules_of(config), kept=kept)
        self.watch.show(registry)
        self._alerts = Alerts(clock=clock, rng=rng, secret=secret, tell=tell, marks=None)
        self._notices: list[Notices] = []
        self._targets(targets_of(config))
        failed = registry.counter("penstock_notifications_failed_total").labels()

        def count() -> None:
            failed.value = self._alerts.failed

        registry.before_snapshot(count)
        for status in self.watch.status():
            if status.blind and status.slo.queries is None:
                tell(f"slos.{status.slo.name} is not watched: {status.blind}.")

    def follow(self, config: Config) -> None:
        """After a reload. Latencies with a new threshold are watched after a restart: buckets stay as they are."""
        self.watch.follow(slos_of(config), rules_of(config))
        self._targets(targets_of(config))

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._alerts.run())
            group.create_task(self._look())

    async def look(self) -> None:
        """Once."""
        snapshot = await self._read()
        if snapshot is None:
            return
        now = self._clock.wall()
        for alert in self.watch.observe(snapshot, now):
            state = "resolved" if alert.ended is not None else alert.severity
            self._tell(f"Alert {alert.name} ({state}): {alert.says}")
        for notices in self._notices:
            for notice in notices.step(self.watch.active, now):
                target = notice.target
                self._alerts.send(target.address, notice.body, f"alerts ({target.kind})", notice.text, notice.path)

    def keep(self) -> None:
        """Write down what must outlive this process. Blocks for a moment."""
        if self._file is None:
            return
        fresh = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_bytes(self.watch.keep())
            fresh.replace(self._file)
        except OSError as error:
            self._tell(f"What is left of error budgets could not be kept in {self._file} ({error.strerror}).")

    async def _look(self) -> None:
        kept_at = self._clock.now()
        while True:
            await asyncio.sleep(TICK)
            await self.look()
            if self._clock.now() - kept_at >= KEEP_EVERY:
                kept_at = self._clock.now()
                await asyncio.to_thread(self.keep)

    def _targets(self, targets: Iterable[Target]) -> None:
        """Those that were told before go on knowing what they were told."""
        known = {notices.target: notices for notices in self._notices}
        self._notices = [known.get(target) or Notices(target) for target in targets]
