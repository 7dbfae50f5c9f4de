"""`penstock config`: looks at configuration files without running them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from penstock.cli.config_file import load_file


@click.group()
def config() -> None:
    """Look at configuration files. (`penstock check` says whether one is right.)"""


@config.command()
def schema() -> None:
    """Print the JSON Schema of penstock.yaml, for editors that complete and check.

    \b
    Examples
      penstock config schema > penstock.schema.json
      # then, as the first line of penstock.yaml:
      # yaml-language-server: $schema=./penstock.schema.json
    """
    import msgspec

    from penstock.config.schema import json_schema

    click.echo(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2))


@config.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def diff(old: Path, new: Path) -> int:
    """Say what is different between two files, option by option; comments, order and defaults do not count.

    Exit code 0: they mean the same. 1: they do not. 2: one of them is wrong.

    \b
    Example
      penstock config diff penstock.yaml penstock.new.yaml
    """
    import msgspec

    differences = list(
        _differences("", msgspec.to_builtins(load_file(old)), msgspec.to_builtins(load_file(new))),
    )
    for line in differences:
        click.echo(line)
    if not differences:
        click.echo(f"{old} and {new} mean the same.")
    return 1 if differences else 0


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    """Lines such as `models.chat.max_attempts: 3 -> 5`; what a name stands for is shown in one piece when it is new."""
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
