from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.balancing.balancer import MAX_SCORED, Balancer, wait_for_any
from penstock.balancing.options import Balancing
from penstock.core.fleet import PREFILL_RATE, Replica
from penstock.resilience.breaker import Breaker, BreakerRule
from tests.balancing.worlds import REQUEST, STEPS, choose, chosen, fleet, open_gates, request

STILL = Balancing(exploration=0.0)


def send(balancer, pools, asked=REQUEST, now=0.0, rng=None, gates=None):
    """Choose and dispatch: (replica, Dispatch)."""
    choice = balancer.choose(asked, pools, gates or open_gates(pools), (), now, rng or Random(1))
    replica = pools[choice.pool][choice.place]
    return replica, balancer.dispatch(asked, replica, choice, now)


def test_the_replica_with_the_least_work_ahead_is_asked():
    assert chosen([fleet(9_000, 1_000, 5_000)]) == "r1"


def test_equal_replicas_share_the_work():
    seen = [chosen([fleet(0, 0, 0)], seed=seed) for seed in range(300)]
    assert all(70 < seen.count(name) < 130 for name in ("r0", "r1", "r2"))


def test_replicas_that_differ_by_less_than_can_be_known_share_the_work():
    pool = fleet(0, 0)
    pool[0].prefill_rate *= 1.04
    seen = [chosen([pool], Balancer(defaults=STILL), seed=seed) for seed in range(300)]
    assert 110 < seen.count("r0") < 190


@pytest.mark.parametrize("speed", [500.0, 100_000.0])
def test_a_replica_that_nothing_is_known_of_is_taken_to_be_like_its_siblings(speed):
    balancer, asked = Balancer(defaults=STILL), request(prefix_hashes=())
    known, new = fleet(0)[0], Replica("new", "d")
    choice = choose([[known, new]], balancer, asked)
    for now in range(0, 400, 10):
        held = balancer.dispatch(asked, known, choice, now)
        held.first_token(now + 2_000 / speed)
        held.ended(now + 2_000 / speed)
    assert known.prefill_rate == pytest.approx(speed, rel=0.3)
    assert new.prefill_rate == known.prefill_rate
    assert balancer.rates(new).points == 0


def test_one_of_a_hundred_requests_goes_anywhere():
    seen = [chosen([fleet(90_000, 0)], seed=seed) for seed in range(4_000)]
    assert 5 <= seen.count("r0") <= 40
    assert "r0" not in [chosen([fleet(90_000, 0)], Balancer(defaults=STILL), seed=seed) for seed in range(4_000)]


def test_nobody_explores_where_a_replica_is_new_or_suspected():
    def seen(ramp):
        for seed in range(2_000):
            pool = fleet(90_000, 0)
            pool[0].ramp = ramp
            yield chosen([pool], seed=seed)

    assert "r0" in seen(1.0)
    assert "r0" not in seen(10.0)


def test_a_cached_prefix_tips_the_balance_but_does_not_overrule_a_queue():
    balancer = Balancer(defaults=STILL)
    balancer.index.sent((1, 2, 3), STEPS, 2_000, fleet(0)[0], 0.0)
    assert all(chosen([fleet(0, 0)], balancer, seed=seed) == "r0" for seed in range(10))
    assert chosen([fleet(5_000, 0)], balancer) == "r1"


