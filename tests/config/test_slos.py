"""Service levels and alerts as they are written, and what they come to."""

from __future__ import annotations

import pytest

from penstock.config.load import load
from penstock.config.problems import ConfigError
from penstock.config.schema import Config
from penstock.config.slos import rules_of, slos_of, targets_of, thresholds_of
from penstock.config.sloth import SlothError, block, read
from penstock.quality.alerts import RULES, Level, Share
from penstock.quality.notices import Target
from penstock.quality.sli import Indicator
from penstock.quality.slo import DAY, Slo

BASE = """\
models:
  chat: { deployments: [local] }
deployments:
  local: { model: tiny }
"""


def config(text: str = "") -> Config:
    return load(BASE + text, "penstock.yaml")


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as wrong:
        config(text)
    return str(wrong.value)


def test_a_promise_is_a_share_of_events_over_a_period():
    found = slos_of(
        config(
            """
slos:
  available: { of: availability, objective: 99.9% }
  fast: { of: ttft, within: 800ms, objective: 99%, models: [chat], period: 7d, min_events: 10 }
  theirs: { objective: 99%, queries: { errors: "rate(e[{{.window}}])", total: "rate(t[{{.window}}])" } }
"""
        )
    )
    assert found[:2] == (
        Slo("available", 0.999),
        Slo("fast", 0.99, Indicator.TTFT, 0.8, ("chat",), 7 * DAY, 10),
    )
    assert found[2].indicator is None


@pytest.mark.parametrize(
    ("slo", "wrong"),
    [
        ("{ objective: 99% }", "slos.a needs `of`"),
        ("{ of: errors, objective: 99%, queries: { errors: x } }", "and not both"),
        ("{ of: errors, objective: 100% }", "slos.a.objective must be more than 0% and less than 100%"),
        ("{ of: errors, objective: 0.99 }", "a percentage such as 99.9%"),
        ("{ of: ttft, objective: 99% }", "needs `within`: how long `ttft` may take"),
        ("{ of: errors, objective: 99%, within: 2s }", "belongs to a latency"),
        ("{ of: ttft, objective: 99%, within: 0s }", "longer than 0s"),
        ("{ of: errors, objective: 99%, period: 1h }", "from 1d to 90d"),
        ("{ of: errors, objective: 99%, models: [chit] }", "names `chit`, which is not a model. Did you mean `chat`?"),
        ("{ of: error, objective: 99% }", "slos.a.of"),
    ],
)
def test_a_promise_that_means_nothing_is_refused(slo: str, wrong: str):
    assert wrong in problems(f"slos:\n  a: {slo}\n")


def test_without_a_word_all_shipped_alerts_are_as_they_are_shipped():
    assert rules_of(config()) == RULES
    assert targets_of(config()) == ()


def test_an_alert_can_be_left_out_or_be_otherwise():
    found = {
        rule.name: rule
        for rule in rules_of(
            config(
                """
alerts:
  rules:
    PenstockDown: { enabled: false }
    TtftHigh: { over: 5s, for: 10m, severity: ticket }
    RefusalsHigh: { over: 25% }
    GpuMemoryHigh: { over: 97% }
    LedgerBehind: { over: 10m }
"""
            )
        )
    }
    assert len(found) == len(RULES) - 1
    ttft, refusals, memory, ledger = (
        found[name] for name in ("TtftHigh", "RefusalsHigh", "GpuMemoryHigh", "LedgerBehind")
    )
    assert isinstance(ttft.condition, Share)
    assert (ttft.condition.bound, ttft.condition.over, ttft.holds_for, ttft.severity) == (5.0, 0.01, 600.0, "ticket")
    assert isinstance(refusals.condition, Share)
    assert refusals.condition.over == 0.25
    assert isinstance(memory.condition, Level)
    assert isinstance(ledger.condition, Level)
    assert (memory.condition.over, ledger.condition.over) == (0.97, 600.0)


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("TtftHi: {}", "is not an alert that is shipped. Did you mean `TtftHigh`?"),
        ("TtftHigh: { over: 10% }", "must be a duration"),
        ("RefusalsHigh: { over: 3s }", "must be a percentage"),
        ("LedgerBehind: { over: 3 }", "must be a duration"),
        ("BreakerOpen: { over: 3s }", "must be a number"),
        ("LedgerRowsLost: { over: 3 }", "has no threshold"),
    ],
)
def test_an_alert_that_cannot_be_so_is_refused(rule: str, wrong: str):
    assert wrong in problems(f"alerts:\n  rules:\n    {rule}\n")


