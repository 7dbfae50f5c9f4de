"""Opens the traces that a `traffic:` block names, for `penstock load` and `penstock simulate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.traffic.source import OpenTrace


def open_trace(beside: Path) -> OpenTrace:
    """Names are relative to the folder `beside`. What it makes raises `Mistake` for what cannot be read."""

    def opened(name: str) -> Sequence[tuple[str, Iterator[str]]]:
        path = beside / name
        files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
        if not files:
            raise Mistake(f"{path} is a folder without *.csv files")
        for file in files:
            if not file.is_file():
                raise Mistake(f"there is no trace {file}")
        return [(str(file), _lines(file)) for file in files]

    return opened


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            yield from lines
    except OSError as error:
        raise Mistake(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{file} is not UTF-8 text") from None
