"""Choose one replica for one attempt, hold what the attempt takes there, and learn from how it went.

Runs for every attempt: in a pool of up to `MAX_SCORED` replicas all are considered, in a larger one those that hold
most of the prompt, and a random sample.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Final, Protocol

from xxhash import xxh3_64_intdigest

from penstock.balancing.choice import Choice
from penstock.balancing.options import DEFAULT, Balancing
from penstock.balancing.policies import POLICIES, Ask, Costs, Policy, predicted_wait
from penstock.balancing.prefix_index import Index, PrefixIndex
from penstock.balancing.rates import KNOWN, Outputs, Rates
from penstock.balancing.sessions import Sessions
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.fleet import Replica
from penstock.core.request import Request

MAX_SCORED: Final = 64  # more than these are sampled: choosing takes time in proportion
SAMPLE: Final = 24  # of a larger pool
MOST_OWNERS: Final = 8  # and so many of those that hold most of the prompt
EXPECTED_TOKENS: Final = 256  # of an answer, while nothing is known of others of its model
SHORT: Final = 2_048  # tokens: longer prompts explore nothing, it would cost too much
MODELS: Final = 10_000  # whose answers' lengths are known; the first learned is forgotten
MOST_POOLS: Final = 64  # large ones, of which it is known where their replicas are


class Gate(Protocol):
    """What may say no to a replica: its circuit breaker."""

    @property
    def closed(self) -> bool:
        """Nothing is wrong: `allows` need not be asked."""
        ...

    def allows(self, now: float) -> bool: ...


class Rule:
    """A deployment's options, ready for use; and those of its replicas whose rates are not known yet."""

    __slots__ = ("_pool", "costs", "exploration", "options", "pending_tokens", "policy", "unknown")

    def __init__(self, options: Balancing) -> None:
        self.options = options
        self.policy: Policy = POLICIES[options.policy](options)
        self.costs = Costs(options)
        self.exploration: float = options.exploration if options.policy == "least_cost" else 0.0
        self.pending_tokens: int = options.pending_tokens
        self.unknown: list[Rates] = []
        self._pool: Sequence[Replica] = ()

    def meet(self, pool: Sequence[Replica], balancer: Balancer) -> None:
        """It is chosen among these."""
        if len(pool) > 1 and pool is not self._pool:
            self._pool = pool
            learners = [balancer.rates(replica) for replica in pool]
            self.unknown = [one for one in learners if one.points < KNOWN]

    def learned(self, learner: Rates) -> None:
        """Those that are not known take after it."""
        if self.unknown and learner.points >= KNOWN:
            self.unknown = [one for one in self.unknown if one.points < KNOWN]
            for one in self.unknown:
                one.follow(learner.replica)


class Places:
    """Where in a large pool a replica is, by name."""

    __slots__ = ("by_name", "pool")

    def __init__(self, pool: Sequence[Replica]) -> None:
        self.pool = pool  # held, so that no other pool gets its id
        self.by_name = {replica.name: place for place, replica in enumerate(pool)}


