"""Alerts as data: what is wrong when, and for how long before somebody is told; and who has been told of what.

The same rows are evaluated here and written as rules for Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.quality.sli import IN_WORDS, Indicator, Part, Sli, sli_of
from penstock.quality.slo import Severity

MOST_ACTIVE: Final = 1_000  # alerts at once; what comes later is counted and not told
Labels: TypeAlias = tuple[tuple[str, str], ...]
Unit: TypeAlias = Literal["%", "s", ""]
"""How `over` is said; inside, a share is 0 to 1 and a time is in seconds."""


class Share(msgspec.Struct, frozen=True):
    """More than `over` (0 to 1) of the events within `window` seconds are bad, of at least `least` events."""

    sli: Sli
    over: float
    by: tuple[str, ...] = ()
    window: float = 300.0
    least: int = 20
    unit: Unit = "%"

    @property
    def bound(self) -> float | None:
        """Of a latency: what is slower than this is bad."""
        return next((term.bound for term in self.sli.bad if term.part is Part.BELOW), None)


class Level(msgspec.Struct, frozen=True):
    """A gauge is above `over`, or below it. `by` () : each series for itself; else the highest (lowest) of each group
    must be."""

    metric: str
    over: float
    below: bool = False
    by: tuple[str, ...] = ()
    unit: Unit = ""


class Grown(msgspec.Struct, frozen=True):
    """A counter that should not has grown within `window` seconds."""

    metric: str
    by: tuple[str, ...] = ()
    window: float = 600.0


class Foreign(msgspec.Struct, frozen=True):
    """About numbers that only Prometheus has: `expression` in PromQL."""

    expression: str
    over: float
    unit: Unit = ""


Condition: TypeAlias = Share | Level | Grown | Foreign


class Rule(msgspec.Struct, frozen=True):
    """`holds_for` seconds of it, and somebody is told. `says` is a sentence, with labels in it as `{model}`; `do`, what
    to look at first."""

    name: str
    severity: Severity
    condition: Condition
    holds_for: float
    says: str
    do: str


TTFT_P99: Final = 3.0  # seconds

RULES: Final = (
    Rule(
        "TtftHigh",
        "page",
        # the 99th percentile is above 3 s just when more than 1 in 100 take longer than 3 s: exact, unlike a quantile
        # that is interpolated within a bucket
        Share(sli_of(Indicator.TTFT, TTFT_P99), 0.01, ("model",), window=120.0),
        120.0,
        "The p99 of the time to first token of {model} is above {bound}.",
        "Queue and saturation of the model, then the replicas: waiting requests, KV cache, a breaker that is open.",
    ),
    Rule(
        "RefusalsHigh",
        "ticket",
        Share(sli_of(Indicator.REFUSALS), 0.10, ("model",)),
        300.0,
        "More than {over} of the answers of {model} are refusals.",
        "A change of model, prompt or provider policy; or somebody who tries the filters. The traces are kept.",
    ),
    Rule(
        "RefusalsInWordsHigh",
        "ticket",
        Share(IN_WORDS, 0.10, ("model",)),
        300.0,
        "More than {over} of the answers of {model} that were looked at read like refusals.",
        "As for RefusalsHigh. It is an estimate, from the first words of some answers: read a few.",
    ),
    Rule(
        "GpuMemoryHigh",
        "page",
        # engines take the GPU's memory for themselves at the start: what fills up from then on is their KV cache
        Level("penstock_replica_kv_used_ratio", 0.92, unit="%"),
        60.0,
        "More than {over} of the KV cache of {replica} is held: it will preempt, and then queue.",
        "Preemptions and waiting requests of the replica; fewer sequences at once, or another replica.",
    ),
    Rule(
        "GpuMemoryHighDcgm",
        "page",
        Foreign("DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE) > 0.92", 0.92, "%"),
        60.0,
        "More than {over} of the memory of GPU {gpu} on {Hostname} is used, as dcgm-exporter says.",
        "Engines take their share at the start: leave this rule out, or look for what else runs there.",
    ),
    Rule(
        "AnswersAtTokenCap",
        "ticket",
        Share(sli_of(Indicator.CAPPED), 0.10, ("model",)),
        300.0,
        "More than {over} of the answers of {model} end at their cap of tokens.",
        "`max_tokens` of the callers and of the model; a prompt that makes it ramble.",
    ),
    Rule(
        "NoReplicaReady",
        "page",
        Level("penstock_replica_ready", 1, below=True, by=("deployment",)),
        60.0,
        "No replica of {deployment} is ready.",
        "The engines' own logs; the health path; the network to them.",
    ),
    Rule(
        "ReplicaNotReady",
        "ticket",
        Level("penstock_replica_ready", 1, below=True),
        120.0,
        "{replica} does not answer its health check.",
        "The engine's own log; the health path; the network to it.",
    ),
    Rule(
        "BreakerOpen",
        "ticket",
        Level("penstock_breaker_phase", 1),
        60.0,
        "The circuit breaker of {replica} is open: it failed too often in a row.",
        "The failures of its attempts, by kind.",
    ),
    Rule(
        "ReplicaEjected",
        "ticket",
        Grown("penstock_ejections_total", ("deployment",)),
        0.0,
        "A replica of {deployment} is left out for a while because it does worse than its like.",
        "Its latencies and failures beside those of the others.",
    ),
    Rule(
        "Saturated",
        "page",
        Level("penstock_saturation_ratio", 0.9),
        120.0,
        "{model} is saturated: who comes now waits as long as anybody may wait.",
        "More replicas; who sends most; the queue by priority.",
    ),
    Rule(
        "LedgerBehind",
        "ticket",
        Level("penstock_ledger_behind_seconds", 300.0, unit="s"),
        60.0,
        "No row has arrived in the ledger for {over}; they wait on disk.",
        "The database: is it there, is it full, is it slow?",
    ),
    Rule(
        "LedgerRowsLost",
        "page",
        Grown("penstock_ledger_lost_rows_total"),
        0.0,
        "Rows of the ledger are lost: neither the database nor the disk had room for them.",
        "The disk of the spool; the database.",
    ),
    Rule(
        "CountersUnreachable",
        "ticket",
        Level("penstock_counters_unreachable", 0.0),
        60.0,
        "Redis does not answer: this gateway counts alone, with its share of each limit.",
        "Redis, and the network to it.",
    ),
    Rule(
        "TelemetryDropped",
        "ticket",
        Grown("penstock_telemetry_dropped_total", ("exporter", "why")),
        0.0,
        "Traces for {exporter} are dropped ({why}).",
        "The place they are sent to; the ratio of what is sampled.",
    ),
    Rule(
        "AccessLogDropped",
        "ticket",
        Grown("penstock_access_log_dropped_total"),
        0.0,
        "Lines of the access log are dropped: it cannot be written as fast as requests end.",
        "The disk, or whoever reads the log.",
    ),
    Rule(
        "RequestsUnpriced",
        "ticket",
        Grown("penstock_unpriced_requests_total", ("model",)),
        0.0,
        "Requests of {model} have no price: they are in no sum, and no budget holds them.",
        "`penstock prices`, or a `price` at the deployment.",
    ),
    Rule(
        "BudgetReached",
        "ticket",
        Grown("penstock_budget_thresholds_total", ("budget", "percent")),
        0.0,
        "The budget {budget} has reached {percent}% of its amount.",
        "`penstock cost --by team,model`.",
    ),
    Rule(
        "BudgetWebhooksFailed",
        "ticket",
        Grown("penstock_budget_webhooks_failed_total"),
        0.0,
        "A webhook was not told of a budget, after several tries.",
        "Its address, and whether it answers; the log has the sentence that it was to be told.",
    ),
    Rule(
        "NotificationsFailed",
        "ticket",
        Grown("penstock_notifications_failed_total"),
        0.0,
        "Somebody was not told of an alert, after several tries.",
        "The addresses in `alerts.notify`, and whether they answer.",
    ),
    Rule(
        "WorkersUnreadable",
        "ticket",
        Level("penstock_workers_unreadable", 0.0),
        120.0,
        "The numbers of some workers are missing from what is scraped.",
        "Workers that hang, or are overloaded.",
    ),
    Rule(
        "PenstockDown",
        "page",
        Foreign('up{job="penstock"} < 1', 1.0),
        60.0,
        "Penstock at {instance} cannot be scraped.",
        "The process; the network to it.",
    ),
)
"""What is shipped. Each is tested with `promtool test rules`."""


BURNING: Final = "SloBudgetBurning"
"""The name of every SLO's alert; which SLO and how bad it is are its labels."""


