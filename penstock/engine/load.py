"""From a model's directory to something that computes: reads the checkpoint once, for the kernels or for NumPy."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from penstock.batching.options import BatchingOptions
from penstock.engine.checkpoint import Checkpoint, CheckpointError
from penstock.engine.forward import Forward
from penstock.engine.kernels import CompiledForward, find_kernels, unfit
from penstock.engine.model import ModelConfig, read_config, refuse_unused
from penstock.engine.numpy_reference import NumpyForward
from penstock.engine.options import EngineOptions
from penstock.engine.tokenizer import Tokenizer

BUNDLED = ("tiny", "tiny-small")
BLOCK_SIZE = 16  # the kernels are written for it


class LoadedModel(NamedTuple):
    """A model that is ready to compute. `notes` are sentences that a person should read."""

    names: tuple[str, ...]
    config: ModelConfig
    forward: Forward
    tokenizer: Tokenizer
    batching: BatchingOptions
    parameters: int
    max_model_len: int
    notes: tuple[str, ...]


def model_directory(model: str) -> Path:
    """Where a model lies, by path or by the name of a bundled one. Raises `CheckpointError`."""
    path = Path(model).expanduser()
    if model in BUNDLED and not path.exists():
        bundled = Path(str(resources.files("penstock.engine"))) / "bundled" / model
        if not bundled.is_dir():
            raise CheckpointError(f"the bundled model {model!r} is not part of this installation")
        return bundled
    if not path.is_dir():
        raise CheckpointError(
            f"there is no model at {model!r}: give the path of a directory, or one of {', '.join(BUNDLED)}"
        )
    return path


def load_model(options: EngineOptions, today: Callable[[str], str]) -> LoadedModel:
    """Raises `CheckpointError` for files that cannot be used. Takes seconds for a large model."""
    directory = model_directory(options.model)
    config = read_config(directory)
    tokenizer = Tokenizer(directory, config.vocab_size, today)
    batching = BatchingOptions(
        n_blocks=-(-options.kv_tokens // BLOCK_SIZE),
        block_size=BLOCK_SIZE,
        max_seqs=options.max_seqs,
        max_batched_tokens=options.max_batched_tokens,
        max_waiting=options.max_waiting,
        prefix_cache=options.prefix_cache,
    )
    max_model_len = _max_model_len(options, config, batching)
    notes: list[str] = []
    checkpoint = Checkpoint(directory)
    try:
        forward = _forward(checkpoint, config, options, batching.n_blocks, max_model_len, notes)
        refuse_unused(checkpoint)
        parameters = checkpoint.parameters
    except MemoryError:
        raise CheckpointError(
            f"there is not enough memory for {directory} with kv_tokens {options.kv_tokens}: "
            "give fewer kv_tokens, or take a smaller model"
        ) from None
    finally:
        checkpoint.close()
    names = options.served_names or (directory.resolve().name,)
    return LoadedModel(names, config, forward, tokenizer, batching, parameters, max_model_len, tuple(notes))


def _max_model_len(options: EngineOptions, config: ModelConfig, batching: BatchingOptions) -> int:
    possible = min(config.max_positions, batching.capacity)
    if options.max_model_len > possible:
        raise CheckpointError(
            f"max_model_len {options.max_model_len} is more than the model's {config.max_positions} positions "
            f"or the {batching.capacity} tokens of kv_tokens allow"
        )
    return options.max_model_len or possible


def _forward(
    checkpoint: Checkpoint,
    config: ModelConfig,
    options: EngineOptions,
    n_blocks: int,
    max_positions: int,
    notes: list[str],
) -> Forward:
    found = find_kernels(options.kernels)
    why = found if isinstance(found, str) else unfit(config)
    if isinstance(found, str) or why:
        if options.kernels not in ("auto", "numpy"):
            raise CheckpointError(f"the {options.kernels} kernels cannot be used: {why}")
        if options.kernels == "auto":
            notes.append(f"computing with NumPy in float32, several times slower: {why}")
        return NumpyForward(checkpoint, config, n_blocks=n_blocks, block_size=BLOCK_SIZE, max_positions=max_positions)
    return CompiledForward(
        found,
        checkpoint,
        config,
        dtype=options.dtype,
        n_blocks=n_blocks,
        max_positions=max_positions,
        max_batched_tokens=options.max_batched_tokens,
        threads=options.threads,
    )
