"""Finds stop strings in text that arrives in pieces, and holds back what could still become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Pure. `feed` gives out text that is certainly not part of a stop string; `found` says that one came."""

    __slots__ = ("_held", "_stops", "found")

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises `ValueError` for an empty stop string, which would stop everything."""
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """The text that may be shown now. After a stop string was found there is none."""
        if not self._stops:
            return text
        if self.found is not None:
            return ""
        self._held += text
        hits = [(index, stop) for stop in self._stops if (index := self._held.find(stop)) >= 0]
        if hits:
            # The earliest, and of two that begin together the longer, as the text itself would show.
            index, self.found = min(hits, key=lambda hit: (hit[0], -len(hit[1])))
            shown, self._held = self._held[:index], ""
            return shown
        keep = max(self._partial(stop) for stop in self._stops)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def finish(self) -> str:
        """What is still held back when no more text comes."""
        shown, self._held = self._held, ""
        return shown

    def _partial(self, stop: str) -> int:
        """How many characters at the end of the held text are the beginning of `stop`."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0
