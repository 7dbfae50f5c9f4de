"""Service levels and alerts as they are written. What follows is in `config.slos`; what they mean, in docs/slos.md."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from penstock.config.limit_options import Webhook
from penstock.config.options import Count, Options, says
from penstock.config.units import DURATION_PATTERN, Duration

IndicatorName = Literal["availability", "errors", "ttft", "tpot", "e2e", "queue", "refusals", "capped", "feedback"]
SeverityName = Literal["page", "ticket"]

SloName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        extra={"expected": "a name of at most 64 letters, digits, dots, dashes and underscores"},
    ),
]
AlertName = Annotated[
    str,
    Meta(pattern=r"^[A-Z][A-Za-z0-9]{0,63}$", extra={"expected": "the name of an alert that is shipped: TtftHigh"}),
]
PERCENT_PATTERN: Final = r"^(100|[0-9]{1,2}(\.[0-9]{1,6})?)%$"
Percent = Annotated[
    str,
    Meta(
        pattern=PERCENT_PATTERN,
        examples=["99.9%"],
        extra={"expected": "a percentage such as 99.9%"},
    ),
]
Threshold = Annotated[
    str,
    Meta(
        pattern=rf"{PERCENT_PATTERN}|{DURATION_PATTERN}|^[0-9]{{1,9}}(\.[0-9]{{1,6}})?$",
        examples=["10%", "3s"],
        extra={"expected": "a percentage, a duration or a number, as the alert has it: 10%, 3s"},
    ),
]


class QueriesOptions(Options, frozen=True):
    """An indicator of other metrics than Penstock's, in PromQL, as Sloth has it: `{{.window}}` stands for the range."""

    errors: Annotated[
        str, Meta(min_length=1, max_length=4096), says("The rate of bad events; without `total`, their share, 0 to 1.")
    ]
    total: Annotated[Annotated[str, Meta(max_length=4096)], says("The rate of all events.")] = ""


class SloOptions(Options, frozen=True):
    """What is promised: which share of the events is good."""

    objective: Annotated[Percent, says("The share of events that are good, over any `period`.")]
    of: Annotated[
        IndicatorName | None,
        says(
            "`availability`: not failed for a reason of ours or a provider's. `errors`: not failed for any reason. "
            "`ttft`, `tpot`, `e2e`, `queue`: not slower than `within`. `refusals`: not refused by the model. `capped`: "
            "not cut at its cap of tokens. `feedback`: not called bad. Without it, `queries`."
        ),
    ] = None
    within: Annotated[Duration | None, says("Of latencies: what is slower is bad. It becomes a bucket's bound.")] = None
    models: Annotated[
        Annotated[tuple[str, ...], Meta(max_length=64)], says("Of these models only. Without it, of all.")
    ] = ()
    period: Annotated[Duration, says("From 1d to 90d.")] = "30d"
    min_events: Annotated[Count, says("With fewer in the long window of an alert, nobody is told.")] = 50
    queries: Annotated[QueriesOptions | None, says("Instead of `of`: what Prometheus alone can evaluate.")] = None


class RuleOptions(Options, frozen=True):
    """What of a shipped alert is to be otherwise."""

    enabled: Annotated[bool, says("`false`: it is left out.")] = True
    over: Annotated[Threshold | None, says("The threshold: a share such as 10%, or a time such as 3s.")] = None
    holds_for: Annotated[Duration | None, says("How long it must be so before somebody is told.")] = msgspec.field(
        name="for", default=None
    )
    severity: Annotated[SeverityName | None, says("`page`: somebody gets up. `ticket`: within days.")] = None


class NotifyOptions(Options, frozen=True):
    """Somebody who is told. Exactly one of `webhook`, `slack` and `alertmanager`."""

    webhook: Annotated[
        Webhook | None, says("A POST of JSON for each alert: an address, or env:NAME or file:/path.")
    ] = None
    slack: Annotated[
        Webhook | None, says("An incoming webhook of Slack, or of something that takes the same messages; likewise.")
    ] = None
    alertmanager: Annotated[Webhook | None, says("The address of an Alertmanager, without a path; likewise.")] = None
    severity: Annotated[SeverityName | None, says("Only alerts of this severity. Without it, all.")] = None
    repeat: Annotated[
        Duration, says("While an alert lasts, it is told again so often. Alertmanager decides itself.")
    ] = "4h"


class AlertsOptions(Options, frozen=True):
    """Who is told when something is wrong. The alerts themselves are shipped; docs/slos.md has them all."""

    notify: Annotated[Annotated[tuple[NotifyOptions, ...], Meta(max_length=32)], says("Who is told.")] = ()
    rules: Annotated[
        dict[AlertName, RuleOptions], Meta(extra={"names": AlertName}), says("What is to be otherwise, by its name.")
    ] = msgspec.field(default_factory=dict)


def share(text: str) -> float:
    """0 to 1. Raises `ValueError` when it is no `Percent`."""
    if re.search(PERCENT_PATTERN, text) is None:
        raise ValueError(f"not a percentage: {text!r}")
    return float(text.removesuffix("%")) / 100
