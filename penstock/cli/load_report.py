"""What a load measured, in words for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from penstock.cli.load_run import Setting
from penstock.cli.report_page import Block, Chart, Fact, Series, Table, cdf, page
from penstock.loadtest.quantiles import Distribution, Percentile
from penstock.loadtest.run import Run
from penstock.loadtest.sample import Slo
from penstock.loadtest.summary import Summary

HEADER = ("", "mean", "p50", "p90", "p95", "p99", "p50, 95 % sure", "p99, 95 % sure")


def told(result: Summary, setting: Setting, slo: Slo) -> str:
    """Several lines for the terminal."""
    lines = [_headline(result, setting), ""]
    lines += _aligned([HEADER, *_latencies(result, setting)])
    lines += ["", *_sentences(result, setting, slo)]
    if result.tenants:
        lines += ["", *_aligned([TENANT_HEADER, *_tenants(result)])]
    return "\n".join(lines)


def facts_page(result: Summary, run: Run, setting: Setting, slo: Slo) -> str:
    """The same as HTML, with charts."""
    measured = [s for s in run.samples if s.intended >= run.options.warm_up and not s.failure]
    blocks: list[Block] = [
        Table("Latency", HEADER, _latencies(result, setting), note=" ".join(_sentences(result, setting, slo)))
    ]
    if result.failures:
        rows = [(kind, f"{n:,}", result.examples.get(kind, "")) for kind, n in result.failures.items()]
        blocks.append(Table("Failures", ("class", "requests", "what the first one said"), rows, text=True))
    if result.tenants:
        blocks.append(Table("Tenants", TENANT_HEADER, _tenants(result)))
    slices = result.slices
    at = [s.start for s in slices]
    blocks += [
        Chart(
            "TTFT over time",
            "seconds from the beginning",
            "ms",
            [
                Series("p50", at, [_ms(s.ttft_p50) for s in slices]),
                Series("p95", at, [_ms(s.ttft_p95) for s in slices]),
            ],
            note="By the second in which a request was meant to be sent; the warm-up is shown too.",
        ),
        Chart(
            "Requests over time",
            "seconds from the beginning",
            "requests",
            [
                Series("meant to be sent", at, [s.requests for s in slices]),
                Series("failed", at, [s.failures for s in slices]),
                Series("in flight", at, [s.in_flight for s in slices]),
            ],
            drawn="steps",
        ),
        Chart(
            "How many are how fast",
            "ms",
            "% of requests",
            [
                cdf("TTFT", [1000 * (s.first - s.intended) for s in measured if s.first is not None]),
                cdf("E2E", [1000 * (s.ended - s.intended) for s in measured]),
            ],
            drawn="cdf",
            log_x=True,
        ),
        Chart(
            "Time between tokens",
            "ms",
            "% of gaps, or of requests",
            [
                cdf("ITL", [1000 * gap for gap in run.gaps]),
                cdf("TPOT", [1000 * t for s in measured if (t := s.tpot) is not None]),
            ],
            drawn="cdf",
            log_x=True,
        ),
    ]
    if result.replicas:
        rows = [(name, f"{n:,}", f"{100 * n / result.ok:.1f} %") for name, n in result.replicas.items()]
        blocks.append(Table("Who answered", ("replica", "requests", "share"), rows))
    when = datetime.fromtimestamp(setting.began, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [_headline(result, setting), f"{when}, seed {setting.seed}"]
    return page(f"Load on {setting.model}", lines, _facts(result, slo), blocks)


def _headline(result: Summary, setting: Setting) -> str:
    ended = "stopped early, " if result.stopped else ""
    return (
        f"{setting.model} at {setting.url}: {ended}{result.requests:,} requests in {result.seconds:.1f} s, "
        f"{result.ok:,} answered, {sum(result.failures.values()):,} failed"
        + (f", {result.unfinished:,} unfinished" if result.unfinished else "")
        + (f" (and {result.warm_up_requests:,} to warm up)" if result.warm_up_requests else "")
    )


def _latencies(result: Summary, setting: Setting) -> list[tuple[str, ...]]:
    late = "from the intended time" if setting.open_loop else ""
    rows = [
        (f"TTFT ms {late}".rstrip(), result.ttft),
        ("TPOT ms", result.tpot),
        ("ITL ms", result.itl),
        (f"E2E ms {late}".rstrip(), result.e2e),
    ]
    if setting.open_loop:
        rows += [("TTFT ms from sending", result.ttft_from_sending), ("E2E ms from sending", result.e2e_from_sending)]
    return [(name, *_row(found)) for name, found in rows if found is not None]


def _row(found: Distribution) -> tuple[str, ...]:
    percentiles = [found.at(percent) for percent in (50.0, 90.0, 95.0, 99.0)]
    values = [_shown(found.mean), *(_shown(p.value) for p in percentiles)]
    return (*values, _interval(percentiles[0]), _interval(percentiles[-1]))


def _interval(p: Percentile) -> str:
    """Too few values leave a side open."""
    low = "?" if p.low is None else _shown(p.low)
    high = "?" if p.high is None else _shown(p.high)
    return f"{low} to {high}"


def _sentences(result: Summary, setting: Setting, slo: Slo) -> list[str]:
    """What the numbers mean, and what to doubt in them."""
    found = [
        f"Throughput: {result.requests_per_second:.2f} requests/s, {result.output_tokens_per_second:,.0f} output and "
        f"{result.prompt_tokens_per_second:,.0f} prompt tokens/s."
    ]
    if result.good is not None and result.good_per_second is not None:
        asked = ", ".join(
            f"{name} <= {value * 1000:g} ms"
            for name, value in (("TTFT", slo.ttft), ("TPOT", slo.tpot), ("E2E", slo.e2e))
            if value is not None
        )
        found.append(f"Goodput: {100 * result.good:.1f} % ({result.good_per_second:.2f}/s) with {asked}.")
    for kind, n in result.failures.items():
        found.append(f"Failed: {n:,} {kind}: {result.examples.get(kind, '')}")
    found += _about_tokens(result, setting)
    if setting.open_loop and result.sent_late is not None and result.ttft is not None:
        late, ttft = result.sent_late.at(99.0).value, result.ttft.at(50.0).value
        if result.held_back:
            found.append(
                f"{result.held_back:,} requests waited for a place among {setting.options.max_in_flight:,} in flight; "
                "the wait is in the latency from the intended time."
            )
        elif late > max(0.005, 0.05 * ttft):
            found.append(f"This machine sent late: p99 {_shown(late)} ms. It may be too busy to measure with.")
    if result.gaps_left_out:
        found.append(f"ITL is of the first {result.itl.n if result.itl else 0:,} gaps; more were not kept.")
    if result.stopped:
        found.append("It was stopped early: answers that were still coming are left out, and they were the slow ones.")
    return found


def _about_tokens(result: Summary, setting: Setting) -> list[str]:
    if not result.ok:
        return []
    found = []
    if result.prompt_tokens is None:
        found.append(
            f"Prompts: {result.prompt_tokens_wanted:.0f} tokens wanted, by {setting.fit.by}; the server counted none."
        )
    else:
        cached = "" if result.cached_fraction is None else f", {100 * result.cached_fraction:.0f} % of them cached"
        found.append(
            f"Prompts: {result.prompt_tokens:.0f} tokens on average{cached} ({result.prompt_tokens_wanted:.0f} wanted)."
        )
    by = "" if result.output_counted else " (pieces; the server did not count)"
    found.append(
        f"Answers: {result.output_tokens:.0f} tokens on average{by} ({result.output_tokens_wanted:.0f} wanted)."
    )
    if result.output_counted and result.output_tokens < 0.9 * result.output_tokens_wanted:
        found.append("Answers ended before they were as long as wanted; --exact asks for the whole length.")
    if result.pieces_per_token is not None and result.output_counted and result.pieces_per_token < 0.9:
        found.append(
            f"One piece of the stream has {1 / result.pieces_per_token:.1f} tokens on average: ITL is between pieces."
        )
    return found


TENANT_HEADER = ("tenant", "requests", "failed", "goodput", "TTFT p50 ms", "TTFT p99 ms", "TPOT p50 ms", "E2E p99 ms")


def _tenants(result: Summary) -> list[tuple[str, ...]]:
    return [
        (
            name or "(none)",
            f"{of.requests:,}",
            f"{of.failures:,}",
            "" if of.good is None else f"{100 * of.good:.1f} %",
            _at(of.ttft, 50.0),
            _at(of.ttft, 99.0),
            _at(of.tpot, 50.0),
            _at(of.e2e, 99.0),
        )
        for name, of in result.tenants.items()
    ]


def _facts(result: Summary, slo: Slo) -> list[Fact]:
    facts = [
        Fact("requests/s", f"{result.requests_per_second:.2f}", f"{result.ok:,} answered"),
        Fact("output tokens/s", f"{result.output_tokens_per_second:,.0f}"),
        Fact("TTFT p50", f"{_at(result.ttft, 50.0)} ms", f"p99 {_at(result.ttft, 99.0)} ms"),
        Fact("TPOT p50", f"{_at(result.tpot, 50.0)} ms", f"p99 {_at(result.tpot, 99.0)} ms"),
        Fact("E2E p50", f"{_at(result.e2e, 50.0)} ms", f"p99 {_at(result.e2e, 99.0)} ms"),
    ]
    if result.good is not None:
        facts.append(Fact("goodput", f"{100 * result.good:.1f} %", f"{result.good_per_second:.2f} requests/s"))
    failed = sum(result.failures.values())
    facts.append(Fact("failed", f"{failed:,}", f"of {result.requests:,}"))
    return facts


def _at(found: Distribution | None, percent: float) -> str:
    return "-" if found is None else _shown(found.at(percent).value)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _shown(seconds: float) -> str:
    """Milliseconds, three digits or whole."""
    ms = seconds * 1000
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
