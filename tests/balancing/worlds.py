"""Pools of replicas, gates that say yes, and requests, for the tests of balancing."""

from random import Random

import msgspec

from penstock.balancing.balancer import Balancer
from penstock.core.fleet import Replica
from penstock.resilience.breaker import Breaker, BreakerRule
from tests import worlds

STEPS = tuple(range(512, 64 * 512, 512))
REQUEST = msgspec.structs.replace(
    worlds.request(), prompt_tokens=2_000, max_tokens=100, prefix_hashes=(1, 2, 3), prefix_tokens=STEPS
)


def request(**more):
    return msgspec.structs.replace(REQUEST, **more)


def fleet(*pending, **more):
    return [Replica(f"r{i}", "d", pending_tokens=tokens, **more) for i, tokens in enumerate(pending)]


def open_gates(pools):
    return {replica.name: Breaker(BreakerRule()) for pool in pools for replica in pool}


def choose(pools, balancer=None, asked=REQUEST, tried=(), now=0.0, seed=1, gates=None):
    balancer = balancer if balancer is not None else Balancer()
    return balancer.choose(asked, pools, gates or open_gates(pools), tried, now, Random(seed))


def chosen(pools, *args, **more):
    """The name of the replica, or None."""
    choice = choose(pools, *args, **more)
    return None if choice is None else pools[choice.pool][choice.place].name
