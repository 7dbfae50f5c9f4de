"""Small worlds for tests: a live plane over scripted replicas."""

from random import Random

from penstock.config.spec import DeploymentSpec, ModelSpec, PlaneSpec, ReplicaSpec
from penstock.core.ids import RequestIds
from penstock.core.plan import Plan
from penstock.core.request import ANYONE, Endpoint
from penstock.gateway.prepare import Parts, Preparer
from penstock.gateway.serve import Gateway
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import transports
from penstock.wire import openai_chat

STREAM = b'{"model":"chat","messages":[{"role":"user","content":"hello there"}],"stream":true,"max_tokens":64}'
PLAIN = b'{"model":"chat","messages":[{"role":"user","content":"hello there"}],"max_tokens":64}'
PLAN = Plan(("main",), max_attempts=3, first_token_timeout=2.0, idle_timeout=5.0, total_timeout=60.0)


def request(body=STREAM, now=0.0):
    return openai_chat.parse(body, id="r1", endpoint=Endpoint.CHAT, caller=ANYONE, now=now)


def spec(
    replicas,
    plan=PLAN,
    on_disconnect="cancel",
    served="served",
    on_cut="error",
    deployment=None,
    max_tokens=None,
    hedge=None,
    **more,
):
    """`replicas` by deployment; `deployment` are more options of each."""
    return PlaneSpec(
        version=1,
        config_hash="test",
        models=(ModelSpec("chat", plan, on_disconnect, on_cut, max_tokens, hedge=hedge),),
        deployments=tuple(
            DeploymentSpec(
                name,
                served,
                tuple(ReplicaSpec(r, f"http://{r}", health_path=None) for r in members),
                **(deployment or {}),
            )
            for name, members in replicas.items()
        ),
        **({"keys": (), "insecure_dev": True} | more),
    )


class World:
    """A gateway over scripted replicas; `main` is the only deployment unless `replicas` says otherwise."""

    def __init__(self, loop, scripts, *, plan=PLAN, seed=7, replicas=None, stored=None, accounting=None, **more):
        self.transports, self.opened = transports(scripts)
        self.parts = Parts(
            clock=loop,
            rng=Random(seed),
            secret=lambda reference: reference,
            transport=lambda deployment, replica: self.transports[replica.name],
        )
        self.preparer = Preparer(self.parts)
        plane, swapped = self.preparer.prepare(spec(replicas or {"main": sorted(scripts)}, plan, **more), None)
        swapped()
        self.outcomes = []
        self.gateway = Gateway(
            plane,
            ids=RequestIds(loop.wall(), b"12345"),
            on_outcome=self.outcomes.append,
            stored=stored,
            accounting=accounting,
        )

    async def ask(self, body=STREAM, **more):
        exchange = FakeExchange(body, **more)
        await exchange.carry(self.gateway.handle)
        return exchange

    @property
    def calls(self):
        return [call for transport in self.transports.values() for call in transport.calls]

    def check_nothing_is_held(self):
        assert all((r.inflight, r.inflight_tokens) == (0, 0) for r in self.gateway.plane.replicas())
        assert all(call.closed for call in self.calls)
        assert self.gateway.in_flight == 0
