"""A gateway with the bundled model, for pages and examples that speak to one."""

import http.client
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@pytest.fixture(scope="package")
def command_path(tmp_path_factory) -> str:
    """A PATH on which `penstock` and `python` are this environment's."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("penstock", "-m penstock.cli.main"), ("python", ""), ("python3", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="package")
def gateway(tmp_path_factory) -> Iterator[str]:
    """host:port of a gateway with the bundled model."""
    port = free_port()
    log = tmp_path_factory.mktemp("gateway") / "log"
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "tiny", "--insecure-dev", "--port", str(port)]
    with log.open("wb") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent, env=environment)
    try:
        for _ in range(300):
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                if is_ready(port):
                    break
            else:
                raise AssertionError(f"the gateway ended: {log.read_text()}")
        else:
            raise AssertionError(f"the gateway was not ready in 30 s: {log.read_text()}")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(40)
