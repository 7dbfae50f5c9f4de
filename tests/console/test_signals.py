"""Golden signals out of counters: what happened in a step is what they have grown by, and nothing else."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.console.signals import STEPS, WINDOWS, Signals, Step, Tally, percentile
from penstock.core.request import Usage
from penstock.telemetry.catalogue import TTFT_BUCKETS, with_bounds
from penstock.telemetry.fold import RequestMetrics
from penstock.telemetry.metrics import Registry, merge
from tests.console.outcomes import outcome

NOON = 1_800_000_000.0  # a multiple of 900


class World:
    def __init__(self, catalogue=None, on_step=None):
        self.registries = [Registry(catalogue or with_bounds({})) for _ in range(2)]
        self.metrics = [RequestMetrics(registry) for registry in self.registries]
        self.signals = Signals(catalogue or with_bounds({}), on_step)
        self.now = NOON
        self.tick()

    def tick(self, seconds=0.0, in_flight=0):
        self.now += seconds
        self.signals.tick(merge([registry.snapshot() for registry in self.registries]), in_flight, self.now)

    def happen(self, *outcomes, worker=0):
        for one in outcomes:
            self.metrics[worker].on_outcome(one)

    def overview(self, window=900, model=""):
        return self.signals.overview(window, model, self.now)


def test_what_two_workers_did_is_added_up():
    world = World()
    world.happen(outcome(), outcome(model="embed"), worker=0)
    world.happen(outcome(error="upstream_error"), worker=1)
    world.tick(1.0)
    total = world.overview()["total"]
    assert (total["requests"], total["errors"], total["prompt_tokens"], total["completion_tokens"]) == (3, 1, 30, 60)
    assert total["cost_nanos"] == 3_000


def test_one_model_alone_can_be_asked_for():
    world = World()
    world.happen(outcome(), outcome(), outcome(model="embed"))
    world.tick(1.0)
    assert [world.overview(model=name)["total"]["requests"] for name in ("", "chat", "embed", "nobody")] == [3, 2, 1, 0]
    assert [(one["model"], one["requests"]) for one in world.overview()["models"]] == [("chat", 2), ("embed", 1)]


def test_errors_are_those_that_their_caller_could_not_help():
    world = World()
    codes = ("invalid_request", "request_rate_limit", "client_left", "upstream_error", "no_replica")
    world.happen(*(outcome(error=code) for code in codes))
    world.tick(1.0)
    found = world.overview()
    assert (found["total"]["errors"], found["total"]["limited"], found["total"]["cancelled"]) == (2, 1, 1)
    assert {one["code"]: one["count"] for one in found["failures"]} == dict.fromkeys(codes, 1)


def test_percentiles_are_of_the_window_and_not_of_all_time():
    world = World()
    world.happen(*(outcome(ttft=4.0) for _ in range(50)))
    world.tick(1.0)
    world.tick(2_000.0)
    world.happen(*(outcome(ttft=0.1) for _ in range(50)))
    world.tick(1.0)
    assert world.overview()["total"]["ttft"]["p99"] <= 0.1
    assert 2.5 <= world.overview(3_600)["total"]["ttft"]["p95"] <= 4.0


def test_nothing_asked_is_no_percentile_and_not_zero():
    found = World().overview()
    assert found["total"]["ttft"] == {"p50": None, "p95": None, "p99": None}
    assert set(found["series"]["ttft_p50"]) == {None} and set(found["series"]["requests"]) == {0}


def test_the_window_before_is_told_once_something_is_known_of_it():
    world = World()
    world.happen(outcome())
    world.tick(1.0)
    assert world.overview()["before"] is None
    world.tick(900.0)
    world.happen(outcome(), outcome())
    world.tick(1.0)
    found = world.overview()
    assert (found["before"]["requests"], found["total"]["requests"]) == (1, 2)


@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_has_a_chart_of_equal_steps_that_ends_now(window):
    world = World()
    world.tick(12_345.0)
    found = world.overview(window)
    at = found["series"]["at"]
    assert 60 <= len(at) <= 120 and all(len(values) == len(at) for values in found["series"].values())
    assert at[-1] <= world.now < at[-1] + found["step"] and len(at) * found["step"] == window


def test_what_was_counted_before_the_first_look_happened_at_no_known_time():
    world = World()
    world.happen(outcome())
    late = Signals()
    late.tick(world.registries[0].snapshot(), 0, NOON)
    assert late.overview(900, "", NOON)["total"]["requests"] == 0


def test_thresholds_of_objectives_are_bounds_here_too():
    catalogue = with_bounds({"penstock_time_to_first_token_seconds": [0.33]})
    world = World(catalogue)
    world.happen(*(outcome(ttft=0.32) for _ in range(10)))
    world.tick(1.0)
    assert 0.3 <= world.overview()["total"]["ttft"]["p50"] <= 0.33


def test_steps_that_are_over_are_stored_and_known_again_after_a_restart():
    stored = {step: [] for step in STEPS}
    world = World(on_step=lambda step, at, body: stored[step].append((at, body)))
    world.happen(outcome(), outcome(error="upstream_error"))
    world.tick(1.0)
    world.tick(1_000.0)
    assert len(stored[60]) == 1 == len(stored[900]) and not stored[10]
    again = Signals()
    again.restore(60, [*stored[60], (0, b"garbage")])
    total = again.overview(3_600, "", world.now)["total"]
    assert (total["requests"], total["errors"]) == (2, 1) and total["ttft"]["p50"] is not None


def test_memory_is_bounded_however_long_it_runs():
    world = World()
    for _ in range(400):
        world.happen(outcome())
        world.tick(10.0)
    assert len(world.signals._kept[10]) == STEPS[10]


def test_models_beyond_the_bound_are_counted_together():
    step = Step()
    for n in range(200):
        step.tally(f"model-{n}").requests += 1
    assert len(step.models) <= 51 and step.of("").requests == 200 and step.of("other").requests == 150


def test_rates_are_of_the_last_moments():
    world = World()
    for _ in range(10):
        world.happen(outcome(usage=Usage(1, 30)), outcome(error="upstream_error", usage=Usage(1, 0)))
        world.tick(1.0)
    requests, errors, tokens = world.signals.rates()
    assert (requests, errors, tokens) == pytest.approx((2.0, 1.0, 30.0))


@given(st.lists(st.sampled_from([*TTFT_BUCKETS, inf]), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_percentile_lies_in_the_bucket_of_its_rank(values, q):
    bins = {bound: values.count(bound) for bound in values}
    found = percentile(bins, TTFT_BUCKETS, q)
    ordered = sorted(values)
    bound = ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]
    place = TTFT_BUCKETS.index(bound) if bound != inf else len(TTFT_BUCKETS)
    assert (TTFT_BUCKETS[place - 1] if place else 0.0) <= found <= min(bound, TTFT_BUCKETS[-1])


@given(
    st.lists(
        st.builds(
            Tally, requests=st.integers(0, 9), ttft=st.dictionaries(st.sampled_from(TTFT_BUCKETS), st.integers(1, 9))
        ),
        max_size=6,
    )
)
def test_adding_up_forgets_nothing_and_changes_no_part(tallies):
    before = [(one.requests, dict(one.ttft)) for one in tallies]
    whole = Tally()
    for one in tallies:
        whole.add(one)
    assert whole.requests == sum(n for n, _ in before)
    assert sum(whole.ttft.values()) == sum(sum(bins.values()) for _, bins in before)
    assert [(one.requests, one.ttft) for one in tallies] == before
