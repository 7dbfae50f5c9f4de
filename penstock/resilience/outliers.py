"""Leave out the replica that does worse than its like: fails, stalls, says nothing, or takes too long to begin.

A breaker looks at one replica alone; here they are compared with each other, so that what all of them suffer from
(a burst, a bad prediction, a stalled gateway) ejects nobody. How long a first token takes is always taken relative to
what was predicted for that very attempt, so load and prompt length are no excuse and no fault.

One `Outliers` for each deployment. It writes `ejected_until` and `ramp` of its replicas; both are read by the balancer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from math import exp, log, sqrt
from typing import Final

from penstock.core.errors import FailureKind
from penstock.core.fleet import Replica
from penstock.core.plan import CANCELLED, OK
from penstock.resilience.failures import CONSEQUENCES
from penstock.resilience.options import Ejection, OutlierRule, Why

SLACK: Final = 0.05  # seconds: a hiccup of some milliseconds is no slowness, however short the prediction was
FASTEST: Final = log(0.05)
SLOWEST: Final = log(50.0)
ENOUGH: Final = 3.0  # samples of all others, before there is anything to compare with
ALARM: Final = log(1e5)  # evidence against a replica: by chance once in 100,000 first tokens, or less often
ONE: Final = ALARM / 3.0  # of it, at most from one first token: three have to agree
SUSPECTED: Final = 1_000.0  # times its cost, of a replica with all of that evidence against it; with a third, 10 times
FEW: Final = 0.25  # of all: where more are suspected, and more than one, nobody's cost is multiplied for it
KEPT: Final = 2.0  # windows in which that fades: a suspect is asked now and then, and what it says then adds up
SPREAD: Final = 0.5  # standard deviation of log(observed / predicted) that is taken for granted
SURE: Final = 4.0  # standard errors between its share of bad answers and the others'
LONG: Final = 1.5  # seconds: who is late and waits longer says as much again with each doubling
OLDEST: Final = 32  # waiting attempts that are looked at, of each replica
FIRST_SHARE: Final = 0.1  # of a newcomer's traffic
CALM: Final = 60.0  # seconds of good conduct that forgive one ejection


class Samples:
    """Number, mean and spread of what was seen lately: a sample that is t seconds old weighs exp(-t / window)."""

    __slots__ = ("_at", "_window", "n", "squares", "sum")

    def __init__(self, window: float) -> None:
        self._window = window
        self._at = 0.0
        self.n = self.sum = self.squares = 0.0

    def at(self, now: float) -> None:
        """Let what is there grow old until `now`."""
        if now > self._at:
            keep = exp((self._at - now) / self._window)
            self.n *= keep
            self.sum *= keep
            self.squares *= keep
            self._at = now

    def add(self, x: float, now: float) -> None:
        self.at(now)
        self.n += 1.0
        self.sum += x
        self.squares += x * x

    def forget(self, others: Samples, now: float) -> None:
        """Take out those of `others`, which are among them."""
        self.at(now)
        others.at(now)
        self.n = max(0.0, self.n - others.n)
        self.sum -= others.sum
        self.squares = max(0.0, self.squares - others.squares)

    def clear(self) -> None:
        self.n = self.sum = self.squares = 0.0


class Record:
    """What is known of one replica."""

    __slots__ = (
        "bad", "evidence", "evidence_at", "in_a_row", "joined_at", "replica", "returns_at", "seen", "slowness",
        "stalled", "times", "waiting",
    )  # fmt: skip

    def __init__(self, replica: Replica, window: float, joined_at: float) -> None:
        self.replica = replica
        self.joined_at = joined_at  # since when it is given work again; -inf: always
        self.returns_at = 0.0  # from its last ejection
        self.times = 0  # it was ejected lately
        self.in_a_row = 0  # bad answers
        self.bad = Samples(window)  # 1 for a bad answer, 0 for a good one
        self.slowness = Samples(window)  # log(observed / predicted) time to the first token
        self.evidence = 0.0  # that it is slow: 0 to ALARM and more
        self.evidence_at = 0.0
        self.seen = 0.0  # what all its first tokens say, added up; negative, mostly
        # ticket -> when it started, what was predicted, what `seen` was; oldest first
        self.waiting: dict[int, tuple[float, float, float]] = {}
        self.stalled: set[int] = set()  # counted already: tickets of those still open


class Outliers:
    """The replicas of one deployment, compared. Tell it of every attempt, and `sweep` every `rule.interval`."""

    __slots__ = ("_bad", "_calm", "_records", "_slowness", "_tickets", "ejections", "rule")

    def __init__(self, rule: OutlierRule, pool: Iterable[Replica] = ()) -> None:
        self.rule = rule  # may be replaced, but for its window
        self._records: dict[str, Record] = {one.name: Record(one, rule.window, float("-inf")) for one in pool}
        self._bad = Samples(rule.window)  # of all together
        self._slowness = Samples(rule.window)
        self._tickets = 0
        self._calm = True  # few have anything against them: more than that is rather what all suffer from
        self.ejections = 0

    def keep(self, pool: Sequence[Replica], now: float) -> None:
        """The pool is this from now on. Who stays keeps its record; who is new begins slowly, unless all are new."""
        before = self._records
        joined_at = now if any(one.name in before for one in pool) else float("-inf")
        self._records = {one.name: before.get(one.name) or Record(one, self.rule.window, joined_at) for one in pool}
        for one in pool:
            record = self._records[one.name]
            record.replica = one
            one.ramp = 1.0 / self.ramp(one.name, now)
            one.ejected_until = record.returns_at
        for name, record in before.items():
            if name not in self._records:
                self._forget(record, now)

    def started(self, replica: str, predicted: float, now: float) -> int:
        """An attempt is on its way; `predicted` seconds to its first token, 0 where nobody can say. A ticket for it."""
        self._tickets += 1
        record = self._records.get(replica)
        if record is not None:
            record.waiting[self._tickets] = (now, predicted, record.seen)
        return self._tickets

    def first_token(self, replica: str, ticket: int, now: float) -> None:
        record = self._records.get(replica)
        started = None if record is None else record.waiting.pop(ticket, None)
        if record is not None and started is not None and started[1] > 0.0:
            self._took(record, slowness(now - started[0], started[1]), now)

    def stalled(self, replica: str, ticket: int, now: float) -> Ejection | None:
        """It began to answer, and now nothing has come for so long that something is wrong; it may still go on."""
        record = self._records.get(replica)
        if record is None or ticket in record.stalled:
            return None
        record.stalled.add(ticket)
        return self._bad_answer(record, now)

    def ended(
        self, replica: str, ticket: int, ended: FailureKind | str, now: float, *, empty: bool = False
    ) -> Ejection | None:
        """ "ok", "cancelled", or why it failed; `empty`: a whole answer with nothing in it, where there had to be."""
        record = self._records.get(replica)
        if record is None:
            return None
        started = record.waiting.pop(ticket, None)
        was_stalled = ticket in record.stalled
        record.stalled.discard(ticket)
        if started is not None and started[1] > 0.0 and ended != OK:
            # how long it would have taken is not known: at least so long, which says something only if that is long
            at_least = slowness(now - started[0], started[1])
            everybody = self._slowness
            if everybody.n >= ENOUGH and at_least > everybody.sum / everybody.n:
                self._took(record, at_least, now)
        if was_stalled or ended == CANCELLED:
            return None
        if ended == OK and not empty:
            record.in_a_row = 0
            record.bad.add(0.0, now)
            self._bad.add(0.0, now)
            return None
        if ended != OK and not CONSEQUENCES[FailureKind(ended)].trips:
            return None
        return self._bad_answer(record, now)

    def sweep(self, now: float) -> list[Ejection]:
        """Look at everybody: who is to be left out, and who comes back. O(replicas)."""
        found: list[Ejection] = []
        evidence = {name: self._evidence(record, now) for name, record in self._records.items()}
        self._calm = sum([one > 0.0 for one in evidence.values()]) <= max(1.0, FEW * len(evidence))
        for record in self._slow_ones(evidence):
            if record.replica.ejected_until <= now:
                self._eject(record, Why.SLOW, now, found)
        for record in self._records.values():
            if record.replica.ejected_until <= now and self._fails_often(record, now):
                self._eject(record, Why.SHARE, now, found)
        if not any(self._usable(record, now) for record in self._records.values()):
            self._release(now)
        for name, record in self._records.items():
            if record.replica.ramp != 1.0 or evidence[name] > 0.0:
                self._weigh(record, evidence[name] if record.replica.ejected_until <= now else 0.0, now)
        return found

    def ramp(self, replica: str, now: float) -> float:
        """What share of a full one's work it should be given, 0.1 to 1: it grows in a line after it joined."""
        record = self._records.get(replica)
        if record is None:
            return 1.0
        since = now - max(record.joined_at, record.returns_at if record.times else float("-inf"))
        if since >= self.rule.ramp:
            return 1.0
        return FIRST_SHARE + (1.0 - FIRST_SHARE) * max(0.0, since) / self.rule.ramp

    def _slow_ones(self, all_of_it: dict[str, float]) -> list[Record]:
        """Those whose first tokens are late beyond doubt while most others' are not; the most suspect first."""
        suspects = [name for name, evidence in all_of_it.items() if evidence >= ALARM]
        if not suspects:
            return []
        suspects.sort(key=lambda name: -all_of_it[name])
        # what has become slow for all (a burst that nobody predicted) is nobody's own fault
        typical = sorted(all_of_it.values())[(len(all_of_it) - 1) // 2]
        return [self._records[name] for name in suspects] if typical < ONE else []

    def _evidence(self, record: Record, now: float) -> float:
        """With what those of its attempts show that are late by now: a replica that hangs gives no other sign.

        Whatever has answered since the oldest of them began counts too. Late ones alone say nothing: there are always
        some, and they are those that are still there to be seen.
        """
        evidence = self._aged(record, now)
        overdue = usual = spread = 0.0
        for started_at, predicted, seen in islice(record.waiting.values(), OLDEST):
            if now - started_at > predicted > 0.0:  # nearly all are not, and cost no more than this
                if spread == 0.0:
                    usual, spread = self._of_others(record, now)
                    if spread == 0.0:
                        break
                weight = self._weight(slowness(now - started_at, predicted), usual, spread)
                if weight > 0.0:
                    if overdue == 0.0:
                        overdue = record.seen - seen
                    overdue += weight * (1.0 + log(max(1.0, (now - started_at) / LONG), 2.0))
        return max(evidence, overdue)

    def _aged(self, record: Record, now: float) -> float:
        if record.evidence == 0.0:
            return 0.0
        return record.evidence * exp((record.evidence_at - now) / (KEPT * self.rule.window))

    def _took(self, record: Record, x: float, now: float) -> None:
        """One more first token: a step of a CUSUM chart, which needs no number of samples to be chosen.

        Source: E. S. Page, "Continuous inspection schemes", Biometrika 1954; the alarm's bound is G. Lorden's of 1971.
        """
        usual, spread = self._of_others(record, now)
        if spread > 0.0:
            weight = self._weight(x, usual, spread)
            record.evidence = max(0.0, self._aged(record, now) + weight)
            record.seen += weight
            record.evidence_at = now
            if record.evidence > 0.0 or record.replica.ramp != 1.0:
                self._weigh(record, record.evidence, now)
        record.slowness.add(x, now)
        self._slowness.add(x, now)

    def _weight(self, x: float, usual: float, spread: float) -> float:
        """How much likelier `x` is of a replica as far beyond `slow` as others are below it; a log, bounded."""
        border = log(self.rule.slow)
        return max(-ONE, min(ONE, 2.0 * border * (x - usual - border) / (spread * spread)))

    def _of_others(self, record: Record, now: float) -> tuple[float, float]:
        """Mean and standard deviation of all samples but its own; the latter is 0 where there are too few."""
        own, everybody = record.slowness, self._slowness
        own.at(now)
        everybody.at(now)
        n = everybody.n - own.n
        if n < ENOUGH:
            return 0.0, 0.0
        mean = (everybody.sum - own.sum) / n
        return mean, sqrt(max(SPREAD * SPREAD, (everybody.squares - own.squares) / n - mean * mean))

    def _bad_answer(self, record: Record, now: float) -> Ejection | None:
        record.in_a_row += 1
        record.bad.add(1.0, now)
        self._bad.add(1.0, now)
        found: list[Ejection] = []
        if record.in_a_row >= self.rule.in_a_row and record.replica.ejected_until <= now:
            self._eject(record, Why.IN_A_ROW, now, found)
        return found[0] if found else None

    def _fails_often(self, record: Record, now: float) -> bool:
        own, everybody = record.bad, self._bad
        if own.sum < ENOUGH:
            return False
        own.at(now)
        if own.sum < ENOUGH or own.sum < self.rule.share * own.n:
            return False
        everybody.at(now)
        n = everybody.n - own.n
        if n < ENOUGH:
            return False
        theirs = max(0.0, everybody.sum - own.sum) / n
        pooled = everybody.sum / everybody.n
        error = sqrt(max(0.0, pooled * (1.0 - pooled)) * (1.0 / own.n + 1.0 / n))
        return own.sum / own.n - theirs >= SURE * error and error > 0.0

    def _usable(self, record: Record, now: float) -> bool:
        replica = record.replica
        return replica.ready and replica.ejected_until <= now and record.in_a_row < self.rule.in_a_row

    def _eject(self, record: Record, why: Why, now: float, found: list[Ejection]) -> None:
        """If there is room for one more, and somebody else who answers."""
        records = self._records.values()
        out = sum(one.replica.ejected_until > now for one in records)
        if out >= max(1, int(self.rule.most * len(records))):
            return
        if not any(self._usable(one, now) for one in records if one is not record):
            return
        rule = self.rule
        forgiven = int(max(0.0, now - record.returns_at) / CALM)
        record.times = max(0, record.times - forgiven) + 1
        record.returns_at = until = now + min(rule.longest, rule.eject_for * record.times)
        record.replica.ejected_until = until
        record.replica.ramp = 1.0 / FIRST_SHARE
        waiting = tuple(record.waiting)
        self._forget(record, now)  # it comes back with a clean slate
        self.ejections += 1
        found.append(Ejection(record.replica.name, why, until, waiting))

    def _release(self, now: float) -> None:
        """Nobody else answers any more: rather those that did badly than none."""
        for record in self._records.values():
            if record.replica.ejected_until > now:
                record.replica.ejected_until = record.returns_at = now

    def _forget(self, record: Record, now: float) -> None:
        self._bad.forget(record.bad, now)
        self._slowness.forget(record.slowness, now)
        record.bad.clear()
        record.slowness.clear()
        record.evidence = 0.0
        record.in_a_row = 0
        record.waiting.clear()

    def _weigh(self, record: Record, evidence: float, now: float) -> None:
        """What its cost is multiplied by: more while it is new, and the more there is against it. So one that is
        suspected gets little to do before there is enough to leave it out."""
        suspected = SUSPECTED ** min(1.0, evidence / ALARM) if self._calm else 1.0
        record.replica.ramp = max(1.0 / self.ramp(record.replica.name, now), suspected)


def slowness(took: float, predicted: float) -> float:
    """log(took / predicted), both in seconds, with some slack for what is short anyway; bounded."""
    return min(SLOWEST, max(FASTEST, log((max(0.0, took) + SLACK) / (predicted + SLACK))))
