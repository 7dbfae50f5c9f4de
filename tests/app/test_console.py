"""The console beside a real server: what workers do is what it shows, and a restart forgets nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.app.serve import ServeOptions
from tests.app.driver import Running, chat_bytes, request, serving
from tests.app.fake_engine import FakeEngine
from tests.app.test_admin import ADMIN, KEYS
from tests.app.test_serve import reload, run, text


async def ask(
    server: Running,
    path: str,
    body: Any = None,
    headers: str = "",
    key: str | None = "sk-canary-ops",
    method: str = "",
    root: str = "/console",
) -> tuple[int, bytes]:
    line = await server.until_told("The console is at")
    port = int(line.rpartition("/console")[0].rpartition(":")[2])
    sent = b"" if body is None else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    head = f"{method} {root}{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}"
    head += "" if key is None else f"authorization: Bearer {key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
    return await request(port, head.encode() + sent)


async def until(server: Running, path: str, right: Any) -> Any:
    """The first answer that is; a test's time limit ends this when there is none."""
    while True:
        status, answer = await ask(server, f"/api{path}")
        assert status == 200, answer
        found = json.loads(answer)
        if right(found):
            return found
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_workers_do_is_what_the_console_shows_and_a_restart_forgets_none_of_it(tmp_path: Path, workers: int):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=KEYS + ADMIN))

            async def use(server: Running) -> None:
                for _ in range(6):
                    assert (await server.chat(key="sk-canary-filed"))[0] == 200
                assert (await server.chat(key="sk-canary-filed", model="nobody"))[0] == 404
                listed = await until(server, "/requests", lambda found: len(found["items"]) == 7)
                assert {line["key_id"] for line in listed["items"]} == {"filed"}
                assert [line["error"] for line in listed["items"] if line["error"]] == ["model_not_found"]
                total = (await until(server, "/overview", lambda found: found["total"]["requests"] == 7))["total"]
                assert (total["errors"], total["e2e"]["p50"] is not None) == (0, True)
                seen = await until(server, "/fleet", lambda found: found["workers"] == workers)
                assert seen["deployments"][0]["replicas"][0]["ready"]
                one = json.loads((await ask(server, f"/api/requests/{listed['items'][-1]['id']}"))[1])
                assert one["trace"]["spans"][0]["attributes"]["key_id"] == "filed"
                _, page = await server.get("/metrics")
                assert b"penstock_kept_requests_total 7" in page

            async def again(server: Running) -> None:
                assert len((await until(server, "/requests", lambda found: found["items"]))["items"]) == 7

            for moment in (use, again):
                code, told = await serving(ServeOptions(config_path=str(path), workers=workers), moment)
                assert code == 0, told
            assert (tmp_path / "penstock.traces.db").stat().st_mode & 0o777 == 0o600

    run(story())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_playground_and_explanations_go_through_the_gateway_with_the_users_own_key(tmp_path: Path, workers: int):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=KEYS + ADMIN))
            body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}

            async def use(server: Running) -> None:
                with_key = "x-penstock-key: sk-canary-filed\r\n"
                status, answer = await ask(server, "/api/playground", body, with_key)
                assert status == 200 and b"one" in answer
                assert (await ask(server, "/api/playground", body))[0] == 401
                assert (await ask(server, "/api/playground", body, with_key, key=None))[0] == 401
                assert (await ask(server, "/api/playground", body, "x-penstock-key: sk-canary-ops\r\n"))[0] == 401
                status, answer = await ask(server, "/api/explain", {"body": body}, with_key)
                assert status == 200 and json.loads(answer)["chosen"] == "local/0"
                status, answer = await ask(server, "/api/explain", {"body": body})
                assert json.loads(answer)["refused"]["code"] == "invalid_api_key"

            code, told = await serving(ServeOptions(config_path=str(path), workers=workers), use)
            assert code == 0, told

    run(story())


@pytest.mark.parametrize("workers", [1, 2])
def test_an_open_request_is_seen_wherever_it_is_and_an_operator_ends_it(tmp_path: Path, workers: int):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=KEYS + ADMIN))

            async def use(server: Running) -> None:
                engine.gate.clear()
                async with asyncio.TaskGroup() as group:
                    stream = chat_bytes(stream=True, key="sk-canary-filed")
                    asked = [group.create_task(request(server.port, stream)) for _ in range(4)]
                    found = await until(
                        server, "/open", lambda found: [one["stage"] for one in found["items"]] == ["streaming"] * 4
                    )
                    assert (found["n"], found["silent"]) == (4, 0)
                    assert {(one["key_id"], one["replica"], one["tokens"]) for one in found["items"]} == {
                        ("filed", "local/0", 1)
                    }
                    id = found["items"][0]["id"]
                    status, answer = await ask(server, f"/api/requests/{id}/cancel", method="POST")
                    assert status == 200 and json.loads(answer)["id"] == id
                    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                    (told,) = done
                    assert told.result()[0] == 200 and b"cancelled_by_operator" in told.result()[1]
                    assert (await ask(server, f"/api/requests/{id}/cancel", method="POST"))[0] == 404
                    engine.gate.set()
                assert sum(b"[DONE]" in one.result()[1] for one in asked) == 3
                kept = await until(server, "/requests", lambda found: len(found["items"]) == 4)
                assert [line["id"] for line in kept["items"] if line["error"] == "cancelled_by_operator"] == [id]
                _, acts = await ask(server, "/audit", root="/admin/v1")
                assert [act["action"] for act in json.loads(acts)["items"]] == ["request.cancel"]

            code, told = await serving(ServeOptions(config_path=str(path), workers=workers), use)
            assert code == 0, told

    run(story())


def test_the_configuration_is_shown_as_it_is_served_and_what_reloads_changed(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=KEYS + ADMIN))

            async def use(server: Running) -> None:
                shown = json.loads((await ask(server, "/api/config"))[1])
                assert "served: small" in shown["text"] and "(digest 1)" in shown["text"] and not shown["changes"]
                _, told = await ask(server, "/api/config/check", {"text": shown["text"]})
                assert json.loads(told) == {"good": True, "problems": [], "diff": []}
                reload(path, text(engine, more=KEYS + ADMIN).replace("served: small", "served: large"))
                shown = await until(server, "/config", lambda found: found["changes"])
                assert shown["version"] == 2 == shown["changes"][0]["version"]
                assert "served: large" in shown["text"] and "large" in " ".join(shown["changes"][0]["lines"])

            code, told = await serving(ServeOptions(config_path=str(path)), use)
            assert code == 0, told

    run(story())


def test_a_file_of_requests_that_cannot_be_had_keeps_nobody_from_being_served(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            (tmp_path / "nowhere").write_text("a file, and no folder")
            path.write_text(text(engine, more=KEYS + ADMIN + "store: { traces: nowhere/traces.db }\n"))

            async def use(server: Running) -> None:
                assert (await server.chat(key="sk-canary-filed"))[0] == 200
                await until(server, "/overview", lambda found: found["total"]["requests"] == 1)
                assert "requests" not in json.loads((await ask(server, "/api/me"))[1])["features"]

            code, told = await serving(ServeOptions(config_path=str(path)), use)
            assert code == 0 and any("Single requests are not kept" in line for line in told), told

    run(story())


def test_the_pages_are_there_for_everybody_and_what_they_show_for_nobody(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=KEYS + ADMIN))

            async def use(server: Running) -> None:
                status, page = await ask(server, "", key=None)
                assert status == 200 and b"<script" in page
                assert (await ask(server, "/api/overview", key=None))[0] == 401

            assert (await serving(ServeOptions(config_path=str(path)), use))[0] == 0

    run(story())
