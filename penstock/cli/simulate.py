"""`penstock simulate`: what a scenario would come to, with one policy or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.cli.report_page import Block
    from penstock.sim.options import Policy
    from penstock.sim.results import Results, Spread
    from penstock.sim.scenario import Ran, Scenario

HEADER: Final = (
    "policy", "good", "TTFT mean", "p50", "p95", "p99", "TPOT mean", "p99", "E2E mean", "p99", "reuse", "failed",
    "extra",
)  # fmt: skip


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--policy", "policies", multiple=True, help="One of the scenario's, or the name of a balancing. May be given again."
)
@click.option("--seed", type=click.IntRange(0), help="Other traffic and other chances than the scenario's own seed.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results as JSON.")
@click.option(
    "--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write them as a page to look at."
)
def simulate(
    file: Path, policies: tuple[str, ...], seed: int | None, json_file: Path | None, html_file: Path | None
) -> int:
    """Simulate a scenario: a penstock.yaml with `traffic:`, `events:` and `engine_model:`. See docs/simulator.md.

    The code that decides is the gateway's own; engines are its batching scheduler with a formula for time. The same
    seed gives the same results.

    \b
    Examples
      penstock simulate scenario.yaml
      penstock simulate scenario.yaml --policy least_cost --policy round_robin --html report.html
    """
    import msgspec

    from penstock.cli.report_page import need_template_engine
    from penstock.cli.trace_files import open_trace
    from penstock.core.clock import SystemClock
    from penstock.sim.scenario import load_scenario
    from penstock.sim.scenario import simulate as simulated
    from penstock.traffic.options import TrafficError

    if html_file is not None:
        need_template_engine()
    scenario = load_scenario(_text(file), str(file))
    wanted = _wanted(scenario, policies)
    ran: list[Ran] = []
    for policy in wanted:
        began = SystemClock.now()
        try:
            ran.append(simulated(scenario, policy, open_trace(file.parent), seed))
        except TrafficError as error:
            raise Mistake(str(error)) from None
        took = SystemClock.now() - began
        click.echo(f"{policy.name}: {ran[-1].results.requests:,} requests in {took:.1f} s", err=True)
    click.echo("\n".join(_told(scenario, ran)))
    if json_file is not None:
        said = {"scenario": str(file), "seed": scenario.seed if seed is None else seed, "runs": ran}
        _write(json_file, msgspec.json.format(msgspec.json.encode(said), indent=2).decode())
    if html_file is not None:
        _write(html_file, _page(file, scenario, ran))
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Mistake(f"there is no {file}") from None
    except OSError as error:
        raise Mistake(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{file} is not UTF-8 text") from None


def _wanted(scenario: Scenario, names: Sequence[str]) -> list[Policy]:
    from penstock.config.problems import nearest
    from penstock.sim.scenario import POLICIES, named

    known = {policy.name: policy for policy in scenario.policies}
    if not names:
        return list(known.values())
    found = []
    for name in dict.fromkeys(names):
        policy = known.get(name) or named(name)
        if policy is None:
            raise Mistake(f"there is no policy {name!r}.{nearest(name, [*known, *POLICIES])}")
        found.append(policy)
    return found


def _told(scenario: Scenario, ran: Sequence[Ran]) -> list[str]:
    first = ran[0].results
    lines = [_headline(scenario, first), "", *_aligned([HEADER, *(_row(one) for one in ran)]), ""]
    slo = scenario.slo
    lines.append(
        f"Good: first token within {slo.ttft:g} s, {slo.itl * 1e3:g} ms between tokens. Times in seconds, TPOT in ms."
    )
    if first.prefix_bound > 0:
        lines.append(
            f"Reuse: share of prompt tokens found in a cache; all caches as one would find {first.prefix_bound:.3f}."
        )
    for one in ran:
        if one.results.failures:
            told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(one.results.failures.items()))
            lines.append(f"Failed with {one.policy.name}: {told}.")
    if len(first.tenants) > 1:
        lines += ["", *_aligned([TENANTS, *(row for one in ran for row in _tenant_rows(one))])]
    return lines


TENANTS: Final = ("tenant", "policy", "requests", "good", "TTFT mean", "p50", "p99", "failed")


def _headline(scenario: Scenario, results: Results) -> str:
    fleet = ", ".join(f"{d.replicas} x {name}" for name, d in scenario.deployments.items())
    cost = f", ${results.cost:,.2f}" if results.cost else ""
    return (
        f"{scenario.file}: {results.requests:,} requests in {results.duration:,.0f} s on {fleet} "
        f"({results.gpu_hours:,.2f} GPU-hours{cost})"
    )


def _row(one: Ran) -> tuple[str, ...]:
    found = one.results
    return (
        one.policy.name,
        f"{found.good:.3f}",
        _seconds(found.ttft.mean),
        _seconds(found.ttft.p50),
        _seconds(found.ttft.p95),
        _seconds(found.ttft.p99),
        f"{found.tpot.mean * 1e3:.1f}",
        f"{found.tpot.p99 * 1e3:.1f}",
        _seconds(found.e2e.mean),
        _seconds(found.e2e.p99),
        f"{found.prefix_reuse:.3f}",
        f"{found.requests - found.completed:,}",
        f"{found.extra_attempts:.1%}",
    )


def _tenant_rows(one: Ran) -> list[tuple[str, ...]]:
    return [
        (
            name or "-",
            one.policy.name,
            f"{tenant.requests:,}",
            f"{tenant.good:.3f}",
            _seconds(tenant.ttft.mean),
            _seconds(tenant.ttft.p50),
            _seconds(tenant.ttft.p99),
            f"{tenant.failed:,}",
        )
        for name, tenant in one.results.tenants.items()
    ]


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _page(file: Path, scenario: Scenario, ran: Sequence[Ran]) -> str:
    from penstock.cli.report_page import Bar, Bars, Chart, Fact, Series, Table, page

    best = max(ran, key=lambda one: one.results.good)
    shown = best.results
    facts = [
        Fact("goodput", f"{shown.goodput:.2f}/s", f"{shown.good:.1%} of requests, {best.policy.name}"),
        Fact("TTFT p99", f"{_seconds(shown.ttft.p99)} s", f"mean {_seconds(shown.ttft.mean)} s"),
        Fact("E2E mean", f"{_seconds(shown.e2e.mean)} s"),
        Fact("prefix reuse", f"{shown.prefix_reuse:.1%}", f"at most {shown.prefix_bound:.1%}"),
        Fact("GPU-hours", f"{shown.gpu_hours:,.2f}", f"${shown.cost:,.2f}" if shown.cost else ""),
    ]
    blocks: list[Block] = [
        Table("Policies", HEADER, [_row(one) for one in ran], note="Times in seconds, TPOT in milliseconds."),
        Bars("Good answers", [Bar(one.policy.name, one.results.good, f"{one.results.good:.1%}") for one in ran]),
        Table("Spread", SPREAD, [row for one in ran for row in _spreads(one)]),
    ]
    for title, unit, of in OVER_TIME:
        series = [
            Series(
                one.policy.name, [i.at for i in one.results.intervals], [getattr(i, of) for i in one.results.intervals]
            )
            for one in ran
        ]
        blocks.append(Chart(title, "seconds", unit, series, drawn="steps"))
    if len(shown.tenants) > 1:
        blocks.append(Table("Tenants", TENANTS, [row for one in ran for row in _tenant_rows(one)]))
    blocks.append(Table("Beside", BESIDE, [_beside(one) for one in ran]))
    events = [f"{event.at} {event.replica or event.deployment} {event.what}" for event in scenario.events]
    told = [_headline(scenario, shown), *(["Events: " + "; ".join(events)] if events else [])]
    return page(f"Simulation of {file.name}", told, facts, blocks)


OVER_TIME: Final = (
    ("First tokens over time: median", "s", "ttft_p50"),
    ("First tokens over time: p95", "s", "ttft_p95"),
    ("Good answers over time", "share of what arrived then", "good"),
    ("Failures over time", "share of what arrived then", "failed"),
    ("Output over time", "tokens/s", "output_tokens_per_second"),
    ("Traffic", "requests in each interval", "requests"),
)
SPREAD: Final = ("policy", "", "mean", "p50", "p90", "p95", "p99", "max")
BESIDE: Final = ("policy", "output tokens/s", "preemptions", "hedges", "Jain", "service gap", "GPU-hours", "cost")


def _spreads(one: Ran) -> list[tuple[str, ...]]:
    def row(name: str, found: Spread) -> tuple[str, ...]:
        values = (found.mean, found.p50, found.p90, found.p95, found.p99, found.max)
        return (one.policy.name, name, *(f"{value:.4g}" for value in values))

    return [row("TTFT s", one.results.ttft), row("TPOT s", one.results.tpot), row("E2E s", one.results.e2e)]


def _beside(one: Ran) -> tuple[str, ...]:
    found = one.results
    return (
        one.policy.name,
        f"{found.output_tokens_per_second:,.0f}",
        f"{found.preemptions:,}",
        f"{found.hedges:.1%}",
        f"{found.jain:.3f}",
        f"{found.service_gap:,.0f}",
        f"{found.gpu_hours:,.2f}",
        f"${found.cost:,.2f}",
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{path} cannot be written: {error.strerror}") from None
