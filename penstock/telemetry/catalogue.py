"""Every metric Penstock has, in one table: code makes its metrics from it and `docs/metrics.md` is rendered from it.

A metric that is not here cannot be recorded: `Registry` makes its families from these rows and knows no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

OTHER: Final = "other"  # the label value of whatever came after a family was full
UNKNOWN: Final = "unknown"  # a model name that nobody serves; callers may write anything there
NONE: Final = "none"  # the error of a whole answer


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """How one gauge of several workers becomes one number. Histograms are always added, and so are counters, but those
    that are read from somebody else, whom every worker sees: they have `MAX`.
    """

    SUM = "sum"
    MIN = "min"
    MAX = "max"


class Metric(msgspec.Struct, frozen=True):
    """One row. `labels` come from closed sets; beyond `max_children` of their combinations all is counted as "other".

    `buckets` are upper bounds, inclusive, ascending, without +Inf. Names carry their unit, counters end in `_total`, as
    Prometheus asks for (prometheus.io/docs/practices/naming).
    """

    name: str
    kind: Kind
    unit: str  # "seconds", "tokens", ...; "" where it is a plain count or state
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    max_children: int = 1_000
    merge: Merge = Merge.SUM

    @property
    def read(self) -> bool:
        """Somebody else's number, which says nothing any more when the worker that read it has ended."""
        return self.kind is Kind.GAUGE or self.merge is not Merge.SUM


# Unions of the buckets of vLLM 0.33 and SGLang 0.5.23, so that their panels and ours can be laid over each other.
TTFT_BUCKETS: Final = (
    0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 4.0, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
TPOT_BUCKETS: Final = (
    0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1.0, 2.5, 5.0,
)  # fmt: skip
E2E_BUCKETS: Final = (
    0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 120.0, 240.0, 480.0, 960.0,
)  # fmt: skip
QUEUE_BUCKETS: Final = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
LENGTH_BUCKETS: Final = (
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0,
    100_000.0, 200_000.0, 500_000.0, 1_000_000.0,
)  # fmt: skip
OVERHEAD_BUCKETS: Final = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1)

