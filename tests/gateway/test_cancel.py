"""A request that an operator ends: wherever it is, its caller is told, and everything is given back."""

import asyncio
import json

import pytest

from penstock.core.request import Endpoint
from penstock.gateway.stored_responses import StoredResponses
from penstock.stores.memory import MemoryResponses
from penstock.testing import virtual_loop
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import TOKEN, Script
from tests.worlds import PLAIN, STREAM, World

CODE = "cancelled_by_operator"
SLOW = Script(ttft=1.0, tokens=10, tpot=1.0)
MESSAGES = b'{"model":"chat","messages":[{"role":"user","content":"hello"}],"stream":true,"max_tokens":64}'
RESPONSES = b'{"model":"chat","input":"hello","stream":true}'


def cancelling(body, after, *, script=SLOW, path=b"/v1/chat/completions", leave_at=None, again=False, **more):
    """Ask, cancel the request `after` so many seconds; (exchange, outcome, whether there was something to cancel)."""

    async def main(loop):
        world = World(loop, {"a": script}, **more)
        exchange = FakeExchange(body, path=path)
        asked = loop.create_task(exchange.carry(world.gateway.handle))
        if leave_at is not None:
            loop.call_later(leave_at, asked.cancel)
        await asyncio.sleep(after)
        (id,) = world.gateway.calls
        found = world.gateway.cancel(id)
        if again:
            world.gateway.cancel(id)
        await asyncio.gather(asked, return_exceptions=True)
        world.check_nothing_is_held()
        assert not world.gateway.cancel(id), "it is over"
        (outcome,) = world.outcomes
        return exchange, outcome, found

    return virtual_loop.run(main)


@pytest.mark.parametrize(("body", "after"), [(PLAIN, 0.5), (PLAIN, 5.0), (STREAM, 0.5)])
def test_before_its_answer_the_caller_gets_a_status_and_is_told_not_to_come_again(body, after):
    exchange, outcome, found = cancelling(body, after)
    assert found and exchange.status == 503 and json.loads(exchange.text)["error"]["code"] == CODE
    assert b"x-should-retry: false" in exchange.headers
    assert (outcome.status, outcome.error, outcome.duration) == (503, CODE, after)
    assert [attempt.ended for attempt in outcome.attempts] == ["cancelled"]


@pytest.mark.parametrize("again", [False, True])
def test_in_the_middle_of_a_stream_the_last_event_says_why_and_what_came_is_counted(again):
    exchange, outcome, found = cancelling(STREAM, 4.5, again=again)
    assert found and exchange.status == 200 and exchange.text.count(TOKEN) == 4
    last = exchange.text.removesuffix(b"\n\n").rpartition(b"\n\n")[2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == CODE
    assert (outcome.status, outcome.error, outcome.usage.completion_tokens) == (200, CODE, 4)
    assert [attempt.ended for attempt in outcome.attempts] == ["cancelled"]


def test_an_answer_that_could_go_on_elsewhere_does_not_when_an_operator_ends_it():
    exchange, outcome, _ = cancelling(STREAM, 4.5, on_cut="resume")
    assert CODE.encode() in exchange.text and outcome.error == CODE and len(outcome.attempts) == 1


@pytest.mark.parametrize("after", [0.5, 4.5])
def test_a_stream_of_another_dialect_ends_in_its_own_words(after):
    exchange, outcome, _ = cancelling(MESSAGES, after, path=b"/v1/messages")
    assert outcome.endpoint == Endpoint.MESSAGES and outcome.error == CODE
    assert CODE.encode() in exchange.text and b'"type":"error"' in exchange.text


@pytest.mark.parametrize("after", [0.5, 4.5])
def test_a_response_that_is_to_be_kept_is_not_when_it_was_cancelled(after):
    kept = MemoryResponses()

    async def main(loop):
        stored = StoredResponses(kept, loop)
        world = World(loop, {"a": SLOW}, stored=stored)
        exchange = FakeExchange(RESPONSES, path=b"/v1/responses")
        asked = loop.create_task(exchange.carry(world.gateway.handle))
        await asyncio.sleep(after)
        (id,) = world.gateway.calls
        assert world.gateway.cancel(id)
        await asked
        world.check_nothing_is_held()
        assert world.outcomes[0].error == CODE and b"An operator of this gateway" in exchange.text
        assert await kept.get("", f"resp_{id}", loop.wall()) is None

    virtual_loop.run(main)


@pytest.mark.parametrize("body", [STREAM, PLAIN])
def test_an_answer_that_is_read_on_for_nobody_can_be_ended_and_makes_room_for_another(body):
    exchange, outcome, found = cancelling(body, 5.0, leave_at=2.5, on_disconnect="drain")
    assert found and CODE.encode() not in exchange.text
    assert outcome.error == "client_left", "that is how it ended for its caller"
    assert [attempt.ended for attempt in outcome.attempts] == ["cancelled"]


def test_a_cancelled_request_is_not_tried_elsewhere():
    async def main(loop):
        world = World(loop, {"a": SLOW, "b": SLOW})
        asked = loop.create_task(world.ask())
        await asyncio.sleep(0.5)
        world.gateway.cancel(next(iter(world.gateway.calls)))
        await asked
        assert len(world.opened) == 1
        world.check_nothing_is_held()

    virtual_loop.run(main)


def test_others_go_on_and_an_id_that_is_not_here_cancels_nothing():
    async def main(loop):
        world = World(loop, {"a": SLOW})
        one, other = (loop.create_task(world.ask()) for _ in range(2))
        await asyncio.sleep(3.0)
        assert not world.gateway.cancel("req_nobody")
        first, _ = world.gateway.calls
        assert world.gateway.cancel(first)
        assert CODE.encode() in (await one).text and (await other).text.count(TOKEN) == 10
        world.check_nothing_is_held()

    virtual_loop.run(main)


@pytest.mark.parametrize("after", [0.999_999, 1.0, 1.000_001, 9.999_999, 10.0, 10.000_001])
def test_at_any_moment_it_is_either_cancelled_or_whole(after):
    async def main(loop):
        world = World(loop, {"a": SLOW})
        asked = loop.create_task(world.ask())
        await asyncio.sleep(after)
        found = [world.gateway.cancel(id) for id in tuple(world.gateway.calls)]
        exchange = await asked
        world.check_nothing_is_held()
        (outcome,) = world.outcomes
        assert (outcome.error == CODE) == (found == [True]) == (CODE.encode() in exchange.text)
        assert (outcome.error is None) == exchange.text.endswith(b"data: [DONE]\n\n")

    virtual_loop.run(main)
