"""`penstock key`: the keys that callers show. A secret is printed once and kept nowhere; its digest is in the database,
or in the configuration file for keys that are declared there, whose lines are printed for whoever owns the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import key_in_file
from penstock.cli.mistake import Mistake
from penstock.cli.tenancy import (
    AS_JSON,
    access,
    actor,
    all_pages,
    given,
    plain,
    tell_facts,
    tell_json,
    tell_table,
    tenancy,
    where,
    words,
)

if TYPE_CHECKING:
    from penstock.control.tenancy import Tenancy
    from penstock.control.tenants import KeyView, NewKey


@click.group()
def key() -> None:
    """Make, list, change, replace and revoke the API keys that callers show.

    Keys are kept in the database, and gateways follow it within seconds. Those that are declared in the configuration
    file are listed too; to change one, the line to write there is printed.
    """


@key.command()
@click.option("--id", "id", help="What the key is called in logs and metrics. Without it: its public part.")
@click.option("--org", "--tenant", "org", default="", help="The organisation that it belongs to.")
@click.option("--team", default="", help="The team of that organisation.")
@access
@click.option("--in-file", is_flag=True, help="Print the line for penstock.yaml, instead of using the database.")
@click.option(
    "--admin",
    "role",
    type=click.Choice(["owner", "admin", "viewer", "billing"]),
    help="Print the line for a key of the admin API, under `admin` in penstock.yaml.",
)
@click.option(
    "--pepper", help="With --in-file or --admin: where the secret under `keys_pepper` is, env:NAME or file:/x."
)
@where
@AS_JSON
def create(
    in_file: bool,
    role: str | None,
    pepper: str | None,
    file: Path,
    database: str | None,
    as_json: bool,
    **options: str | tuple[str, ...] | None,
) -> None:
    """Make a new key, and print it once.

    The key has 256 random bits; only its digest is kept, so nobody can read it out of the database or the
    configuration. Lost keys are replaced, not recovered.

    \b
    Examples
      penstock key create --id web
      penstock key create --id batch --org acme --team research --model chat --budget '$50/month'
      penstock key create --id ci --expires 2027-01-31 --network 10.0.0.0/8 --json
      penstock key create --id web --in-file
      penstock key create --id ops --admin owner
    """
    entry = given(options)
    if role is not None:
        if unknown := set(entry) - {"id", "org", "expires"}:
            raise click.UsageError(f"a key of the admin API has no {', '.join(sorted(unknown))}")
        key_in_file.create_for_admin(entry | {"role": role}, pepper, as_json)
        return
    if in_file:
        key_in_file.create(entry, pepper, as_json)
        return
    if pepper is not None:
        raise click.UsageError("--pepper is for --in-file and --admin: the database uses `keys_pepper` of the file")
    made = tenancy(file, database, lambda service: service.create_key(actor(), entry), changes=True)
    _tell_new(made, as_json, f"`{made.key.id}` is let in from now on.")


@key.command("list")
@click.option("--org", help="Only those of this organisation.")
@click.option("--team", help="Only those of this team.")
@where
@AS_JSON
def list_(file: Path, database: str | None, org: str | None, team: str | None, as_json: bool) -> None:
    """List keys, with what is said of each.

    \b
    Examples
      penstock key list
      penstock key list --org acme --json
    """

    async def ask(service: Tenancy) -> list[Any]:
        return await all_pages(lambda after: service.keys(org, team, after, _PAGE))()

    found = tenancy(file, database, ask)
    if as_json:
        tell_json([plain(one) for one in found])
        return
    tell_table([(one.id, _said(one)) for one in found], "There are no such keys.")


@key.command()
@click.argument("key_id")
@where
@AS_JSON
def show(key_id: str, file: Path, database: str | None, as_json: bool) -> None:
    """Say what a key may do, with what it has from its team and its organisation.

    \b
    Example
      penstock key show web
    """
    one = tenancy(file, database, lambda service: service.key(key_id))
    if as_json:
        tell_json(plain(one))
        return
    facts = _said(one) | {"where": one.where}
    facts |= {name: _EVERYTHING.get(name, "none") if value in (None, "") else value for name, value in _effect(one)}
    tell_facts({"id": one.id, **facts, "digest": one.digest})


@key.command()
@click.argument("key_id")
@access
@click.option("--clear", "cleared", multiple=True, metavar="OPTION", help="An option to take away; repeat for more.")
@where
@AS_JSON
def change(
    key_id: str,
    cleared: tuple[str, ...],
    file: Path,
    database: str | None,
    as_json: bool,
    **options: str | tuple[str, ...] | None,
) -> None:
    """Change options of a key in the database; the others stay.

    \b
    Examples
      penstock key change web --model chat --model embed
      penstock key change web --clear expires --budget '$100/month'
    """
    entry = given(options) | {name.replace("-", "_"): None for name in cleared}
    one = tenancy(file, database, lambda service: service.change_key(actor(), key_id, entry), changes=True)
    _tell_changed(one, as_json)


@key.command()
@click.argument("key_id")
@click.option("--overlap", default="7d", show_default=True, help="How long the old key goes on working.")
@where
@AS_JSON
def rotate(key_id: str, overlap: str, file: Path, database: str | None, as_json: bool) -> None:
    """Make a new secret for a key, and print it once.

    Both secrets work until the overlap is over, so that callers can change without a gap. `--overlap 0s` ends the old
    one at once.

    \b
    Examples
      penstock key rotate web
      penstock key rotate web --overlap 30d
    """
    from penstock.cli.config_file import load_file
    from penstock.config.units import instant, seconds
    from penstock.core.clock import SystemClock

    try:
        span = seconds(overlap)
        until = instant(SystemClock.wall() + span) if span else ""
    except (ValueError, OverflowError):
        raise click.UsageError("--overlap is a duration with its unit, such as 12h or 7d") from None
    config = load_file(file)
    if (declared := next((one for one in _keys(config) if one.id == key_id), None)) is not None:
        key_in_file.rotate(declared, config, until, as_json)
        return
    made = tenancy(file, database, lambda service: service.rotate_key(actor(), key_id, span), changes=True)
    works = f"the old one works until {made.key.previous_until}" if span else "the old one works no more"
    _tell_new(made, as_json, f"It is let in as `{key_id}` from now on; {works}.")


@key.command()
@click.argument("key_id")
@where
@AS_JSON
def revoke(key_id: str, file: Path, database: str | None, as_json: bool) -> None:
    """Revoke a key, for good. Its callers are told that it was revoked.

    To take the line of a key out of the configuration file revokes it too; its callers are then told that it is not
    known.

    \b
    Example
      penstock key revoke web
    """
    from penstock.cli.config_file import load_file
    from penstock.config.units import instant
    from penstock.core.clock import SystemClock

    if (declared := next((one for one in _keys(load_file(file)) if one.id == key_id), None)) is not None:
        key_in_file.revoke(declared, instant(SystemClock.wall()), as_json)
        return
    one = tenancy(file, database, lambda service: service.revoke_key(actor(), key_id), changes=True)
    if as_json:
        tell_json(plain(one))
        return
    click.echo(f"`{key_id}` is revoked since {one.revoked}.")


@key.command("import")
@click.argument("export", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--org", default="", help="The organisation that they will belong to.")
@click.option("--team", default="", help="The team of that organisation.")
@where
@AS_JSON
def import_(export: Path, org: str, team: str, file: Path, database: str | None, as_json: bool) -> int:
    """Take keys over from LiteLLM: their callers go on with the keys they have.

    EXPORT is what LiteLLM's `/key/list?return_full_object=true` answers, or rows of its table of virtual keys as a JSON
    list or JSON Lines. It keeps the SHA-256 of each key, which is all that is needed. Limits and budgets come along
    where there is the same here, and begin anew; what does not is listed.

    Exit code 0: all were taken. 1: some were left out, each with the reason.

    \b
    Example
      penstock key import litellm-keys.json --org acme
    """
    from penstock.control.litellm_keys import import_keys, rows_of
    from penstock.control.tenants import Refused
    from penstock.core.clock import SystemClock

    try:
        rows = rows_of(export.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{export} cannot be read: {error}") from None
    except Refused as error:
        raise Mistake(f"{export} {error.message}") from None
    done = tenancy(
        file,
        database,
        lambda service: import_keys(service, actor(), rows, org, team, SystemClock.wall()),
        changes=True,
    )
    if as_json:
        tell_json(done)
        return 1 if done.skipped else 0
    click.echo(f"{len(done.ids):,} of {len(rows):,} keys were taken.")
    for one in done.skipped:
        click.echo(f"Left out: {one.name or f'row {one.row}'}: {one.why}", err=True)
    for id, left in done.lost.items():
        click.echo(f"Not taken of {id}: {', '.join(left)}", err=True)
    return 1 if done.skipped else 0


_PAGE = 500
_EVERYTHING = {"models": "all", "endpoints": "all", "scopes": "all", "networks": "anywhere", "expires": "never"}


def _said(one: KeyView) -> dict[str, Any]:
    facts = plain(one)
    for name in ("id", "where", "digest", "version", "effective"):
        facts.pop(name, None)
    return facts


def _effect(one: KeyView) -> list[tuple[str, Any]]:
    return [] if one.effective is None else [(n, () if v == [] else v) for n, v in one.effective.items()]


def _keys(config: Any) -> Any:
    assert isinstance(config.keys, tuple), "`load` puts the keys of a file in the place of its name"
    return config.keys


def _tell_new(made: NewKey, as_json: bool, what: str) -> None:
    if as_json:
        tell_json({"key": made.secret, **plain(made.key)})
        return
    click.echo(f"{made.secret}\n")
    click.echo(f"Give this key to its owner now; it cannot be shown again. {what}")


def _tell_changed(one: KeyView, as_json: bool) -> None:
    if as_json:
        tell_json(plain(one))
        return
    click.echo(f"{one.id}  {words(_said(one)) or 'everything'}")