class Alert(msgspec.Struct, frozen=True):
    """`since` and `ended` are Unix seconds; `ended` None: it is still so. `id` is the same for the same alert, whoever
    finds it, until it ends."""

    name: str
    severity: Severity
    labels: Labels
    says: str
    do: str
    value: float
    since: float
    ended: float | None = None

    @property
    def id(self) -> str:
        return "|".join((self.name, *(f"{name}={value}" for name, value in self.labels)))


class Finding(msgspec.Struct, frozen=True):
    """What is true now, before anybody asked for how long."""

    name: str
    severity: Severity
    labels: Labels
    says: str
    do: str
    value: float
    holds_for: float

    @property
    def key(self) -> tuple[str, str, Labels]:
        return self.name, self.severity, self.labels


class Alarms:
    """Which alerts are active. One that is found for long enough begins; one that is no longer found ends."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str, Labels], float] = {}
        self._active: dict[tuple[str, str, Labels], Alert] = {}
        self.untold = 0  # alerts for which there was no room

    @property
    def active(self) -> tuple[Alert, ...]:
        return tuple(self._active.values())

    def step(self, found: Iterable[Finding], now: float) -> list[Alert]:
        """Those that have begun or ended by this, in the order of their rules."""
        changes: list[Alert] = []
        seen: set[tuple[str, str, Labels]] = set()
        for finding in found:
            key = finding.key
            seen.add(key)
            since = self._since.get(key)
            if since is None:
                if len(self._since) >= MOST_ACTIVE:
                    self.untold += 1
                    continue
                since = self._since[key] = now
            if key not in self._active and now - since >= finding.holds_for:
                alert = Alert(
                    finding.name, finding.severity, finding.labels, finding.says, finding.do, finding.value, since
                )
                self._active[key] = alert
                changes.append(alert)
        for key in [key for key in self._since if key not in seen]:
            del self._since[key]
            if (ended := self._active.pop(key, None)) is not None:
                changes.append(msgspec.structs.replace(ended, ended=now))
        return changes


def finding_of(rule: Rule, labels: Labels, value: float) -> Finding:
    return Finding(rule.name, rule.severity, labels, said(rule, dict(labels)), rule.do, value, rule.holds_for)


def said(rule: Rule, labels: Mapping[str, str]) -> str:
    """The sentence, about these labels."""
    return rule.says.format_map({**threshold(rule), **labels})


def threshold(rule: Rule) -> dict[str, str]:
    """What of the rule itself stands in its sentence: `over`, and the `bound` of a latency."""
    condition = rule.condition
    if isinstance(condition, Grown):
        return {}
    shown = {"over": spoken(condition.over, condition.unit)}
    if isinstance(condition, Share) and (bound := condition.bound) is not None:
        shown["bound"] = spoken(bound, "s")
    return shown


def spoken(value: float, unit: Unit) -> str:
    return f"{value * 100:g}%" if unit == "%" else f"{value:g} {unit}".rstrip()
