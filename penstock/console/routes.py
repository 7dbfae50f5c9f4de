"""The table of the admin API: one row per method and path, with who may use it and whose things it reaches.

Everything else is made from it: what is served, who is refused, the OpenAPI document, and the tests that walk it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Final, Literal

import msgspec

from penstock.config.schema import Access
from penstock.console import acts
from penstock.console.acts import Answer, Asked, House
from penstock.console.bodies import (
    ConfigText,
    ForgetUser,
    KeyWanted,
    LitellmKeys,
    NewOrganisation,
    NewTeam,
    Rotation,
)
from penstock.console.roles import Act
from penstock.control.litellm_keys import Imported
from penstock.control.tenants import KeyView, NewKey, TenantView
from penstock.stores.audit import Event

PREFIX: Final = "/admin/v1"


class Of(Enum):
    """Whose things a route reaches, which decides whether somebody who sees one organisation may use it."""

    ANYBODY = "nobody's things"
    HOUSE = "everybody's: not for those who see one organisation"
    PATH = "those of `{org}` in the path"
    KEY = "those of the key `{id}`"
    QUERY = "those of `org` in the query, which is theirs when they do not say it"
    BODY = "those of `org` in the body, likewise"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """`body`: what must be sent, as the document describes it; what it may hold is for the service to say.
    `with_budgets`: who may only change what may be spent may use it for that."""

    method: Literal["GET", "POST", "PATCH"]
    path: str  # after PREFIX
    act: Act
    of: Of
    summary: str
    run: Callable[[House, Asked], Awaitable[Answer]]
    body: Any = None
    answer: Any
    pages: bool = False  # `answer` is one of its items
    query: Mapping[str, str] = {}
    status: int = 200
    with_budgets: bool = False
    greets: bool = False  # whoever shows nothing is answered null, and no refusal
    flows: bool = False  # its answer is no JSON: a `Body` or a `Flowing`

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.path.strip("/").split("/"))


_PAGE: Final = {"after": "`next` of the page before.", "most": "Items of a page, from 1 to 500; 100 without it."}
_WHO: Final = {"org": "Only of this organisation.", "team": "Only of this team."}
_TEAM: Final = "/orgs/{org}/teams/{team}"

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET", path="/me", act=Act.LOOK, of=Of.ANYBODY, summary="Who you are here, and what you may do.",
        run=acts.me, answer=acts.Me,
    ),
    Route(
        method="GET", path="/openapi.json", act=Act.LOOK, of=Of.ANYBODY, summary="This document.",
        run=acts.openapi, answer=dict[str, Any],
    ),
    Route(
        method="GET", path="/orgs", act=Act.SEE_TENANTS, of=Of.HOUSE, summary="Organisations, by name.",
        run=acts.list_organisations, answer=TenantView, pages=True, query=_PAGE,
    ),
    Route(
        method="POST", path="/orgs", act=Act.RUN_TENANTS, of=Of.HOUSE, summary="Make an organisation.",
        run=acts.create_organisation, body=NewOrganisation, answer=TenantView, status=201,
    ),
    Route(
        method="GET", path="/orgs/{org}", act=Act.SEE_TENANTS, of=Of.PATH, summary="An organisation.",
        run=acts.show_tenant, answer=TenantView,
    ),
    Route(
        method="PATCH", path="/orgs/{org}", act=Act.RUN_TENANTS, of=Of.PATH, with_budgets=True,
        summary="Change options of an organisation; null takes one away.",
        run=acts.change_tenant, body=Access, answer=TenantView,
    ),
    Route(
        method="POST", path="/orgs/{org}/revoke", act=Act.RUN_TENANTS, of=Of.HOUSE,
        summary="Revoke all keys of an organisation, for good.", run=acts.revoke_tenant, answer=TenantView,
    ),
    Route(
        method="GET", path="/orgs/{org}/teams", act=Act.SEE_TENANTS, of=Of.PATH, summary="Its teams, by name.",
        run=acts.list_teams, answer=TenantView, pages=True, query=_PAGE,
    ),
    Route(
        method="POST", path="/orgs/{org}/teams", act=Act.RUN_TENANTS, of=Of.PATH, summary="Make a team.",
        run=acts.create_team, body=NewTeam, answer=TenantView, status=201,
    ),
    Route(
        method="GET", path=_TEAM, act=Act.SEE_TENANTS, of=Of.PATH, summary="A team.",
        run=acts.show_tenant, answer=TenantView,
    ),
    Route(
        method="PATCH", path=_TEAM, act=Act.RUN_TENANTS, of=Of.PATH, with_budgets=True,
        summary="Change options of a team; null takes one away.",
        run=acts.change_tenant, body=Access, answer=TenantView,
    ),
    Route(
        method="POST", path=f"{_TEAM}/revoke", act=Act.RUN_TENANTS, of=Of.PATH,
        summary="Revoke all keys of a team, for good.", run=acts.revoke_tenant, answer=TenantView,
    ),
    Route(
        method="GET", path="/keys", act=Act.SEE_TENANTS, of=Of.QUERY, summary="Keys, by id; never the keys themselves.",
        run=acts.list_keys, answer=KeyView, pages=True, query=_PAGE | _WHO,
    ),
    Route(
        method="POST", path="/keys", act=Act.RUN_TENANTS, of=Of.BODY,
        summary="Make a key. It is told in this answer and never again.",
        run=acts.create_key, body=KeyWanted, answer=NewKey, status=201,
    ),
    Route(
        method="GET", path="/keys/{id}", act=Act.SEE_TENANTS, of=Of.KEY,
        summary="A key, and what it may do with what it has from its team and organisation.",
        run=acts.show_key, answer=KeyView,
    ),
    Route(
        method="PATCH", path="/keys/{id}", act=Act.RUN_TENANTS, of=Of.KEY, with_budgets=True,
        summary="Change options of a key; null takes one away.", run=acts.change_key, body=Access, answer=KeyView,
    ),
    Route(
        method="POST", path="/keys/{id}/rotate", act=Act.RUN_TENANTS, of=Of.KEY,
        summary="Another secret for a key; the old one works on for a while.",
        run=acts.rotate_key, body=Rotation, answer=NewKey,
    ),
    Route(
        method="POST", path="/keys/{id}/revoke", act=Act.RUN_TENANTS, of=Of.KEY, summary="Revoke a key, for good.",
        run=acts.revoke_key, answer=KeyView,
    ),
    Route(
        method="POST", path="/imports/litellm", act=Act.RUN_TENANTS, of=Of.BODY,
        summary="Take keys over from LiteLLM: their callers go on with the keys they have.",
        run=acts.import_litellm, body=LitellmKeys, answer=Imported,
    ),
    Route(
        method="GET", path="/limits", act=Act.SEE_COSTS, of=Of.HOUSE,
        summary="Limits and budgets of the configuration file, and how much of each is used.",
        run=acts.limits, answer=acts.LimitView, pages=True,
    ),
    Route(
        method="GET", path="/costs", act=Act.SEE_COSTS, of=Of.QUERY,
        summary="What was used and what it cost, the most expensive first. Money in nano-dollars.",
        run=acts.costs, answer=acts.CostsView,
        query={
            "by": "Attributes, with commas: org, team, key_id, model, deployment, feature, day, hour...",
            "since": "A day or a time; 30 days ago without it.",
            "until": "Likewise; now without it.",
            "most": "Groups, from 1 to 500; 100 without it. The rest is told as others.",
            **_WHO,
        },
    ),
    Route(
        method="GET", path="/audit", act=Act.SEE_AUDIT, of=Of.HOUSE, summary="Administrative acts, in their order.",
        run=acts.audit, answer=Event, pages=True, query=_PAGE,
    ),
    Route(
        method="GET", path="/audit/verify", act=Act.SEE_AUDIT, of=Of.HOUSE,
        summary="Whether the audit log is what was written. `seq` and `head`, kept elsewhere, can be shown later.",
        run=acts.verify, answer=acts.Verification, query={"seq": "Of an earlier answer.", "head": "Likewise."},
    ),
    Route(
        method="POST", path="/users/forget", act=Act.FORGET_USERS, of=Of.HOUSE,
        summary="Take a user out of the ledger; what was used stays counted.",
        run=acts.forget_user, body=ForgetUser, answer=acts.Forgotten,
    ),
    Route(
        method="POST", path="/config/check", act=Act.CHECK_CONFIG, of=Of.HOUSE,
        summary="What is wrong with a configuration file, if anything. Nothing is changed.",
        run=acts.check_config, body=ConfigText, answer=acts.Checked,
    ),
)  # fmt: skip
