"""`penstock config`: looks at configuration files without running them."""

from __future__ import annotations

from pathlib import Path

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
    from penstock.config.differences import differences as between

    differences = between(load_file(old), load_file(new))
    for line in differences:
        click.echo(line)
    if not differences:
        click.echo(f"{old} and {new} mean the same.")
    return 1 if differences else 0
