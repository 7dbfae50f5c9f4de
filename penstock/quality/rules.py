"""Service levels and alerts as rules for Prometheus: what `penstock slo rules` writes.

Shares over more than six hours are averages of what was recorded every minute: months of raw series are not read again
and again. Names begin with `penstock:`; `slo` and `window` are labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from penstock.quality.alerts import BURNING, Condition, Foreign, Grown, Level, Rule, Share, threshold
from penstock.quality.promql import added, bad, duration, quoted, selector, share
from penstock.quality.slo import HOUR, SPANS, WINDOWS, Severity, Slo, Window

BAD: Final = "penstock:slo_bad_events:rate5m"
EVENTS: Final = "penstock:slo_events:rate5m"
ERRORS: Final = "penstock:slo_errors:ratio"
LEFT: Final = "penstock:slo_error_budget_left:ratio"
OBJECTIVE: Final = "penstock:slo_objective:ratio"
EVERY: Final = 15.0  # seconds between evaluations of alerts
_RAW_UP_TO: Final = 6 * HOUR
_BASE: Final = "5m"


def rule_file(slos: Iterable[Slo], rules: Iterable[Rule], every: float = EVERY) -> dict[str, Any]:
    """As Prometheus reads it, when it has been written as YAML. Alerts are evaluated `every` so many seconds, what is
    recorded of service levels half as often."""
    alerts = {"name": "penstock-alerts", "interval": duration(every), "rules": [_alert(rule) for rule in rules]}
    interval = duration(2 * every)
    levels = [
        {"name": f"penstock-slo-{slo.name}", "interval": interval, "rules": [*_recorded(slo), *_burning(slo)]}
        for slo in slos
    ]
    return {"groups": [*levels, alerts]}


def expression(condition: Condition) -> str:
    """True for each set of labels for which this is so."""
    if isinstance(condition, Foreign):
        return condition.expression
    if isinstance(condition, Level):
        metric = condition.metric
        if condition.by:
            metric = f"{'max' if condition.below else 'min'} by ({', '.join(condition.by)}) ({metric})"
        return f"{metric} {'<' if condition.below else '>'} {condition.over:g}"
    over = duration(condition.window)
    if isinstance(condition, Grown):
        metric, aggregate = condition.metric, f"sum by ({', '.join(condition.by)})" if condition.by else "sum"
        # a counter that did not exist before has grown too
        appeared = f"{metric} unless {metric} offset {over}"
        return f"{aggregate} (increase({metric}[{over}])) > 0 or {aggregate} ({appeared}) > 0"
    events = added(condition.sli.events, condition.by, over, "increase")
    on = f" and on ({', '.join(condition.by)})" if condition.by else " and"
    return f"{share(condition.sli, condition.by, over)} > {condition.over:g}{on} {events} >= {condition.least}"


def _alert(rule: Rule) -> dict[str, Any]:
    made: dict[str, Any] = {"alert": rule.name, "expr": expression(rule.condition)}
    if rule.holds_for:
        made["for"] = duration(rule.holds_for)
    made["labels"] = {"severity": rule.severity}
    summary = rule.says.format_map(_Templated(threshold(rule)))
    made["annotations"] = {"summary": summary, "description": rule.do}
    return made


class _Templated(dict[str, str]):
    """What is not known here is a label of the alert, which Prometheus puts in."""

    def __missing__(self, label: str) -> str:
        return f"{{{{ $labels.{label} }}}}"


def _recorded(slo: Slo) -> list[dict[str, Any]]:
    labels = {"slo": slo.name}
    mine = selector_of(slo)
    recorded = [
        {"record": OBJECTIVE, "expr": f"vector({slo.objective!r})", "labels": labels},
        {"record": BAD, "expr": _bad(slo, _BASE), "labels": labels},
        {"record": EVENTS, "expr": _events(slo, _BASE), "labels": labels},
    ]
    for span in SPANS:
        window = duration(span)
        if span > _RAW_UP_TO:
            expr = f"{_averaged(BAD, mine, window)} / ({_averaged(EVENTS, mine, window)} > 0)"
        else:
            expr = _ratio(slo, window)
        recorded.append({"record": ERRORS, "expr": expr, "labels": {**labels, "window": window}})
    period = duration(slo.period)
    burnt = f"({_averaged(BAD, mine, period)} / ({_averaged(EVENTS, mine, period)} > 0))"
    recorded.append({"record": LEFT, "expr": f"1 - {burnt} / {slo.budget:.6g}", "labels": labels})
    return recorded


def selector_of(slo: Slo) -> str:
    return f"{{slo={quoted(slo.name)}}}"


def _averaged(metric: str, mine: str, window: str) -> str:
    return f"sum without (window) (avg_over_time({metric}{mine}[{window}]))"


def _bad(slo: Slo, window: str) -> str:
    if (sli := slo.sli) is not None:
        return bad(sli, (), window)
    assert slo.queries is not None
    query = _foreign(slo.queries.bad, window)
    return query if slo.queries.events else f"({query}) * {_events(slo, window)}"


def _events(slo: Slo, window: str) -> str:
    if (sli := slo.sli) is not None:
        return added(sli.events, (), window)
    assert slo.queries is not None
    # a share that somebody else computes says nothing of how many there were
    return _foreign(slo.queries.events, window) if slo.queries.events else "vector(1)"


def _ratio(slo: Slo, window: str) -> str:
    if (sli := slo.sli) is not None:
        return share(sli, (), window)
    assert slo.queries is not None
    query = f"({_foreign(slo.queries.bad, window)})"
    return f"{query} / (({_foreign(slo.queries.events, window)}) > 0)" if slo.queries.events else query


def _foreign(query: str, window: str) -> str:
    """With the range put in, as Sloth writes it: `{{.window}}`, or with spaces."""
    return query.replace("{{ .window }}", window).replace("{{.window}}", window)


def _burning(slo: Slo) -> list[dict[str, Any]]:
    alerts = []
    for severity in ("page", "ticket"):
        rows = [window for window in WINDOWS if window.severity == severity]
        expr = " or ".join(f"({_both(slo, window)})" for window in rows)
        alerts.append(
            {
                "alert": BURNING,
                "expr": f"max({expr})",
                "labels": {"slo": slo.name, "severity": severity},
                "annotations": {"summary": burning(slo, severity), "description": LOOK},
            }
        )
    return alerts


LOOK: Final = "Failures by code and blame, latencies by stage, and which replicas they are of."


def burning(slo: Slo, severity: Severity) -> str:
    """What is told about it."""
    fast = "fast enough to be gone within days" if severity == "page" else "faster than it may"
    return f"The error budget of {slo.name} ({slo.objective * 100:g}% over {duration(slo.period)}) burns {fast}."


def _both(slo: Slo, window: Window) -> str:
    factor = window.factor(slo.period)
    return f"{_over(slo, window.long, factor)} and {_over(slo, window.short, factor)}{_enough(slo, window.long)}"


def _over(slo: Slo, span: float, factor: float) -> str:
    # without the window's label, so that the two can be compared
    metric = selector(ERRORS, (), f"slo={quoted(slo.name)}", f"window={quoted(duration(span))}")
    return f"max({metric}) > {factor * slo.budget:.6g}"


def _enough(slo: Slo, span: float) -> str:
    if slo.queries is not None and not slo.queries.events:
        return ""
    window = duration(span)
    return f" and sum(avg_over_time({EVENTS}{selector_of(slo)}[{window}])) * {span:g} >= {slo.min_events}"


def metrics_of(rules: Sequence[Rule]) -> set[str]:
    """The metrics of ours that these need."""
    found: set[str] = set()
    for rule in rules:
        condition = rule.condition
        if isinstance(condition, Level | Grown):
            found.add(condition.metric)
        elif isinstance(condition, Share):
            found |= {term.metric for term in (*condition.sli.bad, *condition.sli.events)}
    return found
