"""Reads a configuration file for the verbs that look at one. A file that cannot be read is a mistake of who asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.config.schema import Config


def load_file(path: Path) -> Config:
    """Raises `ConfigError` for what is in it, `Mistake` when there is nothing to read."""
    from penstock.config.load import load

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Mistake(f"there is no {path}. `penstock init` writes one to begin with.") from None
    except OSError as error:
        raise Mistake(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{path} is not UTF-8 text") from None
    return load(text, str(path), lambda name: (path.parent / name).read_text(encoding="utf-8"))
