"""`config.yaml` of LiteLLM to `penstock.yaml`, with a line in the report for every setting of it.

Where the two differ in what they mean, the nearest is written and told as approximated; what has no counterpart is told
as unsupported. Secrets are never copied: they become references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any, Final

import msgspec
import yaml

from penstock.config import nodes
from penstock.config.litellm import money, sentences
from penstock.config.litellm.settings import DROP, MAX_ATTEMPTS, STREAM_TIMEOUT, House, span
from penstock.config.litellm.source import Finding, Report, Settings, Value
from penstock.config.litellm.upstreams import Left, Options, Secrets, Upstreams
from penstock.config.load import load
from penstock.config.problems import ConfigError, Problem

MAX_DEPLOYMENTS: Final = 64  # of one model
_USUAL_ATTEMPTS: Final = 3  # of both
_VARIABLE: Final = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")


class _WithoutAliases(yaml.SafeDumper):
    """Writes out what stands in two places, where YAML would write `*id001`."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class Migration(msgspec.Struct, frozen=True):
    """`text` is a whole `penstock.yaml`, None when nothing of the file could be written."""

    text: str | None
    findings: tuple[Finding, ...]
    variables: tuple[str, ...]  # of the environment, that the new file reads


class Candidate(msgspec.Struct):
    """A deployment on its way, with what LiteLLM says at it and Penstock says at its model."""

    options: Options
    at: Value  # its name in the file
    id: str | None = None
    order: float = inf  # LiteLLM's priority: the smallest first, those without one last
    timeout: float | None = None  # seconds
    stream_timeout: float | None = None
    retries: int | None = None


def migrate(text: str, file: str, environ: Mapping[str, str] | None = None, names: Iterable[str] = ()) -> Migration:
    """`environ` gives addresses and regions that the file takes from the environment; keys are never read from it.
    `names` are models to write for wildcards such as `openai/*`, beside those that the file itself mentions.

    Raises `ConfigError` when the text is not YAML, or not a mapping.
    """
    root = nodes.parse(text, file)
    if not isinstance(root, nodes.Mapping):
        raise ConfigError((Problem(file, root.line, "", "this is not LiteLLM's configuration: it is not a mapping"),))
    variables = frozenset(_VARIABLE.findall(text))
    return _Migrator(Value(root, ""), file, environ or {}, names, variables).run()


