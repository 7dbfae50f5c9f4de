"""Time limits on the wheel, on a loop whose clock the test turns."""

import asyncio
import heapq
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from penstock.http.wheel import Wheel


class Loop:
    """As much of an event loop as the wheel needs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, int, Any]] = []
        self.n = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        self.n += 1
        handle = Handle(callback)
        heapq.heappush(self.timers, (when, self.n, handle))
        return handle

    def run_until(self, when: float) -> None:
        while self.timers and self.timers[0][0] <= when:
            at, _, handle = heapq.heappop(self.timers)
            self.now = max(self.now, at)
            if handle.callback is not None:
                handle.callback()
        self.now = when


class Handle:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Item:
    def __init__(self) -> None:
        self.deadline = inf
        self.due = inf
        self.expired_at: list[float] = []

    def expired(self, now: float) -> None:
        self.expired_at.append(now)


def world() -> tuple[Loop, Wheel]:
    loop = Loop()
    return loop, Wheel(cast("asyncio.AbstractEventLoop", loop), tick=0.25)


def set_limit(wheel: Wheel, item: Item, deadline: float) -> None:
    item.deadline = deadline
    if deadline < item.due:
        wheel.hasten(item)


def test_a_limit_that_moves_on_costs_no_timer_and_expires_at_the_end():
    loop, wheel = world()
    item = Item()
    set_limit(wheel, item, 1.0)
    timers = loop.n
    for i in range(100):
        set_limit(wheel, item, 1.0 + i / 100)
    assert loop.n == timers
    loop.run_until(1.9)
    assert not item.expired_at
    loop.run_until(3.0)
    assert len(item.expired_at) == 1
    assert len(wheel) == 0
    assert not loop.timers


def test_a_limit_can_be_hastened():
    loop, wheel = world()
    item = Item()
    set_limit(wheel, item, 100.0)
    set_limit(wheel, item, 1.0)
    loop.run_until(2.0)
    assert len(item.expired_at) == 1


def test_what_is_forgotten_does_not_expire_and_is_not_kept():
    loop, wheel = world()
    items = [Item() for _ in range(10)]
    for item in items:
        set_limit(wheel, item, 1.0)
    wheel.forget(items[0])
    assert len(wheel) == 9
    wheel.close()
    assert len(wheel) == 0
    loop.run_until(5.0)
    assert not any(item.expired_at for item in items)


def test_an_item_may_forget_another_or_itself_while_the_wheel_turns():
    loop, wheel = world()
    first, second = Item(), Item()

    def expired(item: Item, other: Item, now: float) -> None:
        item.expired_at.append(now)
        wheel.forget(other)

    for item, other in ((first, second), (second, first)):
        item.expired = partial(expired, item, other)  # type: ignore[method-assign]
        set_limit(wheel, item, 1.0)
    loop.run_until(2.0)
    assert len(first.expired_at) + len(second.expired_at) == 1


def test_a_wheel_that_turns_late_is_not_stopped_by_an_item_that_forgets_another():
    loop, wheel = world()
    first, second, third = Item(), Item(), Item()
    first.expired = lambda now: wheel.forget(second)  # type: ignore[method-assign]
    for item, deadline in ((first, 1.0), (second, 1.25), (third, 1.5)):
        set_limit(wheel, item, deadline)
    loop.now = 2.0
    loop.run_until(2.0)
    assert not second.expired_at
    assert third.expired_at == [2.0 + 0.001]


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.floats(0.01, 20), st.floats(0, 2), st.sampled_from(["set", "clear", "forget"])),
        max_size=60,
    )
)
# one that moves on when the wheel turns, to beyond another
@example([(0, 1.5, 0.0, "set"), (1, 2.0, 1.375, "set"), (0, 1.0, 1.0, "set")])
def test_every_limit_expires_once_never_early_and_at_most_a_tick_late(steps):
    loop, wheel = world()
    items = [Item() for _ in range(5)]
    promised = [inf] * 5
    for i, span, wait, verb in steps:
        item = items[i]
        if verb == "set":
            set_limit(wheel, item, loop.now + span)
            promised[i] = item.deadline
        else:
            promised[i] = inf
            if verb == "clear":
                item.deadline = inf
            else:
                wheel.forget(item)
        item.expired_at.clear()
        loop.run_until(loop.now + wait)
        for j, other in enumerate(items):
            if promised[j] + 0.26 < loop.now:
                assert len(other.expired_at) == 1
            for at in other.expired_at:
                assert promised[j] - 0.0011 <= at <= promised[j] + 0.2511
