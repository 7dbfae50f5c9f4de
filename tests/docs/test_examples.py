"""Every program in examples/ runs against a gateway as it is started by `penstock serve tiny`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.config.load import load

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.mark.journey
@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_the_example_runs(program, gateway, tmp_path):
    ran = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={**os.environ, "PENSTOCK_URL": f"http://{gateway}", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.strip()


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_example_of_a_configuration_is_good(file):
    load(file.read_text(encoding="utf-8"), file.name, lambda name: f"- {{ id: web, sha256: {'0' * 64!r} }}")


def test_every_example_is_in_the_list():
    listing = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.yaml")]:
        assert f"({path.name})" in listing
