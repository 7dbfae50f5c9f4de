"""Runs every test while counting which lines ran; the table comes before pytest's own closing line, which stays last.

Arguments after the first `--` go to pytest. `--lines` names the lines that no test runs, and writes a browsable report.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class CoverageReport:
    """A pytest plugin: stops counting when the tests are over and prints the table among pytest's own sections."""

    def __init__(self, lines: bool) -> None:
        import coverage

        self._coverage = coverage.Coverage(config_file=str(ROOT / "pyproject.toml"))
        self._lines = lines
        self._coverage.start()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self._coverage.stop()
        self._coverage.save()
        terminalreporter.section("coverage")
        self._coverage.report(file=terminalreporter._tw._file, show_missing=self._lines, skip_covered=True)
        if self._lines:
            folder = ROOT / ".coverage-html"
            self._coverage.html_report(directory=str(folder))
            terminalreporter.write_line(f"To browse: {folder / 'index.html'}")


def main() -> int:
    ours, _, for_pytest = (" ".join(sys.argv[1:]) + " ").partition("-- ")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    plugin = CoverageReport(lines="--lines" in ours)
    import pytest

    return int(pytest.main([*for_pytest.split()], plugins=[plugin]))


if __name__ == "__main__":
    sys.exit(main())
