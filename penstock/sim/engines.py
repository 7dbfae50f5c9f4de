"""The engines behind a fleet's replicas: who answers a simulated attempt, and what can go wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from penstock.batching.scheduler import Refused, TooLong
from penstock.batching.sequence import CountedSequence
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.fleet import Replica
from penstock.sim.cost_model import CostModel
from penstock.sim.engine_model import EngineCall, EngineModel
from penstock.sim.requests import Try
from penstock.sim.world import World
from penstock.traffic.arrival import Arrival

REFUSED_AFTER: Final = 0.001  # seconds until a connection to a host without its server is refused


class Trouble:
    """A share of the requests to a replica fail with `kind`, before they reach the engine."""

    __slots__ = ("kind", "retry_after", "share")

    def __init__(self, kind: FailureKind, share: float, retry_after: float | None) -> None:
        self.kind = kind
        self.share = share
        self.retry_after = retry_after


class Engine:
    """One replica's engine, and whether its process is there."""

    __slots__ = (
        "calls", "capacity", "draining", "max_seqs", "model", "overhead", "probes_failed", "replica", "restarted",
        "trouble", "up",
    )  # fmt: skip

    def __init__(self, world: World, replica: Replica, cost: CostModel, jumps: bool = True) -> None:
        self.replica = replica
        self.model = EngineModel(world, cost, jumps)
        self.capacity: int = self.model.options.capacity  # tokens that its KV cache holds
        self.max_seqs: int = cost.max_seqs
        self.overhead: float = cost.overhead
        self.up = True
        self.draining = False  # it is to get no new requests
        self.restarted = False  # since its last report
        self.probes_failed = 0
        self.trouble: Trouble | None = None
        self.calls: dict[int, Try] = {}  # by id


class Asked:
    """One attempt at an engine, told what comes of it."""

    __slots__ = ("_attempt", "_engine", "_sequence")

    def __init__(self, engine: Engine, attempt: Try, sequence: CountedSequence) -> None:
        self._engine = engine
        self._attempt = attempt
        self._sequence = sequence

    def began(self) -> None:
        self._attempt.cached = self._sequence.cached
        self._attempt.began()

    def finished(self) -> None:
        self._engine.calls.pop(id(self._attempt), None)
        self._attempt.finished(self._sequence.generated)


class Engines:
    """All of them, by the names of their replicas; the `fleet.Upstream` of a simulation."""

    __slots__ = ("_n_calls", "_rng", "_world", "by_name")

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self.by_name: dict[str, Engine] = {}
        self._n_calls = 0

    def add(self, replica: Replica, cost: CostModel, jumps: bool = True) -> Engine:
        engine = self.by_name[replica.name] = Engine(self._world, replica, cost, jumps)
        return engine

    def __iter__(self) -> Iterator[Engine]:
        return iter(self.by_name.values())

    def open(self, attempt: Try) -> None:
        engine = self.by_name[attempt.replica.name]
        trouble = engine.trouble
        if not engine.up:
            self._fail(attempt, UpstreamError(FailureKind.CONNECT))
            return
        if trouble is not None and (trouble.share >= 1.0 or self._rng.random() < trouble.share):
            self._fail(attempt, UpstreamError(trouble.kind, retry_after=trouble.retry_after))
            return
        arrival = attempt.owner.arrival
        assert arrival is not None, "an engine has to know how long the answer is to be"
        options = engine.model.options
        self._n_calls += 1
        sequence = CountedSequence(
            str(self._n_calls),
            arrival.prompt_tokens,
            arrival.output_tokens,
            arrival.output_tokens,
            block_names(arrival, options.block_size) if options.prefix_cache else [],
        )

        asked = Asked(engine, attempt, sequence)
        attempt.token = call = EngineCall(sequence, asked.began, asked.finished)
        if engine.overhead > 0.0:
            self._world.at(self._world.now + engine.overhead, lambda: self._arrive(engine, attempt, call))
        else:
            self._arrive(engine, attempt, call)

    def _arrive(self, engine: Engine, attempt: Try, call: EngineCall) -> None:
        """The engine knows of it now."""
        if attempt.over:
            return
        if not engine.up:
            self._fail(attempt, UpstreamError(FailureKind.CONNECT))
            return
        try:
            engine.model.submit(call)
        except Refused as refused:
            kind = FailureKind.CONTEXT_LENGTH if isinstance(refused, TooLong) else FailureKind.OVERLOADED
            failure = UpstreamError(kind)
            self._world.at(self._world.now, lambda: attempt.failed(failure))
            return
        engine.calls[id(attempt)] = attempt

    def cancel(self, attempt: Try) -> None:
        engine = self.by_name[attempt.replica.name]
        call = attempt.token
        if engine.calls.pop(id(attempt), None) is not None and isinstance(call, EngineCall):
            engine.model.abort(call)

    def progressed_at(self, attempt: Try) -> float:
        return self.by_name[attempt.replica.name].model.progressed_at

    def die(self, name: str) -> None:
        """The process is gone: every connection breaks, none is accepted."""
        engine = self.by_name[name]
        engine.up = False
        engine.model.crash()
        lost = list(engine.calls.values())
        engine.calls.clear()
        for attempt in lost:
            attempt.failed(UpstreamError(FailureKind.NETWORK))

    def come_back(self, name: str) -> None:
        """Started anew, with an empty cache; or it wakes from its hanging, and remembers."""
        engine = self.by_name[name]
        if not engine.up:
            engine.up = engine.restarted = True
        engine.model.slow_down(1.0)
        engine.model.wake()

    def hang(self, name: str) -> None:
        """It accepts connections and says nothing. Who streams is left alone after the plan's idle timeout."""
        engine = self.by_name[name]
        engine.model.hang()
        for attempt in engine.calls.values():
            if attempt.first_token_at is not None:
                self._expect(engine, attempt)

    def slow_down(self, name: str, factor: float) -> None:
        self.by_name[name].model.slow_down(factor)

    def _expect(self, engine: Engine, attempt: Try) -> None:
        call = attempt.token
        assert isinstance(call, EngineCall)
        tokens = call.sequence.generated
        sequence = call.sequence

        def look() -> None:
            if not attempt.over and sequence.generated == tokens and engine.model.hung:
                self.cancel(attempt)
                attempt.failed(UpstreamError(FailureKind.IDLE_TIMEOUT))

        self._world.at(self._world.now + attempt.owner.route.plan.idle_timeout, look)

    def _fail(self, attempt: Try, failure: UpstreamError) -> None:
        self._world.at(self._world.now + REFUSED_AFTER, lambda: attempt.failed(failure))


def block_names(arrival: Arrival, block_size: int) -> list[bytes]:
    """Digests for the full blocks of its prompt, equal where prompts are known to begin alike."""
    hashes: Sequence[int] = arrival.prefix_hashes
    covers: Sequence[int] = arrival.prefix_tokens
    names: list[bytes] = []
    at = 0
    for place in range(arrival.prompt_tokens // block_size):
        end = (place + 1) * block_size
        while at < len(hashes) and covers[at] < end:
            at += 1
        if at == len(hashes):
            break
        names.append(b"%d/%d" % (hashes[at], place))
    return names
