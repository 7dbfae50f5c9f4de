"""Organisation, team, key: what a key may do in the end, when each has narrowed what is around it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias, TypeVar

from msgspec.structs import replace

from penstock.config import limits
from penstock.config.limit_options import OwnBudget, OwnLimits
from penstock.config.problems import nearest
from penstock.config.schema import Access, Config, Key
from penstock.config.spec import DigestSpec, GrantSpec, KeySpec
from penstock.config.units import unix_seconds
from penstock.core.money import read_nanos
from penstock.core.request import Endpoint, Priority
from penstock.limits.limit import Limit

Found: TypeAlias = tuple[tuple[str, ...], str]
T = TypeVar("T")
_EVERYTHING: Final = GrantSpec()


def org_of(key: Key) -> str:
    return key.org or key.tenant


class Grants:
    """The grants of a configuration's keys, each once: keys by the thousand are alike but for their ids."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._around: dict[tuple[str, str], GrantSpec] = {}
        self._numbers: dict[GrantSpec, int] = {}
        self._own: dict[tuple[OwnLimits | None, str | OwnBudget | None], tuple[Limit, ...]] = {}

    def around(self, org: str, team: str) -> GrantSpec:
        """What a key of this team has without options of its own."""
        found = self._around.get((org, team))
        if found is None:
            found = GrantSpec(org=org, team=team)
            if (organisation := self._config.organisations.get(org)) is not None:
                found = narrowed(found, organisation)
                if (access := organisation.teams.get(team)) is not None:
                    found = narrowed(found, access)
            self._around[org, team] = found
        return found

    def of(self, key: Key) -> GrantSpec:
        grant = self.around(org_of(key), key.team)
        if has_options(key):
            grant = narrowed(grant, key)
        if key.limits is None and key.budget is None:
            return grant
        own = self._own.get((key.limits, key.budget))
        if own is None:
            own = self._own[key.limits, key.budget] = limits.own_of_key(key)
        return replace(grant, own=own)

    def key(self, key: Key) -> KeySpec:
        """What a worker must know of it. The grant is one of `table`."""
        grant = self.of(key)
        number = None if grant == _EVERYTHING else self._numbers.setdefault(grant, len(self._numbers))
        digest = key.hmac or key.sha256
        assert digest is not None, "`load` refuses a key without a digest"
        previous = None
        if key.previous is not None:
            old = key.previous
            was = old.hmac or old.sha256
            assert was is not None, "`load` refuses a key without a digest"
            previous = DigestSpec(was, old.hmac is not None, unix_seconds(old.until))
        return KeySpec(key.id, digest, number, key.hmac is not None, previous)

    def table(self) -> tuple[GrantSpec, ...]:
        """In the order of their numbers."""
        return tuple(self._numbers)


def has_options(access: Access) -> bool:
    """Any that narrow what is around it: limits and budgets do not, they hold beside those."""
    return any(getattr(access, option) is not None for option in _OPTIONS)


_OPTIONS: Final = tuple(name for name in Access.__struct_fields__ if name not in ("limits", "budget"))


def narrowed(around: GrantSpec, access: Access) -> GrantSpec:
    """What is allowed both there and here; for times the narrower, for the priority what is said here."""
    endpoints = None if access.endpoints is None else tuple(map(Endpoint, access.endpoints))
    return GrantSpec(
        org=around.org,
        team=around.team,
        models=_both(around.models, access.models),
        endpoints=_both(around.endpoints, endpoints),
        scopes=_both(around.scopes, access.scopes),
        networks=_overlap(around.networks, access.networks),
        not_before=_one_of(max, around.not_before, access.not_before),
        expires=_one_of(min, around.expires, access.expires),
        revoked=_one_of(min, around.revoked, access.revoked),
        priority=around.priority if access.priority is None else Priority(access.priority),
        max_cost=_cheaper(around.max_cost, access.max_cost),
    )


def network(text: str) -> IPv4Network | IPv6Network:
    """Raises `ValueError` for what is no network, or names one by an address inside it."""
    return ip_network(text)


def check(config: Config) -> Iterator[Found]:
    """What is wrong with organisations, teams and what they allow; keys are for `check_keys`."""
    nobody = GrantSpec()
    for name, organisation in config.organisations.items():
        here = ("organisations", name)
        yield from _access(here, organisation, nobody, "", config)
        within = Grants(config).around(name, "") if _readable(organisation) else nobody
        for team, access in organisation.teams.items():
            yield from _access((*here, "teams", team), access, within, f"organisation `{name}`", config)


