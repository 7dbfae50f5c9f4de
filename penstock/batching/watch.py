"""Who wants to know what a prefix cache holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class CacheWatcher(Protocol):
    """Told of every change, in order."""

    def remembered(self, digest: bytes, previous: bytes | None, tokens: Sequence[int], salt: bytes) -> None:
        """A block can be found by `digest` now. `previous`: the digest before it; None: a prompt begins here."""
        ...

    def forgotten(self, digest: bytes) -> None: ...