def test_who_is_told_is_an_address_or_a_reference_and_never_both():
    found = targets_of(
        config(
            """
alerts:
  notify:
    - { slack: env:SLACK_HOOK, severity: page }
    - { webhook: "https://hooks.example.com/x", repeat: 1h }
    - { alertmanager: "http://127.0.0.1:9093" }
"""
        )
    )
    assert found == (
        Target("slack", "env:SLACK_HOOK", "page"),
        Target("webhook", "https://hooks.example.com/x", None, 3600.0),
        Target("alertmanager", "http://127.0.0.1:9093"),
    )
    assert "exactly one" in problems("alerts: { notify: [{ repeat: 1h }] }\n")
    assert "at least 1m" in problems("alerts: { notify: [{ slack: env:A, repeat: 1s }] }\n")


def test_an_address_that_may_be_a_secret_is_never_repeated():
    said = problems('alerts: { notify: [{ slack: "hooks.slack.com/T0/s3cret" }] }\n')
    assert "s3cret" not in said
    assert "must be an https:// or http:// address" in said


def test_thresholds_of_promises_and_of_alerts_are_bounds_of_buckets():
    found = config(
        "slos: { fast: { of: ttft, within: 800ms, objective: 99% }, all: { of: e2e, within: 7s, objective: 99% } }\n"
    )
    assert thresholds_of(slos_of(found), rules_of(found)) == {
        "penstock_request_duration_seconds": (7.0,),
        "penstock_time_to_first_token_seconds": (0.8, 3.0),
    }


SLOTH = """\
version: "prometheus/v1"
service: "myservice"
labels: { owner: "myteam" }
slos:
  - name: "requests-availability"
    objective: 99.9
    description: "Common SLO"
    sli:
      events:
        error_query: sum(rate(http_requests_total{job="myservice",code=~"(5..|429)"}[{{.window}}]))
        total_query: sum(rate(http_requests_total{job="myservice"}[{{ .window }}]))
    alerting: { name: MyServiceHighErrorRate, page_alert: { labels: { severity: page } } }
  - name: "ratio"
    objective: 95
    sli: { raw: { error_ratio_query: "job:errors:ratio{{.window}}" } }
"""
KUBERNETES = """\
apiVersion: sloth.slok.dev/v1
kind: PrometheusServiceLevel
metadata: { name: sloth-slo }
spec:
  service: "myservice"
  slos:
    - name: "requests-availability"
      objective: 99.9
      sli: { events: { errorQuery: "rate(e[{{.window}}])", totalQuery: "rate(t[{{.window}}])" } }
"""


def test_what_sloth_has_becomes_a_part_of_our_file():
    slos = slos_of(config(block(read(SLOTH))))
    assert [(slo.name, slo.objective) for slo in slos] == [
        ("myservice-requests-availability", 0.999),
        ("myservice-ratio", 0.95),
    ]
    queries = slos[0].queries
    assert queries is not None
    assert queries.events == 'sum(rate(http_requests_total{job="myservice"}[{{.window}}]))'


def test_its_kubernetes_resource_says_the_same():
    (slo,) = slos_of(config(block(read(KUBERNETES))))
    assert slo.name == "myservice-requests-availability"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("slos: [", "is not YAML"),
        ("[]", "is not a mapping"),
        ("version: other/v2", "says neither"),
        (SLOTH.replace("objective: 95", "objective: 100"), "less than 100"),
        (SLOTH.replace("raw: { error_ratio_query:", "plugin: { id:"), "plugins of Sloth"),
        (SLOTH.replace("objective: 95", ""), "objective"),
    ],
)
def test_what_is_not_sloths_is_refused_with_the_reason(text: str, wrong: str):
    with pytest.raises(SlothError, match=wrong):
        read(text)
