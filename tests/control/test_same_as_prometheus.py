"""What Prometheus is tested with (tests/observability/alerts.yml), given to the watch: it tells of the same, in the
same minute, and of nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.config.units import seconds
from penstock.control.slo import SloWatch
from penstock.quality.alerts import RULES, Foreign
from penstock.telemetry.catalogue import Kind, with_bounds
from penstock.telemetry.metrics import Series, Snapshot

CASES = yaml.safe_load((Path(__file__).parents[1] / "observability" / "alerts.yml").read_text(encoding="utf-8"))
CATALOGUE = with_bounds({"penstock_time_to_first_token_seconds": [3.0]})
METRICS = {metric.name: metric for metric in CATALOGUE}
FOREIGN = {rule.name for rule in RULES if isinstance(rule.condition, Foreign)}
STEP = 15.0  # seconds between values
T = 1_800_000_000.0


def values(written: str) -> list[float | None]:
    """`0+10x3` is 0 10 20 30; `5x2` is 5 5 5; `_x2` is nothing twice (promtool's own notation)."""
    found: list[float | None] = []
    for one in str(written).split():
        part = re.fullmatch(r"(_|[\d.]+)(?:\+([\d.]+))?(?:x(\d+))?", one)
        assert part is not None, one
        start, grows, times = part.groups()
        if start == "_":
            found += [None] * int(times or 1)
        else:
            found += [float(start) + n * float(grows or 0) for n in range(int(times or 0) + 1)]
    return found


def snapshot(given: dict[str, list[float | None]], place: int) -> Snapshot:
    series: dict[str, list[Series]] = {}
    histograms: dict[tuple[str, tuple[str, ...]], dict[str, float]] = {}
    for name, all_values in given.items():
        value = all_values[place] if place < len(all_values) else None
        metric_name, _, labels = name.partition("{")
        said = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        base = re.sub(r"_(bucket|count)$", "", metric_name)
        metric = METRICS.get(metric_name) or METRICS.get(base)
        if metric is None or value is None:
            continue
        own = tuple(said.get(label, "x") for label in metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            histograms.setdefault((metric.name, own), {})[said.get("le", "all")] = value
        else:
            series.setdefault(metric.name, []).append(Series(own, value))
    for (name, own), cumulative in histograms.items():
        bounds = METRICS[name].buckets
        counts = [0] * (len(bounds) + 1)
        below = 0
        for bound, n in sorted((float(le), n) for le, n in cumulative.items() if le != "all"):
            counts[bounds.index(bound)] = int(n) - below
            below = int(n)
        counts[-1] = int(cumulative["all"]) - below
        series.setdefault(name, []).append(Series(own, 0.0, tuple(counts)))
    return Snapshot({name: tuple(found) for name, found in series.items()})


def active(given: dict[str, str], moments: list[str]) -> list[set[tuple[str, frozenset[tuple[str, str]]]]]:
    """Which alerts are active then, with their labels."""
    watch = SloWatch(CATALOGUE, (), RULES)
    read = {name: values(written) for name, written in given.items()}
    found, at = [], 0
    for moment in moments:
        while at * STEP <= sum(seconds(part) for part in re.findall(r"\d+[ms]", moment)):
            watch.observe(snapshot(read, at), T + at * STEP)
            at += 1
        found.append({(alert.name, frozenset(alert.labels)) for alert in watch.active})
    return found


def named(case: dict[str, Any]) -> str:
    return str(case["alert"])


@pytest.mark.parametrize("case", [case for case in CASES["fires"] if case["alert"] not in FOREIGN], ids=named)
def test_the_watch_tells_of_the_same_alerts_at_the_same_time(case: dict[str, Any]):
    before, after = active(case["series"], [case["not_at"], case["at"]])
    labels = set(case.get("labels", {}).items())
    assert not {name for name, _ in before} & {case["alert"]}
    assert [name for name, its in after if name == case["alert"] and labels <= its] == [case["alert"]]


@pytest.mark.parametrize(
    "case", [case for case in CASES["quiet"] if "bound" not in case["name"]], ids=lambda case: case["name"]
)
def test_the_watch_is_quiet_where_prometheus_is(case: dict[str, Any]):
    assert active(case["series"], ["15m", "20m"]) == [set(), set()]
