import re
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.balancing.balancer import Balancer
from penstock.balancing.explain import consider
from penstock.balancing.options import Balancing
from penstock.balancing.policies import POLICIES, Ask
from penstock.balancing.sessions import IDLE, MOST, Sessions
from penstock.core.fleet import Replica
from tests.balancing.worlds import REQUEST, STEPS, choose, fleet, open_gates, request

loads = st.lists(st.integers(0, 40), min_size=1, max_size=12)


def pool_of(loads):
    return [Replica(f"r{n}", "d", inflight=inflight) for n, inflight in enumerate(loads)]


def counts(policy, pool, times=1_000, ask=None, places=None):
    policy, rng = POLICIES[policy](Balancing()), Random(4)
    seen = [policy.pick(ask or Ask(100, 100, 0.0), pool, places or range(len(pool)), rng) for _ in range(times)]
    return [seen.count(place) for place in range(len(pool))]


@pytest.mark.parametrize("name", POLICIES)
@given(loads=loads, data=st.data())
def test_a_policy_chooses_only_among_those_that_may_be_asked(name, loads, data):
    pool = pool_of(loads)
    places = data.draw(st.lists(st.sampled_from(range(len(pool))), min_size=1, unique=True))
    ask = Ask(100, 100, 0.0)
    ask.key = data.draw(st.integers(0, 2**64 - 1))
    policy, rng = POLICIES[name](Balancing(policy=name)), Random(1)
    assert {policy.pick(ask, pool, places, rng) for _ in range(5)} <= set(places)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_an_option_and_chooses(name):
    balancer = Balancer(defaults=Balancing(policy=name))
    assert {choose([fleet(0, 0)], balancer, seed=seed).place for seed in range(60)} <= {0, 1}


def test_the_page_names_every_option_with_its_default_and_every_policy():
    page = (Path(__file__).parents[2] / "docs" / "balancing.md").read_text()
    options, policies = page.split("## Options")[1].split("## Other policies")
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", options, re.M))
    assert rows == {name: str(value) for name, value in msgspec.structs.asdict(Balancing()).items()}
    assert set(re.findall(r"^\| `(\w+)` \|", policies, re.M)) == set(POLICIES)


def test_round_robin_asks_each_in_turn_and_passes_over_those_that_may_not_be():
    policy, pool, rng = POLICIES["round_robin"](Balancing()), pool_of([0] * 4), Random(1)
    seen = [policy.pick(Ask(1, 1, 0.0), pool, range(4), rng) for _ in range(9)]
    assert all((one + 1) % 4 == other for one, other in pairwise(seen))
    policy.pick(Ask(1, 1, 0.0), pool, [0], rng)
    assert [policy.pick(Ask(1, 1, 0.0), pool, [0, 2, 3], rng) for _ in range(4)] == [2, 3, 0, 2]


def test_least_requests_asks_the_one_with_fewest_and_equals_share():
    few = counts("least_requests", pool_of([5, 1, 1, 9]))
    assert few[0] == few[3] == 0
    assert min(few[1:3]) > 400


def test_the_better_of_two_is_never_the_worst():
    spread = counts("power_of_two", pool_of([1, 2, 3]))
    assert spread[2] == 0
    assert spread[0] > spread[1] > 250


def test_weights_decide_the_share():
    pool = pool_of([0, 0, 0])
    pool[1].weight = 8.0
    assert counts("weighted", pool)[1] == pytest.approx(800, abs=50)
    assert min(counts("random", pool)) > 270


def test_a_key_stays_at_its_replica_and_only_those_of_a_lost_one_move():
    pool = pool_of([0] * 5)

    def places(among):
        policy, found = POLICIES["consistent_hash"](Balancing()), []
        for key in range(1, 400):
            ask = Ask(1, 1, 0.0)
            ask.key = key * 0x9E37_79B9_7F4A_7C15 % 2**64
            found.append(policy.pick(ask, pool, among, Random(1)))
        return found

    whole, without = places(range(5)), places([0, 1, 3, 4])
    assert min(whole.count(place) for place in range(5)) > 50
    assert all(before in (after, 2) for before, after in zip(whole, without, strict=True))


@given(loads, st.integers(1, 2**64 - 1))
def test_no_key_makes_a_replica_busier_than_a_quarter_above_the_mean(loads, key):
    pool, ask = pool_of(loads), Ask(1, 1, 0.0)
    ask.key = key
    place = POLICIES["consistent_hash"](Balancing()).pick(ask, pool, range(len(pool)), Random(1))
    assert pool[place].inflight < 1.25 * (sum(loads) + 1) / len(loads) + 1


def test_a_session_is_the_key_or_else_the_beginning_of_the_prompt():
    balancer = Balancer()
    keys = [
        balancer.ask(asked, 0.0).key
        for asked in (
            request(session="s"),
            request(session="s", prefix_hashes=(9,)),
            request(),
            request(prefix_hashes=()),
        )
    ]
    assert keys[0] == keys[1] != keys[2] == 1
    assert keys[3] == 0


def test_it_is_explained_why_each_replica_was_chosen_or_not():
    main, backup = fleet(0, 9_000, 0, 0, 0, 0), [Replica("z", "backup")]
    main[2].ready, main[3].ejected_until = False, 9.0
    main[4].cool(5.0, rate_limited=True)
    pools, gates = [main, backup], open_gates([main, backup])
    for _ in range(9):
        gates["r5"].on_failure(0.0)
    balancer = Balancer(defaults=Balancing(exploration=0.0))
    balancer.index.sent((1, 2), STEPS, 1_024, main[0], 0.0)
    chosen = choose(pools, balancer, gates=gates)
    told = consider(balancer, REQUEST, pools, gates, (), 0.0, chosen)
    assert [(one.replica, one.verdict) for one in told] == [
        ("r0", "chosen"),
        ("r1", "costlier"),
        ("r2", "not ready"),
        ("r3", "ejected"),
        ("r4", "cooling"),
        ("r5", "breaker"),
        ("z", "later"),
    ]
    assert told[0].cost == pytest.approx(chosen.cost)
    assert told[0].wait == pytest.approx(chosen.wait)
    assert told[0].cached_tokens == 1_024
    assert told[1].cost == pytest.approx(told[1].own + told[1].others + told[1].batch + told[1].memory)


def test_an_explanation_names_other_policies_and_what_was_tried():
    balancer = Balancer(defaults=Balancing(policy="least_requests"))
    pools = [pool_of([3, 1, 2])]
    gates = open_gates(pools)
    chosen = choose(pools, balancer, tried=["r1"])
    verdicts = [one.verdict for one in consider(balancer, REQUEST, pools, gates, ["r1"], 0.0, chosen)]
    assert verdicts == ["policy", "tried", "chosen"]


def test_a_session_is_forgotten_when_it_is_idle_or_its_replica_is_gone():
    sessions = Sessions()
    sessions.bind("one", "r0", 100, 0.0)
    sessions.bind("two", "r1", 200, IDLE - 1)
    assert sessions.find("one", IDLE - 0.1).tokens == 100
    assert sessions.find("one", IDLE) is None
    sessions.bind("two", "r1", 300, IDLE + 1)
    assert len(sessions) == 1
    sessions.forget("r1")
    assert sessions.find("two", IDLE + 1) is None


def test_sessions_are_bounded_and_those_longest_idle_go_first():
    sessions = Sessions()
    for n in range(MOST + 5):
        sessions.bind(f"s{n}", "r0", 1, n / 1e6)
    assert len(sessions) == MOST
    assert sessions.find("s4", 1.0) is None
    assert sessions.find("s5", 1.0) is not None
