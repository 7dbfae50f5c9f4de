"""What the gateway asks of whoever carries HTTP: `http.server.Exchange`, its ASGI twin, or a fake."""

from __future__ import annotations

from typing import Protocol


class Flow(Protocol):
    """An answer that goes on by itself, after the handler has returned; it ends with `finish` or `abort`."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...

    def left(self) -> None:
        """The caller has gone. Only when no handler runs any more: one that does is cancelled."""
        ...


class Exchange(Protocol):
    """One request and its answer."""

    method: bytes
    path: bytes
    query: bytes  # without "?"
    body: bytes
    peer: str  # the address of the connection's other end; "" where it has none
    flow: Flow | None  # told when the caller reads slowly, or leaves

    @property
    def started(self) -> bool:
        """Something of the answer has been sent."""
        ...

    def header(self, name: bytes) -> bytes | None: ...

    def values(self, name: bytes) -> list[bytes]:
        """Of all lines under `name`, in order."""
        ...

    def respond(
        self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = b"application/json"
    ) -> None: ...

    def start(
        self, status: int, headers: bytes = b"", content_type: bytes = b"text/event-stream; charset=utf-8"
    ) -> None: ...

    def write(self, data: bytes) -> None: ...

    def finish(self, data: bytes = b"") -> None: ...

    def abort(self) -> None:
        """Close the connection in mid-answer, so that the caller can see that it was cut."""
        ...

    def forget(self) -> None:
        """The request's headers and body are not needed any more: a long answer should not hold them."""
        ...
