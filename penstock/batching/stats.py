"""A moment of a scheduler, for reports. Apart from it, because the scheduler is compiled and this is a Struct."""

from __future__ import annotations

import msgspec


class SchedulerStats(msgspec.Struct, frozen=True):
    """A moment of a scheduler, and totals since it was made. Totals are in tokens where the name says so."""

    waiting: int
    running: int
    kv_used: float
    """Fraction of KV blocks held, 0..1."""
    prompt_tokens: int
    """Prompt tokens of all sequences admitted, each counted once."""
    prefix_hit_tokens: int
    """Those among `prompt_tokens` that were found in the prefix cache."""
    computed_tokens: int
    generated_tokens: int
    preemptions: int
