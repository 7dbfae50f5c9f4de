"""What no type can say: names that must exist, options that belong together, secrets that must not be here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from penstock.config import (
    addresses,
    admin,
    kv_cache,
    limits,
    prices,
    queue,
    resilience,
    routing,
    slos,
    stores,
    telemetry,
    tenancy,
)
from penstock.config.places import dated, engine_addresses
from penstock.config.presets import SOFTWARE
from penstock.config.problems import nearest
from penstock.config.providers import OPTIONS_OF_PROVIDERS, PROVIDERS
from penstock.config.schema import KINDS, OPTIONS_OF_EMBEDDED, OPTIONS_OF_ENGINE, Access, Config, Deployment, Key, Model
from penstock.config.units import n_bytes, seconds, wrong_zone
from penstock.core.request import Endpoint

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
    yield from routing.check(config, named)
    yield from kv_cache.check(config, named)
    yield from resilience.check(config, named)
    yield from queue.check(config.queue)
    yield from tenancy.check(config)
    yield from limits.check(config, named)
    for name, organisation in config.organisations.items():
        here = ("organisations", name)
        yield from _models_of(here, organisation, config, named)
        for team, access in organisation.teams.items():
            yield from _models_of((*here, "teams", team), access, config, named)
    if isinstance(config.keys, tuple):
        yield from _keys(config.keys, config, named)
        yield from tenancy.check_keys(config, config.keys, named)
    for i, text in enumerate(config.server.trusted_proxies):
        if (wrong := tenancy.wrong_network(text)) is not None:
            yield ("server", "trusted_proxies", str(i)), wrong
    yield from stores.check(config.store)
    yield from admin.check(config, named)
    yield from slos.check(config, named)
    yield from telemetry.check(config.telemetry)
    if (wrong := wrong_zone(config.timezone)) is not None:
        yield ("timezone",), wrong
    if seconds(config.cost.ledger_retention) < 86_400:
        yield ("cost", "ledger_retention"), "must be at least 1d"
    if seconds(config.server.drain) > 3600:
        yield ("server", "drain"), "must not be longer than 1h"
    if not 1024 <= n_bytes(config.server.max_body) <= 2**30:
        yield ("server", "max_body"), "must be from 1KiB to 1GiB"
    if not 1024 <= n_bytes(config.images.max_bytes) <= 2**30:
        yield ("images", "max_bytes"), "must be from 1KiB to 1GiB"
    if not 0 < seconds(config.images.timeout) <= 300:
        yield ("images", "timeout"), "must be longer than 0s and at most 5m"
    if config.images.hosts and config.images.fetch == "refuse":
        yield ("images", "hosts"), "has no meaning while nothing is fetched: add `fetch: allow`, or remove it"


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
    if (most := model.max_tokens) is not None:
        if most.most is None and most.default is None:
            yield (*path, "max_tokens"), "needs `most`, `default` or both"
        elif most.most is not None and (most.default or 0) > most.most:
            yield (*path, "max_tokens", "default"), f"must not be more than `most` ({most.most:,})"
    if model.on_cut == "continue":
        known = [config.deployments[name] for name in model.deployments if name in config.deployments]
        if known and all(deployment.provider is not None for deployment in known):
            yield (
                (*path, "on_cut"),
                "`continue` needs a deployment with `engine` or `model`: no provider goes on from tokens; "
                "write `prefix` or `error`",
            )


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
        yield from _of_providers(path, kind, deployment)
    if kind == "engine":
        yield from _engine(path, deployment)
    elif kind == "provider":
        yield from _provider(path, deployment, named)
    elif kind == "model" and deployment.key is not None:
        yield (*path, "key"), "has no meaning for the embedded engine, which listens to Penstock only; remove it"
    yield from prices.check(path, deployment)
    if not 0 < seconds(deployment.connect_timeout) <= 300:
        yield (*path, "connect_timeout"), "must be longer than 0s and at most 5m"
    if seconds(deployment.breaker.open_for) <= 0:
        yield (*path, "breaker", "open_for"), "must be longer than 0s"
    if deployment.max_seqs is not None and (deployment.max_batched_tokens or 512) < deployment.max_seqs:
        yield (*path, "max_seqs"), f"must not be more than max_batched_tokens ({deployment.max_batched_tokens or 512})"


def _engine(path: Path, deployment: Deployment) -> Iterator[Found]:
    software = deployment.software
    if deployment.speaks == "anthropic" and software is not None and Endpoint.MESSAGES not in SOFTWARE[software].native:
        yield (*path, "speaks"), f"`{software}` does not speak anthropic; remove it, or `software`"
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


def _of_providers(path: Path, kind: str, deployment: Deployment) -> Iterator[Found]:
    """Options that only some providers have, and the dialect, which is ours to choose only where nothing decides it."""
    name = deployment.provider or ""
    by_address = kind == "engine" or name.startswith(("http://", "https://"))
    if not by_address and name not in PROVIDERS and kind == "provider":
        return  # what belongs to an unknown provider is unknown too
    if deployment.speaks is not None and not by_address:
        yield (
            (*path, "speaks"),
            f"belongs to an address (`engine`, or `provider: https://...`), and this is {_this(kind, name)}",
        )
    speaks_anthropic = by_address and (deployment.speaks == "anthropic" or deployment.software is not None)
    allowed = ("beta",) if speaks_anthropic else () if by_address or kind == "model" else PROVIDERS[name].options
    for option in OPTIONS_OF_PROVIDERS:
        if getattr(deployment, option) is None or option in allowed:
            continue
        owners = [f"`provider: {one}`" for one, provider in PROVIDERS.items() if option in provider.options]
        if option == "beta":
            owners.append("`speaks: anthropic`")
        yield (*path, option), f"belongs to {_any_of(owners)}, and this is {_this(kind, name)}"


def _this(kind: str, name: str) -> str:
    return f"`provider: {name[:64]}`" if kind == "provider" else f"a deployment with `{kind}`"


def _any_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _provider(path: Path, deployment: Deployment, named: Named) -> Iterator[Found]:
    name = deployment.provider
    assert name is not None
    variable, needs_key = "NAME", True
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
        variable, needs_key = PROVIDERS[name].usual_key, PROVIDERS[name].key_needed
        for option in PROVIDERS[name].needs:
            if not named((*path, option)):
                yield path, f"needs `{option}` for `provider: {name}`: {_NEEDED_FOR[option]}"
        yield from _cloud(path, deployment)
    if needs_key and not named((*path, "key")):
        yield path, f"needs a key for the provider, by reference: add `key: env:{variable}` or `key: file:/path`"


_NEEDED_FOR: Final = {
    "endpoint": "the address of your resource, such as https://NAME.openai.azure.com",
    "region": "where the model is, such as us-east-1 (AWS), us-central1 or global (Google)",
    "project": "the id of the project that pays",
    "served": "the publisher's own name of the model; the address follows from it",
}


def _cloud(path: Path, deployment: Deployment) -> Iterator[Found]:
    if deployment.endpoint is not None:
        try:
            address = addresses.parse(deployment.endpoint, "")
        except ValueError as error:
            yield (*path, "endpoint"), str(error)
        else:
            if address.base_path:
                yield (*path, "endpoint"), f"must end with the host, without {address.base_path[:64]}"
            elif not address.encrypted and not _on_this_machine(address.origin):
                yield (*path, "endpoint"), "must be https://: it gets your key"
    if deployment.provider == "azure" and dated(deployment) and deployment.served is None:
        yield path, "needs `served` beside `api_version`: a dated API has the name of Azure's deployment in its path"
    served = deployment.served or "arn:"  # an ARN may stand for any model
    if deployment.api == "invoke" and not served.startswith("arn:") and "anthropic." not in served:
        yield (*path, "api"), "`invoke` is for Claude only: every other family has a body of its own; write `converse`"


def _on_this_machine(origin: str) -> bool:
    return origin.startswith(("http://127.", "http://localhost:", "http://[::1]", "unix:"))


def _keys(keys: tuple[Key, ...], config: Config, named: Named) -> Iterator[Found]:
    ids: dict[str, int] = {}
    digests: dict[str, str] = {}
    for i, key in enumerate(keys):
        path = ("keys", str(i))
        if key.id in ids:
            yield (*path, "id"), f"`{key.id}` is the id of another key too; ids are how keys are told apart"
        ids.setdefault(key.id, i)
        old = key.previous
        for under, kind, digest in (
            (path, "sha256", key.sha256),
            (path, "hmac", key.hmac),
            ((*path, "previous"), "sha256", None if old is None else old.sha256),
            ((*path, "previous"), "hmac", None if old is None else old.hmac),
        ):
            if digest is None:
                continue
            if digest in digests:
                yield (*under, kind), f"is the same key as `{digests[digest]}`"
            digests.setdefault(digest, key.id)
        if key.models:
            yield from _models_of(path, key, config, named)


def _models_of(path: Path, access: Access, config: Config, named: Named) -> Iterator[Found]:
    for i, name in enumerate(access.models or ()):
        if not named(("models", name)):
            yield (
                (*path, "models", str(i)),
                f"names `{name[:64]}`, which is not a model.{nearest(name, config.models)}",
            )
