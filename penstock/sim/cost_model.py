"""How long an engine's step takes, by what it computes, and how much the engine holds: the `engine_model:` of a
scenario, fitted by `penstock profile` from a live engine, or taken from the table of measured hardware.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.batching.options import BatchingOptions

PICOSECONDS: Final = 1_000_000_000_000
UNBOUNDED: Final = 1 << 30


class CostModel(msgspec.Struct, frozen=True, kw_only=True):
    """A step takes `step + per_sequence * decoding + per_prefill_token * prompt tokens + per_context_token * tokens
    that the decoding sequences attend to`. Seconds; the rest in tokens.
    """

    step: float
    per_sequence: float
    per_prefill_token: float
    per_context_token: float = 0.0
    overhead: float = 0.0  # from sending a request until its engine knows of it: the network, and the server around it
    kv_tokens: int = 524_288
    block_size: int = 512
    max_seqs: int = 256
    max_batched_tokens: int = 2_048
    max_waiting: int = UNBOUNDED
    prefix_cache: bool = True

    @property
    def batching(self) -> BatchingOptions:
        """Raises `ValueError` for sizes that no engine could have."""
        return BatchingOptions(
            n_blocks=self.kv_tokens // self.block_size,
            block_size=self.block_size,
            max_seqs=self.max_seqs,
            max_batched_tokens=self.max_batched_tokens,
            max_waiting=self.max_waiting,
            prefix_cache=self.prefix_cache,
        )


# Of the studies that Penstock's routing is measured against. A: the defaults of smg's mock worker.
MODEL_A: Final = CostModel(step=0.006, per_sequence=0.000_35, per_prefill_token=1 / 8_000)
MODEL_B: Final = CostModel(
    step=0.008, per_sequence=0.000_2, per_prefill_token=1 / 24_000, max_batched_tokens=8_192, kv_tokens=1_048_576
)
