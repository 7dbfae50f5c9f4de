"""How fast a replica is, and how long answers are: learned from what one gateway sees, with no help of the engine.

Two lines per replica, by weighted least squares in which what is old weighs ever less. Prefill: seconds over uncached
tokens; an engine computes one prompt after the other, so the time of one begins when it was sent or when the one before
it was done, whichever is later. Decode: seconds of a step over sequences running, of answers during which few prompts
were computed. When all points lie at one place they do not say how much of it is base and how much slope: then the base
of the first line stays near where it was, and the slope of the second. The first line predicts waits, and so contains
what is written beside the prompts; what prompts themselves take, which tenants are charged, is a ratio of sums.
"""

from __future__ import annotations

from math import log2
from typing import Final

from penstock.core.fleet import STEP_TOKENS, Replica

KEEP: Final = 1.0 - 1.0 / 128  # of the weight of what is known, at each new point
CLIP: Final = 4.0  # a point further off than so many times is pulled in: a stall is not a rate
PREFILL_SPREAD: Final = 256.0  # tokens: so far apart points must lie to say as much of the slope as the prior does
BATCH_SPREAD: Final = 4.0  # sequences, likewise
PREFILL_ANCHOR: Final = 4.0  # points that no tokens take no time but the base
LEAST_WORK: Final = 64  # uncached tokens; with fewer the time says nothing of the rate
TOGETHER: Final = 0.002  # seconds; prompts done within these were computed in one step
DISTURBED: Final = 0.25  # of the time of an answer, taken up by prompts: more, and it says nothing of decoding
LEAST_OUTPUT: Final = 8  # tokens; with fewer the time between them is noise
SLOWEST: Final = 20.0  # uncached prompt tokens/s
FASTEST: Final = 1_000_000.0  # likewise
SHORTEST: Final = 0.000_1  # seconds of a step
LONGEST: Final = 2.0  # likewise
FLATTEST: Final = 0.000_001  # seconds of a step for each sequence
STEEPEST: Final = 0.1  # likewise
HALVE_AT: Final = 256  # answers, after which older ones weigh half
PRIOR: Final = 16_384.0  # tokens for which the first compute rate counts
KNOWN: Final = 8  # points, with which a replica's rates are its own and no more its siblings'
ENOUGH: Final = 5  # answers, before their median is believed


class Line:
    """y = base + slope * x, both >= 0, of points of which the newest weigh most.

    Two priors do not age: the first slope weighs as one point that is `spread` from the others; the first base, as
    `anchor` points at x = 0.
    """

    __slots__ = ("_anchor", "_anchored", "_n", "_prior", "_ridge", "_x", "_xx", "_xy", "_y", "base", "slope")

    def __init__(self, base: float, slope: float, spread: float, anchor: float = 0.0) -> None:
        self.base = base
        self.slope = slope
        self._prior = slope
        self._ridge = spread * spread
        self._anchor = anchor
        self._anchored = anchor * base
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def learn(self, x: float, y: float) -> None:
        expected = self.base + self.slope * x
        y = min(max(y, expected / CLIP), expected * CLIP)
        self._n = self._n * KEEP + 1.0
        self._x = self._x * KEEP + x
        self._y = self._y * KEEP + y
        self._xx = self._xx * KEEP + x * x
        self._xy = self._xy * KEEP + x * y
        n = self._n + self._anchor
        mean_x, mean_y = self._x / n, (self._y + self._anchored) / n
        # spread of x around its mean, and how y goes with it
        xx = self._xx - self._x * mean_x
        xy = self._xy - self._x * mean_y  # the anchor's x is 0
        slope = (max(0.0, xy) + self._ridge * self._prior) / (max(0.0, xx) + self._ridge)
        if slope * mean_x > mean_y and mean_x > 0.0:  # through the origin: nothing takes less than no time
            slope = mean_y / mean_x
        self.slope = slope
        self.base = max(0.0, mean_y - slope * mean_x)