CATALOGUE: Final[tuple[Metric, ...]] = (
    Metric(
        "penstock_requests_total",
        Kind.COUNTER,
        "",
        ("model", "endpoint", "status_class", "error"),
        "Requests that ended, however they ended. `status_class` is 2xx, 4xx or 5xx as sent to the caller; `error` is "
        "the stable code, or `none` for a whole answer (a stream that broke is 2xx with an error).",
    ),
    Metric(
        "penstock_request_duration_seconds",
        Kind.HISTOGRAM,
        "seconds",
        ("model", "endpoint"),
        "End to end: from the request being read to the last byte being handed to the connection.",
        E2E_BUCKETS,
    ),
    Metric(
        "penstock_time_to_first_token_seconds",
        Kind.HISTOGRAM,
        "seconds",
        ("model",),
        "TTFT as the caller saw it, retries and all: from the request being read to the first token. Streams only.",
        TTFT_BUCKETS,
    ),
    Metric(
        "penstock_time_per_output_token_seconds",
        Kind.HISTOGRAM,
        "seconds",
        ("model",),
        "TPOT: the mean gap between tokens after the first, one observation per whole stream of two tokens or more.",
        TPOT_BUCKETS,
    ),
    Metric(
        "penstock_gateway_overhead_seconds",
        Kind.HISTOGRAM,
        "seconds",
        (),
        "Time the gateway itself took: before the first attempt began and after the last ended. Waiting between "
        "attempts is not in it. Only requests that reached a replica.",
        OVERHEAD_BUCKETS,
    ),
    Metric(
        "penstock_prompt_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("model", "source"),
        "Prompt tokens. `source` is `provider` when whoever answered counted them, `estimate` when we had to.",
    ),
    Metric(
        "penstock_cached_prompt_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("model",),
        "Those of the prompt tokens that the upstream found in its prefix cache.",
    ),
    Metric(
        "penstock_completion_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("model", "source"),
        "Generated tokens. `source` as for prompt tokens.",
    ),
    Metric(
        "penstock_attempts_total",
        Kind.COUNTER,
        "",
        ("replica", "ended"),
        "Tries at a replica. `ended` is `ok`, `cancelled` (the caller left, or another attempt won) or the kind of "
        "failure.",
        max_children=4_000,
    ),
    Metric(
        "penstock_retries_total",
        Kind.COUNTER,
        "",
        ("model",),
        "Attempts after the first of their request: retries, failovers and hedges.",
    ),
    Metric(
        "penstock_hedges_total",
        Kind.COUNTER,
        "",
        ("model",),
        "Of these, those that began while another attempt of their request was under way.",
    ),
    Metric(
        "penstock_failovers_total",
        Kind.COUNTER,
        "",
        ("model",),
        "Of the retries, those that went to another deployment than the attempt before.",
    ),
    Metric(
        "penstock_queue_wait_seconds",
        Kind.HISTOGRAM,
        "seconds",
        ("model", "priority"),
        "How long requests waited until a replica had room for them. Only those that were sent; without a queue it is "
        "about nothing.",
        QUEUE_BUCKETS,
    ),
    Metric(
        "penstock_prompt_length_tokens",
        Kind.HISTOGRAM,
        "tokens",
        ("model",),
        "Tokens of the prompt, by request.",
        LENGTH_BUCKETS,
    ),
    Metric(
        "penstock_output_length_tokens",
        Kind.HISTOGRAM,
        "tokens",
        ("model",),
        "Generated tokens, by whole answer.",
        LENGTH_BUCKETS,
    ),
    Metric(
        "penstock_reasoning_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("model",),
        "Those of the generated tokens that were reasoning.",
    ),
    Metric(
        "penstock_finished_total",
        Kind.COUNTER,
        "",
        ("model", "reason"),
        "Whole answers, by why they ended: `stop`, `length` (they were at their cap of tokens), `tool_calls`, "
        "`content_filter`, `refusal`, `pause`, `other`.",
    ),
    Metric(
        "penstock_refusals_total",
        Kind.COUNTER,
        "",
        ("model", "signal"),
        "Requests that a model or its provider would not answer, by what says so: `content_policy_violation`, "
        "`content_filter`, `refusal`.",
    ),
    Metric(
        "penstock_answers_looked_at_total",
        Kind.COUNTER,
        "",
        ("model", "signal"),
        "Whole answers whose first words were looked at, five a second of each worker at most, by what says that they "
        "refuse: `declared` (as above), `words` (an estimate: they read like a refusal), `none`. Shares are of these.",
    ),
    Metric(
        "penstock_feedback_total",
        Kind.COUNTER,
        "",
        ("model", "signal", "verdict"),
        "What was said of answers, or what callers did: `signal` is `thumbs`, `rating`, `accepted`, `retried`, "
        "`requery` (the same session asked again) or `abandoned` (left, and did not come back); `verdict` is `good`, "
        "`bad` or `neutral`.",
    ),
    Metric(
        "penstock_failures_total",
        Kind.COUNTER,
        "",
        ("model", "of", "error", "lasting", "blame"),
        "Everything that failed, each with its nature. `of` is `request` (`error` is the code that the caller was "
        "told) or `attempt` (`error` is the kind of failure); `lasting` is `transient` or `systematic`; `blame`, who "
        "could change it, is `caller`, `system` or `provider`.",
        max_children=4_000,
    ),
    Metric(
        "penstock_admissions_total",
        Kind.COUNTER,
        "",
        ("model", "priority", "verdict"),
        "Requests with which nothing is wrong, by what came of them: `admitted`, which is sent to a replica, or the "
        "code of the refusal: a limit, a budget, no room, no replica.",
        max_children=2_000,
    ),
    Metric(
        "penstock_degraded_total",
        Kind.COUNTER,
        "",
        ("model", "what"),
        "Answers for which something was given up under load, by what that was.",
    ),
    Metric(
        "penstock_saturation_ratio",
        Kind.GAUGE,
        "ratio",
        ("model",),
        "How hard pressed the model is: 1 where who comes now waits as long as anybody may wait. With several "
        "workers: the worst one.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_queued_requests",
        Kind.GAUGE,
        "requests",
        ("deployment",),
        "Requests that wait for a replica with room, by the first deployment of their queue.",
    ),
    Metric(
        "penstock_ejections_total",
        Kind.COUNTER,
        "",
        ("deployment",),
        "Times that a replica was left out for a while because it did worse than its like.",
    ),
    Metric(
        "penstock_in_flight_requests",
        Kind.GAUGE,
        "requests",
        (),
        "Requests inside the gateway now.",
    ),
    Metric(
        "penstock_replica_ready",
        Kind.GAUGE,
        "",
        ("deployment", "replica"),
        "1 when the replica answers its health check, else 0. With several workers: the most pessimistic one.",
        merge=Merge.MIN,
    ),
    Metric(
        "penstock_replica_in_flight_attempts",
        Kind.GAUGE,
        "attempts",
        ("deployment", "replica"),
        "Attempts this gateway has open at the replica now.",
    ),
    Metric(
        "penstock_breaker_phase",
        Kind.GAUGE,
        "",
        ("deployment", "replica"),
        "Circuit breaker of the replica: 0 closed, 1 half open, 2 open. With several workers: the worst one.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_replica_running_requests",
        Kind.GAUGE,
        "requests",
        ("deployment", "replica"),
        "What the engine itself says, whatever it is: requests in its batch.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_replica_waiting_requests",
        Kind.GAUGE,
        "requests",
        ("deployment", "replica"),
        "Likewise: requests in its own queue.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_replica_kv_used_ratio",
        Kind.GAUGE,
        "ratio",
        ("deployment", "replica"),
        "Likewise: the share of its KV cache that is held, 0 to 1.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_replica_kv_capacity_tokens",
        Kind.GAUGE,
        "tokens",
        ("deployment", "replica"),
        "Likewise: tokens that fit into its KV cache.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_replica_prompt_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("deployment", "replica"),
        "Likewise: prompt tokens since it was started, from all who ask it.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_replica_prefix_hit_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("deployment", "replica"),
        "Likewise: those of them that were in its prefix cache.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_replica_generated_tokens_total",
        Kind.COUNTER,
        "tokens",
        ("deployment", "replica"),
        "Likewise: tokens generated since it was started.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_replica_preemptions_total",
        Kind.COUNTER,
        "",
        ("deployment", "replica"),
        "Likewise: requests that it had to put back for want of KV cache.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_plane_version",
        Kind.GAUGE,
        "",
        (),
        "Version of the configuration being served. With several workers: the oldest one.",
        merge=Merge.MIN,
    ),
    Metric(
        "penstock_workers_unreadable",
        Kind.GAUGE,
        "",
        (),
        "Workers whose numbers are missing from this very answer, because they could not be read in time. 0 is well.",
    ),
    Metric(
        "penstock_access_log_dropped_total",
        Kind.COUNTER,
        "",
        (),
        "Access log lines dropped because the log could not be written as fast as requests ended.",
    ),
    Metric(
        "penstock_kept_requests_total",
        Kind.COUNTER,
        "",
        (),
        "Requests written to the file of single requests (`store.traces`).",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_kept_requests_dropped_total",
        Kind.COUNTER,
        "",
        (),
        "Requests that should have been, for which there was no room or which the disk did not take.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_console_logins_total",
        Kind.COUNTER,
        "",
        ("result",),
        "Logins to the console: `ok`; `refused`; `limited`, after too many refused ones from that address.",
    ),
    Metric(
        "penstock_traces_total",
        Kind.COUNTER,
        "",
        ("kept",),
        "Requests looked at for tracing, by why their trace is kept: `error`, `slow`, `flagged`, `degraded`, `caller`, "
        "`ratio`; or `no`; or `capped`, where too many were to be kept for what they are.",
    ),
    Metric(
        "penstock_telemetry_sent_total",
        Kind.COUNTER,
        "",
        ("exporter",),
        "Traces that arrived where they were sent.",
    ),
    Metric(
        "penstock_telemetry_dropped_total",
        Kind.COUNTER,
        "",
        ("exporter", "why"),
        "Traces that did not: `full` (they came faster than they could be sent), `refused` (the place says they are "
        "wrong), `failed` (it was away for too long).",
    ),
    Metric(
        "penstock_telemetry_waiting_traces",
        Kind.GAUGE,
        "traces",
        ("exporter",),
        "Traces that wait to be sent.",
    ),
    Metric(
        "penstock_cost_dollars_total",
        Kind.COUNTER,
        "dollars",
        ("model",),
        "What requests have cost, as far as that is known. For sums that must be exact, ask the ledger.",
    ),
    Metric(
        "penstock_unpriced_requests_total",
        Kind.COUNTER,
        "",
        ("model",),
        "Requests whose cost nobody knows, because no price is known: they are in no sum. 0 is well.",
    ),
    Metric(
        "penstock_limit_overshoot_total",
        Kind.COUNTER,
        "",
        ("kind",),
        "Requests that used more than was reserved for them and took a counter beyond its limit, by the kind of that: "
        "rate, gauge or budget.",
    ),
    Metric(
        "penstock_budget_thresholds_total",
        Kind.COUNTER,
        "",
        ("budget", "percent"),
        "Times that a budget has reached a share of its amount at which somebody is told: once in each of its windows.",
    ),
    Metric(
        "penstock_budget_webhooks_failed_total",
        Kind.COUNTER,
        "",
        (),
        "Of these, what a webhook has not taken after several tries.",
    ),
    Metric(
        "penstock_unverified_budgets",
        Kind.GAUGE,
        "budgets",
        (),
        "Budgets that are counted from what this host knows, because the ledger could not be asked; once it can, they "
        "are put right.",
    ),
    Metric(
        "penstock_counters_unreachable",
        Kind.GAUGE,
        "",
        (),
        "1 while Redis does not answer and this gateway counts alone, with its share of each limit. With several "
        "workers: 1 when any is.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_counters_alone_total",
        Kind.COUNTER,
        "",
        (),
        "Requests that were let through or refused that way.",
    ),
    Metric(
        "penstock_counters_lost_total",
        Kind.COUNTER,
        "",
        (),
        "Requests whose use could not be counted on any counter, for want of room. The ledger still has them.",
    ),
    Metric(
        "penstock_ledger_written_rows_total",
        Kind.COUNTER,
        "rows",
        (),
        "Rows that arrived in the ledger.",
    ),
    Metric(
        "penstock_ledger_lost_rows_total",
        Kind.COUNTER,
        "rows",
        (),
        "Rows for which there was no room, neither on this disk nor in memory. They are gone: 0 is well.",
    ),
    Metric(
        "penstock_ledger_set_aside_rows_total",
        Kind.COUNTER,
        "rows",
        (),
        "Rows that the database will never take. They are in `set-aside.jsonl` in the spool, for people to look at.",
    ),
    Metric(
        "penstock_ledger_crashed_rows_total",
        Kind.COUNTER,
        "rows",
        (),
        "Rows of requests that ended with the process that served them. What they cost is an estimate.",
    ),
    Metric(
        "penstock_ledger_unguarded_requests_total",
        Kind.COUNTER,
        "requests",
        (),
        "Requests that would have had no row, had their process died: there was no room to note them. 0 is well.",
    ),
    Metric(
        "penstock_ledger_failed_batches_total",
        Kind.COUNTER,
        "",
        (),
        "Batches of rows that did not arrive, or nobody knows. They are sent again.",
    ),
    Metric(
        "penstock_ledger_waiting_rows",
        Kind.GAUGE,
        "rows",
        (),
        "Rows on this disk, or in memory when it is full, that are not in the ledger yet.",
    ),
    Metric(
        "penstock_ledger_behind_seconds",
        Kind.GAUGE,
        "seconds",
        (),
        "For how long rows have been waiting without any arriving. With several workers: the longest.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_issued_keys",
        Kind.GAUGE,
        "keys",
        (),
        "Keys made at run time that are known here, revoked ones too. With several workers: of who knows most.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_unreadable_keys",
        Kind.GAUGE,
        "keys",
        (),
        "Keys in the database with options that this version cannot read; they let nobody in.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_issued_keys_age_seconds",
        Kind.GAUGE,
        "seconds",
        (),
        "Since the database last said which keys there are; a key that was revoked since still works. With several "
        "workers: the longest.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_slo_objective_ratio",
        Kind.GAUGE,
        "ratio",
        ("slo",),
        "The share of events that are to be good, 0 to 1.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_slo_error_budget_left_ratio",
        Kind.GAUGE,
        "ratio",
        ("slo",),
        "What is left of the SLO's error budget over its period: 1 is all of it, below 0 it is overdrawn.",
        merge=Merge.MIN,
    ),
    Metric(
        "penstock_slo_burn_rate",
        Kind.GAUGE,
        "",
        ("slo", "window"),
        "How fast the budget went within the window, as a multiple of what uses it up just at the end of the period.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_alerts_active",
        Kind.GAUGE,
        "",
        ("alert", "severity"),
        "Alerts that are active, as Penstock itself finds out.",
        merge=Merge.MAX,
    ),
    Metric(
        "penstock_notifications_failed_total",
        Kind.COUNTER,
        "",
        (),
        "Notices of alerts that did not arrive after several tries, or for which there was no room.",
    ),
    Metric(
        "penstock_metrics_overflow_total",
        Kind.COUNTER,
        "",
        ("metric",),
        "Look-ups of label values that came after the metric had all the series it may have; they count as `other`.",
    ),
)


