"""Child processes that are watched: started, known to be ready, started again when they end, and stopped.

A child says that it is ready with one JSON line on a pipe, so that nobody has to guess ports or poll. It is started
again only after it has been ready once: what never started will not start for being asked again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from penstock.core.clock import Clock
from penstock.platforms import bound

MAX_LINE: Final = 2_000  # characters of a child's line that are passed on
LAST_LINES: Final = 30  # of a child, kept to explain why it ended
MAX_ANNOUNCEMENT: Final = 64 * 1024  # bytes
LAST_OUTPUT_WITHIN: Final = 1.0  # seconds for the rest of what an ended child wrote
CHUNK: Final = 64 * 1024


class ProcessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Spans in seconds."""

    ready_within: float = 120.0
    stop_grace: float = 10.0  # between SIGTERM and SIGKILL
    backoff_base: float = 0.5  # before the first restart; doubles with each failure in a row
    backoff_cap: float = 30.0
    give_up_after: int = 5  # failures in a row
    steady_after: float = 60.0  # a child that was ready so long has no failures in a row any more
    check_every: float = 10.0
    unwell_after: int = 3  # failed checks in a row before it is killed and started again


class Announcement(msgspec.Struct, frozen=True):
    """What a child says when it is ready; it may say more than we read."""

    port: int = 0
    pid: int = 0
    kv_events: str = ""  # where it publishes what its prefix cache holds
    kv_replay: str = ""


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # for its next start
    STOPPED = "stopped"  # because we said so
    FAILED = "failed"  # given up


class StartFailed(Exception):
    """A child ended, or stayed silent for too long, before it was ever ready. `last_lines` is what it said."""

    def __init__(self, name: str, why: str, last_lines: Sequence[str]) -> None:
        super().__init__("\n".join([f"{name} did not start: it {why}.", *(f"  {line}" for line in last_lines)]))
        self.name, self.why, self.last_lines = name, why, tuple(last_lines)


