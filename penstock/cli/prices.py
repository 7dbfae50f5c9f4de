"""`penstock prices`: looks at what models cost, and at what changed between two tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.pricing.prices import Price, Row, Table


@click.group()
def prices() -> None:
    """Look at what models cost. What is not in the table has no price, which is not the same as being free."""


@prices.command()
@click.argument("model", required=False)
@click.option("--provider", help="Only this one's.")
@click.option("--at", "day", type=click.DateTime(["%Y-%m-%d"]), help="As on this day, UTC. Without it: now.")
@click.option("--table", type=click.Path(path_type=Path), help="Another table. Without it: the one that came along.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for scripts: US dollars, as text.")
def show(model: str | None, provider: str | None, day: datetime | None, table: Path | None, as_json: bool) -> None:
    """Print the price of MODEL, as "provider/model" or by its name alone; without MODEL, one line for each.

    Dollars per million tokens, unless it says `each`.

    \b
    Examples
      penstock prices show gpt-5-mini
      penstock prices show anthropic/claude-haiku-4-5 --json
      penstock prices show --provider mistral
    """
    from penstock.core.clock import SystemClock
    from penstock.pricing.table_file import BUNDLED

    known = _read(table or BUNDLED)
    at = day.replace(tzinfo=UTC).timestamp() if day is not None else SystemClock.wall()
    wanted = [
        (price, row)
        for price in (known.of_model(model) if model is not None else known)
        if provider in (None, price.provider) and (row := price.at(at)) is not None
    ]
    if not wanted:
        raise Mistake(_nothing(known, model, provider))
    if as_json:
        import msgspec

        said = [_as_json(price, row) for price, row in wanted]
        click.echo(msgspec.json.format(msgspec.json.encode(said), indent=2))
    elif model is None:
        _list(wanted)
    else:
        for price, row in wanted:
            _describe(price, row)


@prices.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def diff(old: Path, new: Path) -> int:
    """Say which prices are different between two tables, class by class.

    Exit code 0: none. 1: some. 2: one of the files is wrong.

    \b
    Example
      git show HEAD~1:penstock/pricing/prices.json > old.json
      penstock prices diff old.json penstock/pricing/prices.json
    """
    from penstock.pricing.differences import differences

    lines = list(differences(_read(old), _read(new)))
    for line in lines:
        click.echo(line)
    if not lines:
        click.echo(f"{old} and {new} say the same prices.")
    return 1 if lines else 0


def _read(path: Path) -> Table:
    """Raises `Mistake`."""
    from penstock.pricing.table_file import PriceFileError, read_table

    try:
        return read_table(path.read_bytes())
    except FileNotFoundError:
        raise Mistake(f"there is no {path}") from None
    except OSError as error:
        raise Mistake(f"{path} cannot be read: {error.strerror}") from None
    except PriceFileError as error:
        raise Mistake(f"{path}: {error}") from None


def _nothing(known: Table, model: str | None, provider: str | None) -> str:
    if model is None or (provider is not None and known.of_model(model)):
        providers = ", ".join(sorted({price.provider for price in known}))
        return f"no price there from {provider!r} on that day. There are prices of {providers}"
    near = known.near(model)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{model!r} has no price on that day: requests to it are not priced, and not free.{hint}"


def _list(wanted: list[tuple[Price, Row]]) -> None:
    from penstock.pricing.differences import summary

    width = max(len(f"{price.provider}/{price.model}") for price, _ in wanted)
    for price, row in wanted:
        click.echo(f"{f'{price.provider}/{price.model}':{width}}  {summary(row)}")


def _describe(price: Price, row: Row) -> None:
    """Classes that cost what the one does that they are part of are left out."""
    from penstock.pricing.rates import CLASSES, PARENT, show_rate

    click.echo(f"{price.provider}/{price.model}")
    if row.free:
        click.echo("  free")
    else:
        for service, tiers in row.schedules.items():
            for tier in tiers:
                heading = service + (f", prompts above {tier.above:,} tokens" if tier.above else "")
                click.echo(f"  {heading}")
                for name in CLASSES:
                    rate = tier.rates.of(name)
                    if rate is not None and (name not in PARENT or rate != tier.rates.of(PARENT[name])):
                        click.echo(f"    {name:15} {show_rate(name, rate)}")
    if row.valid_from is not None:
        click.echo(f"  since {row.valid_from}")
    if row.source:
        click.echo(f"  source {row.source}")


def _as_json(price: Price, row: Row) -> dict[str, Any]:
    """Every rate as it would be charged, those too that follow from another. US dollars as text: none is rounded."""
    from penstock.pricing.rates import CLASSES, show_rate

    said: dict[str, Any] = {"provider": price.provider, "model": price.model, "free": row.free}
    if row.valid_from is not None:
        said["valid_from"] = row.valid_from
    if row.source:
        said["source"] = row.source
    said["services"] = {
        service: [
            {
                "above": tier.above,
                **{
                    name: show_rate(name, rate).strip("$/M each")
                    for name in CLASSES
                    if (rate := tier.rates.of(name)) is not None
                },
            }
            for tier in tiers
        ]
        for service, tiers in row.schedules.items()
    }
    return said
