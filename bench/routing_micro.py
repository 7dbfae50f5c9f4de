"""How long it takes to choose a replica, and how much memory the prefix index takes, in this process alone.

    .venv/bin/python bench/routing_micro.py              # the sources, interpreted
    .venv/bin/python bench/routing_micro.py --compiled   # what wheels have (scripts/compiled.py builds it first)
    .venv/bin/python bench/routing_micro.py --memory     # ten million distinct blocks: some minutes

Wanted with 64 replicas and 100,000 indexed blocks: at most 40 us for half of the decisions, 150 us for 99 of 100; and
memory that stays flat over ten million blocks. Deterministic but for the clock.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
if "--compiled" in sys.argv and "PENSTOCK_COMPILED" not in os.environ:
    sys.path.insert(0, str(ROOT / "scripts"))
    import compiled

    environment = {**os.environ, "PYTHONPATH": str(compiled.folder()), "PYTHONSAFEPATH": "1", "PENSTOCK_COMPILED": "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)

from penstock.balancing import balancer as module  # noqa: E402  after the path was chosen
from penstock.balancing.balancer import Balancer  # noqa: E402
from penstock.balancing.prefix_index import PrefixIndex  # noqa: E402
from penstock.core.fleet import Replica  # noqa: E402
from penstock.core.request import ANYONE, Endpoint, Request  # noqa: E402
from penstock.resilience.breaker import Breaker, BreakerRule  # noqa: E402

BLOCK = 512  # tokens
TOKENS = tuple(range(BLOCK, 64 * BLOCK, BLOCK))
SHARED = 4  # blocks with which half of the prompts begin, and which every replica holds before long
DECISIONS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--memory", action="store_true")
    asked = parser.parse_args()
    print("compiled" if module.__file__.endswith(".so") else "interpreted")
    if asked.memory:
        memory()
        return
    for replicas, blocks in ((1, 10_000), (8, 100_000), (64, 100_000), (1_000, 1_000_000)):
        decide(replicas, blocks)


def prompt(rng: Random, known: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Hashes: of a conversation that goes on (two of three), or of a new one."""
    if known and rng.random() < 2 / 3:
        place = rng.randrange(len(known))
        known[place] = hashes = known[place][:40] + tuple(rng.getrandbits(64) for _ in range(2))
        return hashes
    start = tuple(range(1, 1 + SHARED)) if rng.random() < 0.5 else ()
    hashes = start + tuple(rng.getrandbits(64) for _ in range(rng.randint(4, 24)))
    known.append(hashes) if len(known) < 20_000 else known.__setitem__(rng.randrange(len(known)), hashes)
    return hashes


def request(hashes: tuple[int, ...], rng: Random) -> Request:
    return Request(
        id="r",
        endpoint=Endpoint.CHAT,
        caller=ANYONE,
        model="chat",
        stream=True,
        include_usage=False,
        prompt_tokens=len(hashes) * BLOCK + rng.randrange(BLOCK),
        max_tokens=512,
        prefix_hashes=hashes,
        fields={},
        received_at=0.0,
        prefix_tokens=TOKENS,
    )


def decide(n_replicas: int, n_blocks: int) -> None:
    rng, balancer = Random(1), Balancer()
    room = n_blocks * BLOCK // n_replicas
    pools = [[Replica(f"replica-{n}", "main", kv_tokens=room) for n in range(n_replicas)]]
    gates = {replica.name: Breaker(BreakerRule()) for replica in pools[0]}
    known: list[tuple[int, ...]] = []
    live = []
    choosing, holding = [], []
    now, warm = 0.0, n_blocks // 4
    clock = time.thread_time_ns  # of the processor, not of the wall: others use it too
    for number in range(warm + DECISIONS):
        now += 0.001
        asked = request(prompt(rng, known), rng)
        begun = clock()
        choice = balancer.choose(asked, pools, gates, (), now, rng)
        chosen = clock()
        assert choice is not None
        live.append(balancer.dispatch(asked, pools[0][choice.place], choice, now))
        if len(live) > 8 * n_replicas:
            oldest = live.pop(rng.randrange(len(live)))
            oldest.first_token(now)
            oldest.ended(now + 1.0, rng.randint(10, 500))
        if number >= warm:
            choosing.append(chosen - begun)
            holding.append(clock() - chosen)
    blocks = len(balancer.index) if isinstance(balancer.index, PrefixIndex) else 0
    print(f"{n_replicas:5} replicas, {blocks:9,} blocks:", *map(line, ("choose", "hold, learn"), (choosing, holding)))


def line(what: str, spans: list[int]) -> str:
    spans.sort()
    return f"{what} p50 {spans[len(spans) // 2] / 1e3:6.1f} us  p99 {spans[len(spans) * 99 // 100] / 1e3:6.1f} us;"


def memory() -> None:
    """Resident memory of this process after so many distinct blocks, over 64 replicas that hold 2,048 each."""
    rng, balancer = Random(1), Balancer()
    replicas = [Replica(f"replica-{n}", "main", kv_tokens=2_048 * BLOCK) for n in range(64)]
    sent, wanted = 0, [100_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000]
    while wanted:
        hashes = tuple(rng.getrandbits(64) for _ in range(16))
        balancer.index.sent(hashes, TOKENS, 16 * BLOCK, replicas[rng.randrange(64)], 0.0)
        sent += len(hashes)
        if sent >= wanted[0]:
            blocks = len(balancer.index) if isinstance(balancer.index, PrefixIndex) else 0
            used = resident() / 1e6
            print(f"{wanted.pop(0):12,} distinct blocks sent, {blocks:9,} kept: {used:6.1f} MB resident")
    print(f"most ever: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.1f} MB")


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
