"""Continuous batching: which tokens of which sequences the next step computes.

One token budget per step. Decoding sequences come first, one token each; then prompts that are under way, in chunks;
then waiting sequences are admitted. When blocks run out, the sequence admitted last is preempted: it gives everything
back and is recomputed later from its tokens, which it keeps. The live engine and the simulator drive this same class.

After vLLM v1's unified scheduler. Why every sequence ends: the one admitted first is never preempted, since it may
take blocks from all others and alone it fits (`add` refuses what could not); so it always advances, and then another
one is first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as ListOf

from penstock.batching.blocks import BlockPool
from penstock.batching.options import BatchingOptions
from penstock.batching.sequence import Sequence, State
from penstock.batching.stats import SchedulerStats
from penstock.batching.watch import CacheWatcher

__all__ = ["Chunk", "QueueFull", "Refused", "Scheduler", "SchedulerStats", "Step", "TooLong"]


class Refused(Exception):
    """The scheduler cannot take a sequence."""


class QueueFull(Refused):
    """As many sequences wait as may wait."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} sequences are waiting already, which is the limit (max_waiting)")
        self.limit = limit


class TooLong(Refused):
    """A sequence could not be finished even if it had the whole pool."""

    def __init__(self, needed: int, capacity: int) -> None:
        super().__init__(f"prompt and max_tokens need {needed} tokens of KV cache, {capacity} exist")
        self.needed = needed
        self.capacity = capacity


class Chunk:
    """Compute `length` tokens of `sequence` from position `start`; when `samples`, the next token can be sampled after
    it.
    """

    __slots__ = ("length", "samples", "sequence", "start")

    def __init__(self, sequence: Sequence, start: int, length: int, samples: bool) -> None:
        self.sequence = sequence
        self.start = start
        self.length = length
        self.samples = samples


