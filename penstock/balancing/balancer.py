"""Choose one replica for one attempt: of those that may be asked, the one with the least cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Final, Protocol

from penstock.balancing.prefix_index import PrefixIndex
from penstock.core.fleet import ReplicaView
from penstock.core.request import Request

MAX_SCORED: Final = 16  # scoring is linear; beyond this many candidates a sample of them is scored
BLOCK_TOKENS: Final = 256  # about what one prefix hash stands for
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
            ready = [
                i
                for i, r in enumerate(pool)
                if r.ready and r.cool_until <= now and ((gate := gates[r.name]).closed or gate.allows(now))
            ]
            fresh = [i for i in ready if pool[i].name not in tried] if tried else ready
            if fresh:
                return number, self._least(request, pool, fresh, rng)
            if again is None and ready:
                again = number, self._least(request, pool, ready, rng)
        return again

    def sent(self, request: Request, replica: str) -> None:
        """The prompt's prefix is on its way there, and likely to stay in its cache for a while."""
        if request.prefix_hashes:
            self.prefixes.record(request.prefix_hashes, replica)

    def _least(self, request: Request, pool: Sequence[ReplicaView], places: list[int], rng: Random) -> int:
        if len(places) == 1:
            return places[0]
        if len(places) > MAX_SCORED:
            places = rng.sample(places, MAX_SCORED)
        held = self.prefixes.longest(request.prefix_hashes) if request.prefix_hashes else None
        best: list[int] = []
        least, prompt_tokens = float("inf"), request.prompt_tokens
        for place in places:
            replica = pool[place]
            cost: float = replica.inflight_tokens + replica.waiting * WAITING_TOKENS + prompt_tokens
            if held:
                cost -= held.get(replica.name, 0) * BLOCK_TOKENS
            if replica.kv_used > 0.5:
                cost *= 0.5 / max(0.02, 1.0 - replica.kv_used)
            if cost < least:
                least, best = cost, [place]
            elif cost == least:
                best.append(place)
        return best[0] if len(best) == 1 else best[int(rng.random() * len(best))]


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
