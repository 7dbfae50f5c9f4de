"""Gives out arrivals, and is told when answers end: only so do the next turns, and the next requests of users, come
when they would.

All of a session is drawn when it begins, so that the same sessions meet every policy that is compared, whatever the
order in which their answers end.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import merge
from operator import itemgetter
from random import Random

from penstock.traffic.arrival import Arrival
from penstock.traffic.flow import Flow, OpenTrace, Session
from penstock.traffic.options import Workload

__all__ = ["OpenTrace", "Source"]


class Source:
    """The requests of some workloads, mixed in time. Holds the sessions that go on.

    The same state of `rng` and the same calls give the same arrivals.
    """

    def __init__(self, workloads: Sequence[Workload], open_trace: OpenTrace, rng: Random) -> None:
        """Here and from `next`: raises `TrafficError` for a bad trace, and whatever `open_trace` raises."""
        flows = [Flow(i, w, open_trace, Random(rng.getrandbits(64))) for i, w in enumerate(workloads)]
        self._begins = merge(*(flow.begins() for flow in flows), key=itemgetter(0))
        self._awaited: dict[int, Session] = {}  # by the number of the arrival
        self._n_arrivals = 0

    @property
    def n_awaited(self) -> int:
        """How many answers are awaited that something may follow from."""
        return len(self._awaited)

    def next(self) -> Arrival | None:
        """The next in time of those that wait for no answer; None when there are no more of them.

        Look ahead by one at most: what follows from answers may come before it, and counts towards `requests` too.
        """
        for at, session in self._begins:
            if not session.flow.spent:
                return self._give(session, at)
        return None

    def ended(self, arrival: Arrival, now: float, ok: bool = True) -> Arrival | None:
        """Tell, once, that the answer to `arrival` ended at `now`. Returns what follows, at `now` or later: the next
        turn, or the next session of its user. After a failure (`ok` is false) its session is over.
        """
        session = self._awaited.pop(arrival.number, None)
        if session is None:
            return None
        flow = session.flow
        if not (ok and session.next_turn()):
            if session.user is None:
                return None
            session = flow.of_user(session.user)
        at = now + session.turns[session.turn].think
        return None if flow.spent or at > flow.until else self._give(session, at)

    def _give(self, session: Session, at: float) -> Arrival:
        number = self._n_arrivals
        self._n_arrivals += 1
        if session.goes_on:
            self._awaited[number] = session
        return session.flow.arrival(session, number, at)
