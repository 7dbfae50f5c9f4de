"""Children are real Python processes; what a test waits for is an event, never a time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from penstock.core.clock import ManualClock, SystemClock
from penstock.platforms import bound
from penstock.platforms.processes import MAX_LINE, Announcement, Child, ProcessOptions, StartFailed, State

pytestmark = pytest.mark.journey

AT_ONCE = ProcessOptions(ready_within=30.0, stop_grace=30.0, backoff_base=0.0, give_up_after=3)
READY = "import os, signal, sys; fd = int(sys.argv[1]); os.write(fd, b'{\"port\": 7}\\n'); os.close(fd)\n"
WAITS = READY + "signal.pause()"


class Watched:
    """A child, what it told, and a way to wait for its next state."""

    def __init__(self, program: str, *, options: ProcessOptions = AT_ONCE, clock: Any = None, **more: Any) -> None:
        self.told: list[str] = []
        self.states: asyncio.Queue[State] = asyncio.Queue()
        self.said = asyncio.Event()
        self.child = Child(
            "engine local/0",
            lambda fd: (sys.executable, "-c", textwrap.dedent(program), str(fd)),
            clock=clock or SystemClock(),
            rng=Random(1),
            tell=self.tell,
            options=options,
            on_change=lambda child: self.states.put_nowait(child.state),
            **more,
        )

    def tell(self, line: str) -> None:
        self.told.append(line)
        self.said.set()

    async def until(self, state: State) -> None:
        while await self.states.get() is not state:
            continue

    async def until_told(self, part: str) -> str:
        while not (found := [line for line in self.told if part in line]):
            self.said.clear()
            await self.said.wait()
        return found[0]


async def running(test: Callable[[asyncio.TaskGroup], Any]) -> None:
    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        await test(group)


def run(test: Callable[[asyncio.TaskGroup], Any]) -> None:
    with asyncio.Runner() as runner:
        runner.run(running(test))


def alive(pid: int) -> bool:
    """Not a zombie either."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_is_ready_when_it_says_so_and_ends_when_told():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched(WAITS)
        run = group.create_task(watched.child.run())
        assert await watched.child.started() == Announcement(port=7)
        pid = watched.child.pid
        assert pid is not None
        assert watched.child.state is State.READY
        watched.child.stop()
        await run
        assert watched.child.state is State.STOPPED
        assert not alive(pid)
        assert watched.told == []

    run(story)


def test_a_child_that_ends_is_started_again_under_the_same_name():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched(WAITS)
        group.create_task(watched.child.run())
        await watched.child.started()
        first = watched.child.pid
        assert first is not None
        await watched.until(State.READY)
        os.kill(first, signal.SIGKILL)
        await watched.until(State.READY)
        assert watched.child.pid not in (None, first)
        assert watched.child.starts == 2
        told = await watched.until_told("Starting it again")
        assert told.startswith("engine local/0: was killed by SIGKILL")
        watched.child.stop()

    run(story)


def test_a_child_that_never_starts_shows_its_last_words_and_is_not_tried_again():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched("import sys; print('no such model'); sys.exit('try `tiny`')")
        run = group.create_task(watched.child.run())
        with pytest.raises(StartFailed) as caught:
            await watched.child.started()
        await run
        text = str(caught.value)
        assert text.startswith("engine local/0 did not start: it ended with exit code 1.")
        assert "  no such model" in text
        assert "  try `tiny`" in text
        assert (watched.child.state, watched.child.starts) == (State.FAILED, 1)

    run(story)


def test_a_program_that_is_not_there_is_told_in_words():
    async def story(group: asyncio.TaskGroup) -> None:
        child = Child(
            "engine x",
            lambda fd: ("/nowhere/at/all",),
            clock=ManualClock(),
            rng=Random(1),
            tell=[].append,
            options=AT_ONCE,
        )
        group.create_task(child.run())
        with pytest.raises(StartFailed, match="cannot run /nowhere/at/all: No such file"):
            await child.started()

    run(story)


def test_a_silent_child_is_stopped_when_its_time_is_up():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched("import signal; signal.pause()", options=ProcessOptions(ready_within=0.0))
        run = group.create_task(watched.child.run())
        with pytest.raises(StartFailed, match="was not ready after 0 s and has been stopped"):
            await watched.child.started()
        await run

    run(story)


