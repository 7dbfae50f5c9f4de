"""How much an engine may hold and compute at once. Pure data: the configuration and the simulator import it."""

from __future__ import annotations

import msgspec


class BatchingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of one scheduler. Raises `ValueError` for a combination that could not make progress."""

    n_blocks: int
    """KV blocks in the pool."""
    block_size: int = 16
    """Tokens per KV block."""
    max_seqs: int = 64
    """Sequences computed at the same time."""
    max_batched_tokens: int = 512
    """Tokens computed in one step, over all sequences. Smaller keeps decoding smooth, larger prefills faster."""
    max_waiting: int = 1024
    """Sequences that may wait; one more is refused."""
    prefix_cache: bool = True

    def __post_init__(self) -> None:
        for name in ("n_blocks", "block_size", "max_seqs", "max_batched_tokens", "max_waiting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_batched_tokens < self.max_seqs:
            raise ValueError(
                f"max_batched_tokens ({self.max_batched_tokens}) must be at least max_seqs ({self.max_seqs}): "
                "every decoding sequence needs one token of each step"
            )

    @property
    def capacity(self) -> int:
        """Tokens that fit into the pool."""
        return self.n_blocks * self.block_size
