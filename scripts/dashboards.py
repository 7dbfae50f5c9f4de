"""Writes the Grafana dashboards, `dashboards/*.json`, from the tables below. A test fails while one is not what this
makes, or asks for a metric or a label that Penstock does not have.

Made with Grafana's own library for Grafana 10.1; newer ones take them over by themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "dashboards"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${source}")

STREAM = "penstock_time_to_first_token_seconds"
GAP = "penstock_time_per_output_token_seconds"
WHOLE = "penstock_request_duration_seconds"
MODEL = 'model=~"$model"'
REPLICA = 'deployment=~"$deployment"'

Kind = Literal["lines", "stacked", "number"]


class Query(NamedTuple):
    expr: str
    legend: str = ""
    exemplars: bool = False


class Panel(NamedTuple):
    """`unit` is Grafana's name of it. `width` of 24."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    about: str = ""
    kind: Kind = "lines"
    width: int = 8
    limit: float | None = None  # from which on a number is red
    from_zero: bool = True


class Board(NamedTuple):
    uid: str
    title: str
    about: str
    variables: tuple[tuple[str, str], ...]  # name, and the query of its values
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def rate(metric: str, by: str, where: str = "") -> str:
    selector = f"{{{where}}}" if where else ""
    return (
        f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))"
        if by
        else f"sum(rate({metric}{selector}[$__rate_interval]))"
    )


def quantiles(metric: str, where: str = MODEL, by: str = "") -> tuple[Query, ...]:
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        Query(f"histogram_quantile({q}, {rate(f'{metric}_bucket', labels, where)})", f"{legend}p{q * 100:g}", True)
        for q in (0.5, 0.95, 0.99)
    )


def ratio(part: str, whole: str) -> str:
    return f"{part} / ({whole} > 0)"


def share(part: str, whole: str) -> str:
    """Of the same labels both, and counted by us: where nothing of the part ever was, it is 0, and not unknown."""
    return ratio(f"({part} or 0 * {whole})", whole)


MODELS = ("model", "label_values(penstock_requests_total, model)")
DEPLOYMENTS = ("deployment", "label_values(penstock_replica_ready, deployment)")
SLOS = ("slo", "label_values(penstock_slo_objective_ratio, slo)")

REQUESTS = rate("penstock_requests_total", "", MODEL)
OURS = 'of="request", blame!="caller"'

OVERVIEW = Board(
    "penstock-overview",
    "Penstock / Overview",
    "Golden signals and error budgets. Start here.",
    (MODELS, SLOS),
    (
        (
            "Now",
            (
                Panel("Requests", "reqps", (Query(REQUESTS),), kind="number", width=4),
                Panel(
                    "Failing", "percentunit",
                    (Query(share(rate("penstock_failures_total", "", f"{OURS}, {MODEL}"), REQUESTS)),),
                    "For a reason of ours or a provider's.", "number", 4, 0.01,
                ),
                Panel(
                    "TTFT p99", "s", (Query(f"histogram_quantile(0.99, {rate(f'{STREAM}_bucket', 'le', MODEL)})"),),
                    kind="number", width=4, limit=3,
                ),
                Panel("In flight", "short", (Query("sum(penstock_in_flight_requests)"),), kind="number", width=4),
                Panel(
                    "Cost per hour", "currencyUSD", (Query(f"{rate('penstock_cost_dollars_total', '', MODEL)} * 3600"),),
                    kind="number", width=4,
                ),
                Panel(
                    "Alerts", "short", (Query("sum(penstock_alerts_active)"),),
                    "Active, as Penstock itself finds out.", "number", 4, 1,
                ),
            ),
        ),
        (
            "Golden signals",
            (
                Panel("Traffic", "reqps", (Query(rate("penstock_requests_total", "status_class", MODEL), "{{status_class}}"),), kind="stacked"),
                Panel("Errors", "reqps", (Query(rate("penstock_requests_total", "error", f'error!="none", {MODEL}'), "{{error}}"),), kind="stacked"),
                Panel("Time to first token", "s", quantiles(STREAM)),
                Panel("End to end", "s", quantiles(WHOLE)),
                Panel("Saturation", "percentunit", (Query(f"max by (model) (penstock_saturation_ratio{{{MODEL}}})", "{{model}}"),), "1: who comes now waits as long as anybody may wait."),
                Panel("Tokens", "short", (Query(rate("penstock_prompt_tokens_total", "", MODEL), "prompt"), Query(rate("penstock_completion_tokens_total", "", MODEL), "completion")), "Per second."),
            ),
        ),
        (
            "Service levels",
            (
                Panel("Error budget left", "percentunit", (Query('min by (slo) (penstock_slo_error_budget_left_ratio{slo=~"$slo"})', "{{slo}}"),), "Below 0: overdrawn.", width=12, from_zero=False),
                Panel("Burn rate", "short", (Query('max by (slo, window) (penstock_slo_burn_rate{slo=~"$slo", window=~"5m|1h|6h"})', "{{slo}} {{window}}"),), "1 uses the budget up just at the end of the period.", width=12),
                Panel("Active alerts", "short", (Query("sum by (alert, severity) (penstock_alerts_active) > 0", "{{alert}} ({{severity}})"),), kind="stacked", width=24),
            ),
        ),
    ),
)  # fmt: skip

