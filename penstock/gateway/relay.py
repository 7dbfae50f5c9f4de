"""From the committed attempt to the caller: event by event, without a task, a future or a queue per event."""

from __future__ import annotations

import asyncio

from penstock.core.clock import Clock
from penstock.core.errors import FailureKind, UpstreamError
from penstock.gateway.alarm import Alarm, Alarms
from penstock.gateway.exchange import Exchange
from penstock.upstreams.base import Stream


class Relay:
    """The stream's sink. Idle and total time are watched by the request's alarm, which is only moved when it rings."""

    __slots__ = (
        "_alarm",
        "_alarms",
        "_clock",
        "_deadline",
        "_done",
        "_exchange",
        "_idle_timeout",
        "_stream",
        "failure",
    )

    def __init__(self, stream: Stream, exchange: Exchange, clock: Clock, alarms: Alarms, alarm: Alarm) -> None:
        self._stream, self._exchange, self._clock = stream, exchange, clock
        self._alarms, self._alarm = alarms, alarm
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failure: UpstreamError | None = None

    async def run(self, idle_timeout: float, deadline: float) -> UpstreamError | None:
        """Relay to the end; what went wrong, or None when the answer was whole. Ending the exchange is the caller's.

        `idle_timeout` in seconds, between two things that mean something; `deadline` in Clock.now() seconds.
        """
        self._idle_timeout, self._deadline = idle_timeout, deadline
        exchange, stream = self._exchange, self._stream
        exchange.flow = stream
        try:
            stream.relay(self)
            if not self._done.done():
                self._watch()
                await self._done
        finally:
            exchange.flow = None
        return self.failure

    def on_events(self, block: bytes) -> None:
        self._exchange.write(block)

    def on_end(self, failure: UpstreamError | None) -> None:
        self.failure = failure
        if not self._done.done():
            self._done.set_result(None)

    def _watch(self) -> None:
        now = self._clock.now()
        idle_at = self._stream.progressed_at + self._idle_timeout
        if now >= self._deadline:
            self.on_end(UpstreamError(FailureKind.TOTAL_TIMEOUT))
        elif now >= idle_at:
            self.on_end(UpstreamError(FailureKind.IDLE_TIMEOUT))
        else:
            self._alarms.set(self._alarm, min(idle_at, self._deadline) - now, self._watch)
