"""What can be chosen about the central queue, in whole: the file's `queue` block with every default decided."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from penstock.core.request import Priority

Order: TypeAlias = Literal["hrrn", "fcfs"]
NotNegative: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class ClassOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One priority class. Its floor is `slots` plus `share` of how many requests the replicas run at once."""

    slots: NotNegative = 0
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    depth: NotNegative = 1_024  # tickets that may wait; 0: none waits, so what cannot start at once is refused
    timeout: Positive = 60.0  # seconds that one may wait
    promote_after: Positive | None = None  # seconds without a turn, after which its next one goes before all classes
    preempts: bool = False  # whether one that waits may have a lower one stopped that has no first token yet


class QueueOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Floors are off by default: classes go first in their order anyhow, and a floor is capacity that others miss."""

    order: Order = "hrrn"
    threshold: Annotated[int, msgspec.Meta(ge=1)] = 4_096  # uncached prompt tokens; for `Balancing.pending_tokens`
    quantum: Positive = 1.0  # engine seconds; the service of two tenants differs by two of these
    weights: dict[str, Positive] = {}  # of tenants; others: 1.0
    critical: ClassOptions = ClassOptions(depth=512, timeout=30.0, preempts=True)
    high: ClassOptions = ClassOptions(timeout=30.0, preempts=True)
    normal: ClassOptions = ClassOptions(depth=4_096, promote_after=30.0)
    low: ClassOptions = ClassOptions(depth=4_096, timeout=300.0, promote_after=120.0)

    def of(self, priority: Priority) -> ClassOptions:
        found: ClassOptions = getattr(self, priority.value)
        return found


DEFAULT: Final = QueueOptions()
