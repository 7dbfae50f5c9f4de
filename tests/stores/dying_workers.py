"""Workers that share counters and die or stop at the worst moments: run by test_counters_shared.py, as a process of its
own because it forks. A failed assertion is its exit status.
"""

import dis
import os
import signal
import sys
from functools import cache
from itertools import count
from pathlib import Path
from random import Random

from penstock.core.clock import ManualClock, SystemClock
from penstock.limits.charges import Charge, Granted, Kind
from penstock.stores.base import CountersUnavailable
from penstock.stores.counters_shared import SharedCounters

RATE = Charge("web requests|60s", Kind.RATE, 1000, 10, 60)
SLOTS = Charge("web slots", Kind.GAUGE, 40, 1)
MONEY = Charge("team money|2026-11", Kind.BUDGET, 100_000_000, 900, 86_400)
_worlds = count()
CHARGES = (RATE, SLOTS, MONEY)
NEW = (Charge("new|60s", Kind.RATE, 1000, 10, 60), *CHARGES)


def now(verb):
    """The result of a verb that never suspends."""
    try:
        verb.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it suspends")


def opened(path, clock, **options):
    return SharedCounters(path, clock, most=200, **options)


def fork(child):
    """Runs `child` in a process that ends with it."""
    pid = os.fork()
    if pid:
        return pid
    try:
        child()
    except BaseException as error:  # noqa: BLE001  told by the status
        sys.stderr.write(f"{error!r}\n")
        os._exit(70)
    os._exit(0)


