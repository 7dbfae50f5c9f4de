"""`penstock slo`: what is promised, how it stands, as rules for Prometheus, and as a report by month and tenant."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from penstock.cli.cost_terms import database_options
from penstock.cli.mistake import Failure, Mistake

if TYPE_CHECKING:
    from penstock.stores.sql import Database

_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_FILE: Final = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    default=Path("penstock.yaml"),
    show_default=True,
    help="The configuration file.",
)


@click.group()
def slo() -> None:
    """Say what is promised and how it stands."""


@slo.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Of the gateway.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def status(url: str, as_json: bool) -> int:
    """Say how much of every error budget is left, how fast it burns, and which alerts are active.

    Exit code 0: no alert is active. 1: one is.

    \b
    Example
      penstock slo status http://gateway:8080 --json
    """
    from penstock.cli.slo_status import as_words, read, told_json

    found = read(url)
    click.echo(told_json(found) if as_json else "\n".join(as_words(found)))
    return 1 if any(n for _, n in found.alerts) else 0


@slo.command()
@_FILE
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A file, instead of standard output.")
@click.option("--every", type=click.IntRange(1, 300), default=15, show_default=True, help="Seconds between looks.")
def rules(file: Path, output: Path | None, every: int) -> None:
    """Write recording and alert rules for Prometheus.

    Every SLO of the file, with burn rates over several windows, and the shipped alerts. `promtool check rules` accepts
    what is written.

    \b
    Example
      penstock slo rules --output /etc/prometheus/penstock.rules.yml
    """
    from penstock.cli.config_file import load_file
    from penstock.cli.slo_rules import written
    from penstock.config.slos import rules_of, slos_of

    config = load_file(file)
    text = written(slos_of(config), rules_of(config), every)
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise Failure(f"{output} cannot be written: {error.strerror}") from None
        click.echo(f"Wrote {output}.")


@slo.command()
@click.option("--month", help="Such as 2027-01. Without it, the current one.")
@click.option("--zone", help="Whose month it is, such as Europe/Berlin. Without it, `timezone` of the file.")
@click.option("--org", help="Of this organisation only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to this file.")
@database_options
def report(
    month: str | None,
    zone: str | None,
    org: str | None,
    as_json: bool,
    html: Path | None,
    database: str | None,
    file: Path,
) -> int:
    """Say what a month was like for every organisation, from the ledger.

    Availability and errors, latencies, cost, and the SLOs about which the ledger knows: availability, errors, e2e.
    Requests that callers have spoilt, and those beyond their limits, are not failures.

    Exit code 0: every promise was kept. 1: one was not.

    \b
    Examples
      penstock slo report --month 2027-01
      penstock slo report --month 2027-01 --org acme --html acme.html
    """
    from penstock.cli import slo_report
    from penstock.cli.config_file import load_file
    from penstock.cli.cost_terms import read_zone
    from penstock.cli.database import configured_database, with_database
    from penstock.cli.report_page import need_template_engine
    from penstock.config.slos import slos_of
    from penstock.core.clock import SystemClock
    from penstock.stores.migrate import check_schema
    from penstock.stores.sla import ServiceLedger

    config = load_file(file) if file.exists() else None
    own = read_zone(zone or ("UTC" if config is None else config.timezone))
    named = month or datetime.fromtimestamp(SystemClock.wall(), own).strftime("%Y-%m")
    written = _MONTH.fullmatch(named)
    if written is None:
        raise Mistake("--month is a month such as 2027-01")
    if html is not None:
        need_template_engine()
    year, number = int(written[1]), int(written[2])
    begin = datetime(year, number, 1, tzinfo=own)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=own)
    span = int(begin.timestamp()) * 1_000_000, int(end.timestamp()) * 1_000_000
    slos = () if config is None else slos_of(config)

    async def work(opened: Database) -> slo_report.Report:
        await check_schema(opened)
        return await slo_report.read(ServiceLedger(opened), named, span, own, slos, org)

    found = with_database(configured_database(database, file), work, make=False)
    if html is not None:
        html.write_text(slo_report.as_html(found), encoding="utf-8")
        click.echo(f"Wrote {html}.")
    else:
        click.echo(slo_report.as_json(found) if as_json else "\n".join(slo_report.render(found)))
    return 0 if all(promise.met for tenant in found.tenants for promise in tenant.promises) else 1


@slo.command("import")
@click.argument("sloth", type=click.Path(path_type=Path, dir_okay=False))
def import_(sloth: Path) -> None:
    """Write the `slos:` of a configuration file, from what Sloth has.

    Its queries are kept as they are, so Prometheus alone evaluates these: `penstock slo rules` writes them. SLOs of
    Penstock's own metrics are better written with `of`.

    \b
    Example
      penstock slo import sloth.yaml > slos.yaml
    """
    from penstock.config.sloth import SlothError, block, read

    try:
        text = sloth.read_text(encoding="utf-8")
        click.echo(block(read(text)), nl=False)
    except OSError as error:
        raise Mistake(f"{sloth} cannot be read: {error.strerror}") from None
    except (SlothError, UnicodeDecodeError) as error:
        raise Mistake(f"{sloth} {error}") from None
