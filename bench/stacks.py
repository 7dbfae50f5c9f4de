"""The gateways that are measured: how each is told about the four replicas, and started.

All get the same work: forward `POST /v1/chat/completions` to four replicas over kept connections, streams unbuffered.
nginx parses, authenticates and counts nothing; it is the floor. Penstock runs with everything on: a key, balancing by
load, breakers, health checks, metrics, and an access log in a file; and it is compiled, as it is in a wheel.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import peers
from machine import GATEWAY_CORE, Child, Unusable

ROOT = Path(__file__).parents[1]
MODEL = "mock-model"
KEY = "sk-bench-0001"  # of the peers; Penstock's has its own form


FORWARDING = frozenset({"A", "B5", "C5000", "L", "latency"})
EVERYTHING = FORWARDING | {"X", "XB5"}


@dataclass(frozen=True)
class Place:
    """Where a stack finds what it needs. Ports `port` and `port + 1` are its own."""

    directory: Path
    port: int
    replicas: tuple[int, ...]  # ports of the mock
    nice: int = 0


@dataclass(frozen=True)
class Stack:
    name: str
    start: Callable[[Place], Child] | None  # None: the mock itself
    missing: Callable[[], str | None] = lambda: None
    scenarios: frozenset[str] = FORWARDING
    heavy: bool = False  # hundreds of times slower: fewer connections, or all would be spent in the queue
    key: str = KEY
    environ: dict[str, str] = field(default_factory=dict)


def _urls(place: Place, path: str = "") -> list[str]:
    return [f"http://127.0.0.1:{port}{path}" for port in place.replicas]


def _spawn(place: Place, command: list[str | Path], **options: object) -> Child:
    return Child(command, core=GATEWAY_CORE, log=place.directory / "log", nice=place.nice, **options)  # type: ignore[arg-type]


# --- nginx ---

NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path {directory};
  proxy_temp_path {directory};
  fastcgi_temp_path {directory};
  uwsgi_temp_path {directory};
  scgi_temp_path {directory};
  keepalive_requests 100000000;
  client_body_buffer_size 512k;
  client_max_body_size 16m;
  upstream replicas {{
    {servers}
    keepalive 8192;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    location / {{
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 60s;
    }}
  }}
}}
"""


def _nginx_program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _nginx_missing() -> str | None:
    return None if _nginx_program() else "nginx is not installed (Debian: apt-get install nginx-light)"


def _start_nginx(place: Place) -> Child:
    servers = "\n    ".join(f"server 127.0.0.1:{port};" for port in place.replicas)
    config = place.directory / "nginx.conf"
    config.write_text(NGINX.format(directory=place.directory, port=place.port, servers=servers))
    return _spawn(place, [_nginx_program() or "nginx", "-p", place.directory, "-c", config])


# --- penstock ---


def _penstock_key() -> str:
    sys.path.insert(0, str(ROOT))
    from penstock.core.keys import ENTROPY_BYTES, mint

    return mint(hashlib.sha512(b"bench").digest()[:ENTROPY_BYTES])


def penstock_as_shipped() -> Path:
    """A folder to start Python in, so that it imports Penstock compiled. The first call builds it, in a minute."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import compiled

    try:
        return compiled.folder()
    except compiled.NotCompiled as problem:
        raise Unusable(f"Penstock is not compiled: {problem}") from None


def _start_penstock(place: Place) -> Child:
    from penstock.core.keys import digest

    lines = [
        f"models: {{ {MODEL}: {{ deployments: [mock] }} }}",
        "deployments:",
        f"  mock: {{ engine: [{', '.join(_urls(place))}], served: {MODEL} }}",
        f"keys: [{{ id: bench, tenant: bench, sha256: {digest(_penstock_key())} }}]",
        f"server: {{ host: 127.0.0.1, port: {place.port}, access_log: {place.directory / 'access.log'} }}",
        "store: { database: off }",
    ]
    config = place.directory / "penstock.yaml"
    config.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "--config", config]
    return _spawn(place, command, cwd=penstock_as_shipped())


# --- peers ---


def _peer_missing(name: str) -> Callable[[], str | None]:
    return lambda: None if peers.program(name).exists() else f"not installed (python bench/peers.py {name})"


def _start_router(name: str, *verb: str) -> Callable[[Place], Child]:
    """vllm-router and sglang-router have one ancestor and the same options."""

    def start(place: Place) -> Child:
        command = [peers.program(name), *verb, "--host", "127.0.0.1", "--port", place.port]
        command += ["--worker-urls", *_urls(place), "--policy", "power_of_two", "--log-level", "error"]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", place.port + 1]
        command += ["--max-concurrent-requests", 20_000]
        return _spawn(place, [str(part) for part in command])

    return start


# Its production page: one worker per core, no debug, a master key, simple-shuffle (docs.litellm.ai/docs/proxy/prod).
LITELLM = """
model_list:
{models}
router_settings: {{ routing_strategy: simple-shuffle }}
litellm_settings: {{ set_verbose: false, request_timeout: 60 }}
general_settings: {{ master_key: {key} }}
"""


def _start_litellm(place: Place) -> Child:
    models = "\n".join(
        f"  - {{ model_name: {MODEL}, litellm_params: {{ model: openai/{MODEL}, api_base: '{url}', api_key: none }} }}"
        for url in _urls(place, "/v1")
    )
    config = place.directory / "litellm.yaml"
    config.write_text(LITELLM.format(models=models, key=KEY))
    command = [peers.program("litellm"), "--config", config, "--host", "127.0.0.1", "--port", str(place.port)]
    environ = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
    return _spawn(place, [*command, "--num_workers", "1"], environ=environ, cwd=place.directory)


def all_stacks() -> tuple[Stack, ...]:
    """In the order of the table."""
    no_flood = frozenset({"A", "B5", "L", "latency"})
    return (
        Stack("direct", None),
        Stack("nginx", _start_nginx, _nginx_missing),
        Stack("penstock", _start_penstock, scenarios=EVERYTHING, key=_penstock_key()),
        Stack("vllm-router", _start_router("vllm-router"), _peer_missing("vllm-router"), no_flood),
        Stack("sglang-router", _start_router("sglang-router", "launch"), _peer_missing("sglang-router"), no_flood),
        Stack("litellm", _start_litellm, _peer_missing("litellm"), frozenset({"A"}), heavy=True),
    )
