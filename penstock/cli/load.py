"""`penstock load`: ask a running server as a traffic description says, and report what its callers feel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.mistake import Failure, Mistake

if TYPE_CHECKING:
    from penstock.traffic.options import Workload

INTERRUPTED: Final = 130
FAILED: Final = 1
DURATION: Final = "30s"  # where nothing says how long


class Span(click.ParamType[float]):
    """Seconds, written with their unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from penstock.core.durations import seconds

        if isinstance(value, float):
            return value
        try:
            return seconds(value)
        except ValueError:
            self.fail(f"{value!r} is not a duration with its unit, such as 30s, 500ms or 10m", param, ctx)


class SloOption(click.ParamType[tuple[str, float]]):
    """`ttft=2s`."""

    name = "metric=duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        metric, _, span = value.partition("=")
        if metric not in ("ttft", "tpot", "e2e"):
            self.fail(f"{value!r} is not ttft=..., tpot=... or e2e=..., such as ttft=2s", param, ctx)
        return metric, Span().convert(span, param, ctx)


@click.command()
@click.argument("url")
@click.option("--model", help="The model to ask. Without it: the first one the server has.")
@click.option(
    "--key",
    envvar="PENSTOCK_API_KEY",
    show_envvar=True,
    help="The API key to show. Better in the environment than here, where `ps` shows it.",
)
@click.option(
    "--tenant-key",
    "tenant_keys",
    multiple=True,
    metavar="TENANT=VARIABLE",
    help="The environment variable that has the key of one tenant of the traffic. May be given again.",
)
@click.option(
    "--traffic",
    "traffic_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A YAML file with a `traffic:` block, such as a scenario of `penstock simulate`. See docs/load.md.",
)
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Open loop: so many requests per second (Poisson)."
)
@click.option("--users", type=click.IntRange(1), help="Closed loop: so many users, each waiting for its answer.  [4]")
@click.option(
    "--prompt-tokens", type=click.IntRange(1), default=512, show_default=True, help="How long each prompt is."
)
@click.option(
    "--output-tokens", type=click.IntRange(1), default=128, show_default=True, help="How long each answer may be."
)
@click.option(
    "--duration", type=Span(), help=f"How long requests are sent.  [{DURATION} unless something else ends it]"
)
@click.option("--requests", type=click.IntRange(1), help="How many requests are sent at most.")
@click.option("--warm-up", type=Span(), default="0s", show_default=True, help="What is sent before is not measured.")
@click.option("--slo", "slos", type=SloOption(), multiple=True, help="For goodput: ttft=2s, tpot=50ms, e2e=30s.")
@click.option(
    "--max-in-flight",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Requests under way at once; more wait, and are told as late.",
)
@click.option("--timeout", type=Span(), default="300s", show_default=True, help="Of one request.")
@click.option("--exact", is_flag=True, help="Ask for exactly the wanted output (`ignore_eos`; vLLM, SGLang, Penstock).")
@click.option(
    "--body", default="{}", metavar="JSON", help="More fields for every request, such as '{\"temperature\": 0}'."
)
@click.option(
    "--tokenizer",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A tokenizer.json to measure prompts with. Without it the server is asked, by two small requests.",
)
@click.option("--seed", type=click.IntRange(0), help="Repeat the traffic and texts of another run.  [a new one]")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as JSON.")
@click.option(
    "--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it as a page to look at."
)
@click.option(
    "--samples",
    "samples_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write each request as a JSON line.",
)
def load(
    url: str,
    model: str | None,
    key: str | None,
    tenant_keys: tuple[str, ...],
    traffic_file: Path | None,
    rate: float | None,
    users: int | None,
    prompt_tokens: int,
    output_tokens: int,
    duration: float | None,
    requests: int | None,
    warm_up: float,
    slos: tuple[tuple[str, float], ...],
    max_in_flight: int,
    timeout: float,
    exact: bool,
    body: str,
    tokenizer: Path | None,
    seed: int | None,
    json_file: Path | None,
    html_file: Path | None,
    samples_file: Path | None,
) -> int:
    """Load a running server with streamed chats, and measure TTFT, TPOT, ITL and E2E as its callers feel them.

    In an open loop (--rate, traces) latency is counted from when a request was meant to be sent, however late it was;
    both are reported. Ctrl-C ends early and reports what was measured.

    \b
    Examples
      penstock load http://127.0.0.1:8080
      penstock load http://127.0.0.1:8080 --rate 5 --duration 2m --warm-up 10s --slo ttft=2s --slo tpot=50ms
      penstock load http://127.0.0.1:8080 --traffic chat.yaml --html report.html
    """
    from penstock.cli.load_report import facts_page, told
    from penstock.cli.load_run import Plan, perform
    from penstock.core.clock import SystemClock
    from penstock.loadtest.run import LoadOptions
    from penstock.loadtest.sample import Slo
    from penstock.loadtest.summary import summary

    if html_file is not None:
        from penstock.cli.report_page import need_template_engine

        need_template_engine()  # before the load, not after it
    workloads, beside = _workloads(traffic_file, rate, users, prompt_tokens, output_tokens, duration, requests)
    slo = Slo(**dict(slos))
    plan = Plan(
        url=url,
        model=model,
        key=key,
        tenant_keys=_keys(tenant_keys),
        workloads=workloads,
        beside=beside,
        options=LoadOptions(warm_up, timeout, max_in_flight),
        exact=exact,
        extra=_extra(body),
        tokenizer=tokenizer,
        seed=seed if seed is not None else int(SystemClock.wall()),
    )
    run, setting = perform(plan)
    result = summary(run, slo)
    click.echo(told(result, setting, slo))
    if json_file is not None:
        import msgspec

        from penstock.traffic.options import written

        report = {"setting": setting, "slo": slo, "results": result}
        _write(json_file, msgspec.json.format(msgspec.json.encode(report, enc_hook=written), indent=2) + b"\n")
    if samples_file is not None:
        import msgspec

        _write(samples_file, msgspec.json.Encoder().encode_lines(run.samples))
    if html_file is not None:
        _write(html_file, facts_page(result, run, setting, slo).encode())
    if run.stopped:
        return INTERRUPTED
    return 0 if result.ok else FAILED


