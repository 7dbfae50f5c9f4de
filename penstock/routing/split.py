"""Canaries and experiments: who is in which arm. The same subject is always in the same one, and when a share grows
nobody leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xxhash import xxh3_64_intdigest

from penstock.routing.facts import Facts
from penstock.routing.spec import ArmSpec, By, SplitSpec

_ALL: Final = 2.0**64


class Split:
    """The line from 0 to 1, divided among the arms. The first arm with a share grows from its beginning and the second
    from its end, so that neither takes anybody from the other; further ones lie behind these two in turn, and move when
    those do (for three arms that grow on their own there is no way that moves nobody).
    """

    __slots__ = ("_ends", "_starts", "arms", "by", "name", "rest")

    def __init__(self, spec: SplitSpec) -> None:
        self.name, self.by = spec.name, spec.by
        self.arms: list[ArmSpec] = [arm for arm in spec.arms if arm.share is not None]
        self.rest: ArmSpec = next(arm for arm in spec.arms if arm.share is None)
        self._starts: list[float] = []
        self._ends: list[float] = []
        low, high = 0.0, 1.0
        for i, arm in enumerate(self.arms):
            assert arm.share is not None, "those without one are the rest"
            if i % 2 == 0:
                self._starts.append(low)
                low += arm.share
                self._ends.append(low)
            else:
                self._ends.append(high)
                high -= arm.share
                self._starts.append(high)

    def arm(self, facts: Facts, drawn: float) -> ArmSpec:
        """`drawn`, in [0, 1), places a request that nothing tells apart from others: one without a user, a session or
        whatever the split is by goes with its key."""
        if self.by == "request":
            return self.at(drawn)
        subject = subject_of(self.by, facts)
        return self.at(drawn if subject is None else place(self.name, subject))

    def at(self, where: float) -> ArmSpec:
        for arm, start, end in zip(self.arms, self._starts, self._ends, strict=True):
            if start <= where < end:
                return arm
        return self.rest


def subject_of(by: By, facts: Facts) -> Sequence[str] | None:
    """What is hashed, its own kind first, so that a user and a key of one name are two. None: nobody."""
    match by:
        case "user" if facts.user:
            return "user", facts.org, facts.user
        case "session" if facts.session:
            return "session", facts.org, facts.session
        case "team" if facts.team:
            return "team", facts.org, facts.team
        case "org" if facts.org:
            return "org", facts.org
    return ("key", facts.org, facts.key) if facts.key else None


def place(name: str, subject: Sequence[str]) -> float:
    """Where on the line, 0 to 1: even, and another for each split."""
    return xxh3_64_intdigest("\0".join((name, *subject)).encode()) / _ALL
