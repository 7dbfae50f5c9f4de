"""`penstock trace`: single requests that a gateway keeps, out of the file beside its ledger. Needs no server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from penstock.cli.mistake import Failure, Mistake
from penstock.cli.top import pause

if TYPE_CHECKING:
    from penstock.stores.outcome_terms import Term
    from penstock.stores.outcomes import Kept, Outcomes
    from penstock.telemetry.spans import Span, Trace

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")

FOLLOW_EVERY: Final = 0.5  # seconds
WIDTH: Final = 48  # characters of the waterfall
_EXPRESSION = "Terms, all of which must be true: model=chat error ttft>2 cost>=0.01 status=5xx why=slow key=web word"
_WHERE: Final = (
    click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        default=Path("penstock.yaml"),
        show_default=True,
        help="The configuration file of the gateway.",
    ),
    click.option(
        "--traces",
        type=click.Path(path_type=Path),
        help="The file of single requests. Without it: `store.traces`, or the one beside the ledger.",
    ),
    click.option("--json", "as_json", is_flag=True, help="JSON, a line for each request."),
)


def _where(command: Command) -> Command:
    return reduce(lambda inner, option: option(inner), reversed(_WHERE), command)


@click.group()
def trace() -> None:
    """Look at single requests: what each was, where it went, and where its time went.

    Kept are all that failed, were slow, flagged or degraded, and as many of the others as there is room for.
    """


@trace.command()
@click.argument("id")
@_where
def show(id: str, file: Path, traces: Path | None, as_json: bool) -> None:
    """Show one request as a waterfall, by its id (x-request-id) or that of its trace.

    \b
    Examples
      penstock trace show req_01a1ff7f02f15122692a6a000006
      penstock trace show 4bf92f3577b34da6a3ce929d0e0e4736 --json
    """
    found = _with(file, traces, lambda kept: kept.find(id))
    if found is None:
        raise Failure(f"no request {id!r} is kept here, or no longer")
    from penstock.telemetry.spans import trace_of

    if as_json:
        _tell({"why": found.why, "outcome": _plain(found), "trace": trace_of(found.outcome, {}, kept=found.why)})
        return
    _say([*described(found), "", *waterfall(trace_of(found.outcome, {}, kept=found.why))])


@trace.command()
@click.option("-n", "most", type=click.IntRange(1, 1000), default=20, show_default=True, help="Requests to begin with.")
@click.option("-f", "--follow", is_flag=True, help="Go on, and show requests as they are kept. Ctrl-C ends it.")
@click.argument("terms", nargs=-1, metavar="[EXPR]...")
@_where
def tail(most: int, follow: bool, terms: tuple[str, ...], file: Path, traces: Path | None, as_json: bool) -> None:
    """Show the last requests, the newest at the end.

    \b
    Examples
      penstock trace tail
      penstock trace tail -f status=failed
      penstock trace tail -f -n 5 model=chat --json
    """
    expression = _terms(terms)

    async def work(kept: Outcomes) -> None:
        seen = await kept.last_seq()
        items = [one async for one in _newest(kept, expression, most)]
        _lines(reversed(items), as_json, head=True)
        while follow:
            pause(FOLLOW_EVERY)
            some = await kept.since(seen, expression)
            _lines(some, as_json)
            seen = max((one.seq for one in some), default=seen)

    _with(file, traces, work)


@trace.command(epilog=_EXPRESSION)
@click.argument("terms", nargs=-1, required=True, metavar="EXPR...")
@click.option("--most", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Requests, at most.")
@click.option("--last", default="14d", show_default=True, help="Up to now, such as 10m, 24h or 7d.")
@_where
def grep(terms: tuple[str, ...], most: int, last: str, file: Path, traces: Path | None, as_json: bool) -> int:
    """Find requests, the newest first. All terms have to be true; a word alone is searched for in everything.

    \b
    Names    endpoint model org team key feature session priority deployment replica error finish arm trace id why
             status prompt_tokens completion_tokens attempts cost (dollars) ttft duration queued (seconds)
    Terms    NAME=TEXT  NAME!=TEXT  NAME~PART  NAME>NUMBER  NAME<=NUMBER  status=ok|failed|5xx  error  WORD

    Exit code 0: something was found. 1: nothing.

    \b
    Examples
      penstock trace grep error
      penstock trace grep model=chat 'ttft>2' --last 24h
      penstock trace grep 'cost>=0.05' team=search --json
    """
    from penstock.config.units import seconds
    from penstock.core.clock import SystemClock

    expression = _terms(terms)
    try:
        since = SystemClock().wall() - seconds(last)
    except ValueError:
        raise Mistake("--last is a duration with its unit, such as 24h or 30d") from None

    async def work(kept: Outcomes) -> int:
        n = 0
        async for one in _newest(kept, expression, most, since):
            _lines([one], as_json, head=not n)
            n += 1
        return n

    if not _with(file, traces, work):
        click.echo("There is none.", err=True)
        return 1
    return 0


@trace.command()
@click.argument("to", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv"]),
    default="parquet",
    show_default=True,
    help="What is written.",
)
@click.argument("terms", nargs=-1, metavar="[EXPR]...")
@_where
def export(to: Path, form: str, terms: tuple[str, ...], file: Path, traces: Path | None, as_json: bool) -> None:
    """Write requests to a Parquet or CSV file, for what reads tables. Needs the extra `parquet` for Parquet.

    \b
    Examples
      penstock trace export traces.parquet
      penstock trace export failed.csv --format csv status=failed
    """
    from penstock.cli.cost_files import csv_sink, parquet_sink

    expression = _terms(terms)

    async def work(kept: Outcomes) -> int:
        n = 0
        with (parquet_sink if form == "parquet" else csv_sink)(to, COLUMNS) as sink:
            page: list[tuple[Any, ...]] = []
            async for one in _newest(kept, expression, None):
                page.append(exported(one))
                if len(page) >= 2_000:
                    sink.write(page)
                    n += len(page)
                    page = []
            if page:
                sink.write(page)
        return n + len(page)

    n = _with(file, traces, work)
    if as_json:
        _tell({"requests": n, "file": str(to)})
    else:
        click.echo(f"{n:,} requests are in {to}.", err=True)


COLUMNS: Final = (
    ("request_id", "text"), ("at", "time"), ("why", "text"), ("endpoint", "text"), ("model", "text"), ("org", "text"),
    ("team", "text"), ("key_id", "text"), ("feature", "text"), ("session", "text"), ("deployment", "text"),
    ("replica", "text"), ("status", "number"), ("error", "text"), ("finish_reason", "text"), ("arm", "text"),
    ("ttft_micros", "number"), ("duration_micros", "number"), ("queued_micros", "number"), ("prompt_tokens", "number"),
    ("completion_tokens", "number"), ("cached_tokens", "number"), ("attempts", "number"), ("cost", "money"),
    ("receipt", "text"),
)  # fmt: skip
"""Of an exported request; `receipt` is all of it, as JSON."""


def exported(kept: Kept) -> tuple[Any, ...]:
    import msgspec

    from penstock.core.money import dollars
    from penstock.stores.outcomes import answered_by

    one = kept.outcome
    first = one.first_token_after
    return (
        one.request_id, datetime.fromtimestamp(one.received_at, UTC), kept.why, one.endpoint, one.model, one.tenant,
        one.team, one.key_id, one.feature, one.session, one.deployment, answered_by(one), one.status, one.error,
        one.finish_reason, one.arm, None if first is None else int(first * 1e6), int(one.duration * 1e6),
        int(one.queued_for * 1e6), one.usage.prompt_tokens, one.usage.completion_tokens, one.usage.cached_tokens,
        len(one.attempts), None if one.cost_nanos is None else dollars(one.cost_nanos),
        msgspec.json.encode(one).decode(),
    )  # fmt: skip


def described(kept: Kept) -> list[str]:
    """What the request was, in a few lines."""
    one = kept.outcome
    usage = one.usage
    lines = [
        f"{one.request_id}  {_at(one.received_at)}  {one.endpoint} {one.model}",
        f"  {one.status} {one.error or 'ok'}{f', {one.finish_reason}' if one.finish_reason else ''}   kept: {kept.why}",
        f"  {usage.prompt_tokens:,} prompt tokens ({usage.cached_tokens:,} cached), {usage.completion_tokens:,} output"
        f"   {_cost(one.cost_nanos)}",
    ]
    who = [f"{name}={value}" for name, value in (
        ("org", one.tenant), ("team", one.team), ("key", one.key_id), ("feature", one.feature),
        ("session", one.session), ("arm", one.arm), ("prompt", one.prompt_version),
    ) if value]  # fmt: skip
    lines += [f"  {' '.join(who)}"] if who else []
    lines += [f"  why: {why}" for why in one.why]
    lines += [f"  degraded: {', '.join(one.degraded)}"] if one.degraded else []
    return lines


def waterfall(trace: Trace) -> list[str]:
    """A bar for each span, on one scale."""
    root = trace.spans[0]
    depth = {root.id: 0}
    for span in trace.spans[1:]:
        depth[span.id] = depth.get(span.parent_id, 0) + 1
    whole = max(root.ended_at - root.started_at, 1e-9)
    names = [f"{'  ' * depth[span.id]}{_name(span)}" for span in trace.spans]
    width = max(map(len, names))
    lines = []
    for span, name in zip(trace.spans, names, strict=True):
        begin = min(WIDTH - 1, int((span.started_at - root.started_at) / whole * WIDTH))
        end = min(WIDTH, max(begin + 1, round((span.ended_at - root.started_at) / whole * WIDTH)))
        bar = f"{' ' * begin}{'█' * (end - begin)}".ljust(WIDTH)
        after, took = (span.started_at - root.started_at) * 1e3, (span.ended_at - span.started_at) * 1e3
        lines.append(f"{name.ljust(width)}  {bar}  {after:>9.1f} ms  {took:>9.1f} ms  {span.error}".rstrip())
    return lines


def _name(span: Span) -> str:
    replica = span.attributes.get("replica") if span.role == "attempt" else None
    return f"{span.name} ({replica})" if replica else span.name


def _lines(some: Iterable[Kept], as_json: bool, *, head: bool = False) -> None:
    if as_json:
        for one in some:
            _tell({"why": one.why, **_plain(one)})
        return
    if head:
        _say([_ROW.format("AT", "ID", "STATUS", "MODEL", "REPLICA", "TTFT", "TOOK", "TOKENS", "COST", "KEPT FOR")])
    _say(map(row, some))


_ROW: Final = "{:<12}  {:<34}  {:<26}  {:<16}  {:<16}  {:>8}  {:>8}  {:>13}  {:>10}  {}"


def row(kept: Kept) -> str:
    from penstock.stores.outcomes import answered_by

    one = kept.outcome
    first = "-" if one.first_token_after is None else f"{one.first_token_after * 1e3:.0f} ms"
    tokens = f"{one.usage.prompt_tokens:,}+{one.usage.completion_tokens:,}"
    took, status = f"{one.duration * 1e3:.0f} ms", f"{one.status} {one.error or ''}"
    return _ROW.format(
        _at(one.received_at)[11:], one.request_id[:34], status[:26], one.model[:16], answered_by(one)[:16], first, took,
        tokens, _cost(one.cost_nanos), kept.why,
    ).rstrip()  # fmt: skip


def _plain(kept: Kept) -> dict[str, Any]:
    from penstock.console.lines import whole

    return whole(kept.outcome)


def _cost(nanos: int | None) -> str:
    return "?" if nanos is None else f"${nanos / 1e9:.6f}"


def _at(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(" ", "milliseconds")[:23]


def _say(lines: Iterable[str]) -> None:
    from penstock.cli.chat import printable

    for line in lines:
        click.echo(printable(line).replace("\n", " "))


def _tell(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value).decode())


def _terms(words: tuple[str, ...]) -> tuple[Term, ...]:
    from penstock.stores.outcome_terms import checked, read

    try:
        return checked(map(read, words))
    except ValueError as error:
        raise Mistake(str(error)) from None


async def _newest(kept: Outcomes, terms: tuple[Term, ...], most: int | None, since: float = 0.0) -> AsyncIterator[Kept]:
    """However many pages that takes."""
    from penstock.stores.outcomes import Question

    before, left = "", most
    while left is None or left > 0:
        page = await kept.page(Question(terms, since=since, before=before, most=min(left or 1_000, 1_000)))
        for one in page.items:
            yield one
        if page.next is None:
            return
        before = page.next
        left = None if left is None else left - len(page.items)


def _with(file: Path, told: Path | None, work: Callable[[Outcomes], Awaitable[Result]]) -> Result:
    """What `work` answers about the file of single requests. Raises `Mistake` where there is none."""
    import asyncio

    from penstock.core.clock import SystemClock
    from penstock.stores.base import StoreFailed
    from penstock.stores.outcomes import Outcomes

    place = told or _configured(file)
    if not place.exists():
        raise Mistake(f"there is no {place}: a gateway that has served requests makes it.")

    async def main() -> Result:
        kept = await Outcomes.look(place, SystemClock())
        try:
            return await work(kept)
        finally:
            await kept.close()

    try:
        return asyncio.run(main())
    except StoreFailed as error:
        raise Failure(f"{place}: {error}") from None


def _configured(file: Path) -> Path:
    from penstock.app.register import books_options, traces_file
    from penstock.app.secrets import Secrets
    from penstock.app.source import ConfigSource

    source = ConfigSource(path=str(file), text=None, engine_replicas=None)
    config = source.read()
    place = traces_file(config, source, books_options(config, source, Secrets(os.environ).read))
    if place is None:
        raise Mistake(f"{file} keeps no single requests (`store.traces`); name another file with --traces.")
    return place
