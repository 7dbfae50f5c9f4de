"""Where a request may go and how hard to try; and what came of each try."""

from __future__ import annotations

from typing import Literal

import msgspec


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Deployments best first, and how hard to try. All times in seconds."""

    deployments: tuple[str, ...]
    max_attempts: int = 3
    first_token_timeout: float = 30.0  # of one attempt, counted on semantic progress
    idle_timeout: float = 30.0  # between two tokens, likewise
    total_timeout: float = 600.0  # of the whole request, all attempts together
    hedge_after: float | None = None  # without a first token, a second attempt starts beside the first
    backoff_base: float = 0.05
    backoff_cap: float = 2.0
    max_wait: float = 2.0  # for a replica that asked to be left alone; longer, and the caller is told when to come back
    drain: bool = False  # when the caller leaves, let the answer run to its end, for providers that bill it anyway
    on_cut: Literal["error", "continue", "prefix"] = "error"  # when a committed stream breaks

    def for_plain(self) -> Plan:
        """The same for answers that are not streamed: their first token is their whole, so only the total counts."""
        return msgspec.structs.replace(self, first_token_timeout=self.total_timeout, hedge_after=None)


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try at one replica, when it is over. Times are seconds since the request was received."""

    number: int
    replica: str
    ended: str  # "ok", "cancelled", or a `FailureKind`: why it failed
    started_after: float
    first_token_after: float | None
    ended_after: float


OK = "ok"
CANCELLED = "cancelled"
