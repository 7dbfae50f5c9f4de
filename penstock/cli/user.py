"""`penstock user`: end users, whom the ledger knows by a hash."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.config_file import load_file
from penstock.cli.mistake import Mistake
from penstock.cli.tenancy import AS_JSON, actor, books, read_pepper, tell_json, where

if TYPE_CHECKING:
    from penstock.stores.sql import Database


@click.group()
def user() -> None:
    """Look after what is kept of end users."""


@user.command()
@click.argument("user")
@click.option("--org", default="", help="The organisation of the keys that they were served with.")
@click.option("--hash", "is_hash", is_flag=True, help="USER is the hash that the ledger has, and not an id.")
@where
@AS_JSON
def forget(user: str, org: str, is_hash: bool, file: Path, database: str | None, as_json: bool) -> None:
    """Take an end user out of the ledger: the hash, sessions and tags of their requests. What was used and what it cost
    stays counted, for nobody.

    USER is the id that callers send, as `user` or `metadata.user_id`. What a gateway has not written yet is not
    reached: do it again a minute later.

    \b
    Examples
      penstock user forget ann@example.com --org acme
      penstock user forget 0c2ad0b1a3a74c1e0c2ad0b1a3a74c1e --hash
    """
    config = load_file(file)

    async def work(opened: Database) -> tuple[str, int]:
        from penstock.control.users import Users
        from penstock.core.clock import SystemClock

        users = Users(opened, clock=SystemClock(), pepper=read_pepper(config.keys_pepper))
        hashed = user if is_hash else users.hash(user, org)
        return hashed, await users.forget(actor(), hashed)

    if is_hash and org:
        raise Mistake("a hash is of one organisation already: leave out --org")
    hashed, n_rows = books(file, database, work, changes=True)
    if as_json:
        tell_json({"user_hash": hashed, "rows": n_rows})
        return
    click.echo(f"{n_rows:,} requests are nobody's now.")