def ended(pid):
    """By which signal, 0 for none."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, f"a worker failed: {os.WEXITSTATUS(status)}"
    return 0


# --- after every single write -----------------------------------------------------------------------------------------


@cache
def writes(code):
    """Where, in this code, something is written to a place in something."""
    return frozenset(one.offset for one in dis.get_instructions(code) if one.opname == "STORE_SUBSCR")


def die_before_write(number):
    """From now on: instead of the write with this number, the process is killed."""
    left = number

    def step(frame, event, _):
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in writes(frame.f_code):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return step

    sys.settrace(step)


def reserve(holder):
    return lambda: now(holder.reserve("a", CHARGES))


def reserve_on_something_new(holder):
    return lambda: now(holder.reserve("a", NEW))


def settle(holder):
    granted = now(holder.reserve("a", CHARGES))
    return lambda: holder.settle(granted, (4, 1, 300))


def settle_what_was_let_go(holder):
    holder = opened(holder._slots._path, holder._slots._clock, hold=1)
    granted = now(holder.reserve("a", CHARGES))
    holder._slots._clock.advance(2)
    now(opened(holder._slots._path, holder._slots._clock).tend())
    return lambda: holder.settle(granted, (4, 1, 300))


def spend(holder):
    return lambda: holder.spend("a", (*CHARGES, NEW[0]))


def seed(holder):
    return lambda: now(holder.seed("other money", 77, 86_400))


def tend(holder):
    """There are both to forget and to let go: the rate and what a dead holder had."""
    assert ended(fork(lambda: now(opened(holder._slots._path, holder._slots._clock).reserve("dead", NEW)))) == 0
    holder._slots._clock.advance(59)
    now(holder.reserve("a", CHARGES))
    return lambda: now(holder.tend())


VERBS = (reserve, reserve_on_something_new, settle, settle_what_was_let_go, spend, seed, tend)


def interrupted(folder):
    """Whatever a worker was doing: it has done all of it or nothing, and what it held comes back."""
    for verb in VERBS:
        # what the others may see: before, and after
        expected = [seen_after(folder, verb, number)[0] for number in (1, None)]
        number = 0
        while True:
            number += 1
            seen, at_last, finished = seen_after(folder, verb, number)
            if finished:
                break
            # `tend` is many changes, one after the other; each of the others is one
            assert seen in expected or verb is tend, f"{verb.__name__}, write {number}: {seen}, not {expected}"
            assert at_last[1] == 2, f"{verb.__name__}, write {number}: {at_last}"
        assert number > 8, f"{verb.__name__}: only {number} writes"
        sys.stdout.write(f"{verb.__name__}: {number} moments\n")


def seen_after(folder, verb, number):
    """What another sees after this one has died, and when it has tended; and whether this one has lived on."""
    path, clock = folder / str(next(_worlds)), ManualClock(1_000_000.0)
    other = opened(path, clock)
    now(other.seed(MONEY.counter, 5000, 86_400))
    mine = now(other.reserve("mine", (RATE, Charge(SLOTS.counter, Kind.GAUGE, 40, 2), MONEY)))

    def worker():
        act = verb(opened(path, ManualClock(1_000_000.0)))
        if number is not None:
            die_before_write(number)
        act()
        os._exit(0)

    how = ended(fork(worker))
    assert how in (0, signal.SIGKILL), how
    other.check()
    looked_at = (*NEW, Charge("other money", Kind.BUDGET, 1000, 0, 60))
    seen = now(other.used(looked_at))
    now(other.tend())
    other.check()
    after = now(other.used(CHARGES))
    settled = after[2] - MONEY.cost - 5000
    assert settled in (0, 300, 900), f"{verb.__name__}, write {number}: {settled} nanos"
    granted = now(other.reserve("more", CHARGES))
    assert granted.used[1:] == (after[1] + 1, after[2] + 900)
    other.settle(granted, (0, 1, 0))
    other.settle(mine, (10, 2, 900))
    other.check()
    assert now(other.used(CHARGES))[1:] == (0, 5000 + settled + 900)
    now(other.close())
    return seen, after, how == 0


# --- at random moments ------------------------------------------------------------------------------------------------

COST = 7  # what every request really costs
LOAD = (Charge("load|60s", Kind.RATE, 10**9, 10, 60), SLOTS, MONEY)
KILLS = 200
WORKERS = 4


def serve(path, told, seed):
    """A worker under load. It says so after each settlement."""
    rng, open_ = Random(seed), []
    holder = patiently(lambda: opened(path, SystemClock()))
    for n in count():
        verdict = patiently(lambda: now(holder.reserve(f"{os.getpid()}-{n}", LOAD)))  # noqa: B023  called at once
        if type(verdict) is Granted:
            open_.append(verdict)
        if len(open_) > rng.randrange(12):
            holder.settle(open_.pop(rng.randrange(len(open_))), (rng.randrange(20), 1, COST))
            if not holder.pending:
                os.write(told, b".")
        if rng.random() < 0.01:
            patiently(lambda: now(holder.tend()))


def patiently(verb):
    """Where nothing else runs, nobody waits for 50 ms."""
    while True:
        try:
            return verb()
        except CountersUnavailable:
            continue


def start(path, rng):
    listen, told = os.pipe()
    seed = rng.random()

    def child():
        os.close(listen)
        serve(path, told, seed)

    pid = fork(child)
    os.close(told)
    return pid, listen


def kill(worker, rng):
    """After some more settlements. How many it had told of that nobody had read."""
    pid, listen = worker
    n = len(os.read(listen, rng.randrange(1, 400)))
    os.kill(pid, signal.SIGKILL)
    while more := os.read(listen, 65_536):
        n += len(more)
    os.close(listen)
    assert ended(pid) == signal.SIGKILL
    return n


def killed(folder, seed):
    """Nothing is torn, lost or held for ever, and no limit exceeded, when workers are killed at random under load."""
    rng, path, told = Random(seed), folder / "counters", 0
    watcher = opened(path, SystemClock())
    now(watcher.seed(MONEY.counter, 0, 86_400))
    workers = [start(path, rng) for _ in range(WORKERS)]
    for n in range(KILLS):
        which = rng.randrange(WORKERS)
        told += kill(workers[which], rng)
        workers[which] = start(path, rng)
        _, slots, money = patiently(lambda: now(watcher.used(LOAD)))
        assert slots <= SLOTS.limit and money <= MONEY.limit
        if n % 10 == 0:
            patiently(watcher.check)
    told += sum([kill(worker, rng) for worker in workers])
    now(watcher.tend())
    watcher.check()
    _, slots, money = now(watcher.used(LOAD))
    assert slots == 0
    # who is killed may have settled without having said so
    assert told * COST <= money <= (told + KILLS + WORKERS) * COST, f"{told} settled, {money} counted"
    assert watcher.slots[0] <= 3  # a rate, a budget, perhaps a gauge: no reservation is left
    sys.stdout.write(f"{told} settlements, {KILLS} killed\n")


# --- stopped ----------------------------------------------------------------------------------------------------------


def stopped(folder):
    """Who is stopped inside the lock makes the others wait 50 ms, once; what they settle meanwhile is not lost."""
    path, clock = folder / "counters", SystemClock()
    other = opened(path, clock)
    now(other.seed(MONEY.counter, 0, 86_400))
    granted = now(other.reserve("a", CHARGES))

    def worker():
        holder = opened(path, clock)
        holder._slots.lock()
        os.kill(os.getpid(), signal.SIGSTOP)

    pid = fork(worker)
    os.waitpid(pid, os.WUNTRACED)
    began = clock.now()
    for n in range(20):
        try:
            now(other.reserve(f"b{n}", CHARGES))
        except CountersUnavailable:
            continue
        raise AssertionError("reserved without the lock")
    assert clock.now() - began < 2  # 0.05 when nothing else runs
    other.settle(granted, (1, 1, 40))
    assert other.pending == 1
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == signal.SIGKILL
    now(other.reserve("c", CHARGES))
    assert other.pending == 0
    assert now(other.used(CHARGES))[1:] == (1, 940)
    other.check()


def main():
    story, folder, *arguments = sys.argv[1:]
    {"interrupted": interrupted, "killed": killed, "stopped": stopped}[story](Path(folder), *arguments)


if __name__ == "__main__":
    main()