class _Migrator:
    def __init__(
        self, root: Value, file: str, environ: Mapping[str, str], names: Iterable[str], variables: frozenset[str]
    ) -> None:
        self._report = Report()
        self._secrets = Secrets(self._report, variables)
        self._file, self._names = file, tuple(names)
        self._top = Settings(root.entries())
        section = self._top.take("environment_variables")
        self._environment = {} if section is None else section.entries()
        written = {name: value.text for name, value in self._environment.items() if value.text and not value.variable}
        self._upstreams = Upstreams(self._report, self._secrets, written | dict(environ))
        self._credentials = self._credential_list()
        self._house = House(self._report)
        self._defaults = self._house.defaults

    def run(self) -> Migration:
        self._house.read(self._top)
        groups = self._groups()
        self._report.rest(self._top, sentences.TOP_LEVEL)
        models, deployments = self._written(groups)
        references = {options.get("key") for options in deployments.values()}
        variables = tuple(name for name in self._secrets.variables if f"env:{name}" in references)
        self._tell_of_the_environment(variables)
        if not models:
            return Migration(None, self._report.findings(), ())
        whole: dict[str, Any] = {"models": models, "deployments": deployments}
        for section in ("limits", "budgets", "server"):
            if written := getattr(self._defaults, section):
                whole[section] = written
        text = self._header(variables) + yaml.dump(
            whole, Dumper=_WithoutAliases, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
        )
        load(text, "penstock.yaml")
        return Migration(text, self._report.findings(), variables)

    def _header(self, variables: tuple[str, ...]) -> str:
        file = self._file if self._file.isprintable() else ascii(self._file)
        lines = [f"# Written by `penstock migrate litellm` from {file}; its report says what is not the same."]
        if variables:
            lines.append(f"# Reads from the environment: {', '.join(variables)}.")
        lines.append("# Callers need keys: `penstock key create --in-file` makes one and prints its line for `keys:`.")
        return "\n".join(lines) + "\n\n"

    # --- the environment and credentials ---

    def _tell_of_the_environment(self, variables: tuple[str, ...]) -> None:
        for name, value in self._environment.items():
            if name in variables:
                self._report.approximated(value, f"not copied: set {name} in the environment that Penstock starts in")
            else:
                self._report.unsupported(value, "nothing reads it")

    def _credential_list(self) -> dict[str, dict[str, Value]]:
        section = self._top.take("credential_list")
        found = {}
        for item in [] if section is None else section.items():
            entries = item.entries()
            if (name := entries.get("credential_name")) is not None and (values := entries.get("credential_values")):
                found[name.text or ""] = values.entries()
                self._report.mapped(item, "written into the deployments that name it")
            else:
                self._report.unsupported(item, "has no `credential_name` and `credential_values`")
        return found

    # --- models and their deployments ---

    def _groups(self) -> dict[str, list[Candidate]]:
        """By public name, in the order of the file; wildcards for the names that somebody mentions."""
        section = self._top.take("model_list")
        groups: dict[str, list[Candidate]] = {}
        wildcards: list[tuple[Value, Value]] = []
        for item in [] if section is None else section.items():
            entries = item.entries()
            name = entries.get("model_name")
            if name is None or name.text is None:
                self._report.unsupported(item, "has no `model_name`")
            elif "*" in name.text:
                wildcards.append((item, name))
            elif (candidate := self._candidate(item, name, name.text)) is not None:
                groups.setdefault(name.text, []).append(candidate)
        written = frozenset(groups)
        owners: dict[str, str] = {}  # by name, the longest wildcard that it fits: LiteLLM chooses so too
        for _, name in sorted(wildcards, key=lambda wildcard: -len(wildcard[1].text or "")):
            for mentioned in self._mentioned(name):
                owners.setdefault(mentioned, name.text or "")
        for item, name in wildcards:
            matched = [one for one, owner in owners.items() if owner == name.text and one not in written]
            for mentioned in matched:
                if (candidate := self._candidate(item, name, mentioned)) is not None:
                    groups.setdefault(mentioned, []).append(candidate)
            if not matched:
                self._report.unsupported(
                    name,
                    f"`{_shown(name)}` is a wildcard, and models are named one by one: run this again with "
                    "`--name MODEL` for each that callers use",
                )
        return groups

    def _mentioned(self, wildcard: Value) -> Iterator[str]:
        fallbacks = self._defaults.fallbacks
        named = [*self._names, *fallbacks, *(one.text or "" for all in fallbacks.values() for one in all)]
        named += [_alias_of(alias) for alias in self._defaults.aliases.values()]
        pattern = _pattern(wildcard.text or "")
        for name in dict.fromkeys(named):
            if "*" not in name and pattern.fullmatch(name):
                yield name

    def _candidate(self, item: Value, name: Value, public: str) -> Candidate | None:
        """The deployment that one entry of `model_list` means. None when it cannot be written, which is told."""
        entries = item.entries()
        params_value = entries.pop("litellm_params", None)
        params = {} if params_value is None else params_value.entries()
        info = Settings.of(entries.pop("model_info", None), self._report)
        entries.pop("model_name")
        before = self._report.length
        credential = params.pop("litellm_credential_name", None)
        if credential is not None:
            values = self._credentials.get(credential.text or "")
            params = (values or {}) | params
            if values is None:
                self._report.unsupported(credential, "is not in `credential_list`, and Penstock has no database")
            else:
                self._report.mapped(credential, "its values are written into this deployment")
        settings = Settings(params)
        model = settings.take("model")
        try:
            if model is None or model.text is None:
                raise Left("it has no `litellm_params.model`")
            text = _filled(model.text, name.text or "", public)
            candidate = Candidate(self._upstreams.options(model, text, settings), name)
            if (costs := money.price(self._report, settings, info)) is not None:
                candidate.options["price"] = costs
            self._at_the_deployment(candidate, settings, info)
            _checked(public, candidate.options)
        except Left as reason:
            self._report.back_to(before)
            self._report.unsupported(name, f"`{_shown(name)}` is left out here: {reason}")
            return None
        where = candidate.options.get("provider") or candidate.options.get("engine")
        self._report.mapped(name, f"models.{public}")
        self._report.mapped(model, f"{where}, where it is `{candidate.options['served']}`")
        self._report.rest(settings, sentences.LITELLM_PARAMS)
        self._report.rest(info, sentences.MODEL_INFO)
        self._report.rest(Settings(entries), {})
        return candidate

    def _at_the_deployment(self, candidate: Candidate, params: Settings, info: Settings) -> None:
        report = self._report
        options, breaker = candidate.options, dict(self._defaults.breaker)
        if (value := params.take("timeout")) is not None and (number := self._house.positive(value)) is not None:
            candidate.timeout = number
            report.approximated(value, f"timeouts.total of the model: {span(number)}, all attempts together")
        if (value := params.take("stream_timeout")) is not None and (number := self._house.positive(value)) is not None:
            candidate.stream_timeout = number
            report.approximated(value, STREAM_TIMEOUT.format(span(number)))
        for name in ("num_retries", "max_retries"):
            if (value := params.take(name)) is not None:
                candidate.retries = self._house.retries(value)
        if (value := params.take("cooldown_time")) is not None and (number := self._house.positive(value)) is not None:
            breaker["open_for"] = span(number)
            report.approximated(value, f"breaker.open_for: {span(number)}, then one request tries whether it is well")
        if breaker:
            options["breaker"] = breaker
        lose_all = self._defaults.lose_all
        if (value := params.take("drop_params")) is not None:
            lose_all = value.true
            report.approximated(value, DROP if value.true else "what cannot be said is refused by its name")
        value = params.take("additional_drop_params")
        if lose_all:
            options["lose"] = "all"
        if value is not None:
            lost = [
                item.text for item in value.items() if item.text and re.fullmatch(r"[A-Za-z_][\w.]{0,127}", item.text)
            ]
            if not lose_all and lost:
                options["lose"] = lost[:64]
            report.approximated(value, f"lose: {', '.join(lost)}; only where the upstream's dialect has no word for it")
        if (value := params.take("order")) is not None and (number := value.number) is not None:
            candidate.order = number
            report.mapped(value, "the model's deployments stand in this order")
        if (value := info.take("id")) is not None and value.text is not None:
            candidate.id = value.text
            report.mapped(value, "the deployment's name, as far as it can be one")

    def _written(self, groups: dict[str, list[Candidate]]) -> tuple[dict[str, Any], dict[str, Options]]:
        """Models and deployments, as they go into the file."""
        deployments: dict[str, Options] = {}
        own: dict[str, list[str]] = {}
        for public, group in groups.items():
            ordered = _pooled(sorted(group, key=lambda candidate: candidate.order))
            if len(ordered) > 1:
                self._report.approximated(
                    ordered[0].at,
                    f"models.{public}: the first deployment that is well gets all, and the load is not shared",
                )
            names = [_name(public, i, len(ordered), one, deployments) for i, one in enumerate(ordered)]
            own[public] = list(dict.fromkeys(names))[:MAX_DEPLOYMENTS]
        models: dict[str, Any] = {}
        for public, group in groups.items():
            models[public] = self._model(group, own[public], self._behind(public, own))
        for alias, value in self._defaults.aliases.items():
            self._alias(alias, value, models)
        used = {name for model in models.values() for name in model["deployments"]}
        return models, {name: options for name, options in deployments.items() if name in used}

    def _alias(self, alias: str, value: Value, models: dict[str, Any]) -> None:
        target = _alias_of(value)
        if alias in models:
            self._report.unsupported(value, f"`{alias[:64]}` is the name of a model too, which is kept")
        elif target not in models:
            self._report.unsupported(value, f"`{target[:64]}` is not among the models that could be written")
        else:
            try:
                _checked(alias, {"model": "tiny"})
            except Left as reason:
                self._report.unsupported(value, str(reason))
                return
            models[alias] = dict(models[target])
            hidden = value.entries().get("hidden")
            if hidden is not None and hidden.true:
                self._report.approximated(value, f"models.{alias}; it is listed by GET /v1/models like any other")
            else:
                self._report.mapped(value, f"models.{alias}")

    def _behind(self, public: str, own: Mapping[str, list[str]]) -> list[str]:
        """The deployments of a model's fallbacks, best first."""
        fallbacks = self._defaults.fallbacks
        found: list[str] = []
        for value in [*fallbacks.get(public, []), *fallbacks.get("*", [])]:
            name = value.text or ""
            name = _alias_of(self._defaults.aliases[name]) if name in self._defaults.aliases else name
            if name == public:
                continue
            if name in own:
                found += own[name]
                self._report.approximated(value, f"its deployments stand behind those of models.{public}")
            elif name:
                self._report.unsupported(value, f"`{name[:64]}` is not among the models that could be written")
            else:
                self._report.unsupported(value, "a fallback with parameters of its own has no counterpart")
        return [name for name in dict.fromkeys(found) if name not in own[public]]

    def _model(self, group: list[Candidate], own: list[str], behind: list[str]) -> dict[str, Any]:
        defaults = self._defaults
        deployments = [*own, *behind][:MAX_DEPLOYMENTS]
        model: dict[str, Any] = {"deployments": deployments}
        total = _largest((one.timeout for one in group), defaults.timeout)
        waiting = _largest((one.stream_timeout for one in group), defaults.stream_timeout)
        timeouts: dict[str, str] = {}
        if waiting is not None:
            timeouts = {"first_token": span(waiting), "idle": span(waiting)}
        if total is not None:
            timeouts["total"] = span(total)
        if timeouts:
            model["timeouts"] = timeouts
        retries = _largest((one.retries for one in group), defaults.retries)
        attempts = _USUAL_ATTEMPTS if retries is None else int(retries) + 1
        attempts = min(MAX_ATTEMPTS, attempts + len(behind))
        if attempts != _USUAL_ATTEMPTS:
            model["max_attempts"] = attempts
        return model


