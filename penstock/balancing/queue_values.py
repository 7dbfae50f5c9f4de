"""What the central queue says: no, with what a caller needs to know; stop this one; and how full it is."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from penstock.core.request import Priority


class Reason(StrEnum):
    """Why a ticket is refused. The value is its name in logs, metrics and error codes."""

    FULL = "queue_full"
    TIMEOUT = "queue_timeout"
    DEADLINE = "deadline_unreachable"
    NO_REPLICA = "no_replica"


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Spans in seconds. `drain` is how long what waits before it will take, as predicted: when to come back."""

    reason: Reason
    priority: Priority
    depth: int  # tickets of its class that wait
    drain: float
    waited: float = 0.0
    wait: float = 0.0  # of `DEADLINE`: until the first token, as predicted

    def told(self) -> str:
        """In a sentence, for the caller."""
        match self.reason:
            case Reason.FULL:
                why = f"The queue for {self.priority} requests is full ({self.depth:,} wait)"
            case Reason.TIMEOUT:
                why = f"No replica had room within {self.waited:.1f} s ({self.depth:,} {self.priority} requests wait)"
            case Reason.DEADLINE:
                why = f"The first token would come in about {self.wait:.1f} s, which is after this request's deadline"
            case Reason.NO_REPLICA:
                return "No replica of this model can be asked now."
        return f"{why}. What is ahead takes about {self.drain:.1f} s."


class Preempt(msgspec.Struct, frozen=True, gc=False):
    """Stop this ticket's attempt, which has no first token yet, and offer it again: it keeps its place and its age."""

    priority: Priority  # of the ticket that needs its place


class TenantView(msgspec.Struct, frozen=True, gc=False):
    tenant: str
    waiting: int
    oldest: float  # seconds that its oldest ticket has waited
    served: float  # engine seconds per weight since tickets began to wait; only differences mean anything


class ClassView(msgspec.Struct, frozen=True, gc=False):
    priority: Priority
    waiting: int
    oldest: float  # seconds
    drain: float  # seconds until what waits now has been sent, as predicted
    running: int  # sent and not over
    floor: int  # requests that it may always run; 0 while the capacity is not known
    tenants: tuple[TenantView, ...]  # who have most tickets waiting, most first


class QueueView(msgspec.Struct, frozen=True, gc=False):
    waiting: int
    running: int
    slots: int  # requests that the replicas run at once; 0: not known
    classes: tuple[ClassView, ...]  # highest first
