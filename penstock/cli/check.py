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
    from penstock.config.spec import DeploymentSpec, PlaneSpec
    from penstock.limits.limit import Limit

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
    from penstock.config.compile import compile_plane
    from penstock.config.queue import told

    yield f"{file} is good."
    yield ""
    scheme = "http" if config.server.tls is None else "https"
    yield f"Listens on {scheme}://{_host(config.server.host)}:{config.server.port}, for {_who(config)}."
    if (admin := config.admin) is not None:
        scheme = "http" if admin.tls is None else "https"
        who = [f"{len(admin.keys)} {'key' if len(admin.keys) == 1 else 'keys'}"] if admin.keys else []
        who += [f"tokens of {admin.oidc.issuer}"] if admin.oidc is not None else []
        whom = " and ".join(who) or "nobody: it has neither `keys` nor `oidc` (`penstock key create --admin owner`)"
        yield f"The admin API is at {scheme}://{_host(admin.host)}:{admin.port}/admin/v1, for {whom}."
    yield "\nModels, as callers name them"
    yield from _table((name, _model(model)) for name, model in config.models.items())
    yield "\nDeployments"
    yield from _table((name, _deployment(deployment)) for name, deployment in config.deployments.items())
    plane = compile_plane(config, 1, {})
    yield "\nThe queue, while no replica has room"
    yield from _table(told(plane.queue))
    yield "\nPrices"
    yield from _table((one.name, _price(one, plane)) for one in plane.deployments)
    limits = [*plane.limits, *_of_keys(plane)]
    if limits:
        yield "\nLimits and budgets"
        shared = config.store.counters is not None
        yield from _table((limit.name, _limit(limit, plane, shared)) for limit in limits[:MAX_KEYS])
        if len(limits) > MAX_KEYS:
            yield f"  ... and {len(limits) - MAX_KEYS:,} more"
        yield from _counting(limits, shared)
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


def _price(deployment: DeploymentSpec, plane: PlaneSpec) -> str:
    """What it costs today, as far as that is known before anybody asks."""
    from penstock.config.prices import bundled, price_for
    from penstock.core.clock import SystemClock
    from penstock.pricing.differences import summary

    found: dict[str, list[str]] = {}
    for name in [model.name for model in plane.models if deployment.name in model.plan.deployments] or [""]:
        price = price_for(deployment, name, bundled())
        row = None if price is None else price.at(SystemClock.wall())
        if row is None:
            told = "not priced: nobody knows what it costs, which is not nothing"
        else:
            derived = ", derived from hours of GPUs" if row.derived else ""
            told = f"{summary(row)}{derived} ({'this file' if deployment.price else 'the table of prices'})"
        found.setdefault(told, []).append(name)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"as {', '.join(names)}: {told}" for told, names in found.items())


def _of_keys(plane: PlaneSpec) -> Iterator[Limit]:
    from penstock.config.limits import lookup

    if (own := lookup(plane)) is not None:
        for key in plane.keys:
            yield from own(key.id)


def _limit(limit: Limit, plane: PlaneSpec, shared: bool) -> str:
    """With by how much it may be exceeded."""
    from penstock.config.limits import said
    from penstock.config.spec import Notify

    told = [said(limit)]
    if limit.period is not None:
        notify = plane.thresholds.get(limit.name, Notify())
        shares = ", ".join(f"{share}%" for share in notify.shares)
        where = "" if notify.webhook is None else " at the webhook"
        told += [f"told{where} at {shares}"] if shares else []
    return f"{'; '.join(told)}; {_overshoot(limit, shared)}"


def _overshoot(limit: Limit, shared: bool) -> str:
    from penstock.limits.blocks import overshoot

    if limit.soft:
        return "may be exceeded"
    beyond = overshoot(limit.amount)
    if not shared or limit.strict or not limit.window or not beyond:
        return "never exceeded"
    return f"exceeded by at most {beyond:,}"


