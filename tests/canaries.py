"""Words that are planted as credentials, prompts and users all over the tests, and that no output may ever have.

After every test, `planted_in` looks at what it wrote to the terminal and the log, and at the files that Penstock wrote
in its `tmp_path`. What is seldom in any of these is looked at where it is made: pages of metrics, traces, lines of the
access log, what verbs print, what a test reads of the terminal itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from penstock.telemetry.access_log import AccessLog
from penstock.telemetry.otlp import Encoder
from penstock.telemetry.prometheus import Exposition

KEY: Final = "sk-canary"
SECRET: Final = "canary-secret"
PROMPT: Final = "canary-prompt"
USER: Final = "canary-user"
HEADER: Final = "canary-header"
ALL: Final = (KEY, SECRET, PROMPT, USER, HEADER)
MOST: Final = 4 * 2**20  # bytes of a file
INPUTS: Final = frozenset({".yaml", ".yml", ".json", ".pem", ".key", ".txt", ".env", ".toml", ".py", ""})
"""Of files that tests write for Penstock to read; what it writes itself has other suffixes."""


class Sightings:
    """What was found in the test that runs now: which word, and where."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def look(self, where: str, data: bytes | str) -> None:
        text = data if isinstance(data, str) else data.decode("latin-1")
        if "canary" in text:
            self.found += [f"{word!r} in {where}" for word in ALL if word in text]

    def look_at_files(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.suffix not in INPUTS and path.is_file():
                with path.open("rb") as file:
                    self.look(str(path.relative_to(folder)), file.read(MOST))

    def taken(self) -> list[str]:
        found, self.found = self.found, []
        return found


SIGHTINGS: Final = Sightings()


def planted_in(item: pytest.Item, report: pytest.TestReport) -> list[str]:
    """To be asked once for each test, when it is over."""
    for title, text in report.sections:
        SIGHTINGS.look(title, text)
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if folder is not None:
        SIGHTINGS.look_at_files(folder)
    found = SIGHTINGS.taken()
    told = item.get_closest_marker("tells_prompts") is not None
    return [one for one in found if not (told and repr(PROMPT) in one)]


@contextmanager
def watched() -> Iterator[None]:
    """Looks at what passes these doors."""
    with pytest.MonkeyPatch.context() as patch:

        def watch(owner: type, verb: str, where: str, read: Any) -> None:
            original = getattr(owner, verb)

            def call(self: Any, *args: Any, **kwargs: Any) -> Any:
                result = original(self, *args, **kwargs)
                SIGHTINGS.look(where, read(self, result))
                return result

            patch.setattr(owner, verb, call)

        watch(Exposition, "render", "a page of metrics", lambda _, page: page)
        watch(Encoder, "body", "traces", lambda _, body: body)
        watch(AccessLog, "_encode", "the access log", lambda log, _: bytes(log._waiting))
        watch(pytest.CaptureFixture, "readouterr", "the terminal", lambda _, read: f"{read.out}{read.err}")
        watch(CliRunner, "invoke", "what a verb prints", lambda _, result: result.output)
        yield
