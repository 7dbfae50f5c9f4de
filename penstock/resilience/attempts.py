"""Retries, failover and hedging for one request, as a machine without I/O.

Feed it what happened; it answers what to do. The gateway drives it with callbacks, the simulator with its event heap,
the tests by hand: all three run this file. Which replica an attempt goes to is not its business.

    budget.on_request()
    machine = Attempts(plan, budget, rng, deadline)
    actions = machine.start(now)
    actions = machine.on(Failed(0, UpstreamError(FailureKind.CONNECT)), now)

An attempt can be slow (a hedge starts beside it), suspected (another one starts beside it at once), overdue (it is
cancelled and counts as failed), or failed.
"""

from __future__ import annotations

from random import Random

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.plan import Plan
from penstock.resilience.attempt_events import (
    Action,
    Cancel,
    Commit,
    Event,
    Failed,
    FirstToken,
    GiveUp,
    Open,
    Suspected,
    WakeAt,
    Woke,
)
from penstock.resilience.failures import CONSEQUENCES
from penstock.resilience.hedging import HedgeBudget
from penstock.resilience.retry_budget import RetryBudget


class Attempts:
    """One request's tries. `deadline` is Clock.now() seconds; `done` once it has said `Commit` or `GiveUp`.

    `hedges` is what hedges take from beside `budget`; None: from `budget` alone.
    """

    __slots__ = (
        "_budget", "_deadline", "_failures", "_hedge_at", "_hedged", "_hedges", "_live", "_opened", "_plan",
        "_reopen_at", "_rng", "_suspected", "done",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        budget: RetryBudget,
        rng: Random,
        deadline: float = float("inf"),
        hedges: HedgeBudget | None = None,
    ) -> None:
        self._plan = plan
        self._budget = budget
        self._hedges = hedges
        self._rng = rng
        self._deadline = deadline
        self._opened = 0
        self._failures = 0
        self._live: dict[int, float] = {}  # attempt -> when its first token is overdue
        self._reopen_at: float | None = None  # a backoff in progress
        self._hedge_at: float | None = None
        self._hedged = False
        self._suspected: set[int] = set()
        self.done = False

    def start(self, now: float) -> list[Action]:
        return self._with_alarm([self._open(now)])

    def on(self, event: Event, now: float) -> list[Action]:
        assert not self.done, "no events after Commit or GiveUp"
        match event:
            case FirstToken(attempt):
                if attempt not in self._live:
                    return []
                self.done = True
                return [*(Cancel(n) for n in self._live if n != attempt), Commit(attempt)]
            case Failed(attempt, failure, wait):
                if self._live.pop(attempt, None) is None:
                    return []
                return self._after_failure(failure, wait, now)
            case Suspected(attempt):
                return self._after_suspicion(attempt, now)
            case Woke():
                return self._after_alarm(now)

    def broke(self, failure: UpstreamError, wait: float, now: float) -> list[Action]:
        """After `Commit`: the stream of that attempt broke, and another attempt could go on with its answer.

        Like any failure it may be followed by one more attempt, within the same bounds; `wait` as in `Failed`.
        """
        assert self.done, "only a committed attempt has told something"
        self.done = False
        self._live.clear()
        self._reopen_at = self._hedge_at = None
        return self._after_failure(failure, wait, now)

    def _after_failure(self, failure: UpstreamError, wait: float, now: float) -> list[Action]:
        self._failures += 1
        if not self._live:
            self._hedge_at = None
        if not CONSEQUENCES[failure.kind].retry:
            return self._give_up(failure)
        if self._opened < self._plan.max_attempts and self._reopen_at is None:
            at = now + max(wait, self._backoff())
            # who would have to wait long is told so at once: clients know how to come back
            if wait <= self._plan.max_wait and at < self._deadline and self._budget.take(now):
                self._reopen_at = at
                return self._with_alarm([])
        if self._live or self._reopen_at is not None:
            return self._with_alarm([])
        return self._give_up(failure)

    def _after_alarm(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if now >= self._deadline:
            return self._give_up(UpstreamError(FailureKind.TOTAL_TIMEOUT))
        for attempt, overdue in list(self._live.items()):
            if overdue <= now:
                actions.append(Cancel(attempt, FailureKind.FIRST_TOKEN_TIMEOUT))
                del self._live[attempt]
                actions += self._after_failure(UpstreamError(FailureKind.FIRST_TOKEN_TIMEOUT), 0.0, now)
                if self.done:
                    return actions
        if self._reopen_at is not None and self._reopen_at <= now:
            self._reopen_at = None
            actions.append(self._open(now))
        elif self._hedge_at is not None and self._hedge_at <= now:
            self._hedge_at = None
            if self._may_hedge(now):
                self._hedged = True
                actions.append(self._open(now))
        return self._with_alarm(actions)

    def _after_suspicion(self, attempt: int, now: float) -> list[Action]:
        """Once for each attempt, and only where none of the others might still answer."""
        if attempt not in self._live or attempt in self._suspected:
            return []
        self._suspected.add(attempt)
        if self._reopen_at is not None or self._opened >= self._plan.max_attempts:
            return []
        if any(live not in self._suspected for live in self._live) or not self._budget.take(now):
            return []
        return self._with_alarm([self._open(now)])

    def _may_hedge(self, now: float) -> bool:
        hedges = self._hedges
        if hedges is None:
            return self._budget.take(now)
        if not (hedges.affords and self._budget.take(now)):
            return False
        hedges.spend()
        return True

    def _open(self, now: float) -> Open:
        number = self._opened
        self._opened += 1
        self._live[number] = min(now + self._plan.first_token_timeout, self._deadline)
        hedge_after = self._plan.hedge_after
        if hedge_after is None or self._hedged or self._opened >= self._plan.max_attempts:
            self._hedge_at = None
        else:
            self._hedge_at = now + hedge_after
        return Open(number)

    def _backoff(self) -> float:
        """Full jitter: uniform in [0, base * 2^failures), capped. Seconds.

        Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        ceiling = min(self._plan.backoff_cap, self._plan.backoff_base * 2.0 ** (self._failures - 1))
        return ceiling * self._rng.random()

    def _give_up(self, failure: UpstreamError) -> list[Action]:
        self.done = True
        return [*(Cancel(n) for n in self._live), GiveUp(failure)]

    def _with_alarm(self, actions: list[Action]) -> list[Action]:
        at = min(self._live.values(), default=float("inf"))
        if self._reopen_at is not None and self._reopen_at < at:
            at = self._reopen_at
        if self._hedge_at is not None and self._hedge_at < at:
            at = self._hedge_at
        if at != float("inf"):
            actions.append(WakeAt(at))
        return actions