def _filled(model: str, wildcard: str, public: str) -> str:
    """`openai/*` with what the wildcard stood for in `public`."""
    if "*" not in wildcard:
        return model
    match = _pattern(wildcard).fullmatch(public)
    assert match is not None, "only names that match are asked for"
    return model.replace("*", match[1], 1)


def _pattern(wildcard: str) -> re.Pattern[str]:
    before, _, after = wildcard.partition("*")
    return re.compile(f"{re.escape(before)}(.+?){re.escape(after).replace(re.escape('*'), '.*')}", re.DOTALL)


def _alias_of(value: Value) -> str:
    """An alias is a name, or a mapping with `model` in it."""
    inner = value.entries().get("model")
    return (value.text if inner is None else inner.text) or ""


def _checked(public: str, options: Options) -> None:
    """Raises `Left` with what `penstock check` would say of a model or a deployment."""
    text = yaml.safe_dump({"models": {public: {"deployments": ["it"]}}, "deployments": {"it": options}})
    try:
        load(text, "penstock.yaml")
    except ConfigError as error:
        said = dict.fromkeys(
            f"{problem.path.rpartition('.')[2]} {problem.message}"
            if problem.path not in ("deployments.it", f"models.{public}")
            else problem.message
            for problem in error.problems
        )
        raise Left("; ".join(said)) from None


