"""A replica as a process: load a model, listen, say that it is ready, and stop without losing answers.

Imports NumPy only when it is called: importing this module is cheap, and the number of BLAS threads must be set before.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from random import Random, SystemRandom

from penstock.core.clock import Clock, SystemClock
from penstock.engine.options import EngineOptions, Ready

OnReady = Callable[[Ready], None]
OnProblem = Callable[[Exception], None]

# With the usual 5 ms, the engine's thread would wait for Python's lock longer than a step of a small model takes.
SWITCH_INTERVAL = 0.0005

MIN_BODY_BYTES = 1 << 20
MAX_BODY_BYTES = 32 << 20


class ReplicaError(Exception):
    """The replica could not start, or could not go on. The message is for the person who started it."""


async def serve_engine(
    options: EngineOptions,
    *,
    on_ready: OnReady | None = None,
    on_problem: OnProblem | None = None,
    stop: asyncio.Event | None = None,
    clock: Clock | None = None,
    rng: Random | None = None,
) -> None:
    """Serve until `stop` is set; without one, until SIGTERM or SIGINT. Then drain for `options.drain_seconds`.

    `on_problem` hears of a request that failed through a mistake of ours; the replica goes on.
    Raises `ReplicaError` for a model that cannot be loaded, an address that cannot be had, or an engine that failed.
    """
    from penstock.engine.checkpoint import CheckpointError
    from penstock.engine.core import EngineCore
    from penstock.engine.kv_events import Publisher
    from penstock.engine.load import load_model
    from penstock.engine.server import EngineServer
    from penstock.http.options import ServerOptions
    from penstock.http.server import Server
    from penstock.wire.errors import protocol_body

    clock = clock or SystemClock()
    try:
        model = load_model(options, lambda form: datetime.fromtimestamp(clock.wall(), UTC).strftime(form))
    except CheckpointError as error:
        raise ReplicaError(str(error)) from None
    stopping = _stop_on_signals() if stop is None else stop
    crashes: list[Exception] = []

    def crashed(error: Exception) -> None:
        crashes.append(error)
        stopping.set()

    publisher = Publisher(clock) if options.kv_events else None
    core = EngineCore(
        model.forward,
        model.tokenizer,
        model.batching,
        eos_token_ids=model.config.eos_token_ids,
        clock=clock,
        on_crash=crashed,
        on_cache=None if publisher is None else publisher.publish,
    )
    handler = EngineServer(model, core, clock=clock, rng=rng or SystemRandom())
    # The longest prompt there can be, with every character escaped, and as much again for everything around it.
    longest_prompt = model.max_model_len * model.tokenizer.longest_token * len("\\u0000")
    limits = ServerOptions(max_body_bytes=min(MAX_BODY_BYTES, MIN_BODY_BYTES + 2 * longest_prompt))
    server = Server(handler.handle, limits, on_crash=on_problem or _to_nobody, error_body=protocol_body)
    try:
        await server.start(options.host, options.port)
    except OSError as error:
        raise ReplicaError(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}") from None
    try:
        if publisher is not None:
            publisher.bind(options.kv_events, options.kv_replay)
    except OSError as error:
        server.close()
        raise ReplicaError(f"cannot publish on {options.kv_events}: {error.strerror or error}") from None
    core.start()
    try:
        if on_ready is not None:
            on_ready(
                Ready(
                    host=options.host,
                    port=server.port,
                    model=model.names[0],
                    kernels=model.forward.name,
                    dtype=model.forward.dtype,
                    parameters=model.parameters,
                    max_model_len=model.max_model_len,
                    kv_events="" if publisher is None else publisher.endpoint,
                    kv_replay="" if publisher is None else publisher.replay,
                    notes=model.notes,
                )
            )
        async with nullcontext() if publisher is None else publisher.repeating():
            await stopping.wait()
            await server.drain(options.drain_seconds)
    finally:
        server.close()
        core.stop()
        if publisher is not None:
            publisher.close()
    if crashes:
        raise ReplicaError(f"the replica failed: {crashes[0]!r}") from crashes[0]


def run_engine(options: EngineOptions, *, on_ready: OnReady | None = None, on_problem: OnProblem | None = None) -> None:
    """`serve_engine` in an event loop of its own. Raises `ReplicaError`."""
    # NumPy's BLAS would take every core of the machine otherwise. No effect when NumPy was imported before.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(options.threads))
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve_engine(options, on_ready=on_ready, on_problem=on_problem))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on this platform
        return None
    return uvloop.new_event_loop


def _to_nobody(error: Exception) -> None:
    """For callers who do not want to hear of problems."""


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
