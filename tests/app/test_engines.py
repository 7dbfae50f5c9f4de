"""From the engines that run to those a new configuration wants."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from penstock.app.engines import Engines, program
from penstock.app.errors import StartError
from penstock.config.load import load
from penstock.config.schema import OPTIONS_OF_REPLICA, Config, Deployment
from penstock.core.clock import SystemClock
from penstock.engine.options import EngineOptions
from penstock.platforms.processes import ProcessOptions

FAKE = str(Path(__file__).with_name("fake_engine.py"))
OPTIONS = ProcessOptions(backoff_base=0.0, stop_grace=20.0)


def config(deployments: str) -> Config:
    names = [line.partition(":")[0].strip() for line in deployments.strip().splitlines()]
    indented = "\n".join("  " + line.strip() for line in deployments.strip().splitlines())
    return load(f"models: {{ chat: {{ deployments: [{', '.join(names)}] }} }}\ndeployments:\n{indented}\n", "f")


def command(deployment: Deployment) -> tuple[str, ...]:
    return (sys.executable, FAKE, deployment.model or "")


def run(story: Callable[[Engines, asyncio.Event], Awaitable[None]]) -> None:
    async def main() -> None:
        moved = asyncio.Event()
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            engines = Engines(
                group,
                clock=SystemClock(),
                rng=Random(1),
                tell=[].append,
                on_move=moved.set,
                options=OPTIONS,
                command=command,
            )
            try:
                await story(engines, moved)
            finally:
                engines.kill()

    with asyncio.Runner() as runner:
        runner.run(main())


@pytest.mark.journey
def test_engines_that_stay_are_kept_and_only_what_is_new_is_started():
    async def story(engines: Engines, moved: asyncio.Event) -> None:
        engines.adopt(await engines.prepare(config("a: { model: one, replicas: 2 }\nb: { model: two }")))
        before = engines.origins()
        assert [len(before[name]) for name in "ab"] == [2, 1]
        wanted = await engines.prepare(config("a: { model: one, replicas: 3 }\nb: { model: other }"))
        assert engines.origins() == before, "what is prepared is beside what runs"
        engines.adopt(wanted)
        after = engines.origins()
        assert after["a"][:2] == before["a"]
        assert len(after["a"]) == 3
        assert after["b"] != before["b"]
        assert not moved.is_set()

    run(story)


@pytest.mark.journey
def test_engines_that_cannot_start_leave_everything_as_it_was():
    async def story(engines: Engines, moved: asyncio.Event) -> None:
        engines.adopt(await engines.prepare(config("a: { model: one }")))
        before = engines.origins()
        with pytest.raises(StartError, match=r"engine b/0 did not start(.|\n)*there are no such weights"):
            await engines.prepare(config("a: { model: one }\nb: { model: broken }"))
        assert engines.origins() == before

    run(story)


@pytest.mark.journey
def test_an_engine_that_died_is_somewhere_else_and_whoever_serves_it_is_told():
    async def story(engines: Engines, moved: asyncio.Event) -> None:
        wanted = await engines.prepare(config("a: { model: one }"))
        engines.adopt(wanted)
        (_, child) = wanted.children["a"][0]
        before = engines.origins()["a"]
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        await moved.wait()
        assert engines.origins()["a"] != before

    run(story)


def test_every_option_of_a_deployment_reaches_the_engines_command_line():
    (deployment,) = config(
        "a: { model: ./weights/x/, threads: 2, dtype: int8, max_seqs: 4, max_batched_tokens: 64, max_waiting: 9 }"
    ).deployments.values()
    told = " ".join(program(deployment)[3:])
    assert told == (
        "engine --model ./weights/x/ --host 127.0.0.1 --port 0 --served-name x "
        "--threads 2 --dtype int8 --max-seqs 4 --max-batched-tokens 64 --max-waiting 9"
    )


def test_an_engine_whose_cache_is_to_be_known_is_told_to_publish_it():
    (deployment,) = config("a: { model: tiny, kv_events: {} }").deployments.values()
    told = " ".join(program(deployment))
    assert told.endswith("--kv-events tcp://127.0.0.1:* --kv-replay tcp://127.0.0.1:*")


def test_the_options_of_a_deployment_are_options_of_the_engine():
    assert set(OPTIONS_OF_REPLICA) <= set(EngineOptions.__struct_fields__)
