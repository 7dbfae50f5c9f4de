"""The embedded engine tells what its prefix cache holds, and a subscriber knows it."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from penstock.balancing.exact_index import ExactIndex
from penstock.balancing.prefix_index import PrefixIndex
from penstock.batching.options import BatchingOptions
from penstock.batching.scheduler import Scheduler
from penstock.batching.sequence import new_sequence
from penstock.core.clock import SystemClock
from penstock.core.request import ANYONE, PREFIX_TOKENS, Endpoint
from penstock.engine.kv_events import CacheLog
from penstock.engine.options import EngineOptions
from penstock.http.client import Pool
from penstock.upstreams import openai
from penstock.upstreams.credentials import nobody
from penstock.upstreams.http_upstream import HttpUpstream
from penstock.upstreams.kv_events import KvEvents, Source
from penstock.upstreams.kv_tokens import TokenAsker
from penstock.upstreams.way import Terms
from penstock.wire import openai_chat
from penstock.wire.kv_events import BlockRemoved, BlockStored, short

FIXTURES = Path(__file__).parent / "fixtures"
STORY = "The keys and values of a prompt are computed once, and kept for whoever begins alike. " * 14
SIZE = 4


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*arguments, **named))

    return run


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to be so")


class Engine:
    """A replica as a process, as `penstock serve` starts it."""

    def __init__(self, port: int = 0, events: str = "tcp://127.0.0.1:*", replay: str = "tcp://127.0.0.1:*") -> None:
        program = (
            "import sys, msgspec\n"
            "from penstock.engine.options import EngineOptions\n"
            "from penstock.engine.replica import run_engine\n"
            f"options = EngineOptions(model='tiny', port={port}, kv_events={events!r}, kv_replay={replay!r})\n"
            "tell = lambda told: (sys.stdout.buffer.write(msgspec.json.encode(told) + b'\\n'), sys.stdout.flush())\n"
            "run_engine(options, on_ready=tell)"
        )
        self.process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.ready: dict[str, Any] = msgspec.json.decode(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Answer:
    """Listens to one answer."""

    def __init__(self) -> None:
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def traceparent(self) -> bytes:
        return b""

    def on_first_token(self) -> None:
        self.begun.set_result(None)

    def on_failed(self, failure: Exception) -> None:
        self.begun.set_exception(failure)


@on_a_loop
async def test_the_index_says_what_a_real_engine_holds_until_that_is_killed():
    """A journey: three processes' worth of starting, so it takes some seconds."""
    clock, engine = SystemClock(), Engine()
    source = Source("own/0", "own", engine.ready["kv_events"], engine.ready["kv_replay"])
    index = ExactIndex(PrefixIndex())
    events, asker = KvEvents(index, clock), TokenAsker(index, clock)
    pool = Pool(f"http://127.0.0.1:{engine.ready['port']}")
    native = (Endpoint.CHAT, Endpoint.COMPLETION, Endpoint.TOKENIZE)
    upstream = HttpUpstream(pool, clock, openai.ways(Terms(clock, "/v1", "tiny", native=native)), nobody())

    async def ask(text: str) -> Any:
        body = {"model": "own", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
        raw = msgspec.json.encode(body)
        request = openai_chat.parse(raw, id="req_1", endpoint=Endpoint.CHAT, caller=ANYONE, now=0.0)
        answer = Answer()
        stream = upstream.open(request, answer, clock.now())
        await answer.begun
        asker.offer(request, "own", upstream)
        usage, _ = stream.usage()
        stream.close()
        return request, usage

    events.follow([source])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(events.run())
            request, usage = await ask(STORY)
            assert request.prefix_hashes, "long enough to steer for"
            await until(lambda: len(index) >= usage.prompt_tokens // 16)
            asker.offer(request, "own", upstream)  # by now its blocks have a size, and its tokens are worth asking for
            await until(lambda: asker.learned == 1)
            held = index.matched(request.prefix_hashes, PREFIX_TOKENS, 0.0)["own/0"]
            assert held == PREFIX_TOKENS[len(request.prefix_hashes) - 1], "all that can be steered for"
            _, again = await ask(STORY)
            assert again.cached_tokens >= usage.prompt_tokens - 16, "and the engine says the same"
            longer, more = await ask(STORY + "What is a prefix? " * 90)
            await until(lambda: index.knows("own", longer.prefix_hashes))
            assert more.cached_tokens > 0.9 * usage.prompt_tokens - 32
            engine.kill()
            await until(lambda: len(index) == 0)
            assert index.matched(request.prefix_hashes, PREFIX_TOKENS, 0.0).get("own/0", 0) == 0
            where = engine.ready["port"], engine.ready["kv_events"], engine.ready["kv_replay"]
            engine = await asyncio.to_thread(Engine, *where)
            await until(lambda: events.heard[source].connected)
            assert index.matched(request.prefix_hashes, PREFIX_TOKENS, 0.0).get("own/0", 0) == 0
            await ask(STORY)
            await until(lambda: index.matched(request.prefix_hashes, PREFIX_TOKENS, 0.0).get("own/0", 0) == held)
            events.stop()
    finally:
        engine.kill()
        pool.abort()
    assert events.heard == {}


def scheduler(n_blocks: int) -> tuple[Scheduler, CacheLog]:
    made = Scheduler(BatchingOptions(n_blocks=n_blocks, block_size=SIZE, max_batched_tokens=64))
    log = CacheLog(SIZE)
    made.watch(log)
    return made, log


def run(made: Scheduler, prompt: list[int], salt: bytes = b"") -> None:
    sequence = new_sequence("s", prompt, 1, salt)
    made.add(sequence)
    while sequence.computed < len(prompt):
        step = made.plan()
        made.commit(step, [9] * step.n_samples)
    made.end(sequence)


def holds(events: list[Any], held: set[int] | None = None) -> set[int]:
    held = set() if held is None else held
    for event in events:
        if isinstance(event, BlockStored):
            assert event.parent_block_hash is None or event.parent_block_hash in held
            held |= {short(block) for block in event.block_hashes}
        else:
            assert isinstance(event, BlockRemoved)
            held -= {short(block) for block in event.block_hashes}
    return held


def test_the_blocks_of_one_prompt_are_told_in_one_event():
    made, log = scheduler(16)
    run(made, list(range(12)))
    (event,) = log.take()
    assert isinstance(event, BlockStored)
    assert (event.token_ids, event.block_size, event.parent_block_hash) == (list(range(12)), SIZE, None)
    assert log.events == []


def test_what_goes_on_from_a_known_prompt_names_its_last_block():
    made, log = scheduler(16)
    run(made, [*list(range(8)), 0])
    (first,) = log.take()
    run(made, list(range(8)) + [50] * 4)
    (second,) = log.take()
    assert isinstance(first, BlockStored) and isinstance(second, BlockStored)
    assert second.parent_block_hash == first.block_hashes[-1] and second.token_ids == [50] * 4


def test_salts_are_told_apart_and_not_told():
    made, log = scheduler(16)
    for salt in (b"", b"secret one", b"secret two"):
        run(made, list(range(8)), salt)
    events = [event for event in log.take() if isinstance(event, BlockStored)]
    assert len({event.extra(0) for event in events}) == 3 and events[0].extra(0) == b""
    assert not any(b"secret" in event.extra(0) for event in events)


def test_a_full_pool_tells_what_it_forgets_before_what_it_stores():
    made, log = scheduler(4)
    held: set[int] = set()
    for first in range(6):
        run(made, [first * 100 + at for at in range(13)])
        held = holds(log.take(), held)
        assert len(held) == made._pool.remembered


def test_an_emptied_cache_is_told_of():
    made, log = scheduler(8)
    run(made, list(range(9)))
    held = holds(log.take())
    assert len(held) == made.forget_prefixes()
    assert holds(log.take(), held) == set()


@pytest.mark.parametrize("wrong", ["5557", "udp://127.0.0.1:1", "tcp://127.0.0.1", "tcp:// :1", "ipc:///tmp/x"])
def test_an_endpoint_that_is_none_is_refused(wrong: str):
    with pytest.raises(ValueError, match="kv_events must be an endpoint"):
        EngineOptions(kv_events=wrong)


def test_repeats_without_anything_to_repeat_are_refused():
    with pytest.raises(ValueError, match="give both"):
        EngineOptions(kv_replay="tcp://127.0.0.1:5558")
