"""`make demo`, without make: what a newcomer sees first."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "scripts" / "demo.py"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(port: int | str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DEMO), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        start_new_session=True,
    )


@pytest.mark.journey
def test_the_demo_shows_something_and_stops_by_itself():
    port = free_port()
    demo = start(port, DEMO_SECONDS="4")
    out, err = demo.communicate(timeout=50)
    assert demo.returncode == 0, out + err
    assert f"Penstock is ready on http://127.0.0.1:{port}" in out
    assert "no key is asked for" in out
    assert "> What is continuous batching?" in out
    assert "first token after" in out
    assert "from local/" in out
    assert f"curl -N http://127.0.0.1:{port}/v1/chat/completions" in out
    assert "from openai import OpenAI" in out
    assert re.search(r"Look inside: http://127\.0\.0\.1:\d+/console\nSign in with the key sk-pen-\w+-\w+ ", out)
    assert "Traceback" not in out + err
    assert "A request of the traffic failed" not in err


@pytest.mark.journey
@pytest.mark.parametrize("end", [os.killpg, os.kill], ids=["ctrl-c", "sigterm"])
def test_who_ends_the_demo_ends_everything_it_started(end):
    port = free_port()
    demo = start(port)
    assert demo.stdout is not None
    try:
        for line in demo.stdout:
            if line.startswith("Serving until Ctrl-C"):
                break
        end(demo.pid, signal.SIGINT if end is os.killpg else signal.SIGTERM)
        out, err = demo.communicate(timeout=50)
        assert demo.returncode == 0, out + err
        assert "Traceback" not in out + err
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        with pytest.raises(ProcessLookupError):
            os.killpg(demo.pid, 0)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.communicate()


def test_a_taken_port_is_told_with_one_that_is_free():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = start(port)
        out, err = demo.communicate(timeout=50)
    assert demo.returncode == 1
    assert f"port {port} is taken by another program. Take another one: make demo PORT=" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("port", "environment", "told"),
    [
        ("eighty", {}, "PORT must be a number from 1 to 65535, not 'eighty'"),
        ("8080", {"DEMO_SECONDS": "soon"}, "DEMO_SECONDS must be a number from 1 to 86400, not 'soon'"),
    ],
)
def test_what_is_no_number_is_told_plainly(port, environment, told):
    demo = start(port, **environment)
    _, err = demo.communicate(timeout=50)
    assert demo.returncode == 1
    assert told in err