def _workloads(
    file: Path | None,
    rate: float | None,
    users: int | None,
    prompt_tokens: int,
    output_tokens: int,
    duration: float | None,
    requests: int | None,
) -> tuple[tuple[Workload, ...], Path]:
    """From a file or from the options, and the folder that traces are relative to. Raises `Mistake`."""
    import msgspec

    from penstock.traffic.options import Poisson, Seconds, Trace, TrafficError, Users, Workload

    if file is not None:
        if rate is not None or users is not None:
            raise Mistake("--traffic says when requests come; leave out --rate and --users")
        try:
            workloads = _read(file)
        except TrafficError as error:
            raise Mistake(f"{file}: {error}") from None
        beside = file.parent
    else:
        if rate is not None and users is not None:
            raise Mistake("--rate is an open loop and --users a closed one; give one of them")
        arrivals = Poisson(rate=rate) if rate is not None else Users(users=users or 4)
        workloads = (Workload(arrivals=arrivals, prompt_tokens=prompt_tokens, output_tokens=output_tokens),)
        beside = Path()
    ended = []
    for workload in workloads:
        changes: dict[str, Any] = {}
        endless = workload.duration is None and workload.requests is None and not isinstance(workload.arrivals, Trace)
        if duration is not None:
            changes["duration"] = Seconds(duration)
        elif endless and requests is None:
            changes["duration"] = Seconds(Span().convert(DURATION, None, None))
        if requests is not None:
            changes["requests"] = requests
        ended.append(msgspec.structs.replace(workload, **changes))
    return tuple(ended), beside


def _read(file: Path) -> tuple[Workload, ...]:
    import yaml

    from penstock.traffic.options import read

    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistake(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{file} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise Mistake(f"{file} is not YAML: {error}") from None
    if not isinstance(tree, dict) or "traffic" not in tree:
        raise Mistake(f"{file} has no `traffic:` block; see docs/load.md")
    return read(tree["traffic"])


def _keys(named: tuple[str, ...]) -> dict[str, str]:
    import os

    keys = {}
    for entry in named:
        tenant, equals, variable = entry.partition("=")
        if not equals or variable not in os.environ:
            raise Mistake(f"--tenant-key {entry}: expected TENANT=VARIABLE, with a variable that is set")
        keys[tenant] = os.environ[variable]
    return keys


def _extra(body: str) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Mistake(f"--body is not a JSON object: {error}") from None


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror or error}") from None
    click.echo(f"wrote {file}", file=sys.stderr)
