"""`penstock audit`: what administrators did, and whether the log still says it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.mistake import Mistake
from penstock.cli.tenancy import AS_JSON, books, tell_json, where, words

if TYPE_CHECKING:
    from penstock.stores.audit import Broken, Event, Verified
    from penstock.stores.sql import Database


@click.group()
def audit() -> None:
    """Look at the audit log: every act that changed organisations, teams, keys or what is kept of users."""


@audit.command("list")
@click.option("--after", type=click.IntRange(0), default=0, help="Only what follows this number.")
@click.option("--most", type=click.IntRange(1, 1000), default=100, show_default=True, help="Acts to list.")
@where
@AS_JSON
def list_(after: int, most: int, file: Path, database: str | None, as_json: bool) -> None:
    """List administrative acts, in their order.

    \b
    Examples
      penstock audit list
      penstock audit list --after 1000 --json
    """

    async def ask(opened: Database) -> list[Event]:
        from penstock.stores.audit import SqlAuditLog

        return await SqlAuditLog(opened).events(after, most)

    events = books(file, database, ask)
    if as_json:
        tell_json(events)
        return
    for one in events:
        at = datetime.fromtimestamp(one.at_micros // 1_000_000, UTC)
        detail = f"  {words(one.detail)}" if one.detail else ""
        click.echo(f"{one.seq:>6}  {at:%Y-%m-%d %H:%M:%S}  {one.actor}  {one.action} {one.target}{detail}")
    if not events:
        click.echo("There is nothing.", err=True)


@audit.command()
@click.option("--seen", metavar="NUMBER:DIGEST", help="What an earlier call printed: it must still be true.")
@where
@AS_JSON
def verify(seen: str | None, file: Path, database: str | None, as_json: bool) -> int:
    """Say whether the audit log is what was written: every row has the digest of all before it.

    Rows that were cut off at the end, and a log that was written anew as a whole, are found only by what was seen
    before: keep what this prints somewhere else, and show it with --seen.

    Exit code 0: it is whole. 1: it is not.

    \b
    Examples
      penstock audit verify
      penstock audit verify --seen 1041:9f86d081884c7d65...
    """
    from penstock.stores.audit import SqlAuditLog, Verified

    before = None
    if seen is not None:
        number, _, digest = seen.partition(":")
        if not number.isdecimal() or len(digest) != 64:
            raise Mistake("--seen is a number, a colon and a digest of 64 hex digits, as printed before")
        before = Verified(int(number), digest)

    async def ask(opened: Database) -> Verified | Broken:
        return await SqlAuditLog(opened).verify(before)

    found = books(file, database, ask)
    whole = isinstance(found, Verified)
    if as_json:
        tell_json({"whole": whole, **{name: getattr(found, name) for name in found.__struct_fields__}})
    elif isinstance(found, Verified):
        click.echo(f"{found.seq:,} acts, and each is what was written.\n{found.seq}:{found.head}")
    else:
        click.echo(f"Act {found.seq} is not what was written: {found.why}.", err=True)
    return 0 if whole else 1
