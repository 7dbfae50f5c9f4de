"""The path of somebody who makes Penstock their own: init, a key, serve, ask, stop. Real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli.conversation import Caller, CallFailed, Message
from penstock.core.clock import SystemClock

ROOT = Path(__file__).resolve().parent.parent.parent


def serve(folder: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """A server that is ready, and its port."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "--port", "0", "--announce-fd", str(writing)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            pass_fds=[writing],
        )
    os.close(writing)
    with os.fdopen(reading) as announced:
        line = announced.readline()
    if not line:
        process.wait(10)
        raise AssertionError(f"the server did not start: {(folder / 'log').read_text()}")
    return process, json.loads(line)["port"]


@pytest.fixture
def stopping():
    """Processes to end when the test is over, however it went."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.journey
def test_a_starter_file_and_a_new_key_serve_those_who_show_it(penstock, tmp_path, stopping):
    assert penstock("init").code == 0
    key = json.loads(penstock("key", "create", "--id", "web", "--json").out)
    checked = penstock("check")
    assert checked.code == 0, checked.err
    process, port = serve(tmp_path)
    stopping.append(process)
    url = f"http://127.0.0.1:{port}"

    stranger = Caller(url, None, SystemClock())
    with pytest.raises(CallFailed, match="401"):
        stranger.models()
    caller = Caller(url, key["key"], SystemClock())
    assert caller.models() == ["chat"]
    answer = caller.ask("chat", [Message("user", "What is a replica?")], temperature=0, max_tokens=40)
    assert "".join(answer) == answer.text != ""
    assert answer.replica in ("local/0", "local/1")
    assert answer.tokens is not None
    caller.close()

    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0
    log = (tmp_path / "log").read_text()
    assert key["key"] not in log
    assert "Traceback" not in log


@pytest.mark.journey
def test_two_workers_serve_at_one_address(tmp_path, stopping):
    process, port = serve(tmp_path, "tiny", "--workers", "2")
    stopping.append(process)
    caller = Caller(f"127.0.0.1:{port}", None, SystemClock())
    for _ in range(4):
        answer = caller.ask("tiny", [Message("user", "Hello")], max_tokens=4)
        assert "".join(answer) == answer.text
    caller.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(40) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
