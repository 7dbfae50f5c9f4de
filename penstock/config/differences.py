"""What is different between two configurations, option by option; comments, order and defaults do not count. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.config.schema import Config


def differences(old: Config, new: Config) -> list[str]:
    """Lines such as `~ models.chat.max_attempts: 3 -> 5`; none where they mean the same."""
    return list(_differences("", msgspec.to_builtins(old), msgspec.to_builtins(new)))


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    """What a name stands for is shown in one piece when it is new."""
    old, new = _by_id(old), _by_id(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            below = f"{path}.{name}" if path else str(name)
            if name not in new:
                yield f"- {below}: {_shown(old[name])}"
            elif name not in old:
                yield f"+ {below}: {_shown(new[name])}"
            else:
                yield from _differences(below, old[name], new[name])
    elif old != new:
        yield f"~ {path}: {_shown(old)} -> {_shown(new)}"


def _by_id(value: Any) -> Any:
    """A list of keys as a mapping, so that one key more does not change all that follow."""
    if isinstance(value, list | tuple) and value and all(isinstance(one, dict) and "id" in one for one in value):
        return {one["id"]: one for one in value}
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{name}: {_shown(part)}" for name, part in value.items() if part not in (None, "", ()))
        return "{" + inner + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(part) for part in value) + "]"
    return "(none)" if value is None else str(value)
