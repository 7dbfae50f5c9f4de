"""One JSON line per outcome, which is the outcome itself behind its time, level and trace. Never prompt text, never a
secret.

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
from penstock.resilience.failures import Blame
from penstock.telemetry.instruments import Counter
from penstock.telemetry.options import Keys
from penstock.telemetry.taxonomy import nature_of
from penstock.telemetry.unvouched import fit_to_keep
from penstock.wire.trace_context import trace_id_of, traced_as

BATCH: Final = 64  # outcomes encoded at once, about 0.1 ms
FLUSH_AT: Final = 64 * 1024  # bytes waiting before they are written without being asked
MAX_WAITING: Final = 4 * 1024 * 1024  # bytes waiting before lines are dropped
ECS: Final = "8.11.0"  # the version of the Elastic Common Schema whose names are used

_LEVELS: Final = {Blame.CALLER: b"warn", Blame.SYSTEM: b"error", Blame.PROVIDER: b"error"}


class AccessLog:
    """Buffers lines for `write`, which takes whole lines and must take all of them or raise OSError.

    After an OSError everything waits for the next `flush()`; nothing is written twice and nothing raises on the request
    path. Call `flush()` from a timer and once at the end. `dropped` counts lines that are lost, if given.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        dropped: Counter | None = None,
        max_waiting: int = MAX_WAITING,
        keys: Keys = "penstock",
        service: str = "penstock",
    ) -> None:
        self._write = write
        self.keys: Keys = keys  # may be changed between two lines
        self.service = service
        self._dropped = Counter() if dropped is None else dropped
        self._max_waiting = max_waiting
        self._encoder = msgspec.json.Encoder()
        self._outcomes: list[tuple[Outcome, tuple[str, str] | None]] = []  # not encoded yet, fewer than BATCH
        self._second, self._second_text = -1.0, b""  # the last one, written out
        self._waiting = bytearray()
        self._missing = 0  # lines dropped since the log last said so
        self._broken = False  # the last write failed; only `flush` tries again

    def on_outcome(self, outcome: Outcome, hashes: tuple[str, str] | None = None) -> None:
        """`hashes` of the prompt and of the answer."""
        if len(self._waiting) >= self._max_waiting:
            self._missing += 1
            self._dropped.inc()
            return
        self._outcomes.append((outcome, hashes))
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
            self._waiting += b'{"event":"access_log_dropped","lines":%d}\n' % self._missing
            self._missing = 0
            return self.flush()
        return True

    @property
    def waiting(self) -> int:
        """Bytes encoded and not written yet; up to `BATCH - 1` outcomes wait beside them."""
        return len(self._waiting)

    def _encode(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        waiting, encode, ecs = self._waiting, self._encoder.encode, self.keys == "ecs"
        for given, hashes in outcomes:
            outcome = fit_to_keep(given)
            second, fraction = divmod(outcome.received_at, 1.0)
            if second != self._second:
                self._second = second
                self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.").encode()
            line = encode(outcome)
            if hashes is not None:
                line = b'%b,"prompt_hash":"%b","output_hash":"%b"}' % (
                    line[:-1],
                    hashes[0].encode(),
                    hashes[1].encode(),
                )
            time = b"%b%06dZ" % (self._second_text, int(fraction * 1e6))
            if ecs:
                waiting += self._as_ecs(time, outcome, line)
            elif outcome.trace_id:  # it is on the receipt
                waiting += b'{"time":"%b","level":"%b",%b\n' % (time, _level(outcome), line[1:])
            else:
                trace_id = trace_id_of(outcome.request_id).encode()
                waiting += b'{"time":"%b","level":"%b","trace_id":"%b",%b\n' % (
                    time,
                    _level(outcome),
                    trace_id,
                    line[1:],
                )

    def _as_ecs(self, time: bytes, outcome: Outcome, line: bytes) -> bytes:
        """What the Elastic Common Schema has names for, and everything under our own beneath `penstock`."""
        fields: dict[str, object] = {
            "ecs.version": ECS,
            "event.dataset": "penstock.access",
            "event.kind": "event",
            "event.outcome": "success" if outcome.error is None else "failure",
            "event.duration": int(outcome.duration * 1e9),
            "service.name": self.service,
            "log.level": _level(outcome).decode(),
            "trace.id": traced_as(outcome),
            "http.request.id": outcome.request_id,
            "http.response.status_code": outcome.status,
        }
        if outcome.error is not None:
            fields["error.code"] = outcome.error
        if outcome.tenant:
            fields["organization.id"] = outcome.tenant
        if outcome.user_hash:
            fields["user.hash"] = outcome.user_hash
        return b'{"@timestamp":"%b",%b,"penstock":%b}\n' % (time, self._encoder.encode(fields)[1:-1], line)


def _level(outcome: Outcome) -> bytes:
    """warn: something its caller can mend; error: something that we or a provider can."""
    return b"info" if outcome.error is None else _LEVELS[nature_of(outcome.error).blame]
