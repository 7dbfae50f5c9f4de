"""The rules by which one of several replicas is chosen. All have one signature; `POLICIES` knows them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from random import Random
from typing import Final, Protocol

from xxhash import xxh3_64_intdigest

from penstock.balancing.options import Balancing
from penstock.balancing.prefix_index import Held, Levels
from penstock.core.fleet import Replica

WAITING_TOKENS: Final = 512  # what one request in an engine's own queue is taken to have uncached
FULL: Final = 0.98  # fraction of the KV cache beyond which pressure grows in proportion, so that it stays finite

NEAR: Final = 1.05  # times the least cost, and
MOMENT: Final = 0.001  # seconds more are as good


class Ask:
    """What a rule may know of the request."""

    __slots__ = ("_bound", "_bound_tokens", "_held", "expected", "key", "now", "prompt_tokens")

    def __init__(self, prompt_tokens: int, expected: int, now: float) -> None:
        self.prompt_tokens = prompt_tokens
        self.expected = expected  # output tokens
        self.now = now  # Clock.now() seconds
        self.key = 0  # of its session, or the beginning of its prompt; 0: it has neither
        self._held: Held | None = None
        self._bound = ""
        self._bound_tokens = 0

    def holds(self, held: Held) -> None:
        """What the replicas have cached of the prompt."""
        self._held = held

    def bound(self, replica: str, tokens: int) -> None:
        """Its session's turns, so many tokens, were computed there: it is credited with them."""
        self._bound, self._bound_tokens = replica, tokens

    def cached(self, replica: str) -> int:
        """Prompt tokens that this replica is taken to hold."""
        held = self._held
        cached = held.get(replica, 0) if held is not None else 0
        return max(cached, self._bound_tokens) if replica == self._bound else cached

    def uncached(self, replica: str) -> int:
        """Prompt tokens that it would have to compute: the last one always."""
        return max(1, self.prompt_tokens - self.cached(replica))

    def most(self, n: int) -> list[str]:
        """At most `n` replicas: those that hold most of the prompt."""
        held, found = self._held, [self._bound] if self._bound else []
        if isinstance(held, Levels):
            found += held.most(n)
        elif held is not None:
            found += sorted(held.keys(), key=self.cached, reverse=True)
        return found[:n]


class Policy(Protocol):
    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        """One of `places` (not empty) in the pool; all of them may be asked."""
        ...


class Costs:
    """The drain time of choosing a replica, in seconds: what it costs us, and what it costs everyone else there."""

    __slots__ = ("batch", "interference", "memory")

    def __init__(self, options: Balancing) -> None:
        self.interference: float = options.interference
        self.batch: float = options.batch
        self.memory: float = options.memory

    def parts(self, ask: Ask, replica: Replica, uncached: int) -> tuple[float, float, float, float]:
        """(own, others, batch, memory), seconds each.

        The second is LMetric's product (arXiv 2603.15202) in seconds; the last is smg's k / (1 - k).
        """
        running, rate = running_at(replica), replica.prefill_rate
        mine = uncached / rate
        wait = wait_at(replica, ask.now) + slot_wait(ask, replica, running)
        k = replica.kv_used
        if replica.kv_tokens:
            k = max(k, (replica.inflight_tokens + ask.prompt_tokens + ask.expected) / replica.kv_tokens)
        return (
            wait + mine,
            self.interference * mine * running,
            self.batch * replica.itl_slope * running * ask.expected,
            self.memory * (k / (1.0 - k) if k < FULL else k / (1.0 - FULL)),
        )


def running_at(replica: Replica) -> int:
    """Sequences there: ours, and those of others that the engine has told of."""
    return replica.inflight + replica.others_running


def wait_at(replica: Replica, now: float) -> float:
    """Seconds until what waits there has been computed: what is ours, and what others have there, says the engine."""
    wait = replica.prefill_wait(now)
    return wait + replica.others_waiting * WAITING_TOKENS / replica.prefill_rate if replica.others_waiting else wait


