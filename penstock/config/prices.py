"""What a deployment costs: what the file says of it, else what the table says of its provider."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from penstock.config.schema import Deployment
from penstock.config.spec import DeploymentSpec
from penstock.pricing.options import PriceOptions, price_of
from penstock.pricing.prices import Price, Table
from penstock.pricing.table_file import BUNDLED, read_table

_NOTHING: Final = Table(())


@cache
def bundled() -> Table:
    """The table that came along. Takes 50 ms the first time."""
    return read_table(BUNDLED.read_bytes())


def price_for(deployment: DeploymentSpec, asked: str, table: Table) -> Price | None:
    """`asked` is the model's name as the caller wrote it, which is what the upstream is sent where `served` is None.
    None: it is not priced, which is not free."""
    model = deployment.served or asked
    if deployment.price:
        return price_of(deployment.provider or deployment.name, model, deployment.price, table)
    return table.find(deployment.provider, model)


def options_of(deployment: Deployment) -> tuple[PriceOptions, ...]:
    if deployment.price is None:
        return ()
    return deployment.price if isinstance(deployment.price, tuple) else (deployment.price,)


def check(path: tuple[str, ...], deployment: Deployment) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with its price. The table is read only for a price that is like another one."""
    options = options_of(deployment)
    table = bundled() if any(one.like is not None for one in options) else _NOTHING
    told = False
    for i, one in enumerate(options):
        try:
            price_of("", "", (one,), table)
        except ValueError as error:
            told = True
            yield (*path, "price", str(i)) if isinstance(deployment.price, tuple) else (*path, "price"), str(error)
    if options and not told:
        try:
            price_of("", "", options, table)
        except ValueError as error:
            yield (*path, "price"), str(error)
