"""A real gateway in a process of its own, for clients in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
KEY_VARIABLE: Final = "PENSTOCK_TEST_UPSTREAM_KEY"


@contextmanager
def gateway(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The gateway's origin, `http://127.0.0.1:PORT`. It asks for no keys; upstreams get the key of `KEY_VARIABLE`."""
    file, log = folder / "penstock.yaml", folder / "gateway.log"
    file.write_text(json.dumps({"server": {"access_log": "off"}, **config}))  # JSON is YAML
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "--config", str(file), "--insecure-dev"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", "0", "--announce-fd", str(writing)],
            pass_fds=(writing,),
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), KEY_VARIABLE: "sk-canary-upstream"},
        )
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            announced = pipe.readline()  # empty when the process has ended
        assert announced, f"the gateway did not start:\n{log.read_text()}"
        yield f"http://127.0.0.1:{json.loads(announced)['port']}"
    finally:
        process.terminate()
        process.wait(40)