def slot_wait(ask: Ask, replica: Replica, running: int) -> float:
    """Seconds until one of the sequences that fill its batch ends, where they do: each runs as long as ours will."""
    most = replica.max_running
    if not most or running < most:
        return 0.0
    return (running - most + 1) / most * ask.expected * (replica.step_base + replica.itl_slope * most)


def predicted_wait(ask: Ask, replica: Replica, uncached: int) -> float:
    """Seconds until the first token, were it sent there now: what waits, its own prompt, a step, and a free place."""
    running = running_at(replica)
    wait = wait_at(replica, ask.now) + uncached / replica.prefill_rate
    return wait + replica.step_base + replica.itl_slope * running + slot_wait(ask, replica, running)


class LeastCost:
    """The least drain time. Those that differ by less than learned rates are exact to share, or one of them would get
    all there is while others idle, and nobody would learn how fast they are by now.
    """

    __slots__ = ("_costs",)

    def __init__(self, options: Balancing) -> None:
        self._costs = Costs(options)

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        costs = self._costs
        found: list[float] = []
        least = -1.0
        for place in places:
            replica = pool[place]
            own, others, batch, memory = costs.parts(ask, replica, ask.uncached(replica.name))
            cost = (own + others + batch + memory) * replica.ramp
            found.append(cost)
            if least < 0.0 or cost < least:
                least = cost
        limit = least * NEAR + MOMENT
        near: list[int] = []
        for at, place in enumerate(places):
            if found[at] <= limit:
                near.append(place)
        return near[0] if len(near) == 1 else near[int(rng.random() * len(near))]


class LeastRequests:
    """Fewest attempts of ours in flight; equals share."""

    __slots__ = ()

    def __init__(self, options: Balancing) -> None:
        pass

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        fewest = min(pool[place].inflight for place in places)
        return rng.choice([place for place in places if pool[place].inflight == fewest])


class PowerOfTwo:
    """Of two at random, the one with fewer attempts in flight (Mitzenmacher 2001)."""

    __slots__ = ()

    def __init__(self, options: Balancing) -> None:
        pass

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        if len(places) == 1:
            return places[0]
        one, other = rng.sample(places, 2)
        return other if pool[other].inflight < pool[one].inflight else one


class RoundRobin:
    """Each in turn, beginning anywhere: of many gateways, not all should begin at the same one."""

    __slots__ = ("_last",)

    def __init__(self, options: Balancing) -> None:
        self._last = -1

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        last = self._last if self._last >= 0 else rng.randrange(len(pool))
        after = [place for place in places if place > last]
        self._last = min(after) if after else min(places)
        return self._last


class ConsistentHash:
    """The same session, or else the same beginning of a prompt, at the same replica, while it is not too busy.

    Rendezvous hashing with bounded load (arXiv 1608.01350): replicas in an order that the key decides, the first with
    less than `hash_load` times the mean in flight. Without a key: fewest requests.
    """

    __slots__ = ("_fewest", "_load")

    def __init__(self, options: Balancing) -> None:
        self._fewest = LeastRequests(options)
        self._load: float = options.hash_load

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        if not ask.key:
            return self._fewest.pick(ask, pool, places, rng)
        most = ceil(self._load * (sum(pool[place].inflight for place in places) + 1) / len(places))
        best, highest = -1, -1
        for place in places:
            replica = pool[place]
            if replica.inflight < most:  # true of at least one: they cannot all be above the mean
                weight = xxh3_64_intdigest(replica.name.encode(), ask.key)
                if weight > highest:
                    best, highest = place, weight
        return best


class Weighted:
    """At random, in proportion to the replicas' weights."""

    __slots__ = ()

    def __init__(self, options: Balancing) -> None:
        pass

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        return rng.choices(places, [pool[place].weight for place in places])[0]


class Anywhere:
    """At random."""

    __slots__ = ()

    def __init__(self, options: Balancing) -> None:
        pass

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        return places[int(rng.random() * len(places))]


POLICIES: Final[Mapping[str, Callable[[Balancing], Policy]]] = {
    "least_cost": LeastCost,
    "round_robin": RoundRobin,
    "least_requests": LeastRequests,
    "power_of_two": PowerOfTwo,
    "consistent_hash": ConsistentHash,
    "weighted": Weighted,
    "random": Anywhere,
}
