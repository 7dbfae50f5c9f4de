"""Why a replica was chosen and the others were not, for a person who asks. Never on a request's own way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from penstock.balancing.balancer import Balancer, Gate, obstacle
from penstock.balancing.choice import Candidate, Choice
from penstock.balancing.policies import Ask, predicted_wait
from penstock.core.fleet import Replica
from penstock.core.request import Request


def consider(
    balancer: Balancer,
    request: Request,
    pools: Sequence[Sequence[Replica]],
    gates: Mapping[str, Gate],
    tried: Collection[str],
    now: float,
    chosen: Choice | None,
) -> list[Candidate]:
    """Every replica of every pool, in order, as `Balancer.choose` saw it when it said `chosen`. Changes nothing."""
    ask = balancer.ask(request, now)
    return [
        _candidate(balancer, ask, replica, _verdict(balancer, ask, replica, number, place, gates, tried, now, chosen))
        for number, pool in enumerate(pools)
        for place, replica in enumerate(pool)
    ]


def _verdict(
    balancer: Balancer,
    ask: Ask,
    replica: Replica,
    number: int,
    place: int,
    gates: Mapping[str, Gate],
    tried: Collection[str],
    now: float,
    chosen: Choice | None,
) -> str:
    why = obstacle(replica, gates, now)
    if why:
        return why
    if chosen is not None and (number, place) == (chosen.pool, chosen.place):
        return "chosen"
    if replica.name in tried:
        return "tried"
    if chosen is None or number != chosen.pool:
        return "later"
    if balancer.rule(replica.deployment).options.policy != "least_cost":
        return "policy"
    return "costlier" if _cost(balancer, ask, replica) >= chosen.cost else "not sampled"


def _cost(balancer: Balancer, ask: Ask, replica: Replica) -> float:
    parts = balancer.rule(replica.deployment).costs.parts(ask, replica, ask.uncached(replica.name))
    return sum(parts) * replica.ramp


def _candidate(balancer: Balancer, ask: Ask, replica: Replica, verdict: str) -> Candidate:
    uncached = ask.uncached(replica.name)
    own, others, batch, memory = balancer.rule(replica.deployment).costs.parts(ask, replica, uncached)
    return Candidate(
        replica=replica.name,
        deployment=replica.deployment,
        verdict=verdict,
        cost=_cost(balancer, ask, replica),
        own=own,
        others=others,
        batch=batch,
        memory=memory,
        ramp=replica.ramp,
        cached_tokens=min(ask.cached(replica.name), ask.prompt_tokens),
        wait=predicted_wait(ask, replica, uncached),
    )
