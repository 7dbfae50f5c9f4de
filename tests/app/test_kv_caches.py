"""Whom a worker hears about prefix caches."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys

import pytest

from penstock.app.errors import StartError
from penstock.app.kv_caches import KvCaches, need_kv_events, sources
from penstock.balancing.exact_index import ExactIndex
from penstock.balancing.prefix_index import PrefixIndex
from penstock.config.compile import compile_plane
from penstock.config.load import load
from penstock.config.schema import Config
from penstock.core.clock import SystemClock
from penstock.upstreams.kv_events import Source

FILE = """
keys: [{ id: web, sha256: "%s" }]
models: { chat: { deployments: [pool, own, quiet] } }
deployments:
  pool:
    engine: [http://10.0.0.4:8000/v1, http://10.0.0.5:8000/v1]
    kv_events: { endpoint: "tcp://*:5557", replay: "tcp://*:6557" }
  own: { model: tiny, kv_events: {}, replicas: 2 }
  quiet: { engine: http://10.0.0.6:8000/v1 }
""" % ("0" * 64)


def config() -> Config:
    return load(FILE, "penstock.yaml")


def test_every_replica_that_publishes_is_heard_where_it_does_and_no_other():
    origins = {"own": ("http://127.0.0.1:1", "http://127.0.0.1:2")}
    published = {"own": (("tcp://127.0.0.1:3", "tcp://127.0.0.1:4"), ("", ""))}
    spec = compile_plane(config(), 1, origins, published=published)
    assert list(sources(spec)) == [
        Source("pool/0", "pool", "tcp://10.0.0.4:5557", "tcp://10.0.0.4:6557"),
        Source("pool/1", "pool", "tcp://10.0.0.5:5557", "tcp://10.0.0.5:6557"),
        Source("own/0", "own", "tcp://127.0.0.1:3", "tcp://127.0.0.1:4"),
    ]


def test_without_pyzmq_a_person_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    need_kv_events(config())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StartError, match=r"deployments\.pool\.kv_events needs pyzmq.*penstock\[kv-events\]"):
        need_kv_events(config())


def test_a_worker_that_hears_nobody_does_not_load_pyzmq():
    program = (
        "import asyncio, sys\n"
        "from penstock.app.kv_caches import KvCaches\n"
        "from penstock.balancing.exact_index import ExactIndex\n"
        "from penstock.balancing.prefix_index import PrefixIndex\n"
        "from penstock.core.clock import SystemClock\n"
        "async def main():\n"
        "    caches = KvCaches(ExactIndex(PrefixIndex()), SystemClock())\n"
        "    async with asyncio.TaskGroup() as group:\n"
        "        group.create_task(caches.run())\n"
        "        await asyncio.sleep(0)\n"
        "        assert 'zmq' not in sys.modules\n"
        "        caches.stop()\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_it_stops_when_told_whomever_it_hears():
    async def main() -> None:
        caches = KvCaches(ExactIndex(PrefixIndex()), SystemClock())
        here = FILE.replace("10.0.0.4", "127.0.0.1").replace("10.0.0.5", "127.0.0.2")
        caches.follow(compile_plane(load(here, "penstock.yaml"), 1, {}))
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(caches.run())
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(caches.events.heard) == 2, "they try to connect to where nobody is"
            caches.stop()
        assert caches.events.heard == {}

    asyncio.run(main())
