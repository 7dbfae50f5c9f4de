"""Engines are asked how they read a prompt, beside the path of requests."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from penstock.balancing.exact_index import ExactIndex
from penstock.balancing.prefix_index import PrefixIndex
from penstock.core.request import ANYONE, PREFIX_TOKENS, Endpoint, Request
from penstock.testing import virtual_loop
from penstock.testing.fake_upstream import FakeTransport, Script, transports
from penstock.upstreams import openai
from penstock.upstreams.credentials import nobody
from penstock.upstreams.http_upstream import HttpUpstream
from penstock.upstreams.kv_tokens import ANSWER_WITHIN, MOST_AT_ONCE, QUIET_FOR, TokenAsker
from penstock.upstreams.way import Terms
from penstock.wire import anthropic, openai_chat

TEXT = "what is a KV cache? " * 60
TOKENS = list(range(320))
NATIVE = (Endpoint.CHAT, Endpoint.COMPLETION, Endpoint.TOKENIZE, Endpoint.MESSAGES)


class World:
    """One engine of the deployment `pool`, which holds the blocks of `TOKENS`."""

    def __init__(
        self, clock: virtual_loop.VirtualLoop, script: Script | None = None, native: tuple[Endpoint, ...] = NATIVE
    ) -> None:
        self.clock = clock
        self.index = ExactIndex(PrefixIndex())
        cache = self.index.join("pool/0", "pool")
        self.index.hears(cache)
        self.index.stored(cache, list(range(20)), None, TOKENS, 16)
        answer = msgspec.json.encode({"count": 320, "max_model_len": 4096, "tokens": TOKENS})
        found, _ = transports({"pool/0": script or Script(ttft=0.1, answer=answer)})
        self.transport: FakeTransport = found["pool/0"]
        ways = openai.ways(Terms(self.clock, "/v1", "served", native=native))
        self.upstream = HttpUpstream(self.transport, self.clock, ways, nobody())
        self.asker = TokenAsker(self.index, self.clock)

    def offer(self, request: Request) -> None:
        self.asker.offer(request, "pool", self.upstream)

    def matched(self, request: Request) -> int:
        return self.index.matched(request.prefix_hashes, PREFIX_TOKENS, 0.0).get("pool/0", 0)


def chat(text: str = TEXT, **more: Any) -> Request:
    body = {"model": "chat", "messages": [{"role": "user", "content": text}], "temperature": 0.5, **more}
    return parsed(Endpoint.CHAT, body)


def parsed(endpoint: Endpoint, body: dict[str, Any]) -> Request:
    parse = anthropic.parse if endpoint is Endpoint.MESSAGES else openai_chat.parse
    return parse(msgspec.json.encode(body), id="req_1", endpoint=endpoint, caller=ANYONE, now=0.0)


def asked(world: World) -> dict[str, Any]:
    assert world.transport.heads[0].startswith(b"POST /tokenize HTTP/1.1\r\n")
    return msgspec.json.decode(world.transport.bodies[0])


def test_after_an_answer_the_index_knows_the_prompt():
    async def main(loop: virtual_loop.VirtualLoop) -> None:
        world, request = World(loop), chat(tools=[])
        world.offer(request)
        world.offer(chat(tools=[]))  # the same text, and the question is under way
        request.forget()
        assert world.matched(request) == 0
        await asyncio.sleep(1.0)
        assert world.matched(request) == 256
        assert len(world.transport.bodies) == 1
        assert asked(world) == {"model": "served", "messages": [{"role": "user", "content": TEXT}], "tools": []}
        assert (world.asker.learned, world.asker.failed) == (1, 0)
        world.offer(chat())
        assert len(world.transport.bodies) == 1, "what is known is not asked for again"

    virtual_loop.run(main)


def test_messages_of_another_dialect_are_asked_for_as_chat():
    async def main(loop: virtual_loop.VirtualLoop) -> None:
        world = World(loop)
        body = {
            "model": "chat",
            "max_tokens": 9,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": TEXT}],
        }
        world.offer(parsed(Endpoint.MESSAGES, body))
        await asyncio.sleep(1.0)
        assert [message["role"] for message in asked(world)["messages"]] == ["system", "user"]
        assert world.asker.learned == 1

    virtual_loop.run(main)


def test_a_prompt_of_tokens_needs_no_question():
    async def main(loop: virtual_loop.VirtualLoop) -> None:
        world = World(loop)
        request = parsed(Endpoint.COMPLETION, {"model": "chat", "prompt": TOKENS * 8})
        world.offer(request)
        assert not world.transport.bodies
        assert world.asker.learned == 1

    virtual_loop.run(main)


@pytest.mark.parametrize(
    "request_of", [lambda: chat("short"), lambda: chat(cache_salt="mine")], ids=["too short to steer for", "salted"]
)
def test_what_cannot_be_steered_by_is_not_asked_for(request_of):
    async def main(loop: virtual_loop.VirtualLoop) -> None:
        world = World(loop)
        world.offer(request_of())
        await asyncio.sleep(1.0)
        assert not world.transport.bodies

    virtual_loop.run(main)


def test_an_engine_without_a_way_to_ask_is_not_asked():
    async def main(loop: virtual_loop.VirtualLoop) -> None:
        world = World(loop, native=(Endpoint.CHAT,))
        world.offer(chat())
        await asyncio.sleep(1.0)
        assert not world.transport.bodies and world.asker.failed == 0

    virtual_loop.run(main)


def test_no_more_than_a_few_questions_are_under_way_and_others_are_skipped():
    async def main(loop: virtual_loop.VirtualLoop) -> None:
        world = World(loop)
        for number in range(MOST_AT_ONCE + 3):
            world.offer(chat(f"{number} {TEXT}"))
        assert len(world.transport.bodies) == MOST_AT_ONCE and world.asker.skipped == 3
        await asyncio.sleep(1.0)
        world.offer(chat(f"again {TEXT}"))
        assert len(world.transport.bodies) == MOST_AT_ONCE + 1

    virtual_loop.run(main)


@pytest.mark.parametrize(
    "script",
    [
        Script(status=404),
        Script(fault="reset"),
        Script(answer=b'{"error": {"message": "no"}}'),
        Script(answer=b'{"tokens": ["a"]}'),
        Script(answer=b"<html>"),
        Script(answer=b'{"tokens": [%s]}' % b", ".join([b"7"] * 320)),
        Script(ttft=ANSWER_WITHIN + 1),
    ],
    ids=["no such path", "broken connection", "an error", "texts", "no JSON", "tokens that nobody holds", "silence"],
)
def test_an_engine_that_cannot_say_is_left_alone_for_a_while(script: Script):
    async def main(loop: virtual_loop.VirtualLoop) -> None:
        world = World(loop, script)
        for number in range(3):
            world.offer(chat(f"{number} {TEXT}"))
            await asyncio.sleep(ANSWER_WITHIN)
        assert world.asker.failed == 3 and world.asker.learned == 0
        world.offer(chat(f"more {TEXT}"))
        assert len(world.transport.bodies) == 3
        await asyncio.sleep(QUIET_FOR)
        world.offer(chat(f"more {TEXT}"))
        assert len(world.transport.bodies) == 4

    virtual_loop.run(main)


def test_closing_lets_go_of_every_question():
    async def main(loop: virtual_loop.VirtualLoop) -> None:
        world = World(loop)
        world.offer(chat())
        world.asker.close()
        assert world.transport.calls[0].closed
        await asyncio.sleep(1.0)
        assert world.asker.learned == world.asker.failed == 0

    virtual_loop.run(main)