SERVING = Board(
    "penstock-serving",
    "Penstock / Serving",
    "What requests wait for, and what they are.",
    (MODELS,),
    (
        (
            "Latency",
            (
                Panel("Time to first token", "s", quantiles(STREAM, by="model")),
                Panel("Time per output token", "s", quantiles(GAP, by="model")),
                Panel("End to end", "s", quantiles(WHOLE, by="model")),
                Panel("Waiting for a replica", "s", quantiles("penstock_queue_wait_seconds", by="priority")),
                Panel("Gateway overhead", "s", quantiles("penstock_gateway_overhead_seconds", where="")),
                Panel("Queued", "short", (Query("sum by (deployment) (penstock_queued_requests)", "{{deployment}}"),), kind="stacked"),
            ),
        ),
        (
            "Admission and tries",
            (
                Panel("Verdicts", "reqps", (Query(rate("penstock_admissions_total", "verdict", MODEL), "{{verdict}}"),), "Limits, budgets, no room: or admitted.", "stacked"),
                Panel("Retries, hedges, failovers", "reqps", tuple(Query(rate(f"penstock_{one}_total", "", MODEL), one) for one in ("retries", "hedges", "failovers"))),
                Panel("Given up under load", "reqps", (Query(rate("penstock_degraded_total", "what", MODEL), "{{what}}"),), kind="stacked"),
            ),
        ),
        (
            "Shapes",
            (
                Panel("Prompt length", "short", quantiles("penstock_prompt_length_tokens"), "Tokens."),
                Panel("Output length", "short", quantiles("penstock_output_length_tokens"), "Tokens."),
                Panel("Prompt tokens found in a cache", "percentunit", (Query(share(rate("penstock_cached_prompt_tokens_total", "model", MODEL), rate("penstock_prompt_tokens_total", "model", MODEL)), "{{model}}"),)),
            ),
        ),
    ),
)  # fmt: skip

