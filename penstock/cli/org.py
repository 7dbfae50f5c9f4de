"""`penstock org` and `penstock team`: whom keys belong to, and what all keys of one may do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
)

if TYPE_CHECKING:
    from penstock.control.tenancy import Tenancy
    from penstock.control.tenants import TenantView

_CLEAR = click.option(
    "--clear", "cleared", multiple=True, metavar="OPTION", help="An option to take away; repeat for more."
)
_ORG = click.argument("org")
_TEAM = click.argument("team")


@click.group()
def org() -> None:
    """Make, list, change and revoke organisations. Each narrows what its teams and keys may do."""


@click.group()
def team() -> None:
    """Make, list, change and revoke teams, which are parts of an organisation."""


@org.command("create")
@_ORG
@access
@where
@AS_JSON
def create_org(org: str, file: Path, database: str | None, as_json: bool, **options: Any) -> None:
    """Make an organisation.

    \b
    Examples
      penstock org create acme
      penstock org create acme --model chat --budget '$1,000/month'
    """
    _create(org, "", file, database, as_json, options)


@team.command("create")
@_ORG
@_TEAM
@access
@where
@AS_JSON
def create_team(org: str, team: str, file: Path, database: str | None, as_json: bool, **options: Any) -> None:
    """Make a team of an organisation.

    \b
    Example
      penstock team create acme research --limit requests=600/m
    """
    _create(org, team, file, database, as_json, options)


@org.command("list")
@where
@AS_JSON
def list_orgs(file: Path, database: str | None, as_json: bool) -> None:
    """List organisations, with what is said of each.

    \b
    Example
      penstock org list --json
    """
    _list(None, file, database, as_json)


@team.command("list")
@_ORG
@where
@AS_JSON
def list_teams(org: str, file: Path, database: str | None, as_json: bool) -> None:
    """List the teams of an organisation, with what is said of each.

    \b
    Example
      penstock team list acme
    """
    _list(org, file, database, as_json)


@org.command("show")
@_ORG
@where
@AS_JSON
def show_org(org: str, file: Path, database: str | None, as_json: bool) -> None:
    """Say what is said of an organisation.

    \b
    Example
      penstock org show acme
    """
    _show(org, "", file, database, as_json)


@team.command("show")
@_ORG
@_TEAM
@where
@AS_JSON
def show_team(org: str, team: str, file: Path, database: str | None, as_json: bool) -> None:
    """Say what is said of a team.

    \b
    Example
      penstock team show acme research
    """
    _show(org, team, file, database, as_json)


@org.command("change")
@_ORG
@access
@_CLEAR
@where
@AS_JSON
def change_org(
    org: str, cleared: tuple[str, ...], file: Path, database: str | None, as_json: bool, **options: Any
) -> None:
    """Change options of an organisation in the database; the others stay.

    \b
    Example
      penstock org change acme --budget '$2,000/month' --clear models
    """
    _change(org, "", cleared, file, database, as_json, options)


@team.command("change")
@_ORG
@_TEAM
@access
@_CLEAR
@where
@AS_JSON
def change_team(
    org: str, team: str, cleared: tuple[str, ...], file: Path, database: str | None, as_json: bool, **options: Any
) -> None:
    """Change options of a team in the database; the others stay.

    \b
    Example
      penstock team change acme research --clear budget --limit requests=1200/m
    """
    _change(org, team, cleared, file, database, as_json, options)


@org.command("revoke")
@_ORG
@where
@AS_JSON
def revoke_org(org: str, file: Path, database: str | None, as_json: bool) -> None:
    """Revoke all keys of an organisation, for good, and those that it will get.

    \b
    Example
      penstock org revoke acme
    """
    _revoke(org, "", file, database, as_json)


@team.command("revoke")
@_ORG
@_TEAM
@where
@AS_JSON
def revoke_team(org: str, team: str, file: Path, database: str | None, as_json: bool) -> None:
    """Revoke all keys of a team, for good, and those that it will get.

    \b
    Example
      penstock team revoke acme research
    """
    _revoke(org, team, file, database, as_json)


def _create(org: str, team: str, file: Path, database: str | None, as_json: bool, options: dict[str, Any]) -> None:
    entry = given(options)
    made = tenancy(file, database, lambda service: service.create_tenant(actor(), org, team, entry), changes=True)
    _tell(made, as_json)


def _list(org: str | None, file: Path, database: str | None, as_json: bool) -> None:
    async def ask(service: Tenancy) -> list[Any]:
        return await all_pages(lambda after: service.tenants(org, after, 500))()

    found = tenancy(file, database, ask)
    if as_json:
        tell_json([plain(one) for one in found])
        return
    nothing = "There are no organisations." if org is None else f"`{org}` has no teams."
    tell_table([(one.team or one.org, _said(one)) for one in found], nothing)


def _show(org: str, team: str, file: Path, database: str | None, as_json: bool) -> None:
    one = tenancy(file, database, lambda service: service.tenant(org, team))
    if as_json:
        tell_json(plain(one))
        return
    tell_facts({"org": one.org, **({"team": one.team} if one.team else {}), "where": one.where, **_said(one)})


def _change(
    org: str,
    team: str,
    cleared: tuple[str, ...],
    file: Path,
    database: str | None,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    entry = given(options) | {name.replace("-", "_"): None for name in cleared}
    one = tenancy(file, database, lambda service: service.change_tenant(actor(), org, team, entry), changes=True)
    _tell(one, as_json)


def _revoke(org: str, team: str, file: Path, database: str | None, as_json: bool) -> None:
    one = tenancy(file, database, lambda service: service.revoke_tenant(actor(), org, team), changes=True)
    _tell(one, as_json)


def _tell(one: TenantView, as_json: bool) -> None:
    if as_json:
        tell_json(plain(one))
        return
    tell_table([(f"{one.org}/{one.team}" if one.team else one.org, _said(one))], "")


def _said(one: TenantView) -> dict[str, Any]:
    facts = plain(one)
    for name in ("org", "team", "where", "version"):
        facts.pop(name, None)
    return facts
