"""`penstock db`: brings the database to the schema that this version works with, and says how far it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from penstock.cli.database import with_database

if TYPE_CHECKING:
    from penstock.stores.sql import Database

_database = click.option(
    "--database",
    required=True,
    envvar="PENSTOCK_DATABASE",
    show_envvar=True,
    help="postgres://user@host/name, or the path of a SQLite file. A URL with a password belongs into the variable: "
    "others see the command line.",
)


@click.group()
def db() -> None:
    """Look after the database of keys, the ledger and the audit log."""


@db.command()
@_database
def migrate(database: str) -> int:
    """Bring the database to the schema that this version of Penstock needs; an empty one gets all of it.

    Migrations only go forward, each in a transaction of its own. Take a copy of the database first. Any number of
    these may run at once; gateways need not be stopped, unless the release notes say so.

    \b
    Examples
      penstock db migrate --database penstock.db
      PENSTOCK_DATABASE=postgres://penstock@db.internal/penstock penstock db migrate
    """
    from penstock.core.clock import SystemClock
    from penstock.stores.migrate import migrate as bring_forward
    from penstock.stores.migrate import schema_status

    async def work(opened: Database) -> None:
        for one in await bring_forward(opened, SystemClock.wall()):
            click.echo(f"Applied {one.number:04d} {one.name}.")
        click.echo(f"The schema is version {(await schema_status(opened)).version}, which is the newest.")

    with_database(database, work)
    return 0


@db.command()
@_database
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def status(database: str, as_json: bool) -> int:
    """Say which migrations the database has and which are pending. Changes nothing.

    Exit code 0: it has all of them. 1: some are pending, or it could not be asked.

    \b
    Examples
      penstock db status --database penstock.db
    """
    import msgspec

    from penstock.stores.migrate import schema_status

    found = with_database(database, schema_status, make=False)
    if as_json:
        pending = [{"number": one.number, "name": one.name} for one in found.pending]
        click.echo(msgspec.json.encode({"version": found.version, "applied": found.applied, "pending": pending}))
    else:
        for applied in found.applied:
            at = datetime.fromtimestamp(applied.applied_at, UTC)
            click.echo(f"{applied.number:04d} {applied.name}, applied {at:%Y-%m-%d %H:%M:%S} UTC")
        for one in found.pending:
            click.echo(f"{one.number:04d} {one.name}, pending: `penstock db migrate` applies it")
    return 1 if found.pending else 0
