"""Simulated requests through queue, retries and faults: nothing leaks, and the same seed gives the same."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.balancing.queue_options import QueueOptions
from penstock.core.plan import Plan
from penstock.core.request import Priority
from penstock.sim.cost_model import MODEL_A, CostModel
from penstock.sim.deployment import Deployment
from penstock.sim.events import schedule
from penstock.sim.options import Event
from penstock.sim.run import Listed, Simulation, balanced_by
from penstock.traffic.arrival import Arrival

SMALL = msgspec.structs.replace(MODEL_A, kv_tokens=16_384, max_seqs=4)
PLAN = Plan(("main",), max_attempts=4, first_token_timeout=3.0, idle_timeout=2.0, total_timeout=60.0)


def arrivals(sizes, gap=0.05):
    return [
        Arrival(number, number * gap + 1e-6, prompt, output, tenant=tenant, priority=priority)
        for number, (prompt, output, tenant, priority) in enumerate(sizes)
    ]


def simulation(sizes, *, engine: CostModel = SMALL, replicas=2, queue=None, events=(), plan=PLAN, gap=0.05, **more):
    made = Simulation(
        {"main": Deployment(replicas=replicas, engine=engine)},
        Listed(arrivals(sizes, gap)),
        plans={"m": plan},
        queue=queue,
        seed=3,
        **more,
    )
    schedule(made, events, {"main": 1.0})
    made.run()
    return made


def check_nothing_is_held(made):
    assert made._alive == 0
    for engine in made.engines:
        replica = engine.replica
        assert (replica.inflight, replica.inflight_tokens, replica.pending_tokens) == (0, 0, 0), replica
        assert engine.calls == {}
        engine.model.scheduler.check()
        assert not engine.model.scheduler.has_work
    if made.fleet.line is not None:
        made.fleet.line.queue.check()
        assert made.fleet.line.queue.view(made.world.now).running == 0
        assert made.fleet.line._owners == {}


sizes = st.lists(
    st.tuples(st.integers(1, 6_000), st.integers(1, 60), st.sampled_from(["a", "b"]), st.sampled_from(list(Priority))),
    max_size=25,
)
spans = st.integers(0, 3_000).map(lambda n: f"{n / 1000 + 0.0003:.4f}s")
happenings = st.lists(
    st.builds(
        Event,
        at=spans,
        what=st.sampled_from(["dies", "hangs", "slows", "fails", "deploys"]),
        replica=st.sampled_from(["main-0", "main-1"]),
        lasts=spans,
        share=st.sampled_from(["0.5", "1"]),
        status=st.sampled_from([429, 500, 503]),
    ),
    max_size=3,
)


@given(sizes, happenings, st.sampled_from([None, QueueOptions(), QueueOptions(order="fcfs")]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_happens_every_request_ends_once_and_nothing_is_held(asked, events, queue, hedges):
    plan = msgspec.structs.replace(PLAN, hedge_after=0.4) if hedges else PLAN
    made = simulation(asked, events=events, queue=queue, plan=plan)
    check_nothing_is_held(made)
    assert sorted(made.log.number) == list(range(len(asked)))


@given(sizes, happenings)
@settings(max_examples=25, deadline=None)
def test_the_same_seed_gives_the_same_results(asked, events):
    first, second = (simulation(asked, events=events, queue=QueueOptions()) for _ in range(2))
    assert first.log.ended == second.log.ended
    assert msgspec.json.encode(first.results()) == msgspec.json.encode(second.results())


def test_who_streams_from_a_replica_that_dies_is_told_and_who_waits_is_answered_by_another():
    event = Event(at="1s", what="dies", replica="main-0")
    made = simulation([(4_000, 400, "a", Priority.NORMAL)] * 12, engine=MODEL_A, events=[event], gap=0.2)
    results = made.results()
    assert set(results.failures) == {"network"}
    broken = [i for i in range(len(made.log)) if made.log.failed[i]]
    assert all(made.log.first[i] < 1.0 <= made.log.ended[i] for i in broken)
    assert results.completed == 12 - len(broken) > 6
    assert results.extra_attempts > 0


def test_a_replica_that_is_deployed_ends_what_it_has_and_gets_nothing_until_it_is_back():
    event = Event(at="1s", what="deploys", replica="main-0")
    made = simulation([(500, 200, "a", Priority.NORMAL)] * 40, engine=MODEL_A, events=[event], gap=0.2)
    assert made.results().failures == {}
    assert made.engines.by_name["main-0"].up


def test_a_hung_replica_fails_its_streams_after_the_idle_timeout_and_the_others_by_their_first_token():
    event = Event(at="1.0003s", what="hangs", replica="main-0", lasts="20s")
    made = simulation([(100, 300, "a", Priority.NORMAL)] * 10, engine=MODEL_A, events=[event], gap=0.19)
    assert set(made.results().failures) == {"idle_timeout"}
    late = [made.log.ended[i] for i in range(len(made.log)) if made.log.failed[i]]
    assert all(abs(ended - 3.0003) < 1e-6 for ended in late)


def test_an_answer_that_takes_longer_than_all_may_take_is_cut_off_then():
    plan = msgspec.structs.replace(PLAN, total_timeout=2.0)
    made = simulation([(64, 2_000, "a", Priority.NORMAL), (64, 20, "a", Priority.NORMAL)], plan=plan)
    assert made.results().failures == {"total_timeout": 1}
    assert max(made.log.ended) == pytest.approx(2.0, abs=1e-5)
    check_nothing_is_held(made)


def test_a_prompt_that_fits_into_no_engine_is_refused_as_too_long():
    made = simulation([(20_000, 10, "a", Priority.NORMAL)])
    assert made.results().failures == {"context_length": 1}


def test_an_answer_of_one_token_has_a_first_token_also_when_it_was_hedged_or_tried_again():
    plan = msgspec.structs.replace(PLAN, hedge_after=0.1)
    events = [Event(at="0.0003s", what="fails", replica="main-0", status=500)]
    made = simulation([(4_000, 1, "a", Priority.NORMAL)] * 6, events=events, plan=plan)
    assert made.results().completed == 6
    assert made.results().extra_attempts > 0
    assert all(first == ended for first, ended in zip(made.log.first, made.log.ended, strict=True))


def test_follow_ups_come_when_the_answer_before_them_has_ended():
    class Conversation:
        def __init__(self):
            self.left = 3

        def next(self):
            self.left -= 1
            return Arrival(0, 0.5, 100, 10) if self.left == 2 else None

        def ended(self, arrival, now, ok=True):
            assert ok
            self.left -= 1
            return Arrival(arrival.number + 1, now + 1.0, 100, 10) if self.left >= 0 else None

    made = Simulation({"main": Deployment(replicas=1, engine=MODEL_A)}, Conversation())
    made.run()
    assert list(made.log.number) == [0, 1]
    assert made.log.arrived[1] == made.log.ended[0] + 1.0


def test_prefix_reuse_is_counted_as_the_engine_found_it_and_bounded_by_one_cache_for_all():
    hashes, covers = tuple(range(8)), tuple(range(512, 4_097, 512))
    asked = [Arrival(n, n * 5.0, 4_100, 4, prefix_hashes=hashes, prefix_tokens=covers) for n in range(4)]
    made = Simulation(
        {"main": Deployment(replicas=2, engine=MODEL_A)}, Listed(asked), balancer=balanced_by("round_robin")
    )
    made.run()
    results = made.results()
    assert results.prefix_bound == 3 * 4_096 / (4 * 4_100)
    assert results.prefix_reuse == 2 * 4_096 / (4 * 4_100)
