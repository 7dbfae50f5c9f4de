"""What the gateway asks of a store. Every implementation passes the same tests."""

from __future__ import annotations

from typing import Protocol

import msgspec


class StoreFailed(Exception):
    """The store cannot be read or written at the moment. The text is for the operator."""


class StoredResponse(msgspec.Struct, frozen=True):
    """One answer of the Responses API, kept so that it can be asked for again and built upon.

    `owner` is the caller's tenant or, without one, their key: nobody else can find it. Times are Unix seconds.
    """

    id: str
    owner: str
    body: bytes  # the response object
    input: bytes  # the input items, a JSON list
    created_at: float
    expires_at: float


class Responses(Protocol):
    """Bounded: the oldest are forgotten first. Every method may raise `StoreFailed`."""

    async def put(self, response: StoredResponse, most: int) -> None:
        """Keep it, in the place of one with the same id and owner, and at most `most` of all owners together."""
        ...

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        """None when there is none, when it has expired, and when it is somebody else's."""
        ...

    async def delete(self, owner: str, id: str) -> bool:
        """Whether there was one."""
        ...

    def close(self) -> None: ...
