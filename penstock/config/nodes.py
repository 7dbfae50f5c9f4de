"""YAML text to a tree that knows its lines. Bounded: a small hostile file cannot become a large tree or a deep stack.

Scalars stay as they are written, so that `off`, `no` and `1e5` mean what the option they belong to says they mean.
The tree is built from the parser's events and not by PyYAML's composer, which recurses.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
import yaml

from penstock.config.problems import ConfigError, Problem

MAX_CHARACTERS: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_NODES: Final = 100_000

# libyaml parses ten times faster; not every build of PyYAML has it
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Scalar(msgspec.Struct, frozen=True):
    text: str
    plain: bool  # without quotes
    line: int

    @property
    def absent(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


class Sequence(msgspec.Struct):
    items: list[Node]
    line: int


class Mapping(msgspec.Struct):
    """`entries` in the order of the file, names as written; a name may be there twice, and may be `<<`."""

    entries: list[tuple[Scalar, Node]]
    line: int


Node: TypeAlias = Scalar | Sequence | Mapping


def parse(text: str, file: str) -> Node:
    """The only document of `text`. Aliases share their node, which may so contain itself. Raises `ConfigError`."""
    if len(text) > MAX_CHARACTERS:
        raise _error(file, 1, f"the file has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise _error(file, line, "this is not text that UTF-8 can express; save the file as UTF-8") from None
    try:
        return _Tree(file).build(text)
    except yaml.MarkedYAMLError as error:
        # Never PyYAML's own rendering: it quotes the file, which may hold a secret that does not belong there.
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise _error(file, line, f"this is not YAML: {told}") from None
    except yaml.reader.ReaderError as error:
        raise _error(file, 1, f"this is not YAML: {error.reason}") from None


class _Tree:
    def __init__(self, file: str) -> None:
        self._file = file
        self._anchors: dict[str, Node] = {}
        # innermost last, and of a mapping the name that waits for its value
        self._open: list[tuple[Sequence | Mapping, Scalar | None]] = []
        self._root: Node | None = None

    def build(self, text: str) -> Node:
        n_nodes = n_documents = 0
        for event in yaml.parse(text, Loader=_PARSER):
            line = 1 if event.start_mark is None else event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                n_documents += 1
                if n_documents > 1:
                    raise _error(self._file, line, "a second document begins here; write one document per file")
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open.pop()
            elif isinstance(event, yaml.NodeEvent):
                n_nodes += 1
                if n_nodes > MAX_NODES:
                    raise _error(self._file, line, f"more than {MAX_NODES:,} values begin in this file")
                node = self._node(event, line)
                self._put(node, line)
                if isinstance(event, yaml.CollectionStartEvent) and isinstance(node, Sequence | Mapping):
                    self._open.append((node, None))
                    if len(self._open) > MAX_DEPTH:
                        raise _error(self._file, line, f"nested deeper than {MAX_DEPTH} levels")
        if self._root is None:
            raise _error(self._file, 1, "the file is empty")
        return self._root

    def _node(self, event: yaml.NodeEvent, line: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            found = self._anchors.get(event.anchor or "")
            if found is None:
                raise _error(
                    self._file, line, f"`*{event.anchor}` stands for nothing: there is no `&{event.anchor}` above it"
                )
            return found
        assert isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent)
        if event.tag not in (None, "!"):
            raise _error(self._file, line, f"tags such as `{event.tag}` have no meaning here; remove it")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(event.value, event.implicit[0], line)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Sequence([], line)
        else:
            node = Mapping([], line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _put(self, node: Node, line: int) -> None:
        if not self._open:
            self._root = node
        else:
            parent, name = self._open[-1]
            if isinstance(parent, Sequence):
                parent.items.append(node)
            elif name is not None:
                parent.entries.append((name, node))
                self._open[-1] = (parent, None)
            elif isinstance(node, Scalar):
                self._open[-1] = (parent, node if node.line == line else Scalar(node.text, node.plain, line))
            else:
                raise _error(self._file, line, "a name is expected here, not a list or a mapping")


def _error(file: str, line: int, message: str) -> ConfigError:
    return ConfigError((Problem(file, line, "", message),))
