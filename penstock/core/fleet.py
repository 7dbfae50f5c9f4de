"""What one gateway process knows about a replica. Mutable, single-threaded, one writer: this file's verbs.

A plain class and not a struct, so that it can be compiled: choosing reads some ten fields of every replica of a pool.
"""

from __future__ import annotations

from math import inf
from typing import Final

PREFILL_RATE: Final = 8_000.0  # tokens/s; an 8B model on one large GPU, until this replica has shown its own
STEP_BASE: Final = 0.006  # seconds, likewise
ITL_SLOPE: Final = 0.000_35  # seconds for each running sequence, likewise
STEP_TOKENS: Final = 2_048  # of short prompts that an engine computes together, before any of them has its first token


class Replica:
    """One addressable process or endpoint of a deployment.

    What is ours is exact and counts from the moment of dispatch: `inflight`, `inflight_tokens`, `pending_tokens`. What
    the engine says is as old as its last report: `waiting`, `running`, `kv_used`. The rates are learned from both.
    """

    __slots__ = (
        "busy_since",
        "compute_rate",
        "computed_tokens",
        "cool_until",
        "deployment",
        "ejected_until",
        "inflight",
        "inflight_tokens",
        "itl_slope",
        "kv_tokens",
        "kv_used",
        "max_running",
        "name",
        "others_running",
        "others_waiting",
        "pending_tokens",
        "prefill_rate",
        "prompts",
        "ramp",
        "rate_limited",
        "ready",
        "running",
        "step_base",
        "waiting",
        "weight",
    )

    def __init__(
        self,
        name: str,
        deployment: str,
        *,
        ready: bool = True,
        inflight: int = 0,
        inflight_tokens: int = 0,
        pending_tokens: int = 0,
        waiting: int = 0,
        running: int = 0,
        kv_used: float = 0.0,
        kv_tokens: int = 0,
        max_running: int = 0,
        prefill_rate: float = PREFILL_RATE,
        step_base: float = STEP_BASE,
        itl_slope: float = ITL_SLOPE,
        weight: float = 1.0,
    ) -> None:
        self.name = name
        self.deployment = deployment
        self.ready = ready
        self.inflight = inflight  # attempts that we have open there now
        self.inflight_tokens = inflight_tokens  # prompt plus expected output tokens of those
        self.pending_tokens = pending_tokens  # uncached prompt tokens of those that have no first token yet
        self.prompts: list[int] = []  # the same of each, in the order in which they were sent
        self.busy_since = inf  # when the first of these began to be computed. Clock.now() seconds; inf: not known
        self.computed_tokens = 0  # uncached prompt tokens of all that had their first token, since the beginning
        self.waiting = waiting  # requests in the engine's own queue, ours among them
        self.running = running  # sequences in its batch, ours among them
        self._tell_others()
        self.kv_used = kv_used  # fraction of its KV blocks that requests hold, 0..1
        self.kv_tokens = kv_tokens  # how many tokens its KV cache has room for; 0: not known, as with a provider
        self.max_running = max_running  # sequences that it computes at once; 0: not known
        self.prefill_rate = prefill_rate  # uncached prompt tokens per second
        self.compute_rate = prefill_rate  # likewise, of the time that steps take longer for prompts
        self.step_base = step_base  # seconds of a decoding step, however few sequences it is for
        self.itl_slope = itl_slope  # seconds that each running sequence adds to it
        self.weight = weight  # its share, under the policy `weighted`; > 0
        self.ramp = 1.0  # slow start: what its cost is multiplied by, >= 1; more than that while it is new or recovered
        self.cool_until = 0.0  # it asked to be left alone until then (Retry-After). Clock.now() seconds
        self.rate_limited = False  # that is because it said 429
        self.ejected_until = 0.0  # it does worse than its like, and is left out until then. Clock.now() seconds

    def __repr__(self) -> str:
        return f"Replica({self.name!r}, {self.deployment!r}, inflight={self.inflight}, ready={self.ready})"

    def started(self, tokens: int, uncached: int, now: float) -> None:
        """An attempt is on its way: `tokens` of prompt and expected output, `uncached` of prompt to compute."""
        self.inflight += 1
        self.inflight_tokens += tokens
        if uncached:
            if not self.prompts:
                self.busy_since = now
            self.prompts.append(uncached)
            self.pending_tokens += uncached

    def first_token(self, uncached: int, now: float) -> None:
        """Its prompt has been computed: what `started` was told is pending no more."""
        self._no_more(uncached, now)
        self.computed_tokens += uncached

    def ended(self, tokens: int, uncached: int, now: float) -> None:
        """It is over. `uncached`: what is still pending of it, so 0 once there was a first token."""
        self.inflight -= 1
        self.inflight_tokens -= tokens
        self._no_more(uncached, now)
        assert self.inflight >= 0, f"{self.name}: more ends than starts"

    def prefill_wait(self, now: float) -> float:
        """Seconds until the prompts sent there are computed, as far as ours go: an engine takes them in their order.

        While no first token comes, no more than the first of them can have been computed, or as many short ones as
        fit into a step. If even that is late, the next will be as late again.
        """
        pending = self.pending_tokens
        since = now - self.busy_since
        if not pending or since <= 0.0:
            return pending / self.prefill_rate
        first = self.prompts[0]
        if first < STEP_TOKENS:
            first = min(pending, STEP_TOKENS)
        late = since - first / self.prefill_rate
        if late <= 0.0:
            return pending / self.prefill_rate - since
        step = self.step_base + self.itl_slope * self.inflight
        return (pending - first) / self.prefill_rate + max(0.0, late - step)

    def _no_more(self, uncached: int, now: float) -> None:
        """Such a prompt is pending no more."""
        if uncached:
            assert uncached in self.prompts, f"{self.name}: more prompt tokens computed than sent"
            self.prompts.remove(uncached)
            self.pending_tokens -= uncached
            self.busy_since = now if self.prompts else inf

    def reported(
        self,
        *,
        waiting: int,
        running: int,
        kv_used: float,
        kv_tokens: int | None = None,
        max_running: int | None = None,
    ) -> None:
        """What the engine says of itself. None: it did not say, and what was known stays."""
        self.waiting, self.running, self.kv_used = waiting, running, kv_used
        self._tell_others()
        if kv_tokens is not None:
            self.kv_tokens = kv_tokens
        if max_running is not None:
            self.max_running = max_running

    def _tell_others(self) -> None:
        """Ours come and go between two reports, and are counted by ourselves: a report is believed about the rest."""
        others = max(0, self.waiting + self.running - self.inflight)
        self.others_waiting: int = min(self.waiting, others)
        self.others_running: int = others - self.others_waiting

    def cool(self, until: float, *, rate_limited: bool) -> None:
        """Leave it alone until then (Clock.now() seconds), and remember whether that is because it said 429."""
        self.cool_until = max(self.cool_until, until)
        self.rate_limited = rate_limited
