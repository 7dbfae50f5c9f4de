"""Keys by the thousand: JSON Lines, one key on each line, read a hundred times faster than YAML.

A line that is not plainly right is read again by the reader of YAML, which JSON is part of: it tells what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from penstock.config.problems import ConfigError, Problem
from penstock.config.schema import Key

MAX_CHARACTERS: Final = 1 << 28

_decode: Final = msgspec.json.Decoder(Key).decode


class KeyLines:
    """Where each key of a file stands."""

    def __init__(self, file: str, lines: Sequence[int]) -> None:
        self._file, self._lines = file, lines

    def problem(self, path: tuple[str, ...], message: str) -> Problem:
        """`path` begins with the position of the key."""
        return Problem(self._file, self._lines[int(path[0])], ".".join(path), message)

    def named(self, path: tuple[str, ...]) -> bool:
        """What is named is in the key: a file with something invalid has been refused as a whole."""
        return False


def key_lines(
    text: str, file: str, slow: Callable[[str], tuple[Key | None, Sequence[Problem]]]
) -> tuple[tuple[Key, ...], KeyLines]:
    """`slow` reads one line, and says what is wrong with it. Raises `ConfigError` with what is wrong with any."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError((Problem(file, 1, "", f"has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}"),))
    keys: list[Key] = []
    lines: list[int] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.isspace():
            continue
        key = None
        if "\\" not in line:  # what an escape stands for may be no part of a name, and patterns do not see all of it
            try:
                key = _decode(line)
            except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
                key = None
        if key is None:
            key, found = slow(line)
            n = str(len(keys))
            problems += (Problem(file, number, ".".join(filter(None, (n, one.path))), one.message) for one in found)
            if key is None and not found:
                problems.append(Problem(file, number, n, "is not a key in JSON"))
        if key is not None:
            keys.append(key)
            lines.append(number)
    if problems:
        raise ConfigError(problems)
    return tuple(keys), KeyLines(file, lines)
