"""Scenario files: what they mean, and what is said about those that mean nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from penstock.config.problems import ConfigError
from penstock.sim.options import EngineOptions, cost_model, hardware
from penstock.sim.scenario import build, load_scenario, named, simulate

SCENARIOS = sorted((Path(__file__).resolve().parents[2] / "examples" / "scenarios").glob("*.yaml"))
GOOD = """\
models:
  chat: { deployments: [pool, other], max_attempts: 3 }
deployments:
  pool: { engine: [http://10.0.0.1:8000/v1, http://10.0.0.2:8000/v1] }
  other: { engine: http://10.0.0.3:8000/v1 }
traffic:
  arrivals: { kind: constant, rate: 5 }
  prompt_tokens: 300
  output_tokens: 20
  requests: 40
events:
  - { at: 2s, what: dies, deployment: pool, lasts: 3s }
engine_model: { step: 5ms, gpu_hour: 2.5 }
simulation:
  replicas: { other: 3 }
  engines: { other: { hardware: llama2-70b/h100-80gb/8 } }
  policies: [least_cost, { name: mine, balancing: random, late_binding: off, retries: unlimited, max_attempts: 1 }]
"""


def nothing(name):
    raise AssertionError(f"{name} was opened")


def problems(text):
    with pytest.raises(ConfigError) as told:
        load_scenario(text, "s.yaml")
    return str(told.value).splitlines()


def test_a_scenario_is_a_penstock_yaml_with_engines_traffic_and_events():
    scenario = load_scenario(GOOD, "s.yaml")
    assert {name: d.replicas for name, d in scenario.deployments.items()} == {"pool": 2, "other": 3}
    assert scenario.deployments["pool"].engine.step == 0.005
    assert scenario.deployments["pool"].engine.per_prefill_token == 1 / 8_000
    assert scenario.deployments["other"].gpus == 8
    assert scenario.plans["chat"].max_attempts == 3
    assert [policy.name for policy in scenario.policies] == ["least_cost", "mine"]


def test_every_policy_meets_the_same_traffic_and_the_same_seed_gives_the_same_results():
    scenario = load_scenario(GOOD, "s.yaml")
    runs = [simulate(scenario, policy, nothing) for policy in scenario.policies]
    assert [one.results.requests for one in runs] == [40, 40]
    again = simulate(scenario, scenario.policies[0], nothing)
    assert msgspec.json.encode(again) == msgspec.json.encode(runs[0])


def test_while_a_deployment_is_down_the_next_one_answers():
    scenario = load_scenario(GOOD, "s.yaml")
    made = build(scenario, scenario.policies[0], nothing)
    made.run()
    words = made.log.words
    by_time = [(made.log.arrived[i], words[made.log.deployment[i]]) for i in range(len(made.log))]
    assert {who for at, who in by_time if at < 1.5} == {"pool"}
    assert {who for at, who in by_time if 2.0 <= at < 4.0} == {"other"}


def test_problems_are_told_with_their_lines_and_the_nearest_right_name():
    bad = GOOD.replace("deployment: pool, lasts", "replica: poll-1, lasts").replace("{ other: 3 }", "{ othr: 3 }")
    bad = bad.replace("llama2-70b/h100-80gb/8", "llama2-70b/h100-80/8").replace("[least_cost,", "[leest_cost,")
    assert problems(bad) == [
        "s.yaml:12: events[0].replica names no replica: 'poll-1'. Did you mean `pool-1`?",
        "s.yaml:15: simulation.replicas.othr names no deployment. Did you mean `other`?",
        "s.yaml:16: simulation.engines.other.hardware is not in the table: 'llama2-70b/h100-80/8'. "
        "Did you mean `llama2-70b/h100-80gb/8`?",
        "s.yaml:17: simulation.policies[0] is no policy: 'leest_cost'. Did you mean `least_cost`?",
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("deployments: [pool, other]", "deployments: [pol]", "s.yaml:2:"),
        ("what: dies", "what: dyes", "s.yaml:12: events.0.what must be"),
        ("step: 5ms", "stepp: 5ms", "s.yaml:13: engine_model.stepp is not an option. Did you mean `step`?"),
        ("kind: constant", "kind: konstant", "s.yaml:7: traffic.arrivals.kind"),
        ("deployment: pool, lasts", "lasts", "s.yaml:12: events[0] needs either a `replica` or a `deployment`"),
        ("step: 5ms", "block_size: 1000000, step: 5ms", "s.yaml:13: engine_model n_blocks must be at least 1"),
        ("{ name: mine", "{ name: least_cost", "s.yaml:17: simulation.policies[1] is there twice: 'least_cost'"),
    ],
)
def test_each_kind_of_mistake_has_its_line(right, wrong, told):
    assert right in GOOD
    found = problems(GOOD.replace(right, wrong))
    assert any(line.startswith(told) for line in found), found


def test_a_scenario_without_traffic_says_so():
    begin, end = GOOD.index("traffic:"), GOOD.index("events:")
    assert problems(GOOD[:begin] + GOOD[end:]) == ["s.yaml:1: traffic is missing: which requests arrive, and when"]


def test_every_row_of_the_table_of_hardware_is_an_engine_that_decodes_faster_with_more_gpus():
    models = {name: cost_model(EngineOptions(hardware=name)) for name in hardware()}
    assert len(models) >= 6
    for name, (model, gpus) in models.items():
        assert name.endswith(f"/{gpus}")
        assert model.kv_tokens > 50_000
    four, eight = (models[f"llama2-70b/h100-80gb/{gpus}"][0] for gpus in (4, 8))
    assert eight.per_prefill_token < four.per_prefill_token


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda path: path.name)
def test_the_example_runs_and_the_gateway_as_it_comes_is_the_best_of_those_compared(file):
    """Takes seconds: each is a few thousand requests."""
    scenario = load_scenario(file.read_text(encoding="utf-8"), file.name)
    runs = [simulate(scenario, policy, nothing).results for policy in scenario.policies]
    assert all(one.requests > 1_000 for one in runs)
    assert runs[0].good >= max(one.good for one in runs[1:])


def test_naive_retries_collapse_where_a_budget_recovers():
    file = next(path for path in SCENARIOS if path.name == "brown_out.yaml")
    scenario = load_scenario(file.read_text(encoding="utf-8"), file.name)
    ours, naive = (simulate(scenario, policy, nothing).results for policy in scenario.policies)
    after = [interval.good for interval in ours.intervals if 130 <= interval.at < 230]
    never = [interval.good for interval in naive.intervals if 130 <= interval.at < 230]
    assert sum(after) / len(after) > 0.9
    assert sum(never) / len(never) < 0.1
    assert ours.extra_attempts <= 0.2 < naive.extra_attempts


def test_a_policy_goes_by_its_name():
    policy = named("least_cost")
    assert policy is not None
    assert policy.late_binding == "hrrn"
    assert named("cheapest") is None


CROWDED = """\
models:
  chat:
    deployments: [pool]
    hedge_after: auto
    degrade: [{ when: 60%, max_tokens: 32 }, { when: 90%, model: small }]
  small: { deployments: [other] }
deployments:
  pool:
    engine: [http://10.0.0.1:8000/v1, http://10.0.0.2:8000/v1, http://10.0.0.3:8000/v1]
    outliers: { slow: 4x }
    balancing: { policy: round_robin }
  other: { engine: http://10.0.0.4:8000/v1, outliers: off, concurrency: { start: 7 } }
shed: { target: 2s }
queue: { order: fcfs }
traffic:
  - { model: chat, arrivals: { kind: poisson, rate: 40 }, prompt_tokens: 900, output_tokens: 200, duration: 40s }
  - model: chat
    priority: low
    arrivals: { kind: poisson, rate: 5 }
    prompt_tokens: 90
    output_tokens: 20
    duration: 40s
simulation:
  policies: [{ name: written }, { name: bare, outliers: false, hedge: false, shed: false, degrade: false }]
"""


def test_what_the_file_says_of_trouble_and_pressure_is_what_the_machines_are_told():
    scenario = load_scenario(CROWDED, "s.yaml")
    made = build(scenario, scenario.policies[0], nothing)
    fleet = made.fleet
    assert {name: watch.outliers.rule.slow for name, watch in fleet.watches.items()} == {"pool": 4.0}
    assert fleet.routes["chat"].hedging is not None
    assert fleet.routes["small"].hedging is None
    assert [step.name for step in fleet.routes["chat"].ladder] == ["max_tokens=32", "model=small"]
    assert fleet.gates["other-0"].concurrency.limit == 7
    assert (fleet.shed.target, fleet.queues[0].options.order) == (2.0, "fcfs")
    assert made.fleet.balancer.rule("pool").options.policy == "round_robin"
    assert [queued.key for queued in fleet.queues] == [("pool",), ("other",)], "their models share no deployment"
    bare = build(scenario, scenario.policies[1], nothing).fleet
    assert (bare.watches, bare.shed, bare.routes["chat"].hedging, bare.routes["chat"].ladder) == ({}, None, None, ())


def test_under_too_much_traffic_the_low_are_turned_away_answers_are_shorter_and_another_model_helps():
    scenario = load_scenario(CROWDED, "s.yaml")
    written, bare = (simulate(scenario, policy, nothing).results for policy in scenario.policies)
    assert written.failures["shed"] > 50
    assert set(written.answered_by) == {"pool", "other"}
    assert set(bare.answered_by) == {"pool"}
    assert "shed" not in bare.failures
    assert written.ttft.p95 < bare.ttft.p95 / 2


def test_a_slow_replica_is_left_out_where_the_file_does_not_say_otherwise():
    text = GOOD.replace(
        "- { at: 2s, what: dies, deployment: pool, lasts: 3s }", "- { at: 5s, what: hangs, replica: pool-1 }"
    )
    text = (
        text.replace("rate: 5", "rate: 20")
        .replace("requests: 40", "requests: 600")
        .replace("max_attempts: 3", "max_attempts: 3, timeouts: { first_token: 20s }")
    )
    policies = "policies: [{ name: written, late_binding: off }, { name: bare, late_binding: off, outliers: false }]"
    text = text[: text.index("policies:")].rstrip() + f"\n  {policies}\n"
    scenario = load_scenario(text, "s.yaml")
    written, bare = (simulate(scenario, policy, nothing).results for policy in scenario.policies)
    assert written.ttft.max < 10.0 < bare.ttft.max


def test_what_lies_between_gateway_and_engine_is_added_to_each_first_token():
    quiet = GOOD.replace("at: 2s", "at: 60s")
    near, far = (
        simulate(load_scenario(quiet.replace("step: 5ms", step), "s.yaml"), policy, nothing).results
        for policy in load_scenario(GOOD, "s.yaml").policies[:1]
        for step in ("step: 5ms", "step: 5ms, overhead: 30ms")
    )
    assert far.ttft.p50 == pytest.approx(near.ttft.p50 + 0.03, abs=0.006)
