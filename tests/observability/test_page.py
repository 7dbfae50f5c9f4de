"""The page of service levels says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from penstock.quality.alerts import BURNING, RULES
from penstock.quality.slo import WINDOWS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "slos.md").read_text(encoding="utf-8")


def test_every_alert_is_on_the_page_with_its_severity_and_how_long_it_holds():
    told = re.findall(r"(?m)^\| `(\w+)` \| (\w+) \| .* \| (.+) \|$", PAGE.partition("## Alerts")[2])
    shipped = [(rule.name, rule.severity, f"{rule.holds_for:g} s" if rule.holds_for else "at once") for rule in RULES]
    assert told[: len(shipped)] == shipped
    assert f"| `{BURNING}` |" in PAGE


def test_the_windows_on_the_page_are_those_of_the_code():
    rows = re.findall(r"(?m)^\| (page|ticket) \| .+ \| (\d+)% \| ([\d.]+) \|$", PAGE)
    month = 30 * 86_400.0
    assert [(s, int(share) / 100, float(rate)) for s, share, rate in rows] == [
        (window.severity, window.share, round(window.factor(month), 6)) for window in WINDOWS
    ]
