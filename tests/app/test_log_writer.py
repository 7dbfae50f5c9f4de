"""The access log never stops the event loop, and never loses a line silently."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from penstock.app.errors import StartError
from penstock.app.log_writer import MAX_BATCHES, LogWriter


def test_lines_are_in_the_file_in_order_when_it_is_closed(tmp_path: Path):
    path = tmp_path / "access.log"
    path.write_text("before\n")
    writer = LogWriter(str(path), [].append)
    for i in range(5):
        writer.write(b"line %d\n" % i)
    writer.close()
    assert path.read_text() == "before\n" + "".join(f"line {i}\n" for i in range(5))


def fits(writer: LogWriter, batch: bytes) -> bool:
    try:
        writer.write(batch)
    except BlockingIOError:
        return False
    return True


def test_a_reader_that_does_not_read_makes_write_refuse_and_not_wait(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = LogWriter(str(pipe), [].append)
    big = b"x" * 1_000_000 + b"\n"
    taken = 0
    while fits(writer, big):
        taken += 1
    assert taken <= MAX_BATCHES + 1, "what waits is bounded"
    os.set_blocking(reading, True)
    closing = threading.Thread(target=writer.close)
    closing.start()
    got = 0
    while got < taken * len(big):
        got += len(os.read(reading, 1 << 20))
    closing.join()
    os.close(reading)
    assert got == taken * len(big), "what was taken is written whole"


def test_a_moved_file_is_made_anew_when_asked(tmp_path: Path):
    path = tmp_path / "access.log"
    writer = LogWriter(str(path), [].append)
    path.rename(tmp_path / "access.log.1")
    writer.reopen()
    writer.write(b"after\n")
    writer.close()
    assert path.read_text() == "after\n"


def test_a_full_disk_is_told_once():
    told: list[str] = []
    writer = LogWriter("/dev/full", told.append)
    writer.write(b"one\n")
    writer.write(b"two\n")
    writer.close()
    assert told == ["The access log /dev/full cannot be written: No space left on device. Lines are being lost."]


def test_a_log_that_cannot_be_opened_stops_the_start_with_what_to_do(tmp_path: Path):
    with pytest.raises(StartError, match=r"cannot be opened: No such file or directory.*server\.access_log"):
        LogWriter(str(tmp_path / "none" / "access.log"), [].append)