@given(st.integers(8, 60), st.sampled_from((-1, 1)))
def test_a_cached_prefix_is_worth_the_time_of_the_tokens_it_covers(depth, more):
    asked = request(prompt_tokens=STEPS[59] + 100, prefix_hashes=tuple(range(60)))
    balancer = Balancer(defaults=Balancing(exploration=0.0, interference=0.0, batch=0.0, memory=0.0))
    pool = fleet(STEPS[depth - 1] + more * (STEPS[59] // 20 + 20), 0)  # what is nearer than this is as good
    balancer.index.sent(tuple(range(depth)), STEPS, STEPS[depth - 1], pool[0], 0.0)
    assert chosen([pool], balancer, asked) == ("r0" if more < 0 else "r1")


def test_the_cost_is_the_drain_time_in_seconds():
    replica = Replica(
        "r0", "d", pending_tokens=3_000, inflight=10, inflight_tokens=30_000, kv_tokens=100_000, prefill_rate=5_000.0
    )
    replica.itl_slope = 0.001
    choice = choose([[replica]])
    usual = Balancing()
    own, others = (3_000 + 2_000) / 5_000, usual.interference * 2_000 / 5_000 * 10
    batch, k = usual.batch * 0.001 * 10 * 100, (30_000 + 2_000 + 100) / 100_000
    assert choice.cost == pytest.approx(own + others + batch + usual.memory * k / (1 - k))
    assert choice.wait == pytest.approx(own + replica.step_base + 0.001 * 10)
    assert (choice.uncached, choice.tokens) == (2_000, 2_100)


def test_a_faster_replica_is_asked_although_more_waits_there():
    slow, fast = fleet(1_000, 3_000)
    fast.prefill_rate, slow.prefill_rate = 16_000.0, 4_000.0
    assert chosen([[slow, fast]]) == "r1"


def test_a_full_kv_cache_counts_against_a_replica_however_it_is_known():
    for told in ({"kv_used": 0.98}, {"inflight_tokens": 98_000, "kv_tokens": 100_000}):
        full = Replica("r0", "d", **told)
        assert chosen([[full, Replica("r1", "d", pending_tokens=3_000)]]) == "r1"


def test_what_other_gateways_sent_counts_as_the_engine_reports_it():
    busy, idle = fleet(0, 0)
    busy.reported(waiting=20, running=30, kv_used=0.1)
    assert chosen([[busy, idle]]) == "r1"


def test_the_delay_put_on_running_sequences_counts():
    pool = [Replica("r0", "d", inflight=40), Replica("r1", "d", pending_tokens=2_000)]
    assert chosen([pool]) == "r1"
    selfish = Balancer(defaults=Balancing(exploration=0.0, interference=0.0, batch=0.0))
    assert chosen([pool], selfish) == "r0"


def test_what_is_not_ready_cooling_ejected_or_broken_is_not_asked():
    pool = fleet(0, 0, 0, 0, 99_999)
    pool[0].ready = False
    pool[1].cool(10.0, rate_limited=True)
    gates = {r.name: Breaker(BreakerRule(failures=1)) for r in pool}
    gates["r2"].on_failure(0.0)
    pool[3].ejected_until = 10.0
    assert chosen([pool], gates=gates) == "r4"
    pool[4].ready = False
    assert chosen([pool], gates=gates) is None
    assert wait_for_any([pool], 4.0) == 0.0, "r2 is only behind its breaker"
    assert chosen([pool], gates=gates, now=10.0) in ("r1", "r2", "r3")
    for replica in pool[2:]:
        replica.ready = False
    assert wait_for_any([pool], 4.0) == 6.0


def test_another_replica_first_then_another_deployment_then_again():
    pools = [fleet(0, 0), [Replica("z", "backup")]]
    assert chosen(pools, tried=["r0"]) == "r1"
    assert chosen(pools, tried=["r0", "r1"]) == "z"
    assert chosen(pools, tried=["r0", "r1", "z"]) in ("r0", "r1")


def test_an_empty_pool_is_passed_over():
    assert chosen([(), fleet(0)]) == "r0"
    assert choose([(), ()]) is None


def test_a_replica_that_ramps_up_is_asked_less():
    pool = fleet(0, 1_000)
    assert chosen([pool]) == "r0"
    pool[0].ramp = 10.0
    assert chosen([pool]) == "r1"


def test_a_large_pool_is_sampled_and_still_gives_a_ready_replica():
    pool = fleet(*range(0, 400_000, 1_000))
    assert len(pool) > MAX_SCORED
    assert chosen([pool]) is not None
    for replica in pool[:-1]:
        replica.ready = False
    assert chosen([pool]) == "r399", "also when it is the only one"


def test_in_a_large_pool_the_replica_that_holds_the_prompt_is_always_among_those_looked_at():
    balancer, pool = Balancer(defaults=STILL), fleet(*[0] * 500)
    balancer.index.sent((1, 2, 3), STEPS, 2_000, pool[321], 0.0)
    assert {chosen([pool], balancer, seed=seed) for seed in range(40)} == {"r321"}
    moved = pool[::-1]
    assert {chosen([moved], balancer, seed=seed) for seed in range(40)} == {"r321"}


def test_work_is_credited_at_dispatch_and_given_back_at_the_first_token_and_the_end():
    balancer, pools = Balancer(), [fleet(0)]
    replica, held = send(balancer, pools)
    assert (replica.inflight, replica.inflight_tokens, replica.pending_tokens) == (1, 2_100, 2_000)
    held.first_token(1.0)
    held.first_token(1.1)
    assert (replica.inflight, replica.inflight_tokens, replica.pending_tokens) == (1, 2_100, 0)
    held.ended(2.0, 50)
    held.ended(2.0, 50)
    held.first_token(2.1)
    assert (replica.inflight, replica.inflight_tokens, replica.pending_tokens) == (0, 0, 0)


def test_a_burst_spreads_although_no_replica_has_reported_anything():
    balancer, pools, rng = Balancer(defaults=STILL), [fleet(0, 0, 0, 0)], Random(1)
    names = [send(balancer, pools, request(prefix_hashes=()), rng=rng)[0].name for _ in range(40)]
    assert all(names.count(name) == 10 for name in set(names))
    assert len(set(names)) == 4


def test_a_burst_that_shares_a_long_prompt_stays_together_until_a_queue_costs_more():
    balancer, pools, rng = Balancer(defaults=STILL), [fleet(0, 0)], Random(1)
    asked = request(prompt_tokens=STEPS[39] + 10, prefix_hashes=tuple(range(40)))
    first, _ = send(balancer, pools, asked, rng=rng)
    first.first_token(first.pending_tokens, 0.0)
    assert send(balancer, pools, asked, rng=rng)[0] is first
    names = [send(balancer, pools, asked, rng=rng)[0].name for _ in range(400)]
    assert len(set(names)) == 2


def test_a_prompt_whose_first_token_nobody_sees_is_supposed_to_be_computed_in_time():
    balancer, pools = Balancer(), [fleet(0)]
    asked = request(stream=False)
    replica, held = send(balancer, pools, asked)
    assert replica.pending_tokens == 2_000
    choose(pools, balancer, now=0.1)
    assert replica.pending_tokens == 2_000
    choose(pools, balancer, now=2_000 / PREFILL_RATE + 0.1)
    assert replica.pending_tokens == 0
    held.first_token(9.0)
    held.ended(9.0, 50)
    assert (replica.inflight, replica.pending_tokens) == (0, 0)
    assert replica.prefill_rate == PREFILL_RATE, "and how long the whole answer took says nothing of the prompt"


def test_a_session_is_drawn_to_its_replica_but_not_pinned_to_it():
    balancer, pools = Balancer(defaults=STILL), [fleet(0, 0, 0)]
    asked = request(prefix_hashes=(), session="s")
    choice = choose(pools, balancer, asked)
    first = pools[0][choice.place]
    held = balancer.dispatch(asked, first, choice, 0.0)
    held.first_token(1.0)
    held.ended(2.0, 50)
    assert all(chosen(pools, balancer, asked, seed=seed, now=2.0) == first.name for seed in range(20))
    first.started(9_000, 9_000, 2.0)
    assert chosen(pools, balancer, asked, now=2.0) != first.name
    first.ended(9_000, 9_000, 2.0)
    balancer.restarted(first.name)
    assert len({chosen(pools, balancer, asked, seed=seed, now=2.0) for seed in range(20)}) == 3


def test_answers_are_expected_to_be_as_long_as_those_before_them():
    balancer, pools = Balancer(), [fleet(0)]
    assert balancer.expected(request(max_tokens=4_096)) == 256, "nothing is known"
    assert balancer.expected(request(max_tokens=40)) == 40
    for n in range(100):
        send(balancer, pools)[1].ended(1.0, 700 + n)
    assert balancer.expected(request(max_tokens=4_096)) == pytest.approx(750, rel=0.1)
    assert balancer.expected(request(max_tokens=4_096, model="other")) == 256
    for _ in range(100):
        send(balancer, pools)[1].ended(1.0)
    assert balancer.expected(request(max_tokens=4_096)) == pytest.approx(750, rel=0.1), "failures have no length"


def test_a_replica_is_free_while_less_waits_than_the_limit_and_it_has_places():
    limit = Balancing().pending_tokens
    known = {"kv_tokens": 500_000}
    assert choose([fleet(limit - 1, **known)]).free
    assert not choose([fleet(limit, **known)]).free
    assert not choose([fleet(0, **known, max_running=4, inflight=4)]).free
    assert choose([fleet(10 * limit)]).free, "a provider whose capacity nobody knows"


def test_the_wait_counts_until_a_place_in_the_batch_is_left():
    full = choose([fleet(0, max_running=8, inflight=8)]).wait
    assert full > choose([fleet(0, max_running=8, inflight=7)]).wait + 0.1


def test_deployments_have_policies_of_their_own_which_a_reload_may_change():
    balancer = Balancer()
    balancer.configure({"d": Balancing(policy="least_requests")})
    pool = [Replica("r0", "d", inflight=1), Replica("r1", "d", pending_tokens=90_000)]
    assert chosen([pool], balancer) == "r1"
    balancer.configure({})
    assert chosen([pool], balancer) == "r0"


def test_a_replica_that_was_forgotten_begins_with_nothing():
    balancer, pools = Balancer(), [fleet(0)]
    replica, _ = send(balancer, pools)
    assert choose(pools, balancer).uncached == 2_000 - STEPS[2]
    balancer.forget(replica.name)
    assert choose(pools, balancer).uncached == 2_000


actions = st.lists(st.tuples(st.sampled_from(["send", "first", "end", "later"]), st.integers(0, 50)), max_size=60)


@given(actions, st.integers(0, 5), st.booleans())
@settings(max_examples=60)
def test_what_is_held_at_a_replica_is_always_that_of_the_attempts_that_live(steps, seed, stream):
    balancer, pools, rng, now, live = Balancer(), [fleet(0, 0)], Random(seed), 0.0, []
    for what, n in steps:
        if what == "send":
            asked = request(prompt_tokens=100 + 50 * n, prefix_hashes=tuple(range(n % 7)), stream=stream)
            live.append(send(balancer, pools, asked, now, rng))
        elif what == "later":
            now += n / 10
        elif live:
            replica, held = live[n % len(live)]
            if what == "first":
                held.first_token(now)
            else:
                held.ended(now, n)
                live.pop(n % len(live))
        for replica in pools[0]:
            assert replica.inflight == sum(one is replica for one, _ in live)
            assert 0 <= replica.pending_tokens <= replica.inflight_tokens
    for _, held in live:
        held.ended(now)
    assert all((r.inflight, r.inflight_tokens, r.pending_tokens) == (0, 0, 0) for r in pools[0])
