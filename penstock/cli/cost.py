"""`penstock cost`: what was used and what it cost, for people, spreadsheets, FinOps tools, and beside an invoice."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from penstock.cli.cost_terms import Asked, database_options, question, range_options, read_by
from penstock.cli.database import configured_database, with_database
from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.stores.costs import Answer, Costs, Question
    from penstock.stores.sql import Database

Result = TypeVar("Result")

TOP: Final = 50


@click.group(invoke_without_command=True)
@click.option("--by", "by", multiple=True, help="One or more of the words below, with commas.")
@click.option("--top", type=click.IntRange(1, 10_000), help=f"The dearest. Without it: {TOP}; in JSON and CSV 10,000.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV, for spreadsheets.")
@range_options
@database_options
@click.pass_context
def cost(
    context: click.Context,
    /,
    by: tuple[str, ...],
    top: int | None,
    as_json: bool,
    as_csv: bool,
    database: str | None,
    file: Path,
    **which: Any,
) -> None:
    """Say what was used and what it cost, by whatever the ledger records.

    Requests without a price are in no sum: they are counted as `unpriced`. Requests whose tokens were not counted to
    the end by whoever answered are counted as `estimated`.

    \b
    By and where
      org, team, key, user, feature, session, tag:NAME, model, deployment, replica,
      endpoint, cache, status, error, usage, price, day, hour

    \b
    Examples
      penstock cost --by team,model --last 30d
      penstock cost --by day --from 2027-01 --to 2027-02 --zone Europe/Berlin
      penstock cost --by tag:project --where team=search --where team=ads --json
    """
    if context.invoked_subcommand is not None:
        if any(context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE for name in context.params):
            raise click.UsageError(f"options belong behind `{context.invoked_subcommand}`")
        return
    from penstock.cli import cost_table

    if as_json and as_csv:
        raise click.UsageError("--json or --csv, not both")
    wanted = read_by(by)
    asked = question(Asked(**which), _now(), wanted, top or (10_000 if as_json or as_csv else TOP))
    answer: Answer = _read(database, file, lambda costs: costs.sums(asked))
    if as_json:
        import msgspec

        said = {**_period(asked), "by": [cost_table.word(one) for one in wanted]}
        said |= cost_table.as_json(answer, wanted, asked.zone)
        click.echo(msgspec.json.format(msgspec.json.encode(said), indent=2))
    elif as_csv:
        text = cost_table.as_csv(answer, wanted, asked.zone)
        if sys.stdout.isatty():
            text = "\n".join(map(cost_table.plain, text.split("\n")))
        click.echo(text, nl=False, color=True)  # a file gets it as it is: `echo` would take escapes out
    else:
        click.echo("\n".join(cost_table.table(answer, wanted, asked.zone)))
    _tell_doubts(answer)


@cost.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "parquet", "focus"]),
    required=True,
    help="csv, parquet: a row for each request. focus: FOCUS 1.2, a row for each hour and attribution.",
)
@click.option("--account", default="penstock", show_default=True, help="FOCUS: the billing account.")
@range_options
@database_options
def export(path: Path, kind: str, account: str, database: str | None, file: Path, **which: Any) -> None:
    """Write the ledger to a file, for other programs. `-` is standard output.

    FOCUS is written as Parquet when the file's name ends in .parquet, and else as CSV; of whole hours, from the
    rollups. Parquet needs the extra `parquet`. In CSV, text that a spreadsheet would take for a formula has a ' before
    it; in Parquet it is as it was.

    \b
    Examples
      penstock cost export --format csv --last 7d requests.csv
      penstock cost export --format focus --from 2027-01 --to 2027-02 january.parquet
    """
    from penstock.cli.cost_export import COLUMNS, charges, request_row, sellers
    from penstock.cli.cost_files import csv_sink, parquet_sink
    from penstock.pricing.focus import FOCUS

    asked: Question = question(Asked(**which), _now())
    parquet = kind == "parquet" or (kind == "focus" and path.suffix == ".parquet")
    columns = [(one.name, one.kind) for one in FOCUS] if kind == "focus" else COLUMNS
    paid = sellers(file) if kind == "focus" else {}

    async def work(costs: Costs) -> tuple[int, int]:
        n = 0
        with (parquet_sink if parquet else csv_sink)(path, columns) as sink:
            if kind == "focus":
                async for rows in charges(costs, asked, account, paid):
                    sink.write(rows)
                    n += len(rows)
            else:
                async for page in costs.rows(asked):
                    sink.write([request_row(one) for one in page])
                    n += len(page)
        return n, await costs.kept_since()

    n, kept = _read(database, file, work)
    if str(path) != "-":
        click.echo(f"Wrote {n:,} rows to {path}.")
    if kind != "focus" and asked.since_micros < kept:
        _tell_missing([(asked.since_micros, min(asked.until_micros, kept))])


@cost.command()
@click.argument("invoice", type=click.Path(path_type=Path))
@click.option("--day-column", help="Of an invoice that is not known here: the column of the day.")
@click.option("--amount-column", help="Likewise: of US dollars.")
@click.option("--model-column", default="", help="Likewise: of the model. Without it, days are compared as a whole.")
@click.option("--currency-column", default="", help="Likewise: it must say USD.")
@click.option("--provider", help="Only deployments of this provider, as the configuration file says.")
@click.option("--same", multiple=True, metavar="THEIRS=OURS", help="What the invoice calls a model of ours; repeat.")
@click.option("--tolerance", default="1%", show_default=True, help="Of each line: a percentage, or dollars as $0.50.")
@click.option("--zone", default="UTC", show_default=True, help="Whose days are on the invoice.")
@click.option("--where", multiple=True, metavar="WHAT=VALUE", help="Only these requests of the ledger.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@database_options
def reconcile(
    invoice: Path, tolerance: str, zone: str, as_json: bool, database: str | None, file: Path, **told: Any
) -> int:
    """Compare a provider's invoice with the ledger, by day and model, and say why they differ where that can be told.

    Costs as exported from OpenAI's and Anthropic's consoles are known by their columns; of any other CSV file say
    which columns they are. Days of the ledger are those between the first and the last one on the invoice. A cent is
    always within the tolerance.

    Exit code 0: every line and the sum are within the tolerance. 1: something is not.

    \b
    Examples
      penstock cost reconcile anthropic-january.csv --provider anthropic
      penstock cost reconcile bill.csv --day-column Date --amount-column USD --model-column Model --tolerance 2%
    """
    from penstock.cli.cost_reconcile import Terms, reconcile_with, render, told_json

    terms = Terms.read(tolerance=tolerance, zone=zone, file=file, **told)
    found = _read(database, file, lambda costs: reconcile_with(costs, invoice, terms))
    if as_json:
        click.echo(told_json(found))
    else:
        click.echo("\n".join(render(found)))
    return 0 if found.within else 1


@cost.command()
@click.argument("report", type=click.Path(path_type=Path))
@click.option("--complete", metavar="FROM..TO", help="The report knows all requests of this time (UTC).")
@click.option("--where", multiple=True, metavar="WHAT=VALUE", help="Of --complete: all of these alone, each once.")
@click.option("--column", "columns", multiple=True, metavar="OURS=THEIRS", help="What the report calls it; repeat.")
@click.option("--dry-run", is_flag=True, help="Say what would be corrected. Nothing is written.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@database_options
def correct(
    report: Path,
    complete: str | None,
    where: tuple[str, ...],
    columns: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    database: str | None,
    file: Path,
) -> None:
    """Make the ledger agree with what a provider says of each request, by rows that are added.

    REPORT is CSV, or a JSON object in each line: `request_id`, which is the x-request-id that Penstock sent, and
    `cost` (dollars) or `cost_nanos`, or tokens, which the configuration's price is asked for: `input_tokens`,
    `cached_tokens`, `cache_write_tokens`, `cache_write_1h_tokens`, `output_tokens`, `reasoning_tokens`; each token is
    in one of them. Lines about the same request are added up. The same report again changes nothing.

    With --complete, requests of that time whose worker was killed, and that the report does not name, cost nothing:
    the provider never got them.

    \b
    Examples
      penstock cost correct report.csv --dry-run
      penstock cost correct usage.jsonl --column request_id=metadata_id --column cost=usd
      penstock cost correct report.csv --complete 2027-01-01..2027-01-02 --where deployment=openai
    """
    from penstock.cli import cost_correct
    from penstock.stores.corrections import Corrected, Corrections

    span = cost_correct.complete_span(complete, where, _now())
    reported = cost_correct.read(report, columns)
    price_of = cost_correct.prices_of(file)

    async def work(opened: Database) -> Corrected:
        return await Corrections(opened).apply(reported, price_of=price_of, complete=span, write=not dry_run)

    done = _use(database, file, work)
    if as_json:
        click.echo(cost_correct.told_json(done, dry_run))
    else:
        click.echo("\n".join(cost_correct.render(done, dry_run)))
    for line in cost_correct.doubts(done):
        click.echo(line, err=True)


@cost.command()
@click.option("--check", "only_check", is_flag=True, help="Change nothing. Exit code 1 when an hour is wrong.")
@database_options
def rebuild(only_check: bool, database: str | None, file: Path) -> int:
    """Make the hourly sums anew from the rows, and say which hours were wrong. There should be none.

    Hours whose rows have been let go stay as they are. Others may go on writing meanwhile.

    \b
    Example
      penstock cost rebuild --check
    """
    from penstock.stores.costs import ALWAYS
    from penstock.stores.ledger import SqlLedger

    async def work(opened: Database) -> list[int]:
        ledger = SqlLedger(opened)
        wrong = await ledger.disagreeing_hours(0, ALWAYS)
        if not only_check:
            await ledger.derive_hours(0, ALWAYS)
        return wrong

    wrong = _use(database, file, work)
    for micros in wrong[:TOP]:
        click.echo(f"{datetime.fromtimestamp(micros // 1_000_000, UTC):%Y-%m-%dT%H:%MZ} was not what its rows say.")
    if len(wrong) > TOP:
        click.echo(f"And {len(wrong) - TOP:,} more.")
    if not wrong:
        click.echo("Every hour is what its rows say.")
    elif not only_check:
        click.echo(f"Made {len(wrong):,} hours anew from their rows.")
    return 1 if wrong and only_check else 0


@cost.command()
@click.option("--keep", help="How long requests stay, such as 90d. Without it: `cost.ledger_retention` of the file.")
@click.option("--keep-hours", help="How long their hourly sums stay. Without it: for ever.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def prune(keep: str | None, keep_hours: str | None, yes: bool, database: str | None, file: Path) -> int:
    """Delete requests that are older than the retention. Their hourly sums stay, and so do the costs by org, team, key,
    feature, model, deployment, endpoint and cache; by user, session, tag and replica nobody can ask any more.

    Whole hours are deleted, some thousand rows at a time; gateways go on writing. There is no way back.

    \b
    Examples
      penstock cost prune
      penstock cost prune --keep 30d --keep-hours 1000d --yes
    """
    now = int(_now() * 1e6)
    rows_before = now - _span("--keep", _retention(file) if keep is None else keep)
    hours_before = None if keep_hours is None else now - _span("--keep-hours", keep_hours)
    if hours_before is not None and hours_before > rows_before:
        raise Mistake("--keep-hours is longer than --keep: the sums of requests that are kept are kept, too")
    day = datetime.fromtimestamp(max(0, rows_before) // 1_000_000, UTC)
    if not yes:
        click.confirm(f"Delete every request from before {day:%Y-%m-%d %H:00} UTC?", abort=True)

    async def work(opened: Database) -> tuple[int, int]:
        from penstock.stores.ledger import SqlLedger

        ledger = SqlLedger(opened)
        rows = await ledger.let_go(max(0, rows_before))
        return rows, 0 if hours_before is None else await ledger.let_go_hours(max(0, hours_before))

    rows, hours = _use(database, file, work)
    click.echo(f"Deleted {rows:,} requests from before {day:%Y-%m-%d %H:00} UTC; their hourly sums stay.")
    if keep_hours is not None:
        click.echo(f"Deleted {hours:,} hourly sums.")
    return 0


def _now() -> float:
    from penstock.core.clock import SystemClock

    return SystemClock.wall()


def _use(database: str | None, file: Path, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Raises `Mistake` when there is no database, `Failure` when it cannot be asked or has another schema."""
    from penstock.stores.migrate import check_schema

    async def checked(opened: Database) -> Result:
        await check_schema(opened)
        return await work(opened)

    return with_database(configured_database(database, file), checked, make=False)


