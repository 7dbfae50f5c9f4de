"""Who has used how much of each limit and budget of the file, for whoever looks at them: never on a request's way.

Counters are found by name and cannot be listed. Whom to ask for is what the ledger tells: those who have spent most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from penstock.app.errors import StartError
from penstock.app.options import BooksOptions
from penstock.app.spent import ATTRIBUTES
from penstock.config.limits import limits_of
from penstock.config.schema import Config
from penstock.config.secrets import resolved
from penstock.config.units import zone
from penstock.console.acts import Use
from penstock.core.clock import Clock
from penstock.limits.limit import Account, Amounts, Limit, Meter
from penstock.limits.periods import span, window
from penstock.limits.rules import Rules
from penstock.stores.base import Counters, CountersUnavailable
from penstock.stores.costs import Costs, Question
from penstock.stores.counters_shared import SharedCounters
from penstock.stores.sql import Database

MOST: Final = 100  # uses of one limit
RECENT: Final = 3600.0  # seconds: who has a request that ended within them is asked for
_NOTHING: Final = Amounts(0, 0, 0)


def counters_of_workers(options: BooksOptions, directory: Path, clock: Clock, secret: Callable[[str], str]) -> Counters:
    """What the workers of this host count with, to be read beside them. Raises `StartError`."""
    try:
        if not options.counters:
            return SharedCounters(directory / "counters", clock)
        from penstock.stores.counters_redis import RedisCounters

        return RedisCounters(resolved(options.counters, secret))
    except (OSError, CountersUnavailable, LookupError, ValueError) as error:
        raise StartError(f"admin: what is used of limits cannot be looked at: {error.args[0]}") from None


class LimitsUsed:
    def __init__(self, config: Callable[[], Config], database: Database, counters: Counters, clock: Clock) -> None:
        self._config, self._costs, self._counters, self._clock = config, Costs(database), counters, clock

    async def uses(self) -> Mapping[str, tuple[Use, ...]]:
        """By the limit's name, the fullest first; nothing where the counters do not answer. Raises `StoreFailed`."""
        config = self._config()
        named = {*config.limits, *config.budgets}
        try:
            return {limit.name: await self._of(limit, config) for limit in limits_of(config) if limit.name in named}
        except CountersUnavailable:
            return {}

    async def _of(self, limit: Limit, config: Config) -> tuple[Use, ...]:
        now, calendar = self._clock.wall(), zone(config.timezone)
        since = now - max(limit.window, RECENT)
        if limit.period is not None:
            since, _ = window(limit.period, span(limit.period, now, calendar).label, calendar)
        by = tuple(ATTRIBUTES[who] for who in limit.per)
        only = tuple((ATTRIBUTES[who], (value,)) for who, value in limit.where)
        found = await self._costs.sums(Question(by, max(0, int(since * 1e6)), int(now * 1e6), only, most=MOST))
        rules, where = Rules([limit], calendar), {str(who): value for who, value in limit.where}
        said, spent, charges = [], [], []
        for group in found.groups if by else (found.total,):
            whom = {str(who): str(value) for who, value in zip(limit.per, group.group, strict=True)}
            for charge in rules.apply(
                Account(**where | whom), _NOTHING, now
            ).charges:  # one; none for nobody's requests
                said.append(", ".join(f"{who} {value}" for who, value in whom.items()) or "all")
                spent.append(group.cost_nanos if limit.meter is Meter.MONEY else 0)
                charges.append(charge)
        counted = await self._counters.used(tuple(charges)) if charges else ()
        uses = [
            Use(who, used or nanos, limit.amount)  # a budget that nobody has asked for since the start is not counted
            for who, used, nanos in zip(said, counted, spent, strict=True)
        ]
        return tuple(sorted(uses, key=lambda use: -use.used))
