"""Service levels and alerts of this host: looked at every few seconds, told to those who asked for it, kept on disk.

There is one of these, beside the workers, whose numbers it gets added up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

from penstock.app.alerts import Alerts
from penstock.config.schema import Config
from penstock.config.slos import rules_of, slos_of, targets_of, thresholds_of
from penstock.console.acts import Watch
from penstock.control.slo import TICK, SloWatch
from penstock.core.clock import Clock
from penstock.quality.alerts import Alert, Share
from penstock.quality.notices import Notices, Target
from penstock.quality.slo import DAY, promise
from penstock.telemetry.catalogue import Metric, with_bounds
from penstock.telemetry.metrics import Registry, Snapshot

KEEP_EVERY: Final = 300.0  # seconds
FILE: Final = "slos.bin"  # beside the spool
MOST_ENDED: Final = 1_000  # alerts that are over and still shown, for a day


def catalogue_for(config: Config) -> tuple[Metric, ...]:
    """The metrics, with the thresholds of service levels and alerts as bounds."""
    return with_bounds(thresholds_of(slos_of(config), rules_of(config)))


SHOWN: Final = ("300", "3600", "21600", "259200")  # seconds, of burn rates


class _Lane:
    """The way to one target, so that one that hangs keeps no other waiting."""

    def __init__(self, notices: Notices, alerts: Alerts) -> None:
        self.notices, self.alerts = notices, alerts
        self.sending: asyncio.Task[None] | None = None


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
        self._new_alerts: Callable[[], Alerts] = lambda: Alerts(
            clock=clock, rng=rng, secret=secret, tell=tell, marks=None
        )
        self._ended: deque[Alert] = deque(maxlen=MOST_ENDED)
        self._lanes: list[_Lane] = []
        self._group: asyncio.TaskGroup | None = None
        self._failed_before = 0  # of lanes that are gone
        self._to(targets_of(config))
        failed = registry.counter("penstock_notifications_failed_total").labels()

        def count() -> None:
            failed.value = self._failed_before + sum(lane.alerts.failed for lane in self._lanes)

        registry.before_snapshot(count)
        for status in self.watch.status():
            if status.blind and status.slo.queries is None:
                tell(f"slos.{status.slo.name} is not watched: {status.blind}.")

    def follow(self, config: Config) -> None:
        """After a reload. Latencies with a new threshold are watched after a restart: buckets stay as they are."""
        self.watch.follow(slos_of(config), rules_of(config))
        self._to(targets_of(config))

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for lane in self._lanes:
                lane.sending = group.create_task(lane.alerts.run())
            group.create_task(self._look())

    async def look(self) -> None:
        """Once."""
        snapshot = await self._read()
        if snapshot is None:
            return
        now = self._clock.wall()
        for alert in self.watch.observe(snapshot, now):
            state = "resolved" if alert.ended is not None else alert.severity
            if alert.ended is not None:
                self._ended.append(alert)
            self._tell(f"Alert {alert.name} ({state}): {alert.says}")
        for lane in self._lanes:
            for notice in lane.notices.step(self.watch.active, now):
                target = notice.target
                lane.alerts.send(target.address, notice.body, f"alerts ({target.kind})", notice.text, notice.path)

    # --- for the console ---

    def slos(self) -> list[dict[str, Any]]:
        found = []
        for status in self.watch.status():
            slo, seen, burn = status.slo, status.seen, dict[str, float | None]()
            for one in status.burns:
                burn |= {f"{one.window.short:g}": one.short, f"{one.window.long:g}": one.long}
            found.append(
                {
                    "name": slo.name,
                    "says": promise(slo) + (f"; {status.blind}" if status.blind else ""),
                    "objective": slo.objective,
                    "period": slo.period,
                    "good": seen.events - seen.bad,
                    "bad": seen.bad,
                    "budget_left": 1.0 if status.left is None else status.left,
                    "burn": {span: burn[span] for span in SHOWN},
                    "state": status.severity or "ok",
                }
            )
        return found

    def alerts(self) -> list[dict[str, Any]]:
        since = self._clock.wall() - DAY
        ended = [alert for alert in self._ended if (alert.ended or 0.0) >= since]
        shown = sorted([*self.watch.active, *ended], key=lambda alert: -alert.since)
        return [self._shown(alert) for alert in shown]

    def _shown(self, alert: Alert) -> dict[str, Any]:
        labels = dict(alert.labels)
        asked = {"model": labels["model"]} if "model" in labels else {}
        rule = self.watch.rule(alert.name)
        if rule is not None and isinstance(rule.condition, Share) and rule.condition.bound is not None:
            asked["slower"] = f"{rule.condition.bound:g}"
        return {
            "name": alert.name,
            "severity": alert.severity,
            "says": alert.says,
            "since": alert.since,
            "until": alert.ended,
            "model": labels.get("model", ""),
            "link": f"/console/requests?{urlencode(asked)}" if asked else "",
        }

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

    def _to(self, targets: Iterable[Target]) -> None:
        """Those that were told before go on knowing what they were told."""
        known = {lane.notices.target: lane for lane in self._lanes}
        self._lanes = [
            known.pop(target) if target in known else self._lane(target) for target in dict.fromkeys(targets)
        ]
        for gone in known.values():
            self._failed_before += gone.alerts.failed
            if gone.sending is not None:
                gone.sending.cancel()

    def _lane(self, target: Target) -> _Lane:
        lane = _Lane(Notices(target), self._new_alerts())
        if self._group is not None:
            lane.sending = self._group.create_task(lane.alerts.run())
        return lane


_: type[Watch] = ServiceLevels