def with_bounds(thresholds: Mapping[str, Iterable[float]]) -> tuple[Metric, ...]:
    """The catalogue with these values as bounds of buckets too, by the names of histograms: a share of requests below
    a threshold can be told exactly where, and only where, it is a bound. Raises `KeyError` for a name that is no
    histogram's.
    """
    histograms = {metric.name for metric in CATALOGUE if metric.kind is Kind.HISTOGRAM}
    for name in thresholds:
        if name not in histograms:
            raise KeyError(name)
    return tuple(
        msgspec.structs.replace(metric, buckets=tuple(sorted({*metric.buckets, *thresholds[metric.name]})))
        if metric.name in thresholds
        else metric
        for metric in CATALOGUE
    )


def render_markdown(catalogue: tuple[Metric, ...] = CATALOGUE) -> str:
    """The whole text of `docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "<!-- Generated from penstock/telemetry/catalogue.py; a test compares. Edit the table there. -->",
        "",
        "`GET /metrics` answers in the Prometheus text format 0.0.4, or in OpenMetrics 1.0 when the `Accept` header",
        "asks for it. Label values come from closed sets (configured models, replicas, stable error codes). A metric",
        "that has all the series it may have counts the rest under the label value `other`, and says so in",
        "`penstock_metrics_overflow_total`. A model name that nobody serves is counted as `unknown`. In OpenMetrics,",
        "buckets of latencies name the trace of a request that fell into them, of those whose traces are kept. The",
        "threshold of every SLO is the bound of a bucket, in addition to those below.",
        "",
        "| metric | kind | unit | labels | meaning |",
        "|---|---|---|---|---|",
    ]
    for metric in catalogue:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        lines.append(f"| `{metric.name}` | {metric.kind} | {metric.unit or '-'} | {labels} | {metric.meaning} |")
    lines += [
        "",
        "## Buckets",
        "",
        "Upper bounds, inclusive, in the metric's unit.",
        "",
        "| metric | buckets |",
        "|---|---|",
    ]
    for metric in catalogue:
        if metric.buckets:
            lines.append(f"| `{metric.name}` | {' '.join(f'{bound:g}' for bound in metric.buckets)} |")
    return "\n".join(lines) + "\n"
