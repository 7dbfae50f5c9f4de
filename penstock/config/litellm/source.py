"""A LiteLLM file as it is read: names, values and lines; and the report of what became of each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.config.nodes import Mapping as MappingNode
from penstock.config.nodes import Node, Scalar, Sequence

Outcome: TypeAlias = Literal["mapped", "approximated", "unsupported"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("mapped", "approximated", "unsupported")

_ENVIRON: Final = "os.environ/"
_VARIABLE: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_TRUE: Final = frozenset({"true", "yes", "on"})


class Finding(msgspec.Struct, frozen=True):
    """What became of one setting. `message` never has a value in it that could be a secret."""

    outcome: Outcome
    line: int  # of the LiteLLM file, from 1
    path: str  # "model_list[0].litellm_params.rpm"
    message: str


class Report:
    """Each finding once, however often it is made."""

    def __init__(self) -> None:
        self._findings: dict[Finding, None] = {}

    def add(self, outcome: Outcome, value: Value, message: str) -> None:
        self._findings[Finding(outcome, value.line, value.path, message)] = None

    def mapped(self, value: Value, message: str) -> None:
        self.add("mapped", value, message)

    def approximated(self, value: Value, message: str) -> None:
        self.add("approximated", value, message)

    def unsupported(self, value: Value, message: str) -> None:
        self.add("unsupported", value, message)

    def rest(self, settings: Settings, told: Mapping[str, tuple[Outcome, str]]) -> None:
        """Say of what nobody took what `told` says of it."""
        for name, value in settings.rest():
            unknown: tuple[Outcome, str] = (
                "unsupported",
                "is not a setting that this command knows; nothing was written for it",
            )
            outcome, message = told.get(name, unknown)
            self.add(outcome, value, message)

    @property
    def length(self) -> int:
        return len(self._findings)

    def back_to(self, length: int) -> None:
        """Forget what was found since there were so many: it turned out to lead nowhere."""
        for finding in list(self._findings)[length:]:
            del self._findings[finding]

    def findings(self) -> tuple[Finding, ...]:
        """In the order of the file."""
        return tuple(sorted(self._findings, key=lambda finding: finding.line))


class Value:
    """Something in the file, with its line and the path that leads to it."""

    __slots__ = ("line", "node", "path")

    def __init__(self, node: Node, path: str, line: int | None = None) -> None:
        self.node, self.path = node, path
        self.line = node.line if line is None else line

    @property
    def text(self) -> str | None:
        """None for what is not a scalar, and for nothing."""
        return self.node.text if isinstance(self.node, Scalar) and not self.node.absent else None

    @property
    def number(self) -> float | None:
        """A number that is not negative, however it is quoted."""
        try:
            number = float(self.text or "")
        except ValueError:
            return None
        return number if 0 <= number < 1e9 else None

    @property
    def true(self) -> bool:
        return (self.text or "").lower() in _TRUE

    @property
    def variable(self) -> str | None:
        """The environment variable that `os.environ/NAME` stands for."""
        text = self.text or ""
        name = text.removeprefix(_ENVIRON)
        return name if name != text and _VARIABLE.match(name) else None

    def items(self) -> list[Value]:
        """Of a list; anything else counts as a list of it."""
        if isinstance(self.node, Sequence):
            return [Value(node, f"{self.path}[{i}]") for i, node in enumerate(self.node.items)]
        return [self] if self.text is not None or isinstance(self.node, MappingNode) else []

    def entries(self) -> dict[str, Value]:
        """Of a mapping, with what `<<` merges in. A name that is written twice has its last value, as in LiteLLM."""
        found: dict[str, Value] = {}
        if isinstance(self.node, MappingNode):
            for source in _merged(self.node):
                for name, node in source.entries:
                    if name.text != "<<":
                        found.setdefault(name.text, Value(node, self._below(name.text), name.line))
            own = {name.text: Value(node, self._below(name.text), name.line) for name, node in self.node.entries}
            own.pop("<<", None)
            found |= own
        return found

    def _below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def _merged(node: MappingNode) -> Iterator[MappingNode]:
    for name, child in node.entries:
        if name.text == "<<":
            for source in child.items if isinstance(child, Sequence) else [child]:
                if isinstance(source, MappingNode):
                    yield source


class Settings:
    """The entries of one mapping, each to be taken once; what nobody takes is reported at the end."""

    def __init__(self, entries: Mapping[str, Value]) -> None:
        self._left = dict(entries)

    @classmethod
    def of(cls, section: Value | None, report: Report) -> Settings:
        """Of a section that may be missing, or not be a mapping, which is told."""
        if section is not None and not isinstance(section.node, MappingNode):
            report.unsupported(section, "must be a mapping; nothing was written for it")
        return cls({} if section is None else section.entries())

    def take(self, name: str) -> Value | None:
        """None when it is not there, or empty."""
        value = self._left.pop(name, None)
        return None if value is None or (isinstance(value.node, Scalar) and value.node.absent) else value

    def rest(self) -> Iterator[tuple[str, Value]]:
        while self._left:
            name = next(iter(self._left))
            yield name, self._left.pop(name)
