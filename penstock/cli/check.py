"""`penstock check`: says in plain words what a configuration file means, or everything that is wrong in it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.config_file import load_file

if TYPE_CHECKING:
    from penstock.config.schema import Config, Deployment, Model


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("penstock.yaml"))
@click.option("--json", "as_json", is_flag=True, help="What was found as one JSON object, for scripts.")
def check(file: Path, as_json: bool) -> int:
    """Say what a configuration file means, or what is wrong in it. Nothing is started and nobody is called.

    Exit code 0: it is good. 1: it has problems, each told with its line. 2: it cannot be read.

    \b
    Examples
      penstock check
      penstock check staging.yaml && penstock serve --config staging.yaml
    """
    import msgspec

    from penstock.config.problems import ConfigError

    try:
        config = load_file(file)
    except ConfigError as error:
        if as_json:
            click.echo(msgspec.json.encode({"good": False, "problems": error.problems}))
        else:
            click.echo(str(error), err=True)
            n = len(error.problems)
            click.echo(f"\n{file} has {n} problem{'' if n == 1 else 's'}; it cannot be used as it is.", err=True)
        return 1
    warnings = list(_warnings(config, os.environ))
    if as_json:
        click.echo(msgspec.json.encode({"good": True, "warnings": warnings, "config": config}))
        return 0
    for line in _meaning(file, config):
        click.echo(line)
    for warning in warnings:
        click.echo(f"\nNote: {warning}")
    return 0


def _meaning(file: Path, config: Config) -> Iterator[str]:
    yield f"{file} is good."
    yield ""
    scheme = "http" if config.server.tls is None else "https"
    yield f"Listens on {scheme}://{_host(config.server.host)}:{config.server.port}, for {_who(config)}."
    yield "\nModels, as callers name them"
    yield from _table((name, _model(model)) for name, model in config.models.items())
    yield "\nDeployments"
    yield from _table((name, _deployment(deployment)) for name, deployment in config.deployments.items())
    if isinstance(config.keys, tuple) and config.keys:
        yield "\nKeys"
        yield from _table(
            (
                key.id,
                (f"of {key.tenant}; " if key.tenant else "")
                + ("all models" if key.models is None else f"may use {', '.join(key.models) or 'nothing'}"),
            )
            for key in config.keys
        )
    on, off = _switches(config)
    yield "\nOn"
    yield from _table(on)
    if off:
        yield "\nOff"
        yield from _table(off)


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    for name, meaning in rows:
        yield f"  {name:<{width}}  {meaning}"


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _who(config: Config) -> str:
    n = len(config.keys) if isinstance(config.keys, tuple) else 0
    if n == 0:
        return "anybody on this machine, with --insecure-dev (there are no keys)"
    return "callers who show the one key" if n == 1 else f"callers who show one of {n} keys"


def _model(model: Model) -> str:
    times = model.timeouts
    hedge = f", a second one beside it after {model.hedge_after} of silence" if model.hedge_after else ""
    tries = "1 attempt" if model.max_attempts == 1 else f"at most {model.max_attempts} attempts"
    return (
        f"{', then '.join(model.deployments)}; {tries}{hedge}; "
        f"first token within {times.first_token}, all within {times.total}"
    )


def _deployment(deployment: Deployment) -> str:
    asked_for = f"; asked for as {deployment.served}" if deployment.served else "; asked for by the caller's own name"
    if deployment.model is not None:
        n = deployment.replicas or 1
        processes = "1 process" if n == 1 else f"{n} processes"
        return f"the embedded engine with {deployment.model}, in {processes} that Penstock starts and watches"
    if deployment.provider is not None:
        key = f"; key from {deployment.key}" if deployment.key else "; no key"
        return f"provider {deployment.provider}{asked_for}{key}"
    engines = (deployment.engine,) if isinstance(deployment.engine, str) else deployment.engine or ()
    probe = "; not probed" if deployment.health == "off" else f"; probed at {deployment.health or '/health'}"
    return f"{'engine' if len(engines) == 1 else f'{len(engines)} engines'} at {', '.join(engines)}{asked_for}{probe}"


def _switches(config: Config) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What is on and what is off, each with the option that decides it."""
    on = [("metrics", "GET /metrics, for Prometheus")]
    off: list[tuple[str, str]] = []

    def decide(name: str, is_on: bool, when_on: str, when_off: str) -> None:
        (on if is_on else off).append((name, when_on if is_on else when_off))

    log = config.server.access_log
    decide("access log", log != "off", f"one JSON line per request, to {log}", "server.access_log")
    retrying = [name for name, model in config.models.items() if model.max_attempts > 1]
    decide("retries", bool(retrying), f"before the first token, for {', '.join(retrying)}", "models.*.max_attempts")
    spread = [name for name, model in config.models.items() if len(model.deployments) > 1]
    decide("failover", bool(spread), f"for {', '.join(spread)}", "name a second deployment under models.*.deployments")
    hedging = [name for name, model in config.models.items() if model.hedge_after is not None]
    decide("hedging", bool(hedging), f"for {', '.join(hedging)}", "models.*.hedge_after")
    on.append(("breakers", "; ".join(sorted({_breaker(one) for one in config.deployments.values()}))))
    probed = [name for name, one in config.deployments.items() if one.provider is None and one.health != "off"]
    decide("health checks", bool(probed), f"of {', '.join(probed)}", "only engines are probed")
    decide("keys", bool(config.keys), "callers must show one", "`penstock key create` makes one")
    return on, off


def _breaker(deployment: Deployment) -> str:
    return f"{deployment.breaker.failures} failures in a row open one for {deployment.breaker.open_for}"


def _warnings(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    """What is allowed but will not work here, or not as somebody may think."""
    for name, deployment in config.deployments.items():
        kind, _, where = (deployment.key or "").partition(":")
        if kind == "env" and not environ.get(where):
            yield f"deployments.{name}.key: the environment variable {where} is not set here."
        if kind == "file" and not Path(where).is_file():
            yield f"deployments.{name}.key: there is no file {where} here."
        if deployment.model is not None and "/" in deployment.model and not Path(deployment.model).is_dir():
            yield f"deployments.{name}.model: there is no directory {deployment.model} here."
    used = {name for model in config.models.values() for name in model.deployments}
    unused = [name for name in config.deployments if name not in used]
    if unused:
        yield f"no model names {', '.join(unused)}; nothing will be sent there."
    if not config.keys and not _loopback(config.server.host):
        yield (
            f"server.host is {config.server.host} and there are no keys: `penstock serve` will refuse to start. "
            "Make a key with `penstock key create`, or listen on 127.0.0.1."
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
