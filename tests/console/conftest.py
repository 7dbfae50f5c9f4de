"""An admin API over a database, asked without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from penstock.config.load import load
from penstock.console.server import AdminServer
from penstock.core.clock import ManualClock
from penstock.core.keys import Pepper, digest
from penstock.testing.exchange import FakeExchange
from tests.stores.conftest import database, loop, new_url, postgres, url

__all__ = ["database", "loop", "new_url", "postgres", "url"]

ROLES = ("owner", "admin", "viewer", "billing")
KEYS = {role: f"sk-{role}" for role in ROLES} | {"acme": "sk-of-acme", "late": "sk-late"}
_LINES = [f"    - {{ id: {role}, role: {role}, sha256: {digest(KEYS[role])} }}" for role in ROLES]
FILE = f"""\
models: {{ chat: {{ deployments: [a] }}, embed: {{ deployments: [a] }} }}
deployments: {{ a: {{ engine: http://a:1 }} }}
organisations: {{ acme: {{ teams: {{ search: {{ models: [chat] }} }} }}, globex: {{}} }}
keys:
  - {{ id: filed, sha256: {"ab" * 32}, org: globex }}
limits: {{ calm: {{ requests: 60/m, per: key }} }}
admin:
  keys:
{chr(10).join(_LINES)}
    - {{ id: of-acme, role: admin, org: acme, sha256: {digest(KEYS["acme"])} }}
    - {{ id: late, role: owner, expires: 2027-01-16, sha256: {digest(KEYS["late"])} }}
"""


class Reply:
    def __init__(self, exchange: FakeExchange) -> None:
        self.status = exchange.status
        self.text = exchange.text
        self.headers = dict(line.split(": ", 1) for line in exchange.headers.decode().split("\r\n") if line)

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


class Console:
    """`ask` sends one request with the key of a role; `told` is what the operator was told."""

    def __init__(self, loop: Any, database: Any, text: str = FILE, **more: Any) -> None:
        """`more` goes to the server: a desk, and what else the console has."""
        numbers = count(1)
        self.loop, self.database = loop, database
        self.clock = ManualClock()
        self.config = load(text, "penstock.yaml")
        self.told: list[str] = []
        self.server = AdminServer(
            database,
            lambda: self.config,
            clock=self.clock,
            entropy=lambda n: next(numbers).to_bytes(n, "little"),
            pepper=Pepper(b"a pepper of some length"),
            tell=self.told.append,
            **more,
        )

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = KEYS["owner"],
        peer: str = "127.0.0.1",
        raw: bytes | None = None,
        root: str = "/admin/v1",
        **headers: str,
    ) -> Reply:
        return self.loop.run(self.asking(method, path, body, key=key, peer=peer, raw=raw, root=root, **headers))

    async def asking(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = KEYS["owner"],
        peer: str = "127.0.0.1",
        raw: bytes | None = None,
        root: str = "/admin/v1",
        **headers: str,
    ) -> Reply:
        lines = {"content-type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        if key is not None:
            lines["authorization"] = f"Bearer {key}"
        path, _, query = path.partition("?")
        exchange = FakeExchange(
            raw if raw is not None else b"" if body is None else json.dumps(body).encode(),
            method=method.encode(),
            path=(root + path).encode(),
            query=query.encode(),
            headers=tuple((name.encode(), value.encode("latin-1")) for name, value in lines.items()),
            peer=peer,
        )
        await exchange.carry(self.server.handle)
        return Reply(exchange)


@pytest.fixture
def console(loop: Any, database: Any) -> Iterator[Console]:
    made = Console(loop, database)
    yield made
    assert made.told == []
