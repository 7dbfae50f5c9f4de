"""The attempts at one deployment's replicas, watched for those that do worse than their like."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Protocol

from penstock.core.errors import FailureKind
from penstock.core.fleet import Replica
from penstock.core.plan import OK
from penstock.resilience.options import Ejection
from penstock.resilience.outliers import Outliers
from penstock.resilience.stalls import Stalls


class Watched(Protocol):
    """An attempt. `ticket` is the watch's."""

    ticket: int
    first_token_at: float | None

    @property
    def replica(self) -> Replica: ...
    @property
    def progressed_at(self) -> float:
        """When the last of its tokens came. Asked only after the first one."""
        ...

    def suspected(self) -> None:
        """Its replica was left out: it does well to try elsewhere beside it."""
        ...


class Watch:
    """Bounded by the attempts in flight."""

    __slots__ = ("_streams", "_waiting", "outliers", "stalls")

    def __init__(self, outliers: Outliers) -> None:
        self.outliers = outliers
        self.stalls = Stalls()
        self._waiting: dict[int, Watched] = {}  # by their tickets, those without a first token
        self._streams: dict[int, Watched] = {}  # those with one

    def serve(self, pool: Sequence[Replica], now: float) -> None:
        """These are its replicas from now on."""
        self.outliers.keep(pool, now)

    def started(self, this: Watched, predicted: float, now: float) -> None:
        """`predicted` seconds to its first token; 0 where nobody can say."""
        this.ticket = ticket = self.outliers.started(this.replica.name, predicted, now)
        self._waiting[ticket] = this

    def first_token(self, this: Watched, now: float) -> None:
        ticket = this.ticket
        self._waiting.pop(ticket, None)
        self._streams[ticket] = this
        self.outliers.first_token(this.replica.name, ticket, now)

    def ended(self, this: Watched, ended: FailureKind | str, now: float, output_tokens: int, *, empty: bool) -> None:
        """Once. `empty`: a whole answer with nothing in it, where there had to be something."""
        ticket, first = this.ticket, this.first_token_at
        self._waiting.pop(ticket, None)
        self._streams.pop(ticket, None)
        if ended == OK and first is not None:
            self.stalls.learn(first, now, output_tokens)
        self._tell(self.outliers.ended(this.replica.name, ticket, ended, now, empty=empty))

    def sweep(self, now: float) -> None:
        """Look at everybody; each `rule.interval` seconds."""
        silence = self.stalls.after()
        if silence < inf:
            for ticket, this in list(self._streams.items()):
                if now - this.progressed_at > silence:
                    del self._streams[ticket]  # once is enough
                    self._tell(self.outliers.stalled(this.replica.name, ticket, now))
        for ejection in self.outliers.sweep(now):
            self._tell(ejection)

    def _tell(self, ejection: Ejection | None) -> None:
        if ejection is not None:
            for ticket in ejection.waiting:
                this = self._waiting.get(ticket)
                if this is not None:
                    this.suspected()
