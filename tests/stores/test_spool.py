"""What the spool took comes out again, in order, whatever happened to the process or the disk in between."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.stores.base import StoreFailed
from penstock.stores.spool import Spool, SpoolTaken


def drained(spool, most=3):
    """Everything that waits, acknowledged; in batches, each of which says where it ends."""
    found = []
    while spool.waiting:
        batch = spool.read(most)
        assert len(batch.records) <= most
        found += batch.records
        spool.acknowledge(batch)
    return found


def segments(folder):
    return sorted(folder.glob("*.spool"))


def filled(folder, n=5, **options):
    spool = Spool(folder, **options)
    for number in range(n):
        assert spool.append(b"record %d" % number)
    spool.close()
    return [b"record %d" % number for number in range(n)]


def test_records_come_out_in_order_and_stay_until_they_are_acknowledged(tmp_path):
    spool = Spool(tmp_path)
    assert spool.read(10).records == []
    for number in range(5):
        assert spool.append(b"%d" % number)
    assert spool.read(3).records == spool.read(3).records == [b"0", b"1", b"2"]
    assert spool.waiting == 5
    spool.acknowledge(spool.read(3))
    assert spool.waiting == 2
    assert spool.append(b"5")
    assert drained(spool) == [b"3", b"4", b"5"]
    assert spool.read(10).records == []
    spool.acknowledge(spool.read(10))
    spool.close()
    spool.close()


def test_the_next_process_goes_on_where_this_one_was(tmp_path):
    spool = Spool(tmp_path, segment_bytes=60)
    for number in range(20):
        spool.append(b"record %02d" % number)
    spool.acknowledge(spool.read(2))
    spool.acknowledge(spool.read(1))
    spool.close()
    spool = Spool(tmp_path, segment_bytes=60)
    assert spool.waiting == 17
    assert spool.append(b"another")
    assert drained(spool) == [b"record %02d" % number for number in range(3, 20)] + [b"another"]
    spool.close()
    assert segments(tmp_path) == []
    assert Spool(tmp_path).waiting == 0


def test_segments_are_deleted_as_they_are_acknowledged(tmp_path):
    spool = Spool(tmp_path, segment_bytes=100)
    for number in range(30):
        spool.append(b"record %02d" % number)
    many = len(segments(tmp_path))
    assert many > 5
    for _ in range(10):
        spool.acknowledge(spool.read(2))
    assert len(segments(tmp_path)) < many - 3
    drained(spool)
    assert len(segments(tmp_path)) == 1  # it is being appended to


def test_a_full_spool_takes_no_more_until_something_is_acknowledged(tmp_path):
    spool = Spool(tmp_path, max_bytes=300, segment_bytes=100)
    took = [spool.append(b"%020d" % number) for number in range(20)]
    n = took.index(False)
    assert 5 < n < 15
    assert not any(took[n:])
    assert (spool.waiting, spool.refused) == (n, 20 - n)
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 300
    assert drained(spool) == [b"%020d" % number for number in range(n)]
    assert spool.append(b"%020d" % 99)
    assert drained(spool) == [b"%020d" % 99]


def test_a_second_process_cannot_have_it_and_claims_another(tmp_path):
    first = Spool.claim(tmp_path)
    with pytest.raises(SpoolTaken, match="another process"):
        Spool(tmp_path / "0")
    second = Spool.claim(tmp_path)
    second.append(b"mine")
    assert {path.parent.name for path in tmp_path.glob("*/lock")} == {"0", "1"}
    assert Spool.left_behind(tmp_path) == []
    second.close()
    (left,) = Spool.left_behind(tmp_path)
    assert left.read(5).records == [b"mine"]
    with pytest.raises(SpoolTaken):
        Spool(tmp_path / "1")
    left.close()
    first.close()


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreFailed, match="cannot be used as a spool"):
        Spool(tmp_path / "file")


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_torn_last_record_is_found_and_cut_and_the_others_are_whole(tmp_path, cut):
    records = filled(tmp_path)
    (segment,) = segments(tmp_path)
    os.truncate(segment, segment.stat().st_size - cut)
    spool = Spool(tmp_path)
    assert spool.torn_bytes == 16 - cut
    assert spool.append(b"after the crash")
    assert drained(spool) == [*records[:-1], b"after the crash"]


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff" * 4096, b"\0" * 5, b"\x05\0\0\0\0\0\0\0hello"])
def test_what_a_loss_of_power_leaves_at_the_end_of_a_file_is_no_record(tmp_path, tail):
    records = filled(tmp_path)
    (segment,) = segments(tmp_path)
    with segment.open("ab") as file:
        file.write(tail)
    spool = Spool(tmp_path)
    assert spool.torn_bytes == len(tail)
    assert drained(spool) == records


@pytest.mark.parametrize("content", [b"", b"pens", b"something else entirely"])
def test_a_segment_that_was_hardly_begun_is_passed_over(tmp_path, content):
    records = filled(tmp_path)
    (segment,) = segments(tmp_path)
    segment.with_name(f"{int(segment.stem, 16) + 1:016x}.spool").write_bytes(content)
    spool = Spool(tmp_path)
    spool.append(b"next")
    assert drained(spool) == [*records, b"next"]


@pytest.mark.parametrize("cursor", [b"", b"short", b"\xff" * 20])
def test_without_a_cursor_that_can_be_read_everything_comes_again(tmp_path, cursor):
    spool = Spool(tmp_path)
    for number in range(5):
        spool.append(b"record %d" % number)
    spool.acknowledge(spool.read(3))
    spool.close()
    (tmp_path / "cursor").write_bytes(cursor)
    assert drained(Spool(tmp_path)) == [b"record %d" % number for number in range(5)]


def test_a_cursor_behind_the_end_of_what_power_left_loses_nothing_that_comes_later(tmp_path):
    spool = Spool(tmp_path)
    for number in range(5):
        spool.append(b"record %d" % number)
    spool.acknowledge(spool.read(4))
    spool.close()
    (segment,) = segments(tmp_path)
    os.truncate(segment, 40)
    spool = Spool(tmp_path)
    spool.append(b"later")
    assert drained(spool) == [b"later"]


def test_a_record_that_the_disk_has_changed_is_passed_over_and_told_while_running(tmp_path):
    spool = Spool(tmp_path, segment_bytes=100)
    for number in range(12):
        spool.append(b"record %02d" % number)
    first, second, *_ = segments(tmp_path)
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    in_first = (len(data) - 17) // 17
    found = drained(spool)
    assert found == [b"record %02d" % number for number in range(12) if number != in_first - 1]
    assert spool.torn_bytes == 17
    assert second.exists() is False


def test_a_disk_that_is_full_refuses_and_what_came_before_and_after_is_whole(tmp_path):
    """A limit on the size of files stands for the disk; a process of its own, for the limit stays."""
    code = f"""
