"""What the verbs for organisations, teams and keys share: where the database is, who acts, and how options are said."""

from __future__ import annotations

import getpass
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from penstock.cli.config_file import load_file
from penstock.cli.database import configured_database, with_database
from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.control.tenancy import Tenancy
    from penstock.control.tenants import Page
    from penstock.core.keys import Pepper
    from penstock.stores.sql import Database, Row, Value

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")

AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")
_WHERE: Final = (
    click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        default=Path("penstock.yaml"),
        show_default=True,
        help="The configuration file.",
    ),
    click.option(
        "--database",
        envvar="PENSTOCK_DATABASE",
        show_envvar=True,
        help="postgres://user@host/name, or the path of a SQLite file. Without it: `store.database` of the file, or "
        "penstock.db beside it.",
    ),
)
_OPTIONS: Final = (
    click.option(
        "--model", "models", multiple=True, help="A model that may be used; repeat for more. Without it: all."
    ),
    click.option(
        "--endpoint", "endpoints", multiple=True, help="An endpoint that may be called; repeat. Without: all."
    ),
    click.option("--network", "networks", multiple=True, help="Where callers may be, as 10.0.0.0/8; repeat."),
    click.option("--scope", "scopes", multiple=True, type=click.Choice(["call", "read"]), help="Without it: both."),
    click.option("--not-before", help="A day such as 2027-01-31, or a time such as 2027-01-31T18:00:00Z."),
    click.option("--expires", help="Likewise."),
    click.option(
        "--priority",
        type=click.Choice(["critical", "high", "normal", "low"]),
        help="Without it: that of what is around.",
    ),
    click.option("--limit", "limits", multiple=True, metavar="WHAT=RATE", help="Such as requests=600/m; repeat."),
    click.option("--budget", help="What may be spent, such as '$50/month'."),
    click.option("--max-cost", help="What one request may cost at most, in dollars."),
)


def where(command: Command) -> Command:
    """`--config` and `--database`, as `file` and `database`."""
    return _with(_WHERE, command)


def access(command: Command) -> Command:
    """The options of an organisation, a team or a key, under their names in the file; `given` reads them."""
    return _with(_OPTIONS, command)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """As they are written in the file."""
    entry = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value}
    if "limits" in entry:
        pairs = [limit.partition("=") for limit in entry["limits"]]
        if wrong := [name for name, equals, _ in pairs if not equals]:
            raise click.UsageError(f"--limit is WHAT=RATE, such as requests=600/m; not {wrong[0]}")
        entry["limits"] = {name: int(rate) if rate.isdecimal() else rate for name, _, rate in pairs}
    return entry


def tenancy(
    file: Path, told: str | None, work: Callable[[Tenancy], Awaitable[Result]], *, changes: bool = False
) -> Result:
    """What `work` answers. Where there is no database yet, one is made when `changes` is true; otherwise it is as if it
    were empty. Raises `Mistake` for what is refused."""
    config = load_file(file)

    async def with_tenancy(database: Database) -> Result:
        from penstock.control.tenancy import Tenancy
        from penstock.core.clock import SystemClock

        pepper = read_pepper(config.keys_pepper) if changes else None
        return await work(Tenancy(database, lambda: config, clock=SystemClock(), entropy=os.urandom, pepper=pepper))

    return books(file, told, with_tenancy, changes=changes)


def books(
    file: Path, told: str | None, work: Callable[[Database], Awaitable[Result]], *, changes: bool = False
) -> Result:
    """Likewise, with the database itself."""
    import asyncio

    from penstock.control.tenants import Refused
    from penstock.stores.base import StoreFailed
    from penstock.stores.databases import sqlite_file
    from penstock.stores.migrate import check_schema, migrate
    from penstock.stores.sql import Dialect

    url = configured_database(told, file)
    try:
        place = sqlite_file(url)
    except StoreFailed as error:
        raise Mistake(str(error)) from None

    async def with_schema(database: Database) -> Result:
        from penstock.core.clock import SystemClock

        if changes and database.dialect is Dialect.SQLITE:
            await migrate(database, SystemClock.wall())
        else:
            await check_schema(database)
        return await work(database)

    try:
        if not changes and place is not None and not place.exists():
            return asyncio.run(_awaited(work(cast("Database", _Nothing()))))
        return with_database(url, with_schema)
    except Refused as error:
        raise Mistake(error.message) from None


def all_pages(ask: Callable[[str], Awaitable[Page]]) -> Callable[[], Awaitable[list[Any]]]:
    async def ask_all() -> list[Any]:
        page = await ask("")
        found = list(page.items)
        while page.next is not None:
            page = await ask(page.next)
            found += page.items
        return found

    return ask_all


def actor() -> str:
    """For the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # nobody of this number is known
        return f"cli:{os.getuid()}"


def read_pepper(reference: str | None) -> Pepper | None:
    from penstock.app.secrets import Secrets
    from penstock.core.keys import Pepper

    if reference is None:
        return None
    try:
        return Pepper(Secrets(os.environ).read(reference).encode())
    except (LookupError, ValueError) as error:
        raise Mistake(f"the pepper: {error.args[0]}") from None


def plain(view: Any) -> dict[str, Any]:
    """Without what is not there."""
    import msgspec

    facts: dict[str, Any] = _without_nothing(msgspec.to_builtins(view))
    return facts


def _without_nothing(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_nothing(inner) for name, inner in value.items() if inner not in (None, "", False)}


def words(facts: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {word(value)}" for name, value in facts.items())


def word(value: Any) -> str:
    if isinstance(value, dict):
        return words(value)
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def tell_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value))


def tell_table(rows: Sequence[tuple[str, Mapping[str, Any]]], nothing: str) -> None:
    """A name and what is said of it, on a line each."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, facts in rows:
        click.echo(f"{name:<{width}}  {words(facts)}".rstrip())
    if not rows:
        click.echo(nothing, err=True)


def tell_facts(facts: Mapping[str, Any]) -> None:
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name:<{width}} {word(value)}")


async def _awaited(work: Awaitable[Result]) -> Result:
    return await work


class _Nothing:
    """A database that was never made, for those who only look."""

    async def read(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        return []


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    return reduce(lambda inner, option: option(inner), reversed(options), command)
