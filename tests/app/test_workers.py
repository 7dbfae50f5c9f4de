"""Several worker processes behind one port."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable
from pathlib import Path

import pytest
import uvloop

from penstock.app import workers
from penstock.app.errors import StartError
from penstock.app.serve import ServeOptions
from penstock.platforms.processes import ProcessOptions
from tests.app.driver import Running, chat_bytes, serving
from tests.app.fake_engine import FakeEngine

pytestmark = pytest.mark.journey


def run(story: Awaitable[None]) -> None:
    async def main() -> None:
        await story

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def text(engine: FakeEngine, more: str = "") -> str:
    return (
        "models: { chat: { deployments: [local] } }\n"
        f"deployments: {{ local: {{ engine: {engine.address}, served: small }} }}\n"
        f"server: {{ port: 0, drain: 20s, access_log: off }}\n{more}"
    )


def children() -> list[int]:
    """Process ids of the gateway workers that this process started."""
    pids = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in pids if "worker_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def metric(page: bytes, name: str) -> float:
    found = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", page.decode(), re.MULTILINE)
    assert found is not None, f"{name} is not in\n{page.decode()}"
    return float(found[1])


def test_all_workers_serve_one_port_and_any_of_them_knows_the_numbers_of_all():
    async def story() -> None:
        async with FakeEngine("one") as engine:

            async def use(server: Running) -> None:
                assert len(children()) == 3
                for _ in range(30):
                    assert (await server.chat())[0] == 200
                pages = [(await server.get("/metrics"))[1] for _ in range(6)]
                assert {metric(page, "penstock_requests_total") for page in pages} == {30}
                assert {metric(page, "penstock_workers_unreadable") for page in pages} == {0}

            code, _ = await serving(ServeOptions(config_text=text(engine), workers=3), use)
            assert code == 0
            assert children() == []

    run(story())


def test_a_killed_worker_is_started_again_while_the_others_serve():
    async def story() -> None:
        async with FakeEngine("one") as engine:

            async def use(server: Running) -> None:
                before = children()
                os.kill(before[0], signal.SIGKILL)
                told = await server.until_told("Starting it again")
                assert re.fullmatch(r"worker-\d: was killed by SIGKILL .*\. Starting it again in \d\.\d s\.", told)
                while len(set(children()) - set(before)) < 1:
                    assert (await server.chat())[0] == 200
                unreadable = 1.0
                while unreadable:
                    unreadable = metric((await server.get("/metrics"))[1], "penstock_workers_unreadable")

            code, _ = await serving(ServeOptions(config_text=text(engine), workers=2), use)
            assert code == 0

    run(story())


def test_a_worker_that_cannot_be_read_is_missing_from_the_numbers_and_they_say_so():
    async def story() -> None:
        async with FakeEngine("one") as engine:

            async def use(server: Running) -> None:
                held = children()[0]
                os.kill(held, signal.SIGSTOP)  # connections that the kernel gives to it wait; the other one answers
                try:
                    page = await first_answer(server)
                finally:
                    os.kill(held, signal.SIGCONT)
                assert metric(page, "penstock_workers_unreadable") == 1

            async def first_answer(server: Running) -> bytes:
                async with asyncio.TaskGroup() as group:
                    asked = {group.create_task(server.get("/metrics")) for _ in range(16)}
                    done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                    for one in waiting:
                        one.cancel()
                return done.pop().result()[1]

            await serving(ServeOptions(config_text=text(engine), workers=2), use)

    run(story())


def test_a_new_plane_is_served_by_all_workers_or_by_none(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as one, FakeEngine("two") as two:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(one))

            async def use(server: Running) -> None:
                async def versions() -> set[str]:
                    pages = [(await server.get("/readyz"))[1] for _ in range(12)]
                    return {re.search(rb"\d+", page.rpartition(b"plane")[2])[0].decode() for page in pages}  # type: ignore[index]

                assert await versions() == {"1"}
                path.write_text(text(two))
                os.kill(os.getpid(), signal.SIGHUP)
                await server.until_told("was read again (plane 2)")
                assert await versions() == {"2"}
                cloud = "deployments: { local: { provider: openai, key: env:PENSTOCK_TEST_NO_KEY } }"
                path.write_text(re.sub("deployments: { local: .*", cloud, text(two)))
                os.kill(os.getpid(), signal.SIGHUP)
                assert "PENSTOCK_TEST_NO_KEY is not set" in await server.until_told("what was served before goes on")
                assert await versions() == {"2"}

            await serving(ServeOptions(config_path=str(path), workers=2, insecure_dev=True), use)

    run(story())


def test_sigterm_lets_the_streams_of_workers_end():
    async def story() -> None:
        async with FakeEngine("one") as engine:
            engine.gate.clear()
            stream = b""

            async def use(server: Running) -> None:
                nonlocal stream
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(chat_bytes(stream=True))
                first = await reader.readuntil(b"one")
                os.kill(os.getpid(), signal.SIGTERM)
                await server.until_told("Stopping")
                engine.gate.set()
                stream = first + await reader.read(-1)
                writer.close()

            code, _ = await serving(ServeOptions(config_text=text(engine), workers=2), use, stop=False)
            assert code == 0
            assert b"[DONE]" in stream

    run(story())


def test_what_workers_cannot_serve_is_told_once_and_in_words():
    cloud = (
        "models: { chat: { deployments: [a] } }\n"
        "deployments: { a: { provider: openai, key: env:PENSTOCK_TEST_NO_KEY } }\nserver: { port: 0 }\n"
    )

    async def never(server: Running) -> None:
        raise AssertionError("it must not have started")

    async def story() -> None:
        await serving(ServeOptions(config_text=cloud, workers=2), never)

    with pytest.raises(
        StartError, match=r"deployments\.a\.key: the environment variable PENSTOCK_TEST_NO_KEY is not set"
    ):
        run(story())
    assert children() == []


def test_a_server_whose_workers_cannot_be_kept_alive_ends_and_says_so(monkeypatch: pytest.MonkeyPatch):
    """Or a process that serves nobody would look alive to whoever supervises it."""
    options = ProcessOptions(backoff_base=0.0, backoff_cap=0.0, give_up_after=2)
    monkeypatch.setattr(workers, "child_options", lambda drain_seconds: options)

    async def story() -> None:
        async with FakeEngine("one") as engine:

            async def use(server: Running) -> None:
                while not any("No gateway worker is left" in line for line in server.told):
                    for pid in children():
                        os.kill(pid, signal.SIGKILL)
                    await asyncio.sleep(0)

            code, _ = await serving(ServeOptions(config_text=text(engine), workers=2), use, stop=False)
            assert code == 1

    run(story())
