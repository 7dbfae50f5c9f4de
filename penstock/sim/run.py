"""One simulation: traffic meets a fleet of engine models, through the code that decides in the live gateway."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import inf, nan
from random import Random
from typing import Final, Protocol

import msgspec
from msgspec import structs

from penstock.balancing.balancer import Balancer
from penstock.balancing.options import DEFAULT, Balancing
from penstock.balancing.queue_options import QueueOptions
from penstock.balancing.queued import Queued, overlapping
from penstock.core.fleet import Replica
from penstock.core.plan import Plan
from penstock.core.request import Caller, Endpoint, Priority, Request
from penstock.resilience.breaker import Breaker
from penstock.resilience.concurrency import Concurrency, Limited
from penstock.resilience.degrade import together
from penstock.resilience.hedging import Hedging
from penstock.resilience.options import BreakerRule, HedgeRule, Ladder, ShedRule
from penstock.resilience.outliers import Outliers
from penstock.resilience.retry_budget import RetryBudget
from penstock.resilience.watch import Watch
from penstock.sim.deployment import Deployment
from penstock.sim.engines import Engines
from penstock.sim.fleet import Chooser, Fleet, Route
from penstock.sim.log import Log
from penstock.sim.pooled import PooledCache
from penstock.sim.requests import SimulatedRequest
from penstock.sim.results import Results, Slo, summarise
from penstock.sim.world import Happening, World
from penstock.traffic.arrival import Arrival

__all__ = ["Deployment", "Listed", "Simulation", "Traffic", "balanced_by"]

MAX_TOKENS: Final = 4_096  # what callers ask for at most; how much they get is not known before
REPORT_EVERY: Final = 2.0  # seconds, as the live prober
PROBES: Final = 2  # that fail in a row, before a replica is taken out, as there
TEND_EVERY: Final = 0.25  # seconds, as the live worker


class Traffic(Protocol):
    """`traffic.source.Source`, or a list of arrivals."""

    def next(self) -> Arrival | None: ...

    def ended(self, arrival: Arrival, now: float, ok: bool = True) -> Arrival | None: ...


class Listed:
    """Arrivals in the order of their times, which wait for nobody."""

    def __init__(self, arrivals: Iterable[Arrival]) -> None:
        self._arrivals = iter(arrivals)

    def next(self) -> Arrival | None:
        return next(self._arrivals, None)

    def ended(self, arrival: Arrival, now: float, ok: bool = True) -> Arrival | None:
        return None


class Coming(Happening):
    """The next arrival of those that wait for nobody."""

    __slots__ = ("_due", "_simulation")

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._due: Arrival | None = None

    def next(self) -> None:
        self._due = due = self._simulation.traffic.next()
        if due is None:
            self._simulation.exhausted = True
        else:
            at: float = due.at
            self._simulation.world.due(at, self)

    def happen(self, number: int) -> None:
        due = self._due
        assert due is not None, "somebody comes"
        self._simulation.begin(due)
        self.next()


class Simulation:
    """Give it `traffic`, `run` it, ask for `results`. The same arguments give the same results."""

    def __init__(
        self,
        deployments: Mapping[str, Deployment],
        traffic: Traffic,
        *,
        balancer: Chooser | None = None,
        plans: Mapping[str, Plan] | None = None,
        breaker: BreakerRule | None = None,
        budget: Callable[[], RetryBudget] = RetryBudget,
        queue: QueueOptions | None = None,
        hedges: Mapping[str, HedgeRule] | None = None,
        shed: ShedRule | None = None,
        ladders: Mapping[str, Ladder] | None = None,
        seed: int = 0,
        report_every: float = REPORT_EVERY,
        jumps: bool = True,
    ) -> None:
        """`plans` by the name of the model, the first one for arrivals that name none; default: one model, which goes
        to all deployments in their order. `queue`: late binding in a central queue; None: each is sent at once.
        `breaker`: instead of the deployments' own. `budget` makes each model's. `hedges` and `ladders` by model.
        `shed`: None: nobody is refused for the sake of others.
        """
        rng = Random(seed)
        self.world = World()
        self.deployments = deployments
        self.log = Log()
        self.engines = Engines(self.world, Random(rng.getrandbits(64)))
        self.traffic = traffic
        self.exhausted = False  # nobody comes any more by himself
        self._report_every = report_every
        plans = plans or {"": Plan(tuple(deployments), total_timeout=inf, first_token_timeout=inf)}
        self._first = next(iter(plans))
        self._callers: dict[tuple[str, Priority], Caller] = {}
        self._pooled = PooledCache(
            sum(d.replicas * d.engine.kv_tokens for d in deployments.values()),
            min(d.engine.block_size for d in deployments.values()),
        )
        self._alive = 0
        pools: dict[str, list[Replica]] = {}
        gates: dict[str, Breaker | Limited] = {}
        for name, deployment in deployments.items():
            pools[name] = [Replica(f"{name}-{number}", name) for number in range(deployment.replicas)]
            for replica in pools[name]:
                self.engines.add(replica, deployment.engine, jumps)
                gate = Breaker(breaker or deployment.breaker)
                limit = deployment.concurrency
                gates[replica.name] = gate if limit is None else Limited(gate, Concurrency(limit))
        self.fleet = Fleet(
            balancer if balancer is not None else Balancer(), gates, Random(rng.getrandbits(64)), self.engines
        )
        for name, deployment in deployments.items():
            if deployment.outliers is not None and deployment.replicas > 1:
                watch = self.fleet.watches[name] = Watch(Outliers(deployment.outliers, pools[name]))
                watch.serve(pools[name], 0.0)
        if queue is not None:
            for key in overlapping([plan.deployments for plan in plans.values()]):
                made = Queued(key, queue, self.fleet.balancer, self.fleet.rng, self.world.time, self.world.at)
                made.serve([pools[name] for name in key])
                self.fleet.queues.append(made)
        self.fleet.shed = shed
        self._routes = self.fleet.routes = {
            model: Route(
                model,
                plan,
                pools,
                budget(),
                queued=next((one for one in self.fleet.queues if plan.deployments[0] in one.key), None),
                hedging=Hedging(hedges[model]) if hedges and model in hedges else None,
                ladder=ladders.get(model, ()) if ladders else (),
            )
            for model, plan in plans.items()
        }

    def run(self) -> int:
        """Until the last answer has ended. Returns the number of events."""
        with uncollected():
            self._report()
            if self.fleet.tended:
                self._tend()
            Coming(self).next()
            return self.world.run()

    def results(self, slo: Slo | None = None) -> Results:
        duration = max(self.log.ended, default=0.0)
        hours = {name: d.replicas * d.gpus * duration / 3_600 for name, d in self.deployments.items()}
        with uncollected():
            return summarise(
                self.log,
                slo=slo or Slo(),
                duration=duration,
                prefix_bound=self._pooled.reuse,
                preemptions=sum(engine.model.scheduler.stats().preemptions for engine in self.engines.by_name.values()),
                gpu_hours=sum(hours.values()),
                cost=sum(hours[name] * d.gpu_hour for name, d in self.deployments.items()),
            )

    def begin(self, arrival: Arrival) -> None:
        """It has come."""
        self._alive += 1
        self._pooled.see(arrival.prefix_hashes, arrival.prefix_tokens, arrival.prompt_tokens)
        route = self._routes[arrival.model or self._first]
        most = MAX_TOKENS
        steps = self.fleet.pressed.steps
        if steps and route.model in steps:
            given = together(steps[route.model])
            if given.answer is not None:
                self._turned_away(arrival, route.model, "static")
                return
            if given.model is not None:
                route = self._routes[given.model]
            if given.max_tokens is not None:
                most = given.max_tokens
                arrival = structs.replace(arrival, output_tokens=min(arrival.output_tokens, most))
        if self.fleet.refuses(route, arrival.priority):
            self._turned_away(arrival, route.model, "shed")
            return
        request = self._request(arrival, route.model, most)
        SimulatedRequest(self.world, self.fleet, route, request, self._ended, arrival).start()

    def _turned_away(self, arrival: Arrival, model: str, why: str) -> None:
        """It is answered by ourselves."""
        now = self.world.now
        tenant, priority = arrival.tenant, arrival.priority
        self.log.add(arrival.number, now, nan, now, arrival.prompt_tokens, 0, 0, 0, 0, tenant, model, priority, "", why)
        self._followed(arrival, False)

    def _request(self, arrival: Arrival, model: str, most: int) -> Request:
        who = arrival.tenant, arrival.priority
        caller = self._callers.get(who)
        if caller is None:
            caller = self._callers[who] = Caller(arrival.tenant or "anybody", org=arrival.tenant, priority=who[1])
        return Request(
            str(arrival.number),
            Endpoint.CHAT,
            caller,
            model,
            True,
            False,
            arrival.prompt_tokens,
            max(most, arrival.output_tokens),
            arrival.prefix_hashes,
            {},
            self.world.now,
            prefix_tokens=arrival.prefix_tokens,
            session=arrival.session,
        )

    def _ended(self, done: SimulatedRequest) -> None:
        arrival, answered, now = done.arrival, done.answered, self.world.now
        assert arrival is not None
        ok = done.failed is None
        ttft = done.ttft
        arrived: float = done.request.received_at
        self.log.add(
            arrival.number,
            arrived,
            nan if ttft is None else arrived + ttft,
            now,
            arrival.prompt_tokens,
            arrival.output_tokens if ok else 0,
            answered.cached if answered is not None else 0,
            len(done.opened),
            done.hedges,
            arrival.tenant,
            done.route.model,
            arrival.priority,
            answered.replica.deployment if answered is not None else "",
            "" if done.failed is None else done.failed,
        )
        self._followed(arrival, ok)

    def _followed(self, arrival: Arrival, ok: bool) -> None:
        """Who goes on a conversation comes after its last answer."""
        follows = self.traffic.ended(arrival, self.world.now, ok)
        if follows is None:
            self._alive -= 1
            return
        due = follows

        def come() -> None:
            self._alive -= 1
            self.begin(due)

        self.world.at(due.at, come)

    def _report(self) -> None:
        """What the live prober would learn from every engine."""
        for engine in self.engines.by_name.values():
            replica, model = engine.replica, engine.model
            if engine.up and not model.hung:
                if engine.restarted:
                    engine.restarted = False
                    self.fleet.balancer.restarted(replica.name)
                engine.probes_failed = 0
                if not engine.draining:
                    replica.ready = True
                replica.reported(
                    waiting=model.n_waiting,
                    running=model.n_running,
                    kv_used=model.kv_used,
                    kv_tokens=engine.capacity,
                    max_running=engine.max_seqs,
                )
            else:
                engine.probes_failed += 1
                if engine.probes_failed >= PROBES:
                    replica.ready = False
        if self._alive or not self.exhausted:
            self.world.at(self.world.now + self._report_every, self._report)

    def _tend(self) -> None:
        """What the live worker has looked at, and not each request."""
        now = self.world.now
        self.fleet.tend(now)
        if self._alive or not self.exhausted:
            self.world.at(now + TEND_EVERY, self._tend)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without searches for circles of references: there are none in here, and to look took half of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def balanced_by(policy: str, **more: object) -> Balancer:
    """A balancer that goes by the policy of this name, with other options than the defaults."""
    return Balancer(defaults=msgspec.convert({**msgspec.to_builtins(DEFAULT), "policy": policy, **more}, Balancing))