REPLICAS = Board(
    "penstock-replicas",
    "Penstock / Replicas",
    "Every replica: is it well, what does it do, what does its engine say?",
    (DEPLOYMENTS,),
    (
        (
            "Health",
            (
                Panel("Ready", "short", (Query(f"min by (replica) (penstock_replica_ready{{{REPLICA}}})", "{{replica}}"),), "1: it answers its health check."),
                Panel("Circuit breaker", "short", (Query(f"max by (replica) (penstock_breaker_phase{{{REPLICA}}})", "{{replica}}"),), "0 closed, 1 half open, 2 open."),
                Panel("Left out for a while", "short", (Query(f"sum by (deployment) (increase(penstock_ejections_total{{{REPLICA}}}[$__rate_interval]))", "{{deployment}}"),)),
                Panel("Tries", "reqps", (Query(rate("penstock_attempts_total", "ended", 'replica=~"($deployment)/.*"'), "{{ended}}"),), kind="stacked"),
                Panel("Failing tries", "reqps", (Query(rate("penstock_attempts_total", "replica", 'replica=~"($deployment)/.*", ended!~"ok|cancelled"'), "{{replica}}"),), kind="stacked"),
                Panel("Attempts in flight", "short", (Query(f"sum by (replica) (penstock_replica_in_flight_attempts{{{REPLICA}}})", "{{replica}}"),), kind="stacked"),
            ),
        ),
        (
            "As the engines say",
            (
                Panel("Running", "short", (Query(f"max by (replica) (penstock_replica_running_requests{{{REPLICA}}})", "{{replica}}"),)),
                Panel("Waiting", "short", (Query(f"max by (replica) (penstock_replica_waiting_requests{{{REPLICA}}})", "{{replica}}"),)),
                Panel("KV cache held", "percentunit", (Query(f"max by (replica) (penstock_replica_kv_used_ratio{{{REPLICA}}})", "{{replica}}"),), "An alert begins at 92%."),
                Panel("Generated tokens", "short", (Query(rate("penstock_replica_generated_tokens_total", "replica", REPLICA), "{{replica}}"),), "Per second."),
                Panel("Prompts found in the prefix cache", "percentunit", (Query(ratio(rate("penstock_replica_prefix_hit_tokens_total", "replica", REPLICA), rate("penstock_replica_prompt_tokens_total", "replica", REPLICA)), "{{replica}}"),)),
                Panel("Preemptions", "short", (Query(rate("penstock_replica_preemptions_total", "replica", REPLICA), "{{replica}}"),), "Per second: put back for want of KV cache."),
            ),
        ),
    ),
)  # fmt: skip

COST = Board(
    "penstock-cost",
    "Penstock / Cost",
    "About what it costs. For sums that must be exact: `penstock cost`, or the console.",
    (MODELS,),
    (
        (
            "Money",
            (
                Panel("Dollars per hour", "currencyUSD", (Query(f"{rate('penstock_cost_dollars_total', 'model', MODEL)} * 3600", "{{model}}"),), kind="stacked", width=12),
                Panel("Dollars of a day", "currencyUSD", (Query(f"sum by (model) (increase(penstock_cost_dollars_total{{{MODEL}}}[1d]))", "{{model}}"),), "The last 24 hours, at every moment.", "stacked", 12),
                Panel("Dollars per million output tokens", "currencyUSD", (Query(f"1e6 * {ratio(rate('penstock_cost_dollars_total', 'model', MODEL), rate('penstock_completion_tokens_total', 'model', MODEL))}", "{{model}}"),)),
                Panel("Requests without a price", "reqps", (Query(rate("penstock_unpriced_requests_total", "model", MODEL), "{{model}}"),), "They are in no sum, and no budget holds them.", "stacked"),
                Panel("Tokens by who counted them", "short", (Query(rate("penstock_completion_tokens_total", "source", MODEL), "{{source}}"),), "Per second.", "stacked"),
            ),
        ),
        (
            "Budgets and limits",
            (
                Panel("Budgets that reached a share", "short", (Query("sum by (budget, percent) (increase(penstock_budget_thresholds_total[$__rate_interval]))", "{{budget}} {{percent}}%"),), width=12),
                Panel("Used more than was reserved", "reqps", (Query(rate("penstock_limit_overshoot_total", "kind"), "{{kind}}"),), width=6),
                Panel("Counted alone", "reqps", (Query(rate("penstock_counters_alone_total", "")),), "Redis did not answer.", width=6),
            ),
        ),
        (
            "Ledger",
            (
                Panel("Rows that wait", "short", (Query("sum(penstock_ledger_waiting_rows)"),)),
                Panel("Behind", "s", (Query("max(penstock_ledger_behind_seconds)"),)),
                Panel("Rows lost or set aside", "short", (Query("sum(increase(penstock_ledger_lost_rows_total[$__rate_interval]))", "lost"), Query("sum(increase(penstock_ledger_set_aside_rows_total[$__rate_interval]))", "set aside"))),
            ),
        ),
    ),
)  # fmt: skip

