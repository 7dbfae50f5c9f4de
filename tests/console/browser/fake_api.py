"""The console's API over a made-up world, on a real socket and in a thread of its own. It says what `World` says, and
can be told to refuse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from penstock.config.schema import Role
from penstock.console.pages import Pages
from penstock.console.roles import ROLES
from penstock.http.server import Exchange, Server
from tests.console.browser.world import NOW, World

KEY = "sk-admin-of-the-tests"
GATEWAY_KEY = "sk-web"
SUMS = (
    "requests", "errors", "unpriced", "estimated", "input_tokens", "cached_tokens", "cache_write_tokens",
    "cache_write_1h_tokens", "output_tokens", "reasoning_tokens", "cost_nanos", "duration_micros",
)  # fmt: skip
FEATURES = ("overview", "requests", "live", "open", "fleet", "explain", "costs", "config", "playground", "slo")
TEXT = """\
models:
  chat: { deployments: [chat, hosted] }
deployments:
  chat:
    engine: http://10.0.0.4:8000
    api_key: ${CHAT_KEY}
"""


class FakeApi:
    """`port` once it runs. `refuse[path]` is an answer to give instead; `acts` is what it was asked to do."""

    def __init__(self) -> None:
        self.world = World()
        self.pages = Pages()
        self.ledger = self.world.ledger()
        self.refuse: dict[str, tuple[int, str]] = {}
        self.features = FEATURES
        self.role: Role = "owner"
        self.org = ""
        self.slowly = False
        self.acts: list[tuple[str, Any]] = []
        self.n_more_open = 0
        self.open = [
            {"id": f"req_{k:024x}", "at": NOW - 4.2 + k, "model": model, "endpoint": "chat.completions", "org": "acme",
             "team": "search", "key_id": "acme-search", "priority": "normal", "stage": stage,
             "replica": f"{model}/0" if stage in ("streaming", "sent") else "",
             "ttft": 0.21 if stage == "streaming" else None, "tokens": 40 * (stage == "streaming")}
            for k, (model, stage) in enumerate((("chat", "streaming"), ("code", "sent"), ("chat", "queued")))
        ]  # fmt: skip
        self.keys = [
            {"id": f"{org}-{team}", "org": org, "team": team, "where": "database", "digest": "hmac", "version": 3,
             "created": "2026-12-01T10:00:00Z", "last_used": "2027-01-15T11:58:00Z", "models": ["chat", "code"]}
            for org, team in (("acme", "search"), ("acme", "support"), ("globex", "research"))
        ]  # fmt: skip
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FakeApi:
        self._thread.start()
        assert self._ready.wait(20), "the fake API did not start"
        return self

    def __exit__(self, *why: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        crashes: list[Exception] = []
        server = Server(self.handle, on_crash=crashes.append)
        await server.start()
        self.port = server.port
        self._ready.set()
        await self._stopping.wait()
        await server.drain()
        assert not crashes, crashes

    async def handle(self, exchange: Exchange) -> None:
        path = exchange.path.decode()
        if self.pages.answers(exchange.path):
            return self.pages.answer(exchange)
        query = dict(parse_qsl(exchange.query.decode(), keep_blank_values=True))
        body = json.loads(exchange.body) if exchange.body else {}
        if path in self.refuse:
            status, message = self.refuse[path]
            return self._fail(exchange, status, message)
        if exchange.method != b"GET" and exchange.header(b"x-penstock-console") != b"1":
            return self._fail(exchange, 403, "the request does not come from the console")
        if path == "/console/api/login":
            if body.get("secret") != KEY:
                return self._fail(exchange, 401, "this key is not known here")
            cookie = b"set-cookie: penstock_console=a-session; HttpOnly; SameSite=Strict; Path=/\r\n"
            return self._say(exchange, self._me(), cookie)
        signed_in = b"penstock_console=a-session" in (exchange.header(b"cookie") or b"")
        if path == "/console/api/me":
            return self._say(exchange, self._me() if signed_in else None)
        if not signed_in:
            return self._fail(exchange, 401, "show a key or a token")
        if path == "/console/api/live":
            return await self._live(exchange, query)
        if path == "/console/api/playground":
            return await self._playground(exchange, body)
        if path == "/console/api/logout":
            return exchange.respond(204, b"", b"set-cookie: penstock_console=; Max-Age=0; Path=/\r\n")
        found = self._answer(exchange.method.decode(), path, query, body)
        if found is None:
            return self._fail(exchange, 404, "there is no such thing")
        return self._say(exchange, found)

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if method == "POST":
            self.acts.append((path, body))
        routes: dict[str, Callable[[], Any]] = {
            "/console/api/overview": lambda: self.world.overview(int(query["window"]), query.get("model", "")),
            "/console/api/requests": lambda: self.world.requests(query),
            "/console/api/open": lambda: self._open(query),
            "/console/api/fleet": self.world.fleet,
            "/console/api/models": lambda: {
                "items": [one for one in self.world.fleet()["models"] if not self.org or one["name"] != "chat-large"]
            },
            "/console/api/explain": lambda: self.world.explain(body["body"]),
            "/console/api/costs": lambda: self.costs(query),
            "/console/api/config": self._config,
            "/console/api/config/check": lambda: self._check(body["text"]),
            "/admin/v1/limits": self._limits,
            "/admin/v1/orgs": lambda: {
                "items": [{"org": org, "where": "file"} for org in ("acme", "globex", "initech")]
            },
            "/admin/v1/keys": lambda: self._made(body) if method == "POST" else self._keys(query),
            "/admin/v1/audit": self._audit,
            "/admin/v1/audit/verify": lambda: {"whole": True, "seq": 42, "head": "9f" * 32},
        }
        if path in routes:
            return routes[path]()
        parts = path.strip("/").split("/")
        if parts[:3] == ["console", "api", "requests"]:
            return self._cancel(parts[3]) if parts[-1] == "cancel" else self.world.request(parts[3])
        if parts[:3] == ["admin", "v1", "orgs"]:
            return {"items": [{"org": parts[3], "team": team, "where": "file"} for team in ("search", "support")]}
        if parts[:3] == ["admin", "v1", "keys"] and parts[-1] == "revoke":
            self.keys = [one for one in self.keys if one["id"] != parts[3]]
            return {}
        return None

    def _open(self, query: dict[str, str]) -> dict[str, Any]:
        found = [one for one in self.open if all(one[name] == value for name, value in query.items())]
        return {"at": NOW, "items": found, "n": len(found) + self.n_more_open, "silent": 0}

    def _cancel(self, id: str) -> dict[str, Any] | None:
        found = [one for one in self.open if one["id"] == id]
        self.open = [one for one in self.open if one["id"] != id]
        return found[0] if found else None

    def _me(self) -> dict[str, Any]:
        return {
            "name": "key:ops",
            "role": self.role,
            "org": self.org,
            "may": sorted(ROLES[self.role]),
            "version": "0.1.0",
            "features": list(self.features),
            "slow_ttft": 3.0,
        }

    def costs(self, query: dict[str, str]) -> dict[str, Any]:
        """The pivot as the real one makes it, over rows of an hour."""
        by = [name for name in query.get("by", "").split(",") if name]
        since, until = (
            datetime.fromisoformat(query[name]).replace(tzinfo=UTC).timestamp() for name in ("since", "until")
        )
        known = ("org", "team", "key_id", "feature", "model", "deployment", "endpoint", "user_hash", "session")
        rows = [
            row
            for row in self.ledger
            if since <= row["hour"] < until and all(query.get(name, row[name]) == row[name] for name in known)
        ]

        def value(row: dict[str, Any], name: str) -> Any:
            return datetime.fromtimestamp(row["hour"], UTC).date().isoformat() if name == "day" else row[name]

        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(tuple(value(row, name) for name in by), []).append(row)

        def total(group: tuple[Any, ...], some: list[dict[str, Any]]) -> dict[str, Any]:
            return {"group": dict(zip(by, group, strict=False))} | {
                name: sum(row[name] for row in some) for name in SUMS
            }

        items = sorted((total(*one) for one in groups.items()), key=lambda one: -one["cost_nanos"])
        most = int(query.get("most", 100))
        left = [row for group in items[most:] for row in groups[tuple(group["group"].values())]]
        return {
            "items": items[:most],
            "n_others": max(0, len(items) - most),
            "others": total((), left),
            "total": total((), rows),
            "missing": [],
        }

    def _config(self) -> dict[str, Any]:
        changes = [
            {
                "version": 12,
                "at": NOW - 7_000,
                "lines": ["~ model chat: deployments chat -> chat, hosted", "+ deployment hosted"],
            }
        ]
        return {"version": 12, "path": "penstock.yaml", "loaded_at": NOW - 7_000, "text": TEXT, "changes": changes}

    def _check(self, text: str) -> dict[str, Any]:
        if "engin:" in text:
            problem = {
                "file": "penstock.yaml",
                "line": 5,
                "path": "deployments.chat.engin",
                "message": "is not an option. Did you mean `engine`?",
            }
            return {"good": False, "problems": [problem], "diff": []}
        return {
            "good": True,
            "problems": [],
            "diff": [] if text == TEXT else ["~ deployment chat: engine", "+ deployment spare"],
        }

    def _limits(self) -> dict[str, Any]:
        return {
            "items": [
                {"name": "monthly", "is_budget": True, "options": {"amount": "$500", "per": "org", "period": "month"},
                 "used": [{"who": "acme", "used": 462_000_000_000, "amount": 500_000_000_000},
                  {"who": "globex", "used": 91_400_000_000, "amount": 500_000_000_000}]},
                {"name": "calm", "is_budget": False, "options": {"requests": "600/m", "per": "key"},
                 "used": [{"who": "acme-search", "used": 312, "amount": 600},
                  {"who": "globex-research", "used": 40, "amount": 600}]},
                {"name": "tokens", "is_budget": False, "options": {"tokens": "2M/m", "per": "org"}, "used": []},
            ]
        }  # fmt: skip

    def _keys(self, query: dict[str, str]) -> dict[str, Any]:
        return {
            "items": [
                one
                for one in self.keys
                if query.get("org", one["org"]) == one["org"] and query.get("team", one["team"]) == one["team"]
            ]
        }

    def _made(self, body: dict[str, Any]) -> dict[str, Any]:
        key = {
            "id": body.get("id", "made"),
            "org": body.get("org", ""),
            "team": body.get("team", ""),
            "where": "database",
            "digest": "hmac",
            "version": 1,
        }
        self.keys = [*self.keys, key]
        return {"secret": "sk-told-this-once", "key": key}

    def _audit(self) -> dict[str, Any]:
        acts = ("key.create", "key.rotate", "org.change", "key.revoke")
        return {"items": [{"seq": n + 1, "at_micros": int((NOW - 3_600 * (42 - n)) * 1e6), "actor": "key:ops",
         "action": acts[n % 4],
                           "target": "acme-search", "detail": {"models": ["chat"]}} for n in range(42)]}  # fmt: skip

    async def _live(self, exchange: Exchange, query: dict[str, str]) -> None:
        exchange.start(200, b"cache-control: no-store\r\n")
        n = 0
        while not exchange.gone and not self._stopping.is_set():
            now = {"at": NOW + n / 2, "in_flight": 31 + n % 3, "queued": n % 2, "requests_per_second": 11.4 + n % 4,
             "tokens_per_second": 2300.0 + 40 * (n % 7),
                   "errors_per_second": 0.1 * (n % 2)}  # fmt: skip
            self._event(exchange, "now", now)
            line = self.world.line(self.world.later(NOW + n / 2))
            if self.world.matches(line, query):
                self._event(exchange, "line", line)
            n += 1
            await asyncio.sleep(0.25)
        if not exchange.gone:
            exchange.finish()

    def _event(self, exchange: Exchange, name: str, value: Any) -> None:
        exchange.write(f"event: {name}\ndata: {json.dumps(value)}\n\n".encode())

    async def _playground(self, exchange: Exchange, body: Any) -> None:
        if exchange.header(b"x-penstock-key") != GATEWAY_KEY.encode():
            return self._fail(exchange, 401, "The gateway does not know this key.")
        self.acts.append(("/console/api/playground", body))
        request = self.world.outcomes[0]["request_id"]
        exchange.start(200, f"x-request-id: {request}\r\n".encode())
        words = f"{body['model']} says that water flows downhill, and so do requests: to where they wait least.".split(
            " "
        )
        for n, word in enumerate(words):
            piece = {
                "choices": [{"index": 0, "delta": {"content": word if n == 0 else f" {word}"}, "finish_reason": None}]
            }
            exchange.write(f"data: {json.dumps(piece)}\n\n".encode())
            await asyncio.sleep(0.4 if self.slowly else 0.01)
            if exchange.gone:
                return None
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 14, "completion_tokens": len(words)}}
        exchange.write(f"data: {json.dumps(last)}\n\ndata: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        exchange.finish()

    def _say(self, exchange: Exchange, value: Any, lines: bytes = b"") -> None:
        exchange.respond(200, json.dumps(value).encode(), b"cache-control: no-store\r\n" + lines)

    def _fail(self, exchange: Exchange, status: int, message: str) -> None:
        exchange.respond(status, json.dumps({"error": {"code": "refused", "message": message}}).encode())
