"""What people write for `traffic:`, and what they are told when it is wrong."""

import pytest
import yaml

from penstock.core.request import Priority
from penstock.traffic.options import Gamma, Steps, TrafficError, Workload, read


def test_a_block_is_read_with_its_units():
    (workload,) = read(
        yaml.safe_load("""
        arrivals: {kind: gamma, cv: 3, rate: {kind: steps, points: [[0s, 2], [10m, 8.5]], period: 1h}}
        prompt_tokens: 300
        priority: high
        think: 500ms
        """)
    )
    assert workload.arrivals == Gamma(rate=Steps(points=((0.0, 2.0), (600.0, 8.5)), period=3_600.0), cv=3.0)
    assert (workload.prompt_tokens, workload.priority, workload.think) == (300, Priority.HIGH, 0.5)


def test_a_list_is_a_mix():
    users = {"arrivals": {"kind": "users", "users": 3}}
    assert [w.tenant for w in read([users | {"tenant": "a"}, users | {"tenant": "b"}])] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "traffic: is empty; write one workload, or a list of them"),
        ("7", "traffic: Expected `object`, got `int`"),
        ("{arrivals: {kind: poisson, rate: 1}, duration: 30}", "traffic.duration: Expected a duration with its unit"),
        ("{arrivals: {kind: poissson, rate: 1}}", "'poissson', expected one of constant, poisson, gamma, "),
        ("{arrivals: {kind: poisson, rate: {kind: day, mean: 1}}}", "'day', expected one of diurnal, steps, ramp"),
        ("{arrivals: {kind: users, users: 1}, turns: {kind: x}}", "expected one of lognormal, pareto, uniform, geo"),
        (
            "{arrivals: {kind: poisson, rat: 1}}",
            "traffic.arrivals: Object contains unknown field `rat`. Did you mean `rate`?",
        ),
        ("{arrivals: {kind: poisson, rate: 0}}", "traffic.arrivals.rate: Expected `float` > 0.0"),
        ("{arrivals: {kind: users, users: 1}, speed: 2}", "`speed` has no meaning for users"),
        ("{arrivals: {kind: trace, file: t, format: azure}, turns: 2}", "leave `turns` out"),
        ("{arrivals: {kind: trace, file: t, format: azure}, shared_prefix: {tokens: 9}}", "its own lengths"),
        ("{arrivals: {kind: poisson, rate: {kind: steps, points: [[9s, 1], [1s, 2]]}}}", "must rise"),
        ("{arrivals: {kind: poisson, rate: {kind: steps, points: [[0s, 0]]}}}", "always 0"),
        ("{arrivals: {kind: poisson, rate: {kind: ramp, points: [[9s, 1]], period: 9s}}}", "longer than its"),
        ("{arrivals: {kind: poisson, rate: {kind: diurnal, mean: 1, period: 0s}}}", "longer than 0s"),
        ("{arrivals: {kind: users, users: 1}, turns: {kind: uniform, min: 3, max: 2}}", "at least `min`"),
        ("{arrivals: {kind: users, users: 1}, turns: {kind: lognormal, median: 9, p95: 2}}", "below its `median`"),
        ("{arrivals: {kind: users, users: 1}, shared_prefix: {tokens: 131072}}", "leaves no room"),
        (
            "{arrivals: {kind: users, users: 1}, lengths: {file: t, format: azure}, prompt_tokens: 3}",
            "beside `lengths`",
        ),
        ("[{arrivals: {kind: users, users: 1}}, {arrivals: {kind: users}}]", "traffic[1].arrivals"),
    ],
)
def test_a_mistake_is_told_where_it_is(text, told):
    with pytest.raises(TrafficError) as error:
        read(yaml.safe_load(text))
    assert told in str(error.value)
    assert str(error.value).startswith("traffic")


def test_every_option_has_a_default_but_the_arrivals():
    with pytest.raises(TrafficError, match="missing required field `arrivals`"):
        read({})
    assert isinstance(read({"arrivals": {"kind": "users", "users": 1}})[0], Workload)
