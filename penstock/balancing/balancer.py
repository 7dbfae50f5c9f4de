"""Choose one replica for one attempt: of those that may be asked, the one with the least cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Final, Protocol

from penstock.balancing.prefix_index import PrefixIndex
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.fleet import ReplicaView
from penstock.core.request import PREFIX_TOKENS, Request

MAX_SCORED: Final = 16  # scoring is linear; beyond this many candidates a sample of them is scored
WAITING_TOKENS: Final = 512  # what one request in an engine's own queue is taken to cost


class Gate(Protocol):
    """What may say no to a replica: its circuit breaker."""

    @property
    def closed(self) -> bool:
        """Nothing is wrong: `allows` need not be asked."""
        ...

    def allows(self, now: float) -> bool: ...


class Balancer:
    """Least cost, in tokens of work ahead of this request; ties are broken by `rng`.

    cost = tokens in flight there + the engine's reported queue + the part of this prompt it has not cached, stretched
    as its KV cache fills up (a full cache preempts). Only comparisons between replicas mean anything.
    """

    def __init__(self, prefixes: PrefixIndex | None = None) -> None:
        self.prefixes = prefixes if prefixes is not None else PrefixIndex()

    def pick(
        self,
        request: Request,
        pools: Sequence[Sequence[ReplicaView]],
        gates: Mapping[str, Gate],
        tried: Collection[str],
        now: float,
        rng: Random,
    ) -> tuple[int, int] | None:
        """(pool, place in it) of the replica to ask, or None. `pools` are the plan's deployments, best first.

        A replica not yet tried is preferred, first in its own deployment, then in the next; one that was tried is
        asked again only when nothing else is left.
        """
        again: tuple[int, int] | None = None
        for number, pool in enumerate(pools):
            places = range(len(pool)) if len(pool) <= MAX_SCORED else rng.sample(range(len(pool)), MAX_SCORED)
            fresh, used = self._least(request, pool, places, gates, tried, now, rng)
            if fresh is None and len(pool) > MAX_SCORED:  # the sample missed whoever is ready
                fresh, used = self._least(request, pool, range(len(pool)), gates, tried, now, rng)
            if fresh is not None:
                return number, fresh
            if again is None and used is not None:
                again = number, used
        return again

    def sent(self, request: Request, replica: str) -> None:
        """The prompt's prefix is on its way there, and likely to stay in its cache for a while."""
        if request.prefix_hashes:
            self.prefixes.record(request.prefix_hashes, replica)

    def _least(
        self,
        request: Request,
        pool: Sequence[ReplicaView],
        places: Sequence[int],
        gates: Mapping[str, Gate],
        tried: Collection[str],
        now: float,
        rng: Random,
    ) -> tuple[int | None, int | None]:
        """The best place among those not tried yet, and among those tried. One pass: this runs for every attempt."""
        held = self.prefixes.longest(request.prefix_hashes) if request.prefix_hashes else None
        best: int | None = None
        again: int | None = None
        least = least_again = float("inf")
        ties = 1
        for place in places:
            replica = pool[place]
            if not replica.ready or replica.cool_until > now:
                continue
            name = replica.name
            gate = gates[name]
            if not (gate.closed or gate.allows(now)):
                continue
            cost = float(replica.inflight_tokens + replica.waiting * WAITING_TOKENS + request.prompt_tokens)
            if held:
                depth = held.get(name, 0)
                if depth:
                    cost -= PREFIX_TOKENS[depth - 1]
            if replica.kv_used > 0.5:
                cost *= 0.5 / max(0.02, 1.0 - replica.kv_used)
            if name in tried:
                if cost < least_again:
                    again, least_again = place, cost
            elif cost < least:
                best, least, ties = place, cost, 1
            elif cost == least:
                ties += 1
                if rng.random() * ties < 1.0:  # each of n equals with probability 1/n
                    best = place
        return best, again


def nobody_may(pools: Sequence[Sequence[ReplicaView]], now: float) -> UpstreamError:
    """Why no replica was picked: their rate limits, where those alone are in the way."""
    wait = wait_for_any(pools, now)
    limited = wait > 0 and any(replica.rate_limited for pool in pools for replica in pool if replica.ready)
    return UpstreamError(FailureKind.RATE_LIMITED if limited else FailureKind.NO_REPLICA, retry_after=wait or None)


def wait_for_any(pools: Sequence[Sequence[ReplicaView]], now: float) -> float:
    """Seconds until the first cooling replica may be asked again; 0 when one may be asked now, or none is cooling."""
    soonest = float("inf")
    for pool in pools:
        for replica in pool:
            if replica.ready:
                if replica.cool_until <= now:
                    return 0.0
                soonest = min(soonest, replica.cool_until - now)
    return soonest if soonest != float("inf") else 0.0