class Child:
    """One supervised process. Whoever makes it runs `run()` in a task group; `run` ends when the child is done for.

    `command` is told the file descriptor to announce on and answers the program and its arguments. `tell` gets lines
    for people. `on_change` is called after every change of `state`. `well` is a check, with a time limit of its own,
    that a ready child must pass. With `relay`, what the child writes (stdout and stderr) comes through `tell`, cut to
    a bounded length and named; without, it shares ours.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        *,
        clock: Clock,
        rng: Random,
        tell: Callable[[str], None],
        options: ProcessOptions | None = None,
        on_change: Callable[[Child], None] | None = None,
        well: Callable[[Announcement], Awaitable[bool]] | None = None,
        relay: bool = True,
    ) -> None:
        self.name = name
        self.state = State.STARTING
        self.announcement: Announcement | None = None  # while it is ready
        self.pid: int | None = None
        self.starts = 0
        self._command, self._clock, self._rng, self._tell = command, clock, rng, tell
        self._options = options or ProcessOptions()
        self._on_change, self._well, self._relays = on_change, well, relay
        self._stop_asked = asyncio.Event()
        self._kill_asked = asyncio.Event()
        self._decided: asyncio.Future[Announcement] = asyncio.get_running_loop().create_future()
        self._was_ready = False
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)

    async def started(self) -> Announcement:
        """Waits for the first start. Raises `StartFailed`."""
        return await asyncio.shield(self._decided)

    def stop(self) -> None:
        """Ask it to end (SIGTERM, later SIGKILL). `run` ends when it has."""
        self._stop_asked.set()

    def kill(self) -> None:
        """End it without any grace."""
        self._kill_asked.set()
        self._stop_asked.set()

    async def run(self) -> None:
        """Cancelling this kills the child at once."""
        failures = 0
        try:
            while not self._stop_asked.is_set():
                self.starts += 1
                self._enter(State.STARTING)
                why, ready_for = await self._one_life()
                if self._stop_asked.is_set():
                    break
                failures = 1 if ready_for >= self._options.steady_after else failures + 1
                if not self._was_ready:
                    self._fail(why)
                    return
                if failures >= self._options.give_up_after:
                    self._tell(
                        f"{self.name}: {why}. That was failure {failures} in a row: it is not started again. "
                        "Fix the cause and restart or reload Penstock."
                    )
                    self._fail(why)
                    return
                delay = self._backoff(failures)
                self._tell(f"{self.name}: {why}. Starting it again in {delay:.1f} s.")
                self._enter(State.WAITING)
                await _wait(self._stop_asked, delay)
            self._enter(State.STOPPED)
        finally:
            self._not_started("was stopped before that")

    def _fail(self, why: str) -> None:
        self._not_started(why)
        self._enter(State.FAILED)

    def _not_started(self, why: str) -> None:
        if not self._decided.done():
            self._decided.set_exception(StartFailed(self.name, why, self._last_lines))
            self._decided.exception()  # nobody need be waiting

    def _backoff(self, failures: int) -> float:
        """Seconds; the upper half is random, so that children that failed together do not come back together."""
        longest = min(self._options.backoff_cap, self._options.backoff_base * 2.0 ** (failures - 1))
        return longest * (0.5 + 0.5 * self._rng.random())

    def _enter(self, state: State) -> None:
        self.state = state
        if self._on_change is not None:
            self._on_change(self)

    async def _one_life(self) -> tuple[str, float]:
        """From start to end of one process: why it ended, in words, and for how long it had been ready."""
        self._last_lines.clear()
        reading, writing = os.pipe()
        try:
            process = await self._spawn(writing)
        except OSError as error:
            os.close(reading)
            return f"could not be started: {error.strerror}", 0.0
        finally:
            os.close(writing)
        self.pid = process.pid
        try:
            async with asyncio.TaskGroup() as group:
                relaying = group.create_task(self._relay(process.stdout))
                ended = group.create_task(process.wait())
                stop = group.create_task(self._stop_asked.wait())
                announced = group.create_task(_read_announcement(reading))
                try:
                    why, ready_for = await self._watch(process, announced, ended, stop)
                    await asyncio.wait({relaying}, timeout=LAST_OUTPUT_WITHIN)
                finally:
                    for task in (relaying, stop, announced):
                        task.cancel()
                    if process.returncode is None:  # cancelled, or an error of ours
                        _signal_group(process, signal.SIGKILL)
            return why, ready_for
        finally:
            self.pid = self.announcement = None
            if process.returncode is None:
                await process.wait()  # killed above, so this is short

    async def _spawn(self, writing: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(Path(bound.__file__)), str(os.getpid()), *self._command(writing),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if self._relays else None,
            stderr=asyncio.subprocess.STDOUT if self._relays else None,
            pass_fds=(writing,),
            # its own process group: Ctrl-C at the terminal is ours to pass on, in order
            start_new_session=True,
        )  # fmt: skip

    async def _watch(
        self,
        process: asyncio.subprocess.Process,
        announced: asyncio.Task[Announcement | None],
        ended: asyncio.Task[int],
        stop: asyncio.Task[bool],
    ) -> tuple[str, float]:
        limit = self._options.ready_within
        await asyncio.wait({announced, ended, stop}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        said = announced.result() if announced.done() else None
        if said is None or stop.done() or ended.done():
            if not stop.done() and not ended.done():
                if announced.done():  # the pipe closed, which is usually the process ending
                    await asyncio.wait({ended, stop}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                if not stop.done() and not ended.done():
                    await self._end(process, ended, signal.SIGKILL)
                    return f"was not ready after {limit:g} s and has been stopped", 0.0
            if not ended.done():
                await self._end(process, ended, signal.SIGTERM)
            return _how(ended.result()), 0.0
        ready_at = self._clock.now()
        self.announcement = said
        self._was_ready = True
        if not self._decided.done():
            self._decided.set_result(said)
        self._enter(State.READY)
        unwell = await self._until_over(said, ended, stop)
        ready_for = self._clock.now() - ready_at
        self.announcement = None
        if not ended.done():
            await self._end(process, ended, signal.SIGKILL if unwell else signal.SIGTERM)
        return (f"did not answer {unwell} checks in a row" if unwell else _how(ended.result())), ready_for

    async def _until_over(self, said: Announcement, ended: asyncio.Task[int], stop: asyncio.Task[bool]) -> int:
        """Returns when the child ended or shall end: 0, or the number of failed checks that were too many."""
        unwell = 0
        while True:
            every = self._options.check_every if self._well is not None else None
            done, _ = await asyncio.wait({ended, stop}, timeout=every, return_when=asyncio.FIRST_COMPLETED)
            if done or self._well is None:
                return 0
            unwell = 0 if await self._well(said) else unwell + 1
            if unwell >= self._options.unwell_after and not ended.done() and not stop.done():
                return unwell

    async def _end(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int], by: signal.Signals) -> None:
        if by is not signal.SIGKILL and not self._kill_asked.is_set():
            process.send_signal(by)
            async with asyncio.TaskGroup() as group:
                kill = group.create_task(self._kill_asked.wait())
                grace = self._options.stop_grace
                await asyncio.wait({ended, kill}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
                kill.cancel()
            if not ended.done() and not self._kill_asked.is_set():
                self._tell(f"{self.name}: still there {grace:g} s after SIGTERM; killing it.")
        if not ended.done():
            _signal_group(process, signal.SIGKILL)
            await asyncio.wait({ended})

    async def _relay(self, output: asyncio.StreamReader | None) -> None:
        """Lines of the child, each bounded; a line without end is passed on in pieces."""
        if output is None:
            return
        rest = b""
        while chunk := await output.read(CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE:
                lines.append(rest)
                rest = b""
            for line in lines:
                self._say(line)
        if rest:
            self._say(rest)

    def _say(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if len(text) > MAX_LINE:
            text = f"{text[:MAX_LINE]}... ({len(text) - MAX_LINE} more characters)"
        self._last_lines.append(text)
        if self._was_ready or self._decided.done():
            self._tell(f"{self.name}: {text}")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def _read_announcement(descriptor: int) -> Announcement | None:
    """None when the pipe is closed before a whole line, or the line is something else. Closes `descriptor`."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_ANNOUNCEMENT)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        line = await reader.readuntil(b"\n")
        return msgspec.json.decode(line, type=Announcement)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, msgspec.DecodeError):
        return None
    finally:
        transport.close()


def _signal_group(process: asyncio.subprocess.Process, by: signal.Signals) -> None:
    """To the child and what it started. It is not reaped yet, so its id cannot be somebody else's."""
    try:
        os.killpg(process.pid, by)
    except ProcessLookupError:
        process.send_signal(by)  # between fork and setsid; asyncio ignores one that has ended


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (often: out of memory)" if -code == signal.SIGKILL else "")
