"""The real Prometheus, promtool and Alertmanager of this machine, on free ports of loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest


def binary(*names: str) -> str:
    """Its path. Skips where it is not installed, but not in continuous integration, where it has to be."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        why = f"{names[0]} is not installed (Debian: apt-get install prometheus prometheus-alertmanager)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=120)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Api:
    """What a server on a port of loopback answers."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> Any:
        """Its JSON; None while it is not there, or not ready."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return (json.loads(body) if body[:1] in b"[{" else body.decode()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = self.get(f"/api/v1/query?query={quote(expression)}")
        return [] if answer is None else answer["data"]["result"]


@contextlib.contextmanager
def running(command: Sequence[object], log: Path, ready: Api, path: str) -> Iterator[Api]:
    """A process, from when it answers there until the end."""
    with log.open("wb") as output, subprocess.Popen([*map(str, command)], stdout=output, stderr=output) as process:
        try:
            for _ in range(300):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                    raise AssertionError(f"it ended: {log.read_text()}")
                if ready.get(path) is not None:
                    break
            else:
                raise AssertionError(f"it was not ready in 30 s: {log.read_text()}")
            yield ready
        finally:
            process.terminate()