class Dispatch:
    """One attempt at a replica, from its dispatch to its end: what it holds there is given back exactly once."""

    __slots__ = (
        "_balancer",
        "_computed",
        "_ended",
        "_first_at",
        "_model",
        "_prompt_tokens",
        "_running",
        "_session",
        "_started_at",
        "_stream",
        "_tokens",
        "_uncached",
        "replica",
        "unseen",
    )

    def __init__(self, balancer: Balancer, request: Request, replica: Replica, choice: Choice, now: float) -> None:
        self._balancer = balancer
        self._model: str = request.model
        self._session: str = request.session
        self._prompt_tokens: int = request.prompt_tokens
        self._stream: bool = request.stream
        self._tokens: int = choice.tokens
        self._uncached: int = choice.uncached  # 0 once they are computed
        self._running = 0  # sequences there when the answer began
        self._computed = 0  # prompt tokens that had been computed there then
        self._started_at = now
        self._first_at = -1.0
        self._ended = False
        self.unseen = 0  # its number among those whose first token nobody sees
        self.replica = replica
        replica.started(self._tokens, self._uncached, now)

    def first_token(self, now: float) -> None:
        """The answer has begun. Only the first call counts, and none after the end."""
        if self._ended or self._first_at >= 0.0:
            return
        self._first_at = now
        replica = self.replica
        self._running = replica.inflight
        if self._stream:  # else it is the whole answer that has come, which says nothing about the prompt
            learner = self._balancer.rates(replica)
            learner.first_token(self._uncached, self._started_at, now)
            self._balancer.rule(replica.deployment).learned(learner)
        self.computed(now)
        self._computed = replica.computed_tokens
        if self._session:
            self._balancer.sessions.bind(self._session, replica.name, self._prompt_tokens, now)

    def computed(self, now: float) -> None:
        """Its prompt is: known from its first token, or supposed after some time where none will be seen."""
        if self._uncached and not self._ended:
            self.replica.first_token(self._uncached, now)
            self._uncached = 0

    def ended(self, now: float, output_tokens: int = 0) -> None:
        """It is over, however it went; again is harmless. `output_tokens`: of a whole answer; 0 for none."""
        if self._ended:
            return
        self._ended = True
        if self.unseen:
            self._balancer.unseen.forget(self.unseen)
        replica = self.replica
        running = (self._running + replica.inflight) / 2.0
        replica.ended(self._tokens, self._uncached, now)
        if output_tokens > 0:
            self._balancer.learn_output(self._model, output_tokens)
            if self._stream and self._first_at >= 0.0:
                self._balancer.rates(replica).ended(
                    output_tokens,
                    running,
                    self._first_at,
                    now,
                    replica.computed_tokens - self._computed,
                    replica.pending_tokens,
                )
            if self._session:
                tokens = self._prompt_tokens + output_tokens
                self._balancer.sessions.bind(self._session, replica.name, tokens, now)


class Unseen:
    """Attempts whose first token nobody will see, since the answer comes in one piece: when to suppose it came."""

    __slots__ = ("_due", "_held", "_number")

    def __init__(self) -> None:
        self._due: list[tuple[float, int]] = []  # a heap; most are over long before
        self._held: dict[int, Dispatch] = {}
        self._number = 0

    def expect(self, held: Dispatch, at: float) -> int:
        """A number for `forget`."""
        self._number = number = self._number + 1
        self._held[number] = held
        heappush(self._due, (at, number))
        return number

    def forget(self, number: int) -> None:
        """It is over."""
        self._held.pop(number, None)

    def settle(self, now: float) -> None:
        due = self._due
        while due and due[0][0] <= now:
            held = self._held.pop(heappop(due)[1], None)
            if held is not None:
                held.computed(now)


