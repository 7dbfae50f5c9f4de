"""A mistake in what was asked, told plainly: exit code 2, without the usage lines that click adds for wrong options."""

from __future__ import annotations

from typing import IO, Any

import click


class Mistake(click.ClickException):
    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=file is None)


class Failure(click.ClickException):
    """It was asked rightly and went wrong: exit code 1."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=file is None)
