from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.balancing.balancer import Balancer, wait_for_any
from penstock.balancing.prefix_index import PrefixIndex
from penstock.core.fleet import Replica
from penstock.core.request import PREFIX_TOKENS
from penstock.resilience.breaker import Breaker, BreakerRule
from tests.worlds import request

REQUEST = msgspec.structs.replace(request(), prefix_hashes=(1, 2, 3))


def pick(replicas, tried=(), now=0.0, seed=1, balancer=None, breakers=None, pools=None):
    breakers = breakers or {r.name: Breaker(BreakerRule()) for pool in (pools or [replicas]) for r in pool}
    picked = (balancer or Balancer()).pick(REQUEST, pools or [replicas], breakers, tried, now, Random(seed))
    return None if picked is None else (pools or [replicas])[picked[0]][picked[1]].name


def fleet(*tokens):
    return [Replica(f"r{i}", "d", inflight_tokens=t) for i, t in enumerate(tokens)]


def test_the_replica_with_the_least_work_ahead_is_asked():
    assert pick(fleet(900, 100, 500)) == "r1"


def test_equal_replicas_share_the_work():
    seen = {pick(fleet(0, 0, 0), seed=seed) for seed in range(40)}
    assert seen == {"r0", "r1", "r2"}


def test_a_cached_prefix_tips_the_balance_but_does_not_overrule_a_queue():
    balancer = Balancer()
    balancer.sent(REQUEST, "r0")
    assert all(pick(fleet(0, 0), seed=seed, balancer=balancer) == "r0" for seed in range(10))
    assert pick(fleet(5000, 0), balancer=balancer) == "r1"


@given(st.integers(1, len(PREFIX_TOKENS)), st.integers(-1, 1))
def test_a_cached_prefix_is_worth_the_tokens_that_its_hashes_cover(depth, more):
    balancer, replicas = Balancer(), fleet(PREFIX_TOKENS[depth - 1] + more, 0)
    request = msgspec.structs.replace(REQUEST, prefix_hashes=tuple(range(len(PREFIX_TOKENS))))
    balancer.sent(msgspec.structs.replace(request, prefix_hashes=request.prefix_hashes[:depth]), "r0")
    picked = balancer.pick(request, [replicas], {r.name: Breaker(BreakerRule()) for r in replicas}, (), 0.0, Random(1))
    assert more == 0 or picked == (0, 0 if more < 0 else 1)


def test_a_full_kv_cache_counts_against_a_replica():
    replicas = fleet(100, 100)
    replicas[0].kv_used = 0.98
    assert pick(replicas) == "r1"


def test_what_is_not_ready_cooling_or_broken_is_not_asked():
    replicas = fleet(0, 0, 0, 9999)
    replicas[0].ready = False
    replicas[1].cool(10.0, rate_limited=True)
    breakers = {r.name: Breaker(BreakerRule(failures=1)) for r in replicas}
    breakers["r2"].on_failure(0.0)
    assert pick(replicas, breakers=breakers) == "r3"
    replicas[3].ready = False
    assert pick(replicas, breakers=breakers) is None
    assert wait_for_any([replicas], 4.0) == 0.0, "r2 is only behind its breaker"
    replicas[2].ready = False
    assert wait_for_any([replicas], 4.0) == 6.0


def test_another_replica_first_then_another_deployment_then_again():
    main, backup = fleet(0, 0), [Replica("z", "backup")]
    pools = [main, backup]
    assert pick(main, pools=pools, tried=["r0"]) == "r1"
    assert pick(main, pools=pools, tried=["r0", "r1"]) == "z"
    assert pick(main, pools=pools, tried=["r0", "r1", "z"]) in ("r0", "r1")


def test_a_large_pool_is_sampled_and_still_gives_a_ready_replica():
    replicas = fleet(*range(200))
    assert pick(replicas) is not None
    for replica in replicas[:199]:
        replica.ready = False
    assert pick(replicas) == "r199", "also when it is the only one"


prefixes = st.lists(st.integers(0, 5), max_size=6).map(tuple)


@given(st.lists(st.tuples(prefixes, st.sampled_from("abc"), st.booleans()), max_size=40), prefixes)
def test_the_index_knows_exactly_what_was_recorded(steps, asked):
    index, model = PrefixIndex(), {}
    for hashes, replica, forget in steps:
        if forget:
            index.forget(replica)
            model.pop(replica, None)
        else:
            index.record(hashes, replica)
            model.setdefault(replica, set()).update(hashes)

    def depth(held):
        return next((i for i, h in enumerate(asked) if h not in held), len(asked))

    assert index.longest(asked) == {name: depth(held) for name, held in model.items() if depth(held)}


@given(st.lists(st.tuples(prefixes, st.sampled_from("abc")), max_size=60))
def test_the_index_never_outgrows_its_capacity(steps):
    index = PrefixIndex(capacity=3)
    for hashes, replica in steps:
        index.record(hashes, replica)
        assert len(index) <= 3
