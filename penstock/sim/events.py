"""What happens to replicas in a scenario, put into the world's calendar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from penstock.config.units import seconds
from penstock.core.errors import FailureKind, kind_of_status
from penstock.sim.engines import Engine, Trouble
from penstock.sim.options import Event
from penstock.sim.run import Simulation

DRAIN: Final = 30.0  # seconds that a deploy lets answers go on
LOOK: Final = 0.5  # seconds between two looks whether they have ended


def schedule(simulation: Simulation, events: Sequence[Event], startup: Mapping[str, float]) -> None:
    """`startup` in seconds, by deployment. Names in `events` have been checked."""
    for event in events:
        engines = [
            engine
            for engine in simulation.engines
            if engine.replica.name == event.replica or engine.replica.deployment == event.deployment
        ]
        at = seconds(event.at)
        if event.what == "deploys":
            for_deploy = Deploy(simulation, engines, startup[engines[0].replica.deployment])
            simulation.world.at(at, for_deploy.go_on)
            continue
        for engine in engines:
            simulation.world.at(at, _happen(simulation, engine, event))
            if event.lasts is not None:
                simulation.world.at(at + seconds(event.lasts), _return(simulation, engine))


def _happen(simulation: Simulation, engine: Engine, event: Event) -> Callable[[], None]:
    engines, name = simulation.engines, engine.replica.name

    def happen() -> None:
        if event.what == "dies":
            engines.die(name)
        elif event.what == "hangs":
            engines.hang(name)
        elif event.what == "slows":
            engines.slow_down(name, float(event.factor))
        elif event.what == "returns":
            _return(simulation, engine)()
        else:
            retry_after = None if event.retry_after is None else seconds(event.retry_after)
            engine.trouble = Trouble(FailureKind(kind_of_status(event.status)), float(event.share), retry_after)

    return happen


def _return(simulation: Simulation, engine: Engine) -> Callable[[], None]:
    def come_back() -> None:
        engine.trouble = None
        simulation.engines.come_back(engine.replica.name)

    return come_back


class Deploy:
    """Replicas are restarted one after the other: each gets no new requests, ends what it has, and starts anew."""

    def __init__(self, simulation: Simulation, engines: Sequence[Engine], startup: float) -> None:
        self._simulation = simulation
        self._left = list(engines)
        self._startup = startup
        self._until = 0.0

    def go_on(self) -> None:
        """Take the next one out."""
        if self._left:
            engine = self._left[0]
            engine.draining = True
            engine.replica.ready = False
            self._until = self._simulation.world.now + DRAIN
            self._look()

    def _look(self) -> None:
        world, engine = self._simulation.world, self._left[0]
        if engine.calls and world.now < self._until:
            world.at(world.now + LOOK, self._look)
            return
        self._simulation.engines.die(engine.replica.name)
        world.at(world.now + self._startup, self._started)

    def _started(self) -> None:
        engine = self._left.pop(0)
        self._simulation.engines.come_back(engine.replica.name)
        engine.draining = False
        self.go_on()
