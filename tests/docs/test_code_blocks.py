"""Every fenced block in the documentation is run, read or parsed; or says, right above it, why not.

Blocks of one page run in order, in one folder of their own. `bash` and `python` are executed, `yaml` is loaded as (part
of) a penstock.yaml, `json` is parsed; `text` is a picture or what a program printed. Where a block speaks of
127.0.0.1:8080, a gateway with the bundled model is started and its real port put in.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.config.load import load

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
USUAL_ADDRESS = "127.0.0.1:8080"
NOT_RUN = re.compile(r"^<!-- not run: \S.* -->$")
MODELS_AND_DEPLOYMENTS = """\
models:
  chat: { deployments: [local] }
deployments:
  local: { model: tiny }
"""


class Block:
    def __init__(self, page: Path, line: int, language: str, text: str, excused: bool) -> None:
        self.page, self.line, self.language, self.text, self.excused = page, line, language, text, excused
        self.place = f"{page.relative_to(ROOT)}:{line}"


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: int | None = None
    indent = ""
    for i, line in enumerate(lines):
        bare = line.strip()
        if opened is None and bare.startswith("```"):
            opened, indent = i, line[: len(line) - len(line.lstrip())]
        elif opened is not None and bare == "```":
            above = next((text.strip() for text in reversed(lines[:opened]) if text.strip()), "")
            text = "".join(inner.removeprefix(indent) + "\n" for inner in lines[opened + 1 : i])
            yield Block(page, opened + 1, lines[opened].strip()[3:].strip(), text, NOT_RUN.match(above) is not None)
            opened = None
    assert opened is None, f"{page}: the fence at line {opened} is not closed"


EVERY_BLOCK = [block for page in PAGES for block in blocks(page)]
TO_RUN = [block for block in EVERY_BLOCK if not block.excused and block.language != "text"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[Path, Path]:
    return {page: tmp_path_factory.mktemp(page.stem) for page in PAGES}


@pytest.mark.journey
@pytest.mark.parametrize("block", TO_RUN, ids=lambda block: block.place)
def test_the_documentation_tells_what_works(block, folders, command_path, request):
    text = block.text
    if USUAL_ADDRESS in text and block.language in ("bash", "python"):
        text = text.replace(USUAL_ADDRESS, request.getfixturevalue("gateway"))
    match block.language:
        case "yaml":
            load(text if re.search(r"(?m)^models:", text) else MODELS_AND_DEPLOYMENTS + text, block.place)
        case "json":
            json.loads(text)
        case "bash" | "python":
            program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
            ran = subprocess.run(
                [*program, text],
                cwd=folders[block.page],
                env={**os.environ, "PATH": command_path, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=50,
                check=False,
            )
            assert ran.returncode == 0, f"{block.place}\n{text}\n{ran.stdout}\n{ran.stderr}"
        case other:
            pytest.fail(f"{block.place}: nobody knows how to run {other!r}; use bash, python, yaml, json or text")


def test_every_block_says_its_language():
    assert [block.place for block in EVERY_BLOCK if not block.language] == []


def test_links_between_pages_lead_somewhere():
    links = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in PAGES
        for target in links.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
