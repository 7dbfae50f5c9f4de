"""The admin API at its own address: over real sockets, with real limits."""

import asyncio
import json
import sys

import pytest

from penstock.app.listen import bind
from penstock.config.load import load
from penstock.console.server import AdminServer, MissingExtra
from penstock.core.clock import ManualClock
from penstock.stores.migrate import migrate
from penstock.stores.sqlite_database import SqliteDatabase
from tests.console.conftest import FILE, KEYS


def served(tmp_path, work, text=FILE):
    """What `work(port)` answers while the admin API is served, and what the operator was told."""
    told = []

    async def main():
        database = SqliteDatabase(tmp_path / "books.db")
        await migrate(database, now=0.0)
        config = load(text, "")
        server = AdminServer(
            database, lambda: config, clock=ManualClock(), entropy=lambda n: b"e" * n, pepper=None, tell=told.append
        )
        await server.start(bind("127.0.0.1", 0))
        try:
            return await work(server)
        finally:
            await server.stop()
            await server.stop()
            await database.close()

    return asyncio.run(main()), told


async def said(port, sent):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await reader.read(-1)
    writer.close()
    return answer


def request(method, path, body=b"", key=KEYS["owner"]):
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_it_answers_over_http_and_stops(tmp_path):
    async def work(server):
        made = await said(server.port, request("POST", "/admin/v1/keys", b'{"id": "web"}'))
        assert made.startswith(b"HTTP/1.1 201 Created\r\n") and b"cache-control: no-store\r\n" in made
        assert json.loads(made.partition(b"\r\n\r\n")[2])["key"]["id"] == "web"
        port = server.port
        await server.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    assert served(tmp_path, work)[1] == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request("GET", "/v1/models"), 404),
        (request("GET", "/admin/v1"), 404),
        (request("GET", "/admin/v1/"), 404),
        (request("GET", "/admin/v1/../v1/keys"), 404),
        (request("GET", "/admin/v1x/keys"), 404),
        (request("GET", "//admin/v1/keys"), 404),
        (request("GET", "/admin/v1keys"), 404),
        (request("GET", "/admin/v1//keys"), 404),
        (request("GET", "/admin/v1/keys/"), 404),
        (request("GET", "/admin/v1/keys", key="nobody"), 401),
        (request("HEAD", "/admin/v1/keys"), 405),
        (request("POST", "/admin/v1/keys", b"x" * (2 << 20)), 413),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_what_is_not_for_it_is_refused_in_its_own_shape(tmp_path, sent, status):
    async def work(server):
        return await said(server.port, sent)

    answer, told = served(tmp_path, work)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert sent.startswith(b"HEAD") or set(json.loads(body)) == {"error"}
    assert told == []


def test_a_bug_is_answered_500_without_a_word_of_what_was_sent(tmp_path):
    async def work(server):
        async def broken(*_):
            raise RuntimeError("sk-secret")

        server._house.tenancy.key = broken
        return await said(server.port, request("GET", "/admin/v1/keys/web"))

    answer, told = served(tmp_path, work)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"sk-secret" not in answer and "sk-secret" not in told[0]
    assert "RuntimeError" in told[0]


def test_tokens_without_their_library_are_told_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jwt", None)
    monkeypatch.setattr("penstock.console.server.find_spec", lambda name: None)
    oidc = "  oidc: { issuer: https://x.example, audience: p, roles: { a: owner } }\n"
    with pytest.raises(MissingExtra, match=r"pip install 'penstock\[oidc\]'"):
        served(tmp_path, lambda server: None, FILE + oidc)

    async def after_a_reload(server):
        server._gate._config = lambda: load(FILE + oidc, "")
        return await said(server.port, request("GET", "/admin/v1/me"))

    answer, told = served(tmp_path, after_a_reload)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(told) == 1 and told[0].endswith("Until then, keys alone are let in.")
