"""Tool names as an upstream allows them. Callers' names may be longer, or have dots and slashes in them (MCP servers');
the upstream sees a name it takes, and its answer is told with the caller's.

What a name becomes depends only on the request, so whoever writes the request and whoever reads the answer may each
build their own.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import count
from typing import Final, Self

import xxhash

from penstock.wire.canonical import Ask, ToolCall

_ODD: Final = re.compile(r"[^a-zA-Z0-9_-]")
_DIGEST: Final = 8  # hex digits of xxh32: two names that meet in them are told apart by trying again


class ToolNames:
    """Names out and home again, one to one.

    `pattern` is what the upstream takes (`limit` characters at most); it must take letters, digits, `_` and `-`, and
    may be stricter only about the first. Legal names stay as they are.
    """

    __slots__ = ("_home", "_legal", "_limit", "_outward", "_pattern")

    def __init__(self, names: Collection[str] = (), *, limit: int = 64, pattern: str = r"[a-zA-Z0-9_-]+") -> None:
        self._limit, self._pattern = limit, pattern
        self._legal: re.Pattern[str] | None = None  # most requests name no tool
        self._outward: dict[str, str] = {}
        self._home: dict[str, str] = {}
        for name in sorted(names, key=self._takes, reverse=True):  # legal names first: nobody can have taken theirs
            self.outward(name)

    @classmethod
    def of(cls, ask: Ask, *, limit: int = 64, pattern: str = r"[a-zA-Z0-9_-]+") -> Self:
        """The names in a request: of its tools, then of the calls in its history."""
        names = [tool.name for tool in ask.tools]
        names += [part.name for message in ask.messages for part in message.parts if isinstance(part, ToolCall)]
        return cls(names, limit=limit, pattern=pattern)

    def outward(self, name: str) -> str:
        """The caller's name, as the upstream is to see it."""
        known = self._outward.get(name)
        if known is not None:
            return known
        out = name
        if not self._takes(name) or name in self._home:
            stem = _ODD.sub("_", name)
            stem = stem if stem[:1].isalpha() else f"_{stem}"
            stem = stem[: self._limit - _DIGEST - 1]
            out = next(out for n in count() if (out := f"{stem}_{_digest(name, n)}") not in self._home)
        self._outward[name], self._home[out] = out, name
        return out

    def home(self, name: str) -> str:
        """The upstream's name, as the caller knows it; a name that was never sent stays as it is."""
        return self._home.get(name, name)

    def _takes(self, name: str) -> bool:
        if self._legal is None:
            self._legal = re.compile(self._pattern)
        return len(name) <= self._limit and self._legal.fullmatch(name) is not None


def _digest(name: str, attempt: int) -> str:
    return xxhash.xxh32_hexdigest(name.encode("utf-8", "surrogatepass"), seed=attempt)
