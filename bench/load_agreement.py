"""Does `penstock load` measure what guidellm measures? `python bench/load_agreement.py [--rounds N]`.

Both load the same paced engine (`paced_engine.py`, which also writes down what it did), in turn: a closed loop and an
open loop of one cycle of its plan, so that both meet the same delays. Compared are the medians over the rounds of what
each reports itself. guidellm (`make bench-peers` installs it, on PyPI as guidellm) names some things differently:

    ours                                     guidellm's
    TTFT, from sending                       time_to_first_token_ms
    TPOT: (last - first token) / (n - 1)     inter_token_latency_ms: the mean gap of a request
    (last token - sending) / n               time_per_output_token_ms; we do not report it, and compute it here
    E2E, from sending                        request_latency
    ITL: every single gap                    none; compared with the engine's own clock

Ends with 1 when a target is missed, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

import peers
from machine import free_ports
from paced_engine import CYCLE, MODEL

from penstock.loadtest.quantiles import quantile

ROOT = Path(__file__).resolve().parent.parent
WITHIN = 0.02
OUTPUT_TOKENS = 24
PROMPT_TOKENS = 100
USERS = 16
RATE = 10.0  # requests per second
TOKENIZER = ROOT / "penstock" / "engine" / "bundled" / "tiny"
CLOSED, OPEN = f"closed loop, {USERS} users", f"open loop, {RATE:g} requests/s, evenly spaced"
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": str(ROOT)}

Figures = dict[str, float]  # what -> milliseconds, or requests per second


def two(name: str, values: list[float]) -> Figures:
    rising = sorted(values)
    return {f"{name} p50": quantile(rising, 0.5), f"{name} p95": quantile(rising, 0.95)}


def ours(url: str, scenario: str, folder: Path) -> Figures:
    """One run of `penstock load`, by what it writes."""
    traffic = folder / "traffic.yaml"
    arrivals = f"{{kind: users, users: {USERS}}}" if scenario == CLOSED else f"{{kind: constant, rate: {RATE:g}}}"
    traffic.write_text(
        f"traffic:\n  arrivals: {arrivals}\n  requests: {CYCLE}\n"
        f"  prompt_tokens: {PROMPT_TOKENS}\n  output_tokens: {OUTPUT_TOKENS}\n"
    )
    report, samples = folder / "ours.json", folder / "samples.jsonl"
    command = [sys.executable, "-m", "penstock.cli.main", "load", url, "--traffic", str(traffic)]
    subprocess.run(
        [*command, "--json", str(report), "--samples", str(samples)],
        check=True,
        capture_output=True,
        env={**os.environ, **QUIET},
    )
    results = json.loads(report.read_text())["results"]
    assert results["ok"] == CYCLE, results["failures"]
    per_token = [
        1000 * (sample["last"] - sample["sent"]) / sample["output_tokens"]
        for sample in map(json.loads, samples.read_text().splitlines())
    ]

    def reported(name: str, of: str) -> Figures:
        values = {p["percent"]: 1000 * p["value"] for p in results[of]["percentiles"]}
        return {f"{name} p50": values[50.0], f"{name} p95": values[95.0]}

    return {
        **reported("TTFT", "ttft_from_sending"),
        **reported("TPOT", "tpot"),
        **two("per token", per_token),
        **reported("E2E", "e2e_from_sending"),
        **reported("ITL", "itl"),
        "requests/s": results["requests_per_second"],
    }


def guidellm(url: str, scenario: str, folder: Path) -> Figures:
    """One run of guidellm, by what it writes."""
    report = folder / "guidellm.json"
    profile = f"kind=concurrent,streams={USERS}" if scenario == CLOSED else f"kind=constant,rate={RATE:g}"
    subprocess.run(
        [
            peers.program("guidellm"),
            "run",
            "--backend",
            f"kind=openai_http,target={url},http2=false,model={MODEL}",
            "--profile",
            profile,
            "--constraint",
            f"kind=max_requests,count={CYCLE}",
            "--tokenizer",
            f"kind=huggingface_auto,model={TOKENIZER}",
            "--data",
            f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={OUTPUT_TOKENS}",
            "--output",
            f"kind=json,path={report}",
            "--disable-console",
        ],
        check=True,
        capture_output=True,
        env={**os.environ, **QUIET},
    )
    metrics = json.loads(report.read_text())["benchmarks"][0]["metrics"]
    totals = metrics["request_totals"]
    # at a constant rate it now and then ends one request early
    assert CYCLE - 2 <= totals["successful"] <= CYCLE and not totals["errored"], totals

    def reported(name: str, of: str, unit: float = 1.0) -> Figures:
        values = metrics[of]["successful"]["percentiles"]
        return {f"{name} p50": unit * values["p50"], f"{name} p95": unit * values["p95"]}

    return {
        **reported("TTFT", "time_to_first_token_ms"),
        **reported("TPOT", "inter_token_latency_ms"),
        **reported("per token", "time_per_output_token_ms"),
        **reported("E2E", "request_latency", 1000.0),
        "requests/s": metrics["requests_per_second"]["successful"]["mean"],
    }


def truth(url: str) -> Figures:
    """What the engine did since it was last asked; it knows nothing of the way to the client."""
    chats = json.loads(_get(f"{url}/truth"))
    chats = [chat for chat in chats if len(chat["tokens"]) == OUTPUT_TOKENS]  # the others measured words
    gaps = [1000 * (b - a) for chat in chats for a, b in zip(chat["tokens"], chat["tokens"][1:], strict=False)]
    spans = [(chat["came_in"], chat["tokens"][0], chat["tokens"][-1]) for chat in chats]
    return {
        **two("TTFT", [1000 * (first - came_in) for came_in, first, _ in spans]),
        **two("TPOT", [1000 * (last - first) / (OUTPUT_TOKENS - 1) for _, first, last in spans]),
        **two("per token", [1000 * (last - came_in) / OUTPUT_TOKENS for came_in, _, last in spans]),
        **two("E2E", [1000 * (last - came_in) for came_in, _, last in spans]),
        **two("ITL", gaps),
        "requests/s": len(spans) / (max(last for *_, last in spans) - min(came_in for came_in, *_ in spans)),
    }


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def medians(rounds: list[Figures]) -> Figures:
    return {name: median(figures[name] for figures in rounds) for name in rounds[0]}


def compare(url: str, scenario: str, rounds: int, folder: Path) -> tuple[int, int]:
    """Measure one scenario and print its table. Returns how many targets were met and missed."""
    mine, theirs, seen_by_me, seen_by_them = [], [], [], []
    for number in range(rounds):
        print(f"{scenario}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        _get(f"{url}/truth")  # forget what came before
        mine.append(ours(url, scenario, folder))
        seen_by_me.append(truth(url))
        theirs.append(guidellm(url, scenario, folder))
        seen_by_them.append(truth(url))
    a, b, engine_a, engine_b = map(medians, (mine, theirs, seen_by_me, seen_by_them))
    print(f"\n{scenario}, {CYCLE} requests of {OUTPUT_TOKENS} tokens, medians of {rounds} rounds")
    print(f"{'':14}{'penstock':>10}{'engine':>10}{'guidellm':>10}{'engine':>10}{'apart':>9}")
    met = missed = 0
    for name, value in a.items():
        other = b.get(name, engine_a[name])
        apart = value / other - 1
        good = abs(apart) <= WITHIN
        met, missed = met + good, missed + (not good)
        shown = f"{b[name]:10.2f}" if name in b else f"{'none':>10}"
        beside = "" if name in b else " from the engine"
        print(
            f"{name:14}{value:10.2f}{engine_a[name]:10.2f}{shown}{engine_b[name]:10.2f}{100 * apart:+8.2f} %"
            f"{'' if good else '  MISSED'}{beside}"
        )
    return met, missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    reason = peers.install("guidellm")
    if reason is not None:
        print(f"guidellm cannot be installed, so there is nothing to agree with: {reason}")
        return 2
    port = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    engine = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "paced_engine.py"), str(port)], stdout=subprocess.PIPE
    )
    try:
        assert engine.stdout is not None
        engine.stdout.readline()
        print(f"guidellm {peers.version('guidellm')}, {time.strftime('%Y-%m-%d')}")
        with tempfile.TemporaryDirectory() as name:
            totals = [compare(url, scenario, rounds, Path(name)) for scenario in (CLOSED, OPEN)]
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]} failed: {(error.stderr or b'').decode(errors='replace')[-2000:]}")
        return 2
    finally:
        engine.terminate()
        engine.wait()
    met, missed = (sum(column) for column in zip(*totals, strict=True))
    print(f"\n{met} met, {missed} missed (within {100 * WITHIN:g} %)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
