"""What stands between callers and provider in bench/limits.py: gateways with one hard token limit and one hard budget,
alone, with several workers, and with a Redis between them; and LiteLLM with the same two.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import peers
from machine import Unusable
from stacks import ROOT

sys.path[:0] = [str(ROOT)]

from penstock.core.keys import ENTROPY_BYTES, digest, mint  # noqa: E402
from penstock.stores.counters_leased import FRESH  # noqa: E402
from tests.app.billing_provider import INPUT, OUTPUT, PRICE  # noqa: E402

TOKENS, MONEY = "tokens", "money"  # models: of the first so many tokens, of the second so much money
LIMIT = 450_000  # tokens
WINDOW = 30 * 86_400  # seconds, in which the token limit runs dry: a token in six seconds
BUDGET = 1_500_000_000  # nano-dollars: $1.50
LITELLM_PART = 5  # LiteLLM has a fifth of both: it would take minutes to use up all
KEY = mint(hashlib.sha512(b"bench limits").digest()[:ENTROPY_BYTES])


@contextlib.contextmanager
def process(
    command: list[str | Path], *, log: Path, cwd: Path | None = None, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Ended with all its children, whatever happens."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
    try:
        yield child
    finally:
        for number in (15, 9):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def provider(folder: Path) -> Iterator[int]:
    """The port of the one who is paid."""
    reading, writing = os.pipe()
    command = [sys.executable, ROOT / "tests" / "app" / "billing_provider.py", "--announce-fd", str(writing)]
    with (folder / "provider.log").open("wb") as log:
        child = subprocess.Popen(
            command, pass_fds=(writing,), stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    os.close(writing)
    try:
        with os.fdopen(reading) as announced:
            line = announced.readline()
        if not line:
            raise Unusable(f"the provider did not start:\n{(folder / 'provider.log').read_text()[-2_000:]}")
        yield int(line)
    finally:
        child.kill()
        child.wait()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise Unusable("redis-server is not installed (Debian: apt-get install redis-server)")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    with process([program, *options], log=folder / "redis.log"):
        until = time.monotonic() + 10
        while "Ready to accept connections" not in (folder / "redis.log").read_text():
            if time.monotonic() > until:
                raise Unusable("redis-server does not start")
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}"


def books_of(port: int, model: str) -> dict[str, int]:
    """What the provider has served of a model, when all of it is over."""
    until = time.monotonic() + 10
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/books")
        books = json.loads(connection.getresponse().read()).get(model, {"requests": 0, "tokens": 0, "nanos": 0})
        connection.close()
        if not books.get("busy") or time.monotonic() > until:
            return dict(books)
        time.sleep(0.05)


@dataclass(frozen=True)
class Arrangement:
    name: str
    gateways: int = 1
    workers: int = 1
    counters: str | None = None  # "strict" or "leased": with a Redis
    with_caps: bool = True  # callers say how long an answer may be


ARRANGEMENTS = (
    Arrangement("1 worker"),
    Arrangement("4 workers", workers=4),
    Arrangement("2 x 2 workers, Redis, strict", gateways=2, workers=2, counters="strict"),
    Arrangement("2 x 2 workers, Redis, leased", gateways=2, workers=2, counters="leased"),
    Arrangement("1 worker, no max_tokens", with_caps=False),
)


def config_text(arrangement: Arrangement, provider_port: int, port: int, redis_url: str | None) -> str:
    strict = ", strict: true" if arrangement.counters == "strict" else ""
    lines = [
        "models:",
        *(f"  {model}: {{ deployments: [{model}], timeouts: {{ first_token: 60s }} }}" for model in (TOKENS, MONEY)),
        "deployments:",
        *(
            f"  {model}: {{ engine: http://127.0.0.1:{provider_port}/v1, served: {model}, price: {PRICE} }}"
            for model in (TOKENS, MONEY)
        ),
        f"limits: {{ all-tokens: {{ tokens: {LIMIT}/30d, per: all, where: {{ model: {TOKENS} }}{strict} }} }}",
        "budgets:",
        f"  all-money: {{ amount: ${BUDGET / 10**9:.2f}, every: total, per: all, where: {{ model: {MONEY} }} }}",
        f"keys: [{{ id: bench, org: bench, sha256: {digest(KEY)} }}]",
        f"server: {{ host: 127.0.0.1, port: {port}, access_log: off }}",
    ]
    if redis_url is not None:
        lines.append(f"store: {{ counters: '{redis_url}' }}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def penstock(arrangement: Arrangement, folder: Path, provider_port: int, python: Path) -> Iterator[list[int]]:
    """The gateways' ports. Each has a ledger of its own. `python` is the folder that Penstock is imported from."""
    with contextlib.ExitStack() as running:
        redis_url = running.enter_context(redis(folder)) if arrangement.counters else None
        children = []
        for n in range(arrangement.gateways):
            own = folder / f"gateway-{n}"
            own.mkdir()
            port = free_port()
            (own / "penstock.yaml").write_text(config_text(arrangement, provider_port, port, redis_url))
            command = [sys.executable, "-m", "penstock.cli.main", "serve", "--config", own / "penstock.yaml"]
            command += ["--workers", str(arrangement.workers)]
            children.append((running.enter_context(process(command, log=own / "log", cwd=python)), port, own / "log"))
        for child, port, log in children:
            wait_until_ready(child, port, log)
        if arrangement.counters == "leased":
            time.sleep(FRESH + 1.0)  # before that, the holders of leases do not know how many they are
        yield [port for _, port, _ in children]


