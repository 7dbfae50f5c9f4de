"""Subscribers on real sockets, with a publisher that loses, repeats, restarts and talks nonsense."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
import zmq.asyncio

from penstock.balancing.exact_index import ExactIndex
from penstock.balancing.prefix_index import PrefixIndex
from penstock.core.clock import SystemClock
from penstock.testing.fake_kv_publisher import FakeKvPublisher
from penstock.upstreams.kv_events import KvEvents, Source, sources_of
from penstock.wire.kv_events import AllBlocksCleared, BlockRemoved, BlockStored

SIZE = 64
TOKENS = (256, 512)


def stored(first: int, n: int, parent: int | None = None, **more: object) -> BlockStored:
    """`n` blocks, named from `first` on; block number k is made of tokens k."""
    ids = [number for number in range(first, first + n) for _ in range(SIZE)]
    return BlockStored(list(range(first, first + n)), parent, ids, SIZE, **more)  # type: ignore[arg-type]


class World:
    def __init__(self, events: KvEvents, index: ExactIndex, engine: FakeKvPublisher, source: Source) -> None:
        self.events, self.index, self.engine, self.source = events, index, engine, source

    @property
    def heard(self):
        return self.events.heard[self.source]

    def matched(self) -> int:
        """Of the prompt that consists of the blocks 1 to 8."""
        self.index.learn("pool", [1, 2], 512, stored(1, 8).token_ids)
        return self.index.matched([1, 2], TOKENS, 0.0).get("pool/0", 0)

    async def settled(self, n: int) -> None:
        """Until the index counts so many blocks."""
        await until(lambda: len(self.index) == n)


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """On the loop that workers have, whose view of a ZeroMQ socket is its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*arguments, **named))

    return run


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to be so")


@asynccontextmanager
async def hearing(*, replays: bool = False, keeps: int = 100) -> AsyncIterator[World]:
    """A subscriber that has connected and subscribed, before anything is published."""
    context = zmq.asyncio.Context()
    engine = FakeKvPublisher(context, keeps=keeps)
    index = ExactIndex(PrefixIndex())
    events = KvEvents(index, SystemClock())
    source = Source("pool/0", "pool", engine.endpoint, engine.replay if replays else "")
    events.follow([source])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(events.run())
            await engine.subscribed()
            if replays:
                await engine.repeat()
            await until(lambda: events.heard[source].connected)
            yield World(events, index, engine, source)
            events.stop()
    finally:
        engine.close()
        context.destroy(linger=0)
    index.check()
    assert len(index) == 0, "nothing is known of an engine that is not heard any more"


@on_a_loop
async def test_what_an_engine_stores_removes_and_clears_is_what_the_index_says():
    async with hearing() as world:
        await world.engine.publish(stored(1, 4), stored(5, 4, parent=4))
        await world.settled(8)
        assert world.matched() == 512
        await world.engine.publish(BlockRemoved([8, 7, 6]))
        await world.settled(5)
        assert world.matched() == 320
        await world.engine.publish(AllBlocksCleared())
        await world.settled(0)
        assert world.matched() == 0
        assert (world.heard.batches, world.heard.gaps, world.heard.refused) == (3, 0, 0)


@on_a_loop
async def test_whoever_comes_late_asks_for_all_that_was_said():
    context = zmq.asyncio.Context()
    engine = FakeKvPublisher(context)
    await engine.publish(stored(1, 4))
    await engine.publish(stored(5, 4, parent=4))
    index = ExactIndex(PrefixIndex())
    events = KvEvents(index, SystemClock())
    events.follow([Source("pool/0", "pool", engine.endpoint, engine.replay)])
    async with asyncio.TaskGroup() as group:
        group.create_task(events.run())
        await engine.repeat()
        await until(lambda: len(index) == 8)
        events.stop()
    assert engine.asked == [0]
    engine.close()
    context.destroy(linger=0)


@on_a_loop
async def test_batches_that_were_lost_are_asked_for_and_applied_in_their_place():
    async with hearing(replays=True) as world:
        await world.engine.publish(stored(1, 4))
        await world.engine.publish(stored(5, 2, parent=4), lost=True)
        await world.engine.publish(BlockRemoved([4]), lost=True)
        await world.engine.publish(stored(20, 1))
        await world.engine.repeat()
        await until(lambda: world.matched() == 192)  # block 4 was removed; there were six before it, too
        await world.settled(6)
        assert world.engine.asked == [0, 1]
        assert world.heard.gaps == 1


@on_a_loop
async def test_a_loss_that_nobody_repeats_means_that_nothing_is_known_any_more():
    async with hearing() as world:
        await world.engine.publish(stored(1, 4))
        await world.settled(4)
        await world.engine.publish(BlockRemoved([1]), lost=True)
        await world.engine.publish(stored(20, 1))
        await world.settled(1)
        assert world.matched() == 0 and world.heard.gaps == 1


