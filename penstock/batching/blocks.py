"""The paged KV block pool: who holds which block, and which free blocks still remember a prefix.

A block with no holder is free, but keeps its contents and its digest until it is needed for something else, so a
prefix can be found again long after the sequence that computed it ended. As in vLLM's paged attention (Kwon et al.,
2023).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from penstock.batching.watch import CacheWatcher


class BlockPool:
    """`n_blocks` blocks, each held by any number of sequences. Blocks are plain integers from 0."""

    __slots__ = ("_by_digest", "_digests", "_free", "_holders", "watcher")

    def __init__(self, n_blocks: int) -> None:
        if n_blocks < 1:
            raise ValueError(f"a pool needs at least one block, not {n_blocks}")
        self._holders = [0] * n_blocks
        self._digests: list[bytes | None] = [None] * n_blocks
        self._by_digest: dict[bytes, int] = {}
        self.watcher: CacheWatcher | None = None  # hears from here what is forgotten
        # The order of reuse, first to go in front: blocks that remember nothing, then the least recently used prefixes.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(n_blocks))

    @property
    def n_blocks(self) -> int:
        return len(self._holders)

    @property
    def available(self) -> int:
        """Blocks without a holder; those that remember a prefix count too, since they can be taken."""
        return len(self._free)

    @property
    def used(self) -> float:
        """The fraction of blocks with a holder, 0..1."""
        return 1.0 - len(self._free) / len(self._holders)

    @property
    def remembered(self) -> int:
        """Blocks that can be found by digest, held or free."""
        return len(self._by_digest)

    def hold_cached(self, digests: Iterable[bytes]) -> list[int]:
        """Hold the blocks of the longest known run from the beginning of `digests`, and return them in order."""
        found: list[int] = []
        for digest in digests:
            block = self._by_digest.get(digest)
            if block is None:
                break
            if self._holders[block] == 0:
                del self._free[block]
            self._holders[block] += 1
            found.append(block)
        return found

    def take(self, n_blocks: int) -> list[int]:
        """Hold `n_blocks` empty blocks; the least recently used prefixes are forgotten for it.

        Raises `ValueError` when fewer are available: ask `available` first.
        """
        if n_blocks > len(self._free):
            raise ValueError(f"{n_blocks} blocks asked for, {len(self._free)} available")
        taken: list[int] = []
        for _ in range(n_blocks):
            block, _ = self._free.popitem(last=False)
            digest = self._digests[block]
            if digest is not None:
                del self._by_digest[digest]
                self._digests[block] = None
                if self.watcher is not None:
                    self.watcher.forgotten(digest)
            self._holders[block] = 1
            taken.append(block)
        return taken

    def remember(self, block: int, digest: bytes) -> bool:
        """Let others find this held, full and computed block. False, and nothing done, when it or another block with
        the same contents can be found already.
        """
        if self._digests[block] is not None or digest in self._by_digest:
            return False
        self._digests[block] = digest
        self._by_digest[digest] = block
        return True

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of a sequence's blocks, given in the order of its tokens.

        The end of a sequence is forgotten before its beginning, because more prompts share beginnings.
        """
        for block in reversed(blocks):
            self._holders[block] -= 1
            assert self._holders[block] >= 0, f"block {block} was released more often than it was held"
            if self._holders[block] == 0:
                self._free[block] = None
                if self._digests[block] is None:
                    self._free.move_to_end(block, last=False)

    def forget_free(self) -> int:
        """Forget every prefix that nobody holds; returns how many blocks that were."""
        forgotten = 0
        for block in self._free:
            digest = self._digests[block]
            if digest is not None:
                del self._by_digest[digest]
                self._digests[block] = None
                if self.watcher is not None:
                    self.watcher.forgotten(digest)
                forgotten += 1
        return forgotten

    def check(self, held: Iterable[Sequence[int]]) -> None:
        """Assert that the pool and the block lists of all its holders tell the same story."""
        counts = Counter(block for blocks in held for block in blocks)
        for block, holders in enumerate(self._holders):
            assert holders == counts[block], f"block {block} counts {holders} holders, {counts[block]} hold it"
            assert (holders == 0) == (block in self._free), f"block {block} with {holders} holders is wrongly listed"
            digest = self._digests[block]
            assert digest is None or self._by_digest.get(digest) == block, (
                f"block {block} cannot be found by its digest"
            )
        assert len(self._by_digest) == sum(digest is not None for digest in self._digests)
