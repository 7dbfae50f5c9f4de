"""Text of a configuration file to a `Config`, or every problem in it with its line.

The types of `config.schema` say what is expected where; this file walks the tree beside them. msgspec's own decoder is
not used because it stops at the first problem and has never heard of lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping as AnyMapping
from datetime import date
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import inspect

from penstock.config.checks import check
from penstock.config.keys_file import KeyLines, key_lines
from penstock.config.nodes import Mapping, Node, Scalar, Sequence, parse
from penstock.config.problems import ConfigError, Problem, nearest
from penstock.config.routing import classifier_files, with_classifiers
from penstock.config.schema import Config, Key, KeysFile

__all__ = ["ConfigError", "Problem", "load", "load_options"]

MAX_VISITS: Final = 200_000  # of nodes, each alias anew: what an alias bomb would expand to
MAX_VISIT_DEPTH: Final = 64  # an alias may stand for a collection that contains it
MAX_QUOTED: Final = 60  # characters of what was written instead

Path: TypeAlias = tuple[str, ...]
Read: TypeAlias = Callable[[str], str]
T = TypeVar("T")

_DATE: Final = re.compile(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_INT: Final = re.compile(r"^[-+]?[0-9]{1,18}$")
_NUMBER: Final = re.compile(r"^[-+]?[0-9]{1,15}(\.[0-9]{1,15})?$")


def load(text: str, file: str, read: Read | None = None) -> Config:
    """`file` is the name used in messages. `read` gives the text of a file that this one names (`keys: {file: ...}`).

    `read` may raise `OSError` or `UnicodeDecodeError`, which become problems. In the result, keys are always a tuple,
    and classifiers of difficulty are what is in their files.
    Raises `ConfigError`, and nothing else, whatever the text.
    """
    config, reader = _read(text, file, Config)
    problems = list(reader.problems)
    key_reader: _Reader | KeyLines = reader
    if config is not None and isinstance(config.keys, KeysFile):
        keys: tuple[Key, ...] = ()
        name = config.keys.file
        try:
            if read is None:
                raise OSError(0, "this place reads one file only")
            if name.endswith(".jsonl"):
                keys, key_reader = key_lines(read(name), name, _one_key)
            else:
                loaded, listed = _read(read(name), name, tuple[Key, ...])
                keys, key_reader = loaded or (), listed
                problems += listed.problems
        except OSError as error:
            problems.append(reader.problem(("keys", "file"), f"cannot be read: {error.strerror or error}"))
        except UnicodeDecodeError:
            problems.append(reader.problem(("keys", "file"), "is not UTF-8 text"))
        except ConfigError as error:
            problems += error.problems
        config = msgspec.structs.replace(config, keys=keys)

    if config is not None:
        texts: dict[str, str | None] = {}
        for model, name in classifier_files(config).items():
            where = ("models", model, "routing", "difficulty", "classifier")
            texts[model] = None
            try:
                if read is None:
                    raise OSError(0, "this place reads one file only")
                texts[model] = read(name)
            except OSError as error:
                problems.append(reader.problem(where, f"cannot be read: {error.strerror or error}"))
            except UnicodeDecodeError:
                problems.append(reader.problem(where, "is not UTF-8 text"))
        config = with_classifiers(config, texts)

    def apart(path: Path) -> bool:
        return path[0] == "keys" and key_reader is not reader

    if config is not None:
        for path, message in check(
            config, lambda path: key_reader.named(path[1:]) if apart(path) else reader.named(path)
        ):
            problems.append(key_reader.problem(path[1:], message) if apart(path) else reader.problem(path, message))
    if problems:
        raise ConfigError(problems)
    assert config is not None, "no value and no problem"
    return config


def load_options(root: Node, file: str, kind: type[T]) -> T:
    """Options that are no part of the configuration file, walked as it is. Raises `ConfigError`."""
    reader = _Reader(file)
    value = reader.value(root, _type_info(kind), ())  # type: ignore[arg-type]  # mypy doubts that a class has a hash
    if reader.problems:
        raise ConfigError(reader.problems)
    loaded: T = value
    return loaded


def _read(text: str, file: str, kind: type[T]) -> tuple[T | None, _Reader]:
    reader = _Reader(file)
    try:
        root = parse(text, file)
        value = reader.value(root, _type_info(kind), ())  # type: ignore[arg-type]  # mypy doubts that a class has a hash
    except _TooLarge as error:
        raise ConfigError((Problem(file, error.line, "", str(error)),)) from None
    return (None if value is _INVALID else value), reader


def _one_key(line: str) -> tuple[Key | None, tuple[Problem, ...]]:
    """From a line of JSON, which is YAML too."""
    try:
        key, reader = _read(line, "", Key)
    except ConfigError as error:
        return None, error.problems
    return key, tuple(reader.problems)


@cache
def _type_info(kind: type) -> inspect.Type:
    """Takes longer than to read a small file."""
    return inspect.type_info(kind)


class _TooLarge(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


_INVALID: Final[Any] = object()  # a problem has been told; leave the value out and go on


class _Reader:
    """Walks a tree beside a type. What is invalid is told and left out, so that one walk finds everything."""

    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._lines: dict[Path, int] = {(): 1}
        self._visits = 0

    def problem(self, path: Path, message: str) -> Problem:
        """At the line of `path`, or of the nearest thing around it that is in the file."""
        known = path
        while known not in self._lines:
            known = known[:-1]
        return Problem(self._file, self._lines[known], _dotted(path), message)

    def named(self, path: Path) -> bool:
        """Whether the file has something at `path`, be it valid or not."""
        return path in self._lines

    def _tell(self, path: Path, line: int, message: str) -> Any:
        self.problems.append(Problem(self._file, line, _dotted(path), message))
        return _INVALID

    def value(self, node: Node, kind: inspect.Type, path: Path) -> Any:
        """The value that `node` means where `kind` is expected; `_INVALID` when it means nothing there."""
        self._visits += 1
        if self._visits > MAX_VISITS:
            raise _TooLarge(node.line, f"aliases make this file larger than {MAX_VISITS:,} values")
        if len(path) > MAX_VISIT_DEPTH:
            raise _TooLarge(node.line, f"aliases nest deeper than {MAX_VISIT_DEPTH} levels")
        self._lines.setdefault(path, node.line)
        extra: AnyMapping[str, Any] = {}
        if isinstance(kind, inspect.Metadata):
            extra, kind = kind.extra or {}, kind.type
        if isinstance(kind, inspect.UnionType):
            return self._one_of(node, kind, path)
        if isinstance(kind, inspect.StructType):
            return self._struct(node, kind, path)
        if isinstance(kind, inspect.DictType):
            return self._dict(node, kind, extra, path)
        if isinstance(kind, inspect.VarTupleType):
            return self._tuple(node, kind, extra, path)
        return self._scalar(node, kind, extra, path)

    def _one_of(self, node: Node, union: inspect.UnionType, path: Path) -> Any:
        """Members differ in their shape (text, list, mapping, null), so the shape of `node` chooses."""
        kinds = [kind for kind in union.types if not isinstance(kind, inspect.NoneType)]
        if len(kinds) < len(union.types) and isinstance(node, Scalar) and node.absent:
            del self._lines[path]  # `key:` with nothing behind it is the same as no such line
            return None
        for kind in kinds:
            bare = kind.type if isinstance(kind, inspect.Metadata) else kind
            if isinstance(bare, inspect.VarTupleType):
                fits = isinstance(node, Sequence)
            elif isinstance(bare, inspect.StructType | inspect.DictType):
                fits = isinstance(node, Mapping)
            else:
                fits = isinstance(node, Scalar)
            if fits:
                return self.value(node, kind, path)
        if len(kinds) == 1:
            return self.value(node, kinds[0], path)
        shapes = " or ".join(_shape(kind) for kind in kinds)
        return self._tell(path, node.line, f"must be {shapes}, not {_shown(node, {})}")

    def _struct(self, node: Node, struct: inspect.StructType, path: Path) -> Any:
        if not isinstance(node, Mapping):
            names = ", ".join(field.encode_name for field in struct.fields[:4])
            return self._tell(
                path, node.line, f"must be a mapping with {names}..., not {_shown(node, {'secret': True})}"
            )
        fields = {field.encode_name: field for field in struct.fields}
        values: dict[str, Any] = {}
        whole = True
        for name, child, line in self._entries(node, path):
            here = (*path, name)
            self._lines[here] = line
            if (field := fields.get(name)) is None:
                self._tell(here, line, f"is not an option.{nearest(name, fields) or _choices(fields)}")
                continue
            value = self.value(child, field.type, here)
            if value is not _INVALID:
                values[field.name] = value
            elif field.required:
                whole = False
        for name, field in fields.items():
            if field.required and (*path, name) not in self._lines:
                self._tell((*path, name), node.line, "is missing")
                whole = False
        return struct.cls(**values) if whole else _INVALID

    def _dict(self, node: Node, kind: inspect.DictType, extra: AnyMapping[str, Any], path: Path) -> Any:
        if not isinstance(node, Mapping):
            return self._tell(path, node.line, f"must be a mapping of names, not {_shown(node, {'secret': True})}")
        if len(node.entries) < (kind.min_length or 0):
            return self._tell(path, node.line, f"must have {extra['expected']}")
        names = inspect.type_info(extra["names"]) if "names" in extra else kind.key_type
        values: dict[str, Any] = {}
        for name, child, line in self._entries(node, path):
            here = (*path, name)
            self._lines[here] = line
            if self.value(Scalar(name, False, line), names, here) is _INVALID:
                continue
            value = self.value(child, kind.value_type, here)
            if value is not _INVALID:
                values[name] = value
        return values

    def _tuple(self, node: Node, kind: inspect.VarTupleType, extra: AnyMapping[str, Any], path: Path) -> Any:
        if not isinstance(node, Sequence):
            return self._tell(path, node.line, f"must be a list, not {_shown(node, extra)}")
        if len(node.items) < (kind.min_length or 0):
            return self._tell(path, node.line, f"must have {extra.get('expected', 'at least one entry')}")
        if kind.max_length is not None and len(node.items) > kind.max_length:
            return self._tell(path, node.line, f"has {len(node.items)} entries; the limit is {kind.max_length}")
        values = [self.value(child, kind.item_type, (*path, str(i))) for i, child in enumerate(node.items)]
        # all or nothing: what is checked later speaks of entries by their position
        return _INVALID if _INVALID in values else tuple(values)

    def _scalar(self, node: Node, kind: inspect.Type, extra: AnyMapping[str, Any], path: Path) -> Any:
        if not isinstance(node, Scalar) or (node.absent and not extra.get("secret")):
            return self._tell(path, node.line, f"must be {_wanted(kind, extra)}, not {_shown(node, extra)}")
        value = _meaning(node, kind)
        if value is _INVALID:
            if "wrong" in extra:
                return self._tell(path, node.line, extra["wrong"])
            near = nearest(node.text, map(str, kind.values)) if isinstance(kind, inspect.LiteralType) else ""
            return self._tell(
                path, node.line, f"must be {_wanted(kind, extra)}, not {_shown(node, extra)}.{near}".rstrip(".")
            )
        return value

    def _entries(self, node: Mapping, path: Path) -> list[tuple[str, Node, int]]:
        """Names once each, in order, with what `<<` merges in under what is written here (YAML 1.1 merge keys)."""
        entries: dict[str, tuple[Node, int]] = {}
        merged: list[Node] = []
        for name, child in node.entries:
            if name.plain and name.text == "<<":
                merged += child.items if isinstance(child, Sequence) else [child]
            elif name.text in entries:
                first = entries[name.text][1]
                self._tell((*path, name.text), name.line, f"is written twice; it is also on line {first}")
            else:
                entries[name.text] = (child, name.line)
        for source in merged:
            self._visits += 1
            if not isinstance(source, Mapping) or any(name.text == "<<" for name, _ in source.entries):
                self._tell((*path, "<<"), source.line, "must name a mapping, which itself has no `<<`")
                continue
            for name, child in source.entries:
                self._visits += 1
                entries.setdefault(name.text, (child, name.line))
        return [(name, child, line) for name, (child, line) in entries.items()]


def _meaning(node: Scalar, kind: inspect.Type) -> Any:
    """What the text means where `kind` is expected; `_INVALID` when nothing."""
    text = node.text
    if isinstance(kind, inspect.StrType):
        fits = len(text) >= (kind.min_length or 0) and (kind.max_length is None or len(text) <= kind.max_length)
        if kind.pattern is not None:
            fits = fits and re.search(kind.pattern, text) is not None
        # `$` also matches before a final line break, and nothing in this file may have control characters
        return text if fits and text.isprintable() else _INVALID
    if isinstance(kind, inspect.LiteralType):
        return text if text in kind.values else _INVALID
    if isinstance(kind, inspect.BoolType):
        return text == "true" if node.plain and text in ("true", "false") else _INVALID
    if isinstance(kind, inspect.DateType):
        try:
            return date.fromisoformat(text) if _DATE.match(text) else _INVALID
        except ValueError:
            return _INVALID
    assert isinstance(kind, inspect.IntType | inspect.FloatType), f"the schema uses {kind!r}, which nobody here reads"
    whole = isinstance(kind, inspect.IntType)
    if not node.plain or (_INT if whole else _NUMBER).match(text) is None:
        return _INVALID
    number = int(text) if whole else float(text)
    too_small = (kind.ge is not None and number < kind.ge) or (kind.gt is not None and number <= kind.gt)
    too_large = kind.le is not None and number > kind.le
    return _INVALID if too_small or too_large else number


def _wanted(kind: inspect.Type, extra: AnyMapping[str, Any]) -> str:
    if "expected" in extra:
        return str(extra["expected"])
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, inspect.BoolType):
        return "`true` or `false`"
    if isinstance(kind, inspect.DateType):
        return "a day such as 2027-01-31"
    if isinstance(kind, inspect.IntType):
        assert kind.ge is not None, "every number here has bounds"
        assert kind.le is not None, "every number here has bounds"
        return f"a whole number from {kind.ge:,} to {kind.le:,}"
    if isinstance(kind, inspect.FloatType):
        assert kind.le is not None, "every number here has bounds"
        least = f"from {kind.ge:,g}" if kind.ge is not None else f"above {kind.gt:,g}"
        return f"a number {least} to {kind.le:,g}"
    return "a text"


def _shape(kind: inspect.Type) -> str:
    kind = kind.type if isinstance(kind, inspect.Metadata) else kind
    if isinstance(kind, inspect.VarTupleType):
        return "a list"
    if isinstance(kind, inspect.StructType):
        return "a mapping with " + ", ".join(f"`{field.encode_name}`" for field in kind.fields)
    return "a text"


def _shown(node: Node, extra: AnyMapping[str, Any]) -> str:
    """What was written instead, unless it may be a secret."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if node.absent:
        return "nothing"
    if extra.get("secret"):
        return "what is written here"
    text = node.text if len(node.text) <= MAX_QUOTED else node.text[:MAX_QUOTED] + "..."
    return f"`{text}`" if text.isprintable() else ascii(text)


def _choices(fields: AnyMapping[str, inspect.Field]) -> str:
    return " Options here: " + ", ".join(fields) + "."


def _dotted(path: Path) -> str:
    shown = (part if len(part) <= MAX_QUOTED else part[:MAX_QUOTED] + "..." for part in path)
    return ".".join(part if part.isprintable() and part else ascii(part) for part in shown)
