"""What no type can say: names that must exist, options that belong together, secrets that must not be here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from penstock.config import addresses
from penstock.config.problems import nearest
from penstock.config.providers import PROVIDERS
from penstock.config.schema import KINDS, OPTIONS_OF_EMBEDDED, OPTIONS_OF_ENGINE, Config, Deployment, Key, Model
from penstock.config.units import n_bytes, seconds

Path: TypeAlias = tuple[str, ...]
Found: TypeAlias = tuple[Path, str]
Named: TypeAlias = Callable[[Path], bool]


def check(config: Config, named: Named) -> Iterator[Found]:
    """Where and what. `named(path)` is whether the file has something at `path`: a deployment that was left out because
    of a problem of its own is not also unknown.
    """
    for name, model in config.models.items():
        yield from _model(("models", name), model, config, named)
    for name, deployment in config.deployments.items():
        yield from _deployment(("deployments", name), deployment, named)
    if isinstance(config.keys, tuple):
        yield from _keys(config.keys, config, named)
    if seconds(config.server.drain) > 3600:
        yield ("server", "drain"), "must not be longer than 1h"
    if not 1024 <= n_bytes(config.server.max_body) <= 2**30:
        yield ("server", "max_body"), "must be from 1KiB to 1GiB"


def _model(path: Path, model: Model, config: Config, named: Named) -> Iterator[Found]:
    seen: set[str] = set()
    for i, name in enumerate(model.deployments):
        here = (*path, "deployments", str(i))
        if not named(("deployments", name)):
            hint = nearest(name, config.deployments) or f" There are: {', '.join(list(config.deployments)[:8])}."
            yield here, f"names `{name[:64]}`, which is not a deployment.{hint}"
        elif name in seen:
            yield here, f"names `{name}` a second time"
        seen.add(name)
    for option in ("first_token", "idle", "total"):
        if seconds(getattr(model.timeouts, option)) <= 0:
            yield (*path, "timeouts", option), "must be longer than 0s"
    if model.hedge_after is not None and seconds(model.hedge_after) <= 0:
        yield (*path, "hedge_after"), "must be longer than 0s; leave it out for no hedging"


def _deployment(path: Path, deployment: Deployment, named: Named) -> Iterator[Found]:
    given = [kind for kind in KINDS if getattr(deployment, kind) is not None]
    written = [kind for kind in KINDS if named((*path, kind))]
    if not written:
        yield (
            path,
            "needs one of `engine` (an address), `provider` (a company) or `model` (weights for the embedded engine)",
        )
    elif len(written) > 1:
        yield (
            path,
            f"has both `{written[0]}` and `{written[1]}`; a deployment is at one kind of place: write two deployments",
        )
    kind = given[0] if len(given) == 1 and len(written) == 1 else None
    if kind is not None:
        for options, owner in ((OPTIONS_OF_ENGINE, "engine"), (OPTIONS_OF_EMBEDDED, "model")):
            for option in options:
                if kind != owner and getattr(deployment, option) is not None:
                    yield (*path, option), f"belongs to a deployment with `{owner}`, and this one has `{kind}`"
    if kind == "engine":
        yield from _engine(path, deployment)
    elif kind == "provider":
        yield from _provider(path, deployment, named)
    elif kind == "model" and deployment.key is not None:
        yield (*path, "key"), "has no meaning for the embedded engine, which listens to Penstock only; remove it"
    if not 0 < seconds(deployment.connect_timeout) <= 300:
        yield (*path, "connect_timeout"), "must be longer than 0s and at most 5m"
    if seconds(deployment.breaker.open_for) <= 0:
        yield (*path, "breaker", "open_for"), "must be longer than 0s"
    if deployment.max_seqs is not None and (deployment.max_batched_tokens or 512) < deployment.max_seqs:
        yield (*path, "max_seqs"), f"must not be more than max_batched_tokens ({deployment.max_batched_tokens or 512})"


def _engine(path: Path, deployment: Deployment) -> Iterator[Found]:
    many = isinstance(deployment.engine, tuple)
    seen: set[addresses.Address] = set()
    for i, text in enumerate(engine_addresses(deployment)):
        here = (*path, "engine", str(i)) if many else (*path, "engine")
        try:
            address = addresses.parse(text)
        except ValueError as error:
            yield here, str(error)
            continue
        if address in seen:
            yield here, "is the same address a second time"
        seen.add(address)


def _provider(path: Path, deployment: Deployment, named: Named) -> Iterator[Found]:
    name = deployment.provider
    assert name is not None
    variable = "NAME"
    if name.startswith("http://"):
        yield (
            (*path, "provider"),
            "would get your key in clear over http://; write https://, or `engine:` for a server of your own",
        )
    elif name.startswith("https://"):
        try:
            addresses.parse(name)
        except ValueError as error:
            yield (*path, "provider"), str(error)
    elif name not in PROVIDERS:
        yield (
            (*path, "provider"),
            f"is not a provider known by name.{nearest(name, PROVIDERS)} Known: {', '.join(PROVIDERS)}; "
            "for others write the https:// address of the API",
        )
    else:
        variable = PROVIDERS[name].usual_key
    if not named((*path, "key")):
        yield path, f"needs a key for the provider, by reference: add `key: env:{variable}` or `key: file:/path`"


def engine_addresses(deployment: Deployment) -> tuple[str, ...]:
    if deployment.engine is None:
        return ()
    return deployment.engine if isinstance(deployment.engine, tuple) else (deployment.engine,)


def _keys(keys: tuple[Key, ...], config: Config, named: Named) -> Iterator[Found]:
    ids: dict[str, int] = {}
    digests: dict[str, str] = {}
    for i, key in enumerate(keys):
        path = ("keys", str(i))
        if key.id in ids:
            yield (*path, "id"), f"`{key.id}` is the id of another key too; ids are how keys are told apart"
        ids.setdefault(key.id, i)
        if key.sha256 in digests:
            yield (*path, "sha256"), f"is the same key as `{digests[key.sha256]}`"
        digests.setdefault(key.sha256, key.id)
        for j, name in enumerate(key.models or ()):
            if not named(("models", name)):
                yield (
                    (*path, "models", str(j)),
                    f"names `{name[:64]}`, which is not a model.{nearest(name, config.models)}",
                )
