"""Every dashboard is what its table makes, and asks only for metrics and labels that Penstock has."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import promql_parser
import pytest

from penstock.telemetry.catalogue import CATALOGUE, Kind

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dashboards").glob("*.json"))
LABELS = {metric.name: set(metric.labels) for metric in CATALOGUE}
for _metric in CATALOGUE:
    if _metric.kind is Kind.HISTOGRAM:
        _labels = LABELS.pop(_metric.name)
        LABELS |= {
            f"{_metric.name}_bucket": {*_labels, "le"},
            f"{_metric.name}_sum": _labels,
            f"{_metric.name}_count": _labels,
        }
OF_PROMETHEUS = {"instance", "job"}


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", ROOT / "scripts" / "dashboards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def board(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def targets(file: Path) -> list[tuple[str, str, str]]:
    """Panel, query and legend."""
    return [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in board(file)["panels"]
        for target in panel.get("targets", ())
    ]


def test_the_committed_dashboards_are_what_the_script_makes(made: ModuleType):
    pages = dict(made.pages())
    assert set(pages) == set(FILES)
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run scripts/dashboards.py"


def parsed(expr: str) -> promql_parser.Expr:
    """Grafana's variables are put in as Grafana would."""
    return promql_parser.parse(expr.replace("$__rate_interval", "5m").replace("$1", "one").replace("$", "of_"))


def selectors(expr: Any) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(
        expr, lambda node: found.append(node) if isinstance(node, promql_parser.VectorSelector) else None
    )
    return found


def labels_asked(expr: Any) -> tuple[set[str], dict[str, set[str]]]:
    """Those that are grouped by, and those that each metric is selected by."""
    grouped: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)

    promql_parser.walk(expr, visit)
    return grouped, {one.name: {matcher.name for matcher in one.matchers.matchers} for one in selectors(expr)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_query_is_of_metrics_and_labels_that_we_emit(file: Path):
    for panel, expr, legend in targets(file):
        grouped, selected = labels_asked(parsed(expr))
        assert selected, f"{panel} asks for nothing"
        made_up = {"deployment"} if "label_replace" in expr else set()
        for metric, labels in selected.items():
            assert metric in LABELS, f"{panel}: no metric is called {metric}"
            has = LABELS[metric] | OF_PROMETHEUS | made_up
            assert labels <= has, f"{panel}: {metric} has no label {labels - has}"
            assert grouped <= has, f"{panel}: {metric} has no label {grouped - has}"
        shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
        assert shown <= grouped, f"{panel}: {shown - grouped} of the legend is summed away"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_variable_has_its_values_from_a_label_that_we_emit(file: Path):
    asked = {variable["name"]: variable.get("query") for variable in board(file)["templating"]["list"]}
    used = {name for _, expr, _ in targets(file) for name in re.findall(r"\$(\w+)", expr)} - {"__rate_interval", "1"}
    assert used <= set(asked)
    for name, query in asked.items():
        if name != "source":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
            assert found is not None
            assert found[2] in LABELS[found[1]]


def test_a_query_of_something_we_do_not_have_would_be_noticed():
    grouped, selected = labels_asked(
        parsed('sum by (nobody) (rate(penstock_made_up_total{model=~"$model"}[$__rate_interval]))')
    )
    assert grouped == {"nobody"}
    assert selected == {"penstock_made_up_total": {"model"}}
    assert "penstock_made_up_total" not in LABELS


def test_no_two_dashboards_have_the_same_place_in_grafana():
    assert len({board(file)["uid"] for file in FILES}) == len(FILES) == 6
