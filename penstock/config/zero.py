"""The file that a start without a file means: `penstock serve tiny`, `openai/gpt-5-mini`, `http://10.0.0.4:8000`,
`bedrock/us-east-1/anthropic.claude-...`.

The result is text, so that `penstock init` can write it down and a person can go on from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

from penstock.config import addresses
from penstock.config.problems import nearest
from penstock.config.providers import PROVIDERS


class TargetError(ValueError):
    """A target that means nothing; the message says what could be written."""


class _Target(msgspec.Struct):
    model: str  # the public name
    place: str  # name of the deployment, made unique later
    options: dict[str, Any]


def config_for(targets: Sequence[str], served: Mapping[str, Sequence[str]] | None = None) -> str:
    """YAML text. Each target is one model; targets of the same model are tried in the order given.

    `name=target` gives the model another public name. `served` tells which models an address answers for, as found by
    asking it; without it the model is called `default` and the upstream is sent the name that the caller wrote.
    Raises `TargetError`.
    """
    if not targets:
        raise TargetError(f"there is nothing to serve: name {_EXAMPLES}")
    models: dict[str, dict[str, list[str]]] = {}
    deployments: dict[str, dict[str, Any]] = {}
    for text in targets:
        for target in _read(text, (served or {}).get(text, ())):
            name = next((name for name, options in deployments.items() if options == target.options), None)
            if name is None:
                name = _free(target.place, deployments)
                deployments[name] = target.options
            places = models.setdefault(target.model, {"deployments": []})["deployments"]
            if name not in places:
                places.append(name)
    return yaml.safe_dump({"models": models, "deployments": deployments}, sort_keys=False, default_flow_style=None)


_EXAMPLES = "`tiny` (bundled), `./weights`, `openai/gpt-5-mini` or `http://10.0.0.4:8000`"


def _read(text: str, served: Sequence[str]) -> list[_Target]:
    alias, separator, rest = text.partition("=")
    # an address may have `=` in its path, a public name has no `://`
    given = alias if separator and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:@+-]*", alias) else None
    target = rest if given is not None else text
    if "://" in target or target.startswith("unix:"):
        return _engine(target, given, served)
    if target.startswith(("./", "../", "/", "~")) or target in (".", ".."):
        name = _name(target.rstrip("/").rpartition("/")[2]) or "model"
        return [_Target(given or name, name, {"model": target})]
    company, slash, model = target.partition("/")
    if slash:
        provider = PROVIDERS.get(company)
        if provider is not None and company in _WAYS:
            return [_in_a_cloud(company, model, given)]
        if provider is None or not model:
            raise TargetError(
                f"`{target}` is neither a provider's model nor an address.{nearest(company, PROVIDERS)} "
                f"Providers: {', '.join(PROVIDERS)}. For weights in a directory write `./{target}`."
            )
        return [
            _Target(given or model, company, {"provider": company, "served": model, "key": f"env:{provider.usual_key}"})
        ]
    if not _name(target) or _name(target) != target:
        raise TargetError(f"`{target}` is not a target: name {_EXAMPLES}")
    return [_Target(given or target, target, {"model": target})]


_WAYS = {
    "azure": ("RESOURCE", "DEPLOYMENT"),
    "bedrock": ("REGION", "MODEL"),
    "vertex": ("PROJECT", "REGION", "MODEL"),
}
"""What stands behind the company's name where its address does not follow from it; the last may have `/` in it."""


def _in_a_cloud(company: str, rest: str, given: str | None) -> _Target:
    way = _WAYS[company]
    parts = rest.split("/", len(way) - 1)
    if len(parts) != len(way) or not all(parts):
        raise TargetError(f"`{company}/{rest}` needs its whole way: {company}/{'/'.join(way)}")
    model = parts[-1]
    options: dict[str, Any] = {"provider": company, "served": model}
    if company == "azure":
        options["endpoint"] = f"https://{parts[0]}.openai.azure.com"
    else:
        options |= {name.lower(): part for name, part in zip(way[:-1], parts[:-1], strict=True)}
    if PROVIDERS[company].key_needed:
        options["key"] = f"env:{PROVIDERS[company].usual_key}"
    return _Target(given or model, company, options)


def _engine(target: str, given: str | None, served: Sequence[str]) -> list[_Target]:
    try:
        address = addresses.parse(target)
    except ValueError as error:
        raise TargetError(f"`{target}` {error}") from None
    place = _name(address.origin.rpartition("/")[2]) or "engine"
    options = {"engine": target if target.startswith("unix:") else address.origin + address.base_path}
    if not served:
        return [_Target(given or "default", place, options)]
    return [
        _Target(given if given is not None and len(served) == 1 else name, place, options | {"served": name})
        for name in served
    ]


def _name(text: str) -> str:
    """`text` reduced to what a deployment may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:48]


def _free(name: str, taken: Mapping[str, object]) -> str:
    candidates = [name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)
