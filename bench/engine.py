"""Tokens per CPU-second of the embedded engine, beside Hugging Face transformers: one request at a time, and padded
batches.

    python bench/peers.py transformers                  installs what to compare with, once
    python bench/engine.py                              --torch-python PATH uses another Python that has transformers
    python bench/engine.py --model DIRECTORY | 100m     another model; 100m makes a random one of that size

Every figure is one thread, in a process of its own: generated tokens by the CPU time of everything after loading. C
requests are in flight, with prompts of 16-128 tokens and answers of 16-256. Machines are noisy: only the ratios mean
something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers import torch_python

ROOT = Path(__file__).resolve().parent.parent
REQUESTS = {1: 3, 8: 24, 32: 64}
# penstock bf16 at C=32 over transformers, for the bundled model. A larger one gains less over padded batches, because
# there both are limited by the same multiplications: what is left is the padding.
TARGETS = {"one at a time": 15.0, "padded batch": 5.0}


def workload(concurrency: int) -> tuple[list[list[int]], list[int]]:
    """Prompts as tokens, and how many tokens to generate for each."""
    rng = random.Random(7)
    n = REQUESTS[concurrency]
    prompts = [[rng.randrange(4, 1_900) for _ in range(rng.randint(16, 128))] for _ in range(n)]
    return prompts, [rng.randint(16, 256) for _ in range(n)]


def run_penstock(model: str, dtype: str, concurrency: int, kernels: str) -> dict[str, Any]:
    """Through the engine's own loop: scheduling, sampling, text and delivery are in the figure, HTTP is not."""
    sys.path.insert(0, str(ROOT))
    from penstock.core.clock import SystemClock
    from penstock.engine.core import EngineCore
    from penstock.engine.load import load_model
    from penstock.engine.options import EngineOptions
    from penstock.engine.sampling import SamplingParams

    sys.setswitchinterval(0.0005)
    options = EngineOptions(model=model, dtype=dtype, kernels=kernels, max_seqs=concurrency, prefix_cache=False)  # type: ignore[arg-type]
    loaded = load_model(options, str)
    prompts, lengths = workload(concurrency)

    async def run() -> float:
        core = EngineCore(
            loaded.forward, loaded.tokenizer, loaded.batching, eos_token_ids=(), clock=SystemClock(), on_crash=print
        )
        core.start()

        async def one(number: int) -> None:
            params = SamplingParams(max_tokens=lengths[number], temperature=0.0)
            generation = core.submit(str(number), prompts[number], params)
            while await generation.read() is not None:
                pass

        began = time.process_time()
        async with asyncio.TaskGroup() as group:
            for number in range(len(prompts)):
                group.create_task(one(number))
        spent = time.process_time() - began
        core.stop()
        return spent

    spent = asyncio.run(run())
    return {"tokens": sum(lengths), "cpu": spent, "computes": f"{loaded.forward.dtype} {loaded.forward.name}"}


def run_transformers(model: str, concurrency: int, batch: int) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    loaded.generation_config.eos_token_id = None
    prompts, lengths = workload(concurrency)

    @torch.inference_mode()
    def generate(numbers: range) -> None:
        width = max(len(prompts[number]) for number in numbers)
        ids = torch.full((len(numbers), width), 3)
        mask = torch.zeros(len(numbers), width, dtype=torch.long)
        for row, number in enumerate(numbers):
            ids[row, width - len(prompts[number]) :] = torch.tensor(prompts[number])
            mask[row, width - len(prompts[number]) :] = 1
        n = max(lengths[number] for number in numbers)
        made = loaded.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=n,
            min_new_tokens=n,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=3,
        )
        assert made.shape[1] == width + n

    generate(range(1))
    began = time.process_time()
    for first in range(0, len(prompts), batch):
        generate(range(first, min(first + batch, len(prompts))))
    return {"tokens": sum(lengths), "cpu": time.process_time() - began, "computes": "bf16 torch"}


def child(python: str, *arguments: str) -> dict[str, Any]:
    """Run this file in a process of its own, with one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "1"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [python, __file__, "--child", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def speed(repetitions: int, python: str, *arguments: str) -> float:
    """Tokens per CPU-second, of the least disturbed repetition."""
    told = [child(python, *arguments) for _ in range(repetitions)]
    return max(found["tokens"] / found["cpu"] for found in told)


def compare(model: str, options: argparse.Namespace) -> tuple[int, int]:
    rows: dict[str, dict[int, float]] = {}
    for dtype in options.dtypes:
        rows[f"penstock {dtype}"] = {
            c: speed(options.repetitions, sys.executable, "penstock", model, dtype, str(c), options.kernels)
            for c in REQUESTS
        }
    if options.torch_python:
        one = speed(options.repetitions, options.torch_python, "one", model, "1")
        padded = {c: speed(1, options.torch_python, "padded", model, str(c)) for c in REQUESTS if c > 1}
        rows["transformers, one at a time"] = {1: one}
        rows["transformers, padded batch"] = padded
    print(f"{'tokens per CPU-second':32}" + "".join(f"{'C=' + str(c):>10}" for c in REQUESTS))
    for name, row in rows.items():
        print(f"{name:32}" + "".join(f"{row[c]:10,.0f}" if c in row else f"{'-':>10}" for c in REQUESTS))
    if not options.torch_python or "bf16" not in options.dtypes:
        return 0, 0
    met = missed = 0
    ours = rows["penstock bf16"][32]
    for name, theirs in (("one at a time", one), ("padded batch", padded[32])):
        found = f"penstock bf16, C=32: {ours / theirs:.1f} x transformers {name}"
        if options.model != "tiny":
            print(f"{found}; no target for this model")
            continue
        good = ours / theirs >= TARGETS[name]
        met, missed = met + good, missed + (not good)
        print(f"{found}; at least {TARGETS[name]:.0f}" + ("" if good else "  MISSED"))
    return met, missed


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        kind, model, *rest = sys.argv[2:]
        if kind == "penstock":
            told = run_penstock(model, rest[0], int(rest[1]), rest[2])
        else:
            told = run_transformers(model, int(rest[0]), 1 if kind == "one" else int(rest[0]))
        print(json.dumps(told))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default=torch_python(), help="a Python with torch and transformers")
    parser.add_argument("--model", default="tiny", help="a directory, a bundled model, or 100m")
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "int8"])
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--repetitions", type=int, default=2)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from penstock.engine.load import model_directory
    from penstock.engine.random_model import RandomModel, write_random_model

    with tempfile.TemporaryDirectory() as temporary:
        if options.model == "100m":
            model = Path(temporary)
            sizes = {"hidden_size": 768, "intermediate_size": 2_304, "num_hidden_layers": 12, "vocab_size": 4_096}
            heads = {"num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 2_048}
            write_random_model(model, RandomModel(**sizes, **heads, tie_word_embeddings=True))
        else:
            model = model_directory(options.model)
        met, missed = compare(str(model), options)
    if met + missed:
        print(f"\n{met} met, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