class Step:
    """One step's work. Give it back to `Scheduler.commit` when it is computed."""

    __slots__ = ("chunks", "n_samples", "n_tokens", "preempted")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.preempted: list[Sequence] = []
        self.n_tokens = 0
        self.n_samples = 0

    def add(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.n_tokens += chunk.length
        if chunk.samples:
            self.n_samples += 1


class Scheduler:
    """Owns its block pool and every sequence added to it. Call `plan`, compute, `commit`, then `end` whoever is done;
    repeat.
    """

    def __init__(self, options: BatchingOptions) -> None:
        self.options = options
        self._pool = BlockPool(options.n_blocks)
        self._waiting: deque[Sequence] = deque()
        # In order of admission. The first is never preempted, the last always goes first.
        self._running: list[Sequence] = []
        # Whoever waits first was refused, and nothing that this rests on has changed since.
        self._blocked = False
        self._prompt_tokens = 0
        self._prefix_hit_tokens = 0
        self._computed_tokens = 0
        self._generated_tokens = 0
        self._preemptions = 0

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def running(self) -> ListOf[Sequence]:
        """In order of admission. To read only; valid until the next call."""
        return self._running

    def kv_used(self, ahead: int = 0) -> float:
        """Fraction of KV blocks held, 0..1, when `ahead` quiet steps are done."""
        return self._pool.used + (self._blocks_to_decode(ahead) / self.options.n_blocks if ahead else 0.0)

    def add(self, sequence: Sequence) -> None:
        """Put a new sequence at the end of the queue. Raises `QueueFull` or `TooLong`, and then keeps nothing of it."""
        assert sequence.state is State.NEW, f"sequence {sequence.id!r} was added before"
        if sequence.prompt_length < 1 or sequence.max_tokens < 1:
            raise ValueError("a sequence needs a prompt of at least one token, and max_tokens of at least 1")
        # The last token is sampled but never computed, hence the - 1.
        needed = sequence.prompt_length + sequence.max_tokens - 1
        if needed > self.options.capacity:
            raise TooLong(needed, self.options.capacity)
        if len(self._waiting) >= self.options.max_waiting:
            raise QueueFull(self.options.max_waiting)
        sequence.state = State.WAITING
        self._waiting.append(sequence)

    def plan(self) -> Step:
        """The next step; never empty while there is work. Takes blocks for it, and preempts where it must."""
        step = Step()
        budget = self._plan_decodes(step, self.options.max_batched_tokens)
        budget = self._plan_prefills(step, budget)
        if not step.preempted:
            self._plan_admissions(step, budget)
        return step

    def plan_decodes(self) -> Step:
        """The next step where `quiet_steps` says that it is one, for whoever planned it before somebody was added."""
        step = Step()
        self._plan_decodes(step, self.options.max_batched_tokens)
        return step

    def commit(self, step: Step, sampled: ListOf[int]) -> None:
        """Record that `step` was computed; `sampled` holds one token for each of its chunks that samples, in order.

        Chunks of sequences that ended since `plan` are ignored, and so are their tokens.
        """
        if len(sampled) != step.n_samples:
            raise ValueError(f"{len(sampled)} tokens for a step that samples {step.n_samples}")
        tokens = iter(sampled)
        for chunk in step.chunks:
            sequence = chunk.sequence
            token = next(tokens) if chunk.samples else None
            if sequence.state is not State.RUNNING:
                continue
            sequence.computed += chunk.length
            self._computed_tokens += chunk.length
            self._remember(sequence, chunk.length)
            if token is not None:
                sequence.push(token)
                self._generated_tokens += 1

    def end(self, sequence: Sequence) -> None:
        """Take a sequence out in whatever state, finished or aborted; its blocks are free at once. Twice is fine."""
        if sequence.state is State.RUNNING:
            self._running.remove(sequence)
        elif sequence.state is State.WAITING:
            self._waiting.remove(sequence)
        self._give_back(sequence)
        sequence.state = State.ENDED
        self._blocked = False

    def quiet_steps(self, limit: int) -> int:
        """How many of the next steps, at most `limit`, will do nothing but decode one token of each sequence that runs
        now, as long as nobody is added or ended. `skip` takes them at once.

        For sequences that count their tokens only. What those generate is in nobody's prompt, so that the first in the
        queue, once refused, stays refused: decoding takes blocks, gives none back and fills none that others look for.
        """
        if not self._running or (self._open_to_admission and not self._blocked):
            return 0
        for sequence in self._running:
            if not sequence.decoding:
                return 0
        if len(self._running) * (limit // self.options.block_size + 1) <= self._pool.available:
            return limit
        while limit > 0 and self._blocks_to_decode(limit) > self._pool.available:
            limit //= 2
        return limit

    def skip(self, n_steps: int) -> None:
        """Do what `plan` and `commit` would do in `n_steps`, no more than `quiet_steps` allows, with tokens that nobody
        looks at: for sequences that only count them.
        """
        size = self.options.block_size
        events: list[tuple[int, int, int]] = []  # when a block is taken (0), or is full (1), and whose
        for place, sequence in enumerate(self._running):
            computed = sequence.computed
            end = computed + n_steps
            if end > len(sequence.blocks) * size:
                taken = range(len(sequence.blocks), self._blocks_for(end))
                events += [(block * size - computed + 1, 0, place) for block in taken]
            if end // size > computed // size:
                filled = range(computed // size + 1, end // size + 1)
                events += [(block * size - computed, 1, place) for block in filled]
        events.sort()
        for step, full, place in events:
            sequence = self._running[place]
            if not full:
                sequence.blocks.extend(self._pool.take(1))
            elif self.options.prefix_cache:
                index = (sequence.computed + step) // size - 1
                sequence.name_blocks(index + 1, size)
                self._pool.remember(sequence.blocks[index], sequence.digests[index])
        for sequence in self._running:
            sequence.computed += n_steps
            sequence.grow(n_steps)
        self._computed_tokens += n_steps * len(self._running)
        self._generated_tokens += n_steps * len(self._running)

    def watch(self, watcher: CacheWatcher) -> None:
        """Tell it what the prefix cache holds, from now on. Not of sequences whose tokens are only counted."""
        self._pool.watcher = watcher

    def forget_prefixes(self) -> int:
        """Empty the prefix cache of everything that no running sequence holds; returns the number of blocks."""
        self._blocked = False
        return self._pool.forget_free()

    def stats(self) -> SchedulerStats:
        return SchedulerStats(
            waiting=len(self._waiting),
            running=len(self._running),
            kv_used=self._pool.used,
            prompt_tokens=self._prompt_tokens,
            prefix_hit_tokens=self._prefix_hit_tokens,
            computed_tokens=self._computed_tokens,
            generated_tokens=self._generated_tokens,
            preemptions=self._preemptions,
        )

    def check(self) -> None:
        """Assert everything that must be true between steps."""
        self._pool.check(sequence.blocks for sequence in self._running)
        assert len(self._running) <= self.options.max_seqs, "more sequences run than may"
        for sequence in self._running:
            assert sequence.state is State.RUNNING, f"{sequence.id!r} runs but is {sequence.state}"
            assert sequence.missing >= 1, f"{sequence.id!r} has nothing left to compute"
            held = len(sequence.blocks) * self.options.block_size
            assert sequence.computed <= held, f"{sequence.id!r} computed {sequence.computed} tokens in room for {held}"
        for sequence in self._waiting:
            assert sequence.state is State.WAITING, f"{sequence.id!r} waits but is {sequence.state}"
            assert not sequence.blocks, f"{sequence.id!r} waits and holds blocks"
            assert sequence.computed == 0, f"{sequence.id!r} waits and claims computed tokens"

    def _plan_decodes(self, step: Step, budget: int) -> int:
        index = 0
        while index < len(self._running) and budget > 0:
            sequence = self._running[index]
            index += 1
            if not sequence.decoding:
                continue
            # Whoever is preempted for it was admitted later, and so is not in this step yet.
            while self._room(sequence) < 1 and sequence.state is State.RUNNING:
                self._preempt(self._running[-1], step)
            if sequence.state is State.RUNNING:
                self._add_chunk(step, sequence, 1)
                budget -= 1
        return budget

    def _plan_prefills(self, step: Step, budget: int) -> int:
        index = 0
        while index < len(self._running) and budget > 0:
            sequence = self._running[index]
            index += 1
            if sequence.decoding:
                continue
            # A prompt waits for blocks, unless that would leave the step empty.
            while self._room(sequence) < 1 and not step.chunks and self._running[-1] is not sequence:
                self._preempt(self._running[-1], step)
            length = min(sequence.missing, budget, self._room(sequence))
            if length > 0:
                self._add_chunk(step, sequence, length)
                budget -= length
        return budget

    def _plan_admissions(self, step: Step, budget: int) -> None:
        self._blocked = False
        if not self._waiting:
            return
        # Blocks that the prompts under way will still need. Admitting into them would only cause preemption.
        promised = sum(max(0, self._blocks_for(s.length) - len(s.blocks)) for s in self._running)
        while self._waiting and budget > 0 and len(self._running) < self.options.max_seqs:
            sequence = self._waiting[0]
            self._hold_prefix(sequence)
            needed = self._blocks_for(sequence.length) - len(sequence.blocks)
            if self._running and needed + promised > self._pool.available:
                self._give_back(sequence)
                self._blocked = True
                return
            self._waiting.popleft()
            self._admit(sequence)
            length = min(sequence.missing, budget, self._room(sequence))
            self._add_chunk(step, sequence, length)
            budget -= length
            promised += max(0, self._blocks_for(sequence.length) - len(sequence.blocks))

    def _admit(self, sequence: Sequence) -> None:
        sequence.state = State.RUNNING
        sequence.admissions += 1
        self._running.append(sequence)
        if sequence.admissions == 1:
            sequence.cached = sequence.computed
            self._prompt_tokens += sequence.prompt_length
            self._prefix_hit_tokens += sequence.cached

    def _hold_prefix(self, sequence: Sequence) -> None:
        if not self.options.prefix_cache:
            return
        # Never the whole sequence: the last token has to be computed for its logits.
        n_full = (sequence.length - 1) // self.options.block_size
        sequence.name_blocks(n_full, self.options.block_size)
        sequence.blocks = self._pool.hold_cached(sequence.digests[:n_full])
        sequence.computed = len(sequence.blocks) * self.options.block_size

    def _remember(self, sequence: Sequence, length: int) -> None:
        """Let others find the blocks that became full with the last `length` computed tokens."""
        if not self.options.prefix_cache:
            return
        block_size = self.options.block_size
        n_full = sequence.computed // block_size
        sequence.name_blocks(n_full, block_size)
        for index in range((sequence.computed - length) // block_size, n_full):
            new = self._pool.remember(sequence.blocks[index], sequence.digests[index])
            self._blocked = False
            watcher = self._pool.watcher
            if new and watcher is not None:
                watcher.remembered(
                    sequence.digests[index],
                    sequence.digests[index - 1] if index else None,
                    sequence.tokens[index * block_size : (index + 1) * block_size],
                    sequence.salt,
                )

    def _add_chunk(self, step: Step, sequence: Sequence, length: int) -> None:
        assert length >= 1, f"nothing to compute for {sequence.id!r}"
        end = sequence.computed + length
        lacking = self._blocks_for(end) - len(sequence.blocks)
        if lacking > 0:
            sequence.blocks.extend(self._pool.take(lacking))
        step.add(Chunk(sequence, sequence.computed, length, end == sequence.length))

    def _preempt(self, sequence: Sequence, step: Step) -> None:
        self._running.remove(sequence)
        self._give_back(sequence)
        sequence.state = State.WAITING
        sequence.preemptions += 1
        self._preemptions += 1
        # In front: it was admitted before anyone who waits. Not bounded by max_waiting, but by max_seqs.
        self._waiting.appendleft(sequence)
        self._blocked = False
        step.preempted.append(sequence)

    def _give_back(self, sequence: Sequence) -> None:
        self._pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.computed = 0

    def _blocks_to_decode(self, n_steps: int) -> int:
        """Blocks that all who run would take in so many steps."""
        blocks = 0
        for sequence in self._running:
            blocks += max(0, self._blocks_for(sequence.computed + n_steps) - len(sequence.blocks))
        return blocks

    @property
    def _open_to_admission(self) -> bool:
        """Whether a step that only decodes would look at who waits."""
        n_running = len(self._running)
        return bool(self._waiting) and n_running < self.options.max_seqs and n_running < self.options.max_batched_tokens

    def _blocks_for(self, n_tokens: int) -> int:
        return -(-n_tokens // self.options.block_size)

    def _room(self, sequence: Sequence) -> int:
        """How many more tokens of `sequence` could be computed with its blocks and all that are available."""
        return (len(sequence.blocks) + self._pool.available) * self.options.block_size - sequence.computed
