"""One simulation: traffic meets a fleet of engine models, through the code that decides in the live gateway."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import nan
from random import Random
from typing import Final, Protocol

import msgspec

from penstock.balancing.balancer import Balancer
from penstock.balancing.options import DEFAULT, Balancing
from penstock.balancing.queue import Queue
from penstock.balancing.queue_options import QueueOptions
from penstock.core.fleet import Replica
from penstock.core.plan import Plan
from penstock.core.request import Caller, Endpoint, Priority, Request
from penstock.resilience.breaker import Breaker, BreakerRule
from penstock.resilience.retry_budget import RetryBudget
from penstock.sim.engines import Engines
from penstock.sim.fleet import Chooser, Deployment, Fleet
from penstock.sim.line import Line
from penstock.sim.log import Log
from penstock.sim.requests import SimulatedRequest
from penstock.sim.results import PooledCache, Results, Slo, summarise
from penstock.sim.world import World
from penstock.traffic.arrival import Arrival

__all__ = ["Deployment", "Listed", "Simulation", "Traffic", "balanced_by"]

MAX_TOKENS: Final = 4_096  # what callers ask for at most; how much they get is not known before
REPORT_EVERY: Final = 2.0  # seconds, as the live prober
PROBES: Final = 2  # that fail in a row, before a replica is taken out, as there


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
        budget: RetryBudget | None = None,
        queue: QueueOptions | None = None,
        seed: int = 0,
        report_every: float = REPORT_EVERY,
        jumps: bool = True,
    ) -> None:
        """`plans` by the name of the model, the first one for arrivals that name none; default: one model, which goes
        to all deployments in their order. `queue`: late binding in a central queue; None: each is sent at once.
        """
        rng = Random(seed)
        self.world = World()
        self.deployments = deployments
        self.log = Log()
        self.engines = Engines(self.world, Random(rng.getrandbits(64)))
        self._traffic = traffic
        self._report_every = report_every
        self._plans = (
            dict(plans) if plans else {"": Plan(tuple(deployments), total_timeout=1e9, first_token_timeout=1e9)}
        )
        self._first = next(iter(self._plans))
        self._callers: dict[tuple[str, Priority], Caller] = {}
        self._pooled = PooledCache(
            sum(d.replicas * d.engine.kv_tokens for d in deployments.values()),
            min(d.engine.block_size for d in deployments.values()),
        )
        self._alive = 0
        self._exhausted = False
        pools: dict[str, list[Replica]] = {}
        for name, deployment in deployments.items():
            pools[name] = [Replica(f"{name}-{number}", name) for number in range(deployment.replicas)]
            for replica in pools[name]:
                self.engines.add(replica, deployment.engine, jumps)
        self.fleet = Fleet(
            pools=pools,
            breakers={engine.replica.name: Breaker(breaker or BreakerRule()) for engine in self.engines},
            balancer=balancer if balancer is not None else Balancer(),
            budget=budget if budget is not None else RetryBudget(),
            rng=Random(rng.getrandbits(64)),
            upstream=self.engines,
        )

        if queue is not None:
            machine = Queue(self.fleet.balancer, queue)
            machine.resize(sum(d.replicas * d.engine.max_seqs for d in deployments.values()))
            self.fleet.line = Line(self.world, machine, self.fleet.rng)

    def run(self) -> int:
        """Until the last answer has ended. Returns the number of events."""
        with uncollected():
            self._report()
            self._come()
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
                preemptions=sum(engine.model.scheduler.stats().preemptions for engine in self.engines),
                gpu_hours=sum(hours.values()),
                cost=sum(hours[name] * d.gpu_hour for name, d in self.deployments.items()),
            )

    def _come(self) -> None:
        arrival = self._traffic.next()
        if arrival is None:
            self._exhausted = True
            return
        due = arrival

        def arrive() -> None:
            self._begin(due)
            self._come()

        self.world.at(arrival.at, arrive)

    def _follow(self, arrival: Arrival) -> Callable[[], None]:
        return lambda: self._begin(arrival)

    def _begin(self, arrival: Arrival) -> None:
        self._alive += 1
        self._pooled.see(arrival.prefix_hashes, arrival.prefix_tokens, arrival.prompt_tokens)
        model = arrival.model or self._first
        SimulatedRequest(
            self.world, self.fleet, self._request(arrival, model), self._plans[model], self._ended, arrival
        )

    def _request(self, arrival: Arrival, model: str) -> Request:
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
            max(MAX_TOKENS, arrival.output_tokens),
            arrival.prefix_hashes,
            {},
            self.world.now,
            prefix_tokens=arrival.prefix_tokens,
            session=arrival.session,
        )

    def _ended(self, done: SimulatedRequest) -> None:
        self._alive -= 1
        arrival, answered, now = done.arrival, done.answered, self.world.now
        assert arrival is not None
        ok = done.failed is None
        ttft = done.ttft
        self.log.add(
            arrival.number,
            done.request.received_at,
            nan if ttft is None else done.request.received_at + ttft,
            now,
            arrival.prompt_tokens,
            arrival.output_tokens if ok else 0,
            answered.cached if answered is not None else 0,
            len(done.opened),
            done.hedges,
            arrival.tenant,
            done.request.model,
            arrival.priority,
            answered.replica.deployment if answered is not None else "",
            "" if done.failed is None else done.failed,
        )
        follows = self._traffic.ended(arrival, now, ok)
        if follows is not None:
            self.world.at(follows.at, self._follow(follows))
            self._alive += 1  # until it has come
            self.world.at(follows.at, self._came)

    def _came(self) -> None:
        self._alive -= 1

    def _report(self) -> None:
        """What the live prober would learn from every engine."""
        for engine in self.engines:
            replica, model = engine.replica, engine.model
            if engine.up and not model.hung:
                if engine.restarted:
                    engine.restarted = False
                    self.fleet.balancer.restarted(replica.name)
                engine.probes_failed = 0
                if not replica.ready and not engine.draining:
                    replica.ready = True
                    if self.fleet.line is not None:
                        self.fleet.line.look_again()
                options = model.options
                replica.reported(
                    waiting=model.n_waiting,
                    running=model.n_running,
                    kv_used=model.kv_used,
                    kv_tokens=options.capacity,
                    max_running=options.max_seqs,
                )
            else:
                engine.probes_failed += 1
                if engine.probes_failed >= PROBES:
                    replica.ready = False
        if self.fleet.line is not None:
            self.fleet.line.settle()
        if self._alive or not self._exhausted:
            self.world.at(self.world.now + self._report_every, self._report)


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
