"""The rules of other routers, written anew from their sources, to be simulated beside our own.

They are the rules and not the products, and flattered where that is simple: each sees our prefix index, which knows the
engines' capacity and counts only what hangs together; queues and KV usage are read from the engines at the very moment,
without the age of a poll; they run in no time. Sources are named beside each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from penstock.balancing.balancer import Balancer
from penstock.balancing.options import Balancing
from penstock.balancing.policies import Ask
from penstock.core.fleet import Replica
from penstock.sim.engine_model import EngineModel

Look = Callable[[str], EngineModel]
"""The engine behind a replica, as it is now."""


def _least(scores: Sequence[float], places: Sequence[int], rng: Random) -> int:
    least = min(scores)
    return rng.choice([place for place, score in zip(places, scores, strict=True) if score == least])


class LlmD:
    """The default profile of llm-d's scheduler: queue 2, free KV cache 2, prefix 3; the highest sum, ties at random.

    llm-d-inference-scheduler deploy/config, pkg/epp/config/loader/defaults.go.
    """

    def __init__(self, look: Look) -> None:
        self._look = look

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        engines = [self._look(pool[place].name) for place in places]
        queues = [engine.n_waiting for engine in engines]
        most, span = max(queues), max(queues) - min(queues)
        scores = []
        for place, engine, queue in zip(places, engines, queues, strict=True):
            short = (most - queue) / span if span else 1.0
            held = ask.cached(pool[place].name) / max(1, ask.prompt_tokens)
            scores.append(-(2.0 * short + 2.0 * (1.0 - engine.kv_used) + 3.0 * held))
        return _least(scores, places, rng)


class AIBrix:
    """AIBrix's prefix-cache: unless requests are unbalanced by more than 8, the best match among those who run no more
    than the mean and a standard deviation. aibrix pkg/plugins/gateway/algorithms/prefix_cache.go.
    """

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        running = [pool[place].inflight for place in places]
        if max(running) - min(running) <= 8:
            mean = sum(running) / len(running)
            most = mean + (sum((n - mean) ** 2 for n in running) / len(running)) ** 0.5
            matched = [(-ask.cached(pool[place].name), pool[place].inflight, place) for place in places]
            for held, n, place in sorted(matched):
                if held and n <= most:
                    return place
        return _least([float(n) for n in running], places, rng)


class Smg:
    """cache_aware of smg (SGLang's router): fewest requests while they are unbalanced (64 apart and 1.5 times), else
    the best match if it is more than 0.3 of the prompt, else fewest requests.

    smg model_gateway/src/policies/cache_aware.rs.
    """

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        running = [pool[place].inflight for place in places]
        most, fewest = max(running), min(running)
        if not (most - fewest > 64 and most > 1.5 * fewest):
            best = max(places, key=lambda place: ask.cached(pool[place].name))
            if ask.cached(pool[best].name) > 0.3 * ask.prompt_tokens:
                return best
        return _least([float(n) for n in running], places, rng)


class Dynamo:
    """The linear cost of Dynamo's KV router: prefill tokens to come, less the overlap, and tokens that are decoded.

    dynamo lib/kv-router/src/scheduling/selector/default.rs, with its defaults.
    """

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        scores = []
        for place in places:
            replica = pool[place]
            prefill = max(0, replica.pending_tokens + ask.prompt_tokens - ask.cached(replica.name))
            scores.append(float(prefill + replica.inflight_tokens + ask.prompt_tokens))
        return _least(scores, places, rng)


class LMetric:
    """New prefill tokens if it goes there, times the batch. arXiv 2603.15202."""

    def pick(self, ask: Ask, pool: Sequence[Replica], places: Sequence[int], rng: Random) -> int:
        scores = []
        for place in places:
            replica = pool[place]
            scores.append(float((replica.pending_tokens + ask.uncached(replica.name)) * (replica.inflight + 1)))
        return _least(scores, places, rng)


RIVALS: dict[str, Callable[[Look], object]] = {
    "llm-d default": LlmD,
    "AIBrix prefix-cache": lambda look: AIBrix(),
    "smg cache_aware": lambda look: Smg(),
    "Dynamo linear": lambda look: Dynamo(),
    "LMetric": lambda look: LMetric(),
}


def balanced_by_rival(name: str, deployment: str, look: Look) -> Balancer:
    balancer = Balancer(defaults=Balancing(policy="random"))  # which neither explores nor fears anything
    balancer.rule(deployment).policy = RIVALS[name](look)  # type: ignore[assignment]
    return balancer
