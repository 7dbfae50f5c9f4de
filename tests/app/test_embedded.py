"""The embedded engine behind the gateway: real processes, a model with random weights."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable
from pathlib import Path

import pytest
import uvloop

from penstock.app.serve import ServeOptions
from penstock.engine.random_model import RandomModel, write_random_model
from tests.app.driver import Running, serving

pytestmark = pytest.mark.journey


def run(story: Awaitable[None]) -> None:
    async def main() -> None:
        await story

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def engines() -> list[int]:
    """Process ids of the engine replicas that this process started."""
    pids = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in pids if "penstock.cli.main\0engine" in Path(f"/proc/{pid}/cmdline").read_text()]


def config(replicas: int) -> str:
    return (
        "models: { chat: { deployments: [toy] } }\n"
        f"deployments: {{ toy: {{ model: ./toy, replicas: {replicas} }} }}\nserver: {{ port: 0, access_log: off }}\n"
    )


def test_a_start_that_is_broken_off_leaves_no_process(tmp_path: Path):
    write_random_model(tmp_path / "toy", RandomModel())
    text = config(2).replace("./toy", str(tmp_path / "toy"))

    async def never(server: Running) -> None:
        raise AssertionError("it must not have started")

    def on_tell(line: str) -> None:
        if line == "Starting 2 engine processes...":
            os.kill(os.getpid(), signal.SIGTERM)

    async def story() -> None:
        code, _ = await serving(ServeOptions(config_text=text), never, on_tell=on_tell)
        assert code == 0
        assert engines() == []

    run(story())


def test_engines_are_started_started_again_changed_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Takes some seconds: an engine process needs about one to start."""
    write_random_model(tmp_path / "toy", RandomModel())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "penstock.yaml"
    path.write_text(config(2))

    async def story() -> None:
        async def use(server: Running) -> None:
            async def ok() -> bool:
                return (await server.chat())[0] == 200

            before = engines()
            assert len(before) == 2
            assert await ok()
            os.kill(before[0], signal.SIGKILL)
            await server.until_told("engine toy/0: was killed by SIGKILL")
            while len(engines()) < 2:
                assert await ok(), "the other replica serves"
            path.write_text(config(1))
            os.kill(os.getpid(), signal.SIGHUP)
            await server.until_told("was read again")
            assert await ok()

        code, _ = await serving(ServeOptions(config_path=str(path), insecure_dev=True), use)
        assert code == 0
        assert engines() == []

    run(story())
