"""One JSON line per outcome, which is the outcome itself behind its time. Never prompt text, never a secret.

Outcomes wait in memory and are encoded and written in batches: between two requests' other work each line would find
cold caches and cost twice as much. When the writer cannot keep up the newest lines are dropped, counted, and the log
itself says how many are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import structs

from penstock.core.outcome import Outcome
from penstock.telemetry.metrics import Counter
from penstock.telemetry.redact import redact

BATCH: Final = 64  # outcomes encoded at once, about 0.1 ms
FLUSH_AT: Final = 64 * 1024  # bytes waiting before they are written without being asked
MAX_WAITING: Final = 4 * 1024 * 1024  # bytes waiting before lines are dropped
MAX_NAME: Final = 128  # characters of a model name that are kept; callers choose it


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
        self._second, self._second_text = -1.0, b""  # the last one, written out
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
            self._waiting += self._encoder.encode(Dropped(self._missing)) + b"\n"
            self._missing = 0
            return self.flush()
        return True

    @property
    def waiting(self) -> int:
        """Bytes encoded and not written yet; up to `BATCH - 1` outcomes wait beside them."""
        return len(self._waiting)

    def _encode(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        waiting, encode = self._waiting, self._encoder.encode
        for outcome in outcomes:
            second, fraction = divmod(outcome.received_at, 1.0)
            if second != self._second:
                self._second = second
                self._second_text = datetime.fromtimestamp(second, UTC).strftime('{"time":"%Y-%m-%dT%H:%M:%S.').encode()
            if not outcome.attempts or len(outcome.model) > MAX_NAME:
                outcome = _with_safe_model(outcome)
            waiting += b'%b%06dZ",%b\n' % (self._second_text, int(fraction * 1e6), encode(outcome)[1:])


def _with_safe_model(outcome: Outcome) -> Outcome:
    """Nobody has vouched for the name: it may be a key in the wrong field, or endless."""
    model = redact(outcome.model[: MAX_NAME * 4])
    return structs.replace(outcome, model=model if len(model) <= MAX_NAME else model[:MAX_NAME] + "...")
