"""Writes the pages that are rendered from code. A test fails while a page is not what this would write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from penstock.cli.main import penstock

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100  # characters of a line of help


def cli_page() -> str:
    """docs/cli.md: the help of every verb, as the terminal shows it."""
    lines = [
        "# The command line",
        "",
        "<!-- Written by `make docs` from `penstock --help`; change the docstrings in penstock/cli instead. -->",
        "",
        "| exit code | means |",
        "|---|---|",
        "| 0 | it went well |",
        "| 1 | it went wrong while running, or `check` and `config diff` found something |",
        "| 2 | a mistake in what was asked: an option, the configuration, a port that is taken |",
        "| 130 | stopped with Ctrl-C |",
        "",
        "An error is one or a few lines on stderr that say what to do. `PENSTOCK_DEBUG=1` adds the traceback of an",
        "unexpected one.",
    ]
    for context in verbs(click.Context(penstock, info_name="penstock", **penstock.context_settings)):
        context.terminal_width = context.max_content_width = WIDTH
        text = "\n".join(line.rstrip() for line in context.get_help().splitlines())
        lines += ["", f"## {context.command_path}", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def verbs(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name, inner in context.command.commands.items():
            yield from verbs(click.Context(inner, parent=context, info_name=name))


PAGES = {ROOT / "docs" / "cli.md": cli_page}


def main() -> int:
    for path, page in PAGES.items():
        text = page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