import resource, signal, sys
from pathlib import Path
from penstock.stores.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path({str(tmp_path)!r}))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
took = [spool.append(b"record %02d" % n) for n in range(8)]
assert took[:4] == [True] * 4, took
assert took[4] is False and spool.refused >= 1, took  # torn: 17 + 4 * 18 = 89 bytes, and 11 of the fifth
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert spool.append(b"afterwards")
left = []
while spool.waiting:
    batch = spool.read(2)
    left += batch.records
    spool.acknowledge(batch)
assert left == [b"record %02d" % n for n in range(8) if took[n]] + [b"afterwards"], left
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr


def test_sync_reaches_the_segments_that_are_no_longer_appended_to(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), real(file)))
    spool = Spool(tmp_path, segment_bytes=60)
    for number in range(8):
        spool.append(b"record %02d" % number)
    spool.sync()
    assert synced == [*map(str, segments(tmp_path)), str(tmp_path)]
    synced.clear()
    spool.append(b"one more")
    drained(spool)
    spool.sync()
    assert synced == [str(segments(tmp_path)[-1]), str(tmp_path)]
    spool.close()


WRITER = """
import sys
from pathlib import Path
from penstock.stores.spool import Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=5000)
for number in range(int(sys.argv[2]), 10**9):
    assert spool.append(b"%d " % number + b"x" * (number % 300))
    print("took", number, flush=True)
    if number % 4 == 0:
        batch = spool.read(5)
        print("gave", *(int(record.split()[0]) for record in batch.records), flush=True)
        spool.acknowledge(batch)
"""


