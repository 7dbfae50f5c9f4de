"""A simulated replica's engine: the very scheduler that the live engine runs, with a formula for how long a step takes.

Steps in which nothing but decoding happens are taken at once, exactly: time is counted in whole picoseconds, so that a
hundred steps at once end at the very instant at which a hundred single ones do. Whatever comes in between cuts the jump
short. Tests hold the two ways against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock.batching.options import BatchingOptions
from penstock.batching.scheduler import Scheduler, Step
from penstock.batching.sequence import CountedSequence, State
from penstock.sim.cost_model import PICOSECONDS, CostModel
from penstock.sim.world import Happening, World

FAR: Final = 1 << 40  # steps; more than any answer has


class EngineCall:
    """One request in an engine, which calls `on_first` at its first token and `on_end` at its last."""

    __slots__ = ("on_end", "on_first", "sequence")

    def __init__(self, sequence: CountedSequence, on_first: Callable[[], None], on_end: Callable[[], None]) -> None:
        self.sequence = sequence
        self.on_first = on_first
        self.on_end = on_end


class EngineModel(Happening):
    """One engine. Between two events it is in a step that was planned, or in several quiet ones, or idle."""

    __slots__ = (
        "_calls", "_context", "_cost", "_due", "_ends_at", "_jumps", "_n", "_per_context", "_per_prefill", "_per_seq",
        "_per_step", "_scheduler", "_slowed", "_started_at", "_step", "_steps", "_telling", "_world", "hung",
    )  # fmt: skip

    def __init__(self, world: World, cost: CostModel, jumps: bool = True) -> None:
        """`jumps=False` takes every step by itself: the same, only slower."""
        self._world = world
        self._cost = cost
        self._jumps = jumps
        self._scheduler = Scheduler(cost.batching)
        self._calls: dict[str, EngineCall] = {}
        self.hung = False
        self._slowed = 1.0
        self._step: Step | None = None
        self._steps = 0  # quiet ones
        self._n = 0  # sequences in each of those
        self._context = 0  # tokens that the first of those attends to
        self._started_at = 0  # picoseconds, as every time in here
        self._ends_at = 0
        self._due = 0  # the number of the event at its end; others mean nothing any more
        self._telling = False
        self._per_step = self._per_seq = self._per_prefill = self._per_context = 0
        self._take_costs()

    @property
    def options(self) -> BatchingOptions:
        return self._scheduler.options

    @property
    def n_waiting(self) -> int:
        return self._scheduler.n_waiting

    @property
    def n_running(self) -> int:
        return self._scheduler.n_running

    @property
    def kv_used(self) -> float:
        """Fraction of KV blocks held now, 0..1."""
        if not self._steps:
            return self._scheduler.kv_used()
        # the step under way took its blocks when it began
        return self._scheduler.kv_used(min(self._steps, self._done(round(self._world.now * PICOSECONDS)) + 1))

    @property
    def progressed_at(self) -> float:
        """When the last step ended, in seconds: everybody who runs got a token then, or a part of a prompt done."""
        done = self._done(round(self._world.now * PICOSECONDS)) if self._steps else 0
        return (self._started_at + self._quiet(done)) / PICOSECONDS

    @property
    def scheduler(self) -> Scheduler:
        """As it is now: a jump under way is cut short."""
        self._stop_jumping()
        return self._scheduler

    def submit(self, call: EngineCall) -> None:
        """Raises `batching.scheduler.Refused`, and then keeps nothing of it."""
        scheduler = self._scheduler
        heard = scheduler.n_waiting == 0 and scheduler.n_running < scheduler.options.max_seqs
        scheduler.add(call.sequence)
        self._calls[call.sequence.id] = call
        if self._steps and heard:
            steps = self._steps_until(round(self._world.now * PICOSECONDS))
            if steps < self._steps:
                self._steps = steps
                self._ends_at = self._started_at + self._quiet(steps)
                self._schedule()
        else:
            self._go_on()

    def abort(self, call: EngineCall) -> None:
        """The caller left. Harmless when the call is over."""
        if self._calls.pop(call.sequence.id, None) is not None:
            self._stop_jumping()
            self._scheduler.end(call.sequence)
            self._go_on()

    def slow_down(self, factor: float) -> None:
        """From the next step on each takes `factor` times its time; 1 is as fitted."""
        self._stop_jumping()
        self._slowed = factor
        self._take_costs()
        self._go_on()

    def hang(self) -> None:
        """Nothing is computed any more; whoever asks waits."""
        self._stop_jumping()
        self.hung = True
        self._due = 0

    def wake(self) -> None:
        """After `hang`: the step that was under way begins anew."""
        if self.hung:
            self.hung = False
            if self._step is not None:
                self._ends_at = round(self._world.now * PICOSECONDS) + self._duration(self._step)
                self._schedule()
            self._go_on()

    def crash(self) -> list[EngineCall]:
        """Forget everything, the prefix cache too; returns the calls that nobody will answer."""
        lost = list(self._calls.values())
        self._calls = {}
        self._scheduler = Scheduler(self._cost.batching)
        self._step, self._steps, self._ends_at = None, 0, 0
        self._due = 0
        self.hung = False
        return lost

    def _take_costs(self) -> None:
        unit = PICOSECONDS * self._slowed
        cost = self._cost
        self._per_step = round(cost.step * unit)
        self._per_seq = round(cost.per_sequence * unit)
        self._per_prefill = round(cost.per_prefill_token * unit)
        self._per_context = round(cost.per_context_token * unit)

    def _go_on(self) -> None:
        """Begin what comes next, unless something is computed."""
        if self._step is not None or self._steps or self._telling or self.hung or not self._scheduler.has_work:
            return
        self._started_at = max(self._ends_at, round(self._world.now * PICOSECONDS))
        scheduler = self._scheduler
        steps = 0
        if self._jumps:
            left = FAR
            context = 0
            for sequence in scheduler.running:
                assert isinstance(sequence, CountedSequence)
                left = min(left, sequence.left)
                context += sequence.length
            steps = scheduler.quiet_steps(left)
            self._context = context
        if steps:
            self._steps = steps
            self._n = scheduler.n_running
            self._ends_at = self._started_at + self._quiet(steps)
        else:
            self._step = scheduler.plan()
            self._ends_at = self._started_at + self._duration(self._step)
        self._schedule()

    def _schedule(self) -> None:
        self._due = self._world.due(self._ends_at / PICOSECONDS, self)

    def happen(self, number: int) -> None:
        """What was computed is."""
        if number != self._due:
            return
        scheduler = self._scheduler
        first: list[EngineCall] = []
        ended: list[EngineCall] = []
        step = self._step
        if step is not None:
            self._step = None
            scheduler.commit(step, [0] * step.n_samples)
            for chunk in step.chunks:
                sequence = chunk.sequence
                if chunk.samples and sequence.state is State.RUNNING:
                    assert isinstance(sequence, CountedSequence)
                    if sequence.generated == 1:
                        first.append(self._calls[sequence.id])
                    if sequence.left == 0:
                        ended.append(self._calls[sequence.id])
        else:
            steps, self._steps = self._steps, 0
            scheduler.skip(steps)
            for sequence in scheduler.running:
                assert isinstance(sequence, CountedSequence)
                if sequence.left == 0:
                    ended.append(self._calls[sequence.id])
        for call in ended:
            scheduler.end(call.sequence)
            del self._calls[call.sequence.id]
        self._telling = True
        for call in first:
            call.on_first()
        for call in ended:
            call.on_end()
        self._telling = False
        self._go_on()

    def _stop_jumping(self) -> None:
        """Let a jump be what single steps would have made of it by now: some that are done, and one under way."""
        if not self._steps:
            return
        done = min(self._done(round(self._world.now * PICOSECONDS)), self._steps - 1)
        if done:
            self._scheduler.skip(done)
        began = self._started_at + self._quiet(done)
        self._steps = 0
        self._step = self._scheduler.plan_decodes()
        self._started_at = began
        self._ends_at = began + self._duration(self._step)
        self._schedule()

    def _duration(self, step: Step) -> int:
        prompt = 0
        decoding = 0
        context = 0
        for chunk in step.chunks:
            sequence = chunk.sequence
            if chunk.length == 1 and chunk.samples and sequence.length > sequence.prompt_length:
                decoding += 1
                context += chunk.start + 1
            else:
                prompt += chunk.length
        return self._per_step + self._per_seq * decoding + self._per_prefill * prompt + self._per_context * context

    def _quiet(self, steps: int) -> int:
        """How long the first `steps` of the quiet ones take, together."""
        attended = steps * self._context + self._n * (steps * (steps - 1) // 2)
        return steps * (self._per_step + self._per_seq * self._n) + self._per_context * attended

    def _done(self, now: int) -> int:
        """How many of the quiet steps are over."""
        low, high = 0, self._steps
        if not self._per_context:
            return min(high, max(0, now - self._started_at) // self._quiet(1))
        while low < high:
            middle = (low + high + 1) // 2
            if self._started_at + self._quiet(middle) <= now:
                low = middle
            else:
                high = middle - 1
        return low

    def _steps_until(self, now: int) -> int:
        """How many of the quiet steps have begun before `now`, at least one."""
        done = self._done(now)
        if done and self._started_at + self._quiet(done) == now:
            return done
        return done + 1
