"""What a model gives up, and in which order, before it gives up answering: a ladder that its owner has written.

Pure: the caller keeps the `Standing`. Going up happens at once and by as many rungs as it takes; going down one at a
time, each after it has been calm for a while, because a service that flaps is worse than a modest one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.resilience.options import NO_REPLICA, Ladder


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How many rungs hold, from the first one; and since when (Clock.now() seconds) the last of them would not have to.
    None: it has to."""

    rungs: int = 0
    calm_since: float | None = None


LEVEL: Final = Standing()


class Degraded(msgspec.Struct, frozen=True, gc=False):
    """All that holds, as one. Of two rungs that say the same thing the higher one counts."""

    max_tokens: int | None = None
    model: str | None = None
    cached_for: float | None = None
    answer: str | None = None

    def within(self, max_tokens: int) -> int:
        """Of those asked for, as many as there may be."""
        return max_tokens if self.max_tokens is None else min(max_tokens, self.max_tokens)


NOT_DEGRADED: Final = Degraded()


def decide(ladder: Ladder, saturation: float, standing: Standing, now: float) -> tuple[Standing, Ladder]:
    """Where it stands now, and the rungs that hold. `saturation` as in `resilience.shed`; `NO_REPLICA` when nobody is
    there to answer."""
    up = sum(saturation >= step.at for step in ladder)
    rungs = max(up, min(standing.rungs, len(ladder)))  # the ladder may have been written anew
    calm_since = standing.calm_since if up < rungs == standing.rungs else None
    while rungs > up:
        step = ladder[rungs - 1]
        if step.at == NO_REPLICA:  # somebody is there again, and it must not speak in their place
            rungs, calm_since = rungs - 1, None
            continue
        if saturation >= step.back:
            calm_since = None
            break
        if calm_since is None:
            calm_since = now
        if now - calm_since < step.hold:
            break
        rungs, calm_since = rungs - 1, now
    return Standing(rungs, calm_since if rungs > up else None), ladder[:rungs]


def together(steps: Ladder) -> Degraded:
    """What the rungs mean for one request."""
    if not steps:
        return NOT_DEGRADED
    whole = NOT_DEGRADED
    for step in steps:
        if step.max_tokens is not None:
            whole = msgspec.structs.replace(whole, max_tokens=step.max_tokens)
        elif step.model is not None:
            whole = msgspec.structs.replace(whole, model=step.model)
        elif step.cached_for is not None:
            whole = msgspec.structs.replace(whole, cached_for=step.cached_for)
        else:
            whole = msgspec.structs.replace(whole, answer=step.answer)
    return whole


def told(steps: Ladder) -> str:
    """For the response header: `max_tokens=512, model=small`."""
    return ", ".join(step.name for step in steps)


def wrong(ladder: Ladder) -> tuple[int, str] | None:
    """The first rung that makes no sense, and why; None when all do."""
    for i, step in enumerate(ladder):
        things = (step.max_tokens, step.model, step.cached_for, step.answer)
        if sum(thing is not None for thing in things) != 1:
            return i, "needs exactly one of `max_tokens`, `model`, `cached` and `answer`"
        if step.back > step.at:
            return i, f"must not end (below {step.back:g}) before it begins (at {step.at:g})"
        if i and step.at < ladder[i - 1].at:
            return i, "must not begin before the step above it: the mildest comes first"
    return None
