"""Sends what the traffic says when it says, and keeps what came of it.

Open-loop arrivals are sent at their time however slow the answers are, and latency is counted from that time, even
where `max_in_flight` or a busy machine held a request back: leaving that wait out would hide the worst seconds of every
overload (coordinated omission; G. Tene, "How NOT to Measure Latency", 2013).
"""

from __future__ import annotations

import asyncio
import heapq
from array import array
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import msgspec

from penstock.core.errors import FailureKind
from penstock.loadtest.exchange import UNFINISHED, Exchange
from penstock.loadtest.prompts import Message, Prompts
from penstock.loadtest.sample import Sample
from penstock.loadtest.target import Target
from penstock.traffic.arrival import Arrival
from penstock.traffic.source import Source

EARLY: Final = 1e-6  # seconds; a timer may fire so much before its time by rounding
MAX_GAPS: Final = 5_000_000  # inter-token latencies kept: 40 MB; later ones are counted and left out


class LoadOptions(msgspec.Struct, frozen=True):
    """Seconds. Requests that were meant to be sent before `warm_up` are sent and not measured."""

    warm_up: float = 0.0
    timeout: float = 300.0  # of one request, from sending
    max_in_flight: int = 1_024


class Run(msgspec.Struct):
    """Everything that was measured. `samples` in the order of their ends, warm-up included."""

    options: LoadOptions
    samples: list[Sample]
    gaps: array[float]  # ITL of what was measured and went well
    gaps_left_out: int = 0
    held_back: int = 0  # requests that waited for a place among `max_in_flight`
    seconds: float = 0.0
    stopped: bool = False  # by a person, before the traffic was over
    examples: dict[str, str] = {}  # failure -> what the first of its kind said


class _Ready:
    """A request whose text is made, waiting for its time."""

    __slots__ = ("arrival", "body", "messages")

    def __init__(self, arrival: Arrival, messages: list[Message], body: bytes) -> None:
        self.arrival, self.messages, self.body = arrival, messages, body


