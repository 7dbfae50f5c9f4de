"""Around a load: whom to ask, how long words are there, a progress line, Ctrl-C."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

import click
import msgspec

from penstock.app.system import loop_factory
from penstock.cli.conversation import Caller, CallFailed
from penstock.cli.mistake import Failure, Mistake
from penstock.cli.trace_files import open_trace
from penstock.config.problems import nearest
from penstock.core.clock import SystemClock
from penstock.core.errors import FailureKind
from penstock.http.client import Pool
from penstock.http.options import ClientOptions
from penstock.loadtest.exchange import EMPTY, Exchange
from penstock.loadtest.prompts import WORDS, Fit, Prompts, fitted, probe
from penstock.loadtest.run import Load, LoadOptions, Run, one
from penstock.loadtest.target import Address, Target, address
from penstock.traffic.options import TrafficError, Users, Workload
from penstock.traffic.source import Source

PROBE_ROUNDS: Final = (1, 3)  # of 64 words, in the two requests that measure them; short enough for every model
PROBE_SECONDS: Final = 120.0
PROGRESS_EVERY: Final = 0.25  # seconds
SPARE_FILES: Final = 64  # descriptors that are not connections


class Plan(msgspec.Struct, frozen=True):
    """What the command line asked for."""

    url: str
    model: str | None
    key: str | None
    tenant_keys: Mapping[str, str]
    workloads: tuple[Workload, ...]
    beside: Path
    options: LoadOptions
    exact: bool
    extra: Mapping[str, Any]
    tokenizer: Path | None
    seed: int


class Setting(msgspec.Struct, frozen=True):
    """What a report says beside its numbers. Never a key."""

    url: str
    model: str
    seed: int
    began: float  # Unix seconds
    options: LoadOptions
    fit: Fit
    open_loop: bool
    traffic: tuple[Workload, ...]


def perform(plan: Plan) -> tuple[Run, Setting]:
    """Raises `Mistake` for what was asked wrongly, `Failure` when the server cannot be used."""
    try:
        where = address(plan.url)
        caller = Caller(plan.url, plan.key, SystemClock())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from None
    model = plan.model or _first_model(caller)
    _allow_connections(plan.options.max_in_flight)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(_perform(plan, where, model, caller))
        except TrafficError as error:
            raise Mistake(str(error)) from None


async def _perform(plan: Plan, where: Address, model: str, caller: Caller) -> tuple[Run, Setting]:
    connections = ClientOptions(max_connections=plan.options.max_in_flight + 1, max_idle=plan.options.max_in_flight)
    pool = Pool(where.origin, options=connections)
    try:
        target = Target(
            pool, where.path, model, key=plan.key, tenant_keys=plan.tenant_keys, extra=plan.extra, exact=plan.exact
        )
        fit = await _fit(target, plan, caller)
        began = SystemClock.wall()
        source = Source(plan.workloads, open_trace(plan.beside), Random(plan.seed))
        load = Load(source, target, Prompts(plan.seed, fit), plan.options, SystemClock.now)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, load.stop)
        with _progress(load, plan):
            run = await load.run()
        loop.remove_signal_handler(signal.SIGINT)
    finally:
        pool.abort()
    closed = all(isinstance(workload.arrivals, Users) for workload in plan.workloads)
    return run, Setting(plan.url, model, plan.seed, began, plan.options, fit, not closed, plan.workloads)


def _first_model(caller: Caller) -> str:
    try:
        names = caller.models()
    except CallFailed as error:
        raise Failure(str(error)) from None
    if not names:
        raise Failure(f"{caller.address} has no model that this key may use")
    return names[0]


async def _fit(target: Target, plan: Plan, caller: Caller) -> Fit:
    """Ask twice, which also finds out whether the server can be asked at all. Raises `Failure`."""
    counted = []
    for rounds in PROBE_ROUNDS:
        messages = [{"role": "user", "content": probe(rounds)}]
        answer = await one(target, messages, 4, PROBE_SECONDS, SystemClock.now)
        if answer.failure not in ("", EMPTY):
            raise Failure(_why(answer, target.model, plan, caller))
        counted.append((rounds, answer.prompt_tokens))
    if plan.tokenizer is not None:
        return _by_tokenizer(plan.tokenizer)
    (few, few_tokens), (many, many_tokens) = counted
    if few_tokens is None or many_tokens is None:
        click.secho("The server does not count tokens: lengths of prompts are estimates.", err=True, fg="yellow")
        return Fit()
    return fitted((few, few_tokens), (many, many_tokens))


def _by_tokenizer(file: Path) -> Fit:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Mistake("--tokenizer needs the package tokenizers: pip install 'penstock[engine]'") from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  the library raises nothing narrower
        raise Mistake(f"{file} is not a tokenizer: {error}") from None
    return Fit(len(tokenizer.encode(probe(8)).ids) / (8 * len(WORDS)), 0.0, "tokenizer")


def _why(answer: Exchange, model: str, plan: Plan, caller: Caller) -> str:
    """Why the first request failed, and what to do."""
    if answer.failure in (FailureKind.CONNECT, FailureKind.CONNECT_TIMEOUT):
        try:
            caller.models()
        except CallFailed as error:
            return str(error)
        return f"{caller.address} cannot be reached: {answer.detail}"
    told = f"{caller.address} refused the first request: {answer.detail}"
    if answer.status in (401, 403):
        return f"{told} (give a key with --key, or PENSTOCK_API_KEY)"
    if plan.model is not None and answer.status in (400, 404, 422):
        try:
            names = caller.models()
        except CallFailed:
            return told
        if model not in names:
            return f"{told}\nIt has no model {model!r}.{nearest(model, names)} It has: {', '.join(names) or 'none'}."
    if answer.status == 404:
        return f"{told}\nExpected an OpenAI-compatible server with /v1/chat/completions under this address."
    return told


def _allow_connections(n: int) -> None:
    """As many open files as connections may need. Raises `Mistake` where the system does not let us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise Mistake(f"--max-in-flight {n} needs {wanted} open files, and this system allows {hard} (ulimit -n)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _progress(load: Load, plan: Plan) -> Iterator[None]:
    """A bar on stderr, at a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    ends = [w.start + w.duration for w in plan.workloads if w.duration is not None]
    requests = [w.requests for w in plan.workloads if w.requests is not None]
    timed = len(ends) == len(plan.workloads) and len(requests) < len(plan.workloads)
    total = int(max(ends) * 10) if timed else sum(requests) if len(requests) == len(plan.workloads) else 0
    loop = asyncio.get_running_loop()
    bar: Any = click.progressbar(
        length=total or None,
        file=sys.stderr,
        show_eta=False,
        show_pos=False,
        item_show_func=lambda text: text,
        width=24,
    )
    shown = 0
    timer: asyncio.TimerHandle

    def show() -> None:
        nonlocal shown
        done = min(total, int(load.now * 10) if timed else len(load.result.samples))
        bar.update(done - shown, _line(load))
        bar.render_progress()  # which `update` leaves out when the bar has not moved
        shown = done

    def show_and_go_on() -> None:
        nonlocal timer
        show()
        timer = loop.call_later(PROGRESS_EVERY, show_and_go_on)

    with bar:
        timer = loop.call_later(PROGRESS_EVERY, show_and_go_on)
        try:
            yield
        finally:
            timer.cancel()
            show()


def _line(load: Load) -> str:
    samples = load.result.samples
    parts = [f"{load.now:.0f} s", f"{len(samples)} done", f"{load.in_flight} in flight"]
    if load.n_held:
        parts.append(f"{load.n_held} held back")
    failures = sum(load.failures.values())
    if failures:
        parts.append(f"{failures} failed")
    ttfts = [s.first - s.intended for s in samples[-100:] if s.first is not None]
    if ttfts:
        parts.append(f"TTFT {median(ttfts) * 1000:.0f} ms")
    return ", ".join(parts)
