"""What limits and budgets of the file become: one `Limit` for everything that is counted. Pure.

What stands at an organisation, a team or a key is counted for that one alone, under a name that says so: "team
acme/search: requests". A space is in no other name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from msgspec.structs import replace

from penstock.config.limit_options import (
    METERS,
    BudgetOptions,
    LimitOptions,
    OwnBudget,
    OwnLimits,
    Where,
    read_budget,
    read_rate,
)
from penstock.config.problems import nearest
from penstock.config.schema import NO_DATABASE, Access, Config, Key
from penstock.config.spec import Notify, PlaneSpec
from penstock.core.money import read_nanos, show
from penstock.limits.headers import spoken
from penstock.limits.limit import Limit, Meter, Who
from penstock.limits.periods import Period

Path: TypeAlias = tuple[str, ...]
Found: TypeAlias = tuple[Path, str]
Named: TypeAlias = Callable[[Path], bool]
Whom: TypeAlias = tuple[tuple[Who, str], ...]

MOST_NANOS: Final = 2**53 - 1
_METERS: Final = {name: Meter(name.replace("_", " ")) for name in METERS}
_USUAL: Final = Notify()


def limits_of(config: Config) -> tuple[Limit, ...]:
    """Each with a name of its own. Those of single keys are in their grants: keys by the thousand have the same."""
    return tuple(_all(config))


def lookup(
    plane: PlaneSpec, others: Callable[[str], Iterable[Limit]] | None = None
) -> Callable[[str], Iterable[Limit]] | None:
    """For `Rules`: the limits of single keys, by their id. `others` knows those of keys that are not in the plane."""
    grants = [grant.own for grant in plane.grants]
    mine = {key.id: key.grant for key in plane.keys if key.grant is not None and grants[key.grant]}
    if not mine:
        return others

    def own(id: str) -> Iterable[Limit]:
        number = mine.get(id)
        if number is None:
            return () if others is None else others(id)
        whom: Whom = (("key", id),)
        return [replace(limit, name=f"{_called(whom)}: {limit.name}", where=whom) for limit in grants[number]]

    return own


def own_of_key(key: Key) -> tuple[Limit, ...]:
    """For its grant: without the key."""
    return tuple(_own((), ("key",), key))


def thresholds_of(config: Config) -> dict[str, Notify]:
    """By the name of the budget; those that are as usual are left out."""
    found = {name: _notify(budget) for name, budget in config.budgets.items()}
    assert isinstance(config.keys, tuple), "`load` puts the keys of a file in the place of its name"
    around: list[tuple[Whom, Access]] = list(_around_keys(config))
    around += [((("key", key.id),), key) for key in config.keys if key.budget is not None]
    for whom, access in around:
        found[f"{_called(whom)}: budget"] = notify_of(access)
    return {name: notify for name, notify in found.items() if notify != _USUAL}


def notify_of(access: Access) -> Notify:
    """When somebody is told of the budget that stands at an organisation, a team or a key."""
    return _USUAL if access.budget is None else _notify(own_budget(access.budget))


def own_limits(whom: Whom, access: Access) -> Iterator[Limit]:
    """What stands at an organisation (`(("org", "acme"),)`), a team (`(("org", "acme"), ("team", "search"))`) or a key
    (`(("key", "web"),)`)."""
    return _own(whom, tuple([who for who, _ in whom]), access)


def _own(whom: Whom, per: tuple[Who, ...], access: Access) -> Iterator[Limit]:
    called = f"{_called(whom)}: " if whom else ""
    if access.limits is not None:
        for option in _meters(access.limits):
            yield _limit(f"{called}{_METERS[option]}", option, access.limits, per, whom)
    if access.budget is not None:
        yield _budget(f"{called}budget", own_budget(access.budget), per, whom)


def own_budget(written: str | OwnBudget) -> OwnBudget:
    return read_budget(written) if isinstance(written, str) else written


def _called(whom: Whom) -> str:
    return f"{whom[-1][0]} {'/'.join([value for _, value in whom])}"


def _all(config: Config) -> Iterator[Limit]:
    for name, limit in config.limits.items():
        (option,) = _meters(limit)
        yield _limit(name, option, limit, _per(limit), _where(limit.where))
    for name, budget in config.budgets.items():
        yield _budget(name, budget, _per(budget), _where(budget.where))
    for whom, access in _around_keys(config):
        yield from own_limits(whom, access)


def _around_keys(config: Config) -> Iterator[tuple[Whom, Access]]:
    for name, organisation in config.organisations.items():
        yield (("org", name),), organisation
        for team, access in organisation.teams.items():
            yield (("org", name), ("team", team)), access


def _limit(name: str, option: str, options: OwnLimits, per: tuple[Who, ...], where: Whom) -> Limit:
    written = getattr(options, option)
    if option == "concurrent_requests":
        return Limit(name, _METERS[option], written, per=per, where=where, strict=options.strict)
    rate = read_rate(written)
    return Limit(name, _METERS[option], rate.amount, rate.window, per=per, where=where, strict=options.strict)


def _budget(name: str, budget: OwnBudget, per: tuple[Who, ...], where: Whom) -> Limit:
    return Limit(
        name,
        Meter.MONEY,
        _nanos(budget.amount),
        period=Period(budget.every),
        per=per,
        where=where,
        soft=budget.mode == "soft",
    )


_nanos: Final = lru_cache(1_000)(read_nanos)  # keys by the thousand are alike


def _notify(budget: OwnBudget) -> Notify:
    return Notify(tuple(sorted({int(share.rstrip("%")) for share in budget.notify})), budget.webhook)


def _meters(limits: OwnLimits) -> list[str]:
    return [option for option in METERS if getattr(limits, option) is not None]


def _per(options: LimitOptions | BudgetOptions) -> tuple[Who, ...]:
    """A team and a user are one only within their organisation."""
    if options.per == "all":
        return ()
    said: set[Who] = {options.per} if isinstance(options.per, str) else set(options.per)
    if said & {"team", "user"}:
        said.add("org")
    return tuple([who for who in _ORDER if who in said])


_ORDER: Final[tuple[Who, ...]] = ("org", "team", "key", "user", "model")


def _where(where: Where) -> Whom:
    said: list[tuple[Who, str | None]] = [
        ("org", where.org),
        ("team", where.team),
        ("key", where.key),
        ("model", where.model),
    ]
    return tuple([(who, value) for who, value in said if value is not None])


# --- for people ---


def most_of(limit: Limit) -> str:
    """ "600 requests per minute", "$50.00 per month; soft" """
    mode = "; soft" if limit.soft else "; strict" if limit.strict else ""
    return f"{_amount(limit)}{mode}"


def _amount(limit: Limit) -> str:
    if limit.period is None:
        return f"{limit.amount:,} {spoken(limit)}"
    return f"{show(limit.amount)} {'in total' if limit.period is Period.TOTAL else f'per {limit.period}'}"


def said(limit: Limit) -> str:
    """ "600 requests per minute, for each key of organisation acme", "$50.00 per month, for all together; soft" """
    where = dict(limit.where)
    of = [f"{word} {value}" for word, value in _owners(where)]
    with_model = f" with model {where['model']}" if "model" in where else ""
    # an organisation that only tells teams and users apart is not worth a word
    apart = [who for who in limit.per if who not in where and not (who == "org" and {"team", "user"} & {*limit.per})]
    if apart:
        whom = f"for each {' and '.join(apart)}{' of ' if of else ''}{' and '.join(of)}"
    else:
        whom = f"for {' and '.join(of) or 'all together'}"
    mode = "; soft" if limit.soft else "; strict" if limit.strict else ""
    return f"{_amount(limit)}, {whom}{with_model}{mode}"


def _owners(where: Mapping[Who, str]) -> Iterator[tuple[str, str]]:
    if "team" in where:
        yield "team", f"{where['org']}/{where['team']}"
    elif "org" in where:
        yield "organisation", where["org"]
    if "key" in where:
        yield "key", where["key"]


# --- what is wrong ---


def check(config: Config, named: Named) -> Iterator[Found]:
    """Where and what, but for keys. `named` as for `checks.check`."""
    for name, limit in config.limits.items():
        here = ("limits", name)
        meters = _meters(limit)
        if len(meters) != 1 and not any(named((*here, option)) for option in METERS if option not in meters):
            has = f"has {' and '.join(f'`{meter}`' for meter in meters)}" if meters else "has none of them"
            yield here, f"needs exactly one of {', '.join(METERS)}; this {has}"
        yield from _wrong_rates(here, limit)
        yield from _whom(here, limit, config, named)
    for name, budget in config.budgets.items():
        here = ("budgets", name)
        if name in config.limits:
            yield here, "is the name of a limit too; call one of them otherwise"
        yield from _wrong_amount((*here, "amount"), budget.amount)
        yield from _whom(here, budget, config, named)
    for name, organisation in config.organisations.items():
        yield from check_own(("organisations", name), organisation)
        for team, access in organisation.teams.items():
            yield from check_own(("organisations", name, "teams", team), access)


def check_own(here: Path, access: Access) -> Iterator[Found]:
    """What is wrong with `limits`, `budget` and `max_cost` of an organisation, a team or a key."""
    if access.limits is not None:
        yield from _wrong_rates((*here, "limits"), access.limits)
    if access.budget is not None:
        path = (*here, "budget") if isinstance(access.budget, str) else (*here, "budget", "amount")
        yield from _wrong_amount(path, own_budget(access.budget).amount)
    if access.max_cost is not None:
        yield from _wrong_amount((*here, "max_cost"), access.max_cost)


def _wrong_rates(here: Path, limits: OwnLimits) -> Iterator[Found]:
    for option in METERS:
        written = getattr(limits, option)
        if isinstance(written, str):
            try:
                read_rate(written)
            except ValueError as error:
                yield (*here, option), str(error)


def _wrong_amount(path: Path, amount: str) -> Iterator[Found]:
    try:
        nanos = read_nanos(amount)
    except ValueError:
        yield path, "is finer than a nano-dollar, $0.000000001"
        return
    if nanos > MOST_NANOS:
        yield path, f"is more than {show(MOST_NANOS)}, which is not counted exactly"


def _whom(here: Path, options: LimitOptions | BudgetOptions, config: Config, named: Named) -> Iterator[Found]:
    where = options.where
    if not isinstance(options.per, str) and len(set(options.per)) < len(options.per):
        yield (*here, "per"), "names somebody a second time"
    if where.model is not None and not named(("models", where.model)):
        yield _unknown((*here, "where", "model"), where.model, "a model", config.models)
    if where.team is not None and where.org is None:
        yield (*here, "where", "team"), "needs `org` beside it: a team is part of an organisation"
    if config.store.database not in (None, NO_DATABASE):
        return  # which may have keys and organisations of its own
    organisations = config.organisations
    if named(("organisations",)) and where.org is not None:
        if not named(("organisations", where.org)):
            yield _unknown((*here, "where", "org"), where.org, "under `organisations`", organisations)
        elif where.team is not None and not named(("organisations", where.org, "teams", where.team)):
            teams = organisations[where.org].teams if where.org in organisations else ()
            yield _unknown((*here, "where", "team"), where.team, f"a team of `{where.org}`", teams)
    if where.key is not None and (config.keys or not named(("keys",))):  # else they have problems of their own
        ids = {key.id for key in config.keys} if isinstance(config.keys, tuple) else set()
        if where.key not in ids:
            yield _unknown((*here, "where", "key"), where.key, "the id of a key", ids)


def _unknown(path: Path, name: str, what: str, known: Iterable[str]) -> Found:
    return path, f"names `{name[:64]}`, which is not {what}.{nearest(name, known)}"
