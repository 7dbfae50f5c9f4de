"""What one gateway process knows about a replica. Mutable, single-threaded, one writer: this file's verbs."""

from __future__ import annotations

from typing import Protocol

import msgspec


class ReplicaView(Protocol):
    """What a deciding policy may see of a replica. Read-only by type."""

    @property
    def name(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    @property
    def inflight(self) -> int:
        """Attempts we have open there now. Exact, and ours alone."""
        ...

    @property
    def inflight_tokens(self) -> int:
        """Prompt plus expected output tokens of those attempts."""
        ...

    @property
    def waiting(self) -> int:
        """Queue depth the engine last reported. Stale by up to one probe."""
        ...

    @property
    def kv_used(self) -> float:
        """Fraction of KV blocks in use, 0..1, as last reported."""
        ...

    @property
    def cool_until(self) -> float:
        """It asked to be left alone until then (Retry-After). Clock.now() seconds."""
        ...

    @property
    def rate_limited(self) -> bool:
        """That is because it said 429."""
        ...


class Replica(msgspec.Struct):
    """One addressable process or endpoint of a deployment."""

    name: str
    deployment: str
    ready: bool = True
    inflight: int = 0
    inflight_tokens: int = 0
    waiting: int = 0
    kv_used: float = 0.0
    cool_until: float = 0.0
    rate_limited: bool = False  # that is why it cools

    def started(self, tokens: int) -> None:
        self.inflight += 1
        self.inflight_tokens += tokens

    def ended(self, tokens: int) -> None:
        self.inflight -= 1
        self.inflight_tokens -= tokens
        assert self.inflight >= 0, f"{self.name}: more ends than starts"

    def cool(self, until: float, *, rate_limited: bool) -> None:
        """Leave it alone until then (Clock.now() seconds), and remember whether that is because it said 429."""
        self.cool_until = max(self.cool_until, until)
        self.rate_limited = rate_limited