def _read(database: str | None, file: Path, work: Callable[[Costs], Awaitable[Result]]) -> Result:
    from penstock.stores.costs import Costs

    return _use(database, file, lambda opened: work(Costs(opened)))


def _span(option: str, text: str) -> int:
    from penstock.config.units import seconds

    try:
        return int(seconds(text) * 1e6)
    except (ValueError, OverflowError):
        raise Mistake(f"{option} is a duration with its unit, such as 90d") from None


def _retention(file: Path) -> str:
    from penstock.cli.config_file import load_file
    from penstock.config.schema import Cost

    return (load_file(file).cost if file.exists() else Cost()).ledger_retention


def _period(asked: Question) -> dict[str, str]:
    ends = {"since": asked.since_micros, "until": asked.until_micros}
    zone = {"zone": str(asked.zone)}
    return {name: datetime.fromtimestamp(micros / 1e6, asked.zone).isoformat() for name, micros in ends.items()} | zone


def _tell_doubts(answer: Answer) -> None:
    total = answer.total
    if total.unpriced:
        click.echo(
            f"{total.unpriced:,} of {total.requests:,} requests have no price: they are in no cost, and were not free. "
            "`penstock prices show` lists what has one.",
            err=True,
        )
    if total.estimated:
        click.echo(
            f"The tokens of {total.estimated:,} of {total.requests:,} requests were estimated, and so was what they "
            "cost.",
            err=True,
        )
    _tell_missing(answer.missing)


def _tell_missing(missing: Sequence[tuple[int, int]]) -> None:
    for since, until in missing:
        first, last = (datetime.fromtimestamp(micros // 1_000_000, UTC) for micros in (since, until))
        click.echo(
            f"Requests from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC were let go and are not in this. Their "
            "hourly sums are kept by org, team, key, feature, model, deployment, endpoint and cache.",
            err=True,
        )
