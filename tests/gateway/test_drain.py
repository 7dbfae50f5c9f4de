"""What becomes of an answer whose caller has left: cancelled, or read to its end, as the model says."""

import asyncio
from types import FunctionType

import pytest

from penstock.core.outcome import UsageSource
from penstock.gateway import drain
from penstock.gateway.try_upstreams import TryUpstreams
from penstock.testing import virtual_loop
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import Script
from tests.worlds import PLAIN, STREAM, World

SLOW = Script(ttft=1.0, tokens=10, tpot=1.0)


def leaving(loop_main):
    return virtual_loop.run(loop_main)


async def leave(world, body, after):
    exchange = FakeExchange(body)
    task = asyncio.get_running_loop().create_task(exchange.carry(world.gateway.handle))
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return exchange


@pytest.mark.parametrize("body", [STREAM, PLAIN])
@pytest.mark.parametrize("after", [0.5, 5.0])
def test_a_drained_answer_is_billed_as_the_provider_counts_it(body, after):
    async def main(loop):
        world = World(loop, {"a": SLOW}, on_disconnect="drain")
        exchange = await leave(world, body, after)
        assert world.outcomes == []
        sent = list(exchange.sent)
        await asyncio.sleep(30)
        world.check_nothing_is_held()
        (outcome,) = world.outcomes
        assert (outcome.usage.completion_tokens, outcome.usage_source) == (10, UsageSource.PROVIDER)
        assert outcome.error == "client_left"
        assert [attempt.ended for attempt in outcome.attempts] == ["ok"]
        assert exchange.sent == sent

    leaving(main)


@pytest.mark.skipif(not isinstance(TryUpstreams.tell, FunctionType), reason="compiled: nothing can be put in its place")
@pytest.mark.parametrize("body", [STREAM, PLAIN])
def test_who_leaves_as_the_answer_begins_does_not_let_it_wait(monkeypatch, body):
    async def main(loop):
        world = World(loop, {"a": SLOW}, on_disconnect="drain")
        task = loop.create_task(FakeExchange(body).carry(world.gateway.handle))
        tell = TryUpstreams.tell

        def leave_as_told(self, event):
            task.cancel()
            tell(self, event)

        monkeypatch.setattr(TryUpstreams, "tell", leave_as_told)
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(10)
        world.check_nothing_is_held()
        (outcome,) = world.outcomes
        assert (outcome.usage.completion_tokens, outcome.usage_source) == (10, UsageSource.PROVIDER)
        assert outcome.error == "client_left"

    leaving(main)


@pytest.mark.parametrize(("body", "after", "tokens"), [(STREAM, 0.5, 0), (STREAM, 5.0, 5), (PLAIN, 5.0, 0)])
def test_without_draining_the_upstream_is_cancelled_at_once_and_what_came_is_estimated(body, after, tokens):
    async def main(loop):
        world = World(loop, {"a": SLOW})
        await leave(world, body, after)
        world.check_nothing_is_held()
        (outcome,) = world.outcomes
        assert outcome.usage.completion_tokens == tokens
        assert outcome.usage_source == (UsageSource.ESTIMATE if tokens else UsageSource.NONE)
        assert [attempt.ended for attempt in outcome.attempts] == ["cancelled"]

    leaving(main)


def test_a_drain_ends_when_the_upstream_fails():
    async def main(loop):
        world = World(loop, {"a": Script(ttft=1.0, tokens=10, tpot=1.0, cut_after=7)}, on_disconnect="drain")
        await leave(world, STREAM, 3.0)
        await asyncio.sleep(30)
        world.check_nothing_is_held()
        (outcome,) = world.outcomes
        assert [attempt.ended for attempt in outcome.attempts] == ["truncated"]

    leaving(main)


def test_an_attempt_that_fails_before_its_first_token_is_not_retried_for_nobody():
    async def main(loop):
        world = World(loop, {"a": Script(status=500, fail_after=2.0), "b": SLOW}, on_disconnect="drain", seed=1)
        for _ in range(6):
            await leave(world, STREAM, 1.0)
        await asyncio.sleep(60)
        world.check_nothing_is_held()
        assert len(world.outcomes) == 6
        assert all(len(outcome.attempts) == 1 for outcome in world.outcomes)

    leaving(main)


def test_a_drain_is_bounded_in_time(monkeypatch):
    monkeypatch.setattr(drain, "MAX_SECONDS", 4.0)

    async def main(loop):
        world = World(loop, {"a": Script(ttft=1.0, tokens=100, tpot=1.0)}, on_disconnect="drain")
        await leave(world, STREAM, 3.0)
        await asyncio.sleep(5)
        world.check_nothing_is_held()
        (outcome,) = world.outcomes
        assert [attempt.ended for attempt in outcome.attempts] == ["cancelled"]

    leaving(main)


def test_drains_are_bounded_in_number(monkeypatch):
    monkeypatch.setattr(drain, "MAX_DRAINS", 2)

    async def main(loop):
        world = World(loop, {"a": SLOW}, on_disconnect="drain")
        for _ in range(3):
            await leave(world, STREAM, 2.5)
        assert len(world.outcomes) == 1
        await asyncio.sleep(30)
        world.check_nothing_is_held()
        assert len(world.outcomes) == 3
        await leave(world, STREAM, 2.5)
        assert len(world.outcomes) == 3, "the places of those that ended are free again"
        await asyncio.sleep(30)

    leaving(main)


def test_a_slow_caller_who_leaves_does_not_hold_the_drain_up():
    async def main(loop):
        world = World(loop, {"a": SLOW}, on_disconnect="drain")
        exchange = FakeExchange(STREAM)
        task = asyncio.get_running_loop().create_task(exchange.carry(world.gateway.handle))
        await asyncio.sleep(3.5)
        exchange.flow.pause()
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(30)
        (outcome,) = world.outcomes
        assert outcome.usage_source is UsageSource.PROVIDER

    leaving(main)
