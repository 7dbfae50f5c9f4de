"""What each route of the admin API does. Who asks has been found out and may, before any of this runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec

from penstock.config.load import load
from penstock.config.problems import ConfigError, Problem
from penstock.config.schema import Config, Role
from penstock.config.units import DURATION_PATTERN, instant, seconds, unix_seconds
from penstock.console.bodies import ConfigText, ForgetUser, LitellmKeys
from penstock.console.desk import Desk
from penstock.console.masked import Masked
from penstock.console.reports import Shown
from penstock.console.roles import ROLES, Principal
from penstock.console.through import Through
from penstock.control.litellm_keys import import_keys
from penstock.control.tenancy import MOST, USUAL, Tenancy
from penstock.control.tenants import Fault, Invalid, Page
from penstock.control.users import Users
from penstock.core.clock import Clock
from penstock.http.server import Exchange
from penstock.stores.audit import Broken, SqlAuditLog, Verified
from penstock.stores.costs import Costs, Question
from penstock.stores.ledger import Attribute, Total

MAX_CONFIG: Final = 256 * 1024  # characters
_MONTH: Final = 30 * 86_400.0
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
MOST_PROBLEMS: Final = 50

T = TypeVar("T")


class Watch(Protocol):
    """Who looks after objectives."""

    def slos(self) -> list[dict[str, Any]]:
        """As /console/api/overview has them."""
        ...

    def alerts(self) -> list[dict[str, Any]]:
        """Those that fire, and those that ended within a day; the newest first."""
        ...


class ConfigView(Protocol):
    """Who knows what is served."""

    masked: Masked

    def shown(self) -> Shown: ...


class Use(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much of a limit or a budget somebody has used; money in nano-dollars."""

    who: str
    used: int
    amount: int


Usage: TypeAlias = Callable[[], Awaitable[Mapping[str, tuple[Use, ...]]]]


class House(msgspec.Struct, frozen=True):
    """What the acts work with. `usage` answers who used how much of each limit, by the limit's name. The last four are
    the console's: what the gateway does, a way to it, what it is configured by, and who looks after its objectives.
    """

    tenancy: Tenancy
    users: Users
    audit: SqlAuditLog
    costs: Costs
    config: Callable[[], Config]
    clock: Clock
    openapi: Callable[[], bytes]
    usage: Usage | None = None
    desk: Desk | None = None
    gateway: Through | None = None
    shown: ConfigView | None = None
    watch: Watch | None = None


class Asked(msgspec.Struct, frozen=True):
    """One request. `body` is a JSON object, {} where there is none; `version` is that of `if-match`."""

    principal: Principal
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    version: int | None = None
    gateway_key: bytes = b""  # of `x-penstock-key`: what the gateway is shown in their name
    still: Callable[[], bool] = lambda: True  # whether they may still look; for answers that go on

    def into(self, type: type[T]) -> T:
        """The body. Raises `Invalid`."""
        try:
            return msgspec.convert(dict(self.body), type)
        except msgspec.ValidationError as error:
            message, _, at = str(error).partition(" - at `$")
            raise Invalid(Fault(at.strip("`.") or "", message)) from None

    @property
    def by(self) -> str:
        return self.principal.name


class Body(msgspec.Struct, frozen=True):
    """The value of an answer that is not JSON. `headers` are whole lines, trusted."""

    data: bytes
    content_type: bytes
    headers: bytes = b""


class Flowing(msgspec.Struct, frozen=True):
    """The value of an answer that goes on: `run` answers the exchange by itself."""

    run: Callable[[Exchange], Awaitable[None]]


class Answer(msgspec.Struct, frozen=True):
    """`version` becomes the `etag`."""

    value: Any
    version: int | None = None


class Me(msgspec.Struct, frozen=True):
    name: str
    role: Role
    org: str
    may: tuple[str, ...]


