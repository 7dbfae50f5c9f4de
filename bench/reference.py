"""Does the embedded engine compute what Hugging Face transformers computes? Random models of every supported kind,
token for token.

    python bench/peers.py transformers     installs it, once
    python bench/reference.py              compares; --torch-python PATH uses another Python that has transformers
    python bench/reference.py --record     and writes tests/engine/fixtures

float32 must give the same tokens. bf16 must be as close to float32 as transformers' own bf16 is; int8 within a stated
bound. Closeness is measured with the reference's tokens given to both, so that one difference does not become many.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers import torch_python

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "engine" / "fixtures"
N_TOKENS = 24
PROMPT_LENGTHS = (5, 17, 40, 70)
SEED = 1

# Bounds on the mean absolute error of logits, as a fraction of their standard deviation; and on how often the likeliest
# token is the same. Random models have flat logits, so these are far stricter than what a trained model shows.
BF16_SLACK = 1.1  # times the error of transformers' bf16
INT8_ERROR = 0.06
INT8_AGREEMENT = 0.85
FLOAT32_ERROR = 2e-5


def models() -> dict[str, dict[str, Any]]:
    """What makes each random model special. Small, so that fixtures are."""
    llama3 = {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    return {
        "llama-gqa": {},
        "llama-mha-tied": {"num_key_value_heads": 4, "tie_word_embeddings": True},
        "llama-mqa-sharded": {"num_key_value_heads": 1, "n_shards": 2, "num_hidden_layers": 3},
        "llama-rope-llama3": {"rope_theta": 500_000.0, "rope_scaling": llama3},
        "llama-rope-linear": {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
        "llama-biases": {"qkv_bias": True, "output_bias": True, "mlp_bias": True, "head_dim": 12, "dtype": "float32"},
        "mistral": {"architecture": "MistralForCausalLM"},
        "qwen2": {"architecture": "Qwen2ForCausalLM", "qkv_bias": True, "tie_word_embeddings": True},
        "qwen3": {"architecture": "Qwen3ForCausalLM", "qk_norm": True, "head_dim": 32},
    }


def prompts() -> list[list[int]]:
    return [[(i * 37 + j * 11 + i * j) % 250 + 3 for j in range(length)] for i, length in enumerate(PROMPT_LENGTHS)]


# With transformers ---------------------------------------------------------------------------------------------------


def run_transformers(directory: Path) -> None:
    """For each model in `directory`: greedy tokens in float32, and logits of both precisions at every one of them."""
    import numpy
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    for path in sorted(child for child in directory.iterdir() if (child / "config.json").exists()):
        arrays: dict[str, Any] = {}
        tokens: list[list[int]] = []
        for dtype in (torch.float32, torch.bfloat16):
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
            for number, prompt in enumerate(prompts()):
                with torch.inference_mode():
                    if dtype == torch.float32:
                        start = torch.tensor([prompt])
                        options = {"max_new_tokens": N_TOKENS, "do_sample": False, "eos_token_id": -1}
                        made = model.generate(start, attention_mask=torch.ones_like(start), pad_token_id=0, **options)
                        tokens.append(made[0, len(prompt) :].tolist())
                    whole = torch.tensor([prompt + tokens[number]])
                    logits = model(whole).logits[0, len(prompt) - 1 : -1].float()
                name = "float32" if dtype == torch.float32 else "bf16"
                arrays[f"{name}_{number}"] = logits.numpy().astype(numpy.float32)
        (path / "expected.json").write_text(json.dumps({"prompts": prompts(), "tokens": tokens}))
        numpy.savez(path / "expected.npz", **arrays)


# With penstock -------------------------------------------------------------------------------------------------------


def run_penstock(forward: Any, expected: list[list[int]], forced: bool) -> tuple[list[list[int]], list[Any]]:
    """Tokens and logits of all prompts in one batch; `forced` goes on with the expected tokens, whatever came out."""
    import numpy

    from penstock.batching.options import BatchingOptions
    from penstock.batching.scheduler import Scheduler
    from penstock.batching.sequence import new_sequence
    from penstock.engine.forward import make_batch

    scheduler = Scheduler(BatchingOptions(n_blocks=64, max_seqs=8, max_batched_tokens=64))
    sequences = [new_sequence(str(number), prompt, N_TOKENS) for number, prompt in enumerate(prompts())]
    for sequence in sequences:
        scheduler.add(sequence)
    chosen: list[list[int]] = [[] for _ in sequences]
    logits: list[list[Any]] = [[] for _ in sequences]
    while scheduler.has_work:
        step = scheduler.plan()
        found, best = forward.compute(make_batch(step))
        tokens: list[int] = []
        for row, chunk in enumerate(chunk for chunk in step.chunks if chunk.samples):
            number = int(chunk.sequence.id)
            token = int(best[row])
            tokens.append(expected[number][chunk.sequence.generated] if forced else token)
            chosen[number].append(token)
            logits[number].append(found[row].copy())
        scheduler.commit(step, tokens)
        for sequence in sequences:
            if sequence.generated == N_TOKENS:
                scheduler.end(sequence)
    return chosen, [numpy.array(rows) for rows in logits]


def forwards(path: Path, built: list[str]) -> list[tuple[str, str, Any]]:
    """Every way of computing the model that this machine has: (name, dtype, forward)."""
    from penstock.engine.checkpoint import Checkpoint
    from penstock.engine.kernels import CompiledForward, Kernels, find_kernels
    from penstock.engine.model import read_config
    from penstock.engine.numpy_reference import NumpyForward

    config = read_config(path)
    checkpoint = Checkpoint(path)
    made: list[tuple[str, str, Any]] = [
        ("numpy", "float32", NumpyForward(checkpoint, config, n_blocks=64, block_size=16, max_positions=256))
    ]
    for name in built:
        kernels = find_kernels(name)  # type: ignore[arg-type]  # the names of BUILDS
        assert isinstance(kernels, Kernels)
        for dtype in ("float32", "bf16", "int8"):
            sizes = {"n_blocks": 64, "max_positions": 256, "max_batched_tokens": 64, "threads": 1}
            forward = CompiledForward(kernels, checkpoint, config, dtype=dtype, **sizes)  # type: ignore[arg-type]
            made.append((name, dtype, forward))
    checkpoint.close()
    return made


def compare(directory: Path) -> tuple[int, int]:
    """Print a row per model and way of computing; returns how many bounds were met and missed."""
    import numpy

    from penstock.engine.kernels import BUILDS, Kernels, find_kernels

    built = [name for name in BUILDS if isinstance(find_kernels(name), Kernels)]  # type: ignore[arg-type]
    print(f"kernels: {', '.join(built) or 'none'}; prompts of {PROMPT_LENGTHS} tokens, {N_TOKENS} generated\n")
    print(f"{'model':20} {'computed by':18} {'tokens equal':>13} {'likeliest':>10} {'error':>9} {'allowed':>9}")
    met = missed = 0
    for path in sorted(child for child in directory.iterdir() if (child / "config.json").exists()):
        expected = json.loads((path / "expected.json").read_text())["tokens"]
        arrays = numpy.load(path / "expected.npz")
        truth = [arrays[f"float32_{number}"] for number in range(len(expected))]
        scale = float(numpy.concatenate(truth).std())

        def error(logits: list[Any], truth: list[Any] = truth, scale: float = scale) -> float:
            off = [numpy.abs(ours - theirs).mean() for ours, theirs in zip(logits, truth, strict=True)]
            return float(numpy.mean(off)) / scale

        theirs_bf16 = error([arrays[f"bf16_{number}"] for number in range(len(expected))])
        for name, dtype, forward in forwards(path, built):
            free, _ = run_penstock(forward, expected, forced=False)
            forced, logits = run_penstock(forward, expected, forced=True)
            same = sum(a == b for x, y in zip(free, expected, strict=True) for a, b in zip(x, y, strict=True))
            likeliest = float(numpy.mean(numpy.array(forced) == numpy.array(expected)))
            total = N_TOKENS * len(expected)
            found = error(logits)
            allowed = {"float32": FLOAT32_ERROR, "bf16": theirs_bf16 * BF16_SLACK, "int8": INT8_ERROR}[dtype]
            good = (
                found <= allowed
                and {"float32": same == total, "bf16": True, "int8": likeliest >= INT8_AGREEMENT}[dtype]
            )
            met, missed = met + good, missed + (not good)
            row = f"{path.name:20} {name + ' ' + dtype:18} {same:>6} of {total} {likeliest:10.3f}"
            row += f" {found:9.1e} {allowed:9.1e}"
            print(row if good else row + "  MISSED")
    return met, missed


def record(directory: Path) -> None:
    """Replace the fixtures: checkpoints, expected tokens, and the logits of the first prompt."""
    import numpy

    shutil.rmtree(FIXTURES, ignore_errors=True)
    for path in sorted(directory.iterdir()):
        target = FIXTURES / path.name
        shutil.copytree(path, target)
        arrays = numpy.load(path / "expected.npz")
        numpy.savez_compressed(target / "expected.npz", logits=arrays["float32_0"][:8])
    size = sum(file.stat().st_size for file in FIXTURES.rglob("*") if file.is_file())
    print(f"\nrecorded {FIXTURES.relative_to(ROOT)}: {size / 1e6:.2f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default=torch_python(), help="a Python with torch and transformers")
    parser.add_argument("--record", action="store_true", help="write tests/engine/fixtures")
    parser.add_argument("--transformers", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.transformers:
        run_transformers(options.transformers)
        return 0
    if not options.torch_python:
        print("There is nothing to compare with: `make bench-peers` installs transformers.", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    from penstock.engine.random_model import RandomModel, write_random_model

    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        sizes = {"vocab_size": 288, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 256}
        for name, special in models().items():
            write_random_model(directory / name, RandomModel(**{**sizes, **special}), SEED)
        subprocess.run([options.torch_python, __file__, "--transformers", str(directory)], check=True)
        met, missed = compare(directory)
        if options.record:
            record(directory)
    print(f"\n{met} met, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
