"""How hard to try, and what to give up first: what no type can say about these options, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias

from penstock.config.problems import nearest
from penstock.config.resilience_options import (
    AUTO,
    NO_REPLICA,
    ConcurrencyOptions,
    DegradeOptions,
    OutlierOptions,
    ShedOptions,
)
from penstock.config.schema import Config, Deployment, Model
from penstock.config.units import seconds
from penstock.resilience import options as rules
from penstock.resilience.degrade import wrong

Path: TypeAlias = tuple[str, ...]
Found: TypeAlias = tuple[Path, str]
Named: TypeAlias = Callable[[Path], bool]

BELOW: Final = 0.1  # of saturation, between where a step begins and where it ends


def check(config: Config, named: Named) -> Iterator[Found]:
    for name, model in config.models.items():
        yield from _model(("models", name), name, model, named, config)
    for name, deployment in config.deployments.items():
        yield from _deployment(("deployments", name), deployment)
    if isinstance(config.shed, ShedOptions):
        levels = [_fraction(getattr(config.shed, option)) for option in ("low", "normal", "high")]
        if sorted(levels) != levels:
            yield ("shed",), "must not refuse a higher priority sooner than a lower one: `low` <= `normal` <= `high`"
        if config.shed.target is not None and seconds(config.shed.target) <= 0:
            yield ("shed", "target"), "must be longer than 0s"


def _model(path: Path, name: str, model: Model, named: Named, config: Config) -> Iterator[Found]:
    if hedge_after(model) == 0:
        yield (*path, "hedge_after"), "must be longer than 0s; leave it out for no hedging"
    for i, step in enumerate(model.degrade):
        here = (*path, "degrade", str(i))
        if step.when == NO_REPLICA and step.until is not None:
            yield (*here, "until"), "has no meaning for `no_replica`, which ends with the first replica that is back"
        if step.cached is not None:
            yield (*here, "cached"), "needs a response cache, and there is no response cache yet: leave this step out"
        if step.model == name:
            yield (*here, "model"), "is this model itself"
        elif step.model is not None and not named(("models", step.model)):
            yield (
                (*here, "model"),
                f"names `{step.model[:64]}`, which is not a model.{nearest(step.model, config.models)}",
            )
    if (found := wrong(ladder_of(model))) is not None:
        yield (*path, "degrade", str(found[0])), found[1]


def _deployment(path: Path, deployment: Deployment) -> Iterator[Found]:
    outliers, concurrency = deployment.outliers, deployment.concurrency
    if isinstance(outliers, OutlierOptions):
        here = (*path, "outliers")
        if seconds(outliers.eject_for) <= 0:
            yield (*here, "eject_for"), "must be longer than 0s; `outliers: off` leaves nobody out"
        elif seconds(outliers.longest) < seconds(outliers.eject_for):
            yield (*here, "longest"), f"must not be shorter than `eject_for` ({outliers.eject_for})"
        if not 0 < _fraction(outliers.failure_share) <= 1:
            yield (*here, "failure_share"), "must be more than 0% and at most 100%"
        if _fraction(outliers.most) > 1:
            yield (*here, "most"), "must be at most 100%"
        if _times(outliers.slow) <= 1.5:
            yield (*here, "slow"), "must be more than 1.5x: predictions are not better than that"
    if concurrency is not None and not concurrency.least <= concurrency.start <= concurrency.most:
        yield (*path, "concurrency"), "needs `least` <= `start` <= `most`"


def hedge_after(model: Model) -> float | None:
    """Seconds that were written down; None: not hedged, or after what was predicted."""
    return None if model.hedge_after is None or model.hedge_after == AUTO else seconds(model.hedge_after)


def hedge_of(model: Model) -> rules.HedgeRule | None:
    return rules.HedgeRule() if model.hedge_after == AUTO else None


def ladder_of(model: Model) -> rules.Ladder:
    return tuple(map(_step, model.degrade))


def _step(step: DegradeOptions) -> rules.Step:
    at = rules.NO_REPLICA if step.when == NO_REPLICA else _fraction(step.when)
    back = at if step.when == NO_REPLICA else max(0.0, at - BELOW) if step.until is None else _fraction(step.until)
    cached_for = None if step.cached is None else seconds(step.cached)
    return rules.Step(at, back, seconds(step.hold), step.max_tokens, step.model, cached_for, step.answer)


def outlier_rule(said: OutlierOptions | Literal["off"]) -> rules.OutlierRule | None:
    """None: nobody is left out for being worse than others."""
    if not isinstance(said, OutlierOptions):
        return None
    return rules.OutlierRule(
        in_a_row=said.in_a_row,
        share=_fraction(said.failure_share),
        slow=_times(said.slow),
        eject_for=seconds(said.eject_for),
        longest=seconds(said.longest),
        most=_fraction(said.most),
        ramp=seconds(said.ramp),
    )


def concurrency_rule(said: ConcurrencyOptions | None) -> rules.ConcurrencyRule | None:
    return None if said is None else rules.ConcurrencyRule(said.start, said.least, said.most)


def shed_rule(said: ShedOptions | Literal["off"]) -> rules.ShedRule | None:
    if not isinstance(said, ShedOptions):
        return None
    return rules.ShedRule(
        low=_fraction(said.low),
        normal=_fraction(said.normal),
        high=_fraction(said.high),
        target=None if said.target is None else seconds(said.target),
    )


def _fraction(percent: str) -> float:
    return float(percent.removesuffix("%")) / 100.0


def _times(text: str) -> float:
    return float(text.removesuffix("x"))
