"""The central queue as it was written: what no type can say about it, what it comes to, and how it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from msgspec.structs import replace

from penstock.balancing.queue_options import DEFAULT, ClassOptions
from penstock.balancing.queue_options import QueueOptions as Decided
from penstock.config.queue_options import OFF, QueueClassOptions, QueueOptions
from penstock.config.units import seconds
from penstock.core.request import Priority

Found: TypeAlias = tuple[tuple[str, ...], str]


def check(queue: QueueOptions) -> Iterator[Found]:
    if seconds(queue.quantum) <= 0:
        yield ("queue", "quantum"), "must be longer than 0s"
    for name, options in queue.classes.items():
        here = ("queue", "classes", name)
        if options.timeout is not None and not 0 < seconds(options.timeout) <= 3600:
            yield (*here, "timeout"), "must be longer than 0s and at most 1h"
        if options.promote_after not in (None, OFF) and seconds(str(options.promote_after)) <= 0:
            yield (*here, "promote_after"), "must be longer than 0s; `off` for never"
        if name == "low" and options.preempts:
            yield (*here, "preempts"), "has no meaning: there is nothing lower to stop"
    shares = [share for priority in Priority if (share := queue_of(queue).of(priority).share)]
    if sum(shares) > 1 + 1e-9:
        yield ("queue", "classes"), f"have shares that are {sum(shares):.0%} together, of which no more than 100% exist"


def queue_of(queue: QueueOptions) -> Decided:
    return Decided(
        order=queue.order,
        threshold=queue.threshold,
        quantum=seconds(queue.quantum),
        weights=dict(queue.weights),
        **{
            priority.value: _class(DEFAULT.of(priority), queue.classes.get(priority.value, QueueClassOptions()))
            for priority in Priority
        },
    )


def told(queue: Decided) -> Iterator[tuple[str, str]]:
    """Rows for a person: the queue, and each priority in it."""
    first = "who waited longest for the work it is" if queue.order == "hrrn" else "the oldest"
    weights = "".join(f"; {tenant} counts {weight:g} times" for tenant, weight in queue.weights.items())
    yield (
        "all",
        f"wait here while a replica has {queue.threshold:,} uncached tokens to compute; first {first}; organisations "
        f"get the same, to within {2 * queue.quantum:g} s of engine time{weights}",
    )
    for priority in Priority:
        options = queue.of(priority)
        parts = [
            f"at most {options.depth:,} wait, each {options.timeout:g} s" if options.depth else "none waits",
            *([f"room is kept for {_floor(options)}"] if options.slots or options.share else []),
            *(["stops lower ones before their first token"] if options.preempts else []),
            *([f"has a turn every {options.promote_after:g} s"] if options.promote_after is not None else []),
        ]
        yield priority.value, "; ".join(parts)


def _floor(options: ClassOptions) -> str:
    slots = f"{options.slots:,}" if options.slots else ""
    share = f"{options.share * 100:g}% of all that replicas run" if options.share else ""
    return " and ".join(filter(None, (slots, share)))


def _class(default: ClassOptions, written: QueueClassOptions) -> ClassOptions:
    changes: dict[str, Any] = {
        "slots": written.slots,
        "depth": written.depth,
        "preempts": written.preempts,
        "share": None if written.share is None else float(written.share.removesuffix("%")) / 100,
        "timeout": None if written.timeout is None else seconds(written.timeout),
    }
    changed = replace(default, **{name: value for name, value in changes.items() if value is not None})
    if written.promote_after is None:
        return changed
    return replace(changed, promote_after=None if written.promote_after == OFF else seconds(written.promote_after))
