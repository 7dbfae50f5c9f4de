"""What one worker tells the console of the requests that end in it: all that is special, and a sample of the rest.

It hears of each request when its trace has been decided about, many at once; only those that are sent cost more than
being counted. Memory is bounded, and what there was no room for is counted.
"""

from __future__ import annotations

from typing import Final

from penstock.console.reports import Ended
from penstock.core.outcome import Outcome
from penstock.stores.outcomes import Kept
from penstock.telemetry.sampling import CAPPED, NO, RATIO
from penstock.telemetry.unvouched import fit_to_keep

EVERY: Final = 0.25  # seconds between batches
MOST_SPECIAL: Final = 1_000  # of one batch
MOST_USUAL: Final = 4_096  # that a batch chooses from
SHOWN: Final = 25  # usual ones of one batch: 100 a second, which is more than anybody reads
KEPT_A_SECOND: Final = 5.0  # usual ones that are kept: less than that, and every request is


_USUAL: Final = frozenset({NO, CAPPED, RATIO})


class Reports:
    __slots__ = ("_dropped", "_n_usual", "_room", "_special", "_usual")

    def __init__(self) -> None:
        self._special: list[tuple[Outcome, str]] = []
        self._usual: list[Outcome] = []
        self._n_usual = 0
        self._dropped = 0
        self._room = KEPT_A_SECOND

    def hear(self, outcome: Outcome, why: str) -> None:
        """`why` it is kept, as the sampler says."""
        if why in _USUAL:
            self._n_usual += 1
            if len(self._usual) < MOST_USUAL:
                self._usual.append(outcome)
        elif len(self._special) < MOST_SPECIAL:
            self._special.append((outcome, why))
        else:
            self._dropped += 1

    def take(self, seconds: float = EVERY) -> Ended | None:
        """What has ended since the last batch, `seconds` ago. None: nothing."""
        special, usual, n_usual, dropped = self._special, self._usual, self._n_usual, self._dropped
        self._room = min(KEPT_A_SECOND, self._room + KEPT_A_SECOND * seconds)
        if not special and not n_usual and not dropped:
            return None
        self._special, self._usual, self._n_usual, self._dropped = [], [], 0, 0
        step = max(1, -(-len(usual) // SHOWN))
        sample = usual[::step]
        requests = [Kept(fit_to_keep(outcome), why) for outcome, why in special]
        for outcome in sample:
            kept = self._room >= 1.0
            self._room -= kept
            requests.append(Kept(fit_to_keep(outcome), RATIO if kept else NO))
        requests.sort(key=_ended_at)
        weight = n_usual / len(sample) if sample else 1.0
        return Ended(tuple(requests), weight, n_usual - len(sample), dropped)


def _ended_at(kept: Kept) -> float:
    return kept.outcome.received_at + kept.outcome.duration
