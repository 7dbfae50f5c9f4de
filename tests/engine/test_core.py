"""The engine's thread: answers stream, aborts give everything back, and nobody waits for an answer that never comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from penstock.batching.options import BatchingOptions
from penstock.batching.scheduler import TooLong
from penstock.core.clock import SystemClock
from penstock.engine.checkpoint import Checkpoint, Floats
from penstock.engine.core import EngineBusy, EngineCore, EngineFailed, Generation
from penstock.engine.forward import Batch, Forward, Ints
from penstock.engine.model import read_config
from penstock.engine.numpy_reference import NumpyForward
from penstock.engine.sampling import SamplingParams
from penstock.engine.tokenizer import Tokenizer

MODEL = Path(__file__).parent / "fixtures" / "llama-gqa"
PROMPT = [40, 41, 42, 43, 44]


class Gate:
    """A model that computes only while the test lets it, and can be told to break."""

    name, dtype = "gate", "float32"

    def __init__(self, model: Forward) -> None:
        self.model = model
        self.open = threading.Event()
        self.open.set()
        self.computing = threading.Event()
        self.breaks = False

    def compute(self, batch: Batch) -> tuple[Floats, Ints]:
        self.computing.set()
        assert self.open.wait(20)
        if self.breaks:
            raise RuntimeError("the model is broken")
        return self.model.compute(batch)


def model() -> NumpyForward:
    checkpoint = Checkpoint(MODEL)
    try:
        return NumpyForward(checkpoint, read_config(MODEL), n_blocks=32, block_size=16, max_positions=256)
    finally:
        checkpoint.close()


class World:
    def __init__(self, **options: int) -> None:
        self.gate = Gate(model())
        self.crashes: list[Exception] = []
        self.core = EngineCore(
            self.gate,
            Tokenizer(MODEL, 288, lambda form: form),
            BatchingOptions(**{"n_blocks": 32, "max_seqs": 2, "max_waiting": 2, **options}),
            eos_token_ids=(),
            clock=SystemClock(),
            on_crash=self.crashes.append,
        )
        self._n = 0

    def ask(
        self, max_tokens: int = 8, *, streams: bool = True, prompt: list[int] = PROMPT, **params: Any
    ) -> Generation:
        self._n += 1
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0, **params)
        return self.core.submit(str(self._n), prompt, sampling, streams=streams)

    async def idle(self) -> None:
        """Until everything has ended and was given back."""
        while self.core.active or self.core.stats().kv_used:  # noqa: ASYNC110  the thread has no event for it
            await asyncio.sleep(0)


def played(story: Callable[[World], Coroutine[Any, Any, None]], **options: int) -> World:
    world = World(**options)

    async def run() -> None:
        world.core.start()
        try:
            async with asyncio.timeout(20):
                await story(world)
        finally:
            world.gate.open.set()
            world.core.stop()

    asyncio.run(run())
    return world


async def all_of(generation: Generation) -> tuple[list[int], str, str | None]:
    tokens: list[int] = []
    text = ""
    finish = None
    while (piece := await generation.read()) is not None:
        tokens += [part.token for part in piece.tokens]
        text += piece.text
        finish = piece.finish
    return tokens, text, finish


def test_an_answer_is_the_same_streamed_and_whole():
    async def story(world: World) -> None:
        streamed, whole = world.ask(), world.ask(streams=False)
        assert await all_of(streamed) == await all_of(whole)
        assert len(world.core.measures.finished) == 4
        assert world.core.measures.finished["length"] == 2

    played(story)


def test_a_slow_reader_gets_larger_pieces_and_loses_nothing():
    async def story(world: World) -> None:
        slow = world.ask(8)
        while not slow.ended:  # noqa: ASYNC110  waiting by reading is what this must not do
            await asyncio.sleep(0)
        piece = await slow.read()
        assert piece is not None
        assert len(piece.tokens) == 8
        assert piece.finish == "length"
        assert await slow.read() is None

    played(story)


def test_an_abort_in_the_middle_of_a_step_gives_everything_back():
    async def story(world: World) -> None:
        generation = world.ask(200)
        await generation.read()
        world.gate.computing.clear()
        await asyncio.to_thread(world.gate.computing.wait, 20)
        generation.close()
        generation.close()
        await world.idle()
        assert world.core.measures.finished["abort"] == 1
        assert len(await ended(world.ask(3))) == 3

    async def ended(generation: Generation) -> list[int]:
        return (await all_of(generation))[0]

    world = played(story)
    assert world.core.active == 0


def test_an_answer_that_nobody_wants_any_more_is_never_begun():
    async def story(world: World) -> None:
        world.gate.open.clear()
        first = world.ask(1)
        await asyncio.to_thread(world.gate.computing.wait, 20)
        unwanted = world.ask(5)
        unwanted.close()
        world.gate.open.set()
        await all_of(first)
        await world.idle()
        assert world.core.measures.finished["abort"] == 1
        assert world.core.stats().generated_tokens == 1

    played(story)


def test_as_many_as_may_run_and_wait_can_come_at_once():
    async def story(world: World) -> None:
        generations = [world.ask(2) for _ in range(4)]
        assert [len((await all_of(generation))[0]) for generation in generations] == [2] * 4

    played(story)


def test_one_more_than_may_wait_is_refused_and_counted():
    async def story(world: World) -> None:
        world.gate.open.clear()
        running = world.ask(2)
        await asyncio.to_thread(world.gate.computing.wait, 20)
        others = [world.ask(2) for _ in range(3)]
        with pytest.raises(EngineBusy):
            world.ask(2)
        assert world.core.measures.refused == 1
        world.gate.open.set()
        for generation in (running, *others):
            await all_of(generation)
        assert len((await all_of(world.ask(2)))[0]) == 2

    played(story)


def test_what_the_kv_cache_can_never_hold_is_refused():
    async def story(world: World) -> None:
        with pytest.raises(TooLong):
            world.ask(600)

    played(story)


def test_when_the_model_breaks_everybody_is_told_and_nobody_new_is_let_in():
    async def story(world: World) -> None:
        world.gate.open.clear()
        running = world.ask(20)
        await asyncio.to_thread(world.gate.computing.wait, 20)
        waiting = world.ask(20, streams=False)
        world.gate.breaks = True
        world.gate.open.set()
        for generation in (running, waiting):
            with pytest.raises(EngineFailed, match="the model is broken"):
                await all_of(generation)
        with pytest.raises(EngineFailed):
            world.ask()
        assert world.core.active == 0

    world = played(story)
    assert [str(error) for error in world.crashes] == ["the model is broken"]
    assert world.core.measures.finished["error"] == 2


def test_output_that_is_not_a_number_ends_that_answer_and_no_other():
    class Poisoned(Gate):
        def compute(self, batch: Batch) -> tuple[Floats, Ints]:
            logits, best = super().compute(batch)
            for row, token in enumerate(batch.samples):
                if batch.ids[token] == 99:
                    best[row] = -1
            return logits, best

    async def story(world: World) -> None:
        world.core._forward = Poisoned(world.gate.model)
        broken, good = world.ask(prompt=[5, 99]), world.ask()
        with pytest.raises(EngineFailed, match="not a number"):
            await all_of(broken)
        assert len((await all_of(good))[0]) == 8

    played(story)


def test_a_stop_token_ends_the_answer_and_is_not_shown():
    async def story(world: World) -> None:
        tokens, _, _ = await all_of(world.ask(8))
        stopped, text, finish = await all_of(world.ask(8, stop_token_ids=frozenset({tokens[3]})))
        assert (stopped, finish) == (tokens[: tokens.index(tokens[3]) + 1], "stop")
        assert text == world.core._tokenizer.decode(stopped[:-1])

    played(story)


def test_a_cancelled_reader_can_let_go():
    async def story(world: World) -> None:
        generation = world.ask(200)

        async def read_all() -> None:
            try:
                await all_of(generation)
            finally:
                generation.close()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(read_all())
            await asyncio.sleep(0)
            task.cancel()
        await world.idle()

    played(story)


def test_stopping_does_not_wait_for_answers():
    async def story(world: World) -> None:
        lost = world.ask(200)
        world.core.stop()
        with pytest.raises(EngineFailed, match="stopping"):
            await all_of(lost)
        with pytest.raises(EngineFailed, match="stopping"):
            world.ask()

    played(story)
