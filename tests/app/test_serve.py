"""A real server on a real port, with a small engine behind it: start, reload, drain, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from penstock.app import worker
from penstock.app.errors import StartError
from penstock.app.serve import ServeOptions
from penstock.config.load import ConfigError
from penstock.core.keys import digest
from tests.app.driver import Running, chat_bytes, serving
from tests.app.fake_engine import FakeEngine


def run(story: Awaitable[None]) -> None:
    async def main() -> None:
        await story

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def text(*engines: FakeEngine, more: str = "") -> str:
    addresses = ", ".join(engine.address for engine in engines)
    return (
        "models: { chat: { deployments: [local] } }\n"
        f"deployments: {{ local: {{ engine: [{addresses}], served: small }} }}\n"
        f"server: {{ port: 0, drain: 20s, access_log: off }}\n{more}"
    )


def write(path: Path, content: str) -> None:
    """As editors do it: a new file in the place of the old one."""
    aside = path.with_suffix(".new")
    aside.write_text(content)
    aside.rename(path)


def reload(path: Path, content: str) -> None:
    write(path, content)
    os.kill(os.getpid(), signal.SIGHUP)


def test_a_server_starts_answers_and_stops_with_zero():
    async def story() -> None:
        async with FakeEngine("one") as engine:

            async def use(server: Running) -> None:
                status, answer = await server.chat()
                assert (status, answer["choices"][0]["message"]["content"]) == (200, "one")
                assert (await server.get("/healthz"))[0] == 200
                assert (await server.get("/readyz"))[0] == 200
                _, metrics = await server.get("/metrics")
                assert b'penstock_requests_total{model="chat",endpoint="chat.completions"' in metrics
                assert b'penstock_replica_ready{deployment="local",replica="local/0"} 1' in metrics

            code, told = await serving(ServeOptions(config_text=text(engine)), use)
            assert code == 0
            assert any("Penstock serves chat at http://127.0.0.1:" in line for line in told)
            assert any("Development mode" in line for line in told)

    run(story())


def test_a_model_whose_engine_is_not_there_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "FIRST_CHECKS_WITHIN", 0.05)

    async def story() -> None:
        async def use(server: Running) -> None:
            assert "Looked at: http://127.0.0.1:1/health." in await server.until_told("No replica of chat answers")
            assert (await server.get("/readyz"))[0] == 503
            assert (await server.chat())[0] == 503

        gone = text().replace("[]", "[http://127.0.0.1:1]")
        code, _ = await serving(ServeOptions(config_text=gone), use)
        assert code == 0

    run(story())


def test_with_keys_only_those_who_show_one_are_served(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=f"keys: [{{ id: web, sha256: {digest('sk-1')} }}]\n"))

            async def use(server: Running) -> None:
                assert (await server.chat())[0] == 401
                assert (await server.chat(key="sk-2"))[0] == 401
                assert (await server.chat(key="sk-1"))[0] == 200

            await serving(ServeOptions(config_path=str(path)), use)

    run(story())


def test_a_target_that_is_an_address_serves_the_models_it_has():
    async def story() -> None:
        async with FakeEngine("qwen") as engine:

            async def use(server: Running) -> None:
                assert (await server.chat(model="qwen"))[0] == 200
                assert (await server.chat(model="other"))[0] == 404

            await serving(ServeOptions(targets=(engine.address,), port=0), use)

    run(story())


async def never(server: Running) -> None:
    raise AssertionError("it must not have started")


def refusal(options: ServeOptions) -> str:
    """What a person reads."""
    with pytest.raises((StartError, ConfigError)) as caught:
        run(_discard(serving(options, never)))
    return str(caught.value)


async def _discard(result: Awaitable[object]) -> None:
    await result


TOY = "models: { chat: { deployments: [toy] } }\ndeployments: { toy: { model: %s } }\n"
CLOUD = (
    "models: { chat: { deployments: [a] } }\ndeployments: { a: { provider: openai, key: env:PENSTOCK_TEST_NO_KEY } }\n"
)


def test_mistakes_are_told_in_words_and_nothing_is_left_running(tmp_path: Path):
    path = tmp_path / "penstock.yaml"
    path.write_text(TOY % "tiny")
    assert "penstock key create" in refusal(ServeOptions(config_path=str(path)))
    assert "anybody could use your models" in refusal(ServeOptions(config_text=TOY % "tiny", host="0.0.0.0"))
    assert "There is no " in refusal(ServeOptions(config_path=str(tmp_path / "none.yaml")))
    assert ":1: modles is not an option" in refusal(ServeOptions(config_text="modles: 1"))
    assert "in one way" in refusal(ServeOptions())
    assert "`a b` is not a target" in refusal(ServeOptions(targets=("a b",)))
    assert "deployments.a.key: the environment variable PENSTOCK_TEST_NO_KEY is not set" in refusal(
        ServeOptions(config_text=CLOUD, port=0)
    )
    assert "Start the engine first" in refusal(ServeOptions(targets=("http://127.0.0.1:1",), port=0))


def test_a_taken_port_is_told_before_any_engine_is_started():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} on 127.0.0.1 is taken" in refusal(ServeOptions(config_text=TOY % "./nowhere", port=port))


@pytest.mark.journey
def test_an_engine_that_cannot_start_is_told_with_its_own_words():
    told = refusal(ServeOptions(config_text=TOY % "./no-such-weights", port=0))
    assert told.startswith("engine toy/0 did not start: it ended with exit code ")


def test_sigterm_lets_an_open_stream_end_and_takes_no_new_requests():
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
                await server.until_told("Stopping: 1 in flight")
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", server.port)
                engine.gate.set()
                stream = first + await reader.read(-1)
                writer.close()

            code, _ = await serving(ServeOptions(config_text=text(engine)), use, stop=False)
            assert code == 0
            assert b"data: [DONE]" in stream

    run(story())


def test_a_second_signal_ends_everything_at_once():
    async def story() -> None:
        async with FakeEngine("one") as engine:
            engine.gate.clear()

            async def use(server: Running) -> None:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(chat_bytes(stream=True))
                await reader.readuntil(b"one")
                os.kill(os.getpid(), signal.SIGTERM)
                await server.until_told("Once more to stop at once")
                os.kill(os.getpid(), signal.SIGINT)
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await reader.readuntil(b"[DONE]")
                writer.close()

            code, _ = await serving(ServeOptions(config_text=text(engine)), use, stop=False)
            assert code == 1

    run(story())


def test_a_good_change_of_the_file_is_served_and_a_bad_one_changes_nothing(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as one, FakeEngine("two") as two:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(one))

            async def use(server: Running) -> None:
                async def answer() -> str:
                    return str((await server.chat())[1]["choices"][0]["message"]["content"])

                assert await answer() == "one"
                write(path, text(two))
                told = await server.until_told("was read again (plane 2)")
                assert f"~ deployment local: replicas: {one.address} -> {two.address}" in told
                assert await answer() == "two"
                # the first change was found by looking at the file once a second; for the others we do not wait
                reload(path, text(one).replace("deployments: [local]", "deployments: [locla]"))
                told = await server.until_told("what was served before goes on")
                assert ":1: models.chat.deployments.0 names `locla`" in told
                assert "Did you mean `local`?" in told
                assert await answer() == "two"
                reload(path, CLOUD)
                await server.until_told("PENSTOCK_TEST_NO_KEY is not set")
                assert await answer() == "two"
                reload(path, text(two).replace("access_log: off", "access_log: stderr"))
                assert "! server.access_log changed; it takes effect at the next start" in await server.until_told(
                    "plane 3"
                )

            code, _ = await serving(ServeOptions(config_path=str(path), insecure_dev=True), use)
            assert code == 0

    run(story())


def test_sighup_reads_the_file_again_without_a_change(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine))

            async def use(server: Running) -> None:
                os.kill(os.getpid(), signal.SIGHUP)
                assert "it means the same as before" in await server.until_told("was read again (plane 2)")

            await serving(ServeOptions(config_path=str(path), insecure_dev=True), use)

    run(story())


def test_the_access_log_has_every_request_when_the_server_has_stopped(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            log = tmp_path / "access.log"

            async def use(server: Running) -> None:
                for _ in range(3):
                    assert (await server.chat())[0] == 200

            await serving(ServeOptions(config_text=text(engine).replace("access_log: off", f"access_log: {log}")), use)
            assert log.read_text().count('"status":200') == 3

    run(story())


async def _load(server: Running, n_clients: int, enough: Callable[[], bool]) -> list[tuple[int, bool]]:
    """Clients that ask again and again on connections of their own, half of them for streams: (status, whole)."""
    seen: list[tuple[int, bool]] = []

    async def client(stream: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while not enough():
            writer.write(chat_bytes(stream=stream, close=False))
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if b"chunked" in head:
                body = await reader.readuntil(b"0\r\n\r\n")
                seen.append((status, b"[DONE]" in body))
            else:
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                seen.append((status, b"choices" in body))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for i in range(n_clients):
            group.create_task(client(stream=i % 2 == 0))
    return seen


@pytest.mark.journey
@pytest.mark.parametrize(("workers", "n_swaps"), [(1, 100), (2, 25)])
def test_swaps_under_load_lose_no_request(tmp_path: Path, workers: int, n_swaps: int):
    """Every swap replaces every replica, while eight clients ask and a stream from before the first swap stays open."""

    async def story() -> None:
        async with FakeEngine("one") as one, FakeEngine("two") as two, FakeEngine("three") as three:
            engines = [one, two, three]
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engines[2]))
            engines[2].gate.clear()

            async def use(server: Running) -> None:
                async def swap() -> None:
                    nonlocal n_done
                    while n_done < n_swaps:
                        reload(path, text(engines[n_done % 2]))
                        await server.until_told(f"was read again (plane {n_done + 2})")
                        n_done += 1

                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(chat_bytes(stream=True))
                first = await reader.readuntil(b"three")
                reload(path, text(engines[1]))
                await server.until_told("was read again (plane 2)")
                n_done = 1
                async with asyncio.TaskGroup() as group:
                    group.create_task(swap())
                    loading = group.create_task(_load(server, 8, lambda: n_done >= n_swaps))
                seen = loading.result()
                assert len(seen) > n_swaps
                assert [one for one in seen if one != (200, True)] == [], "every answer is whole"
                engines[2].gate.set()
                assert b"[DONE]" in first + await reader.read(-1)
                writer.close()

            await serving(ServeOptions(config_path=str(path), insecure_dev=True, workers=workers), use)

    run(story())


def test_the_port_is_free_again_when_the_server_has_stopped():
    async def story() -> None:
        async with FakeEngine("one") as engine:
            port = 0

            async def use(server: Running) -> None:
                nonlocal port
                port = server.port
                assert (await server.chat())[0] == 200

            await serving(ServeOptions(config_text=text(engine)), use)
            await serving(ServeOptions(config_text=text(engine), port=port), use)

    run(story())