class Balancer:
    """The state that choosing needs: what replicas have cached, how fast they are, how long answers are."""

    __slots__ = ("_defaults", "_outputs", "_places", "_rates", "_rules", "index", "sessions", "unseen")

    def __init__(self, index: Index | None = None, defaults: Balancing = DEFAULT) -> None:
        self.index: Index = index if index is not None else PrefixIndex()
        self.sessions = Sessions()
        self._defaults = Rule(defaults)
        self._rules: dict[str, Rule] = {}  # by deployment, once it has been chosen in or has options of its own
        self._rates: dict[str, Rates] = {}
        self._outputs: dict[str, Outputs] = {}
        self.unseen = Unseen()
        self._places: dict[int, Places] = {}

    def configure(self, options: Mapping[str, Balancing]) -> None:
        """From now on these deployments are balanced so, and others by the defaults. What has been learned stays."""
        kept = self._rules
        self._rules = {}
        for name, wanted in options.items():
            rule = kept.get(name)
            self._rules[name] = rule if rule is not None and rule.options == wanted else Rule(wanted)
        self._places.clear()

    def choose(
        self,
        request: Request,
        pools: Sequence[Sequence[Replica]],
        gates: Mapping[str, Gate],
        tried: Collection[str],
        now: float,
        rng: Random,
    ) -> Choice | None:
        """The replica to ask, or None. `pools` are the plan's deployments, best first.

        A replica not yet tried is preferred, first in its own deployment, then in the next; one that was tried is
        asked again only when nothing else is left.
        """
        self.unseen.settle(now)
        ask: Ask | None = None
        again_at = -1
        again: list[int] = []
        for number, pool in enumerate(pools):
            if not pool:
                continue
            if ask is None:
                ask = self.ask(request, now)
            many = len(pool) > MAX_SCORED
            places: Sequence[int] = self._sample(pool, ask, rng) if many else range(len(pool))
            fresh, used = may(pool, places, gates, tried, now)
            if many and not fresh:  # the sample missed whoever is ready
                fresh, used = may(pool, range(len(pool)), gates, tried, now)
            if fresh:
                return self._choice(ask, number, pool, fresh, rng)
            if again_at < 0 and used:
                again_at, again = number, used
        if ask is None or again_at < 0:
            return None
        return self._choice(ask, again_at, pools[again_at], again, rng)

    def dispatch(self, request: Request, replica: Replica, choice: Choice, now: float) -> Dispatch:
        """The attempt is on its way there: hold what it takes, and expect its prompt in the cache."""
        held = Dispatch(self, request, replica, choice, now)
        hashes: tuple[int, ...] = request.prefix_hashes
        if hashes:
            self.index.sent(hashes, request.prefix_tokens, request.prompt_tokens, replica, now)
        if not request.stream:
            held.unseen = self.unseen.expect(held, now + choice.wait)
        return held

    def rates(self, replica: Replica) -> Rates:
        """The learner of this replica; a new one begins with the rates that the replica has."""
        learner = self._rates.get(replica.name)
        if learner is None or learner.replica is not replica:
            learner = self._rates[replica.name] = Rates(replica)
        return learner

    def expected(self, request: Request) -> int:
        """Output tokens: the running median of the model's answers, within what the caller allows."""
        known = self._outputs.get(request.model)
        usual = known.median if known is not None else 0
        allowed: int = request.max_tokens
        return max(1, min(allowed, usual or EXPECTED_TOKENS))

    def learn_output(self, model: str, tokens: int) -> None:
        """An answer of this model had so many (> 0)."""
        outputs = self._outputs.get(model)
        if outputs is None:
            if len(self._outputs) >= MODELS:
                del self._outputs[next(iter(self._outputs))]
            outputs = self._outputs[model] = Outputs()
        outputs.learn(tokens)

    def forget(self, replica: str) -> None:
        """It is gone: nothing about it is known."""
        self.restarted(replica)
        self._rates.pop(replica, None)

    def restarted(self, replica: str) -> None:
        """Its engine was started anew: it is as fast as it was, and has nothing cached."""
        self.index.forget(replica)
        self.sessions.forget(replica)

    def rule(self, deployment: str) -> Rule:
        """Each deployment has one of its own, for some policies keep count."""
        rule = self._rules.get(deployment)
        if rule is None:
            rule = self._rules[deployment] = Rule(self._defaults.options)
        return rule

    def ask(self, request: Request, now: float) -> Ask:
        """What the policies may know of it. A session is credited with the prompt that its replica has computed."""
        hashes: tuple[int, ...] = request.prefix_hashes
        ask = Ask(request.prompt_tokens, self.expected(request), now)
        if hashes:
            ask.holds(self.index.matched(hashes, request.prefix_tokens, now))
            ask.key = hashes[0]
        name: str = request.session
        if name:
            ask.key = xxh3_64_intdigest(name.encode())
            session = self.sessions.find(name, now)
            if session is not None:
                ask.bound(session.replica, session.tokens)
        return ask

    def _choice(self, ask: Ask, number: int, pool: Sequence[Replica], places: list[int], rng: Random) -> Choice:
        rule = self.rule(pool[places[0]].deployment)
        rule.meet(pool, self)
        if len(places) == 1:
            place = places[0]
        elif rule.exploration and ask.prompt_tokens <= SHORT and rng.random() < rule.exploration:
            place = places[int(rng.random() * len(places))]
            if pool[place].ramp > 1.0:  # who is new or suspected shows how fast it is with what it is given
                place = rule.policy.pick(ask, pool, places, rng)
        else:
            place = rule.policy.pick(ask, pool, places, rng)
        replica = pool[place]
        uncached = ask.uncached(replica.name)
        own, others, batch, memory = rule.costs.parts(ask, replica, uncached)
        return Choice(
            number,
            place,
            (own + others + batch + memory) * replica.ramp,
            predicted_wait(ask, replica, uncached),
            uncached,
            has_room(replica, rule.pending_tokens, ask.now),
            ask.prompt_tokens + ask.expected,
        )

    def _sample(self, pool: Sequence[Replica], ask: Ask, rng: Random) -> list[int]:
        """Some places of a large pool, none twice: those that hold most of the prompt, and others at random."""
        chosen: dict[int, None] = {}
        owners = ask.most(MOST_OWNERS)
        if owners:
            known = self._places.get(id(pool))
            if known is None or len(known.by_name) != len(pool):
                if len(self._places) >= MOST_POOLS:
                    self._places.clear()
                known = self._places[id(pool)] = Places(pool)
            for name in owners:
                place = known.by_name.get(name, -1)
                if place >= 0 and pool[place].name == name:
                    chosen[place] = None
        for _ in range(SAMPLE):
            chosen[int(rng.random() * len(pool))] = None
        return list(chosen)


