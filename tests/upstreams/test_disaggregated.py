"""One answer from two replicas: who is sent what, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.request import ANYONE, Endpoint, Request
from penstock.testing import virtual_loop
from penstock.testing.fake_upstream import Script, transports
from penstock.testing.virtual_loop import VirtualLoop
from penstock.upstreams import openai
from penstock.upstreams.credentials import nobody
from penstock.upstreams.disaggregated import Handed, open_disaggregated
from penstock.upstreams.http_upstream import HttpUpstream
from penstock.upstreams.way import Terms
from penstock.wire import openai_chat

PARAMS = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_engine_id": "e-1",
    "remote_block_ids": [4, 5],
    "remote_host": "10.0.0.4",
    "remote_port": 5600,
}
PREFILLED = msgspec.json.encode(
    {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "h"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        "kv_transfer_params": PARAMS,
    }
)
WITHOUT = PREFILLED.replace(b"kv_transfer_params", b"something_else")
LONG = "word " * 4_000


class Load:
    def __init__(self, sent: list[str]) -> None:
        self.told: list[Any] = []
        self._sent = sent

    def began(self) -> None:
        assert not self._sent, "load is counted before it is sent"
        self.told.append("began")

    def ended(self, how: Handed, failure: UpstreamError | None) -> None:
        self.told.append((how, None if failure is None else failure.kind))


class Caller:
    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.got = b""
        self.end: Any = "not yet"

    def traceparent(self) -> bytes:
        return b""

    def on_first_token(self) -> None:
        self.heard.append("first token")

    def on_failed(self, failure: UpstreamError) -> None:
        self.heard.append(failure.kind)

    def on_events(self, block: bytes) -> None:
        self.got += block

    def on_end(self, failure: UpstreamError | None) -> None:
        self.end = failure


class World:
    def __init__(self, loop: VirtualLoop, prefill: Script, decode: Script, text: str = "hello", **more: Any) -> None:
        self.transports, self.sent = transports({"p/0": prefill, "d/0": decode})
        self.load, self.caller = Load(self.sent), Caller()
        ways = openai.ways(Terms(loop, "/v1", "served", native=(Endpoint.CHAT, Endpoint.COMPLETION)))
        upstreams = {name: HttpUpstream(one, loop, ways, nobody()) for name, one in self.transports.items()}
        request = asked(text, **more)
        self.stream = open_disaggregated(
            request, upstreams["p/0"], upstreams["d/0"], self.caller, loop, self.load, give_up_after=5.0
        )

    def body(self, name: str) -> dict[str, Any]:
        (body,) = self.transports[name].bodies
        return msgspec.json.decode(body)


def asked(text: str, **more: Any) -> Request:
    body = {"model": "chat", "messages": [{"role": "user", "content": text}], **more}
    return openai_chat.parse(msgspec.json.encode(body), id="req_1", endpoint=Endpoint.CHAT, caller=ANYONE, now=0.0)


def in_virtual_time(test: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        virtual_loop.run(test)

    run.__name__ = test.__name__
    return run


@in_virtual_time
async def test_the_prompt_goes_to_the_first_for_one_token_and_what_it_answers_to_the_second(loop: VirtualLoop):
    world = World(
        loop, Script(ttft=1.0, answer=PREFILLED), Script(ttft=0.1, tokens=3),
        stream=True, stream_options={"include_usage": True}, max_completion_tokens=50, min_tokens=5, n=1,
    )  # fmt: skip
    await asyncio.sleep(0.5)
    assert world.sent == ["p/0"] and world.caller.heard == []
    first = world.body("p/0")
    assert (first["max_tokens"], first["stream"], first["model"]) == (1, False, "served")
    assert first["kv_transfer_params"]["do_remote_decode"] is True
    assert not {"stream_options", "max_completion_tokens", "min_tokens", "n"} & first.keys()
    await asyncio.sleep(1.0)
    second = world.body("d/0")
    assert second["kv_transfer_params"] == PARAMS
    assert (second["stream"], second["max_completion_tokens"], second["min_tokens"]) == (True, 50, 5)
    assert world.caller.heard == ["first token"]
    world.stream.relay(world.caller)
    assert world.caller.end is None and world.caller.got.endswith(b"data: [DONE]\n\n")
    assert world.stream.usage()[0].completion_tokens == 3
    assert world.load.told == ["began", (Handed.OVER, None)]


@in_virtual_time
async def test_a_plain_answer_is_the_seconds(loop: VirtualLoop):
    world = World(loop, Script(answer=PREFILLED), Script(tokens=7))
    await asyncio.sleep(1.0)
    assert world.stream.plain is not None and b'"completion_tokens":7' in world.stream.plain
    assert world.stream.finish_reason == "stop" and world.stream.content_type == b"application/json"


@in_virtual_time
async def test_a_long_request_keeps_nothing_of_its_first_form(loop: VirtualLoop):
    """The body of a long request is sent as it came, unless something was added to it."""
    world = World(loop, Script(answer=PREFILLED), Script(), text=LONG)
    await asyncio.sleep(1.0)
    assert world.body("p/0")["max_tokens"] == 1 and world.body("d/0")["kv_transfer_params"] == PARAMS


FAILING = {
    "refuses": (Script(status=503), FailureKind.OVERLOADED),
    "is not there": (Script(fault="connect"), FailureKind.CONNECT),
    "dies": (Script(fault="reset", fail_after=0.5), FailureKind.NETWORK),
    "hangs": (Script(ttft=100.0), FailureKind.FIRST_TOKEN_TIMEOUT),
    "says nothing of a transfer": (Script(answer=WITHOUT), FailureKind.BAD_PAYLOAD),
    "speaks nonsense of it": (
        Script(answer=PREFILLED.replace(b'{"do_remote_prefill":true', b'[{"x":1')),
        FailureKind.BAD_PAYLOAD,
    ),
}


@pytest.mark.parametrize("how", FAILING)
def test_when_the_first_fails_the_second_computes_the_prompt_itself(how: str):
    script, kind = FAILING[how]

    async def main(loop: VirtualLoop) -> None:
        world = World(loop, script, Script(ttft=0.1, tokens=2))
        await asyncio.sleep(6.0)
        assert world.caller.heard == ["first token"], "the caller hears of the answer only"
        assert "kv_transfer_params" not in world.body("d/0")
        assert world.load.told == ["began", (Handed.FAILED, kind)]
        assert world.transports["p/0"].calls[0].closed

    virtual_loop.run(main)


@in_virtual_time
async def test_when_the_second_fails_the_caller_hears_of_it(loop: VirtualLoop):
    world = World(loop, Script(answer=PREFILLED), Script(status=503))
    await asyncio.sleep(1.0)
    assert world.caller.heard == [FailureKind.OVERLOADED]
    assert world.load.told == ["began", (Handed.OVER, None)]


@pytest.mark.parametrize("after", [0.0, 0.5, 1.5, 2.5])
def test_letting_go_at_any_time_lets_go_of_both_and_gives_the_load_back_once(after: float):
    async def main(loop: VirtualLoop) -> None:
        world = World(loop, Script(ttft=1.0, answer=PREFILLED), Script(ttft=1.0, tokens=100, tpot=1.0), stream=True)
        await asyncio.sleep(after)
        world.stream.close()
        world.stream.close()
        heard = list(world.caller.heard)
        await asyncio.sleep(20.0)
        assert world.caller.heard == heard, "nobody is told anything any more"
        assert all(call.closed or call.finished for one in world.transports.values() for call in one.calls)
        left = (Handed.LEFT, None) if after < 1.0 else (Handed.OVER, None)
        assert world.load.told == ["began", left]
        assert world.sent == (["p/0"] if after < 1.0 else ["p/0", "d/0"])

    virtual_loop.run(main)


@in_virtual_time
async def test_a_first_that_cannot_even_be_asked_is_a_failed_prefill(loop: VirtualLoop):
    class NoCredential:
        endpoints = frozenset({Endpoint.CHAT})

        def goes_on(self, endpoint: Any, how: Any) -> bool:
            return False

        def open(self, request: Any, listener: Any, now: float, so_far: Any = None) -> Any:
            raise UpstreamError(FailureKind.AUTH)

    found, sent = transports({"d/0": Script()})
    ways = openai.ways(Terms(loop, "/v1", "served", native=(Endpoint.CHAT,)))
    load, caller = Load(sent), Caller()
    decode = HttpUpstream(found["d/0"], loop, ways, nobody())
    open_disaggregated(asked("hello"), NoCredential(), decode, caller, loop, load)
    assert caller.heard == [], "a listener is never called from inside"
    await asyncio.sleep(1.0)
    assert caller.heard == ["first token"] and load.told == ["began", (Handed.FAILED, FailureKind.AUTH)]
