"""What a month was like, from the ledger: exact counts and exact quantiles, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
from random import Random

from penstock.stores.entry import Entry
from penstock.stores.ledger import SqlLedger
from penstock.stores.sla import QUANTILES, Ended, ServiceLedger, Took
from penstock.stores.sql import Database

HOUR = 3_600_000_000


def row(
    id: str, at: int, *, org: str = "acme", error: str | None = None, micros: int = 1_000_000, **more: object
) -> Entry:
    return Entry(
        id,
        at,
        org=org,
        key_id="web",
        model="chat",
        error=error,
        duration_micros=micros,
        usage_source="provider",
        **more,
    )  # type: ignore[arg-type]


def test_requests_are_counted_by_how_they_ended_and_corrections_are_none(loop: asyncio.Runner, database: Database):
    rows = [
        row("a", HOUR),
        row("b", HOUR + 1, micros=5_000_000),
        row("c", HOUR + 2, error="upstream_error"),
        row("d", 2 * HOUR),
        row("e", 2 * HOUR - 1, org="rival"),
        row("before", HOUR - 1),
        row("after", 3 * HOUR),
    ]
    loop.run(SqlLedger(database).append(rows))
    loop.run(
        SqlLedger(database).append(
            [Entry("f", HOUR, org="acme", key_id="web", model="chat", usage_source="correction", cost_nanos=-5)]
        )
    )
    ledger = ServiceLedger(database)
    found = loop.run(ledger.ended(HOUR, 3 * HOUR, [2_000_000]))
    assert sorted(found, key=str) == sorted(
        [
            Ended("acme", "chat", 1, None, 2, (1,)),
            Ended("acme", "chat", 1, "upstream_error", 1, (0,)),
            Ended("acme", "chat", 2, None, 1, (0,)),
            Ended("rival", "chat", 1, None, 1, (0,)),
        ],
        key=str,
    )
    (acme, rival) = loop.run(ledger.billed(HOUR, 3 * HOUR))
    assert (acme.org, acme.cost_nanos, acme.unpriced) == ("acme", -5, 4)
    assert rival.unpriced == 1


def test_quantiles_are_those_of_a_sorted_list(loop: asyncio.Runner, database: Database, rng: Random):
    values = {org: [rng.randrange(1, 10_000_000) for _ in range(n)] for org, n in (("a", 1), ("b", 99), ("c", 200))}
    rows = [row(f"{org}{i}", HOUR, org=org, micros=value) for org, all in values.items() for i, value in enumerate(all)]
    rows.append(row("broken", HOUR, org="a", error="upstream_error", micros=10**9))
    loop.run(SqlLedger(database).append(rows))
    expected = [
        Took(org, len(all), tuple(sorted(all)[-(-len(all) * q // 100) - 1] for q in QUANTILES))
        for org, all in values.items()
    ]
    assert loop.run(ServiceLedger(database).took(HOUR, 2 * HOUR)) == expected
