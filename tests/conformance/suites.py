"""Runs the tests that the authors of an SDK generated for its API, against any address, in their own configuration."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import msgspec

from tests.clients.environments import python, sdist

HERE: Final = Path(__file__).resolve().parent
TESTS: Final = "tests/api_resources"
OPTIONS: Final = {"openai": "", "anthropic": "-p tests._alias_httpx"}
"""Of their `addopts`, only what the tests need: not how many processes to use."""
WITHIN: Final = 240.0  # seconds


class Refused(msgspec.Struct, frozen=True):
    """Tests that must not pass."""

    tests: str  # a regular expression, searched in a test's id
    reason: str

    def fits(self, test: str) -> bool:
        return re.search(self.tests, test) is not None


class Suite(msgspec.Struct, frozen=True):
    run: tuple[str, ...]
    not_served: Mapping[str, str]
    refused: tuple[Refused, ...] = ()


def suite(name: str) -> Suite:
    table = tomllib.loads((HERE / "suites.toml").read_text(encoding="utf-8"))
    return msgspec.convert(table[name], Suite)


def files(name: str) -> list[str]:
    """Every test file of an SDK's API, relative to `TESTS`."""
    folder = sdist(name) / TESTS
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("test_*.py"))]


def not_accounted_for(name: str) -> list[str]:
    """Files that are in both lists or in neither, and entries that fit no file."""
    wanted, there = suite(name), files(name)
    claims = {file: [glob for glob in (*wanted.run, *wanted.not_served) if fnmatch(file, glob)] for file in there}
    wrong = [f"{file}: in {len(found)} lists" for file, found in claims.items() if len(found) != 1]
    used = {glob for found in claims.values() for glob in found}
    return wrong + [f"{glob}: no such file" for glob in (*wanted.run, *wanted.not_served) if glob not in used]


def models(name: str) -> list[str]:
    """The models that its tests ask for."""
    folder = sdist(name) / TESTS
    text = "".join((folder / file).read_text(encoding="utf-8") for file in suite(name).run)
    asked = set(re.findall(r'\b(?:model|model_id)="([^"]+)"', text))
    asked.update(re.findall(r'models\.[a-z_.]*retrieve\(\s*"([^"]+)"', text))
    if name == "anthropic":
        deprecated = "from anthropic.resources.messages.messages import DEPRECATED_MODELS as m; print(*m)"
        asked.update(subprocess.check_output([python("python"), "-c", deprecated], text=True).split())
    return sorted(asked)


def run(name: str, address: str, folder: Path) -> dict[str, str]:
    """Test id -> "passed", "skipped", or how it failed. `folder` is for the report."""
    report = folder / f"{name}.xml"
    done = subprocess.run(
        [
            *(str(python("python")), "-m", "pytest", "-q", "--tb=native", "-p", "no:cacheprovider"),
            *("-o", f"addopts={OPTIONS[name]}", "-p", "kept_responses", f"--junit-xml={report}"),
            *(f"{TESTS}/{file}" for file in suite(name).run),
        ],
        cwd=sdist(name),
        env={**os.environ, "TEST_API_BASE_URL": address, "no_proxy": "127.0.0.1", "PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert report.exists(), done.stdout[-4000:]
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        *modules, kind = case.attrib["classname"].removeprefix(TESTS.replace("/", ".") + ".").split(".")
        told = [inner for inner in case if inner.tag in ("failure", "error", "skipped")]
        outcome = "passed"
        if told:
            outcome = "skipped" if told[0].tag == "skipped" else told[0].attrib["message"][:400]
        found[f"{'/'.join(modules)}.py::{kind}::{case.attrib['name']}"] = outcome
    return found


def surprises(wanted: Suite, outcomes: Mapping[str, str]) -> list[str]:
    """What did not go as `wanted` says: "test: what happened"."""
    wrong = []
    for test, outcome in outcomes.items():
        refused = next((entry for entry in wanted.refused if entry.fits(test)), None)
        if refused is None and outcome != "passed":
            wrong.append(f"{test}: {outcome}")
        elif refused is not None and outcome == "passed":
            wrong.append(f"{test}: passes, and suites.toml says it would not: {refused.reason}")
    unused = [entry for entry in wanted.refused if not any(entry.fits(test) for test in outcomes)]
    return wrong + [f"{entry.tests}: fits no test" for entry in unused]
