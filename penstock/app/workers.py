"""Several gateway processes behind one port: started, told about every new plane, started again when one dies.

The kernel spreads connections over them (SO_REUSEPORT), and none of them is special. The parent serves nobody; it holds
the port, the engines and what ended workers had counted.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from random import Random
from typing import Final, Protocol

import msgspec

from penstock.app import frames
from penstock.app.errors import StartError
from penstock.app.metrics_page import SUFFIX, offer
from penstock.app.reload import PublishRefused
from penstock.app.worker import WorkerOptions
from penstock.config.spec import PlaneSpec
from penstock.console.reports import Ended, FleetSeen, OpenSeen
from penstock.core.clock import Clock
from penstock.platforms.processes import Child, ProcessOptions, StartFailed, State
from penstock.telemetry.metrics import Snapshot, lasting, merge

ANSWER_WITHIN: Final = 30.0  # seconds, for a worker to prepare a plane
LOOK_WITHIN: Final = 2.0  # seconds, for a worker to say what is in flight
LAST_WORDS: Final = 10.0  # seconds beyond the drain before a worker is killed

_UP: Final = msgspec.msgpack.Decoder(frames.Up)


def child_options(drain_seconds: float) -> ProcessOptions:
    return ProcessOptions(ready_within=60.0, stop_grace=drain_seconds + LAST_WORDS, backoff_base=0.1, backoff_cap=10.0)


class _Link:
    """The connection of one worker."""

    def __init__(self, name: str, writer: asyncio.StreamWriter) -> None:
        self.name, self.writer = name, writer
        self.answers: asyncio.Queue[frames.Done | frames.Refused | None] = asyncio.Queue()  # None: it is gone
        self.questions: dict[int, asyncio.Future[frames.Looked | frames.Cancelled]] = {}  # by number
        self.numbers = Snapshot({})
        self.gone = False

    def hang_up(self) -> None:
        """The worker ends when it sees this, and another takes its place."""
        self.gone = True
        self.answers.put_nowait(None)
        for question in self.questions.values():
            question.cancel()
        self.writer.close()

    async def ask(self, order: frames.Prepare | frames.Swap) -> str | None:
        """Why it refuses; None when it is done, or when it is gone (another will take its place)."""
        if self.gone:
            return None
        frames.send(self.writer, order)
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer = await self.answers.get()
        except TimeoutError:
            self.hang_up()
            return f"{self.name} did not answer within {ANSWER_WITHIN:g} s"
        return answer.why if isinstance(answer, frames.Refused) else None

    async def question(self, order: frames.Look | frames.Cancel) -> frames.Looked | frames.Cancelled | None:
        """None: it is gone, or too busy to say."""
        waiting = self.questions[order.number] = asyncio.get_running_loop().create_future()
        if not self.gone:
            frames.send(self.writer, order)
        try:
            await asyncio.wait({waiting}, timeout=0 if self.gone else LOOK_WITHIN)
            return waiting.result() if waiting.done() and not waiting.cancelled() else None
        finally:
            del self.questions[order.number]

    def answered(self, answer: frames.Looked | frames.Cancelled) -> None:
        waiting = self.questions.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


class Listener(Protocol):
    """Hears what workers tell of themselves."""

    def ended(self, batch: Ended) -> None: ...
    def seen(self, worker: str, view: FleetSeen) -> None: ...
    def gone(self, worker: str) -> None: ...


class Workers:
    """The parent's side. Runs in `group`, which ends only after `stop()` or `kill()`."""

    def __init__(
        self,
        n_workers: int,
        sockets: list[socket.socket],
        options: WorkerOptions,
        *,
        group: asyncio.TaskGroup,
        clock: Clock,
        rng: Random,
        tell: Callable[[str], None],
        on_dead: Callable[[], None],
        own: Callable[[], Snapshot] = lambda: Snapshot({}),
    ) -> None:
        """`sockets` hold the port (`listen.bind(shared=True)`) and stay open as long as this lives. `on_dead` is called
        when the last worker has been given up. `own` answers what this process itself counts, for the metrics of all.
        """
        self._on_dead = on_dead
        self._n_workers, self._sockets, self._options = n_workers, sockets, options
        self._group, self._clock, self._rng, self._tell = group, clock, rng, tell
        self.directory = Path(tempfile.mkdtemp(prefix="penstock-"))  # mode 0700: only this user may connect
        self._children: list[Child] = []
        self._runs: list[asyncio.Task[None]] = []
        self._started = False
        self._links: dict[str, _Link] = {}
        self._refusals: dict[str, str] = {}
        self._numbered = count()
        self._ended = Snapshot({})
        self._changing = asyncio.Lock()  # a worker is set up either before a change of plane or after it
        self._spec: PlaneSpec | None = None
        self._servers: list[asyncio.Server] = []
        self.listener: Listener | None = None
        self._own = own

    async def start(self, spec: PlaneSpec) -> None:
        """Raises `StartError` when any worker cannot serve."""
        self._spec = spec
        control = self.directory / "control"
        self._servers.append(await asyncio.start_unix_server(self._accept, control))
        self._servers.append(await offer(self.directory / f"ended{SUFFIX}", lambda: merge([self._ended, self._own()])))
        options = child_options(self._options.drain_seconds)
        for i in range(self._n_workers):
            child = Child(
                f"worker-{i}",
                self._command(control, f"worker-{i}"),
                clock=self._clock,
                rng=self._rng,
                tell=self._tell,
                options=options,
                on_change=self._changed,
                relay=False,
            )
            self._children.append(child)
            self._runs.append(self._group.create_task(child.run()))
        for child in self._children:
            try:
                await child.started()
            except StartFailed as error:
                raise StartError(self._refusals.get(child.name, str(error))) from None
        self._started = True

    async def publish(self, spec: PlaneSpec) -> None:
        """All workers or none: raises `PublishRefused`. A worker that is being started gets the outcome."""
        async with self._changing:
            links = list(self._links.values())
            refused = await self._ask(links, frames.Prepare(spec))
            if refused:
                raise PublishRefused(refused[0])
            self._spec = spec
            for why in await self._ask(links, frames.Swap()):
                self._tell(f"A worker did not take plane {spec.version}: {why}")

    def numbers(self) -> Snapshot:
        """What all workers have counted, those that ended among them; a second old at most."""
        return merge([self._ended, *(link.numbers for link in self._links.values())])

    async def look(self, only: Mapping[str, str], most: int) -> list[OpenSeen | None]:
        """What is in flight, by worker; None: that one did not say."""
        order = frames.Look(next(self._numbered), dict(only), most)
        answers = await self._question(order)
        return [one.seen if isinstance(one, frames.Looked) else None for one in answers]

    async def cancel(self, id: str) -> bool:
        """That request, wherever it is; False: nobody has it, or it has been answered."""
        answers = await self._question(frames.Cancel(next(self._numbered), id))
        return any(isinstance(one, frames.Cancelled) and one.done for one in answers)

    def reopen_log(self) -> None:
        for link in self._links.values():
            frames.send(link.writer, frames.ReopenLog())

    def stop(self) -> None:
        """Let all of them drain and end."""
        for child in self._children:
            child.stop()

    def kill(self) -> None:
        for child in self._children:
            child.kill()

    async def ended(self) -> None:
        """Returns when all of them have, after `stop` or `kill`."""
        if self._runs:
            await asyncio.wait(self._runs)

    def close(self) -> None:
        """After the last worker has ended."""
        for server in self._servers:
            server.close()
        for bound in self._sockets:
            bound.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _command(self, control: Path, name: str) -> Callable[[int], tuple[str, ...]]:
        return lambda announce: (sys.executable, "-m", "penstock.app.worker_main", str(control), name, str(announce))

    async def _ask(self, links: list[_Link], order: frames.Prepare | frames.Swap) -> list[str]:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(link.ask(order)) for link in links]
        return [why for answer in answers if (why := answer.result()) is not None]

    async def _question(self, order: frames.Look | frames.Cancel) -> list[frames.Looked | frames.Cancelled | None]:
        return await asyncio.gather(*[link.question(order) for link in self._links.values()])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._group.create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One worker, from its first word to its last."""
        link: _Link | None = None
        try:
            hello = await frames.receive(reader, _UP)
            assert isinstance(hello, frames.Hello), hello
            link = _Link(hello.name, writer)
            async with self._changing:
                assert self._spec is not None
                frames.send(writer, self._setup(self._spec))
                async with asyncio.timeout(ANSWER_WITHIN):
                    answer = await frames.receive(reader, _UP)
                if isinstance(answer, frames.Refused):
                    self._refusals[link.name] = answer.why
                    self._tell(f"{link.name}: {answer.why}")
                    return
                self._links[link.name] = link
            while True:
                said = await frames.receive(reader, _UP)
                if isinstance(said, frames.Numbers):
                    link.numbers = said.snapshot
                elif isinstance(said, frames.Told):
                    if self.listener is not None:
                        self.listener.ended(said.ended)
                elif isinstance(said, frames.Saw):
                    if self.listener is not None:
                        self.listener.seen(link.name, said.fleet)
                elif isinstance(said, frames.Looked | frames.Cancelled):
                    link.answered(said)
                elif isinstance(said, frames.Done | frames.Refused):
                    link.answers.put_nowait(said)
        except (EOFError, TimeoutError):
            return  # the process that goes with it is watched, and started again, as a child
        except msgspec.DecodeError as error:
            self._tell(f"A gateway worker speaks another version of Penstock ({error}); it is let go.")
        finally:
            writer.close()
            if link is not None:
                link.hang_up()
                self._ended = merge([self._ended, lasting(link.numbers)])
                if self._links.get(link.name) is link:
                    del self._links[link.name]
                    if self.listener is not None:
                        self.listener.gone(link.name)

    def _setup(self, spec: PlaneSpec) -> frames.Setup:
        names = [(int(bound.family), bound.getsockname()) for bound in self._sockets]
        return frames.Setup(
            spec=spec,
            options=self._options,
            addresses=tuple((family, name[0]) for family, name in names),
            port=names[0][1][1],
            directory=str(self.directory),
        )

    def _changed(self, child: Child) -> None:
        if child.state in (State.STOPPED, State.FAILED):
            # it is not coming back, so its numbers are not missing: they are with the ended ones
            (self.directory / f"{child.name}{SUFFIX}").unlink(missing_ok=True)
        if self._started and all(one.state is State.FAILED for one in self._children):
            self._on_dead()
