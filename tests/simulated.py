"""Scripted replicas in the simulator, that answer as those of `tests.worlds.World` do."""

from random import Random

from msgspec import structs

from penstock.balancing.balancer import Balancer
from penstock.balancing.queued import Queued
from penstock.core.errors import FailureKind, UpstreamError, kind_of_status
from penstock.core.fleet import Replica
from penstock.resilience.breaker import Breaker, BreakerRule
from penstock.resilience.hedging import Hedging
from penstock.resilience.outliers import Outliers
from penstock.resilience.retry_budget import RetryBudget
from penstock.resilience.watch import Watch
from penstock.sim.deployment import Response
from penstock.sim.fleet import Fleet, Route
from penstock.sim.requests import Scripted, SimulatedRequest
from penstock.sim.world import World

TEND_EVERY = 0.25


def answer(script) -> Response:
    """What a replica with this script does, as far as deciding goes. It breaks no stream."""
    if script.fault is not None:
        kind = FailureKind.CONNECT if script.fault == "connect" else FailureKind.NETWORK
        return Response(script.fail_after, UpstreamError(kind), 0.0)
    if script.status != 200:
        after = next((float(value) for name, value in script.headers if name == b"retry-after"), None)
        return Response(script.fail_after, UpstreamError(kind_of_status(script.status), retry_after=after), 0.0)
    return Response(script.ttft, None, (script.tokens - 1) * script.tpot, script.tokens)


def untied(script, i):
    """Two things at the very same instant have no right order; keep them apart."""
    return structs.replace(
        script,
        ttft=script.ttft + 1.7e-4 + i * 1e-5,
        fail_after=script.fail_after + 3.1e-4 + i * 1e-5,
        cut_after=None,
    )


class Simulated:
    """One deployment, `main`, and one model, `chat`, as the live worlds have them."""

    def __init__(self, scripts, plan, *, seed=7, queue=None, outliers=None, hedge=None, shed=None, max_running=0):
        self.world = World()
        self.opened = []
        self.opened_at = []
        self.ended = []
        self.pool = [Replica(name, "main") for name in sorted(scripts)]
        gates = {replica.name: Breaker(BreakerRule()) for replica in self.pool}

        def respond(replica, request):
            self.opened.append(replica.name)
            self.opened_at.append(self.world.now)
            return answer(scripts[replica.name])

        balancer, rng = Balancer(), Random(seed)
        self.fleet = Fleet(balancer, gates, rng, Scripted(self.world, respond))
        queued = None
        if queue is not None:
            queued = Queued(("main",), queue, balancer, rng, self.world.time, self.world.at)
            queued.serve([self.pool])
            self.fleet.queues.append(queued)
        if outliers is not None and len(self.pool) > 1:
            watch = self.fleet.watches["main"] = Watch(Outliers(outliers, self.pool))
            watch.serve(self.pool, 0.0)
        hedging = None if hedge is None else Hedging(hedge)
        self.route = Route("chat", plan, {"main": self.pool}, RetryBudget(), queued=queued, hedging=hedging)
        self.fleet.routes = {"chat": self.route}
        self.fleet.shed = shed
        if max_running:
            for replica in self.pool:
                replica.reported(waiting=0, running=0, kv_used=0.0, kv_tokens=100_000, max_running=max_running)
            self.fleet.tend(0.0)

    def ask(self, at, request):
        """Let it come then; it is told of in `ended`. `request` is made when it does."""

        def come():
            if self.fleet.refuses(self.route, request.caller.priority):
                self.ended.append((request.id, "shed", None))
            else:
                SimulatedRequest(self.world, self.fleet, self.route, request, self._over).start()

        self.world.at(at, come)

    def run(self, until, *, tended=True):
        def tend():
            self.fleet.tend(self.world.now)
            if self.world.now < until:
                self.world.at(self.world.now + TEND_EVERY, tend)

        if tended:
            self.world.at(0.0, tend)
        self.world.run()

    def _over(self, one):
        self.ended.append((one.request.id, one.failed, one.ttft))
