"""`penstock migrate`: from another gateway's configuration to Penstock's, with a report of what is not the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.config.litellm.source import Finding

_MEANING: Final = {
    "mapped": "it means the same",
    "approximated": "something like it was written: read what is different",
    "unsupported": "nothing was written for it",
}


@click.group()
def migrate() -> None:
    """Turn another gateway's configuration into a penstock.yaml."""


@migrate.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default=Path("penstock.yaml"),
    show_default=True,
    help="The file to write, which must not be there yet; - is stdout, and the report then goes to stderr.",
)
@click.option(
    "--name", "names", multiple=True, help="A model that a wildcard such as openai/* stands for; repeat for more."
)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object, for scripts.")
def litellm(file: Path, output: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Turn LiteLLM's config.yaml into a penstock.yaml, and report on every setting in it, with its line.

    Keys are never copied: os.environ/NAME becomes env:NAME, and a key that stands in the file itself is given the name
    of a variable to put it into. Addresses that the file takes from the environment are looked up there now.

    Exit code 0: the file is written. 1: there was nothing to write. 2: the file cannot be read, or the output exists.

    \b
    Examples
      penstock migrate litellm config.yaml && penstock check
      penstock migrate litellm config.yaml -o - --name openai/gpt-5-mini
    """
    import msgspec

    from penstock.config.litellm.migrate import migrate as migrated
    from penstock.config.problems import ConfigError

    to_stdout = str(output) == "-"
    try:
        done = migrated(_read(file), str(file), os.environ, names)
    except ConfigError as error:
        raise Mistake(str(error)) from None
    if done.text is not None and not to_stdout:
        _write(output, done.text)
    written = None if done.text is None else str(output)
    if as_json:
        report = {"written": written, "variables": done.variables, "findings": done.findings}
        click.echo(msgspec.json.encode(report), err=to_stdout)
    else:
        for line in _report(str(file), done.findings):
            click.echo(line, err=to_stdout)
        for line in _next(written, done.variables):
            click.echo(line, err=to_stdout)
    if to_stdout and done.text is not None:
        click.echo(done.text, nl=False)
    return 1 if written is None else 0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{file} is not UTF-8 text") from None


def _write(output: Path, text: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise Mistake(f"{output} exists and is left as it is. Name another file with -o, or move it away.") from None
    except OSError as error:
        raise Mistake(f"{output} cannot be written: {error.strerror}") from None


def _report(file: str, findings: Sequence[Finding]) -> Iterator[str]:
    for outcome, meaning in _MEANING.items():
        told = [finding for finding in findings if finding.outcome == outcome]
        if told:
            yield f"{outcome} ({len(told)}): {meaning}"
            for one in told:
                yield f"  {file}:{one.line}: {one.path}: {one.message}"
            yield ""


def _next(written: str | None, variables: Sequence[str]) -> Iterator[str]:
    if written is None:
        yield "Nothing was written: no model of this file could be."
        return
    if written == "-":
        return
    yield f"Wrote {written}."
    if variables:
        yield f"It reads from the environment: {', '.join(variables)}."
    yield f"Next: `penstock check {written}`; `penstock key create` for each caller; then"
    yield f"`penstock serve --config {written} --port 4000`, which is LiteLLM's usual port."
