"""Whoever looks at limits sees those who have used most, as their counters say it, or the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from penstock.app.limits_used import LimitsUsed
from penstock.config.load import load
from penstock.console.acts import Use
from penstock.core.clock import ManualClock
from penstock.limits.charges import Charge, Granted, Kind
from penstock.stores.base import Counters
from penstock.stores.counters_memory import MemoryCounters
from penstock.stores.counters_shared import SharedCounters
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.ledger import SqlLedger
from penstock.stores.migrate import migrate

NOW = 1_800_000_000.0  # of the clock: 2027-01-15, 8:00 in UTC and 17:00 in Tokyo
HOUR = 3_600
TEXT = """\
models: { chat: { deployments: [d] } }
deployments: { d: { model: tiny } }
timezone: Asia/Tokyo
"""


def uses(
    tmp_path: Path,
    limits: str,
    rows: list[Entry],
    begin: Callable[[Counters], Awaitable[None]] | None = None,
    shared: Path | None = None,
) -> Any:
    async def story() -> Any:
        clock = ManualClock()
        counters = MemoryCounters(clock) if shared is None else SharedCounters(shared, clock)
        database = await open_database(str(tmp_path / "penstock.db"))
        await migrate(database, 0.0)
        await SqlLedger(database).append(rows)
        if begin is not None:
            await begin(counters)
        config = load(TEXT + limits, "penstock.yaml")
        try:
            return await LimitsUsed(lambda: config, database, counters, clock).uses()
        finally:
            await counters.close()
            await database.close()

    return asyncio.run(story())


def row(n: int, hours_ago: float = 0.5, **fields: Any) -> Entry:
    return Entry(f"r{n}", int((NOW - hours_ago * HOUR) * 1e6), **fields)


async def take(counters: Counters, counter: str, cost: int, window: int) -> None:
    assert isinstance(
        await counters.reserve(f"{counter} {cost}", (Charge(counter, Kind.RATE, 600, cost, window),)), Granted
    )


def test_those_it_is_for_are_told_apart_and_no_others(tmp_path: Path):
    rows = [
        row(1, org="acme", team="search", key_id="a"),
        row(2, org="acme", team="ads", key_id="b"),
        row(3, org="acme", key_id="c"),  # of no team
        row(4, org="other", team="search", key_id="d"),
        row(5, hours_ago=5, org="acme", team="old"),
    ]

    async def begin(counters: Counters) -> None:
        await take(counters, "teams|acme|search|60s", 5, 60)
        await take(counters, "teams|acme|ads|60s", 7, 60)
        await take(counters, "teams|other|search|60s", 9, 60)

    text = "limits: { teams: { requests: 600/m, per: team, where: { org: acme } } }\norganisations: { acme: {} }\n"
    assert uses(tmp_path, text, rows, begin) == {
        "teams": (Use("org acme, team ads", 7, 600), Use("org acme, team search", 5, 600))
    }


def test_a_budget_that_nobody_has_asked_for_since_the_start_is_what_the_ledger_says_of_its_window(tmp_path: Path):
    rows = [
        row(1, key_id="a", cost_nanos=5),
        row(2, hours_ago=16, key_id="a", cost_nanos=7),
        row(3, hours_ago=17.5, key_id="a", cost_nanos=100),  # yesterday in Tokyo
    ]
    text = "budgets: { daily: { amount: $1, every: day, per: key } }\n"
    assert uses(tmp_path, text, rows) == {"daily": (Use("key a", 12, 10**9),)}

    async def begin(counters: Counters) -> None:
        await counters.seed("daily|a|2027-01-15", 40, HOUR)

    assert uses(tmp_path, text, rows, begin) == {"daily": (Use("key a", 40, 10**9),)}


def test_counters_that_do_not_answer_leave_it_unsaid(tmp_path: Path):
    rows, text = [row(1, key_id="a")], "limits: { calm: { requests: 5/m } }\n"
    shared = tmp_path / "counters"
    assert uses(tmp_path, text, rows, shared=shared) == {"calm": (Use("key a", 0, 5),)}
    assert uses(tmp_path, text, rows, begin=lambda counters: counters.close(), shared=shared) == {}