def _counting(limits: Iterable[Limit], shared: bool) -> Iterator[str]:
    """What the numbers above rest on."""
    from penstock.limits.blocks import SHARE
    from penstock.limits.limit import Meter

    if shared:
        yield "  All hosts count together. What is `strict` costs a call to the counters for every request."
        if any(limit.window and not limit.strict for limit in limits):
            yield f"  Of the others, workers lease blocks: all of them together at most one {SHARE}th of a limit. By"
            yield "  so much may it be exceeded in one window, however many hosts there are; budgets never are."
    else:
        yield "  All workers of this host count together. Every other host counts for itself, so that two allow twice"
        yield "  as much, until `store.counters` lets them count together."
    if any(limit.meter not in (Meter.REQUESTS, Meter.CONCURRENT_REQUESTS) for limit in limits):
        yield "  Tokens and money are reserved before an answer begins: for all of its `max_tokens` or, without, for"
        yield "  what such answers usually have. One that has more is charged all the same, and by so much a limit may"
        yield "  be exceeded. With `models.*.max_tokens` every request has a maximum."


def _key(config: Config, key: Key) -> str:
    """What it may do in the end, with what it has from its team and organisation."""
    from penstock.config.tenancy import Grants
    from penstock.config.units import instant
    from penstock.core.money import show

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
    if grant.max_cost is not None:
        said.append(f"one request at most {show(grant.max_cost)}")
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
    from penstock.config.schema import NO_DATABASE

    n = len(config.keys) if isinstance(config.keys, tuple) else 0
    stored = config.store.database != NO_DATABASE
    if n == 0:
        who = "anybody on this machine, with --insecure-dev"
        return f"callers who show a key of the database; without any, {who}" if stored else f"{who} (there are no keys)"
    who = "callers who show the one key" if n == 1 else f"callers who show one of {n} keys"
    return f"{who}, or one of the database" if stored else who


def _model(model: Model) -> str:
    times = model.timeouts
    late = "once it is late" if model.hedge_after == "auto" else f"after {model.hedge_after} of silence"
    hedge = f", a second one beside it {late}" if model.hedge_after else ""
    tries = "1 attempt" if model.max_attempts == 1 else f"at most {model.max_attempts} attempts"
    left = "; read to its end when the caller leaves" if model.on_disconnect == "drain" else ""
    return (
        f"{', then '.join(model.deployments)}; {tries}{hedge}; "
        f"first token within {times.first_token}, all within {times.total}{left}{_max_tokens(model)}"
    )


def _max_tokens(model: Model) -> str:
    said = model.max_tokens
    if said is None:
        return ""
    default = said.most if said.default is None else said.default
    most = "" if said.most is None else f"; at most {said.most:,} tokens, more is refused"
    return f"{most}; {default:,} where the caller says nothing"


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
    routed = [name for name, model in config.models.items() if model.routing is not None]
    decide("routing", bool(routed), f"for {', '.join(routed)}", "models.*.routing")
    ladders = [name for name, model in config.models.items() if model.degrade]
    decide("degrading", bool(ladders), f"under pressure, for {', '.join(ladders)}", "models.*.degrade")
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
    from penstock.config.schema import NO_DATABASE

    yield from _missing("keys_pepper", config.keys_pepper, environ)
    yield from _missing("store.database", config.store.database, environ)
    yield from _missing("store.counters", config.store.counters, environ)
    for name, budget in config.budgets.items():
        yield from _missing(f"budgets.{name}.webhook", budget.webhook, environ)
    if config.budgets and config.store.database == NO_DATABASE:
        yield "with `store.database: off` nobody remembers what was spent: budgets begin anew whenever Penstock starts."
    if config.store.counters is None and (vain := [name for name, limit in config.limits.items() if limit.strict]):
        yield f"`strict` has no meaning without `store.counters`; it stands at {', '.join(vain[:8])}."
    for name, deployment in config.deployments.items():
        yield from _missing(f"deployments.{name}.key", deployment.key, environ)
        if deployment.model is not None and "/" in deployment.model and not Path(deployment.model).is_dir():
            yield f"deployments.{name}.model: there is no directory {deployment.model} here."
    if config.admin is not None and config.admin.tls is None and not _loopback(config.admin.host):
        yield f"admin.host is {config.admin.host} without `admin.tls`: keys of administrators travel in clear."
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
