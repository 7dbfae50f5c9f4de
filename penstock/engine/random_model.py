"""Writes a checkpoint with random weights, of any size: for tests, and to measure an engine before the real model is
there.

The files are what Hugging Face transformers would load, so the same random model can be run there for comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HuggingFaceTokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class RandomModel(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a random model; the words are those of config.json."""

    architecture: str = "LlamaForCausalLM"
    vocab_size: int = 320
    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int | None = None
    max_position_embeddings: int = 512
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    dtype: str = "bfloat16"
    n_shards: int = 1


def write_random_model(directory: Path, model: RandomModel, seed: int = 0) -> None:
    """Create `directory` with config.json, safetensors files and a tokenizer. The same seed writes the same files."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.PCG64(seed))
    head_dim = model.head_dim or model.hidden_size // model.num_attention_heads
    tensors = {name: _draw(name, shape, rng) for name, shape in _shapes(model, head_dim).items()}
    _write_json(directory / "config.json", _config(model, head_dim))
    _write_shards(directory, tensors, model.n_shards, model.dtype)
    _write_tokenizer(directory, model.vocab_size)


def _config(model: RandomModel, head_dim: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [model.architecture],
        "model_type": model.architecture.removesuffix("ForCausalLM").lower(),
        "hidden_act": "silu",
        "head_dim": head_dim,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "torch_dtype": model.dtype,
        "attention_bias": model.qkv_bias,
        "mlp_bias": model.mlp_bias,
    }
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
        "tie_word_embeddings",
    ):
        config[name] = getattr(model, name)
    return config


def _shapes(model: RandomModel, head_dim: int) -> dict[str, tuple[int, ...]]:
    hidden, inner = model.hidden_size, model.intermediate_size
    queries, keys = model.num_attention_heads * head_dim, model.num_key_value_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (model.vocab_size, hidden)}
    for index in range(model.num_hidden_layers):
        layer = f"model.layers.{index}."
        for name, outputs, inputs, biased in (
            ("self_attn.q_proj", queries, hidden, model.qkv_bias),
            ("self_attn.k_proj", keys, hidden, model.qkv_bias),
            ("self_attn.v_proj", keys, hidden, model.qkv_bias),
            ("self_attn.o_proj", hidden, queries, model.output_bias),
            ("mlp.gate_proj", inner, hidden, model.mlp_bias),
            ("mlp.up_proj", inner, hidden, model.mlp_bias),
            ("mlp.down_proj", hidden, inner, model.mlp_bias),
        ):
            shapes[f"{layer}{name}.weight"] = (outputs, inputs)
            if biased:
                shapes[f"{layer}{name}.bias"] = (outputs,)
        shapes[layer + "input_layernorm.weight"] = (hidden,)
        shapes[layer + "post_attention_layernorm.weight"] = (hidden,)
        if model.qk_norm:
            shapes[layer + "self_attn.q_norm.weight"] = (head_dim,)
            shapes[layer + "self_attn.k_norm.weight"] = (head_dim,)
    shapes["model.norm.weight"] = (hidden,)
    if not model.tie_word_embeddings:
        shapes["lm_head.weight"] = (model.vocab_size, hidden)
    return shapes


def _draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Large enough that the output depends on the whole context, which small weights would not give."""
    if name.endswith("norm.weight"):
        return (1.0 + 0.1 * rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)
    if name.endswith(".bias"):
        return 0.1 * rng.standard_normal(shape, dtype=np.float32)
    scale = 0.2 if "embed_tokens" in name else 1.5 / shape[-1] ** 0.5
    return (scale * rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)


def _write_shards(directory: Path, tensors: dict[str, Any], n_shards: int, dtype: str) -> None:
    names = sorted(tensors)
    if n_shards == 1:
        write_safetensors(directory / "model.safetensors", tensors, dtype)
        return
    weight_map: dict[str, str] = {}
    for index in range(n_shards):
        file = f"model-{index + 1:05}-of-{n_shards:05}.safetensors"
        part = {name: tensors[name] for name in names[index::n_shards]}
        write_safetensors(directory / file, part, dtype)
        weight_map |= dict.fromkeys(part, file)
    _write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def write_safetensors(path: Path, tensors: dict[str, Any], dtype: str) -> None:
    """`dtype` is `bfloat16` (rounded to nearest even), `float16` or `float32`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    position = 0
    for name in sorted(tensors):
        data = _encode(tensors[name], dtype)
        kind = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[dtype]
        end = position + len(data)
        header[name] = {"dtype": kind, "shape": list(tensors[name].shape), "data_offsets": [position, end]}
        parts.append(data)
        position = end
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))


def _encode(values: np.ndarray[Any, np.dtype[np.float32]], dtype: str) -> bytes:
    if dtype == "float32":
        return values.astype("<f4").tobytes()
    if dtype == "float16":
        return values.astype("<f2").tobytes()
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _write_tokenizer(directory: Path, vocab_size: int) -> None:
    """Byte-level, with the bytes and the special tokens; the rest of the vocabulary are pairs of letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    merges: list[tuple[str, str]] = []
    letters = "etaoinsrhldcumfpgwybvkxjqz"
    pairs = ((a, b) for first in ("Ġ", "") for a in (first or letters) for b in letters)
    for a, b in pairs:
        if len(vocabulary) >= vocab_size:
            break
        vocabulary[a + b] = len(vocabulary)
        merges.append((a, b))
    tokenizer = HuggingFaceTokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL_TOKENS[0],
        "eos_token": SPECIAL_TOKENS[2],
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    }
    _write_json(directory / "tokenizer_config.json", config)


def _write_json(path: Path, value: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
