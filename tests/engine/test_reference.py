"""The embedded engine beside Hugging Face transformers, whose tokens and logits bench/reference.py recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence as ListOf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.batching.options import BatchingOptions
from penstock.batching.scheduler import Scheduler
from penstock.batching.sequence import new_sequence
from penstock.engine.checkpoint import Checkpoint
from penstock.engine.forward import Forward, make_batch
from penstock.engine.kernels import BUILDS, CompiledForward, Kernels, find_kernels
from penstock.engine.model import read_config, refuse_unused
from penstock.engine.numpy_reference import NumpyForward
from penstock.engine.random_model import RandomModel, write_random_model

FIXTURES = Path(__file__).parent / "fixtures"
MODELS = sorted(path.name for path in FIXTURES.iterdir())
BUILT = [name for name in BUILDS if isinstance(find_kernels(name), Kernels)]  # type: ignore[arg-type]  # names of BUILDS

# Fractions of the logits' standard deviation, twice what bench/reference.py finds. transformers' own bf16 is at 0.02.
CLOSE = {"float32": 1e-5, "bf16": 0.03, "int8": 0.1}


def forward(model: str | Path, build: str, dtype: Any = "float32", threads: int = 1) -> Forward:
    checkpoint = Checkpoint(FIXTURES / model)
    config = read_config(FIXTURES / model)
    try:
        if build == "numpy":
            return NumpyForward(checkpoint, config, n_blocks=64, block_size=16, max_positions=256)
        kernels = find_kernels(build)  # type: ignore[arg-type]
        assert isinstance(kernels, Kernels)
        sizes: Any = {"n_blocks": 64, "max_positions": 256, "max_batched_tokens": 128, "threads": threads}
        made = CompiledForward(kernels, checkpoint, config, dtype=dtype, **sizes)
        refuse_unused(checkpoint)
        return made
    finally:
        checkpoint.close()


def expected(model: str) -> tuple[list[list[int]], list[list[int]], Any]:
    told = json.loads((FIXTURES / model / "expected.json").read_text())
    return told["prompts"], told["tokens"], np.load(FIXTURES / model / "expected.npz")["logits"]


class Run:
    """Greedy tokens and logits of some prompts, computed together."""

    def __init__(
        self,
        computes: Forward,
        prompts: ListOf[list[int]],
        n_tokens: int = 24,
        *,
        forced: ListOf[list[int]] | None = None,
        **options: Any,
    ) -> None:
        self.scheduler = Scheduler(
            BatchingOptions(**{"n_blocks": 64, "max_seqs": 8, "max_batched_tokens": 64, **options})
        )
        self.sequences = [new_sequence(str(index), prompt, n_tokens) for index, prompt in enumerate(prompts)]
        self.logits: list[list[Any]] = [[] for _ in prompts]
        for sequence in self.sequences:
            self.scheduler.add(sequence)
        while self.scheduler.has_work:
            step = self.scheduler.plan()
            logits, best = computes.compute(make_batch(step))
            tokens: list[int] = best.tolist()
            for row, chunk in enumerate(chunk for chunk in step.chunks if chunk.samples):
                index = int(chunk.sequence.id)
                self.logits[index].append(logits[row].copy())
                if forced is not None:
                    tokens[row] = forced[index][chunk.sequence.generated]
            self.scheduler.commit(step, tokens)
            for sequence in self.sequences:
                if sequence.generated == n_tokens:
                    self.scheduler.end(sequence)
        self.tokens = [sequence.tokens[sequence.prompt_length :] for sequence in self.sequences]

    def bits(self) -> list[list[bytes]]:
        return [[row.tobytes() for row in rows] for rows in self.logits]


@pytest.mark.parametrize("build", ["numpy", *BUILT])
@pytest.mark.parametrize("model", MODELS)
def test_in_float32_every_token_is_that_of_transformers(model, build):
    prompts, tokens, logits = expected(model)
    run = Run(forward(model, build), prompts)
    assert run.tokens == tokens
    off = np.abs(np.array(run.logits[0][: len(logits)]) - logits).mean() / logits.std()
    assert off < CLOSE["float32"]


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
@pytest.mark.parametrize("build", BUILT)
@pytest.mark.parametrize("model", MODELS)
def test_with_fewer_bits_logits_stay_close_to_those_of_transformers(model, build, dtype):
    prompts, tokens, logits = expected(model)
    run = Run(forward(model, build, dtype), prompts[:1], len(logits), forced=tokens)
    off = np.abs(np.array(run.logits[0]) - logits).mean() / logits.std()
    assert off < CLOSE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("build", BUILT)
@pytest.mark.parametrize("model", ["llama-gqa", "llama-biases", "llama-mqa-sharded"])
def test_logits_are_the_same_to_the_last_bit_however_they_were_computed(model, build, dtype):
    prompts, _, _ = expected(model)
    computes = forward(model, build, dtype)
    together = Run(computes, prompts)
    alone = [Run(computes, [prompt]) for prompt in prompts]
    assert [run.bits()[0] for run in alone] == together.bits(), "alone"

    in_small_chunks = Run(computes, prompts, max_batched_tokens=9)
    assert in_small_chunks.bits() == together.bits(), "in chunks"

    tight = Run(computes, prompts, n_blocks=14)
    assert tight.scheduler.stats().preemptions > 0
    assert tight.tokens == together.tokens, "after preemption"
    assert tight.bits() == together.bits(), "after preemption"

    longer = [*prompts[3][:60], 5, 6]
    twice = Run(computes, [prompts[3], longer], max_seqs=1)
    assert twice.scheduler.stats().prefix_hit_tokens == 48
    assert twice.bits()[1] == Run(computes, [longer]).bits()[0], "with a known prefix"


@pytest.mark.parametrize("model", MODELS)
def test_in_numpy_tokens_are_the_same_however_they_were_computed(model):
    prompts, tokens, _ = expected(model)
    computes = forward(model, "numpy")
    assert [Run(computes, [prompt]).tokens[0] for prompt in prompts] == tokens
    assert Run(computes, prompts, max_batched_tokens=9).tokens == tokens
    assert Run(computes, prompts, n_blocks=14).tokens == tokens


@pytest.mark.parametrize("dtype", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("build", BUILT)
def test_several_threads_compute_the_same_bits_as_one(build, dtype):
    prompts, _, _ = expected("llama-gqa")
    one, three = (Run(forward("llama-gqa", build, dtype, threads), prompts, 6).bits() for threads in (1, 3))
    assert one == three


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
@pytest.mark.parametrize("build", ["numpy", *BUILT])
def test_what_a_kv_block_held_before_never_matters_not_even_when_it_is_not_a_number(build, dtype):
    prompts, _, _ = expected("llama-gqa")
    clean = Run(forward("llama-gqa", build, dtype), prompts)
    computes: Any = forward("llama-gqa", build, dtype)
    for memory in (computes._keys, computes._values):
        memory.view(np.uint8)[...] = 0xFF  # not a number, in every type
    assert Run(computes, prompts).tokens == clean.tokens


@pytest.mark.parametrize("build", BUILT)
def test_a_step_that_is_larger_than_the_workspace_is_refused_before_it_is_computed(build):
    computes = forward("llama-gqa", build)
    with pytest.raises(ValueError, match="128 tokens"):
        Run(computes, [[1] * 200], 1, max_batched_tokens=200)


@pytest.mark.parametrize("build", ["numpy", *BUILT])
def test_logits_that_are_not_numbers_have_no_likeliest_token(build, tmp_path):
    write_random_model(tmp_path / "broken", RandomModel(dtype="float32"), 1)
    weights = tmp_path / "broken" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4:] = np.float32("inf").tobytes()
    weights.write_bytes(data)
    computes = forward(tmp_path / "broken", build)
    scheduler = Scheduler(BatchingOptions(n_blocks=64))
    scheduler.add(new_sequence("a", [1, 2, 3], 2))
    with np.errstate(all="ignore"):
        _, best = computes.compute(make_batch(scheduler.plan()))
    assert best.tolist() == [-1]