def may(
    pool: Sequence[Replica], places: Sequence[int], gates: Mapping[str, Gate], tried: Collection[str], now: float
) -> tuple[list[int], list[int]]:
    """Of these places, those that may be asked: not tried yet, and tried."""
    fresh: list[int] = []
    used: list[int] = []
    for place in places:
        replica = pool[place]
        if not obstacle(replica, gates, now):
            if tried and replica.name in tried:
                used.append(place)
            else:
                fresh.append(place)
    return fresh, used


def obstacle(replica: Replica, gates: Mapping[str, Gate], now: float) -> str:
    """Why it may not be asked now; "" when it may."""
    if not replica.ready:
        return "not ready"
    if replica.cool_until > now:
        return "cooling"
    if replica.ejected_until > now:
        return "ejected"
    gate = gates[replica.name]
    return "" if gate.closed or gate.allows(now) else "breaker"


def has_room(replica: Replica, pending_tokens: int, now: float) -> bool:
    """Whether one more would start there soon. Always, where the engine has not said how much it can hold."""
    if replica.max_running and replica.inflight >= replica.max_running:
        return False
    return not replica.kv_tokens or replica.prefill_wait(now) * replica.prefill_rate < pending_tokens


def nobody_may(pools: Sequence[Sequence[Replica]], now: float) -> UpstreamError:
    """Why no replica was chosen: their rate limits, where those alone are in the way."""
    wait = wait_for_any(pools, now)
    limited = wait > 0 and any(replica.rate_limited for pool in pools for replica in pool if replica.ready)
    return UpstreamError(FailureKind.RATE_LIMITED if limited else FailureKind.NO_REPLICA, retry_after=wait or None)


def wait_for_any(pools: Sequence[Sequence[Replica]], now: float) -> float:
    """Seconds until the first cooling replica may be asked again; 0 when one may be asked now, or none is cooling."""
    soonest = float("inf")
    for pool in pools:
        for replica in pool:
            if replica.ready:
                if replica.cool_until <= now:
                    return 0.0
                soonest = min(soonest, replica.cool_until - now)
    return soonest if soonest != float("inf") else 0.0
