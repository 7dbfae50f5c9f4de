"""Stores for one process, gone with it."""

from __future__ import annotations

from typing import Final

from penstock.stores.base import Responses, StoredResponse

MAX_BYTES: Final = 256 * 1024 * 1024


class MemoryResponses:
    """At most `max_bytes` of bodies and inputs, whatever their number."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[tuple[str, str], StoredResponse] = {}  # oldest first
        self._bytes = 0

    async def put(self, response: StoredResponse, most: int) -> None:
        self._drop((response.owner, response.id))
        size = _size(response)
        if size > self._max_bytes:
            return
        self._kept[response.owner, response.id] = response
        self._bytes += size
        while len(self._kept) > most or self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        found = self._kept.get((owner, id))
        if found is not None and found.expires_at <= now:
            self._drop((owner, id))
            return None
        return found

    async def delete(self, owner: str, id: str) -> bool:
        return self._drop((owner, id))

    def close(self) -> None:
        self._kept.clear()
        self._bytes = 0

    def _drop(self, key: tuple[str, str]) -> bool:
        gone = self._kept.pop(key, None)
        if gone is None:
            return False
        self._bytes -= _size(gone)
        return True


def _size(response: StoredResponse) -> int:
    return len(response.body) + len(response.input)


_: type[Responses] = MemoryResponses
