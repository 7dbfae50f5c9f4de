"""What changed between two planes, in lines for people: shown before a reload takes effect, and after it did."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from penstock.config.limits import most_of, said
from penstock.config.queue import told
from penstock.config.spec import DeploymentSpec, GrantSpec, KeySpec, ModelSpec, Notify, PlaneSpec
from penstock.config.units import instant
from penstock.core.money import show
from penstock.pricing.options import PriceOptions
from penstock.resilience.options import NO_REPLICA
from penstock.routing.spec import RoutingSpec

MAX_SHOWN: Final = 120  # characters of a value
MAX_KEYS: Final = 100  # lines about keys
_SECRET: Final = ("the key itself", "the key before it")
_OF_THE_WHOLE: Final = (
    "insecure_dev",
    "max_in_flight",
    "keys_pepper",
    "timezone",
    "cost_tags",
    "ledger_retention",
    "trusted_proxies",
    "responses_retention",
    "responses_max",
    "images_fetch",
    "images_max_bytes",
    "images_timeout",
    "images_hosts",
    "shed",
    "retry_budget_ratio",
    "retry_budget_per_second",
    "probe_interval",
    "telemetry",
)


def diff(old: PlaneSpec, new: PlaneSpec) -> list[str]:
    """One line per change: `+` added, `-` removed, `~` changed. Empty when both mean the same. Never a secret."""
    lines = [
        *_named("model", _by_name(old.models), _by_name(new.models)),
        *_named("deployment", _by_name(old.deployments), _by_name(new.deployments)),
        *_keys(old, new),
        *_limits(old, new),
        *_queue(old, new),
    ]
    for field in _OF_THE_WHOLE:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            lines.append(f"~ {field}: {_shown(before)} -> {_shown(after)}")
    return lines


def _queue(old: PlaneSpec, new: PlaneSpec) -> Iterator[str]:
    for (whose, before), (_, after) in zip(told(old.queue), told(new.queue), strict=True):
        if before != after:
            yield f"~ queue, {whose}: {before} -> {after}"


def _by_name(items: Sequence[ModelSpec | DeploymentSpec]) -> dict[str, dict[str, Any]]:
    return {item.name: dict(_facts(item)) for item in items}


def _keys(old: PlaneSpec, new: PlaneSpec) -> Iterator[str]:
    """Only of keys that are not the same, of which there may be a hundred thousand."""
    before, after = ({key.id: (key, _grant(plane, key)) for key in plane.keys} for plane in (old, new))
    changed = {id for id in before.keys() | after.keys() if not _same(before.get(id), after.get(id))}
    lines = list(
        _named(
            "key",
            {id: _facts_of_key(*known) for id, known in before.items() if id in changed},
            {id: _facts_of_key(*known) for id, known in after.items() if id in changed},
        )
    )
    yield from lines[:MAX_KEYS]
    if len(lines) > MAX_KEYS:
        yield f"... and {len(lines) - MAX_KEYS:,} more changes of keys"


def _limits(old: PlaneSpec, new: PlaneSpec) -> Iterator[str]:
    """As many as there are keys, perhaps."""
    before, after = ({limit.name: limit for limit in plane.limits} for plane in (old, new))
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    for name in changed[:MAX_KEYS]:
        if name not in after:
            yield f"- limit {name}"
        elif name not in before:
            yield f"+ limit {name}: {said(after[name])}"
        else:
            yield f"~ limit {name}: {said(before[name])} -> {said(after[name])}"
    if len(changed) > MAX_KEYS:
        yield f"... and {len(changed) - MAX_KEYS:,} more changes of limits"
    for name in {**old.thresholds, **new.thresholds}:
        was, now = old.thresholds.get(name, Notify()), new.thresholds.get(name, Notify())
        if was.shares != now.shares:
            yield f"~ limit {name}: somebody is told at: {_shares(was)} -> {_shares(now)}"
        if was.webhook != now.webhook:
            yield f"~ limit {name}: webhook changed"  # the address may be a secret


def _shares(notify: Notify) -> str:
    return ", ".join(f"{share}%" for share in notify.shares) or "nothing"


_Known: TypeAlias = tuple[KeySpec, GrantSpec]


def _grant(plane: PlaneSpec, key: KeySpec) -> GrantSpec:
    return GrantSpec() if key.grant is None else plane.grants[key.grant]


def _same(one: _Known | None, other: _Known | None) -> bool:
    """The number of a grant says nothing between planes."""
    if one is None or other is None:
        return one is other
    return one[1] == other[1] and msgspec.structs.replace(one[0], grant=other[0].grant) == other[0]


def _facts_of_key(key: KeySpec, grant: GrantSpec) -> dict[str, Any]:
    facts = msgspec.structs.asdict(grant)
    for option in ("not_before", "expires", "revoked"):
        if facts[option] is not None:
            facts[option] = instant(facts[option])
    facts["limits"] = tuple(most_of(limit) for limit in facts.pop("own"))
    if facts["max_cost"] is not None:
        facts["max_cost"] = show(facts["max_cost"])
    digest, old = (key.digest, key.peppered), key.previous
    return {"the key itself": digest, "the key before it": old, "until": old and instant(old.until), **facts}


def _facts(item: ModelSpec | DeploymentSpec) -> Iterator[tuple[str, Any]]:
    for field, value in msgspec.structs.asdict(item).items():
        if field == "plan":
            yield from msgspec.structs.asdict(value).items()
        elif field == "replicas":
            yield field, tuple(f"{replica.origin}{replica.base_path}" for replica in value)
            yield "health", tuple(replica.health_path or "off" for replica in value)
            yield "metrics", tuple(replica.metrics_path or "off" for replica in value)
        elif field == "price":
            yield field, tuple(msgspec.json.encode(_price(one)).decode() for one in value)
        elif field == "routing":
            said = {} if value is None else msgspec.structs.asdict(value)
            yield "routing", tuple(name for name, one in said.items() if one)
            for name in RoutingSpec.__struct_fields__:
                yield f"routing.{name}", _brief(said.get(name))
        elif field == "degrade":
            yield field, tuple(f"{step.name} from {_level(step.at)}" for step in value)
        elif field == "max_tokens":
            policy = {} if value is None else msgspec.structs.asdict(value)
            yield field, tuple(f"{name} {n}" for name, n in policy.items() if n is not None)
        elif field != "name":
            yield field, value


def _level(saturation: float) -> str:
    return "no replica" if saturation == NO_REPLICA else f"{saturation:.0%}"


def _brief(value: Any) -> str | None:
    """All of it where that is short, else what tells it from others: a classifier has thousands of numbers."""
    if value is None:
        return None
    text = msgspec.json.encode(value).decode()
    if len(text) <= MAX_SHOWN:
        return text
    return f"{text[: MAX_SHOWN // 2]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


_NO_PRICE: Final = PriceOptions()


def _price(options: PriceOptions) -> dict[str, Any]:
    """What was written."""
    given = {
        name: value
        for name in options.__struct_fields__
        if (value := getattr(options, name)) != getattr(_NO_PRICE, name)
    }
    if options.tiers:
        tiers = [msgspec.structs.asdict(tier) for tier in options.tiers]
        given["tiers"] = [{name: value for name, value in tier.items() if value is not None} for tier in tiers]
    return given


def _named(what: str, old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    for name, facts in old.items():
        if name not in new:
            yield f"- {what} {name}"
        elif list(facts.items()) != list(new[name].items()):
            for fact, before in facts.items():
                after = new[name][fact]
                if before != after:
                    if fact in _SECRET:
                        yield f"~ {what} {name}: {fact} changed"
                    else:
                        yield f"~ {what} {name}: {fact}: {_shown(before)} -> {_shown(after)}"
    for name, facts in new.items():
        if name not in old:
            main = facts.get("deployments") or facts.get("replicas") or facts.get("org")
            yield f"+ {what} {name}" + (f" -> {_shown(main)}" if main else "")


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):  # a rule: what is not as usual
        usual = type(value)()
        said = msgspec.structs.asdict(value)
        text = ", ".join(f"{name} {one}" for name, one in said.items() if one != getattr(usual, name)) or "as usual"
    else:
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    text = text or "none"
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
