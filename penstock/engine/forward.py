"""What every way of computing a step has in common: the batch that goes in, and what comes out."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.batching.scheduler import Step
from penstock.engine.checkpoint import Floats

Ints = NDArray[np.int32]


class Batch(NamedTuple):
    """The tokens of one step, those of each chunk next to each other, in the order of the step.

    `T` tokens, `S` chunks, `B` blocks in the longest block table. A token may attend to its own position and all
    before it.
    """

    ids: Ints
    """[T]"""
    positions: Ints
    """[T]"""
    rows: Ints
    """[T] which chunk each token belongs to."""
    tables: Ints
    """[S, B] the KV blocks of each chunk's sequence, padded with 0."""
    lengths: Ints
    """[S] tokens in each chunk."""
    samples: Ints
    """Which of the T tokens need logits, in order."""


class Forward(Protocol):
    """A model and its KV memory, ready to compute steps."""

    name: str
    """What computes: `avx512`, `avx2`, `portable` or `numpy`."""
    dtype: str

    def compute(self, batch: Batch) -> tuple[Floats, Ints]:
        """Write keys and values of every token, and return the logits of `samples`, [n, vocab_size], with the best
        token of each.

        The best token is -1 where logits are not numbers. The arrays are overwritten by the next call.
        """
        ...


def make_batch(step: Step) -> Batch:
    """Lay out a step's tokens and block tables as arrays."""
    ids: list[int] = []
    positions: list[int] = []
    samples: list[int] = []
    lengths = [chunk.length for chunk in step.chunks]
    width = max(len(chunk.sequence.blocks) for chunk in step.chunks)
    tables = np.zeros((len(lengths), width), np.int32)
    for row, chunk in enumerate(step.chunks):
        sequence, start, length = chunk.sequence, chunk.start, chunk.length
        if length == 1:
            ids.append(sequence.tokens[start])
            positions.append(start)
        else:
            ids += sequence.tokens[start : start + length]
            positions += range(start, start + length)
        tables[row, : len(sequence.blocks)] = sequence.blocks
        if chunk.samples:
            samples.append(len(ids) - 1)
    return Batch(
        ids=np.array(ids, np.int32),
        positions=np.array(positions, np.int32),
        rows=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        tables=tables,
        lengths=np.array(lengths, np.int32),
        samples=np.array(samples, np.int32),
    )