class LimitView(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    is_budget: bool
    options: dict[str, Any]
    used: tuple[Use, ...] | None = None  # the most used first; without it, nobody could say


# A value for each attribute that was asked for, and the ledger's sums. Token classes do not overlap.
CostView: Final[Any] = msgspec.defstruct(
    "CostView",
    [
        ("group", dict[str, str | int | None]),
        *((one.name, one.type) for one in msgspec.structs.fields(Total) if one.name != "group"),
    ],
    frozen=True,
)


class CostsView(msgspec.Struct, frozen=True):
    """`items`, the most expensive first, and `others` together are `total`; `others` stands for `n_others` groups.
    `missing` are ranges of time whose rows were let go and would have been needed; `since`: only from then on, because
    before there are too many rows to read while somebody waits."""

    items: tuple[CostView, ...]
    n_others: int
    others: CostView
    total: CostView
    missing: tuple[tuple[str, str], ...]
    since: str | None = None


class Verification(msgspec.Struct, frozen=True, omit_defaults=True):
    """`seq` is the last row, or with `why` the first that is not what it was."""

    whole: bool
    seq: int
    head: str = ""
    why: str = ""


class Forgotten(msgspec.Struct, frozen=True):
    """Rows that a gateway has not written yet are not among them: repeat it when they are."""

    user_hash: str
    rows: int


class Checked(msgspec.Struct, frozen=True):
    good: bool
    problems: tuple[Problem, ...]


async def me(house: House, asked: Asked) -> Answer:
    one = asked.principal
    return Answer(Me(one.name, one.role, one.org, tuple(sorted(ROLES[one.role]))))


async def openapi(house: House, asked: Asked) -> Answer:
    return Answer(msgspec.Raw(house.openapi()))


async def list_organisations(house: House, asked: Asked) -> Answer:
    return Answer(await house.tenancy.tenants(None, asked.query.get("after", ""), _most(asked)))


async def list_teams(house: House, asked: Asked) -> Answer:
    return Answer(await house.tenancy.tenants(asked.path["org"], asked.query.get("after", ""), _most(asked)))


async def show_tenant(house: House, asked: Asked) -> Answer:
    view = await house.tenancy.tenant(asked.path["org"], asked.path.get("team", ""))
    return Answer(view, view.version)


async def create_organisation(house: House, asked: Asked) -> Answer:
    entry = dict(asked.body)
    view = await house.tenancy.create_tenant(asked.by, _name(entry.pop("org", None), "org"), "", entry)
    return Answer(view, view.version)


async def create_team(house: House, asked: Asked) -> Answer:
    entry = dict(asked.body)
    team = _name(entry.pop("team", None), "team")
    view = await house.tenancy.create_tenant(asked.by, asked.path["org"], team, entry)
    return Answer(view, view.version)


async def change_tenant(house: House, asked: Asked) -> Answer:
    org, team = asked.path["org"], asked.path.get("team", "")
    view = await house.tenancy.change_tenant(asked.by, org, team, asked.body, asked.version)
    return Answer(view, view.version)


async def revoke_tenant(house: House, asked: Asked) -> Answer:
    org, team = asked.path["org"], asked.path.get("team", "")
    view = await house.tenancy.revoke_tenant(asked.by, org, team, asked.version)
    return Answer(view, view.version)


async def list_keys(house: House, asked: Asked) -> Answer:
    query = asked.query
    return Answer(await house.tenancy.keys(query.get("org"), query.get("team"), query.get("after", ""), _most(asked)))


async def show_key(house: House, asked: Asked) -> Answer:
    view = await house.tenancy.key(asked.path["id"])
    return Answer(view, view.version)


async def create_key(house: House, asked: Asked) -> Answer:
    made = await house.tenancy.create_key(asked.by, asked.body)
    return Answer(made, made.key.version)


async def change_key(house: House, asked: Asked) -> Answer:
    view = await house.tenancy.change_key(asked.by, asked.path["id"], asked.body, asked.version)
    return Answer(view, view.version)


async def rotate_key(house: House, asked: Asked) -> Answer:
    overlap = asked.body.get("overlap", "7d")
    if unknown := [name for name in asked.body if name != "overlap"]:
        raise Invalid(Fault(unknown[0][:64], "is not an option; there is `overlap`"))
    if not isinstance(overlap, str) or re.fullmatch(DURATION_PATTERN.strip("^$"), overlap) is None:
        raise Invalid(Fault("overlap", "must be a duration with its unit, such as 12h or 7d"))
    made = await house.tenancy.rotate_key(asked.by, asked.path["id"], seconds(overlap), asked.version)
    return Answer(made, made.key.version)


async def revoke_key(house: House, asked: Asked) -> Answer:
    view = await house.tenancy.revoke_key(asked.by, asked.path["id"], asked.version)
    return Answer(view, view.version)


async def import_litellm(house: House, asked: Asked) -> Answer:
    wanted = asked.into(LitellmKeys)
    now = house.clock.wall()
    return Answer(await import_keys(house.tenancy, asked.by, wanted.keys, wanted.org, wanted.team, now))


async def limits(house: House, asked: Asked) -> Answer:
    config = house.config()
    used = {} if house.usage is None else await house.usage()
    views = [
        LimitView(name, is_budget, {k: v for k, v in msgspec.to_builtins(one).items() if v is not None}, used.get(name))
        for is_budget, group in ((False, config.limits), (True, config.budgets))
        for name, one in group.items()
    ]
    return Answer(Page(tuple(views)))


async def costs(house: House, asked: Asked) -> Answer:
    query, now = asked.query, house.clock.wall()
    by = _attributes(query.get("by", ""))
    since = _moment(query, "since", now - _MONTH)
    until = _moment(query, "until", now)
    only = tuple((Attribute(name), (query[name],)) for name in ("org", "team") if name in query)
    try:
        question = Question(by, int(since * 1e6), int(until * 1e6), only, most=_most(asked))
    except ValueError as error:
        raise Invalid(Fault("since", str(error))) from None
    found = await house.costs.sums(question)
    missing = tuple((instant(since / 1e6), instant(until / 1e6)) for since, until in found.missing)

    def view(total: Total) -> CostView:
        sums = msgspec.structs.asdict(total)
        return CostView(dict(zip(map(str, by), sums.pop("group"), strict=False)), **sums)

    items = tuple(map(view, found.groups))
    return Answer(CostsView(items, found.n_others, view(found.others), view(found.total), missing))


async def audit(house: House, asked: Asked) -> Answer:
    most = _most(asked)
    events = await house.audit.events(_number(asked.query, "after", 0), most + 1)
    more = str(events[most - 1].seq) if len(events) > most else None
    return Answer(Page(tuple(events[:most]), more))


async def verify(house: House, asked: Asked) -> Answer:
    seen = None
    if "seq" in asked.query or "head" in asked.query:
        seen = Verified(_number(asked.query, "seq", 0), asked.query.get("head", ""))
    found = await house.audit.verify(seen)
    if isinstance(found, Broken):
        return Answer(Verification(False, found.seq, why=found.why))
    return Answer(Verification(True, found.seq, found.head))


async def forget_user(house: House, asked: Asked) -> Answer:
    wanted = asked.into(ForgetUser)
    if (wanted.user_hash is None) == (wanted.user is None):
        raise Invalid(Fault("", "needs exactly one of `user_hash` and `user`"))
    hashed = wanted.user_hash if wanted.user is None else house.users.hash(wanted.user, wanted.org)
    assert hashed is not None, "one of the two is there"
    return Answer(Forgotten(hashed, await house.users.forget(asked.by, hashed)))


async def check_config(house: House, asked: Asked) -> Answer:
    text = asked.into(ConfigText).text
    if len(text) > MAX_CONFIG:
        raise Invalid(Fault("text", f"has more than {MAX_CONFIG:,} characters"))
    try:
        await asyncio.to_thread(load, text, "penstock.yaml")
    except ConfigError as error:
        return Answer(Checked(False, error.problems[:MOST_PROBLEMS]))
    return Answer(Checked(True, ()))


def _most(asked: Asked) -> int:
    most = _number(asked.query, "most", USUAL)
    if not 1 <= most <= MOST:
        raise Invalid(Fault("most", f"must be from 1 to {MOST}"))
    return most


def _number(query: Mapping[str, str], name: str, usual: int) -> int:
    text = query.get(name)
    if text is None:
        return usual
    if _NUMBER.fullmatch(text) is None or not text.isascii():
        raise Invalid(Fault(name, "must be a whole number"))
    return int(text)


def _moment(query: Mapping[str, str], name: str, usual: float) -> float:
    text = query.get(name)
    if text is None:
        return usual
    try:
        return unix_seconds(text)
    except (ValueError, OverflowError):
        raise Invalid(Fault(name, "must be a day such as 2027-01-31, or a time such as 2027-01-31T18:00:00Z")) from None


def _attributes(text: str) -> tuple[Attribute, ...]:
    names = [name for name in text.split(",") if name]
    known = [str(one) for one in Attribute]
    for name in names:
        if name not in known:
            raise Invalid(Fault("by", f"names something that costs are not told by; there are {', '.join(known)}"))
    if len(set(names)) != len(names):
        raise Invalid(Fault("by", "names something a second time"))
    return tuple(map(Attribute, names))


def _name(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise Invalid(Fault(at, "is missing" if value is None else "must be a text"))
    return value