@pytest.mark.timeout(120)  # twenty processes, one after another
def test_what_was_taken_survives_kill_9_at_any_moment(tmp_path, rng):
    """Whoever was told that a record is taken finds it in the next process, unless it was given; nothing is torn."""
    folder, begin = tmp_path / "spool", 0
    took, gave = set(), set()
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(begin)], stdout=subprocess.PIPE, text=True
        ) as writer:
            told = [writer.stdout.readline() for _ in range(rng.randrange(1, 400))]
            writer.send_signal(signal.SIGKILL)
            told += writer.stdout.readlines()
        for line in told:
            if line.endswith("\n"):
                word, *numbers = line.split()
                (took if word == "took" else gave).update(map(int, numbers))
        found = [int(record.split()[0]) for record in content(folder)]
        assert took - gave <= set(found)
        assert not found or found == list(range(found[0], found[-1] + 1))
        begin = max([*took, *found]) + 1
    assert len(gave) > 500


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(1, 200) | st.sampled_from(["read", "reopen", "crash", "torn"]), max_size=80),
    most=st.integers(1, 9),
)
def test_whatever_happens_every_record_comes_out_once_and_in_order(tmp_path_factory, steps, most):
    """A number appends a record of that size; a crash leaves the files as they are; torn, without their last byte."""
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, segment_bytes=400)
    waiting = []
    for number, step in enumerate(steps):
        if step == "read":
            batch = spool.read(most)
            assert batch.records == waiting[: len(batch.records)]
            assert bool(batch.records) == bool(waiting)
            spool.acknowledge(batch)
            del waiting[: len(batch.records)]
        elif step == "reopen":
            spool.close()
            spool = Spool(folder, segment_bytes=400)
        elif isinstance(step, str):
            folder = Path(shutil.copytree(folder, tmp_path_factory.mktemp("crashed"), dirs_exist_ok=True))
            spool.close()
            if step == "torn" and waiting:
                waiting.pop()
                last = segments(folder)[-1]
                os.truncate(last, last.stat().st_size - 1)
            spool = Spool(folder, segment_bytes=400)
        else:
            record = b"%d:" % number + b"x" * step
            assert spool.append(record)
            waiting.append(record)
        assert spool.waiting == len(waiting)
    assert drained(spool, most) == waiting
    spool.close()


def content(folder):
    """What the next process would find; looked at in a copy."""
    with tempfile.TemporaryDirectory() as copy:
        spool = Spool(Path(shutil.copytree(folder, copy, dirs_exist_ok=True)))
        found = drained(spool)
        spool.close()
        return found


def test_what_waits_in_spools_can_be_read_while_others_have_them(tmp_path):
    mine, theirs = Spool.claim(tmp_path), Spool.claim(tmp_path)
    for n in range(3):
        assert mine.append(b"mine %d" % n)
        assert theirs.append(b"theirs %d" % n)
    mine.acknowledge(mine.read(2))
    assert [one for some in Spool.waiting_under(tmp_path) for one in some] == [
        b"mine 2",
        b"theirs 0",
        b"theirs 1",
        b"theirs 2",
    ]
    theirs.acknowledge(theirs.read(10))
    theirs.close()
    assert [one for some in Spool.waiting_under(tmp_path) for one in some] == [b"mine 2"]
    assert mine.waiting == 1