class Rates:
    """What is learned of one replica; writes its `prefill_rate`, `compute_rate`, `step_base` and `itl_slope`, always
    within bounds."""

    __slots__ = (
        "_before", "_begun_at", "_computed", "_decode", "_done_at", "_prefill", "_seconds", "_stepped_at", "_waited",
        "_work", "points", "replica",
    )  # fmt: skip

    def __init__(self, replica: Replica) -> None:
        """Begins with what the replica says, which may come from a profile."""
        self.replica = replica
        self.points = 0  # that the prefill rate was learned from
        self._work = 0  # uncached tokens of the prompts that were done last, in one step
        self._before = 0  # and of those before them, since nothing was being computed
        self._begun_at = self._done_at = -1.0  # when
        self._stepped_at = -1.0  # when a step is known to have ended
        self._waited = 0.0  # steps: half of the one that was under way when they came, unless one had just ended
        self._begin()

    def follow(self, sibling: Replica) -> None:
        """Take it to be as fast as one of its deployment that is known better: else either would starve the other."""
        replica = self.replica
        replica.prefill_rate = sibling.prefill_rate
        replica.compute_rate = sibling.compute_rate
        replica.step_base, replica.itl_slope = sibling.step_base, sibling.itl_slope
        self._begin()

    def _begin(self) -> None:
        """With what the replica has, and nothing seen."""
        replica = self.replica
        self._prefill = Line(replica.step_base, 1.0 / replica.prefill_rate, PREFILL_SPREAD, PREFILL_ANCHOR)
        self._decode = Line(replica.step_base, replica.itl_slope, BATCH_SPREAD)
        self._computed: float = PRIOR  # tokens of prompts, and the seconds that steps took longer for them; both fade
        self._seconds: float = PRIOR / replica.compute_rate

    def first_token(self, uncached: int, sent_at: float, now: float) -> None:
        """So many prompt tokens of a request sent then have been computed. Clock.now() seconds."""
        if now - self._done_at < TOGETHER:
            self._work += uncached
        else:
            if self._work >= LEAST_WORK:  # all that were done together with it are known only now
                self.points += 1
                self._prefill.learn(float(self._work), self._done_at - self._begun_at)
                self.replica.prefill_rate = 1.0 / min(max(self._prefill.slope, 1.0 / FASTEST), 1.0 / SLOWEST)
                self._learn_compute(self._work, self._done_at - self._begun_at)
            self._before = 0 if sent_at >= self._done_at else self._before + self._work
            self._waited = 0.5 if sent_at >= self._stepped_at + TOGETHER else 0.0
            self._begun_at = max(sent_at, self._done_at)
            self._work = uncached
        self._done_at = self._stepped_at = now

    def _learn_compute(self, tokens: int, seconds: float) -> None:
        """A ratio of sums, which stays right where prompts share a step and the time of one is told of the other."""
        replica = self.replica
        writing = replica.inflight - len(replica.prompts)
        room = max(1, STEP_TOKENS - writing)  # for prompts, in a step
        steps = self._waited - (-(self._before + tokens) // room) + (-self._before // room)
        longer = seconds - steps * (replica.step_base + replica.itl_slope * writing)
        most = CLIP * (tokens + STEP_TOKENS) / replica.compute_rate
        self._computed = self._computed * KEEP + tokens
        self._seconds = max(self._seconds * KEEP + min(longer, most), self._computed / FASTEST)
        replica.compute_rate = min(max(self._computed / self._seconds, SLOWEST), FASTEST)

    def ended(
        self, output_tokens: int, running: float, first_at: float, now: float, computed: int, pending: int
    ) -> None:
        """From the first token to the last (Clock.now() seconds), with about so many sequences running, while prompts
        of `computed` uncached tokens were done there, and `pending` ones may have been begun.
        """
        replica, seconds = self.replica, now - first_at
        self._stepped_at = now
        if output_tokens >= LEAST_OUTPUT and computed + pending < seconds * DISTURBED * replica.compute_rate:
            self._decode.learn(running, (seconds - computed / replica.compute_rate) / (output_tokens - 1))
            replica.step_base = min(max(self._decode.base, SHORTEST), LONGEST)
            replica.itl_slope = min(max(self._decode.slope, FLATTEST), STEEPEST)


class Outputs:
    """The running median of how many tokens the answers of one model have, to a tenth of it.

    Counts on a logarithmic scale, four bins for each doubling, halved now and then.
    """

    __slots__ = ("_counts", "_total", "median")

    def __init__(self) -> None:
        self._counts: list[int] = [0] * 84
        self._total = 0
        self.median = 0  # tokens; 0: too little is known

    def learn(self, tokens: int) -> None:
        """An answer had so many (> 0)."""
        counts = self._counts
        counts[min(int(4.0 * log2(tokens)), len(counts) - 1)] += 1
        self._total += 1
        if self._total >= HALVE_AT:
            counts = self._counts = [count // 2 for count in counts]
            self._total = sum(counts)
        if self._total >= ENOUGH:
            below = (self._total + 1) // 2
            for number, count in enumerate(counts):
                below -= count
                if below <= 0:
                    self.median = round(2.0 ** ((number + 0.5) / 4.0))
                    return
