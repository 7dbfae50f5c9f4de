"""The engine's loop: one thread that plans, computes and samples step after step, and an event loop that is never kept
waiting.

Callers talk to the thread through a queue, and hear from it once per step, however many sequences the step advanced.
The compiled kernels run without Python's lock, so the event loop works while they do.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

import msgspec

from penstock.batching.options import BatchingOptions
from penstock.batching.scheduler import Scheduler, SchedulerStats, Step, TooLong
from penstock.batching.sequence import Sequence, new_sequence
from penstock.core.clock import Clock
from penstock.engine.checkpoint import Floats
from penstock.engine.forward import Forward, make_batch
from penstock.engine.kv_events import CacheLog
from penstock.engine.measures import Measures
from penstock.engine.progress import Progress
from penstock.engine.sampling import Logprobs, SamplingParams
from penstock.engine.tokenizer import Tokenizer
from penstock.wire.kv_events import Event

# The scheduler checks itself when it runs out of work, once in so many times: the check costs about a step.
IDLE_TIMES_PER_CHECK = 100


class EngineBusy(Exception):
    """The queue is full. `waiting` is its length."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting already")
        self.waiting = waiting


class EngineFailed(Exception):
    """The answer cannot be finished, through no fault of the caller."""


class TokenPart(NamedTuple):
    token: int
    logprobs: Logprobs | None


class Piece(NamedTuple):
    """What one or more steps added to an answer. `finish` is None until the last one: `stop` or `length`."""

    text: str
    tokens: list[TokenPart]
    finish: str | None
    failure: str | None


class Generation:
    """An answer on its way, as the event loop sees it. Not an async generator, so that it can be let go of without
    awaiting.
    """

    def __init__(
        self, core: EngineCore, sequence: Sequence, params: SamplingParams, resumed: int, streams: bool, now: float
    ) -> None:
        self.sequence = sequence
        self.params = params
        self.resumed = resumed  # tokens of the answer that were generated elsewhere; the sequence's prompt ends in them
        self.streams = streams
        self.submitted_at = now
        self.ended = False
        self._core = core
        self._pieces: deque[Piece] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def prompt_tokens(self) -> int:
        return self.sequence.prompt_length - self.resumed

    @property
    def completion_tokens(self) -> int:
        """Tokens of the whole answer, the resumed ones included."""
        return self.resumed + self.sequence.generated

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were not computed again."""
        return min(self.sequence.cached, self.prompt_tokens)

    async def read(self) -> Piece | None:
        """Everything since the last read, at least one token of it; None at the end. Raises `EngineFailed`.

        An answer that was submitted with `streams=False` arrives in one piece.
        """
        if not self._pieces:
            if self.ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        pieces = list(self._pieces)
        self._pieces.clear()
        last = pieces[-1]
        if last.failure is not None:
            raise EngineFailed(last.failure)
        if len(pieces) == 1:
            return last
        # The reader was slower than the engine: one larger piece costs less than many.
        tokens = [token for piece in pieces for token in piece.tokens]
        return Piece("".join(piece.text for piece in pieces), tokens, last.finish, None)

    def close(self) -> None:
        """Let go, at once, in any state; again is harmless. An unfinished answer is aborted."""
        if not self.ended:
            self.ended = True
            self._core.abort(self)

    def deliver(self, piece: Piece) -> None:
        """Called in the event loop."""
        if self.ended:
            return
        self._pieces.append(piece)
        self.ended = piece.finish is not None or piece.failure is not None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Message(NamedTuple):
    """To the thread: start this answer, or abort it. No answer at all asks the thread to end."""

    generation: Generation | None
    abort: bool


class _Answer:
    """An answer as the engine's thread sees it."""

    __slots__ = ("first_token_at", "generation", "pending", "progress", "shown")

    def __init__(self, generation: Generation, progress: Progress) -> None:
        self.generation = generation
        self.progress = progress
        self.first_token_at = 0.0
        self.shown: list[str] = []
        self.pending: list[TokenPart] = []


