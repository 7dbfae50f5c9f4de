"""The same forward pass in NumPy and float32: what the compiled kernels are checked against, and what runs without a
compiler.

Matrix products are over all tokens of a step. Attention of decoding sequences is one padded product, that of prefill
chunks one each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.engine.checkpoint import Checkpoint, Floats
from penstock.engine.forward import Batch, Ints
from penstock.engine.model import (
    Linear,
    ModelConfig,
    read_embedding,
    read_final_norm,
    read_head,
    read_layers,
    rope_table,
)

Bools = NDArray[np.bool_]


class NumpyForward:
    """Implements `Forward`."""

    name = "numpy"
    dtype = "float32"

    def __init__(
        self, checkpoint: Checkpoint, config: ModelConfig, *, n_blocks: int, block_size: int, max_positions: int
    ) -> None:
        self._config = config
        self._block_size = block_size
        self._embedding = read_embedding(checkpoint, config)
        self._layers = list(read_layers(checkpoint, config))
        self._final_norm = read_final_norm(checkpoint, config)
        self._head = read_head(checkpoint, config, self._embedding)
        self._rope = rope_table(config, max_positions)
        shape = (config.n_layers, n_blocks, block_size, config.n_kv_heads, config.head_dim)
        self._keys = np.zeros(shape, np.float32)
        self._values = np.zeros(shape, np.float32)

    def compute(self, batch: Batch) -> tuple[Floats, Ints]:
        config = self._config
        x = self._embedding[batch.ids]
        table = self._rope[batch.positions][:, None, :]
        cos, sin = table[..., : config.head_dim // 2], table[..., config.head_dim // 2 :]
        n_query, n_key = config.n_heads, config.n_kv_heads
        blocks = batch.tables[batch.rows, batch.positions // self._block_size]
        offsets = batch.positions % self._block_size
        plan = _AttentionPlan(batch, self._block_size)
        for index, layer in enumerate(self._layers):
            heads = _linear(self._norm(x, layer.input_norm), layer.qkv)
            heads = heads.reshape(len(x), n_query + 2 * n_key, config.head_dim)
            query, key = heads[:, :n_query], heads[:, n_query : n_query + n_key]
            if layer.query_norm is not None and layer.key_norm is not None:
                query, key = self._norm(query, layer.query_norm), self._norm(key, layer.key_norm)
            query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
            self._keys[index, blocks, offsets] = key
            self._values[index, blocks, offsets] = heads[:, n_query + n_key :]
            attended = self._attend(plan, query, self._keys[index], self._values[index])
            x = x + _linear(attended.reshape(len(x), -1), layer.output)
            gate_up = _linear(self._norm(x, layer.post_norm), layer.gate_up)
            gate, up = gate_up[:, : config.intermediate_size], gate_up[:, config.intermediate_size :]
            x = x + _linear(_silu(gate) * up, layer.down)
        logits = _linear(self._norm(x[batch.samples], self._final_norm), self._head)
        best = logits.argmax(axis=1).astype(np.int32) if len(logits) else np.zeros(0, np.int32)
        best[~np.isfinite(logits).all(axis=1)] = -1
        return logits, best

    def _norm(self, x: Floats, weight: Floats) -> Floats:
        """RMSNorm over the last axis (Zhang and Sennrich, 2019)."""
        variance = np.mean(np.square(x), axis=-1, keepdims=True)
        normed: Floats = x / np.sqrt(variance + np.float32(self._config.rms_norm_eps)) * weight
        return normed

    def _attend(self, plan: _AttentionPlan, query: Floats, keys: Floats, values: Floats) -> Floats:
        """`query` is [T, heads, head_dim]; `keys` and `values` are one layer's blocks. Returns what `query` looks
        like.
        """
        config = self._config
        group = config.n_heads // config.n_kv_heads
        grouped = query.reshape(len(query), config.n_kv_heads, group, config.head_dim)
        result = np.empty_like(grouped)
        for tokens, tables, mask, beyond in plan.parts:
            # [sequences, kv heads, tokens x group, head_dim], so that one product serves a whole group of heads.
            n, per = len(tables), len(tokens) // len(tables)
            asked = grouped[tokens].reshape(n, per, config.n_kv_heads, group, config.head_dim).swapaxes(1, 2)
            asked = asked.reshape(n, config.n_kv_heads, per * group, config.head_dim)
            known = keys[tables].reshape(n, -1, config.n_kv_heads, config.head_dim).transpose(0, 2, 3, 1)
            scores = asked @ known * np.float32(config.head_dim**-0.5)
            scores = np.where(np.repeat(mask, group, axis=1)[:, None], scores, np.float32(-np.inf))
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            gathered = values[tables].reshape(n, -1, config.n_kv_heads, config.head_dim)
            # Their weight is 0, but a sequence before may have left infinities there, and 0 times that is no number.
            gathered[beyond] = 0
            mixed = scores @ gathered.swapaxes(1, 2)
            mixed = mixed.reshape(n, config.n_kv_heads, per, group, config.head_dim).swapaxes(1, 2)
            result[tokens] = mixed.reshape(len(tokens), config.n_kv_heads, group, config.head_dim)
        return result.reshape(query.shape)


class _AttentionPlan:
    """Which tokens attend together: their indices, block tables, [sequences, tokens of each, context] what each may
    see, and [sequences, context] what none of a sequence may see.
    """

    def __init__(self, batch: Batch, block_size: int) -> None:
        self.parts: list[tuple[Ints, Ints, Bools, Bools]] = []
        ends = np.cumsum(batch.lengths)
        singles = np.flatnonzero(batch.lengths == 1)
        if len(singles):
            tokens = (ends[singles] - 1).astype(np.int32)
            self._add(batch, tokens, batch.tables[singles], batch.positions[tokens][:, None], block_size)
        for row in np.flatnonzero(batch.lengths > 1):
            tokens = np.arange(ends[row] - batch.lengths[row], ends[row], dtype=np.int32)
            self._add(batch, tokens, batch.tables[row : row + 1], batch.positions[tokens][None], block_size)

    def _add(self, batch: Batch, tokens: Ints, tables: Ints, positions: Ints, block_size: int) -> None:
        width = int(positions.max()) // block_size + 1
        context = np.arange(width * block_size)
        beyond = context > positions.max(axis=1)[:, None]
        self.parts.append((tokens, tables[:, :width], context <= positions[..., None], beyond))


def _linear(x: Floats, linear: Linear) -> Floats:
    result: Floats = x @ linear.weight.T
    return result if linear.bias is None else result + linear.bias


def _rotate(heads: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotary embedding of [T, heads, head_dim] in the layout of Hugging Face: the halves of a head are the pairs."""
    half = heads.shape[-1] // 2
    first, second = heads[..., :half], heads[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _silu(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp(88) is infinity in float32, and x / infinity is the 0 that is meant
        return np.divide(x, 1.0 + np.exp(-x), dtype=np.float32)
