"""Reads a configuration file for the verbs that look at one. A file that cannot be read is a mistake in what was asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock.config.schema import Config


def load_file(path: Path) -> Config:
    """Raises `ConfigError` for what is in it, `click.UsageError` when there is nothing to read."""
    from penstock.config.load import load

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise click.UsageError(f"there is no {path}. `penstock init` writes one to begin with.") from None
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not UTF-8 text") from None
    return load(text, str(path), lambda name: (path.parent / name).read_text(encoding="utf-8"))