class EngineCore:
    """Owns the thread, the scheduler and the model. Made and used from one event loop; `stop` before that loop ends."""

    def __init__(
        self,
        forward: Forward,
        tokenizer: Tokenizer,
        options: BatchingOptions,
        *,
        eos_token_ids: tuple[int, ...],
        clock: Clock,
        on_crash: Callable[[Exception], None],
        on_cache: Callable[[list[Event]], None] | None = None,
    ) -> None:
        """`on_crash` is called in the event loop when the thread fails; nothing is computed any more then. `on_cache`
        hears there, after each step, how the prefix cache has changed.
        """
        self.measures = Measures()
        self.failure: str | None = None
        self._forward = forward
        self._tokenizer = tokenizer
        self._eos = frozenset(eos_token_ids)
        self._clock = clock
        self._on_crash = on_crash
        self._options = options
        # Who may wait is decided by `submit`, before anything is queued: this limit can never be met.
        self._scheduler = Scheduler(
            msgspec.structs.replace(options, max_waiting=options.max_waiting + options.max_seqs)
        )
        self._on_cache = on_cache
        self._cache_log = CacheLog(options.block_size)
        if on_cache is not None:
            self._scheduler.watch(self._cache_log)
        self._answers: dict[str, _Answer] = {}
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="penstock-engine", daemon=True)
        self._stopping = False
        self._idle_times = 0
        # Two counters, because each has one thread that writes it.
        self._n_submitted = 0
        self._n_ended = 0

    @property
    def active(self) -> int:
        """Answers that were submitted and have not ended, waiting ones included."""
        return self._n_submitted - self._n_ended

    @property
    def waiting(self) -> int:
        """Answers that were submitted and not begun, and those that were preempted."""
        return self._scheduler.n_waiting + self._inbox.qsize()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Abort everything and wait for the step under way. Blocks for the length of one step; again is harmless."""
        self._stopping = True
        self._inbox.put(_Message(None, abort=True))
        if self._thread.is_alive():
            self._thread.join()
        self._fail_everybody("the engine is stopping")

    def stats(self) -> SchedulerStats:
        return self._scheduler.stats()

    def submit(
        self,
        id: str,
        prompt: list[int],
        params: SamplingParams,
        *,
        resume: list[int] | None = None,
        salt: bytes = b"",
        streams: bool = True,
    ) -> Generation:
        """Start an answer. Raises `EngineBusy` when too many wait, `TooLong` for what the KV cache cannot hold,
        `EngineFailed` when the engine is down.

        `resume`: the first tokens of the answer, at most `max_tokens`, of which somebody has heard already. They are
        computed like the prompt, and what comes is what would have come after them.
        """
        if self.failure is not None or self._stopping:
            raise EngineFailed(self.failure or "the engine is stopping")
        needed = len(prompt) + params.max_tokens - 1
        if needed > self._options.capacity:
            raise TooLong(needed, self._options.capacity)
        # Not by the length of the queue: many who arrive at once are not waiting yet, and some of them never will.
        if self.active >= self._options.max_seqs + self._options.max_waiting:
            self.measures.refused += 1
            raise EngineBusy(self.waiting)
        known = resume or []
        sequence = new_sequence(id, prompt + known, params.max_tokens - len(known), salt)
        generation = Generation(self, sequence, params, len(known), streams, self._clock.now())
        self._n_submitted += 1
        self._inbox.put(_Message(generation, abort=False))
        return generation

    def abort(self, generation: Generation) -> None:
        """Called by `Generation.close`."""
        self._inbox.put(_Message(generation, abort=True))

    def _run(self) -> None:
        try:
            while True:
                if not self._scheduler.has_work:
                    self._check_sometimes()
                self._take_inbox(wait=not self._scheduler.has_work)
                if self._stopping:
                    break
                if self._scheduler.has_work:
                    self._step()
        except Exception as error:  # noqa: BLE001  whatever it was, nobody may wait for an answer that never comes
            self._crash(error)

    def _check_sometimes(self) -> None:
        self._idle_times += 1
        if self._idle_times % IDLE_TIMES_PER_CHECK == 0:
            self._scheduler.check()

    def _take_inbox(self, *, wait: bool) -> None:
        while wait or not self._inbox.empty():
            generation, abort = self._inbox.get()
            wait = False
            if generation is None:
                return
            sequence = generation.sequence
            if abort:
                if self._answers.pop(sequence.id, None) is not None:
                    self._scheduler.end(sequence)
                    self._count_end("abort")
            elif generation.ended:  # let go of before it was taken up
                self._count_end("abort")
            else:
                self._begin(generation)

    def _begin(self, generation: Generation) -> None:
        sequence = generation.sequence
        progress = Progress(generation.params, self._tokenizer.stream(), self._eos)
        progress.take_over(sequence.tokens[generation.prompt_tokens :])
        if progress.finish is not None:  # all but its end had been said
            self._count_end(progress.finish)
            self._tell([(generation, Piece("", [], progress.finish, None))])
            return
        self._answers[sequence.id] = _Answer(generation, progress)
        self._scheduler.add(sequence)

    def _step(self) -> None:
        began = self._clock.now()
        step = self._scheduler.plan()
        logits, best = self._forward.compute(make_batch(step))
        parts = self._sample(step, logits, best.tolist())
        self._scheduler.commit(step, [part.token for part in parts])
        now = self._clock.now()
        deliveries: list[tuple[Generation, Piece]] = []
        sampled = (chunk.sequence for chunk in step.chunks if chunk.samples)
        for sequence, part in zip(sampled, parts, strict=True):
            answer = self._answers[sequence.id]
            piece = self._advance(answer, part, now)
            if piece is not None:
                deliveries.append((answer.generation, piece))
        self.measures.steps += 1
        self.measures.step_seconds += now - began
        if deliveries:
            self._tell(deliveries)
        if self._on_cache is not None and self._cache_log.events:
            assert self._loop is not None, "start comes before any step"
            self._loop.call_soon_threadsafe(self._on_cache, self._cache_log.take())

    def _sample(self, step: Step, logits: Floats, best: list[int]) -> list[TokenPart]:
        """One token per sampling chunk; -1 where the model's numbers are broken."""
        parts: list[TokenPart] = []
        sampling = [chunk.sequence for chunk in step.chunks if chunk.samples]
        for row, sequence in enumerate(sampling):
            answer = self._answers[sequence.id]
            if best[row] < 0 or answer.generation.params.only_best:
                parts.append(TokenPart(best[row], None))
            else:
                parts.append(TokenPart(*answer.progress.sampler.choose(logits[row])))
        return parts

    def _advance(self, answer: _Answer, part: TokenPart, now: float) -> Piece | None:
        """Add one token to an answer; what the caller should hear of it now."""
        generation = answer.generation
        if generation.sequence.generated == 1:
            answer.first_token_at = now
            self.measures.ttft.record(now - generation.submitted_at)
        if part.token < 0:
            piece = self._end(answer, "error", now, failure="the model's output is not a number")
            # Nobody else may find keys and values that are not numbers.
            self._scheduler.forget_prefixes()
            return piece
        answer.pending.append(part)
        answer.shown.append(answer.progress.push(part.token))
        if answer.progress.finish is not None:
            return self._end(answer, answer.progress.finish, now)
        if not generation.streams:
            return None
        return self._collect(answer, None)

    def _end(self, answer: _Answer, finish: str, now: float, failure: str | None = None) -> Piece:
        generation = answer.generation
        sequence = generation.sequence
        self._scheduler.end(sequence)
        del self._answers[sequence.id]
        if sequence.generated > 1:
            self.measures.tpot.record((now - answer.first_token_at) / (sequence.generated - 1))
        self.measures.e2e.record(now - generation.submitted_at)
        self._count_end(finish)
        return self._collect(answer, finish)._replace(failure=failure)

    def _collect(self, answer: _Answer, finish: str | None) -> Piece:
        piece = Piece("".join(answer.shown), answer.pending, finish, None)
        answer.shown = []
        answer.pending = []
        return piece

    def _count_end(self, how: str) -> None:
        self.measures.finished[how] += 1
        self._n_ended += 1

    def _tell(self, deliveries: list[tuple[Generation, Piece]]) -> None:
        assert self._loop is not None, "start comes before any step"
        self._loop.call_soon_threadsafe(_deliver, deliveries)

    def _crash(self, error: Exception) -> None:
        self.failure = f"the engine failed: {error!r}"
        assert self._loop is not None, "start comes before any step"
        self._loop.call_soon_threadsafe(self._after_crash, error)

    def _after_crash(self, error: Exception) -> None:
        """In the event loop, where no `submit` can come between."""
        self._fail_everybody(str(self.failure))
        self._on_crash(error)

    def _fail_everybody(self, failure: str) -> None:
        """Once the thread has ended: tell everybody who still waits."""
        lost = [answer.generation for answer in self._answers.values()]
        self._answers.clear()
        while not self._inbox.empty():
            generation, abort = self._inbox.get()
            if generation is not None and not abort:
                lost.append(generation)
        for generation in lost:
            self._count_end("error")
            generation.deliver(Piece("", [], None, failure))


def _deliver(deliveries: list[tuple[Generation, Piece]]) -> None:
    for generation, piece in deliveries:
        generation.deliver(piece)
