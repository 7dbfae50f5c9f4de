"""One JSON line per outcome: who asked for what, where it was tried, what it took. Never prompt text, never a secret.

Outcomes wait in memory and are encoded and written in batches: between two requests' other work each line would find
cold caches and cost twice as much. When the writer cannot keep up the newest lines are dropped, counted, and the log
itself says how many are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from penstock.core.outcome import Outcome
from penstock.core.plan import Attempt
from penstock.telemetry.metrics import Counter
from penstock.telemetry.redact import redact

BATCH: Final = 64  # outcomes encoded at once, about 0.15 ms
FLUSH_AT: Final = 64 * 1024  # bytes waiting before they are written without being asked
MAX_WAITING: Final = 4 * 1024 * 1024  # bytes waiting before lines are dropped
MAX_NAME: Final = 128  # characters of a model name that are kept; callers choose it


class AttemptLine(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Times are milliseconds since the request was received; `first_token_ms` too."""

    replica: str
    ended: str
    start_ms: float
    end_ms: float
    first_token_ms: float | None = None


class AccessLine(msgspec.Struct, frozen=True, gc=False):
    """The keys of a line, in order; they are stable. `ttft_ms` and `total_ms` count from the request's arrival."""

    time: str  # RFC 3339, UTC, microseconds
    request_id: str
    tenant: str
    key_id: str
    endpoint: str
    model: str
    stream: bool
    status: int
    error: str | None
    finish_reason: str | None
    attempts: tuple[AttemptLine, ...]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usage_source: str
    ttft_ms: float | None
    total_ms: float
    plane_version: int


class Dropped(msgspec.Struct, frozen=True, tag_field="event", tag="access_log_dropped"):
    """Stands in the log where lines are missing."""

    lines: int


class AccessLog:
    """Buffers lines for `write`, which takes whole lines and must take all of them or raise OSError.

    After an OSError everything waits for the next `flush()`; nothing is written twice and nothing raises on the request
    path. Call `flush()` from a timer and once at the end. `dropped` counts lines that are lost, if given.
    """

    def __init__(
        self, write: Callable[[bytes], None], *, dropped: Counter | None = None, max_waiting: int = MAX_WAITING
    ) -> None:
        self._write = write
        self._dropped = Counter() if dropped is None else dropped
        self._max_waiting = max_waiting
        self._encoder = msgspec.json.Encoder()
        self._outcomes: list[Outcome] = []  # not encoded yet, fewer than BATCH
        self._second, self._second_text = 0.0, "1970-01-01T00:00:00."  # the last one, written out
        self._waiting = bytearray()
        self._missing = 0  # lines dropped since the log last said so
        self._broken = False  # the last write failed; only `flush` tries again

    def on_outcome(self, outcome: Outcome) -> None:
        if len(self._waiting) >= self._max_waiting:
            self._missing += 1
            self._dropped.inc()
            return
        self._outcomes.append(outcome)
        if len(self._outcomes) >= BATCH:
            self._encode()
            if len(self._waiting) >= FLUSH_AT and not self._broken:
                self.flush()

    def flush(self) -> bool:
        """Write what waits. False when the writer refused; what waits is kept and may be tried again."""
        self._encode()
        if self._waiting:
            try:
                self._write(bytes(self._waiting))
            except OSError:
                self._broken = True
                return False
            self._waiting.clear()
        self._broken = False
        if self._missing:
            self._append(Dropped(self._missing))
            self._missing = 0
            return self.flush()
        return True

    @property
    def waiting(self) -> int:
        """Bytes encoded and not written yet; up to `BATCH - 1` outcomes wait beside them."""
        return len(self._waiting)

    def _encode(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            second, fraction = divmod(outcome.wall, 1.0)
            if second != self._second:
                self._second = second
                self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._append(_line(outcome, f"{self._second_text}{int(fraction * 1e6):06d}Z"))

    def _append(self, line: AccessLine | Dropped) -> None:
        self._encoder.encode_into(line, self._waiting, -1)
        self._waiting += b"\n"


def _line(outcome: Outcome, time: str) -> AccessLine:
    received_at, first_token_at, usage = outcome.received_at, outcome.first_token_at, outcome.usage
    model = outcome.model
    if not outcome.attempts:  # nobody has vouched for the name: it may be a key in the wrong field
        model = redact(model[: MAX_NAME * 4])
    return AccessLine(
        time=time,
        request_id=outcome.request_id,
        tenant=outcome.tenant,
        key_id=outcome.key_id,
        endpoint=outcome.endpoint,
        model=model if len(model) <= MAX_NAME else model[:MAX_NAME] + "...",
        stream=outcome.stream,
        status=outcome.status,
        error=outcome.error,
        finish_reason=outcome.finish_reason,
        attempts=tuple([_attempt_line(attempt, received_at) for attempt in outcome.attempts]),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        usage_source=outcome.usage_source,
        ttft_ms=None if first_token_at is None else _ms(first_token_at - received_at),
        total_ms=_ms(outcome.ended_at - received_at),
        plane_version=outcome.plane_version,
    )


def _attempt_line(attempt: Attempt, received_at: float) -> AttemptLine:
    first = attempt.first_token_at
    return AttemptLine(
        replica=attempt.replica,
        ended=attempt.ended,
        start_ms=_ms(attempt.started_at - received_at),
        end_ms=_ms(attempt.ended_at - received_at),
        first_token_ms=None if first is None else _ms(first - received_at),
    )


def _ms(seconds: float) -> float:
    return int(seconds * 1e6 + 0.5) / 1e3  # to the microsecond; `round` costs three times as much