def check_keys(config: Config, keys: Iterable[Key], named: Callable[[tuple[str, ...]], bool]) -> Iterator[Found]:
    """Whom each belongs to, what that allows, and its digest. `named` as for `checks.check`."""
    grants = Grants(config)
    usable = all(
        _readable(one)
        for organisation in config.organisations.values()
        for one in (organisation, *organisation.teams.values())
    )
    declared = config.organisations
    for i, key in enumerate(keys):
        path = ("keys", str(i))
        org = org_of(key)
        if key.tenant and key.org:
            yield (*path, "tenant"), "is the old name of `org`, which is here too; remove it"
        if key.team and not org:
            yield (*path, "team"), "needs `org`: a team is part of an organisation"
        if declared and org and org not in declared:
            option = "org" if key.org else "tenant"
            yield (*path, option), f"names `{org}`, which is not under `organisations`.{nearest(org, declared)}"
        elif declared and key.team and org in declared and key.team not in declared[org].teams:
            near = nearest(key.team, declared[org].teams)
            yield (*path, "team"), f"names `{key.team}`, which is not a team of `{org}`.{near}"
        yield from _digest(path, key.sha256, key.hmac, config, named)
        if key.previous is not None:
            yield from _digest((*path, "previous"), key.previous.sha256, key.previous.hmac, config, named)
            yield from _instant((*path, "previous", "until"), key.previous.until)
        if key.limits is not None or key.budget is not None or key.max_cost is not None:
            yield from limits.check_own(path, key)
        if has_options(key):
            around = grants.around(org, key.team) if usable else _EVERYTHING
            whose = f"team `{key.team}`" if key.team else f"organisation `{org}`"
            yield from _access(path, key, around, whose, config)


def _digest(
    path: tuple[str, ...],
    sha256: str | None,
    hmac: str | None,
    config: Config,
    named: Callable[[tuple[str, ...]], bool],
) -> Iterator[Found]:
    if (sha256 is None) == (hmac is None):
        if sha256 is None and (named((*path, "sha256")) or named((*path, "hmac"))):
            return  # it was invalid, which has been told
        yield (
            path,
            "needs exactly one of `sha256` and `hmac`, the key's digest (`penstock key create --in-file` prints it)",
        )
    elif hmac is not None and config.keys_pepper is None and not named(("keys_pepper",)):
        yield (*path, "hmac"), "cannot be checked without `keys_pepper`, the secret that it was made with"


def _access(path: tuple[str, ...], access: Access, around: GrantSpec, whose: str, config: Config) -> Iterator[Found]:
    for j, name in enumerate(access.models or ()):
        here = (*path, "models", str(j))
        if around.models is not None and name not in around.models and name in config.models:
            yield here, f"names `{name}`, which {whose} may not use"
    for j, name in enumerate(access.endpoints or ()):
        here = (*path, "endpoints", str(j))
        if name not in _ENDPOINTS:
            yield here, f"names `{name[:64]}`, which is not an endpoint.{nearest(name, _ENDPOINTS)}"
        elif around.endpoints is not None and name not in around.endpoints:
            yield here, f"names `{name}`, which {whose} may not use"
    for j, scope in enumerate(access.scopes or ()):
        if around.scopes is not None and scope not in around.scopes:
            yield (*path, "scopes", str(j)), f"names `{scope}`, which {whose} does not have"
    for j, text in enumerate(access.networks or ()):
        here = (*path, "networks", str(j))
        if (wrong := wrong_network(text)) is not None:
            yield here, wrong
        elif around.networks is not None and not _overlap(around.networks, (text,)):
            yield here, f"is outside of where {whose} may be"
    for option in ("not_before", "expires", "revoked"):
        if (instant := getattr(access, option)) is not None:
            yield from _instant((*path, option), instant)


def wrong_network(text: str) -> str | None:
    """What to say about it; None when it is one."""
    try:
        network(text)
    except ValueError:
        try:
            return f"is an address in a network; the network is {ip_network(text, strict=False)}"
        except ValueError:
            return f"is not an address or a network: `{text}`"
    return None


def _instant(path: tuple[str, ...], text: str) -> Iterator[Found]:
    if not _in_calendar(text):
        yield path, f"is not in the calendar: `{text}`"


def _in_calendar(text: str) -> bool:
    try:
        unix_seconds(text)
    except (ValueError, OverflowError):
        return False
    return True


def _readable(access: Access) -> bool:
    """Whether it can be narrowed by: what is wrong in it is told where it stands, once."""
    return (
        all(name in _ENDPOINTS for name in access.endpoints or ())
        and all(wrong_network(text) is None for text in access.networks or ())
        and all(_in_calendar(text) for text in (access.not_before, access.expires, access.revoked) if text is not None)
        and not any(limits.check_own((), access))
    )


_ENDPOINTS: Final = frozenset(map(str, Endpoint))


def _both(around: tuple[T, ...] | None, here: tuple[T, ...] | None) -> tuple[T, ...] | None:
    if around is None or here is None:
        return here if around is None else around
    return tuple(one for one in here if one in around)


def _overlap(around: tuple[str, ...] | None, here: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Of two networks either one holds the other or they are apart, so what is in both is the smaller ones."""
    if around is None or here is None:
        return here if around is None else around
    found: dict[str, None] = {}
    for inner in here:
        for outer in around:
            a, b = network(inner), network(outer)
            if a.version == b.version and a.overlaps(b):
                found[inner if a.prefixlen >= b.prefixlen else outer] = None
    return tuple(found)


def _cheaper(around: int | None, here: str | None) -> int | None:
    if here is None:
        return around
    return read_nanos(here) if around is None else min(around, read_nanos(here))


def _one_of(narrower: Callable[[float, float], float], around: float | None, here: str | None) -> float | None:
    if here is None:
        return around
    return unix_seconds(here) if around is None else narrower(around, unix_seconds(here))
