"""`penstock slo report`: a month, tenant by tenant, beside what was promised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any, Final

import msgspec

from penstock.cli import report_page
from penstock.cli.cost_table import plain
from penstock.core.money import show
from penstock.quality.sli import Indicator
from penstock.quality.slo import Slo
from penstock.resilience.failures import Blame
from penstock.stores.sla import QUANTILES, Billed, Ended, ServiceLedger, Took
from penstock.telemetry.taxonomy import nature_of

HOUR: Final = 3_600_000_000  # microseconds
NOBODY: Final = "(no organisation)"
_NO_QUANTILES: Final[tuple[float | None, ...]] = (None,) * len(QUANTILES)
_KEPT_IN_LEDGER: Final = (Indicator.AVAILABILITY, Indicator.ERRORS, Indicator.E2E)


class Promise(msgspec.Struct, frozen=True):
    """One SLO, as it was for one tenant. `achieved` None: nothing happened that it is about."""

    slo: str
    objective: float
    achieved: float | None
    budget_left: float | None

    @property
    def met(self) -> bool:
        return self.achieved is None or self.achieved >= self.objective


class Tenant(msgspec.Struct, frozen=True):
    """`requests` are all; `valid` those that no caller has spoilt; `failed` of these for a reason of ours or a
    provider's. Latencies are seconds, of whole answers, by nearest rank."""

    org: str
    requests: int
    valid: int
    failed: int
    caller_errors: int
    bad_hours: int  # of UTC, in which more than one in a hundred failed
    p50: float | None
    p95: float | None
    p99: float | None
    input_tokens: int
    output_tokens: int
    cost_nanos: int
    unpriced: int
    promises: tuple[Promise, ...]
    errors: dict[str, int]  # by code
    days: dict[str, tuple[int, int]]  # valid and failed, by day

    @property
    def availability(self) -> float | None:
        return 1 - self.failed / self.valid if self.valid else None


class Report(msgspec.Struct, frozen=True):
    """`elsewhere` are SLOs about which the ledger knows nothing; `since` is where it begins, when that is later."""

    month: str
    zone: str
    tenants: tuple[Tenant, ...]
    elsewhere: tuple[str, ...]
    since: str | None


async def read(
    ledger: ServiceLedger, month: str, span: tuple[int, int], zone: tzinfo, slos: Sequence[Slo], org: str | None
) -> Report:
    since, until = span
    answerable = [slo for slo in slos if slo.indicator in _KEPT_IN_LEDGER]
    latencies = [slo for slo in answerable if slo.indicator is Indicator.E2E]
    thresholds = [round((slo.threshold or 0.0) * 1e6) for slo in latencies]
    ended = await ledger.ended(since, until, thresholds)
    took = {one.org: one for one in await ledger.took(since, until)}
    billed = {one.org: one for one in await ledger.billed(since, until)}
    by_org: dict[str, list[Ended]] = defaultdict(list)
    for one in ended:
        by_org[one.org].append(one)
    tenants = tuple(
        _tenant(name, rows, took.get(name), billed.get(name), answerable, latencies, zone)
        for name, rows in sorted(by_org.items())
        if org is None or name == org
    )
    kept = await ledger.kept_since()
    late = datetime.fromtimestamp(kept / 1e6, zone).isoformat() if kept > since else None
    elsewhere = tuple(slo.name for slo in slos if slo not in answerable)
    return Report(month, str(zone), tenants, elsewhere, late)


def _tenant(
    org: str,
    rows: list[Ended],
    took: Took | None,
    billed: Billed | None,
    slos: Sequence[Slo],
    latencies: Sequence[Slo],
    zone: tzinfo,
) -> Tenant:
    errors: dict[str, int] = defaultdict(int)
    days: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    hours: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    requests = callers = failed = 0
    for row in rows:
        requests += row.n
        if row.error is not None:
            errors[row.error] += row.n
        if _by_caller(row):
            callers += row.n
            continue
        day = datetime.fromtimestamp(row.hour * 3600, zone).date().isoformat()
        bad = 0 if row.error is None else row.n
        failed += bad
        for sums in (days[day], hours[row.hour]):
            sums[0] += row.n
            sums[1] += bad
    p50, p95, p99 = _NO_QUANTILES if took is None else [micros / 1e6 for micros in took.quantiles]
    return Tenant(
        org or NOBODY,
        requests,
        requests - callers,
        failed,
        callers,
        sum(bad * 100 > n for n, bad in hours.values()),
        p50,
        p95,
        p99,
        input_tokens=0 if billed is None else billed.input_tokens,
        output_tokens=0 if billed is None else billed.output_tokens,
        cost_nanos=0 if billed is None else billed.cost_nanos,
        unpriced=0 if billed is None else billed.unpriced,
        promises=tuple(_promise(slo, rows, latencies) for slo in slos),
        errors=dict(sorted(errors.items(), key=lambda pair: -pair[1])),
        days={day: (sums[0], sums[1]) for day, sums in sorted(days.items())},
    )


def _promise(slo: Slo, rows: list[Ended], latencies: Sequence[Slo]) -> Promise:
    events = bad = 0
    for row in rows:
        if slo.models and row.model not in slo.models:
            continue
        if slo.indicator is Indicator.AVAILABILITY and _by_caller(row):
            continue
        events += row.n
        if slo.indicator is Indicator.E2E:
            bad += row.slow[latencies.index(slo)]
        elif row.error is not None:
            bad += row.n
    if not events:
        return Promise(slo.name, slo.objective, None, None)
    return Promise(slo.name, slo.objective, 1 - bad / events, 1 - bad / events / slo.budget)


