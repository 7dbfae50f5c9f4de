"""Sums of a ledger, asked for in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.stores.costs import Costs, Question
from penstock.stores.ledger import By, Total
from penstock.stores.sql import Database


async def sums(
    database: Database, by: Sequence[By], since: int, until: int, only: Mapping[By, str | int | None] | None = None
) -> list[Total]:
    """Of each group; without `by`, the total alone."""
    wanted = tuple((attribute, (value,)) for attribute, value in (only or {}).items())
    answer = await Costs(database).sums(Question(tuple(by), since, until, wanted))
    return list(answer.groups) if by else [answer.total]
