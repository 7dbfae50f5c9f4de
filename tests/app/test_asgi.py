"""The whole gateway under a real uvicorn, with its own HTTP and with ours."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from penstock.app.asgi import GatewayApp
from penstock.http.uvicorn_http import PenstockHttp
from penstock.stores.databases import open_database
from penstock.stores.ledger import SqlLedger
from tests.app.driver import chat_bytes, request
from tests.app.fake_engine import FakeEngine

KEY = "sk-pen-test"


class Quiet(uvicorn.Server):
    """uvicorn without its hands on the signals; says when it listens."""

    def __init__(self, settings: uvicorn.Config) -> None:
        super().__init__(settings)
        self.listens = asyncio.Event()

    def capture_signals(self) -> Any:
        return nullcontext()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()


def config(tmp_path: Path, deployments: str, keys: bool = True) -> str:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    path = tmp_path / "penstock.yaml"
    path.write_text(
        f"models: {{ chat: {{ deployments: [up] }} }}\ndeployments: {{ up: {deployments} }}\n"
        + (f'keys: [{{ id: web, sha256: "{digest}" }}]\n' if keys else "")
        + "server: { access_log: off }\n"
    )
    return str(path)


@pytest.mark.parametrize("http", ["httptools", PenstockHttp])
def test_the_gateway_serves_under_uvicorn(http: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeEngine("up") as engine:
            app = GatewayApp(config(tmp_path, f"{{ engine: {engine.address} }}"), lambda line: None)
            settings = uvicorn.Config(app, host="127.0.0.1", port=0, http=http, log_config=None, access_log=False)
            server = Quiet(settings)
            async with asyncio.TaskGroup() as group:
                group.create_task(server.serve())
                await server.listens.wait()
                port = server.servers[0].sockets[0].getsockname()[1]
                status, body = await request(port, chat_bytes(key=KEY))
                assert (status, b'"choices"' in body) == (200, True)
                assert (await request(port, chat_bytes()))[0] == 401
                server.should_exit = True
        assert await statuses(tmp_path) == [200, 401]  # the ledger has them when the server has ended

    asyncio.run(main())


async def statuses(tmp_path: Path) -> list[int]:
    database = await open_database(str(tmp_path / "penstock.db"))
    rows = await SqlLedger(database).entries(0, 2**53)
    await database.close()
    return [row.status for row in rows]


@pytest.mark.parametrize(
    ("deployments", "keys", "why"),
    [
        ("{ engine: http://127.0.0.1:9 }", False, "no keys"),
        ("{ model: tiny }", True, "engines are not started"),
        ("{ engin: http://127.0.0.1:9 }", True, "Did you mean `engine`"),
    ],
)
def test_a_file_that_cannot_be_served_stops_the_start_and_says_why(
    deployments: str, keys: bool, why: str, tmp_path: Path
) -> None:
    async def main() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message)

        await GatewayApp(config(tmp_path, deployments, keys), lambda line: None)({"type": "lifespan"}, receive, send)
        return sent

    (message,) = asyncio.run(main())
    assert message["type"] == "lifespan.startup.failed"
    assert why in message["message"]
