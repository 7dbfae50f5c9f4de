"""`penstock top`: how the models and replicas of a running gateway do at this moment, in the terminal."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.mistake import Failure, Mistake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.cli.scrape import Page

_CLEAR: Final = "\x1b[H\x1b[2J"
_PHASES: Final = {0.0: "", 1.0: "half open", 2.0: "open"}
MAX_PAGE: Final = 64 << 20  # bytes


@click.command()
@click.option(
    "--url",
    envvar="PENSTOCK_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="Where the gateway is.",
)
@click.option("--every", type=click.FloatRange(0.2, 60.0), default=2.0, show_default=True, help="Seconds of each look.")
@click.option("--once", is_flag=True, help="Look over one such time, print it and end: for scripts.")
@click.option("--json", "as_json", is_flag=True, help="JSON, a line for each look.")
def top(url: str, every: float, once: bool, as_json: bool) -> None:
    """Show rates, latencies, errors and saturation of a running gateway, by model and by replica.

    Numbers are those of the last few seconds, from its /metrics; all of its workers are in them. Ctrl-C ends it.

    \b
    Examples
      penstock top
      penstock top --url https://gateway.example.com --every 5
      penstock top --once --json
    """
    import msgspec

    address = _address(url)
    before = _look(address)
    while True:
        pause(every)
        page = _look(address)
        seen = look(before, page, every)
        if as_json:
            click.echo(msgspec.json.encode(seen).decode())
        else:
            if not once and sys.stdout.isatty():
                click.echo(_CLEAR, nl=False)
            click.echo("\n".join(table(seen, address)))
        if once:
            return
        before = page


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def look(before: Page, now: Page, seconds: float) -> dict[str, Any]:
    """What has happened in between. Rates are per second, spans in seconds, fractions 0..1."""
    from penstock.console.signals import counted, grown, percentile
    from penstock.telemetry.catalogue import E2E_BUCKETS, TPOT_BUCKETS, TTFT_BUCKETS

    step = grown(counted(before.snapshot), now.snapshot, now.bounds)
    models = [
        {
            "model": name,
            "requests_per_second": one.requests / seconds,
            "error_share": one.errors / one.requests if one.requests else None,
            "limited_per_second": one.limited / seconds,
            "ttft_p50": percentile(one.ttft, TTFT_BUCKETS, 0.5),
            "ttft_p95": percentile(one.ttft, TTFT_BUCKETS, 0.95),
            "ttft_p99": percentile(one.ttft, TTFT_BUCKETS, 0.99),
            "tpot_p50": percentile(one.tpot, TPOT_BUCKETS, 0.5),
            "e2e_p95": percentile(one.e2e, E2E_BUCKETS, 0.95),
            "prompt_tokens_per_second": one.prompt_tokens / seconds,
            "output_tokens_per_second": one.completion_tokens / seconds,
            "dollars_per_hour": one.cost_nanos / 1e9 / seconds * 3600,
        }
        for name, one in sorted(step.models.items())
    ]
    gauges = {
        "ready": "penstock_replica_ready",
        "in_flight": "penstock_replica_in_flight_attempts",
        "running": "penstock_replica_running_requests",
        "waiting": "penstock_replica_waiting_requests",
        "kv_used": "penstock_replica_kv_used_ratio",
        "breaker": "penstock_breaker_phase",
    }
    found = {name: now.gauge(metric) for name, metric in gauges.items()}
    attempts = {
        labels: value - before.gauge("penstock_attempts_total").get(labels, 0.0)
        for labels, value in now.gauge("penstock_attempts_total").items()
    }
    replicas = []
    for labels in sorted(found["ready"]):
        name = labels[1]
        ended = {how: n for (replica, how), n in attempts.items() if replica == name}
        failed = sum(n for how, n in ended.items() if how not in ("ok", "cancelled"))
        replicas.append(
            {"deployment": labels[0], "replica": name}
            | {what: values.get(labels) for what, values in found.items()}
            | {"attempts_per_second": sum(ended.values()) / seconds, "failures_per_second": failed / seconds}
        )
    in_flight = sum(now.gauge("penstock_in_flight_requests").values())
    return {"seconds": seconds, "in_flight": in_flight, "models": models, "replicas": replicas}


def table(seen: dict[str, Any], address: str) -> list[str]:
    from penstock.cli.chat import printable

    total = sum(one["requests_per_second"] for one in seen["models"])
    lines = [f"{address}   {total:.1f} requests/s   {seen['in_flight']:.0f} in flight   last {seen['seconds']:g} s", ""]
    lines += aligned(
        ("MODEL", "req/s", "errors", "TTFT p50", "p95", "p99", "TPOT p50", "E2E p95", "in tok/s", "out tok/s", "$/h"),
        *(
            (
                one["model"], f"{one['requests_per_second']:.1f}", _share(one["error_share"]), _ms(one["ttft_p50"]),
                _ms(one["ttft_p95"]), _ms(one["ttft_p99"]), _ms(one["tpot_p50"]), _ms(one["e2e_p95"]),
                f"{one['prompt_tokens_per_second']:,.0f}", f"{one['output_tokens_per_second']:,.0f}",
                f"{one['dollars_per_hour']:.2f}",
            )
            for one in seen["models"]
        ),
    )  # fmt: skip
    if not seen["models"]:
        lines.append("Nobody has asked for anything.")
    lines += ["", *aligned(
        ("REPLICA", "state", "att/s", "fail/s", "in flight", "running", "waiting", "KV"),
        *(
            (
                one["replica"], _PHASES.get(one["breaker"], "") or ("ready" if one["ready"] else "not ready"),
                f"{one['attempts_per_second']:.1f}", f"{one['failures_per_second']:.1f}", _whole(one["in_flight"]),
                _whole(one["running"]), _whole(one["waiting"]), _share(one["kv_used"]),
            )
            for one in seen["replicas"]
        ),
    )]  # fmt: skip
    return [printable(line) for line in lines]


def aligned(*rows: Sequence[str]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()  # names, then numbers
        for row in rows
    ]


def _ms(span: float | None) -> str:
    return "-" if span is None else f"{span * 1e3:.0f} ms" if span < 10 else f"{span:.0f} s"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.0f} %" if share == 0 or share >= 0.1 else f"{share * 100:.1f} %"


def _whole(number: float | None) -> str:
    return "-" if number is None else f"{number:.0f}"


def _address(url: str) -> str:
    import urllib.parse

    parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Mistake(f"{url!r} is not the address of a gateway; expected something like http://127.0.0.1:8080")
    return f"{parts.scheme}://{parts.netloc}"


def _look(address: str) -> Page:
    """Raises `Failure`."""
    import urllib.request

    from penstock.cli.scrape import Page

    try:
        with urllib.request.urlopen(f"{address}/metrics", timeout=10.0) as answer:
            return Page(answer.read(MAX_PAGE).decode("utf-8", "replace"))
    except OSError as error:
        raise Failure(f"{address}/metrics cannot be read: {getattr(error, 'reason', error)}") from None
    except ValueError as error:
        raise Failure(f"{address}/metrics: {error}. Is it a Penstock gateway?") from None