def _pooled(group: list[Candidate]) -> list[Candidate]:
    """Engines that differ in nothing but their address become the replicas of one deployment, which share the load. A
    price that is written at some of them is that of all."""
    pools: list[Candidate] = []
    for one in group:
        pool = next((pool for pool in pools if "engine" in one.options and _alike(pool, one)), None)
        if pool is None or "engine" not in pool.options:
            pools.append(msgspec.structs.replace(one))
            continue
        known = pool.options["engine"]
        addresses = [*([known] if isinstance(known, str) else known), one.options["engine"]]
        unique = list(dict.fromkeys(addresses))
        pool.options = one.options | pool.options | {"engine": unique[0] if len(unique) == 1 else unique}
    return pools


def _alike(one: Candidate, other: Candidate) -> bool:
    apart = {
        name
        for name in one.options.keys() | other.options.keys()
        if one.options.get(name) != other.options.get(name)
        and not (name == "price" and None in (one.options.get(name), other.options.get(name)))
    }
    return one.order == other.order and apart <= {"engine"}


def _name(public: str, i: int, n: int, one: Candidate, taken: dict[str, Options]) -> str:
    """What a deployment is called; one that is there already, with the same options, is used again."""
    same = next((name for name, options in taken.items() if options == one.options), None)
    if same is not None:
        return same
    wanted = one.id if one.id is not None and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", one.id) else None
    if wanted is None:
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", public).strip("-._")[:48] or "deployment"
        wanted = base if n == 1 else f"{base}-{i + 1}"
    names = [wanted, *(f"{wanted[:56]}-{k}" for k in range(2, len(taken) + 3))]
    name = next(name for name in names if name not in taken)
    taken[name] = one.options
    return name


def _largest(values: Iterable[float | None], otherwise: float | None) -> float | None:
    return max((value for value in values if value is not None), default=otherwise)


def _shown(value: Value) -> str:
    text = (value.text or "")[:64]
    return text if text.isprintable() else ascii(text)