class Load:
    """One run. Everything happens in callbacks of the running loop; `run` once."""

    def __init__(
        self, source: Source, target: Target, prompts: Prompts, options: LoadOptions, now: Callable[[], float]
    ) -> None:
        """`now` is monotonic seconds; finer than the time of a uvloop, which counts milliseconds."""
        self._source, self._target, self._prompts, self._options = source, target, prompts, options
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._begun_at = now()
        self._coming: Arrival | None = None  # the next that waits for no answer
        self._due: list[tuple[float, int, _Ready]] = []
        self._held: deque[_Ready] = deque()
        self._live: dict[Exchange, tuple[_Ready, asyncio.TimerHandle]] = {}
        self._said: dict[str, list[Message]] = {}  # by session, while one goes on
        self._timer: asyncio.TimerHandle | None = None
        self._broken: Exception | None = None
        self.result = Run(options, [], array("d"), examples={})
        self.failures: Counter[str] = Counter()

    @property
    def now(self) -> float:
        """Seconds from the beginning."""
        return self._now() - self._begun_at

    @property
    def in_flight(self) -> int:
        return len(self._live)

    @property
    def n_held(self) -> int:
        return len(self._held)

    async def run(self) -> Run:
        """Until the traffic is over and every answer has ended, or `stop`. Raises what the traffic raises
        (`TrafficError`)."""
        self._begun_at = self._now()
        self._take_next()
        self._wake()
        try:
            await self._over
        finally:
            self._let_go()
        self.result.seconds = self.now
        if self._broken is not None:
            raise self._broken
        return self.result

    def stop(self) -> None:
        """Send no more and let go of what is in flight; `run` then returns what there is."""
        self.result.stopped = True
        self._coming = None
        self._due.clear()
        self._held.clear()
        self._let_go()
        self._finish_if_over()

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for exchange in list(self._live):
            exchange.leave(UNFINISHED, "it was stopped")

    def _take_next(self) -> None:
        """Look one ahead, and make its text before its time."""
        self._coming = self._source.next()
        if self._coming is not None:
            self._make_ready(self._coming)

    def _make_ready(self, arrival: Arrival) -> None:
        messages = self._prompts.messages(arrival, self._said.get(arrival.session, []))
        body = self._target.body(messages, arrival.output_tokens, arrival.model)
        heapq.heappush(self._due, (arrival.at, arrival.number, _Ready(arrival, messages, body)))

    def _wake(self) -> None:
        """Send what is due, and come again when the next is."""
        self._timer = None
        try:
            while self._due and self._due[0][0] <= self.now + EARLY:
                ready = heapq.heappop(self._due)[2]
                if ready.arrival is self._coming:
                    self._take_next()
                if len(self._live) < self._options.max_in_flight:
                    self._send(ready)
                else:
                    self._held.append(ready)
                    self.result.held_back += 1
        except Exception as error:  # noqa: BLE001  a callback has no caller: `run` raises it
            self._broken = error
            self.stop()
            return
        self._set_timer()
        self._finish_if_over()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer = self._loop.call_later(max(0.0, self._due[0][0] - self.now), self._wake)

    def _send(self, ready: _Ready) -> None:
        arrival = ready.arrival
        exchange = Exchange(self._now, self._ended, keep_text=bool(arrival.session))
        limit = self._options.timeout
        timer = self._loop.call_later(
            limit, exchange.leave, FailureKind.TOTAL_TIMEOUT, f"no end of the answer within {limit:g} s"
        )
        self._live[exchange] = (ready, timer)
        exchange.call = self._target.send(ready.body, exchange, arrival.tenant, arrival.session)

    def _ended(self, exchange: Exchange) -> None:
        ready, timer = self._live.pop(exchange)
        timer.cancel()
        arrival = ready.arrival
        sample = self._sample(arrival, exchange)
        result = self.result
        result.samples.append(sample)
        if sample.failure:
            self.failures[sample.failure] += 1
            result.examples.setdefault(sample.failure, exchange.detail)
        elif arrival.at >= self._options.warm_up:
            room = MAX_GAPS - len(result.gaps)
            result.gaps.extend(exchange.gaps[:room])
            result.gaps_left_out += max(0, len(exchange.gaps) - room)
        if result.stopped:
            self._finish_if_over()
            return
        following = self._source.ended(arrival, sample.ended, ok=not sample.failure)
        if arrival.session:
            if following is not None and following.session == arrival.session:
                answer = {"role": "assistant", "content": "".join(exchange.text or ())}
                self._said[arrival.session] = [*ready.messages, answer]
            else:
                self._said.pop(arrival.session, None)
        if following is not None:
            self._make_ready(following)
            self._set_timer()
        if self._held:
            self._send(self._held.popleft())
        self._finish_if_over()

    def _sample(self, arrival: Arrival, exchange: Exchange) -> Sample:
        def since(instant: float | None) -> float | None:
            return None if instant is None else instant - self._begun_at

        counted = exchange.output_tokens is not None
        return Sample(
            number=arrival.number,
            intended=arrival.at,
            sent=exchange.sent - self._begun_at,
            ended=exchange.ended - self._begun_at,
            first=since(exchange.first),
            last=since(exchange.last),
            failure=exchange.failure,
            status=exchange.status,
            prompt_wanted=arrival.prompt_tokens,
            prompt_tokens=exchange.prompt_tokens,
            cached_tokens=exchange.cached_tokens,
            output_wanted=arrival.output_tokens,
            output_tokens=exchange.output_tokens if exchange.output_tokens is not None else exchange.pieces,
            counted=counted,
            pieces=exchange.pieces,
            tenant=arrival.tenant,
            session=arrival.session,
            turn=arrival.turn,
            replica=exchange.replica,
        )

    def _finish_if_over(self) -> None:
        if not (self._live or self._due or self._held) and not self._over.done():
            self._over.set_result(None)


async def one(
    target: Target, messages: list[Message], max_tokens: int, within: float, now: Callable[[], float]
) -> Exchange:
    """A single request outside of any traffic; `failure` and `detail` say how it went."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[Exchange] = loop.create_future()
    exchange = Exchange(now, over.set_result, keep_text=False)
    exchange.call = target.send(target.body(messages, max_tokens), exchange)
    timer = loop.call_later(within, exchange.leave, FailureKind.TOTAL_TIMEOUT, f"no answer within {within:g} s")
    try:
        return await over
    finally:
        timer.cancel()