@on_a_loop
async def test_a_loss_older_than_what_the_engine_keeps_means_to_start_over_with_what_it_keeps():
    async with hearing(replays=True, keeps=2) as world:
        await world.engine.publish(stored(1, 4))
        await world.settled(4)
        for number in range(20, 24):
            await world.engine.publish(stored(number, 1), lost=True)
        await world.engine.publish(stored(30, 1))
        await world.engine.repeat()
        await world.settled(2)
        assert world.matched() == 0


@on_a_loop
async def test_an_engine_that_was_restarted_holds_nothing_until_it_says_so():
    async with hearing(replays=True) as world:
        await world.engine.publish(stored(1, 8))
        await world.settled(8)
        context = zmq.asyncio.Context()
        world.engine.close()
        await world.settled(0)
        assert not world.heard.connected
        again = FakeKvPublisher(context, world.engine.endpoint, world.engine.replay)
        await again.subscribed()
        await again.publish(stored(1, 2))
        await again.repeat()
        await world.settled(2)
        assert world.matched() == 128 and world.heard.restarts == 1
        again.close()
        context.destroy(linger=0)


@pytest.mark.parametrize("nonsense", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x91" * 1_000])
@on_a_loop
async def test_a_bad_frame_is_counted_and_the_cache_counts_as_empty_and_the_subscriber_goes_on(nonsense: bytes):
    async with hearing() as world:
        await world.engine.publish(stored(1, 8))
        await world.settled(8)
        await world.engine.publish_bytes(nonsense)
        await world.settled(0)
        assert world.heard.refused == 1
        await world.engine.publish(stored(1, 8))
        await world.settled(8)
        assert world.matched() == 512


@pytest.mark.parametrize("frames", [[b"x"], [b"", b"\x00", b""], [b"", b"\x00" * 8], [b""] * 9])
@on_a_loop
async def test_a_message_of_another_shape_is_counted_and_the_subscriber_goes_on(frames: list[bytes]):
    async with hearing() as world:
        await world.engine.send(frames)
        await world.engine.publish(stored(1, 8))
        await world.settled(8)
        assert world.heard.refused == 1


@on_a_loop
async def test_of_a_hybrid_models_groups_only_the_one_with_whole_prefixes_counts():
    async with hearing() as world:
        await world.engine.publish(
            stored(1, 8, group_idx=1, kv_cache_spec_kind="full_attention"),
            BlockStored([1], None, [7] * 512, 512, group_idx=0, kv_cache_spec_kind="mamba"),
            BlockRemoved([1], group_idx=0),
        )
        await world.settled(8)
        assert world.matched() == 512


@on_a_loop
async def test_whom_nobody_wants_to_hear_any_more_is_forgotten_and_others_are_heard():
    async with hearing() as world:
        await world.engine.publish(stored(1, 8))
        await world.settled(8)
        context = zmq.asyncio.Context()
        other = FakeKvPublisher(context)
        world.source = Source("pool/0", "pool", other.endpoint)
        world.events.follow([world.source])
        await other.subscribed()
        await until(lambda: world.heard.connected)
        assert len(world.index) == 0
        await other.publish(stored(1, 2))
        await world.settled(2)
        other.close()
        context.destroy(linger=0)


@on_a_loop
async def test_an_address_that_is_none_ends_its_own_subscription_and_no_other():
    async with hearing() as world:
        wrong = Source("pool/1", "pool", "tcp://no such host:1")
        world.events.follow([world.source, wrong])
        await until(lambda: wrong in world.events.heard and world.events.heard[wrong].failure != "")
        await world.engine.publish(stored(1, 8))
        await world.settled(8)


def test_the_star_is_the_engines_own_host_and_each_rank_has_the_next_port():
    found = sources_of("pool/0", "pool", "http://10.0.0.4:8000", "tcp://*:5557", "tcp://*:6557", ranks=2)
    assert [(one.endpoint, one.replay, one.rank) for one in found] == [
        ("tcp://10.0.0.4:5557", "tcp://10.0.0.4:6557", 0),
        ("tcp://10.0.0.4:5558", "tcp://10.0.0.4:6558", 1),
    ]
    (six,) = sources_of("pool/0", "pool", "http://[2001:db8::1]:8000", "tcp://*:5557")
    assert (six.endpoint, six.replay) == ("tcp://[2001:db8::1]:5557", "")


@pytest.mark.parametrize("wrong", ["", "5557", "udp://*:5557", "tcp://*", "tcp://*:0", "tcp://*:70000", "tcp://*:x"])
def test_an_endpoint_that_is_none_is_refused(wrong: str):
    with pytest.raises(ValueError, match="endpoint such as"):
        sources_of("pool/0", "pool", "http://10.0.0.4:8000", wrong)


def test_a_star_without_a_host_to_put_there_is_refused():
    with pytest.raises(ValueError, match="host"):
        sources_of("pool/0", "pool", "unix:/run/engine.sock", "tcp://*:5557")
