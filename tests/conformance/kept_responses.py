"""A pytest plugin for the SDK's own run: the responses that its tests ask for are there before each of them.

The generated tests ask for fixed ids and delete them. Penstock keeps only what it has answered, so each of those ids is
answered once, by an upstream that lets requests wish for it (`responses_api`). Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from functools import cache
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _kept(request: pytest.FixtureRequest) -> None:
    status = "in_progress" if "cancel" in request.node.name else "completed"
    for name in ids_in(request.path) if "responses" in str(request.path) else ():
        wishes = {"response_id": name, "status": status}
        body = {"model": "gpt-scripted", "input": "Hello", "metadata": wishes}
        post = urllib.request.Request(
            os.environ["TEST_API_BASE_URL"] + "/responses",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": "Bearer of-this-test"},
        )
        with urllib.request.urlopen(post) as answer:
            assert json.load(answer)["id"] == name


@cache
def ids_in(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return sorted(set(re.findall(r'\b(?:previous_)?response_id="([^"]+)"', text)))
