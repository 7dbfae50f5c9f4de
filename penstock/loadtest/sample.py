"""What was measured of one request, and what that makes of it. All times are seconds.

Definitions, the same as those of vLLM's benchmark (`vllm/benchmarks/serve.py`) but for where the clock starts:
TTFT ends at the first piece of the answer that has text, reasoning or a tool call. TPOT is the time from that piece to
the last one, over the output tokens but one. ITL is each single gap between pieces. E2E ends with the answer.
"""

from __future__ import annotations

import msgspec


class Sample(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Instants are counted from the beginning of the run.

    `intended` is when the traffic wanted it sent; `sent` is later where this machine or `max_in_flight` held it back.
    """

    number: int
    intended: float
    sent: float
    ended: float
    first: float | None = None  # the first piece; None: there was none
    last: float | None = None
    failure: str = ""  # a `FailureKind`, "empty" or "unfinished"; "" when it went well
    status: int = 0  # of HTTP; 0: no answer began
    prompt_wanted: int = 0
    prompt_tokens: int | None = None  # as the server counted; None: it did not say
    cached_tokens: int | None = None  # likewise
    output_wanted: int = 0
    output_tokens: int = 0  # as the server counted, else the number of pieces
    counted: bool = False  # by the server
    pieces: int = 0
    tenant: str = ""
    session: str = ""
    turn: int = 0
    replica: str = ""  # that says it answered, where a Penstock is asked

    @property
    def tpot(self) -> float | None:
        """None for an answer of one token, which has none."""
        if self.first is None or self.last is None or self.output_tokens < 2:
            return None
        return (self.last - self.first) / (self.output_tokens - 1)


class Slo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request must keep to be good. Seconds; None: anything goes."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    @property
    def asks(self) -> bool:
        return self != Slo()

    def met(self, sample: Sample) -> bool:
        """Counted from when it was meant to be sent. What failed is never good."""
        if sample.failure or sample.first is None:
            return False
        return (
            (self.ttft is None or sample.first - sample.intended <= self.ttft)
            and (self.tpot is None or (sample.tpot or 0.0) <= self.tpot)
            and (self.e2e is None or sample.ended - sample.intended <= self.e2e)
        )
