"""What happens to the attempts of a request, and what is to be done: what goes into `Attempts`, and what comes out."""

from __future__ import annotations

import msgspec

from penstock.core.errors import FailureKind, UpstreamError


# What happened.
class FirstToken(msgspec.Struct, frozen=True, gc=False, tag=True):
    attempt: int


class Failed(msgspec.Struct, frozen=True, gc=False, tag=True):
    attempt: int
    failure: UpstreamError
    wait: float = 0.0  # seconds before any replica would take it again; 0 when another one may take it now


class Suspected(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The replica of that attempt has been left out (`outliers.Ejection`), and it waits there for a first token.

    Another one starts beside it, so that nobody waits for a replica that hangs until a timeout says so.
    """

    attempt: int


class Woke(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A time asked for with `WakeAt` has come. Coming early is harmless."""


# What to do.
class Open(msgspec.Struct, frozen=True, gc=False, tag=True):
    attempt: int


class Cancel(msgspec.Struct, frozen=True, gc=False, tag=True):
    """`failure` says why when the attempt was too slow; None when another one was faster."""

    attempt: int
    failure: FailureKind | None = None


class WakeAt(msgspec.Struct, frozen=True, gc=False, tag=True):
    at: float


class Commit(msgspec.Struct, frozen=True, gc=False, tag=True):
    """From here on the caller receives this attempt's tokens: if it breaks, nothing can help but `Attempts.broke`."""

    attempt: int


class GiveUp(msgspec.Struct, frozen=True, gc=False, tag=True):
    failure: UpstreamError


Event = FirstToken | Failed | Suspected | Woke
Action = Open | Cancel | WakeAt | Commit | GiveUp
