"""What `penstock slo rules` writes, as the real promtool reads it: every alert fires when it should, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.cli.slo_rules import written
from penstock.quality.alerts import RULES
from penstock.quality.sli import HISTOGRAMS, Indicator
from penstock.quality.slo import Queries, Slo
from tests.observability.servers import promtool

SLOS = [
    Slo("available", 0.999),
    Slo("of-chat", 0.99, Indicator.ERRORS, models=("chat", "a.b")),
    *(Slo(f"fast-{one}", 0.95, one, 2.5) for one in HISTOGRAMS),
    Slo("liked", 0.9, Indicator.FEEDBACK, period=7 * 86_400.0),
    Slo("theirs", 0.99, None, queries=Queries('rate(http{code="500"}[{{.window}}])', "rate(http[{{ .window }}])")),
    Slo("shares", 0.99, None, queries=Queries("job:errors:ratio_rate{{.window}}")),
]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.yml"
    file.write_text(written(SLOS, RULES), encoding="utf-8")
    return file


def test_prometheus_takes_the_rules_of_every_kind_of_slo(rules: Path):
    said = promtool("check", "rules", rules)
    assert said.returncode == 0, said.stderr
    assert "SUCCESS" in said.stdout


def case(given: dict[str, Any], tested: list[dict[str, Any]], interval: str = "15s") -> dict[str, Any]:
    """A test for promtool."""
    series = [{"series": name, "values": values} for name, values in given.items()]
    return {"interval": interval, "input_series": series, "promql_expr_test": tested}


def firing(alert: str, labels: dict[str, str]) -> str:
    said = {"alertname": alert, "alertstate": "firing", **labels}
    matchers = ", ".join(f'{name}="{value}"' for name, value in said.items())
    return f"count(ALERTS{{{matchers}}})"


def expect(expr: str, at: str, value: float | None) -> dict[str, Any]:
    samples = [] if value is None else [{"labels": "{}", "value": value}]
    return {"expr": expr, "eval_time": at, "exp_samples": samples}


CASES = yaml.safe_load((Path(__file__).parent / "alerts.yml").read_text(encoding="utf-8"))


def run(rules: Path, tests: list[dict[str, Any]], interval: str = "15s") -> None:
    file = rules.with_name("tests.yml")
    text = {"rule_files": [rules.name], "evaluation_interval": interval, "tests": tests}
    file.write_text(yaml.safe_dump(text, sort_keys=False, width=1000), encoding="utf-8")
    said = promtool("test", "rules", file)
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_shipped_alert_is_tested_below():
    assert {one["alert"] for one in CASES["fires"]} == {rule.name for rule in RULES}


def test_every_shipped_alert_fires_when_it_should_and_not_before(rules: Path):
    tests = []
    for one in CASES["fires"]:
        expr = firing(one["alert"], one.get("labels", {}))
        tests.append(case(one["series"], [expect(expr, one["not_at"], None), expect(expr, one["at"], 1)]))
    run(rules, tests)


def test_nobody_is_told_without_a_reason(rules: Path):
    rules.write_text(written((), RULES), encoding="utf-8")
    anything = 'ALERTS{alertstate="firing"}'
    run(
        rules,
        [case(one["series"], [expect(anything, at, None) for at in ("15m", "20m")]) for one in CASES["quiet"]],
    )


def test_people_are_told_in_a_sentence_with_the_labels_in_it(rules: Path):
    rule = next(rule for rule in RULES if rule.name == "GpuMemoryHigh")
    told = {
        "exp_labels": {"severity": "page", "deployment": "a", "replica": "a/0"},
        "exp_annotations": {
            "summary": "More than 92% of the KV cache of a/0 is held: it will preempt, and then queue.",
            "description": rule.do,
        },
    }
    one = case({'penstock_replica_kv_used_ratio{deployment="a",replica="a/0"}': "0.95x40"}, [])
    one["alert_rule_test"] = [{"eval_time": "2m", "alertname": rule.name, "exp_alerts": [told]}]
    run(rules, [one])


def burning(share: float, minutes: int) -> dict[str, str]:
    """A thousand requests a minute, of which this share fails from the beginning."""
    bad = round(1000 * share * 10) / 10
    request = 'penstock_requests_total{model="chat",endpoint="chat.completions"'
    failure = 'penstock_failures_total{model="chat",of="request",error="upstream_error"'
    return {
        f'{request},status_class="2xx",error="none"}}': f"0+{1000 - bad:g}x{minutes}",
        f'{request},status_class="5xx",error="upstream_error"}}': f"0+{bad:g}x{minutes}",
        f'{failure},lasting="transient",blame="provider"}}': f"0+{bad:g}x{minutes}",
    }


@pytest.mark.parametrize(
    ("share", "minutes", "severities"),
    [
        (0.02, 90, {"page", "ticket"}),  # 20 times the budget, from the first hour on
        (0.008, 400, {"page", "ticket"}),  # 8 times: more than 6, for six hours
        (0.004, 1500, {"ticket"}),  # 4 times: more than 3, for a day
        (0.0005, 1500, set()),  # half of what may be
    ],
)
def test_a_budget_that_burns_is_told_as_gravely_as_it_burns(
    rules: Path, share: float, minutes: int, severities: set[str]
):
    rules.write_text(written(SLOS[:1], ()), encoding="utf-8")
    tested = [
        expect(
            firing("SloBudgetBurning", {"slo": "available", "severity": severity}),
            f"{minutes}m",
            1 if severity in severities else None,
        )
        for severity in ("page", "ticket")
    ]
    run(rules, [case(burning(share, minutes), tested, "1m")], interval="1m")


def test_what_is_left_of_a_budget_is_recorded(rules: Path):
    tested = [
        expect('max(round(penstock:slo_error_budget_left:ratio{slo="available"} * 1000))', "60m", -1000),
        expect('max(round(penstock:slo_errors:ratio{slo="available",window="1h"} * 1e6))', "60m", 2000),
    ]
    run(rules, [case(burning(0.002, 60), tested, "1m")], interval="1m")
