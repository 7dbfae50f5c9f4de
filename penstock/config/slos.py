"""Service levels and alerts of the file: what no type can say about them, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from msgspec.structs import replace

from penstock.config.problems import nearest
from penstock.config.schema import Config
from penstock.config.slo_options import NotifyOptions, RuleOptions, SloOptions, share
from penstock.config.units import seconds
from penstock.quality.alerts import RULES, Foreign, Grown, Level, Rule, Share
from penstock.quality.notices import Kind, Target
from penstock.quality.sli import HISTOGRAMS, Indicator, bounds_of, sli_of
from penstock.quality.slo import DAY, Queries, Slo

Path: TypeAlias = tuple[str, ...]
Found: TypeAlias = tuple[Path, str]
Named: TypeAlias = Callable[[Path], bool]

_SHIPPED = {rule.name: rule for rule in RULES}
_KINDS: tuple[Kind, ...] = ("webhook", "slack", "alertmanager")


def check(config: Config, named: Named) -> Iterator[Found]:
    for name, slo in config.slos.items():
        yield from _slo(("slos", name), slo, config, named)
    for name, options in config.alerts.rules.items():
        here = ("alerts", "rules", name)
        rule = _SHIPPED.get(name)
        if rule is None:
            yield here, f"is not an alert that is shipped.{nearest(name, _SHIPPED) or ' docs/slos.md has them all.'}"
        else:
            yield from _rule(here, rule, options)
    for i, target in enumerate(config.alerts.notify):
        here = ("alerts", "notify", str(i))
        if sum(getattr(target, kind) is not None for kind in _KINDS) != 1:
            yield here, "needs exactly one of `webhook`, `slack` and `alertmanager`"
        if seconds(target.repeat) < 60:
            yield (*here, "repeat"), "must be at least 1m"


def slos_of(config: Config) -> tuple[Slo, ...]:
    return tuple(slo_of(name, options) for name, options in config.slos.items())


def slo_of(name: str, options: SloOptions) -> Slo:
    queries = options.queries
    return Slo(
        name,
        round(share(options.objective), 8),
        None if options.of is None else Indicator(options.of),
        None if options.within is None else seconds(options.within),
        options.models,
        seconds(options.period),
        options.min_events,
        None if queries is None else Queries(queries.errors, queries.total),
    )


def rules_of(config: Config) -> tuple[Rule, ...]:
    """The shipped alerts, as far as they are wanted, as they are wanted."""
    found = ((rule, config.alerts.rules.get(rule.name)) for rule in RULES)
    return tuple(
        rule if options is None else _changed(rule, options)
        for rule, options in found
        if options is None or options.enabled
    )


def targets_of(config: Config) -> tuple[Target, ...]:
    return tuple(map(_target, config.alerts.notify))


def thresholds_of(slos: Iterable[Slo], rules: Iterable[Rule]) -> dict[str, tuple[float, ...]]:
    """The bounds that histograms need beside their own, for `telemetry.catalogue.with_bounds`."""
    slis = [slo.sli for slo in slos] + [rule.condition.sli for rule in rules if isinstance(rule.condition, Share)]
    found: dict[str, set[float]] = {}
    for sli in slis:
        for metric, bounds in bounds_of(() if sli is None else sli.bad).items():
            found.setdefault(metric, set()).update(bounds)
    return {metric: tuple(sorted(bounds)) for metric, bounds in sorted(found.items())}


def _slo(here: Path, slo: SloOptions, config: Config, named: Named) -> Iterator[Found]:
    if not 0 < share(slo.objective) < 1:
        yield (*here, "objective"), "must be more than 0% and less than 100%: without an error budget nothing may fail"
    if (slo.of is None) is (slo.queries is None):
        yield here, "needs `of`, which says what is measured, or `queries`, and not both"
    latency = slo.of is not None and Indicator(slo.of) in HISTOGRAMS
    if latency and slo.within is None:
        yield here, f"needs `within`: how long `{slo.of}` may take"
    elif not latency and slo.within is not None:
        yield (*here, "within"), "belongs to a latency: ttft, tpot, e2e or queue"
    elif slo.within is not None and seconds(slo.within) <= 0:
        yield (*here, "within"), "must be longer than 0s"
    if not DAY <= seconds(slo.period) <= 90 * DAY:
        yield (*here, "period"), "must be from 1d to 90d"
    for i, model in enumerate(slo.models):
        if not named(("models", model)):
            yield (
                (*here, "models", str(i)),
                f"names `{model[:64]}`, which is not a model.{nearest(model, config.models)}",
            )
    if slo.models and slo.queries is not None:
        yield (*here, "models"), "has no meaning beside `queries`, which say themselves what they are of"


def _rule(here: Path, rule: Rule, options: RuleOptions) -> Iterator[Found]:
    if options.over is None:
        return
    condition = rule.condition
    if isinstance(condition, Grown | Foreign):
        yield (*here, "over"), "has no meaning: this alert has no threshold that could be another one"
    elif isinstance(condition, Share) and condition.bound is not None:
        if not _is_time(options.over) or seconds(options.over) <= 0:
            yield (*here, "over"), "must be a duration longer than 0s, such as 3s"
    elif condition.unit == "%":
        if not options.over.endswith("%"):
            yield (*here, "over"), "must be a percentage such as 10%"
    elif condition.unit == "s":
        if not _is_time(options.over):
            yield (*here, "over"), "must be a duration such as 5m"
    elif not options.over[-1].isdigit():
        yield (*here, "over"), "must be a number"


def _is_time(text: str) -> bool:
    return not text.endswith("%") and not text[-1].isdigit()


def _changed(rule: Rule, options: RuleOptions) -> Rule:
    if options.over is not None:
        rule = replace(rule, condition=_over(rule.condition, options.over))
    if options.holds_for is not None:
        rule = replace(rule, holds_for=seconds(options.holds_for))
    return rule if options.severity is None else replace(rule, severity=options.severity)


def _over(condition: Share | Level | Grown | Foreign, text: str) -> Share | Level:
    assert isinstance(condition, Share | Level), "`check` has refused it"
    if isinstance(condition, Share) and condition.bound is not None:
        (latency,) = (one for one, metric in HISTOGRAMS.items() if metric == condition.sli.bad[0].metric)
        return replace(condition, sli=sli_of(latency, seconds(text)))
    value = share(text) if condition.unit == "%" else seconds(text) if condition.unit == "s" else float(text)
    return replace(condition, over=value)


def _target(options: NotifyOptions) -> Target:
    kind = next(kind for kind in _KINDS if getattr(options, kind) is not None)
    return Target(kind, getattr(options, kind), options.severity, seconds(options.repeat))