def _by_caller(row: Ended) -> bool:
    return row.error is not None and nature_of(row.error).blame is Blame.CALLER


def render(report: Report) -> list[str]:
    """For a terminal."""
    lines = [f"Service in {report.month} ({report.zone}), by organisation", ""]
    if report.since is not None:
        lines.append(f"Single requests are kept since {report.since} only: what was before is not in this.")
    if not report.tenants:
        lines.append("The ledger has no request of this month.")
    for one in report.tenants:
        lines += [
            f"{plain(one.org)}",
            f"  {one.requests:,} requests, {one.caller_errors:,} of them refused or given up by their callers",
            f"  availability {_percent(one.availability)}: {one.failed:,} of {one.valid:,} failed; "
            f"{one.bad_hours:,} hours with more than 1% failed",
            f"  whole answers took {_span(one.p50)} (p50), {_span(one.p95)} (p95), {_span(one.p99)} (p99)",
            f"  {one.input_tokens:,} tokens in, {one.output_tokens:,} out, {show(one.cost_nanos)}"
            + (f"; {one.unpriced:,} requests have no price" if one.unpriced else ""),
        ]
        for promise in one.promises:
            state = "kept" if promise.met else "BROKEN"
            lines.append(
                f"  {state:6} {promise.slo}: {_percent(promise.achieved)} of {promise.objective * 100:g}%"
                + ("" if promise.budget_left is None else f", {promise.budget_left:.0%} of the error budget left")
            )
        lines.append("")
    if report.elsewhere:
        lines.append(f"Not in the ledger, see `penstock slo status`: {', '.join(report.elsewhere)}.")
    return lines


def as_json(report: Report) -> str:
    said: dict[str, Any] = msgspec.to_builtins(report)
    for tenant, one in zip(said["tenants"], report.tenants, strict=True):
        tenant["availability"] = one.availability
        for told, promise in zip(tenant["promises"], one.promises, strict=True):
            told["met"] = promise.met
    return msgspec.json.format(msgspec.json.encode(said), indent=2).decode()


def as_html(report: Report) -> str:
    """Raises `Mistake` where Jinja is not installed."""
    total, failed = sum(one.valid for one in report.tenants), sum(one.failed for one in report.tenants)
    broken = sum(not promise.met for one in report.tenants for promise in one.promises)
    facts = [
        report_page.Fact(
            "Availability", _percent(1 - failed / total if total else None), f"{failed:,} of {total:,} failed"
        ),
        report_page.Fact("Tenants", f"{len(report.tenants):,}"),
        report_page.Fact("Broken promises", f"{broken:,}"),
        report_page.Fact("Cost", show(sum(one.cost_nanos for one in report.tenants))),
    ]
    blocks: list[report_page.Block] = [
        report_page.Table(
            "Tenants",
            ("organisation", "requests", "availability", "failed", "bad hours", "p50", "p95", "p99", "cost"),
            [
                (
                    one.org, f"{one.requests:,}", _percent(one.availability), f"{one.failed:,}", f"{one.bad_hours:,}",
                    _span(one.p50), _span(one.p95), _span(one.p99), show(one.cost_nanos),
                )
                for one in report.tenants
            ],
            note="Failed: for a reason of ours or a provider's, of requests that no caller has spoilt. A bad hour has "
            "more than 1% of them. Latencies are of whole answers, end to end.",
        )
    ]  # fmt: skip
    promised = [(one.org, promise) for one in report.tenants for promise in one.promises]
    if promised:
        blocks.append(
            report_page.Table(
                "Promises",
                ("organisation", "SLO", "objective", "achieved", "budget left", "kept"),
                [
                    (
                        org, promise.slo, f"{promise.objective * 100:g}%", _percent(promise.achieved),
                        "" if promise.budget_left is None else f"{promise.budget_left:.0%}",
                        "yes" if promise.met else "no",
                    )
                    for org, promise in promised
                ],
                note=f"Not in the ledger: {', '.join(report.elsewhere)}." if report.elsewhere else "",
            )
        )  # fmt: skip
    blocks.append(_by_day(report))
    errors: dict[str, int] = defaultdict(int)
    for one in report.tenants:
        for code, n in one.errors.items():
            errors[code] += n
    if errors:
        bars = [report_page.Bar(code, n, f"{n:,}") for code, n in sorted(errors.items(), key=lambda pair: -pair[1])]
        blocks.append(report_page.Bars("Errors by code", bars[:20]))
    told = [f"{report.month} ({report.zone})"]
    if report.since is not None:
        told.append(f"Single requests are kept since {report.since} only.")
    return report_page.page("Service levels", told, facts, blocks)


def _by_day(report: Report) -> report_page.Chart:
    series = []
    for one in report.tenants[:10]:
        days = [(int(day[8:]), n, bad) for day, (n, bad) in one.days.items()]
        series.append(
            report_page.Series(
                one.org, [day for day, _, _ in days], [100 * (1 - bad / n) if n else None for _, n, bad in days]
            )
        )
    return report_page.Chart("Availability by day", "day of the month", "percent", series, drawn="line")


def _percent(share: float | None) -> str:
    """Never rounded up to 100%."""
    if share is None:
        return "-"
    return "100%" if share == 1 else f"{int(share * 100_000) / 1000:.3f}%"


def _span(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"
