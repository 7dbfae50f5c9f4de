"""From the committed attempt to the caller: event by event, without a task, a future or a queue per event."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from penstock.core.clock import Clock
from penstock.core.errors import FailureKind, PenstockError, UpstreamError
from penstock.gateway.alarm import Alarm, Alarms
from penstock.gateway.exchange import Exchange
from penstock.resilience.failures import for_caller
from penstock.upstreams.base import Stream


class Owner(Protocol):
    """Whose stream it is."""

    def relayed(self, failure: UpstreamError | None) -> None:
        """The stream has ended; None: whole. Once for each stream that is relayed."""
        ...

    def left(self) -> None:
        """The caller has gone, and nothing is to be told to anybody."""
        ...


class Relay:
    """The stream's sink. Idle and total time are watched by the request's alarm, which is only moved when it rings."""

    __slots__ = (
        "_alarm",
        "_alarms",
        "_clock",
        "_deadline",
        "_event",
        "_exchange",
        "_id",
        "_idle_timeout",
        "_may_go_on",
        "_moved_at",
        "_over",
        "_owner",
        "_stream",
        "on_events",
    )

    def __init__(
        self,
        stream: Stream,
        exchange: Exchange,
        event: Callable[[PenstockError, str], bytes] | None,
        id: str,
        clock: Clock,
        alarms: Alarms,
        alarm: Alarm,
        owner: Owner,
        may_go_on: bool = False,
    ) -> None:
        """`event` renders the error that ends a broken stream of request `id`; None: such an answer is cut off.

        `may_go_on`: a stream that breaks ends nothing yet, and `go_on` or `break_off` follows.
        """
        self._event, self._id, self._may_go_on = event, id, may_go_on
        self._stream, self._exchange, self._clock = stream, exchange, clock
        self._alarms, self._alarm, self._owner = alarms, alarm, owner
        # with no frame of ours in between: this runs for every event
        self.on_events: Callable[[bytes], None] = exchange.write
        self._moved_at = 0.0  # when the caller last let us go on; inf: they are not taking anything
        self._over = False

    def run(self, idle_timeout: float, deadline: float) -> None:
        """Relay to the end, end the exchange, and tell the owner, perhaps before this returns.

        `idle_timeout` is in seconds, between two things that mean something; `deadline` in Clock.now() seconds.
        """
        self._idle_timeout, self._deadline = idle_timeout, deadline
        self._exchange.flow = self
        self._relay()

    def go_on(self, stream: Stream) -> None:
        """Likewise, with a stream that says what the broken one had still to say."""
        self._stream, self._over = stream, False
        if self._moved_at == inf:
            stream.pause()
        self._relay()

    def _relay(self) -> None:
        self._stream.relay(self)
        if not self._over:
            self._watch()

    def on_end(self, failure: UpstreamError | None) -> None:
        if not self._over:
            self._over = True
            if failure is None:
                self._exchange.flow = None
                self._exchange.finish()
            elif self._may_go_on:
                self._stream.close()  # it might still say what another one will say
            else:
                self.break_off(failure)
            self._owner.relayed(failure)

    def break_off(self, failure: UpstreamError) -> None:
        """After its first byte an answer has no other status: what broke is told by its last event, not by `[DONE]`."""
        self.cut(for_caller(failure))

    def cut(self, error: PenstockError) -> None:
        """Likewise, for whatever reason; the owner knows."""
        self._over = True
        self._exchange.flow = None
        if self._event is None:
            self._exchange.abort()
        else:
            self._exchange.finish(self._stream.reading.broken(error) or self._event(error, self._id))

    def pause(self) -> None:
        """The caller is slow (`http` drops one who is too slow). Until `resume`, silence is not an upstream's fault."""
        self._moved_at = inf
        self._stream.pause()

    def resume(self) -> None:
        self._moved_at = self._clock.now()
        self._stream.resume()

    def left(self) -> None:
        self._over = True
        self._owner.left()

    def _watch(self) -> None:
        now = self._clock.now()
        since = max(self._stream.progressed_at, self._moved_at)
        idle_at = (now if since == inf else since) + self._idle_timeout
        if now < idle_at and now < self._deadline:
            self._alarms.set(self._alarm, min(idle_at, self._deadline) - now, self._watch)
        elif self._stream.reading.done:  # all was said, and only the connection does not end
            self.on_end(None)
        else:
            self.on_end(UpstreamError(FailureKind.TOTAL_TIMEOUT if now >= self._deadline else FailureKind.IDLE_TIMEOUT))
