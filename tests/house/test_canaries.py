"""A test that tells what was planted fails, wherever it was told. Run by pytest-xdist, as `make test` runs all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = "from tests.conftest import _watched_doors, pytest_runtest_makereport"
TELLING = {
    "stdout": "print(KEY)",
    "stderr": "sys.stderr.write(PROMPT)",
    "log": "logging.getLogger('x').warning(USER)",
    "the_terminal": "terminal = request.getfixturevalue('capsys'); print(SECRET); terminal.readouterr()",
    "penstock_db": "(tmp_path / 'penstock.db').write_bytes(b'..' + KEY.encode())",
    "the_access_log": "log = AccessLog(bytearray().extend); log.on_outcome(like(STREAMED, team=HEADER)); log.flush()",
    "a_page_of_metrics": "metrics.counter('penstock_retries_total').labels(SECRET).inc();"
    " Exposition().render(metrics.snapshot())",
    "traces": "Encoder(Convention(), {'service.name': PROMPT}).body([])",
    "what_a_verb_prints": "CliRunner().invoke(click.Command('x', callback=lambda: click.echo(SECRET)))",
}
SILENT = {
    "nothing": "print('sk-something-else')",
    "its_own_input": "(tmp_path / 'penstock.yaml').write_text(SECRET)",
    "prompts_where_they_are_wanted": "print(PROMPT)",
}
HEAD = """\
import logging, sys
import click, pytest
from click.testing import CliRunner
from penstock.telemetry.access_log import AccessLog
from penstock.telemetry.conventions import Convention
from penstock.telemetry.metrics import Registry
from penstock.telemetry.otlp import Encoder
from penstock.telemetry.prometheus import Exposition
from tests.canaries import HEADER, KEY, PROMPT, SECRET, USER
from tests.telemetry.outcomes import STREAMED, like
metrics = Registry()
"""


def test_a_test_fails_just_when_it_tells_what_was_planted(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    files = tmp_path_factory.mktemp("telling") / "files"
    cases = [HEAD]
    for name, what in (TELLING | SILENT).items():
        mark = "@pytest.mark.tells_prompts\n" if "wanted" in name else ""
        cases.append(f"{mark}def test_{name}(tmp_path, request):\n    {what}\n")
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_telling.py").write_text("\n".join(cases), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = tells_prompts", encoding="utf-8")
    command = ["-m", "pytest", "-q", "-n1", "-p", "no:cacheprovider", "--basetemp", str(files), "test_telling.py"]
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = set(re.findall(r"^ERROR test_telling\.py::test_(\w+)", ran.stdout, re.MULTILINE))
    assert failed == set(TELLING), ran.stdout
    assert f"{len(TELLING) + len(SILENT)} passed, {len(TELLING)} errors" in ran.stdout
    for name in TELLING:
        place = name.replace("_", "." if name.endswith("db") else " ")
        assert re.search(rf"nobody may tell: '[a-z-]*' in [\w ]*{re.escape(place)}", ran.stdout), name
