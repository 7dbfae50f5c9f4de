"""Processes on their own cores, and what /proc says they cost. Linux only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

GATEWAY_CORE, LOAD_CORE = 0, 1
TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


class Unusable(Exception):
    """This machine, or something that should run on it, cannot be measured; the message says why."""


class Child:
    """A process pinned to one core, in a session of its own, so that all of it can be ended."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        core: int,
        log: Path | None = None,
        cwd: Path | None = None,
        environ: dict[str, str] | None = None,
        nice: int = 0,
    ) -> None:
        def pin() -> None:
            os.sched_setaffinity(0, {core})
            if nice:
                os.setpriority(os.PRIO_PROCESS, 0, nice)

        self.log = log
        self.started_at = time.monotonic()
        output = log.open("wb") if log else subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
                preexec_fn=pin,
            )
        finally:
            if log:
                output.close()  # type: ignore[union-attr]

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str:
        """The end of what it said, for the person who must find out why it failed."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        """Ask it to stop, then insist, its children too."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            if number is signal.SIGTERM:
                time.sleep(0.1)
        self.process.wait()


def tree(root: int) -> list[int]:
    """The process and all its living descendants."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the whole tree so far, children that ended included. In steps of 10 ms."""
    total = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields:
            total += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return total * TICK


def waits(root: int) -> dict[int, float]:
    """By thread of the tree: seconds in which it was ready to run and had no core, because somebody else had it.

    The measure of how disturbed a run was. CPU time does not show it, but caches that neighbours empty cost CPU time.
    """
    found: dict[int, float] = {}
    for pid in tree(root):
        with contextlib.suppress(OSError):  # it has ended, or the kernel keeps no scheduler statistics
            for thread in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text()
                found[int(thread)] = int(text.split()[1]) / 1e9
    return found


def waited_seconds(root: int, before: dict[int, float]) -> float:
    """What the thread that waited most has waited since `before`."""
    return max((total - before.get(thread, 0.0) for thread, total in waits(root).items()), default=0.0)


def rss_bytes(root: int) -> int:
    """Resident memory of the whole tree; pages that processes share are counted for each."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return total


def open_sockets(root: int) -> int:
    """Sockets that the whole tree holds now."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for entry in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    total += os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:")
    return total


def free_ports(n: int) -> int:
    """The first of `n` ports in a row that nobody listens on, below the range that connections take theirs from."""
    first = 21_000
    while first + n < 32_000:
        for port in range(first, first + n):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    first = port + 1
                    break
        else:
            return first
    raise Unusable(f"there are no {n} free ports in a row between 21000 and 32000")


def check() -> None:
    """Raises `Unusable` when nothing here could be measured."""
    if not Path("/proc/self/stat").exists():
        raise Unusable("this needs Linux: CPU time is read from /proc")
    if not {GATEWAY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise Unusable(
            f"this needs cores {GATEWAY_CORE} and {LOAD_CORE}: one for the gateway, one for those it talks to"
        )
    if shutil.which("gcc") is None:
        raise Unusable("gcc is missing; the mock upstream and the load generator are C (Debian: apt-get install gcc)")


def compile_c(source: Path, target: Path) -> None:
    if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-std=gnu11", "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unusable(f"{source.name} does not compile:\n{done.stderr}")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name, which may hold spaces and brackets; None: it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()
