"""What a counter remembers: a few whole numbers, so that they may lie in a list or in memory that processes share.

A row of zeros is a counter of which nothing is known yet.
"""

from __future__ import annotations

from typing import Final

FULL: Final = 2**62  # the most a counter says it holds: a row's numbers are of 64 bits with a sign


Words = list[int] | memoryview  # the latter of format "q"
