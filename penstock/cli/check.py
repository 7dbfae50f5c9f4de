"""`penstock check`: says in plain words what a configuration file means, or everything that is wrong in it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from penstock.cli.config_file import load_file

if TYPE_CHECKING:
    from penstock.config.schema import Config, Deployment, Key, Model

MAX_KEYS: Final = 50  # told one by one


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
        yield from _table((key.id, _key(config, key)) for key in config.keys[:MAX_KEYS])
        if len(config.keys) > MAX_KEYS:
            yield f"  ... and {len(config.keys) - MAX_KEYS:,} more, which `penstock key list` shows"
    on, off = _switches(config)
    yield "\nOn"
    yield from _table(on)
    if off:
        yield "\nOff"
        yield from _table(off)


def _key(config: Config, key: Key) -> str:
    """What it may do in the end, with what it has from its team and organisation."""
    from penstock.config.tenancy import Grants
    from penstock.config.units import instant

    grant = Grants(config).of(key)
    said = [f"of {'/'.join(filter(None, (grant.org, grant.team)))}"] if grant.org else []
    said.append("all models" if grant.models is None else f"may use {', '.join(grant.models) or 'nothing'}")
    if grant.endpoints is not None:
        said.append(f"only for {', '.join(grant.endpoints) or 'nothing'}")
    if grant.scopes is not None:
        said.append(f"scopes {', '.join(grant.scopes) or 'none'}")
    if grant.networks is not None:
        said.append(f"from {', '.join(grant.networks) or 'nowhere'}")
    said += [
        f"{word} {instant(when)}"
        for word, when in (("from", grant.not_before), ("until", grant.expires), ("revoked at", grant.revoked))
        if when is not None
    ]
    if grant.priority != "normal":
        said.append(f"{grant.priority} priority")
    if key.previous is not None:
        said.append(f"the key before it works until {key.previous.until}")
    return "; ".join(said)


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
    left = "; read to its end when the caller leaves" if model.on_disconnect == "drain" else ""
    return (
        f"{', then '.join(model.deployments)}; {tries}{hedge}; "
        f"first token within {times.first_token}, all within {times.total}{left}"
    )


def _deployment(deployment: Deployment) -> str:
    from penstock.config.places import engine_addresses, place_of

    asked_for = f"; asked for as {deployment.served}" if deployment.served else "; asked for by the caller's own name"
    place = place_of(deployment)
    lost = ", ".join(["everything"] if deployment.lose == "all" else deployment.lose)
    loses = f"; may leave out {lost} where its dialect has no word for it" if lost else ""
    if deployment.model is not None:
        n = deployment.replicas or 1
        processes = "1 process" if n == 1 else f"{n} processes"
        return f"the embedded engine with {deployment.model}, in {processes} that Penstock starts and watches{loses}"
    if deployment.provider is not None:
        where = deployment.endpoint or deployment.region
        of = f" of project {deployment.project}" if deployment.project else ""
        platform = {
            "sigv4": "AWS's own credentials",
            "google": "the service account that GOOGLE_APPLICATION_CREDENTIALS names",
        }
        key = f"key from {deployment.key}" if deployment.key else platform.get(place.auth, "no key")
        at = f" at {where}" if where else ""
        return f"provider {deployment.provider}{at}{of}, asked in {_DIALECTS[place.dialect]}{asked_for}; {key}{loses}"
    engines = engine_addresses(deployment)
    what = f"{deployment.software} " if deployment.software else ""
    health = deployment.health or place.health
    spoken = f", asked in {_DIALECTS[place.dialect]}" if deployment.speaks else ""
    probe = "not probed" if health == "off" else f"probed at {health}"
    many = f"{what}engine" if len(engines) == 1 else f"{len(engines)} {what}engines"
    return f"{many} at {', '.join(engines)}{spoken}{asked_for}; {probe}{loses}"


_DIALECTS: Final = {
    "openai": "OpenAI's dialect",
    "anthropic": "Anthropic's dialect",
    "converse": "Bedrock's Converse",
    "invoke": "Anthropic's dialect through Bedrock's InvokeModel",
    "gemini": "Gemini's dialect",
    "vertex-anthropic": "Anthropic's dialect through Vertex",
}


def _switches(config: Config) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What is on and what is off, each with the option that decides it."""
    from penstock.config.units import seconds

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
    going_on = [f"{name} ({model.on_cut})" for name, model in config.models.items() if model.on_cut != "error"]
    decide("going on", bool(going_on), f"after a broken stream, for {', '.join(going_on)}", "models.*.on_cut")
    on.append(("breakers", "; ".join(sorted({_breaker(one) for one in config.deployments.values()}))))
    probed = [name for name, one in config.deployments.items() if one.provider is None and one.health != "off"]
    decide("health checks", bool(probed), f"of {', '.join(probed)}", "only engines are probed")
    kept, images = config.responses, config.images
    keeps = kept.max > 0 and seconds(kept.retention) > 0
    decide("responses", keeps, f"kept for {kept.retention}, at most {kept.max:,}", "responses.retention, responses.max")
    hosts = ", ".join(images.hosts) or "public addresses"
    decide("images by URL", images.fetch == "allow", f"fetched from {hosts}, to {images.max_bytes}", "images.fetch")
    decide("keys", bool(config.keys), "callers must show one", "`penstock key create` makes one")
    return on, off


def _breaker(deployment: Deployment) -> str:
    return f"{deployment.breaker.failures} failures in a row open one for {deployment.breaker.open_for}"


def _warnings(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    """What is allowed but will not work here, or not as somebody may think."""
    yield from _missing("keys_pepper", config.keys_pepper, environ)
    for name, deployment in config.deployments.items():
        yield from _missing(f"deployments.{name}.key", deployment.key, environ)
        if deployment.model is not None and "/" in deployment.model and not Path(deployment.model).is_dir():
            yield f"deployments.{name}.model: there is no directory {deployment.model} here."
    used = {name for model in config.models.values() for name in model.deployments}
    unused = [name for name in config.deployments if name not in used]
    if unused:
        yield f"no model names {', '.join(unused)}; nothing will be sent there."
    old = [key.id for key in config.keys if key.tenant] if isinstance(config.keys, tuple) else []
    if old:
        yield f"`tenant` is the old name of `org`; it stands at {', '.join(old[:8])}{', ...' if len(old) > 8 else ''}."
    if not config.keys and not _loopback(config.server.host):
        yield (
            f"server.host is {config.server.host} and there are no keys: `penstock serve` will refuse to start. "
            "Make a key with `penstock key create`, or listen on 127.0.0.1."
        )


def _missing(option: str, reference: str | None, environ: Mapping[str, str]) -> Iterator[str]:
    kind, _, where = (reference or "").partition(":")
    if kind == "env" and not environ.get(where):
        yield f"{option}: the environment variable {where} is not set here."
    if kind == "file" and not Path(where).is_file():
        yield f"{option}: there is no file {where} here."


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
