"""Sends traces to one place, a batch at a time: OTLP over HTTP, compressed, and again when the place is away.

Nothing waits for it: what comes faster than it can be sent is dropped, and counted. Encoding is done a few traces at a
time, so that no stream stands still for a batch. Retries as the OTLP specification has them (opentelemetry.io/docs/
specs/otlp, "Failures").
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Final, Protocol

import msgspec

from penstock.core.outcome import Outcome
from penstock.telemetry.content import Content, Reader
from penstock.telemetry.metrics import Counter, Family
from penstock.telemetry.otlp import Encoder
from penstock.telemetry.spans import Served, Trace, Value, trace_of

BATCH: Final = 64  # traces in one body, about 30 kB
EVERY: Final = 1.0  # seconds that a trace waits for others
AT_ONCE: Final = 8  # traces encoded before others have their turn, about 0.8 ms
MOST_WAITING: Final = 4_096  # traces
TRIES: Final = 6
FIRST_PAUSE: Final = 1.0  # seconds before another try, doubled each time
LONGEST_PAUSE: Final = 60.0  # likewise, also where the place asks for more
AGAIN: Final = frozenset({0, 408, 429, 502, 503, 504})

FULL: Final = "full"
REFUSED: Final = "refused"
FAILED: Final = "failed"


class Answer(msgspec.Struct, frozen=True):
    """Of the place; status 0: there was none. `retry_after` in seconds. `why` is for the operator, without secrets."""

    status: int
    retry_after: float | None = None
    why: str = ""


class Post(Protocol):
    async def __call__(self, body: bytes) -> Answer:
        """Send one gzipped body. Never raises."""
        ...


class Kept:
    """A trace that is kept. It is made when it is first wanted, which is not while requests wait."""

    __slots__ = ("_content", "_more", "_reader", "_trace", "outcome", "why")

    def __init__(
        self, outcome: Outcome, why: str, more: dict[str, Value], content: Content | None, reader: Reader
    ) -> None:
        self.outcome, self.why = outcome, why
        self._more, self._content, self._reader = more, content, reader
        self._trace: Trace | None = None

    @property
    def is_long(self) -> bool:
        """Making it takes some milliseconds."""
        return self._content is not None and self._trace is None

    def trace(self, served: Mapping[str, Served]) -> Trace:
        if self._trace is None:
            texts = {} if self._content is None else self._reader.texts(self._content)
            self._trace = trace_of(self.outcome, served, kept=self.why, more=self._more | texts)
            self._content = None
        return self._trace


class SpanExporter:
    """`run` sends what was offered. `served` is looked at for every trace: deployments come and go."""

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        post: Post,
        *,
        rng: Random,
        served: Callable[[], Mapping[str, Served]],
        sent: Family[Counter],
        dropped: Family[Counter],
        tell: Callable[[str], None],
    ) -> None:
        self.name = name
        self._encoder, self._post, self._rng, self._served, self._tell = encoder, post, rng, served, tell
        self._sent = sent.labels(name)
        self._dropped = {why: dropped.labels(name, why) for why in (FULL, REFUSED, FAILED)}
        self._waiting: deque[Kept] = deque()
        self._enough = asyncio.Event()
        self._closing = False
        self._unwell = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def offer(self, kept: Kept) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._dropped[FULL].inc()
            return
        self._waiting.append(kept)
        if len(self._waiting) >= BATCH:
            self._enough.set()

    async def run(self) -> None:
        """Until it is cancelled, or closed and everything is sent or given up."""
        while not (self._closing and not self._waiting):
            if len(self._waiting) < BATCH and not self._closing:
                self._enough.clear()
                try:
                    async with asyncio.timeout(EVERY):
                        await self._enough.wait()
                except TimeoutError:
                    if not self._waiting:
                        continue
            await self._send_batch()

    def close(self) -> None:
        """Send what waits, trying once, and end."""
        self._closing = True
        self._enough.set()

    def give_up(self) -> None:
        """Count what waits as lost."""
        self._dropped[FAILED].inc(len(self._waiting))
        self._waiting.clear()

    async def _send_batch(self) -> None:
        spans: list[bytes] = []
        n, served = 0, self._served()
        while self._waiting and n < BATCH:
            kept = self._waiting.popleft()
            was_long = kept.is_long
            spans += self._encoder.spans(kept.trace(served))
            n += 1
            if was_long or n % AT_ONCE == 0:
                await asyncio.sleep(0)
        if not n:
            return
        body = zlib.compress(self._encoder.body(spans), 1, 31)  # 31: with the header of gzip
        try:
            answer = await self._send(body)
        except asyncio.CancelledError:
            self._dropped[FAILED].inc(n)
            raise
        if 200 <= answer.status < 300:
            self._sent.inc(n)
            if self._unwell:
                self._unwell = False
                self._tell(f"telemetry.traces.{self.name} takes traces again.")
            return
        self._dropped[FAILED if answer.status in AGAIN else REFUSED].inc(n)
        if not self._unwell:
            self._unwell = True
            why = answer.why or f"it answered with status {answer.status}"
            self._tell(f"telemetry.traces.{self.name} does not take traces ({why}). They are dropped and counted.")

    async def _send(self, body: bytes) -> Answer:
        """The last answer."""
        pause = FIRST_PAUSE
        for n in range(TRIES):
            answer = await self._post(body)
            if answer.status not in AGAIN or self._closing or n + 1 == TRIES:
                return answer
            wait = pause * self._rng.uniform(0.5, 1.0)
            if answer.retry_after is not None:
                wait = max(wait, answer.retry_after)
            pause *= 2.0
            await self._wait(min(wait, LONGEST_PAUSE))
        raise AssertionError("it is tried at least once")

    async def _wait(self, seconds: float) -> None:
        """Less when it is closed meanwhile: then one more try, and no more."""
        try:
            async with asyncio.timeout(seconds):
                while not self._closing:
                    self._enough.clear()
                    await self._enough.wait()
        except TimeoutError:
            return