def test_a_child_that_announces_nonsense_is_not_ready():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched("import os, sys; os.write(int(sys.argv[1]), b'hello\\n')")
        group.create_task(watched.child.run())
        with pytest.raises(StartFailed, match="exit code 0"):
            await watched.child.started()

    run(story)


def test_a_child_that_fails_again_and_again_is_given_up_loudly():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched(READY + "sys.exit(3)")
        await asyncio.wait_for(watched.child.run(), 30)
        assert (watched.child.state, watched.child.starts) == (State.FAILED, 3)
        assert "That was failure 3 in a row: it is not started again. Fix the cause" in watched.told[-1]

    run(story)


def test_failures_far_apart_are_not_in_a_row():
    async def story(group: asyncio.TaskGroup) -> None:
        clock = ManualClock()
        watched = Watched(WAITS, clock=clock)
        group.create_task(watched.child.run())
        for _ in range(5):
            await watched.until(State.READY)
            clock.advance(AT_ONCE.steady_after)
            assert watched.child.pid is not None
            os.kill(watched.child.pid, signal.SIGKILL)
        await watched.until(State.READY)
        watched.child.stop()

    run(story)


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched(
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "while True: signal.pause()",
            options=ProcessOptions(stop_grace=0.05),
        )
        run = group.create_task(watched.child.run())
        await watched.child.started()
        watched.child.stop()
        await run
        assert watched.told == ["engine local/0: still there 0.05 s after SIGTERM; killing it."]

    run(story)


def test_kill_does_not_wait_for_the_grace():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched(
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "while True: signal.pause()"
        )
        run = group.create_task(watched.child.run())
        await watched.child.started()
        watched.child.stop()
        await asyncio.sleep(0)
        watched.child.kill()
        await run
        assert watched.child.state is State.STOPPED

    run(story)


def test_cancelling_leaves_no_process_behind():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched(WAITS)
        run = group.create_task(watched.child.run())
        await watched.child.started()
        pid = watched.child.pid
        assert pid is not None
        run.cancel()
        await asyncio.wait({run})
        assert not alive(pid)

    run(story)


def test_a_child_that_fails_its_checks_is_killed_and_started_again():
    async def story(group: asyncio.TaskGroup) -> None:
        answers = [False, True, False, False, True]
        asked: list[Announcement] = []

        async def well(said: Announcement) -> bool:
            asked.append(said)
            return answers.pop(0) if answers else True

        watched = Watched(WAITS, options=ProcessOptions(check_every=0.0, unwell_after=2, backoff_base=0.0), well=well)
        group.create_task(watched.child.run())
        await watched.until_told("did not answer 2 checks in a row. Starting it again")
        await watched.until(State.WAITING)
        await watched.until(State.READY)
        assert asked[0].port == 7
        watched.child.stop()

    run(story)


def test_what_a_child_writes_is_named_and_bounded():
    async def story(group: asyncio.TaskGroup) -> None:
        watched = Watched(READY + "print('x' * 100_000, flush=True); print('done', file=sys.stderr); signal.pause()")
        group.create_task(watched.child.run())
        assert await watched.until_told("done") == "engine local/0: done"
        assert max(map(len, watched.told)) < MAX_LINE + 100
        watched.child.stop()

    run(story)


def test_a_child_dies_with_its_parent():
    """The parent has no chance to clean up; that its child's pipe comes to an end proves that the child is gone."""
    child = "import signal; print('here', flush=True); signal.pause()"
    argv = f"[sys.executable, '-I', '-S', {bound.__file__!r}, str(os.getpid()), sys.executable, '-c', {child!r}]"
    parent = f"import os, signal, subprocess, sys; subprocess.Popen({argv}); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.kill()
        assert process.stdout.read() == "", "the end of the pipe means that nobody holds it any more"


def test_a_child_whose_parent_is_already_gone_does_not_run():
    done = subprocess.run(
        [sys.executable, "-I", "-S", bound.__file__, "1", sys.executable, "-c", "print('ran')"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
