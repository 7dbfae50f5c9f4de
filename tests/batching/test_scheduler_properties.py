"""Properties of continuous batching under any order of arrivals, steps and aborts, with a model that is a function of
its tokens.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from penstock.batching.blocks import BlockPool
from penstock.batching.options import BatchingOptions
from penstock.batching.scheduler import Refused, Scheduler, Step
from penstock.batching.sequence import Sequence, State, new_sequence

# Few different tokens, so that prompts often share a beginning.
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=24)


def next_token(tokens: list[int]) -> int:
    """A model: the next token depends on every token before it."""
    state = 1
    for token in tokens:
        state = (state * 31 + token + 1) % 1009
    return state % 2


def alone(prompt: list[int], max_tokens: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(next_token(tokens))
    return tokens


class Memory:
    """KV memory that remembers which token was written where, so that reading a wrong block gives a wrong token."""

    def __init__(self, options: BatchingOptions) -> None:
        self.options = options
        self.cells: dict[int, tuple[bytes, int]] = {}

    def compute(self, step: Step) -> list[int]:
        """Write every chunk, then read each sampling sequence back through its block table."""
        size = self.options.block_size
        for chunk in step.chunks:
            sequence, start, length = chunk.sequence, chunk.start, chunk.length
            for position in range(start, start + length):
                cell = sequence.blocks[position // size] * size + position % size
                self.cells[cell] = (sequence.salt, sequence.tokens[position])
        sampled: list[int] = []
        for chunk in step.chunks:
            sequence, start, length, samples = chunk.sequence, chunk.start, chunk.length, chunk.samples
            end = start + length
            read = [self.cells[sequence.blocks[p // size] * size + p % size] for p in range(end)]
            assert read == [(sequence.salt, token) for token in sequence.tokens[:end]], "read another sequence's memory"
            if samples:
                sampled.append(next_token([token for _, token in read]))
        return sampled


class AnyTraffic(RuleBasedStateMachine):
    sequences = Bundle("sequences")

    @initialize(
        n_blocks=st.integers(4, 14),
        block_size=st.sampled_from([1, 2, 4]),
        max_seqs=st.integers(1, 5),
        extra_tokens=st.integers(0, 12),
        prefix_cache=st.booleans(),
    )
    def start(self, n_blocks: int, block_size: int, max_seqs: int, extra_tokens: int, prefix_cache: bool) -> None:
        self.options = BatchingOptions(
            n_blocks=n_blocks,
            block_size=block_size,
            max_seqs=max_seqs,
            max_batched_tokens=max_seqs + extra_tokens,
            max_waiting=6,
            prefix_cache=prefix_cache,
        )
        self.machine = Scheduler(self.options)
        self.memory = Memory(self.options)
        self.admitted: list[Sequence] = []
        self.aborted: set[int] = set()

    @rule(target=sequences, prompt=prompts, max_tokens=st.integers(1, 8), salt=st.sampled_from([b"", b"x"]))
    def add(self, prompt: list[int], max_tokens: int, salt: bytes) -> Sequence:
        sequence = new_sequence("s", prompt, max_tokens, salt)
        try:
            self.machine.add(sequence)
        except Refused:
            assert sequence.state is State.NEW
        else:
            self.admitted.append(sequence)
        return sequence

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.one_step()

    @rule(sequence=consumes(sequences))
    def abort(self, sequence: Sequence) -> None:
        if sequence.state is not State.ENDED:
            self.aborted.add(id(sequence))
        self.machine.end(sequence)

    def one_step(self) -> None:
        had_work = self.machine.has_work
        step = self.machine.plan()
        assert bool(step.chunks) == had_work, "a step is empty exactly when there is nothing to do"
        assert step.n_tokens <= self.options.max_batched_tokens
        assert len({id(chunk.sequence) for chunk in step.chunks}) == len(step.chunks)
        assert not any(chunk.sequence in step.preempted for chunk in step.chunks)
        self.machine.commit(step, self.memory.compute(step))
        for chunk in step.chunks:
            if chunk.sequence.generated >= chunk.sequence.max_tokens:
                self.machine.end(chunk.sequence)

    @invariant()
    def nothing_leaks(self) -> None:
        if hasattr(self, "machine"):
            self.machine.check()
            assert 0.0 <= self.machine.stats().kv_used <= 1.0

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        steps = 0
        while self.machine.has_work:
            self.one_step()
            steps += 1
            assert steps < 5_000, "work is left and no end in sight"
        self.machine.check()
        assert self.machine.stats().kv_used == 0.0
        for sequence in self.admitted:
            prompt = sequence.tokens[: sequence.prompt_length]
            expected = alone(prompt, sequence.max_tokens)
            if id(sequence) in self.aborted:
                assert sequence.tokens == expected[: len(sequence.tokens)]
            else:
                assert sequence.tokens == expected, "batching, prefixes or preemption changed the answer"


AnyTraffic.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
test_any_traffic_ends_without_leaks_and_with_the_tokens_each_would_have_alone = AnyTraffic.TestCase


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=12), st.randoms(use_true_random=False))
def test_a_pool_finds_exactly_the_prefixes_that_were_remembered_and_not_yet_reused(runs, random):
    pool = BlockPool(8)
    held: list[list[int]] = []
    for run in runs:
        digests = [bytes([len(run[:n]), *run[:n]]) for n in range(1, len(run) + 1)]
        blocks = pool.hold_cached(digests)
        if len(digests) - len(blocks) <= pool.available:
            blocks += pool.take(len(digests) - len(blocks))
            for block, digest in zip(blocks, digests, strict=True):
                pool.remember(block, digest)
        held.append(blocks)
        pool.check(held)
        if held and random.random() < 0.6:
            pool.release(held.pop(random.randrange(len(held))))
        pool.check(held)
    for blocks in held:
        pool.release(blocks)
    pool.check([])
    assert pool.available == pool.n_blocks