FINISHED = rate("penstock_finished_total", "model", MODEL)

QUALITY = Board(
    "penstock-quality",
    "Penstock / Quality",
    "What the answers are like, as far as can be told from receipts, and from the first words of a few.",
    (MODELS,),
    (
        (
            "Answers",
            (
                Panel("Refused", "percentunit", (Query(share(rate("penstock_refusals_total", "model", MODEL), FINISHED), "{{model}}"),), "By the model or its provider, of all answers. An alert begins at 10%."),
                Panel("Read like refusals", "percentunit", (Query(share(rate("penstock_answers_looked_at_total", "model", f'signal="words", {MODEL}'), rate("penstock_answers_looked_at_total", "model", MODEL)), "{{model}}"),), "An estimate, from the first words of some answers. An alert begins at 10%."),
                Panel("At their cap of tokens", "percentunit", (Query(share(rate("penstock_finished_total", "model", f'reason="length", {MODEL}'), FINISHED), "{{model}}"),), "An alert begins at 10%."),
                Panel("Why they ended", "reqps", (Query(rate("penstock_finished_total", "reason", MODEL), "{{reason}}"),), kind="stacked"),
                Panel("How refusals are told", "reqps", (Query(rate("penstock_refusals_total", "signal", MODEL), "{{signal}}"),), kind="stacked"),
                Panel("Output length", "short", quantiles("penstock_output_length_tokens"), "Tokens."),
                Panel("Tokens of reasoning", "percentunit", (Query(share(rate("penstock_reasoning_tokens_total", "model", MODEL), rate("penstock_completion_tokens_total", "model", MODEL)), "{{model}}"),), "Of all that is generated."),
            ),
        ),
        (
            "What callers say",
            (
                Panel("Called good", "percentunit", (Query(share(rate("penstock_feedback_total", "model", f'verdict="good", {MODEL}'), rate("penstock_feedback_total", "model", f'verdict=~"good|bad", {MODEL}')), "{{model}}"),), width=12),
                Panel("Feedback", "reqps", (Query(rate("penstock_feedback_total", "signal, verdict", MODEL), "{{signal}} {{verdict}}"),), "`requery` and `abandoned` are what sessions do.", "stacked", 12),
            ),
        ),
        (
            "Failures, by nature",
            (
                Panel("Of requests", "reqps", (Query(rate("penstock_failures_total", "lasting, blame", f'of="request", {MODEL}'), "{{lasting}}, {{blame}}"),), kind="stacked", width=12),
                Panel("Of attempts", "reqps", (Query(rate("penstock_failures_total", "error", f'of="attempt", {MODEL}'), "{{error}}"),), kind="stacked", width=12),
            ),
        ),
    ),
)  # fmt: skip

