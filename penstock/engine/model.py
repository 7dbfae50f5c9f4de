"""The Llama family as numbers: what config.json means, which of it is supported, and the weights of each layer.

Whatever this engine does not compute is refused by name. A silently ignored setting would give wrong answers that look
right.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from penstock.engine.checkpoint import Checkpoint, CheckpointError, Floats, read_json

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


class RopeScaling(msgspec.Struct, frozen=True):
    """How rotary frequencies are stretched for long contexts. `kind` is `default`, `linear` or `llama3`."""

    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_positions: int
    rope_theta: float
    rope_scaling: RopeScaling
    tied_embeddings: bool
    qk_norm: bool
    eos_token_ids: tuple[int, ...]


class Linear(NamedTuple):
    """`weight` is [outputs, inputs]; `bias` is [outputs]."""

    weight: Floats
    bias: Floats | None


class LayerWeights(NamedTuple):
    """One decoder layer. Query, key and value are one matrix, stacked in this order; so are gate and up."""

    input_norm: Floats
    qkv: Linear
    output: Linear
    post_norm: Floats
    gate_up: Linear
    down: Linear
    query_norm: Floats | None
    key_norm: Floats | None


class _Fields:
    """Reads config.json field by field, with errors that name the field."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    def number(self, name: str, default: float | None = None) -> float:
        value = self.values.get(name)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise CheckpointError(f"{self.path}: {name} should be a number above 0, is {value!r}")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        value = self.number(name, default)
        if value != int(value):
            raise CheckpointError(f"{self.path}: {name} should be a whole number, is {value!r}")
        return int(value)

    def refuse(self, name: str, value: object, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {name} = {value!r} is not supported by the embedded engine: {why}")


def read_config(directory: Path) -> ModelConfig:
    """The sizes in config.json, and the end tokens in generation_config.json. Raises `CheckpointError`."""
    path = directory / "config.json"
    values = read_json(path)
    fields = _Fields(path, values)
    architecture = _architecture(fields)
    _refuse_unsupported(fields)
    hidden_size = fields.count("hidden_size")
    n_heads = fields.count("num_attention_heads")
    n_kv_heads = fields.count("num_key_value_heads", n_heads)
    if values.get("head_dim") is None and hidden_size % n_heads:
        raise CheckpointError(f"{path}: hidden_size {hidden_size} is not a multiple of num_attention_heads {n_heads}")
    head_dim = fields.count("head_dim", hidden_size // n_heads)
    if n_heads % n_kv_heads:
        raise CheckpointError(
            f"{path}: num_attention_heads {n_heads} is not a multiple of num_key_value_heads {n_kv_heads}"
        )
    if head_dim % 2:
        raise fields.refuse("head_dim", head_dim, "rotary embeddings need an even one")
    theta, scaling = _rope(fields)
    return ModelConfig(
        architecture=architecture,
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.count("intermediate_size"),
        n_layers=fields.count("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        max_positions=fields.count("max_position_embeddings", 2048),
        rope_theta=theta,
        rope_scaling=scaling,
        tied_embeddings=bool(values.get("tie_word_embeddings", False)),
        qk_norm=architecture == "qwen3",
        eos_token_ids=_eos_token_ids(directory, fields),
    )


def _architecture(fields: _Fields) -> str:
    names = fields.values.get("architectures") or []
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    model_type = fields.values.get("model_type")
    if not names and model_type in ARCHITECTURES.values():
        return str(model_type)
    raise fields.refuse(
        "architectures", names or model_type, f"it knows {', '.join(ARCHITECTURES)}. Serve it with another engine"
    )


def _refuse_unsupported(fields: _Fields) -> None:
    values = fields.values
    if values.get("hidden_act", "silu") not in ("silu", "swish"):
        raise fields.refuse("hidden_act", values["hidden_act"], "only silu")
    window = values.get("sliding_window")
    window_used = values.get("use_sliding_window", values.get("model_type") == "mistral")
    if window and window_used and window < values.get("max_position_embeddings", 2048):
        raise fields.refuse("sliding_window", window, "only attention to the whole context")
    for kind in values.get("layer_types") or ():
        if kind != "full_attention":
            raise fields.refuse("layer_types", kind, "only full_attention")
    if values.get("quantization_config"):
        method = values["quantization_config"]
        raise fields.refuse("quantization_config", method, "use the original checkpoint with `dtype: int8`")
    if values.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise fields.refuse("partial_rotary_factor", values["partial_rotary_factor"], "only 1.0")
    for name in ("num_experts", "num_local_experts"):
        if values.get(name):
            raise fields.refuse(name, values[name], "only dense models")


def _rope(fields: _Fields) -> tuple[float, RopeScaling]:
    """Theta and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    values = fields.values
    found = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise fields.refuse("rope_scaling", found, "it should be an object")
    inner = _Fields(fields.path, {"rope_theta": values.get("rope_theta"), **found})
    theta = float(inner.number("rope_theta", 10_000.0))
    kind = found.get("rope_type", found.get("type", "default"))
    if kind == "default":
        return theta, RopeScaling()
    if kind == "linear":
        return theta, RopeScaling("linear", inner.number("factor"))
    if kind == "llama3":
        return theta, RopeScaling(
            "llama3",
            inner.number("factor"),
            inner.number("low_freq_factor"),
            inner.number("high_freq_factor"),
            inner.count("original_max_position_embeddings"),
        )
    raise fields.refuse("rope_scaling", kind, "only default, linear and llama3")


def _eos_token_ids(directory: Path, fields: _Fields) -> tuple[int, ...]:
    found: list[int] = []
    sources = [fields.values]
    generation = directory / "generation_config.json"
    if generation.exists():
        sources.append(read_json(generation))
    for values in sources:
        value = values.get("eos_token_id")
        for token in value if isinstance(value, list) else [value]:
            if isinstance(token, int) and token not in found:
                found.append(token)
    return tuple(found)


def inverse_frequencies(config: ModelConfig) -> Floats:
    """Rotary frequencies, [head_dim / 2], after scaling. The `llama3` rule is that of transformers'
    modeling_rope_utils.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    inverse: Floats = (1.0 / np.power(np.float32(config.rope_theta), exponents)).astype(np.float32)
    scaling = config.rope_scaling
    if scaling.kind == "linear":
        inverse = (inverse / np.float32(scaling.factor)).astype(np.float32)
    if scaling.kind == "llama3":
        wavelength = 2 * np.pi / inverse
        low = scaling.original_max_positions / scaling.low_freq_factor
        high = scaling.original_max_positions / scaling.high_freq_factor
        smooth = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        between = (1 - smooth) * inverse / scaling.factor + smooth * inverse
        slow = np.where(wavelength > low, inverse / scaling.factor, between)
        inverse = np.where(wavelength < high, inverse, slow).astype(np.float32)
    return inverse


def rope_table(config: ModelConfig, n_positions: int) -> Floats:
    """Cosines and sines for every position, [n_positions, head_dim]: head_dim / 2 cosines, then as many sines."""
    positions = np.arange(n_positions, dtype=np.float32)
    angles: Floats = np.outer(positions, inverse_frequencies(config)).astype(np.float32)
    return np.ascontiguousarray(np.concatenate([np.cos(angles), np.sin(angles)], axis=1))


def read_embedding(checkpoint: Checkpoint, config: ModelConfig) -> Floats:
    """[vocab_size, hidden_size]"""
    return checkpoint.tensor("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))


def read_final_norm(checkpoint: Checkpoint, config: ModelConfig) -> Floats:
    return checkpoint.tensor("model.norm.weight", (config.hidden_size,))


def read_head(checkpoint: Checkpoint, config: ModelConfig, embedding: Floats) -> Linear:
    """The matrix that makes logits: its own, or the embedding where both are tied."""
    if config.tied_embeddings:
        checkpoint.skip("lm_head.weight")
        return Linear(embedding, None)
    return Linear(checkpoint.tensor("lm_head.weight", (config.vocab_size, config.hidden_size)), None)


def read_layers(checkpoint: Checkpoint, config: ModelConfig) -> Iterator[LayerWeights]:
    """Layer by layer, so that only one is held in float32 at a time."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    for index in range(config.n_layers):
        prefix = f"model.layers.{index}."
        checkpoint.skip(prefix + "self_attn.rotary_emb.inv_freq")

        def linear(*parts: tuple[str, int], inputs: int, prefix: str = prefix) -> Linear:
            weights = [checkpoint.tensor(f"{prefix}{name}.weight", (outputs, inputs)) for name, outputs in parts]
            biases = [f"{prefix}{name}.bias" for name, _ in parts]
            if not any(name in checkpoint for name in biases):
                return Linear(np.concatenate(weights), None)
            values = [checkpoint.tensor(name, (outputs,)) for name, (_, outputs) in zip(biases, parts, strict=True)]
            return Linear(np.concatenate(weights), np.concatenate(values))

        def norm(name: str, size: int, prefix: str = prefix) -> Floats:
            return checkpoint.tensor(f"{prefix}{name}.weight", (size,))

        yield LayerWeights(
            input_norm=norm("input_layernorm", hidden),
            qkv=linear(
                ("self_attn.q_proj", queries), ("self_attn.k_proj", keys), ("self_attn.v_proj", keys), inputs=hidden
            ),
            output=linear(("self_attn.o_proj", hidden), inputs=queries),
            post_norm=norm("post_attention_layernorm", hidden),
            gate_up=linear(("mlp.gate_proj", inner), ("mlp.up_proj", inner), inputs=hidden),
            down=linear(("mlp.down_proj", hidden), inputs=inner),
            query_norm=norm("self_attn.q_norm", config.head_dim) if config.qk_norm else None,
            key_norm=norm("self_attn.k_norm", config.head_dim) if config.qk_norm else None,
        )


def refuse_unused(checkpoint: Checkpoint) -> None:
    """Raises `CheckpointError` when the files hold weights that nothing used: computing without them would be wrong."""
    if unused := checkpoint.unused:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        raise CheckpointError(
            f"{checkpoint.directory} holds weights that the embedded engine does not know: {unused[0]!r}{more}"
        )
