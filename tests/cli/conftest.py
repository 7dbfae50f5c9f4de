"""An OpenAI-compatible server that says what a test tells it to, and a way to run the command line in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from penstock.cli.main import run


class ScriptedServer:
    """Answers every chat request with `events`, one after another; `asked` are the bodies it was sent."""

    def __init__(self) -> None:
        self.models = ["first", "second"]
        self.events: list[dict[str, Any] | None] = said("Hello ", "there.")  # None: hang until the caller leaves
        self.status = 200
        self.refusal = {"error": {"message": "no", "code": "no"}}
        self.done = True
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        self.authorization: list[str | None] = []
        self.caller_left = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.authorization.append(self.headers["authorization"])
                self.reply(200, {"data": [{"id": name} for name in outer.models]})

            def do_POST(self) -> None:
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                if outer.status != 200:
                    self.reply(outer.status, outer.refusal)
                    return
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("x-penstock-replica", "local/1")
                self.end_headers()
                for event in outer.events:
                    if event is None:
                        self.connection.recv(1)  # b"" when the caller has left
                        outer.caller_left.set()
                        return
                    self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                if outer.done:
                    self.wfile.write(b"data: [DONE]\n\n")

            def reply(self, status: int, body: object) -> None:
                self.send_response(status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def said(*pieces: str) -> list[dict[str, Any] | None]:
    """The events of a whole answer in `pieces`."""
    texts = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [*texts, end, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(pieces)}}]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def penstock(capfd: pytest.CaptureFixture[str], tmp_path, monkeypatch) -> Callable[..., Ran]:
    """Runs one command line in an empty folder; answers exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> Ran:
        capfd.readouterr()
        code = run(arguments)
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return command
