"""What a month was like for each tenant, asked of the ledger: how many, how many failed and why, how long they took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.stores.entry import CORRECTION
from penstock.stores.sql import Database, Value

QUANTILES: Final = (50, 95, 99)


class Ended(msgspec.Struct, frozen=True):
    """`n` requests of one tenant, model and UTC hour that ended alike. `error` None: whole."""

    org: str
    model: str
    hour: int  # since 1970
    error: str | None
    n: int
    slow: tuple[int, ...]  # of these, those that took longer than each threshold


class Took(msgspec.Struct, frozen=True):
    """Whole answers of one tenant: how many, and the exact quantiles of how long they took, in microseconds."""

    org: str
    n: int
    quantiles: tuple[int, ...]  # in the order of `QUANTILES`, each by its nearest rank


class Billed(msgspec.Struct, frozen=True):
    org: str
    input_tokens: int
    output_tokens: int
    cost_nanos: int
    unpriced: int


_RANGE: Final = f"at_micros >= $1 and at_micros < $2 and usage_source <> '{CORRECTION}'"


class ServiceLedger:
    """A range holds its beginning and not its end, in microseconds. Every method raises `StoreFailed`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ended(self, since: int, until: int, thresholds: Sequence[int] = ()) -> list[Ended]:
        """`thresholds` in microseconds."""
        values: list[Value] = [since, until, *thresholds]
        late = "".join(
            f", sum(case when duration_micros > ${place} then 1 else 0 end)" for place in range(3, 3 + len(thresholds))
        )
        rows = await self._database.read(
            f"select org, model, at_micros / 3600000000 as hour, error, count(*){late} from ledger where {_RANGE}"
            " group by org, model, at_micros / 3600000000, error order by org, model, hour, error",
            values,
        )
        return [Ended(org, model, hour, error, n, tuple(map(int, slow))) for org, model, hour, error, n, *slow in rows]

    async def took(self, since: int, until: int) -> list[Took]:
        ranks = " or ".join(f"place = (n * {q} + 99) / 100" for q in QUANTILES)
        rows = await self._database.read(
            "select org, n, place, duration_micros from (select org, duration_micros,"
            " row_number() over (partition by org order by duration_micros) as place,"
            f" count(*) over (partition by org) as n from ledger where {_RANGE} and error is null) as ranked"
            f" where {ranks} order by org, place",
            (since, until),
        )
        found: dict[tuple[str, int], dict[int, int]] = {}
        for org, n, place, micros in rows:
            found.setdefault((org, n), {})[place] = micros
        return [
            Took(org, n, tuple(places[(n * q + 99) // 100] for q in QUANTILES)) for (org, n), places in found.items()
        ]

    async def billed(self, since: int, until: int) -> list[Billed]:
        """With corrections, which are money."""
        rows = await self._database.read(
            "select org,"
            " cast(sum(input_tokens + cached_tokens + cache_write_tokens + cache_write_1h_tokens) as bigint),"
            " cast(sum(output_tokens + reasoning_tokens) as bigint), cast(coalesce(sum(cost_nanos), 0) as bigint),"
            " sum(case when cost_nanos is null then 1 else 0 end)"
            " from ledger where at_micros >= $1 and at_micros < $2 group by org order by org",
            (since, until),
        )
        return [Billed(*row) for row in rows]

    async def kept_since(self) -> int:
        """From when on all rows are there; 0 when none was ever let go."""
        return int((await self._database.read("select since_micros from ledger_kept"))[0][0])
