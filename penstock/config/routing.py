"""A model's `routing:`: what no type can say about it, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import fsum

import msgspec

from penstock.config.problems import nearest
from penstock.config.routing_options import CascadeOptions, RoutingOptions, RuleOptions, SplitOptions
from penstock.config.schema import Config, Deployment
from penstock.config.units import seconds
from penstock.core.money import read_nanos
from penstock.routing.difficulty import Classifier
from penstock.routing.expressions import Expression, ExpressionError
from penstock.routing.spec import (
    EVERY_PII,
    ArmSpec,
    CascadeSpec,
    CeilingSpec,
    DifficultySpec,
    Escalation,
    PlacesSpec,
    PlanChanges,
    RoutingSpec,
    RuleSpec,
    SensitiveSpec,
    SplitSpec,
    Target,
)

Path = tuple[str, ...]
Found = tuple[Path, str]
Named = Callable[[Path], bool]
DECIDING = ("use", "model", "refuse")


# --- what no type can say ---


def check(config: Config, named: Named) -> Iterator[Found]:
    for name, model in config.models.items():
        if model.routing is not None:
            yield from _Check(name, model.routing, config, named).problems()
    yield from _circles(config)


class _Check:
    """Of one model's routing. Deployments that are named must be among the model's own."""

    def __init__(self, name: str, routing: RoutingOptions, config: Config, named: Named) -> None:
        self._path: Path = ("models", name, "routing")
        self._name, self._routing, self._config, self._named = name, routing, config, named
        self._own = config.models[name].deployments

    def problems(self) -> Iterator[Found]:
        routing, path = self._routing, self._path
        for i, rule in enumerate(routing.rules):
            yield from self._rule((*path, "rules", str(i)), rule)
        if routing.split is not None:
            yield from self._split((*path, "split"), routing.split)
        if (difficulty := routing.difficulty) is not None:
            for option in ("easy", "hard"):
                yield from self._deployments((*path, "difficulty", option), getattr(difficulty, option))
            if difficulty.classifier is not None:
                try:
                    Classifier.read(difficulty.classifier)
                except ValueError as error:
                    yield (*path, "difficulty", "classifier"), str(error)
        if routing.cascade is not None:
            yield from self._cascade((*path, "cascade"), routing.cascade)
        if routing.split is not None and (routing.cascade is not None or routing.difficulty is not None):
            other = "cascade" if routing.cascade is not None else "difficulty"
            yield (*path, "split"), f"and `{other}` both say who answers; make two models, and a split or rule before"
        if (sensitive := routing.sensitive) is not None:
            here = (*path, "sensitive")
            if not any(self._named((*here, option)) for option in ("pii", "when")):
                yield here, "needs `pii`, `when` or both"
            if sensitive.when is not None:
                yield from _condition((*here, "when"), sensitive.when)
            inside = [name for name in self._own if name in self._config.deployments]
            if inside and not any(self_hosted(self._config.deployments[name]) for name in inside):
                yield here, "would refuse all such requests: none of the model's deployments has `engine` or `model`"
        if (ceilings := routing.ceilings) is not None:
            if not any(self._named((*path, "ceilings", option)) for option in ("cost", "first_token")):
                yield (*path, "ceilings"), "needs `cost`, `first_token` or both"
            if ceilings.first_token is not None and seconds(ceilings.first_token) <= 0:
                yield (*path, "ceilings", "first_token"), "must be longer than 0s"
            if ceilings.cost is not None and (wrong := _wrong_money(ceilings.cost)):
                yield (*path, "ceilings", "cost"), wrong
        here = (*path, "places")
        if routing.places is not None and not any(self._named((*here, option)) for option in ("allowed", "preferred")):
            yield here, "needs `allowed`, `preferred` or both"

    def _rule(self, path: Path, rule: RuleOptions) -> Iterator[Found]:
        yield from _condition((*path, "when"), rule.when)
        given = [option for option in DECIDING if getattr(rule, option) is not None]
        if len(given) > 1:
            yield path, f"has both `{given[0]}` and `{given[1]}`; a rule decides one thing"
        if not given and rule.prefer == rule.avoid == () and _changes(rule) == PlanChanges():
            yield path, "says nothing about the requests: add `use`, `prefer`, `avoid`, `model` or `refuse`"
        for option in ("use", "prefer", "avoid"):
            yield from self._deployments((*path, option), getattr(rule, option) or ())
        if rule.model is not None and not self._named(("models", rule.model)):
            yield (
                (*path, "model"),
                f"names `{rule.model[:64]}`, which is not a model.{nearest(rule.model, self._config.models)}",
            )
        for option in ("first_token", "hedge_after"):
            if getattr(rule, option) is not None and seconds(getattr(rule, option)) <= 0:
                yield (*path, option), "must be longer than 0s"

    def _split(self, path: Path, split: SplitOptions) -> Iterator[Found]:
        for name, arm in split.arms.items():
            yield from self._deployments((*path, "arms", name, "deployments"), arm.deployments)
        shares = [_share(arm.share) for arm in split.arms.values() if arm.share is not None]
        if len(shares) != len(split.arms) - 1:
            yield (*path, "arms"), "needs exactly one arm without `share`, which gets what the others leave"
        elif fsum(shares) > 1 + 1e-9:
            yield (*path, "arms"), f"has shares of {fsum(shares):.1%} together"

    def _cascade(self, path: Path, cascade: CascadeOptions) -> Iterator[Found]:
        seen: set[str] = set()
        for i, step in enumerate(_steps(cascade)):
            yield from self._deployments((*path, "steps", str(i)), step)
            if twice := seen.intersection(step):
                yield (*path, "steps", str(i)), f"names `{min(twice)}` a second time"
            seen.update(step)
        rule = cascade.escalate
        confident = (rule.mean_probability, rule.min_probability, rule.margin) != (None, None, None)
        if cascade.hold != "all":
            for option in ("refusal", "judge"):
                if getattr(rule, option):
                    yield (*path, "escalate", option), "needs `hold: all`: by then part of the answer has been shown"
            if not confident:
                yield (
                    (*path, "hold"),
                    "`first_tokens` needs `mean_probability`, `min_probability` or `margin`: nothing else can be told "
                    "from the first tokens",
                )
        if float(rule.strictness) and not (confident and self._routing.difficulty is not None):
            yield (*path, "escalate", "strictness"), "needs `difficulty`, and a probability or margin that it adds to"
        if cascade.hold == "all" and not confident and not rule.schema and not rule.refusal and rule.judge is None:
            yield (*path, "escalate"), "says nothing that would make an answer not good enough"
        if rule.judge is not None:
            if not self._named(("models", rule.judge)):
                hint = nearest(rule.judge, self._config.models)
                yield (*path, "escalate", "judge"), f"names `{rule.judge[:64]}`, which is not a model.{hint}"
            elif rule.judge == self._name:
                yield (*path, "escalate", "judge"), "is this model itself"
            elif self._routing.sensitive is not None and (outside := self._outside(rule.judge)):
                yield (
                    (*path, "escalate", "judge"),
                    f"would see what must stay inside: its deployment `{outside[0]}` has neither `engine` nor `model`, "
                    "and there is `sensitive`",
                )

    def _outside(self, model: str) -> list[str]:
        """Its deployments that are not self-hosted."""
        known = self._config.deployments
        names = [name for name in self._config.models[model].deployments if name in known]
        return [name for name in names if not self_hosted(known[name])]

    def _deployments(self, path: Path, names: Iterable[str]) -> Iterator[Found]:
        many = path[-2] != "steps"
        for i, name in enumerate(names):
            if name not in self._own:
                hint = nearest(name, self._own) or f" It has: {', '.join(self._own[:8])}."
                here = (*path, str(i)) if many else path
                yield here, f"names `{name[:64]}`, which is not one of the model's deployments.{hint}"


def _condition(path: Path, text: str) -> Iterator[Found]:
    try:
        Expression(text)
    except ExpressionError as error:
        yield path, str(error)


def _circles(config: Config) -> Iterator[Found]:
    """Rules that send requests from model to model and back."""
    leads = {
        name: [rule.model for rule in model.routing.rules if rule.model is not None]
        for name, model in config.models.items()
        if model.routing is not None
    }
    for name in leads:
        seen, left = {name}, list(leads[name])
        while left:
            following = left.pop()
            if following == name:
                yield ("models", name, "routing", "rules"), f"lead from `{name}` back to `{name}`"
                break
            if following not in seen:
                seen.add(following)
                left += leads.get(following, ())


# --- what it comes to ---


def routing_of(config: Config) -> dict[str, RoutingSpec]:
    """By model; those that nothing is said about, and that no rule leads to, are not in it."""
    found: dict[str, RoutingSpec] = {}
    for name, model in config.models.items():
        if model.routing is not None:
            found[name] = _spec(model.routing)
    led_to = {rule.model for spec in found.values() for rule in spec.rules if rule.model is not None}
    for name in led_to - found.keys():
        found[name] = RoutingSpec()  # what had to stay inside before must stay inside there
    for name, model in config.models.items():
        windows = any(config.deployments[one].context_window is not None for one in model.deployments)
        if name not in found and windows:
            found[name] = RoutingSpec()
    return found


def target(name: str, deployment: Deployment) -> Target:
    return Target(
        name,
        self_hosted(deployment),
        deployment.location or deployment.region or "",
        deployment.context_window,
    )


def self_hosted(deployment: Deployment) -> bool:
    return deployment.engine is not None or deployment.model is not None


def with_classifiers(config: Config, files: Mapping[str, str | None]) -> Config:
    """The text of each classifier in the place of its file's name; None where that could not be read. `files` by
    model."""
    models = dict(config.models)
    for name, text in files.items():
        routing = models[name].routing
        assert routing is not None and routing.difficulty is not None, "it has one"
        difficulty = msgspec.structs.replace(routing.difficulty, classifier=text)
        models[name] = msgspec.structs.replace(
            models[name], routing=msgspec.structs.replace(routing, difficulty=difficulty)
        )
    return msgspec.structs.replace(config, models=models)


def classifier_files(config: Config) -> dict[str, str]:
    """The names of files, by model."""
    return {
        name: model.routing.difficulty.classifier
        for name, model in config.models.items()
        if model.routing is not None
        and model.routing.difficulty is not None
        and model.routing.difficulty.classifier is not None
    }


def _spec(options: RoutingOptions) -> RoutingSpec:
    return RoutingSpec(
        rules=tuple(
            RuleSpec(
                rule.name or f"rule {i}",
                rule.when,
                rule.use or (),
                rule.model,
                rule.refuse,
                rule.prefer,
                rule.avoid,
                _changes(rule),
            )
            for i, rule in enumerate(options.rules, 1)
        ),
        split=None
        if (split := options.split) is None
        else SplitSpec(
            split.name,
            split.by,
            tuple(
                ArmSpec(name, arm.deployments, None if arm.share is None else _share(arm.share))
                for name, arm in split.arms.items()
            ),
        ),
        difficulty=None
        if (difficulty := options.difficulty) is None
        else DifficultySpec(difficulty.easy, difficulty.hard, float(difficulty.threshold), difficulty.classifier or ""),
        cascade=None if options.cascade is None else _cascade(options.cascade),
        sensitive=None
        if (sensitive := options.sensitive) is None
        else SensitiveSpec(
            EVERY_PII if sensitive.pii == "all" else sensitive.pii, sensitive.when, sensitive.media == "inside"
        ),
        ceilings=None
        if (ceilings := options.ceilings) is None
        else CeilingSpec(
            None if ceilings.cost is None else read_nanos(ceilings.cost),
            None if ceilings.first_token is None else seconds(ceilings.first_token),
            ceilings.unknown == "drop",
        ),
        places=None if (places := options.places) is None else PlacesSpec(places.allowed, places.preferred),
        context=options.context,
    )


def _cascade(options: CascadeOptions) -> CascadeSpec:
    rule = options.escalate
    return CascadeSpec(
        _steps(options),
        Escalation(
            _number(rule.mean_probability),
            _number(rule.min_probability),
            _number(rule.margin),
            float(rule.strictness),
            rule.schema,
            rule.refusal,
            rule.judge,
            float(rule.judge_at_least),
        ),
        None if options.hold == "all" else options.hold.first_tokens,
    )


def _steps(cascade: CascadeOptions) -> tuple[tuple[str, ...], ...]:
    return tuple((step,) if isinstance(step, str) else step for step in cascade.steps)


def _changes(rule: RuleOptions) -> PlanChanges:
    return PlanChanges(
        rule.max_attempts,
        None if rule.first_token is None else seconds(rule.first_token),
        None if rule.hedge_after is None else seconds(rule.hedge_after),
    )


def _share(text: str) -> float:
    return float(text.rstrip("%")) / 100


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _wrong_money(text: str) -> str | None:
    try:
        read_nanos(text)
    except ValueError as error:
        return str(error)
    return None
