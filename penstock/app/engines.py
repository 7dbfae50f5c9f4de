"""The embedded engine's processes: which ones a configuration wants, and the steps from those that run to those."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from penstock.app.errors import StartError
from penstock.config.compile import embedded, served_name
from penstock.config.schema import OPTIONS_OF_REPLICA, Config, Deployment
from penstock.core.clock import Clock
from penstock.platforms.processes import Announcement, Child, ProcessOptions, StartFailed, State

HOST: Final = "127.0.0.1"
ANY_PORT: Final = f"tcp://{HOST}:*"
ANSWER_WITHIN: Final = 10.0  # seconds, for a health check of a process
RETIRE_AFTER: Final = 2.0  # seconds between leaving the plane and SIGTERM: requests that chose it are on their way
# Large weights take minutes to load; the engine lets running requests finish for 20 s after SIGTERM.
OPTIONS: Final = ProcessOptions(ready_within=600.0, stop_grace=25.0)

Program = tuple[str, ...]


def program(deployment: Deployment) -> Program:
    """The command line of one replica, without where to announce itself."""
    assert deployment.model is not None
    arguments = [sys.executable, "-m", "penstock.cli.main", "engine", "--model", deployment.model]
    arguments += ["--host", HOST, "--port", "0", "--served-name", served_name(deployment) or deployment.model]
    for option in OPTIONS_OF_REPLICA:
        value = getattr(deployment, option)
        if value is not None:
            arguments += [f"--{option.replace('_', '-')}", str(value)]
    if deployment.kv_events is not None:
        arguments += ["--kv-events", ANY_PORT, "--kv-replay", ANY_PORT]
    return tuple(arguments)


class Engines:
    """Owns every engine process. `on_move` is called when a replica is ready at another address than before.

    Children run in `group`, which so ends only after `stop()`.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        *,
        clock: Clock,
        rng: Random,
        tell: Callable[[str], None],
        on_move: Callable[[], None],
        options: ProcessOptions = OPTIONS,
        command: Callable[[Deployment], Program] = program,
    ) -> None:
        self._group, self._clock, self._rng, self._tell, self._on_move = group, clock, rng, tell, on_move
        self._options, self._command = options, command
        self._current: dict[str, list[tuple[Program, Child]]] = {}
        self._retiring: set[Child] = set()
        self._ports: dict[Child, int] = {}
        self._stopping = asyncio.Event()

    async def prepare(self, config: Config) -> Wanted:
        """Start what `config` wants and is not there, beside what runs. Raises `StartError`; then nothing changed."""
        wanted: dict[str, list[tuple[Program, Child]]] = {}
        fresh: list[Child] = []
        for name, deployment in embedded(config).items():
            command = self._command(deployment)
            n_replicas = deployment.replicas or 1
            kept = [pair for pair in self._current.get(name, []) if pair[0] == command and _usable(pair[1])]
            kept.sort(key=lambda pair: pair[1].state is not State.READY)  # of too many, let go of those that ail
            wanted[name] = kept[:n_replicas]
            while len(wanted[name]) < n_replicas:
                child = self._start(f"{name}/{len(wanted[name])}", command)
                wanted[name].append((command, child))
                fresh.append(child)
        try:
            for child in fresh:
                await child.started()
        except StartFailed as error:
            self._stop(fresh)
            raise StartError(str(error)) from None
        except asyncio.CancelledError:
            self._stop(fresh)
            raise
        return Wanted(wanted, fresh)

    def adopt(self, wanted: Wanted) -> None:
        """The plane with these has been swapped in: let the others go, as soon as their requests have ended."""
        before, self._current = self._current, wanted.children
        kept = {child for pairs in wanted.children.values() for _, child in pairs}
        for name, pairs in wanted.children.items():
            for i, (_, child) in enumerate(pairs):
                child.name = f"engine {name}/{i}"  # as the plane names them: by position
        gone = [child for pairs in before.values() for _, child in pairs if child not in kept]
        for child in gone:
            self._retiring.add(child)
            self._group.create_task(self._retire(child))

    def abandon(self, wanted: Wanted) -> None:
        """The plane with these was refused: end those that were started for it."""
        self._stop(wanted.fresh)

    def origins(self, wanted: Wanted | None = None) -> Mapping[str, tuple[str, ...]]:
        """Where the replicas of each deployment are. One that is being started again is where it was, and not ready."""
        children = self._current if wanted is None else wanted.children
        return {
            name: tuple(f"http://{HOST}:{self._ports[child]}" for _, child in pairs) for name, pairs in children.items()
        }

    def published(self, wanted: Wanted | None = None) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """Where the replicas of each deployment publish their KV events, and where they repeat them; "" for nowhere."""
        children = self._current if wanted is None else wanted.children
        told = {name: tuple(child.announcement for _, child in pairs) for name, pairs in children.items()}
        return {
            name: tuple(("", "") if one is None else (one.kv_events, one.kv_replay) for one in all_of_it)
            for name, all_of_it in told.items()
        }

    def stop(self) -> None:
        """Ask all of them to end; the task group waits until they have."""
        self._stopping.set()
        self._stop([child for pairs in self._current.values() for _, child in pairs])
        self._stop(list(self._retiring))

    def kill(self) -> None:
        """End all of them at once."""
        self._stopping.set()
        for child in [*(child for pairs in self._current.values() for _, child in pairs), *self._retiring]:
            child.kill()

    def _start(self, name: str, command: Program) -> Child:
        child = Child(
            f"engine {name}",
            lambda announce: (*command, "--announce-fd", str(announce)),
            clock=self._clock,
            rng=self._rng,
            tell=self._tell,
            options=self._options,
            on_change=self._changed,
            well=_answers,
        )
        self._ports[child] = 0
        self._group.create_task(self._run(child))
        return child

    async def _run(self, child: Child) -> None:
        try:
            await child.run()
        finally:
            self._retiring.discard(child)

    def _changed(self, child: Child) -> None:
        if child.state is State.READY and child.announcement is not None:
            before, self._ports[child] = self._ports[child], child.announcement.port
            if before and before != child.announcement.port:
                self._on_move()

    async def _retire(self, child: Child) -> None:
        try:
            async with asyncio.timeout(RETIRE_AFTER):
                await self._stopping.wait()
        except TimeoutError:
            child.stop()

    def _stop(self, children: Sequence[Child]) -> None:
        for child in children:
            child.stop()


class Wanted:
    """Replicas for a plane that is not served yet. `fresh` ones run only for it."""

    def __init__(self, children: dict[str, list[tuple[Program, Child]]], fresh: list[Child]) -> None:
        self.children, self.fresh = children, fresh


def _usable(child: Child) -> bool:
    return child.state not in (State.STOPPED, State.FAILED)


async def _answers(said: Announcement) -> bool:
    """Whether the process still answers HTTP. Whether it is *ready* is for the prober to ask, more often."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_connection(HOST, said.port)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                return (await reader.readline()).startswith(b"HTTP/1.1 ")
            finally:
                writer.close()
    except OSError:  # includes TimeoutError
        return False
