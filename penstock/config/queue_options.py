"""The options of the central queue. What follows is in `config.queue`; what they mean, in docs/admission.md."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from penstock.config.options import Count, Options, says
from penstock.config.units import DURATION_PATTERN, Duration

OFF = "off"

PriorityName = Literal["critical", "high", "normal", "low"]
Share = Annotated[
    str,
    Meta(
        pattern=r"^(100|[0-9]{1,2}(\.[0-9]{1,3})?)%$",
        examples=["10%"],
        extra={"expected": "a percentage of at most 100%, such as 10%"},
    ),
]
DurationOrOff = Annotated[
    str,
    Meta(
        pattern=rf"^off$|{DURATION_PATTERN}",
        examples=["30s", OFF],
        extra={"expected": "a duration with its unit, such as 30s, or `off`"},
    ),
]
Weight = Annotated[int, Meta(ge=1, le=1000)]
Slots = Annotated[int, Meta(ge=0, le=1_000_000)]


class QueueClassOptions(Options, frozen=True):
    """A priority in the queue. What is not given is as it was for this priority."""

    slots: Annotated[Slots | None, says("Requests that replicas always have room for, whatever the others send.")] = (
        None
    )
    share: Annotated[Share | None, says("And this part of all that the replicas run at once.")] = None
    depth: Annotated[Slots | None, says("Requests that may wait; one more is refused.")] = None
    timeout: Annotated[Duration | None, says("How long one may wait.")] = None
    promote_after: Annotated[
        DurationOrOff | None, says("Without a turn for so long, its next request goes before all others; or `off`.")
    ] = None
    preempts: Annotated[
        bool | None, says("Whether a lower request is stopped for it that has no first token yet, and waits again.")
    ] = None


class QueueOptions(Options, frozen=True):
    """Where requests wait while no replica has room for them."""

    order: Annotated[
        Literal["hrrn", "fcfs"],
        says("`hrrn`: first who has waited longest for the work it is; `fcfs`: first who came first."),
    ] = "hrrn"
    threshold: Annotated[
        Count, says("With so many uncached prompt tokens to compute, a replica gets no more: they wait in the queue.")
    ] = 4_096
    quantum: Annotated[
        Duration,
        says("Two organisations that wait are served alike to within two of these; a tenth goes to cached prompts."),
    ] = "1s"
    weights: Annotated[
        dict[str, Weight], says("Of organisations: one with 2 gets twice as much as one with 1, which all others have.")
    ] = msgspec.field(default_factory=dict)
    classes: Annotated[
        dict[PriorityName, QueueClassOptions],
        Meta(extra={"names": PriorityName}),
        says("Of priorities, what is to be otherwise than by default."),
    ] = msgspec.field(default_factory=dict)