ROLLOUT = Board(
    "penstock-rollout",
    "Penstock / Rollout",
    "Whether a change is good: the version that is served, and deployments beside each other.",
    (DEPLOYMENTS,),
    (
        (
            "What is served",
            (
                Panel("Version of the configuration", "short", (Query("min by (instance) (penstock_plane_version)", "{{instance}}"),), "Of the oldest worker.", width=12),
                Panel("Replicas that are ready", "short", (Query(f"sum by (deployment) (min by (deployment, replica) (penstock_replica_ready{{{REPLICA}}}))", "{{deployment}}"),), width=12),
            ),
        ),
        (
            "Deployments beside each other",
            (
                Panel("Tries", "reqps", (Query('sum by (deployment) (label_replace(rate(penstock_attempts_total{replica=~"($deployment)/.*"}[$__rate_interval]), "deployment", "$1", "replica", "(.*)/[^/]*"))', "{{deployment}}"),), kind="stacked"),
                Panel("Failing", "percentunit", (Query('sum by (deployment) (label_replace(rate(penstock_attempts_total{replica=~"($deployment)/.*", ended!~"ok|cancelled"}[$__rate_interval]), "deployment", "$1", "replica", "(.*)/[^/]*")) / sum by (deployment) (label_replace(rate(penstock_attempts_total{replica=~"($deployment)/.*"}[$__rate_interval]), "deployment", "$1", "replica", "(.*)/[^/]*"))', "{{deployment}}"),)),
                Panel("Left out for a while", "short", (Query(f"sum by (deployment) (increase(penstock_ejections_total{{{REPLICA}}}[$__rate_interval]))", "{{deployment}}"),)),
                Panel("KV cache held", "percentunit", (Query(f"avg by (deployment) (penstock_replica_kv_used_ratio{{{REPLICA}}})", "{{deployment}}"),)),
                Panel("Waiting in the engines", "short", (Query(f"sum by (deployment) (penstock_replica_waiting_requests{{{REPLICA}}})", "{{deployment}}"),)),
                Panel("Preemptions", "short", (Query(rate("penstock_replica_preemptions_total", "deployment", REPLICA), "{{deployment}}"),)),
            ),
        ),
        (
            "Error budgets meanwhile",
            (
                Panel("Burn rate", "short", (Query('max by (slo, window) (penstock_slo_burn_rate{window=~"5m|1h"})', "{{slo}} {{window}}"),), "Roll back when the short one is high.", width=24),
            ),
        ),
    ),
)  # fmt: skip

BOARDS = (OVERVIEW, SERVING, REPLICAS, COST, QUALITY, ROLLOUT)


def build(board: Board) -> str:
    """Its JSON."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags(["penstock", "llm"])
        .refresh("30s")
        .time("now-6h", "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for name, query in board.variables:
        made = made.with_variable(
            dashboard.QueryVariable(name)
            .label(name)
            .datasource(SOURCE)
            .query(query)
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(model.VariableOption(selected=True, text="All", value="$__all"))
        )
    for title, panels in board.rows:
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    if panel.kind == "number":
        number = stat.Panel().title(panel.title).unit(panel.unit).datasource(SOURCE).span(panel.width).height(4)
        number = number.graph_mode(common_model.BigValueGraphMode.AREA).description(panel.about)
        steps = [model.Threshold(None, "green")] + ([model.Threshold(panel.limit, "red")] if panel.limit else [])
        number = number.thresholds(
            dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
        ).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        for query in panel.queries:
            number = number.with_target(_target(query, panel.queries.index(query)))
        return number
    lines = timeseries.Panel().title(panel.title).unit(panel.unit).datasource(SOURCE).span(panel.width).height(8)
    lines = lines.description(panel.about).line_width(1.5).fill_opacity(30 if panel.kind == "stacked" else 5)
    lines = (lines.min(0) if panel.from_zero else lines).legend(
        common.VizLegendOptions()
        .display_mode(common_model.LegendDisplayMode.LIST)
        .placement(common_model.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    lines = lines.tooltip(
        common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
    )
    if panel.kind == "stacked":
        lines = lines.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    for i, query in enumerate(panel.queries):
        lines = lines.with_target(_target(query, i))
    return lines


def _target(query: Query, place: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id("ABCDEFGH"[place]).range()
    return target.legend_format(query.legend or "__auto").exemplar(query.exemplars)


def pages() -> Iterator[tuple[Path, str]]:
    for board in BOARDS:
        yield FOLDER / f"{board.uid.removeprefix('penstock-')}.json", build(board)


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
