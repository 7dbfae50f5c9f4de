"""What is written about retries, outliers, shedding and degrading: what it means, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from penstock.config.compile import compile_plane
from penstock.config.diff import diff
from penstock.config.load import ConfigError, load
from penstock.config.spec import PlaneSpec
from penstock.resilience.options import NO_REPLICA, ConcurrencyRule, HedgeRule, OutlierRule, ShedRule, Step


def text(model: str = "", deployment: str = "", rest: str = "") -> str:
    return (
        f"models: {{ chat: {{ deployments: [it]{model and ', ' + model} }}, small: {{ deployments: [it] }} }}\n"
        f"deployments: {{ it: {{ engine: http://a:1{deployment and ', ' + deployment} }} }}\n{rest}"
    )


def plane(**parts: str) -> PlaneSpec:
    return compile_plane(load(text(**parts), "f"), 1, {})


def test_who_writes_nothing_gets_outliers_and_shedding_and_neither_hedges_nor_ladders_nor_limits():
    spec = plane()
    (deployment,) = spec.deployments
    assert deployment.outliers == OutlierRule()
    assert deployment.concurrency is None
    assert spec.shed == ShedRule()
    assert (spec.models[0].hedge, spec.models[0].plan.hedge_after, spec.models[0].degrade) == (None, None, ())


def test_every_option_reaches_the_plane_in_the_machines_own_units():
    spec = plane(
        deployment="outliers: { in_a_row: 3, failure_share: 50%, slow: 2.5x, eject_for: 10s, longest: 2m, most: 25%, "
        "ramp: 30s }, concurrency: { start: 8, least: 2, most: 64 }",
        rest="shed: { low: 50%, normal: 70%, high: 90%, target: 5s }",
    )
    (deployment,) = spec.deployments
    assert deployment.outliers == OutlierRule(3, 0.5, 2.5, eject_for=10.0, longest=120.0, most=0.25, ramp=30.0)
    assert deployment.concurrency == ConcurrencyRule(8, 2, 64)
    assert spec.shed == ShedRule(0.5, 0.7, 0.9, 5.0)


def test_off_is_off():
    spec = plane(deployment="outliers: off", rest="shed: off")
    assert spec.deployments[0].outliers is None
    assert spec.shed is None


def test_a_hedge_is_after_a_time_or_after_what_was_predicted():
    assert plane(model="hedge_after: auto").models[0].hedge == HedgeRule()
    assert plane(model="hedge_after: auto").models[0].plan.hedge_after is None
    fixed = plane(model="hedge_after: 2s").models[0]
    assert (fixed.hedge, fixed.plan.hedge_after) == (None, 2.0)


LADDER = """degrade: [
  { when: 80%, max_tokens: 512 }, { when: 90%, until: 50%, hold: 30s, model: small },
  { when: no_replica, answer: "Please try again." }]"""


def test_a_ladder_is_what_was_written_and_ends_ten_points_lower():
    first, second, last = plane(model=LADDER).models[0].degrade
    assert first == Step(0.8, pytest.approx(0.7), 10.0, max_tokens=512)
    assert second == Step(0.9, 0.5, 30.0, model="small")
    assert last == Step(NO_REPLICA, NO_REPLICA, answer="Please try again.")


def test_all_of_it_survives_being_sent_to_a_worker_and_being_stored():
    spec = plane(model=f"{LADDER}, hedge_after: auto", deployment="concurrency: {}")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=PlaneSpec) == spec
    assert msgspec.json.decode(msgspec.json.encode(spec), type=PlaneSpec) == spec


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"model": "hedge_after: 0s"}, "models.chat.hedge_after must be longer than 0s"),
        ({"model": "hedge_after: soon"}, "must be `auto`, or a duration"),
        ({"model": "degrade: [{ when: 80% }]"}, "degrade.0 needs exactly one of"),
        ({"model": "degrade: [{ when: 80%, cached: 1h, model: small }]"}, "degrade.0 needs exactly one of"),
        ({"model": "degrade: [{ when: 80%, model: chat }]"}, "degrade.0.model is this model itself"),
        ({"model": "degrade: [{ when: 80%, model: smal }]"}, "which is not a model. Did you mean `small`?"),
        ({"model": "degrade: [{ when: 80%, until: 90%, answer: No. }]"}, "degrade.0 must not end (below 0.9)"),
        ({"model": "degrade: [{ when: no_replica, until: 9%, answer: No. }]"}, "degrade.0.until has no meaning"),
        ({"model": "degrade: [{ when: 80%, cached: 1h }]"}, "there is no response cache yet: leave this step out"),
        (
            {"model": "degrade: [{ when: 80%, max_tokens: 9 }, { when: 70%, answer: No. }]"},
            "degrade.1 must not begin before the step above it",
        ),
        ({"model": "degrade: [{ when: often, answer: No. }]"}, "must be a saturation such as 85%, or `no_replica`"),
        ({"deployment": "outliers: { eject_for: 0s }"}, "`outliers: off` leaves nobody out"),
        ({"deployment": "outliers: { eject_for: 10m }"}, "outliers.longest must not be shorter"),
        ({"deployment": "outliers: { failure_share: 0% }"}, "more than 0% and at most 100%"),
        ({"deployment": "outliers: { most: 101% }"}, "must be at most 100%"),
        ({"deployment": "outliers: { slow: 1.5x }"}, "must be more than 1.5x"),
        ({"deployment": "outliers: on"}, "must be"),
        ({"deployment": "concurrency: { start: 2, least: 4 }"}, "needs `least` <= `start` <= `most`"),
        ({"rest": "shed: { low: 90% }"}, "`low` <= `normal` <= `high`"),
        ({"rest": "shed: { target: 0s }"}, "shed.target must be longer than 0s"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(parts: dict[str, str], told: str):
    with pytest.raises(ConfigError) as caught:
        load(text(**parts), "f")
    assert told in str(caught.value).replace(":", "") or told in str(caught.value)


def test_what_changed_is_told_in_words():
    before = plane()
    after = plane(
        model=LADDER, deployment="outliers: { slow: 5x }, concurrency: {}", rest="shed: { low: 40%, target: 5s }"
    )
    assert diff(before, after) == [
        "~ model chat: degrade: none -> max_tokens=512 from 80%, model=small from 90%, static from no replica",
        "~ deployment it: outliers: as usual -> slow 5.0",
        "~ deployment it: concurrency: none -> as usual",
        "~ shed: as usual -> low 0.4, target 5.0",
    ]
