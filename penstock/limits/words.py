"""What a counter remembers: a few whole numbers, so that they may lie in a list or in memory that processes share.

A row of zeros is a counter of which nothing is known yet.
"""

from __future__ import annotations

from typing import Final, Protocol

FULL: Final = 2**62  # the most a counter says it holds: a row's numbers are of 64 bits with a sign


class Words(Protocol):
    """A list, or a `memoryview` of format "q"."""

    def __getitem__(self, at: int, /) -> int: ...

    def __setitem__(self, at: int, value: int, /) -> None: ...
