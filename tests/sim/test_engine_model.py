"""The simulated engine: what it takes at once is what it would have taken step by step, and what the live scheduler
would have done with real tokens.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.batching.scheduler import QueueFull, Scheduler, TooLong
from penstock.batching.sequence import CountedSequence, Sequence, new_sequence
from penstock.sim.cost_model import MODEL_A, PICOSECONDS, CostModel
from penstock.sim.engine_model import EngineCall, EngineModel
from penstock.sim.world import World

SMALL = CostModel(
    step=0.006, per_sequence=0.000_35, per_prefill_token=0.000_125, kv_tokens=64, block_size=4, max_seqs=4,
    max_batched_tokens=16,
)  # fmt: skip


class Asked(msgspec.Struct):
    """One request of a story: prompts with the same `family` begin alike, `shared` tokens long."""

    at: float
    prompt: int
    output: int
    family: int = 0
    shared: int = 0
    leaves_after: float | None = None


def tokens_of(asked: Asked, number: int) -> list[int]:
    shared = min(asked.shared, asked.prompt)
    own = range(1_000 * (number + 1), 1_000 * (number + 1) + asked.prompt - shared)
    return [*(-1 - asked.family * 1_000 - i for i in range(shared)), *own]


def names_of(asked: Asked, number: int, block_size: int) -> list[bytes]:
    tokens = tokens_of(asked, number)
    return [repr(tokens[: end + block_size]).encode() for end in range(0, asked.prompt - block_size + 1, block_size)]


class Run:
    """What a list of requests meets on one engine. `heard` are (when, which, what) in seconds; `seen` its states."""

    def __init__(
        self,
        asked: list[Asked],
        cost: CostModel = SMALL,
        *,
        jumps: bool = True,
        slowed: tuple[float, float] | None = None,
    ) -> None:
        self.world = World()
        self.engine = EngineModel(self.world, cost, jumps)
        self.heard: list[tuple[float, int, str]] = []
        self.seen: list[tuple[float, int, int, float]] = []
        self.sequences: list[CountedSequence] = []
        for number, one in enumerate(asked):
            names = names_of(one, number, cost.block_size)
            sequence = CountedSequence(str(number), one.prompt, one.output, one.output, names)
            self.sequences.append(sequence)
            call = EngineCall(sequence, self._hear(number, "first"), self._hear(number, "end"))
            self.world.at(one.at, self._submit(number, call))
            if one.leaves_after is not None:
                self.world.at(one.at + one.leaves_after, self._leave(call))
        if slowed is not None:
            self.world.at(slowed[0], lambda: self.engine.slow_down(slowed[1]))
        self.events = self.world.run()

    def _submit(self, number: int, call: EngineCall) -> Any:
        def submit() -> None:
            self._look()
            try:
                self.engine.submit(call)
            except (TooLong, QueueFull) as refused:
                self.heard.append((self.world.now, number, type(refused).__name__))

        return submit

    def _leave(self, call: EngineCall) -> Any:
        def leave() -> None:
            self._look()
            self.engine.abort(call)

        return leave

    def _hear(self, number: int, what: str) -> Any:
        return lambda: self.heard.append((self.world.now, number, what))

    def _look(self) -> None:
        engine = self.engine
        self.seen.append((self.world.now, engine.n_waiting, engine.n_running, round(engine.kv_used, 9)))

    @property
    def facts(self) -> Any:
        scheduler = self.engine.scheduler
        scheduler.check()
        per_request = [(s.cached, s.preemptions, s.admissions, s.generated) for s in self.sequences]
        return self.heard, self.seen, per_request, scheduler.stats()


class Live:
    """The live scheduler with real tokens, stepped by hand through the same clock in whole picoseconds."""

    def __init__(self, asked: list[Asked], cost: CostModel = SMALL) -> None:
        scheduler = Scheduler(cost.batching)
        sequences: dict[int, Sequence] = {}
        self.heard: list[tuple[float, int, str]] = []
        todo = sorted(range(len(asked)), key=lambda number: asked[number].at)
        now = 0
        while todo or scheduler.has_work:
            if not scheduler.has_work and todo:
                now = max(now, round(asked[todo[0]].at * PICOSECONDS))
            while todo and round(asked[todo[0]].at * PICOSECONDS) <= now:
                number = todo.pop(0)
                one = asked[number]
                sequences[number] = new_sequence(str(number), tokens_of(one, number), one.output)
                try:
                    scheduler.add(sequences[number])
                except (TooLong, QueueFull) as refused:
                    self.heard.append((one.at, number, type(refused).__name__))
            if not scheduler.has_work:
                continue
            step = scheduler.plan()
            decoding = [c for c in step.chunks if c.sequence.decoding]
            prompt = step.n_tokens - len(decoding)
            now += round(cost.step * PICOSECONDS) + round(cost.per_sequence * PICOSECONDS) * len(decoding)
            now += round(cost.per_prefill_token * PICOSECONDS) * prompt
            now += round(cost.per_context_token * PICOSECONDS) * sum(c.start + 1 for c in decoding)
            scheduler.commit(step, [50_000_000 + int(c.sequence.id) for c in step.chunks if c.samples])
            told = [c.sequence for c in step.chunks if c.samples]
            for what, these in (
                ("first", [s for s in told if s.generated == 1]),
                ("end", [s for s in told if s.generated == s.max_tokens]),
            ):
                self.heard += [(now / PICOSECONDS, int(s.id), what) for s in these]
            for sequence in told:
                if sequence.generated == sequence.max_tokens:
                    scheduler.end(sequence)
        self.per_request = [(s.cached, s.preemptions, s.admissions, s.generated) for _, s in sorted(sequences.items())]
        self.stats = scheduler.stats()


# Odd instants, so that none falls on the end of a step: two things at the same instant have no right order.
instants = st.integers(0, 40_000).map(lambda n: (n * 17_001 + 7) / 1e9)
asked_ones = st.builds(
    Asked,
    at=instants,
    prompt=st.integers(1, 40),
    output=st.integers(1, 24),
    family=st.integers(0, 1),
    shared=st.integers(0, 30),
)
leaving = st.builds(
    Asked,
    at=instants,
    prompt=st.integers(1, 40),
    output=st.integers(1, 24),
    family=st.integers(0, 1),
    shared=st.integers(0, 30),
    leaves_after=st.none() | st.integers(0, 9_000).map(lambda n: (n * 17_011 + 3) / 1e9),
)
costs = st.builds(
    lambda **sizes: msgspec.structs.replace(SMALL, **sizes),
    kv_tokens=st.sampled_from([64, 72, 100, 400]),
    block_size=st.sampled_from([1, 4, 5]),
    max_seqs=st.integers(1, 5),
    max_batched_tokens=st.sampled_from([5, 16, 64]),
    per_context_token=st.sampled_from([0.0, 3.1e-6]),
    max_waiting=st.sampled_from([2, 50]),
    prefix_cache=st.booleans(),
)
slow = st.none() | st.tuples(st.integers(0, 40_000).map(lambda n: (n * 17_021 + 5) / 1e9), st.sampled_from([0.5, 7.0]))


@given(st.lists(leaving, max_size=12), costs, slow)
@example([Asked(0.0, 4, 20), Asked(0.05, 4, 3)], SMALL, None)
@settings(max_examples=400, deadline=None)
def test_jumping_over_quiet_steps_gives_the_very_same_times_and_decisions_as_single_steps(asked, cost, slowed):
    assert Run(asked, cost, slowed=slowed).facts == Run(asked, cost, slowed=slowed, jumps=False).facts


@given(st.lists(asked_ones, max_size=12, unique_by=lambda one: one.at), costs)
@settings(max_examples=400, deadline=None)
def test_counted_tokens_meet_the_same_decisions_at_the_same_times_as_real_ones_in_the_live_scheduler(asked, cost):
    run, live = Run(asked, cost), Live(asked, cost)
    assert sorted(run.heard) == sorted(live.heard)
    assert [(s.cached, s.preemptions, s.admissions, s.generated) for s in run.sequences] == live.per_request
    assert run.engine.scheduler.stats() == live.stats


def test_a_thousand_tokens_of_decoding_are_two_events():
    run = Run([Asked(0.0, 8, 1_000)], MODEL_A)
    assert run.events == 3  # the arrival, the prompt, and all that follows
    assert run.heard == [
        (pytest.approx(0.006 + 8 / 8_000), 0, "first"),
        (pytest.approx(0.006 + 8 / 8_000 + 999 * 0.006_35), 0, "end"),
    ]


def test_who_arrives_in_a_jump_waits_for_the_step_under_way_and_no_longer():
    run = Run([Asked(0.0, 8, 1_000), Asked(0.1, 8, 1)], MODEL_A)
    began = 0.007
    step = 0.006_35
    joined = began + 15 * step  # the first end of a step after 0.1 s
    assert joined - step < 0.1 < joined
    assert run.heard[1] == (pytest.approx(joined + 0.006_35 + 8 / 8_000), 1, "first")


def test_a_hung_engine_says_nothing_until_it_wakes_and_then_repeats_the_step_under_way():
    world = World()
    engine = EngineModel(world, MODEL_A)
    heard: list[float] = []
    call = EngineCall(CountedSequence("a", 8, 10, 10, []), lambda: None, lambda: heard.append(world.now))
    world.at(0.0, lambda: engine.submit(call))
    world.at(0.01, engine.hang)
    world.at(5.0, engine.wake)
    world.run()
    assert heard == [pytest.approx(5.0 + 9 * 0.006_35)]


def test_a_crash_loses_every_call_and_the_prefix_cache():
    world = World()
    engine = EngineModel(world, SMALL)
    calls = [EngineCall(CountedSequence(name, 8, 9, 9, [b"x", b"y"]), pytest.fail, pytest.fail) for name in "ab"]
    again = CountedSequence("c", 8, 1, 1, [b"x", b"y"])
    ended: list[float] = []
    lost: list[EngineCall] = []
    for call in calls:
        engine.submit(call)
    world.at(0.001, lambda: lost.extend(engine.crash()))
    world.at(0.002, lambda: engine.submit(EngineCall(again, lambda: None, lambda: ended.append(world.now))))
    world.run()
    assert lost == calls
    assert again.cached == 0
    assert ended == [pytest.approx(0.002 + 0.006 + 8 * 0.000_125)]
