"""What changed between two planes, in lines for people: shown before a reload takes effect, and after it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.config.spec import DeploymentSpec, KeySpec, ModelSpec, PlaneSpec

MAX_SHOWN: Final = 120  # characters of a value
_OF_THE_WHOLE: Final = (
    "insecure_dev",
    "max_in_flight",
    "responses_retention",
    "responses_max",
    "images_fetch",
    "images_max_bytes",
    "images_timeout",
    "images_hosts",
    "retry_budget_ratio",
    "retry_budget_per_second",
    "probe_interval",
)


def diff(old: PlaneSpec, new: PlaneSpec) -> list[str]:
    """One line per change: `+` added, `-` removed, `~` changed. Empty when both mean the same. Never a secret."""
    lines = [
        *_named("model", _by_name(old.models), _by_name(new.models)),
        *_named("deployment", _by_name(old.deployments), _by_name(new.deployments)),
        *_named("key", _by_id(old.keys), _by_id(new.keys)),
    ]
    for field in _OF_THE_WHOLE:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            lines.append(f"~ {field}: {_shown(before)} -> {_shown(after)}")
    return lines


def _by_name(items: Sequence[ModelSpec | DeploymentSpec]) -> dict[str, dict[str, Any]]:
    return {item.name: dict(_facts(item)) for item in items}


def _by_id(keys: Sequence[KeySpec]) -> dict[str, dict[str, Any]]:
    return {key.id: dict(_facts(key)) for key in keys}


def _facts(item: ModelSpec | DeploymentSpec | KeySpec) -> Iterator[tuple[str, Any]]:
    for field, value in msgspec.structs.asdict(item).items():
        if field == "plan":
            yield from msgspec.structs.asdict(value).items()
        elif field == "replicas":
            yield field, tuple(f"{replica.origin}{replica.base_path}" for replica in value)
            yield "health", tuple(replica.health_path or "off" for replica in value)
        elif field == "sha256":
            yield "the key itself", value
        elif field not in ("name", "id"):
            yield field, value


def _named(what: str, old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    for name, facts in old.items():
        if name not in new:
            yield f"- {what} {name}"
        elif list(facts.items()) != list(new[name].items()):
            for fact, before in facts.items():
                after = new[name][fact]
                if before != after:
                    shown = "changed" if fact == "the key itself" else f"{_shown(before)} -> {_shown(after)}"
                    yield (
                        f"~ {what} {name}: {fact} {shown}"
                        if shown == "changed"
                        else f"~ {what} {name}: {fact}: {shown}"
                    )
    for name, facts in new.items():
        if name not in old:
            main = facts.get("deployments") or facts.get("replicas") or facts.get("tenant")
            yield f"+ {what} {name}" + (f" -> {_shown(main)}" if main else "")


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    text = text or "none"
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
