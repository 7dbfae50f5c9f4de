"""Answers whose callers have left, read to their end because the provider bills them anyway: so the receipt is true.

Only for models that say `on_disconnect: drain`; bounded in number and in time, and beyond the bounds they are cancelled
like the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.plan import CANCELLED, OK
from penstock.gateway.try_upstreams import Try, TryUpstreams

MAX_DRAINS: Final = 100  # at a time, in one worker
MAX_SECONDS: Final = 120.0


class Drain:
    """One such answer: a sink that keeps nothing."""

    def __init__(self, tries: TryUpstreams, this: Try, on_over: Callable[[Try], None]) -> None:
        self._tries, self._this, self._on_over = tries, this, on_over
        self._is_over = False

    def begin(self) -> None:
        tries = self._tries
        until = min(tries.deadline, tries.plane.clock.now() + MAX_SECONDS)
        tries.on_news = self._on_news
        tries.watch(until, lambda: self.over(CANCELLED))
        if self._this.first_token_at is not None:  # it may be news that nobody has looked at yet
            self._on_news()

    def on_events(self, block: bytes) -> None:
        """To nobody. The stream's meter has read it on its way here."""

    def on_end(self, failure: UpstreamError | None) -> None:
        self.over(OK if failure is None else failure.kind)

    def over(self, ended: FailureKind | str) -> None:
        if not self._is_over:
            self._is_over = True
            self._tries.on_news = None
            self._tries.end(self._this, ended)
            self._on_over(self._this)

    def _on_news(self) -> None:
        """The attempt, uncommitted when the caller left, has begun to answer, or failed."""
        if self._this.ended:
            self.over(CANCELLED)
        elif self._this.stream.plain is not None:
            self.over(OK)
        else:
            self._read()

    def _read(self) -> None:
        self._this.stream.resume()
        self._this.stream.relay(self)


class Drains:
    def __init__(self) -> None:
        self._n = 0

    def adopt(self, tries: TryUpstreams | None, answer: Try | None, on_over: Callable[[Try], None]) -> Drain | None:
        """Take over what is left of a request, if its model says so; then `on_over` is called once, when it ends."""
        if tries is None or not tries.plan.drain or self._n >= MAX_DRAINS:
            return None
        this = answer
        if this is None or this.ended:  # nobody was committed; or it broke, and who goes on is under way
            live = tries.live
            if len(live) != 1:
                return None
            this = live[0]

        def over(this: Try) -> None:
            self._n -= 1
            on_over(this)

        self._n += 1
        drain = Drain(tries, this, over)
        drain.begin()
        return drain
