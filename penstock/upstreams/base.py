"""What an upstream is, and what carries its bytes.

Streams call back instead of being awaited: several attempts can be under way without a task each, a chunk costs no
future, and letting go of one never has to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from penstock.core.errors import UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Endpoint, Request, Usage
from penstock.wire.readings import Reading
from penstock.wire.so_far import How, SoFar


class Listener(Protocol):
    """Who waits for the first token. Exactly one of the two is called, once, and never from inside `Upstream.open`."""

    def on_first_token(self) -> None:
        """The answer has begun to mean something (a plain answer: it is whole)."""
        ...

    def on_failed(self, failure: UpstreamError) -> None: ...

    def traceparent(self) -> bytes:
        """What the upstream is told of the trace that it is part of (W3C Trace Context); b"": nothing."""
        ...


class Sink(Protocol):
    """Where a committed stream goes."""

    @property
    def on_events(self) -> Callable[[bytes], None]:
        """Takes whole events, to be passed on as they are."""
        ...

    def on_end(self, failure: UpstreamError | None) -> None:
        """Once, last. None: the upstream said that its answer is whole."""
        ...


class Stream(Protocol):
    """An answer on its way."""

    progressed_at: float
    """When something that means anything last came. Clock.now() seconds."""

    @property
    def reading(self) -> Reading:
        """What was read so far."""
        ...

    content_type: bytes
    """For the caller."""

    lost: tuple[str, ...]
    """The caller's fields that the translation of the request left out, because the configuration says so."""

    @property
    def plain(self) -> bytes | None:
        """The whole answer, when it is not streamed. Known at the first token."""
        ...

    @property
    def finish_reason(self) -> str | None: ...

    def usage(self) -> tuple[Usage, UsageSource]:
        """What it cost so far."""
        ...

    def relay(self, sink: Sink) -> None:
        """Give what was held back, and every event as it comes from now on. May call `on_end` before it returns."""
        ...

    def pause(self) -> None:
        """Read no more for now: the caller is slow."""
        ...

    def resume(self) -> None: ...

    def close(self) -> None:
        """Let go, at once, in any state; again is harmless. An unfinished answer aborts its connection."""
        ...


class Upstream(Protocol):
    @property
    def endpoints(self) -> frozenset[Endpoint]:
        """What it can answer, itself or by translation."""
        ...

    def goes_on(self, endpoint: Endpoint, how: How) -> bool:
        """Whether it could go on with an answer that broke off elsewhere. `endpoint` is one of `endpoints`."""
        ...

    def open(self, request: Request, listener: Listener, now: float, so_far: SoFar | None = None) -> Stream:
        """Send it; `so_far` only where the answer may be gone on with if it breaks, or goes on with another.

        Raises `PenstockError` when the request cannot be said to this upstream, and `UpstreamError` when there is no
        valid credential; then nothing was sent.
        """
        ...


class Call(Protocol):
    """One exchange on a transport."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


class Transport(Protocol):
    """What carries a request to one origin and calls the receiver back: `http.client.Pool`, or a fake.

    `receiver` has `on_head(status, headers)`, `on_data(data, ended)` and `on_failure(error)`, none of which is called
    from inside `send`.
    """

    host: bytes  # the value of the Host header for its origin

    def send(self, prefix: bytes, extra: bytes, body: bytes, receiver: Any) -> Call: ...

    def close(self) -> None: ...
