"""Watches service levels and alerts from our own numbers, without Prometheus: a look at a snapshot every ten seconds.

Nothing is paid per request. Every SLO has a ring of minutes for its burn rates and one of hours for its budget; both
can be kept on disk, so that a restart forgets no month.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import msgspec

from penstock.control.readings import Group, Reader
from penstock.quality.alerts import (
    BURNING,
    Alarms,
    Alert,
    Finding,
    Foreign,
    Grown,
    Level,
    Rule,
    Share,
    finding_of,
)
from penstock.quality.promql import duration
from penstock.quality.ring import Kept, Ring
from penstock.quality.rules import LOOK, burning
from penstock.quality.slo import HOUR, LONGEST, WINDOWS, Burn, Seen, Severity, Slo, budget_left, burn
from penstock.telemetry.catalogue import Metric
from penstock.telemetry.metrics import Labels, Registry, Snapshot

TICK: Final = 10.0  # seconds between looks
MINUTE: Final = 60.0
_SEVERITIES: Final[tuple[Severity, ...]] = ("page", "ticket")


class Status(msgspec.Struct, frozen=True):
    """Of one SLO. `seen` is over its period, or since it is watched; `left` of its budget is None before any event."""

    slo: Slo
    seen: Seen
    left: float | None
    burns: tuple[Burn, ...]
    blind: str = ""  # why it cannot be watched

    @property
    def severity(self) -> Severity | None:
        """Of its alert, the graver first; None: none."""
        alerting = {burn.window.severity for burn in self.burns if burn.alerts}
        return next((severity for severity in _SEVERITIES if severity in alerting), None)


class Memory(msgspec.Struct, frozen=True):
    """What is kept of one SLO. `of` is everything that decides what its numbers mean."""

    of: str
    minutes: Kept
    hours: Kept


class _Watched:
    """One SLO: what was counted until the last look, and when."""

    def __init__(self, slo: Slo, blind: str, counted: Seen, kept: Memory | None) -> None:
        self.slo, self.blind = slo, blind
        self.sli = None if blind else slo.sli
        self.counted = counted
        kept = kept if kept is not None and kept.of == _identity(slo) else None
        self.minutes = Ring(MINUTE, round(LONGEST / MINUTE) + 2, kept.minutes if kept else None)
        self.hours = Ring(HOUR, round(slo.period / HOUR) + 2, kept.hours if kept else None)

    def look(self, now_counted: Seen, now: float) -> None:
        before, self.counted = self.counted, now_counted
        if now_counted.events < before.events or now_counted.bad < before.bad:
            before = Seen(0, 0)  # counters that begin anew
        bad, events = now_counted.bad - before.bad, now_counted.events - before.events
        self.minutes.add(bad, events, now)
        self.hours.add(bad, events, now)

    def status(self, now: float) -> Status:
        slo, seen = self.slo, self.hours.back(self.slo.period, now)
        back = self.minutes.back
        burns = tuple(burn(slo, window, back(window.long, now), back(window.short, now)) for window in WINDOWS)
        return Status(slo, seen, budget_left(seen, slo.budget), burns, self.blind)

    def keep(self) -> Memory | None:
        minutes, hours = self.minutes.keep(), self.hours.keep()
        return None if minutes is None or hours is None else Memory(_identity(self.slo), minutes, hours)


_Counts = dict[Group, Seen]


class _History:
    """What a rule counted at the last looks, as far back as its window."""

    def __init__(self, window: float, first: _Counts, now: float) -> None:
        self._window = window
        self._looks: deque[tuple[float, _Counts]] = deque([(now, first)])

    def since(self, counts: _Counts, now: float) -> Iterator[tuple[Group, Seen]]:
        """What each group has counted within the window."""
        looks = self._looks
        looks.append((now, counts))
        while len(looks) > 2 and looks[1][0] <= now - self._window:
            looks.popleft()
        before = looks[0][1]
        for group, seen in counts.items():
            old = before.get(group, _NOTHING)
            if seen.events < old.events or seen.bad < old.bad:
                old = _NOTHING
            yield group, Seen(seen.bad - old.bad, seen.events - old.events)


_NOTHING: Final = Seen(0, 0)


class SloWatch:
    """`observe` it, every `TICK` seconds; then ask. Times are Unix seconds."""

    def __init__(
        self, catalogue: Iterable[Metric], slos: Iterable[Slo], rules: Iterable[Rule], *, kept: bytes = b""
    ) -> None:
        """`kept` is what `keep` answered before; what cannot be read begins anew."""
        self._catalogue = tuple(catalogue)
        self._reader = Reader(self._catalogue)
        self._slos: dict[str, _Watched] = {}
        self._rules: dict[str, Rule] = {}
        self._histories: dict[str, _History] = {}
        self._alarms = Alarms()
        self._last: Snapshot | None = None
        self._at = 0.0
        self._kept = _read(kept)
        self.follow(slos, rules)

    def follow(self, slos: Iterable[Slo], rules: Iterable[Rule]) -> None:
        """Watch these from now on; what was watched before goes on as it was."""
        watched: dict[str, _Watched] = {}
        for slo in slos:
            old = self._slos.get(slo.name)
            watched[slo.name] = old if old is not None and old.slo == slo else self._watched(slo, old)
        self._slos = watched
        named = {rule.name: rule for rule in rules}
        for name, rule in self._rules.items():
            if named.get(name) != rule:
                self._histories.pop(name, None)
        self._rules = named

    def observe(self, snapshot: Snapshot, now: float) -> list[Alert]:
        """Alerts that began or ended by this look. `snapshot` is of all workers: one that is missing from it would be
        taken for one that begins to count anew."""
        for watched in self._slos.values():
            if watched.sli is not None:
                bad = self._reader.added(watched.sli.bad, (), snapshot).get((), 0.0)
                events = self._reader.added(watched.sli.events, (), snapshot).get((), 0.0)
                watched.look(Seen(bad, events), now)
        found = chain(self._burning(now), *[self._found(rule, snapshot, now) for rule in self._rules.values()])
        changes = self._alarms.step(found, now)
        self._last, self._at = snapshot, now
        return changes

    def rule(self, name: str) -> Rule | None:
        return self._rules.get(name)

    @property
    def active(self) -> tuple[Alert, ...]:
        return self._alarms.active

    def status(self) -> tuple[Status, ...]:
        """As of the last look."""
        return tuple(watched.status(self._at) for watched in self._slos.values())

    def keep(self) -> bytes:
        """The rings, for the next process on this machine."""
        return msgspec.msgpack.encode(
            {name: memory for name, one in self._slos.items() if (memory := one.keep()) is not None}
        )

    def show(self, registry: Registry) -> None:
        """Fill the gauges of this registry at every scrape."""

        def objectives() -> Iterator[tuple[Labels, float]]:
            for watched in self._slos.values():
                yield (watched.slo.name,), watched.slo.objective

        def left() -> Iterator[tuple[Labels, float]]:
            for status in self.status():
                if status.left is not None:
                    yield (status.slo.name,), status.left

        def burns() -> Iterator[tuple[Labels, float]]:
            for status in self.status():
                for one in status.burns:
                    for span, burnt in ((one.window.long, one.long), (one.window.short, one.short)):
                        if burnt is not None:
                            yield (status.slo.name, duration(span)), burnt

        def alerts() -> Iterator[tuple[Labels, float]]:
            active: dict[Labels, int] = {(rule.name, rule.severity): 0 for rule in self._rules.values()}
            for alert in self.active:
                active[alert.name, alert.severity] = active.get((alert.name, alert.severity), 0) + 1
            yield from active.items()

        registry.read_gauge("penstock_slo_objective_ratio", objectives)
        registry.read_gauge("penstock_slo_error_budget_left_ratio", left)
        registry.read_gauge("penstock_slo_burn_rate", burns)
        registry.read_gauge("penstock_alerts_active", alerts)

    # --- what is found ---

    def _watched(self, slo: Slo, old: _Watched | None) -> _Watched:
        sli = slo.sli
        if sli is None:
            return _Watched(slo, "only Prometheus can evaluate its queries", _NOTHING, None)
        blind = self._reader.lacks((*sli.bad, *sli.events))
        if blind is not None:
            return _Watched(slo, f"{blind}; it will after a restart", _NOTHING, None)
        kept = self._kept.get(slo.name)
        if old is not None:
            kept = old.keep()
        counted = _NOTHING  # at the start of a process nothing had been counted; later, all until now was before it
        if self._last is not None:
            bad = self._reader.added(sli.bad, (), self._last).get((), 0.0)
            counted = Seen(bad, self._reader.added(sli.events, (), self._last).get((), 0.0))
        return _Watched(slo, "", counted, kept)

    def _burning(self, now: float) -> Iterator[Finding]:
        for watched in self._slos.values():
            status = watched.status(now)
            for severity in _SEVERITIES:
                rates = [one.long or 0.0 for one in status.burns if one.alerts and one.window.severity == severity]
                if rates:
                    says = burning(watched.slo, severity)
                    yield Finding(BURNING, severity, (("slo", watched.slo.name),), says, LOOK, max(rates), 0.0)

    def _found(self, rule: Rule, snapshot: Snapshot, now: float) -> Iterator[Finding]:
        condition = rule.condition
        if isinstance(condition, Foreign):
            return
        if isinstance(condition, Level):
            yield from self._levels(rule, condition, snapshot)
            return
        if isinstance(condition, Share) and self._reader.lacks((*condition.sli.bad, *condition.sli.events)):
            return
        counts = self._counts(condition, snapshot)
        history = self._histories.get(rule.name)
        if history is None:
            first = {} if self._last is None else self._counts(condition, self._last)
            history = self._histories[rule.name] = _History(condition.window, first, now - TICK)
        for group, seen in history.since(counts, now):
            labels = tuple(zip(condition.by, group, strict=True))
            if isinstance(condition, Grown):
                if seen.bad > 0:
                    yield finding_of(rule, labels, seen.bad)
            elif seen.events >= condition.least and seen.bad / seen.events > condition.over:
                yield finding_of(rule, labels, seen.bad / seen.events)

    def _counts(self, condition: Share | Grown, snapshot: Snapshot) -> _Counts:
        if isinstance(condition, Grown):
            grown: dict[Group, float] = {}
            for labels, value in self._reader.labelled(condition.metric, snapshot):
                values = dict(labels)
                group = tuple([values[name] for name in condition.by])
                grown[group] = grown.get(group, 0.0) + value
            return {group: Seen(value, value) for group, value in grown.items()}
        bad = self._reader.added(condition.sli.bad, condition.by, snapshot)
        events = self._reader.added(condition.sli.events, condition.by, snapshot)
        return {group: Seen(bad.get(group, 0.0), n) for group, n in events.items()}

    def _levels(self, rule: Rule, condition: Level, snapshot: Snapshot) -> Iterator[Finding]:
        best: dict[tuple[tuple[str, str], ...], float] = {}
        for labels, value in self._reader.labelled(condition.metric, snapshot):
            group = tuple([pair for pair in labels if pair[0] in condition.by]) if condition.by else labels
            # all of a group must be: so the one that is least so decides
            best[group] = value if group not in best else (max if condition.below else min)(best[group], value)
        for group, value in best.items():
            if value < condition.over if condition.below else value > condition.over:
                yield finding_of(rule, group, value)


def _identity(slo: Slo) -> str:
    return f"{slo.indicator}|{slo.threshold}|{'|'.join(slo.models)}|{slo.period}"


def _read(kept: bytes) -> dict[str, Memory]:
    if not kept:
        return {}
    try:
        return msgspec.msgpack.decode(kept, type=dict[str, Memory])
    except msgspec.DecodeError:
        return {}
