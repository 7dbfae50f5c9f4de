"""What is wrong with a configuration file, and where: every problem found, not only the first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import msgspec

MAX_TOLD = 50  # a file with more problems than this has one cause


class Problem(msgspec.Struct, frozen=True):
    """`path` is dotted, "" for the file as a whole; `message` goes on where it ends: "is not an option."."""

    file: str
    line: int  # counted from 1
    path: str
    message: str

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}: {self.path} {self.message}"
            if self.path
            else f"{self.file}:{self.line}: {self.message}"
        )


class ConfigError(Exception):
    """The file cannot be used. `problems` is never empty and is in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
        assert self.problems, "an error must say what is wrong"
        super().__init__(self.problems)

    def __str__(self) -> str:
        told = [str(problem) for problem in self.problems[:MAX_TOLD]]
        if len(self.problems) > MAX_TOLD:
            told.append(f"... and {len(self.problems) - MAX_TOLD} more problems")
        return "\n".join(told)


def nearest(name: str, known: Iterable[str]) -> str:
    """ " Did you mean `x`?" with its leading space, or "" when nothing known is near."""
    found = difflib.get_close_matches(name[:200], list(known), n=1, cutoff=0.6)
    return f" Did you mean `{found[0]}`?" if found else ""
