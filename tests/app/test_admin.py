"""The admin API beside a real server: what is done there is what callers meet, within seconds and without a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from penstock.app.errors import StartError
from penstock.app.serve import ServeOptions
from penstock.core.keys import digest
from tests.app.driver import Running, request, serving
from tests.app.fake_engine import FakeEngine
from tests.app.test_books import text_of
from tests.app.test_serve import never, reload, run, text
from tests.stores.redis_server import redis_server

ADMIN = f"admin: {{ port: 0, keys: [{{ id: ops, role: owner, sha256: {digest('sk-canary-ops')} }}] }}\n"
KEYS = f"keys: [{{ id: filed, sha256: {digest('sk-canary-filed')} }}]\n"
TWO_KEYS = f"{KEYS[:-2]}, {{ id: second, sha256: {digest('sk-canary-second')} }}]\n"
LIMITS = """\
limits: { calm: { requests: 600/h, per: key } }
budgets: { house: { amount: $9, every: month, per: all } }
"""


async def ask(server: Running, method: str, path: str, body: Any = None, key: str = "sk-canary-ops") -> tuple[int, Any]:
    line = await server.until_told("The admin API is at")
    port = int(line.rpartition("/admin")[0].rpartition(":")[2])
    sent = b"" if body is None else json.dumps(body).encode()
    head = f"{method} /admin/v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
    status, answer = await request(port, head.encode() + sent)
    return status, json.loads(answer)


async def until_chat(server: Running, key: str, status: int) -> None:
    """Gateways follow the database; a test's time limit ends this when they do not."""
    while (await server.chat(key=key))[0] != status:  # noqa: ASYNC110 - nobody rings when they have
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_key_that_is_made_is_let_in_and_one_that_is_revoked_is_not(tmp_path: Path, workers: int):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=KEYS + ADMIN))

            async def use(server: Running) -> None:
                assert (await ask(server, "POST", "/orgs", {"org": "acme"}))[0] == 201
                status, made = await ask(server, "POST", "/keys", {"id": "web", "org": "acme"})
                assert status == 201
                await until_chat(server, made["secret"], 200)
                _, rotated = await ask(server, "POST", "/keys/web/rotate", {"overlap": "1h"})
                await until_chat(server, rotated["secret"], 200)
                assert (await server.chat(key=made["secret"]))[0] == 200
                assert (await ask(server, "POST", "/orgs/acme/revoke"))[0] == 200
                await until_chat(server, rotated["secret"], 401)
                assert (await server.chat(key="sk-canary-filed"))[0] == 200
                assert (await server.chat(key="sk-canary-ops"))[0] == 401, "an admin key calls no models"
                assert (await server.get("/admin/v1/me"))[0] == 404, "it has an address of its own"

            code, told = await serving(ServeOptions(config_path=str(path), workers=workers), use)
            assert code == 0, told

    run(story())


@pytest.mark.parametrize(("workers", "over_redis"), [(1, False), (2, False), (2, True)])
def test_what_is_used_of_limits_is_told_with_the_fullest_first(tmp_path: Path, workers: int, over_redis: bool):
    more = TWO_KEYS + ADMIN + LIMITS

    async def story(counters: str) -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            price = "{ input: $0/M, output: $0/M, request: $1 }"
            path.write_text(text_of(engine, more + counters, price))

            async def used(server: Running, n: int) -> dict[str, Any]:
                """When the ledger has these requests: until then nobody knows whose counters there are."""
                while True:
                    _, costs = await ask(server, "GET", "/costs?by=key_id")
                    if costs["total"]["requests"] == n:
                        break
                    await asyncio.sleep(0.05)
                items = (await ask(server, "GET", "/limits"))[1]["items"]
                return {one["name"]: one["used"] for one in items}

            async def use(server: Running) -> None:
                assert await used(server, 0) == {"calm": [], "house": [{"who": "all", "used": 0, "amount": 9 * 10**9}]}
                for key in ("sk-canary-filed", "sk-canary-second", "sk-canary-filed"):
                    assert (await server.chat(key=key))[0] == 200
                found = await used(server, 3)
                assert found["house"] == [{"who": "all", "used": 3 * 10**9, "amount": 9 * 10**9}]
                if over_redis:  # workers have leased more than they have used so far
                    assert [one["who"] for one in found["calm"]] == ["key filed", "key second"]
                    return
                assert found["calm"] == [
                    {"who": "key filed", "used": 2, "amount": 600},
                    {"who": "key second", "used": 1, "amount": 600},
                ]

            code, told = await serving(ServeOptions(config_path=str(path), workers=workers), use)
            assert code == 0, told

    if over_redis:
        with redis_server(tmp_path) as url:
            run(story(f"store: {{ counters: '{url}' }}\n"))
    else:
        run(story(""))


def test_who_gets_in_follows_the_file(tmp_path: Path):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=KEYS + ADMIN))

            async def use(server: Running) -> None:
                assert (await ask(server, "GET", "/me"))[1]["name"] == "key:ops"
                reload(path, text(engine, more=KEYS + ADMIN.replace("ops", "other").replace("owner", "viewer")))
                while (await ask(server, "GET", "/me"))[1]["role"] != "viewer":  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.05)

            await serving(ServeOptions(config_path=str(path)), use)

    run(story())


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("port: {taken}", r"Port [0-9]+ on 127\.0\.0\.1 is taken .* or take another: admin\.port in the configuration"),
        ("port: 0, tls: {{ certificate: a.pem, key: b.pem }}", r"admin\.tls: there is no .*a\.pem"),
    ],
)
def test_an_admin_api_that_cannot_be_served_is_told_at_the_start(tmp_path: Path, option: str, told: str):
    async def story() -> None:
        async with FakeEngine("one") as engine:
            taken = urlsplit(engine.address).port
            more = ADMIN.replace("port: 0", option.format(taken=taken))
            path = tmp_path / "penstock.yaml"
            path.write_text(text(engine, more=KEYS + more))
            with pytest.raises(StartError, match=told):
                await serving(ServeOptions(config_path=str(path)), never)

    run(story())
