"""Writes the access log beside the event loop: a pipe that nobody reads, or a slow disk, must not stop requests."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from queue import Full, Queue
from typing import Final

from penstock.app.errors import StartError

MAX_BATCHES: Final = 16  # handed over and not written yet; the log itself keeps, and at last drops, what comes after
CLOSE_WITHIN: Final = 2.0  # seconds

_END: Final = None


class LogWriter:
    """A thread that writes whole batches of lines to `stderr`, `stdout` or a file that is appended to.

    `tell` gets one line when writing begins to fail; batches that could not be written are lost.
    """

    def __init__(self, place: str, tell: Callable[[str], None]) -> None:
        """Raises `StartError` when the file cannot be opened."""
        self._place, self._tell = place, tell
        self._batches: Queue[bytes | None] = Queue(MAX_BATCHES)
        self._failing = False
        self._reopen = False
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise StartError(
                f"The access log {place} cannot be opened: {error.strerror}. "
                "Change server.access_log: stderr, stdout, off, or a file in a directory that exists."
            ) from None
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, batch: bytes) -> None:
        """Hand over whole lines. Raises `BlockingIOError` when too much waits already."""
        try:
            self._batches.put_nowait(batch)
        except Full:
            raise BlockingIOError("the access log cannot be written as fast as requests end") from None

    def reopen(self) -> None:
        """Open the file again before the next batch: it has been moved away."""
        self._reopen = True

    def close(self) -> None:
        """Write what waits, for a short while at most."""
        try:
            self._batches.put(_END, timeout=CLOSE_WITHIN)
        except Full:
            return  # whoever reads the pipe does not; the thread ends with the process
        self._thread.join(CLOSE_WITHIN)

    def _open(self) -> int:
        if self._place in ("stderr", "stdout"):
            return (sys.stderr if self._place == "stderr" else sys.stdout).fileno()
        return os.open(self._place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not _END:
            try:
                if self._reopen:
                    self._reopen = False
                    self._open_again()
                rest = memoryview(batch)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                self._failing = False
            except OSError as error:
                if not self._failing:
                    self._failing = True
                    self._tell(
                        f"The access log {self._place} cannot be written: {error.strerror}. Lines are being lost."
                    )

    def _open_again(self) -> None:
        if self._place not in ("stderr", "stdout"):
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh
