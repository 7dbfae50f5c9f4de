"""Penstock before the wall: a process of its own with one worker, as a person would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock.testing.faults import configs
from penstock.testing.faults.scenarios import Cell
from penstock.testing.faults.upstream import Ports
from penstock.testing.faults.verdicts import Limits
from penstock.testing.faults.voices import SECRET


class DidNotStart(Exception):
    """What it said is in the message."""


@contextmanager
def penstock_serving(cells: Sequence[Cell], ports: Ports) -> Iterator[str]:
    """Its base URL; it ends with the block. Raises `DidNotStart`."""
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        config, said = Path(folder) / "penstock.yaml", Path(folder) / "said"
        config.write_text(configs.penstock(configs.entries(cells, ports), Limits(), port=0))
        command = [sys.executable, "-m", "penstock.cli.main", "serve", "--config", str(config)]
        with said.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--announce-fd", str(writing)],
                env={**os.environ, configs.KEY_VARIABLE: SECRET},
                pass_fds=(writing,),
                stdout=output,
                stderr=output,
            )
        try:
            os.close(writing)
            with os.fdopen(reading, "rb") as pipe:
                line = pipe.readline()
            if not line:
                code = process.wait()
                raise DidNotStart(f"Penstock ended with code {code}: {said.read_text(errors='replace')[-2000:]}")
            yield f"http://127.0.0.1:{json.loads(line)['port']}"
        finally:
            process.terminate()
            process.wait(40)
