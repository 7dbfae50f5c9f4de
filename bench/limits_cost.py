"""What it costs to know who asks and how much they may: CPU of the same gateway without keys and limits, with them, and
with them in a Redis, side by side; and what 100,000 keys cost at the start, in memory and at each request.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import machine
from gateway import Running, World
from limits_gateways import free_port
from machine import GATEWAY_CORE, LOAD_CORE, Child, Unusable
from stacks import MODEL, Stack

from penstock.core.keys import ENTROPY_BYTES, digest, mint
from penstock.stores.databases import open_database
from penstock.stores.keys import StoredKey, creation
from penstock.stores.migrate import migrate

ROUNDS, SECONDS = 7, 1.5
FEW, MANY = 100, 100_000
KEY = mint(hashlib.sha512(b"bench").digest()[:ENTROPY_BYTES])
BARE, LOCAL, REDIS = "no key, no limits", "key, 3 limits, budget", "the same, strict in Redis"
HELD = "limits: { requests: 1000M/d, input_tokens: 9000M/d, output_tokens: 9000M/d%s }, budget: $1000000/month"
IN_FILE, IN_DATABASE = "in a file", "made at run time"

Figures = dict[str, list[float]]


def start(folder: Path, world: World, python: Path, text: str, *options: str) -> tuple[int, Child]:
    """A gateway on its core, and its port; in front of the four replicas of the mock."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    replicas = ", ".join(f"http://127.0.0.1:{port}" for port in world.replicas)
    lines = [
        f"models: {{ {MODEL}: {{ deployments: [mock] }} }}",
        f"deployments: {{ mock: {{ engine: [{replicas}], served: {MODEL}, price: {{ input: $1/M, output: $4/M }} }} }}",
        f"server: {{ host: 127.0.0.1, port: {port}, access_log: {folder / 'access.log'} }}",
        text,
    ]
    config = folder / "penstock.yaml"
    config.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "--config", config, *options]
    return port, Child(command, core=GATEWAY_CORE, log=folder / "log", cwd=python)


def cpu_per_request(world: World, scratch: Path, python: Path, tell: Callable[[str], None]) -> Figures:
    """Microseconds of each round, by kind of gateway. All three are running; one at a time is busy."""
    found: Figures = {BARE: [], LOCAL: [], REDIS: []}
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    with ExitStack() as ending:
        texts = {BARE: "", LOCAL: f"keys: [{{ id: bench, org: bench, sha256: {digest(KEY)}, {HELD % ''} }}]"}
        if program is not None:
            port = free_port()
            redis = Child(
                [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
                core=LOAD_CORE,
                log=scratch / "redis.log",
            )
            ending.callback(redis.stop)
            texts[REDIS] = (
                f"keys: [{{ id: bench, org: bench, sha256: {digest(KEY)}, {HELD % ', strict: true'} }}]\n"
                f"store: {{ counters: 'redis://127.0.0.1:{port}' }}"
            )
        running: dict[str, Running] = {}
        for n, (name, text) in enumerate(texts.items()):
            options = ("--insecure-dev",) if name == BARE else ()
            port, child = start(scratch / f"limits-{n}", world, python, text, *options)
            ending.callback(child.stop)
            running[name] = Running(world, Stack(name, lambda place: child, key=KEY), port, child)  # noqa: B023
            running[name].wait_until_healthy()
        for one in running.values():
            one.load("small", 64, "-d", 1.0, warm_up=True)
        for number in range(ROUNDS):
            tell(f"CPU, round {number + 1} of {ROUNDS}")
            for name, one in running.items():
                before = machine.cpu_seconds(one.child.pid)
                result = one.load("small", 64, "-d", SECONDS)
                found[name].append((machine.cpu_seconds(one.child.pid) - before) / result["requests"] * 1e6)
    return found


def key_of(n: int) -> str:
    return mint(hashlib.sha512(b"bench %d" % n).digest()[:ENTROPY_BYTES])


def keys_cost(
    world: World, scratch: Path, python: Path, tell: Callable[[str], None]
) -> dict[str, dict[int, tuple[float, float]]]:
    """CPU seconds until a request is answered, and resident MB then: by where the keys are, and how many."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for place in (IN_FILE, IN_DATABASE):
        found[place] = {}
        for n_keys in (FEW, MANY):
            tell(f"{n_keys:,} keys {place}")
            folder = scratch / f"keys-{n_keys}-{place.replace(' ', '-')}"
            folder.mkdir()
            if place == IN_FILE:
                text = "keys: { file: keys.jsonl }"
                with (folder / "keys.jsonl").open("w") as lines:
                    for n in range(n_keys):
                        key = {"id": f"key-{n}", "org": f"org-{n % 20}", "team": f"team-{n % 200}"}
                        lines.write(json.dumps({**key, "sha256": digest(key_of(n))}) + "\n")
            else:
                text = "store: { database: keys.db }"
                asyncio.run(_store(folder / "keys.db", n_keys))
            best: list[tuple[float, float]] = []
            for _ in range(2):
                port, child = start(folder, world, python, text)
                try:
                    one = Running(world, Stack(place, lambda place: child, key=key_of(n_keys - 1)), port, child)  # noqa: B023
                    one.wait_until_healthy()
                    best.append((one.start_cpu, machine.rss_bytes(child.pid) / 1e6))
                finally:
                    child.stop()
            found[place][n_keys] = min(cpu for cpu, _ in best), min(rss for _, rss in best)
    return found


async def _store(path: Path, n_keys: int) -> None:
    database = await open_database(str(path))
    await migrate(database, 0.0)
    for first in range(0, n_keys, 5_000):
        statements = []
        for n in range(first, min(first + 5_000, n_keys)):
            stored = StoredKey(f"key-{n}", digest(key_of(n)), f"org-{n % 20}", f"team-{n % 200}", "{}", 0.0)
            statements += creation(stored)
        assert await database.write_all(statements) is None
    await database.close()


LOOK_UP = """
import hashlib, random, sys, time
from penstock.config.spec import KeySpec, PlaneSpec
from penstock.gateway.keyring import Keyring

n_keys = int(sys.argv[1])
keys = [b"sk-pen-%060d" % n for n in range(n_keys)]
specs = tuple(KeySpec(f"key-{n}", hashlib.sha256(key).hexdigest()) for n, key in enumerate(keys))
ring = Keyring(PlaneSpec(1, "", (), (), specs), None)
shown = [bytes(bytearray(key)) for key in random.Random(1).choices(keys, k=100_000)]  # not one by one from far away
best = 9.0
for _ in range(7):
    began = time.process_time()
    for key in shown:
        ring.find(key)
    best = min(best, (time.process_time() - began) / len(shown))
print(best * 1e6)
"""


def look_up(python: Path, n_keys: int) -> float:
    """Microseconds for one key of so many, any of them."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK_UP, str(n_keys)], cwd=python, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unusable(f"keys cannot be looked up: {done.stderr[-1_000:]}")
    return float(done.stdout)


def middle(values: list[float]) -> float:
    return statistics.median(values)


def note(line: str) -> None:
    sys.stderr.write(f"  {time.strftime('%H:%M:%S')} {line}\n")
