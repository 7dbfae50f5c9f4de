"""Replicas of random fixture models on real sockets, each in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import openai
import pytest

from penstock.engine.options import EngineOptions, Ready
from penstock.engine.replica import serve_engine

FIXTURES = Path(__file__).parent / "fixtures"


class Replica:
    """A running replica and a client for it."""

    def __init__(self, ready: Ready, problems: list[Exception]) -> None:
        self.ready = ready
        self.problems = problems
        self.address = f"http://127.0.0.1:{ready.port}"
        self.client = openai.OpenAI(base_url=f"{self.address}/v1", api_key="unused", max_retries=0, timeout=20)


@contextmanager
def running(options: EngineOptions) -> Iterator[Replica]:
    found: list[Ready] = []
    problems: list[Exception] = []
    failures: list[BaseException] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    started = threading.Event()

    async def serve() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))

        def ready(told: Ready) -> None:
            found.append(told)
            started.set()

        await serve_engine(options, on_ready=ready, on_problem=problems.append, stop=stop, rng=Random(5))

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001  told in the thread of the test
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(timeout=30)
    try:
        if failures:
            raise failures[0]
        replica = Replica(found[0], problems)
        yield replica
        replica.client.close()
    finally:
        if loops and thread.is_alive():
            loop, stop = loops[0]
            loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)
        assert not thread.is_alive(), "the replica did not stop"
    assert not failures, failures
    assert not problems, problems


@pytest.fixture
def start_replica() -> Iterator[Callable[..., Replica]]:
    """Start replicas of a fixture model; all stop at the end of the test."""
    with ExitStack() as stack:

        def start(model: str = "llama-gqa", **options: Any) -> Replica:
            settings = {"port": 0, "drain_seconds": 2.0, "kernels": "numpy", "kv_tokens": 4096, **options}
            return stack.enter_context(running(EngineOptions(model=str(FIXTURES / model), **settings)))

        yield start


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    """One replica with ordinary options, shared by the tests of a module."""
    with running(EngineOptions(model=str(FIXTURES / "llama-gqa"), port=0, drain_seconds=2.0, kv_tokens=4096)) as shared:
        yield shared
