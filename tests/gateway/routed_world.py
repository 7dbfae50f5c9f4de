"""A gateway with several models and their routing, over scripted replicas that say what a test wants them to say."""

from __future__ import annotations

import asyncio
import json
from math import log

import msgspec

from penstock.config.spec import DeploymentSpec, ModelSpec, PlaneSpec, ReplicaSpec
from penstock.core.plan import Plan
from penstock.core.request import Endpoint
from penstock.pricing.options import PriceOptions
from penstock.testing import virtual_loop
from penstock.testing.fake_upstream import DONE, Script
from tests.worlds import World

BOTH = (Endpoint.CHAT, Endpoint.COMPLETION)


def deployment(name, *, inside=False, price=None, replicas=1, **more):
    return DeploymentSpec(
        name,
        f"served-{name}",
        tuple(ReplicaSpec(f"{name}/{n}", f"http://{name}", health_path=None) for n in range(replicas)),
        self_hosted=inside,
        price=() if price is None else (PriceOptions(input=f"${price}/M", output=f"${price}/M"),),
        native=BOTH,
        **more,
    )


def model(name, *deployments, plan=None, **more):
    plan = plan or Plan(deployments, max_attempts=3, first_token_timeout=2.0, idle_timeout=5.0, total_timeout=60.0)
    return ModelSpec(name, plan, **more)


class Routed(World):
    """`models` and `deployments` are specifications; `scripts` are by deployment."""

    def __init__(self, loop, scripts, models, deployments, *, seed=7, accounting=None, stored=None, **more):
        replicas = [replica.name for one in deployments for replica in one.replicas]
        scripts = {name: scripts.get(name.partition("/")[0], Script()) for name in replicas}
        super().__init__(
            loop, scripts, replicas={"main": [replicas[0]]}, seed=seed, accounting=accounting, stored=stored
        )
        spec = PlaneSpec(2, "test", tuple(models), tuple(deployments), keys=(), insecure_dev=True)
        plane, swapped = self.preparer.prepare(msgspec.structs.replace(spec, **more), None)
        self.gateway.plane = plane
        swapped()

    def reload(self, **changes):
        """Other options."""
        plane = self.gateway.plane
        self.gateway.plane, swapped = self.preparer.prepare(msgspec.structs.replace(plane.spec, **changes), plane)
        swapped()

    async def chat(self, text="hello there", headers=(), path=b"/v1/chat/completions", query=b"", **fields):
        body = {"model": "chat", "messages": [{"role": "user", "content": text}]} | fields
        body = {name: value for name, value in body.items() if value is not None}
        sent = tuple((name.encode(), value.encode()) for name, value in headers)
        return await self.ask(json.dumps(body).encode(), headers=sent, path=path, query=query)

    def bodies(self, name):
        """What this deployment's replicas were sent."""
        found = [one.bodies for replica, one in self.transports.items() if replica.startswith(f"{name}/")]
        return [msgspec.json.decode(body) for bodies in found for body in bodies]

    def check_nothing_is_held(self):
        super().check_nothing_is_held()
        assert not any(call._timer and not call.closed for call in self.calls)


def play(story):
    virtual_loop.run(story)


def says(*words, probability=None, ttft=0.1, tpot=0.1, tools=False, breaks_after=None):
    """An upstream that answers with these words, one event each, and with their probability where it is asked."""

    def told(word, asked):
        if not asked or probability is None:
            return None
        top = [{"token": word, "logprob": log(probability)}, {"token": "?", "logprob": log(1 - probability + 1e-9)}]
        return {"content": [{"token": word, "logprob": log(probability), "top_logprobs": top}]}

    def steps(fields):
        asked = fields.get("logprobs") is True
        if not fields.get("stream"):
            message = {"role": "assistant", "content": "".join(words)}
            if tools:
                call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
            logprobs = [told(word, asked) for word in words]
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            if logprobs and logprobs[0]:
                choice["logprobs"] = {"content": [one for told in logprobs for one in told["content"]]}
            body = {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}
            return [(ttft + tpot * len(words), json.dumps(body).encode()), (0.0, "end")]
        events = [event({"content": word}, logprobs=told(word, asked)) for word in words]
        found = [(ttft if n == 0 else tpot, one) for n, one in enumerate(events)]
        if breaks_after is not None:
            return [*found[:breaks_after], (tpot, "reset")]
        last = event({}, finish_reason="stop") + b"data: %b\n\n" % json.dumps({"choices": [], "usage": usage}).encode()
        return [*found, (0.0, last + DONE), (0.0, "end")]

    usage = {"prompt_tokens": 100, "completion_tokens": 10 * len(words), "total_tokens": 100 + 10 * len(words)}
    return Script(steps=steps)


def event(delta, logprobs=None, finish_reason=None):
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return b"data: %b\n\n" % json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [choice]}).encode()


def text_of(exchange):
    """What the caller read, streamed or not."""
    if exchange.text.startswith(b"{"):
        return msgspec.json.decode(exchange.text)["choices"][0]["message"]["content"]
    events = [one[6:] for one in exchange.text.split(b"\n\n") if one.startswith(b"data: {")]
    choices = [choice for one in events for choice in msgspec.json.decode(one).get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def header(exchange, name):
    """Of the answer; None where it is not there."""
    lines = exchange.headers.decode("ascii").split("\r\n")
    return next((line.partition(": ")[2] for line in lines if line.startswith(f"{name}: ")), None)


async def ticking(world, seconds=0.25):
    while True:
        world.gateway.tend()
        await asyncio.sleep(seconds)