def wait_until_ready(
    child: subprocess.Popen[bytes], port: int, log: Path, *, path: str = "/readyz", seconds: float = 60
) -> None:
    """Until a dozen connections, each of which may be to another worker, have told so."""
    until, n_ready = time.monotonic() + seconds, 0
    while time.monotonic() < until and child.poll() is None:
        status = 0
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            status = connection.getresponse().status
            connection.close()
        n_ready = n_ready + 1 if status == 200 else 0
        if n_ready == 12:
            return
        time.sleep(0.02)
    raise Unusable(f"no gateway is ready at port {port}:\n{log.read_text(errors='replace')[-2_000:]}")


# --- LiteLLM ---

# Without a database it knows no keys, but whoever brings their own authentication may say what a key is held to. The
# budget is the deployment's, which needs no database either. Prices are those of the provider; a window is an hour.
LITELLM = """
model_list:
  - model_name: {tokens}
    litellm_params: {{ model: openai/{tokens}, api_base: '{url}', api_key: none, {price} }}
  - model_name: {money}
    litellm_params:
      {{ model: openai/{money}, api_base: '{url}', api_key: none, {price}, max_budget: {budget}, budget_duration: 1d }}
router_settings: {{ routing_strategy: simple-shuffle, num_retries: 0 }}
litellm_settings: {{ set_verbose: false, request_timeout: 120, num_retries: 0 }}
general_settings: {{ master_key: sk-bench-master, custom_auth: limits_auth.user_api_key_auth }}
"""
LITELLM_AUTH = """
from litellm.proxy._types import UserAPIKeyAuth

async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, tpm_limit={limit} if api_key.endswith("{tokens}") else None)
"""


def litellm_key(model: str) -> str:
    return f"sk-bench-{model}"


@contextlib.contextmanager
def litellm(folder: Path, provider_port: int) -> Iterator[list[int]]:
    """One worker: several know nothing of each other without a Redis."""
    if not peers.program("litellm").exists():
        raise Unusable("not installed (make bench-peers)")
    price = f"input_cost_per_token: {float(INPUT) / 1e9:.12f}, output_cost_per_token: {float(OUTPUT) / 1e9:.12f}"
    text = LITELLM.format(
        tokens=TOKENS,
        money=MONEY,
        url=f"http://127.0.0.1:{provider_port}/v1",
        price=price,
        budget=BUDGET / LITELLM_PART / 1e9,
    )
    (folder / "litellm.yaml").write_text(text)
    (folder / "limits_auth.py").write_text(LITELLM_AUTH.format(limit=LIMIT // LITELLM_PART, tokens=TOKENS))
    port = free_port()
    command = [
        peers.program("litellm"),
        "--config",
        folder / "litellm.yaml",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environ = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_RATE_LIMIT_WINDOW_SIZE": "3600",
    }
    with process([*command, "--num_workers", "1"], log=folder / "litellm.log", cwd=folder, environ=environ) as child:
        wait_until_ready(child, port, folder / "litellm.log", path="/health/liveliness", seconds=120)
        yield [port]
