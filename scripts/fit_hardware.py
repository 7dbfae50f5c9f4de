"""Fits the simulator's cost model to measured hardware, and writes penstock/sim/hardware.json.

    python scripts/fit_hardware.py ../shared/data/traces/splitwise-sim/perf_model.csv

The measurements are those of splitwise-sim (github.com/Mutinifni/splitwise-sim, MIT licence, copyright 2024 Pratyush
Patel; Patel et al., "Splitwise", ISCA 2024): prompt and token times of whole batches without chunking. Each line is
weighted by the inverse of its time, so that the error that is least is the relative one.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

TARGET = Path(__file__).resolve().parent.parent / "penstock" / "sim" / "hardware.json"
GIB80 = 80e9 * 0.9  # bytes of a GPU that an engine may use
# Bytes of the weights in 16 bits, and of keys and values of one token (layers x KV heads x head size x 2 x 2 bytes).
MODELS = {"llama2-70b": (140e9, 80 * 8 * 128 * 4), "bloom-176b": (352e9, 70 * 112 * 128 * 4)}
WORST = 0.35  # mean relative error of a fit that is still of use; 2-GPU runs did not fit into memory and are worse


def fit(rows: list[dict[str, str]], model: str, gpus: int) -> dict[str, float | int | str] | None:
    def column(name: str) -> np.ndarray:
        return np.array([float(row[name]) for row in rows])

    prompt, batch, output = column("prompt_size"), column("batch_size"), column("token_size")
    token_time, prompt_time = column("token_time") / 1e3, column("prompt_time") / 1e3
    context = batch * (prompt + output / 2)  # in the middle of the answer
    inputs = np.stack([np.ones_like(batch), batch, context], axis=1)
    step, per_sequence, per_context = np.linalg.lstsq(inputs / token_time[:, None], np.ones_like(batch), rcond=None)[0]
    tokens = prompt * batch
    beyond = prompt_time - step
    per_prefill = float((beyond * tokens / prompt_time**2).sum() / ((tokens / prompt_time) ** 2).sum())
    decode_error = np.abs(inputs @ np.array([step, per_sequence, per_context]) - token_time) / token_time
    prefill_error = np.abs(step + per_prefill * tokens - prompt_time) / prompt_time
    if prefill_error.mean() > WORST or min(step, per_sequence, per_context, per_prefill) < 0:
        return None
    weights, per_token = MODELS[model]
    return {
        "step": round(float(step), 6),
        "per_sequence": round(float(per_sequence), 9),
        "per_prefill_token": round(per_prefill, 9),
        "per_context_token": round(float(per_context), 12),
        "kv_tokens": int((gpus * GIB80 - weights) / per_token) // 512 * 512,
        "gpus": gpus,
        "decode_error": round(float(decode_error.mean()), 3),
        "prefill_error": round(float(prefill_error.mean()), 3),
    }


def main(source: str) -> None:
    groups: dict[tuple[str, str, int], list[dict[str, str]]] = defaultdict(list)
    with open(source, encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            groups[row["model"], row["hardware"], int(row["tensor_parallel"])].append(row)
    fitted = {}
    for (model, hardware, gpus), rows in sorted(groups.items()):
        found = fit(rows, model, gpus)
        if found is not None:
            fitted[f"{model}/{hardware}/{gpus}"] = found
    about = "Fitted by scripts/fit_hardware.py to splitwise-sim's measurements (MIT, copyright 2024 Pratyush Patel)."
    TARGET.write_text(json.dumps({"about": about, "models": fitted}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
