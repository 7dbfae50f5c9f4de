"""Tells somebody what they asked to be told: that a budget has reached a share of its amount, that a service level is
in danger. In the log, in the metrics, at a webhook.

Each share of each window is told once by a host, also by several workers and after a restart: whoever makes the mark of
it, in a directory that they share, tells it. Webhooks are tried for a while and then given up; nothing waits for them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from penstock.config.secrets import resolved
from penstock.config.spec import Notify
from penstock.config.units import instant
from penstock.core.clock import Clock
from penstock.core.money import show
from penstock.http.post import PostFailed, post
from penstock.limits.charges import Charge
from penstock.limits.headers import spoken
from penstock.limits.limit import Counted

MOST_WAITING: Final = 1_000  # webhooks
TRIES: Final = 6
FIRST_PAUSE: Final = 1.0  # seconds before another try, doubled each time
SECONDS: Final = 10.0  # for one answer
KEPT: Final = 400 * 86_400.0  # seconds that marks are kept: of a year's budgets, none is told twice


class BudgetReached(msgspec.Struct, frozen=True, tag_field="event", tag="budget_reached"):
    """What a webhook gets, as JSON. `text` is a sentence for people, where chat programs look for one. `id` is the same
    however often, and by however many, it is told.
    """

    id: str
    text: str
    at: str
    budget: str
    window: str  # 2026-11-09, 2026-W46, 2026-11, total
    percent: int  # of the amount, that was reached
    amount_nanos: int  # 1e-9 dollars
    spent_nanos: int  # with what is reserved for requests in flight
    hard: bool
    org: str
    team: str
    key: str
    user: str  # a hash
    model: str


class _Post(msgspec.Struct, frozen=True):
    """`webhook` is an address or a reference to one; `path` comes behind it. `whose` and `text` are for the log."""

    webhook: str
    body: bytes
    whose: str
    text: str
    path: str


class Alerts:
    """`run` sends what is for webhooks. `failed` counts those given up, or dropped because too many waited."""

    def __init__(
        self,
        *,
        clock: Clock,
        rng: Random,
        secret: Callable[[str], str],
        tell: Callable[[str], None],
        marks: Path | None,
    ) -> None:
        self.failed = 0
        self._clock, self._rng, self._secret, self._tell, self._marks = clock, rng, secret, tell, marks
        self._waiting: asyncio.Queue[_Post] = asyncio.Queue(MOST_WAITING)

    def reached(self, counted: Counted, charge: Charge, percent: int, spent: int, notify: Notify) -> bool:
        """Whether it was for us to tell."""
        id = hashlib.sha256(f"{charge.counter}|{percent}".encode()).hexdigest()[:32]
        if not self._first(id):
            return False
        limit, account = counted.limit, counted.account
        text = (
            f"{limit.name}: {percent}% of {show(charge.limit)} {spoken(limit)} is reached; {show(spent)} is spent or "
            f"reserved{'' if limit.soft or percent < 100 else ', and what may cost more is refused'}."
        )
        self._tell(text)
        if notify.webhook is not None:
            reached = BudgetReached(
                id, text, instant(self._clock.wall()), limit.name, counted.window, percent, charge.limit, spent,
                not limit.soft, account.org, account.team, account.key, account.user, account.model,
            )  # fmt: skip
            self.send(notify.webhook, msgspec.json.encode(reached), limit.name, text)
        return True

    def send(self, webhook: str, body: bytes, whose: str, text: str, path: str = "") -> None:
        """Post this JSON, as soon as what waits before it has been posted. `webhook` is an address, or a reference to
        one, behind which `path` comes; `whose` and `text` are told where it does not arrive."""
        try:
            self._waiting.put_nowait(_Post(webhook, body, whose, text, path))
        except asyncio.QueueFull:
            self.failed += 1

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            waiting = await self._waiting.get()
            why = await self._send(waiting)
            if why is not None:
                self.failed += 1
                self._tell(f"The webhook of {waiting.whose} was not told ({why}): {waiting.text}")

    def forget(self) -> None:
        """Marks of windows that are long over. May block for a moment: for another thread."""
        oldest = self._clock.wall() - KEPT
        if self._marks is not None and self._marks.is_dir():
            for mark in self._marks.iterdir():
                if mark.stat().st_mtime < oldest:
                    mark.unlink(missing_ok=True)

    async def _send(self, waiting: _Post) -> str | None:
        """Why it was given up; None when it has arrived. Never with the address, which may be a secret."""
        why = ""
        for n in range(TRIES):
            if n:
                await asyncio.sleep(FIRST_PAUSE * 2.0 ** (n - 1) * self._rng.uniform(0.5, 1.0))
            try:
                address = resolved(waiting.webhook, self._secret)
                await post(
                    address.rstrip("/") + waiting.path if waiting.path else address, waiting.body, seconds=SECONDS
                )
            except (PostFailed, LookupError) as error:
                why = str(error.args[0])
            else:
                return None
        return why

    def _first(self, id: str) -> bool:
        if self._marks is None:
            return True
        mark = self._marks / id
        try:
            self._marks.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark.touch(exist_ok=False)
        except OSError:  # it is there; or none can be made, and better twice than not at all
            return not mark.exists()
        return True
