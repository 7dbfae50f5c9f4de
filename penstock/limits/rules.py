"""Which limits apply to a request, and what it costs on each of their counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, tzinfo
from math import inf
from operator import attrgetter
from typing import Final

from penstock.limits.charges import Charge, Kind
from penstock.limits.limit import METERS, RATES, Account, Amounts, Counted, Limit, Meter, Who
from penstock.limits.periods import span

KEPT: Final = 20_000  # accounts whose counters' names are remembered


class Placed:
    """What all requests of one account have in common, until a calendar window ends."""

    __slots__ = ("limits", "meters", "places", "templates")

    def __init__(self, limits: tuple[Limit, ...], meters: tuple[int, ...], places: tuple[_Place, ...]) -> None:
        self.limits = limits
        self.meters = meters  # of each limit, its place in `_measured`
        self.places = places
        self.templates: dict[tuple[int, int], str] = {}  # of their headers; `limits.headers` makes and uses them


class Applied:
    """The charges of one request, and the limit behind each."""

    __slots__ = ("charges", "placed")

    def __init__(self, charges: tuple[Charge, ...], placed: Placed) -> None:
        self.charges = charges
        self.placed = placed

    @property
    def limits(self) -> tuple[Limit, ...]:
        return self.placed.limits

    def costs(self, actual: Amounts) -> list[int]:
        """For `Counters.settle`. A budget that was reserved is settled even where it turns out to be free."""
        measured = _measured(actual)
        return [measured[meter] for meter in self.placed.meters]


class Rules:
    """All limits of a plane. Remembers the counters' names of recent accounts, nothing else."""

    __slots__ = ("_alike", "_kept", "_named", "_own", "_shapes", "_telling", "_zone", "counts_money")

    def __init__(self, limits: Iterable[Limit], zone: tzinfo = UTC, own: OwnLimits | None = None) -> None:
        """`own` gives the limits of a key that is not of this plane, by its id, each counted per key."""
        self._zone = zone
        self._own = own
        self._named: dict[str, Limit] = {}
        self._alike: dict[_Where, list[Limit]] = {}  # by their `where`
        told: set[Who] = set() if own is None else {"key"}
        for limit in limits:
            assert limit.name not in self._named, f"limits share counters when they share a name: {limit.name}"
            self._named[limit.name] = limit
            alike = self._alike.get(limit.where)
            if alike is None:
                alike = self._alike[limit.where] = []
            alike.append(limit)
            told.update(limit.per)
        # What is asked of an account: at most some dozens of combinations, so that limits are looked up, not searched.
        self._shapes = sorted({tuple([who for who, _ in where]) for where in self._alike})
        told.update(*self._shapes)
        self._telling: Callable[[Account], object] = attrgetter(*sorted(told)) if told else _nobody
        self._kept: dict[object, _Kept] = {}
        self.counts_money = own is not None or any(limit.meter is Meter.MONEY for limit in self._named.values())
        """There may be budgets among them."""

    def __bool__(self) -> bool:
        """There may be any."""
        return self._own is not None or bool(self._named)

    def forget(self) -> None:
        """What `own` said, for it may say something else now."""
        self._kept.clear()

    def apply(self, account: Account, expected: Amounts, wall: float) -> Applied:
        """`wall` is Unix seconds: it decides which calendar window pays."""
        whom = self._telling(account)  # nothing that no limit asks for: without limits of users, all users are one
        kept = self._kept.get(whom)
        if kept is None or kept[0] <= wall:
            kept = self._place(whom, account, wall)
        placed = kept[2] if expected.nanos is None else kept[1]
        measured = _measured(expected)
        charges = [
            Charge(name, kind, most, measured[meter], int(ends_at - wall) + 1 if ends_at else window, soft, strict)
            for name, kind, most, meter, window, ends_at, soft, strict in placed.places
        ]
        return Applied(tuple(charges), placed)

    def counted(self, counter: str) -> Counted | None:
        """What a counter counts, by its name. None when there is no such limit (any more)."""
        name, *values = map(_unquoted, counter.split("|"))
        limit = self._named.get(name)
        if limit is None and self._own is not None and values:
            limit = next((one for one in self._own(values[0]) if one.name == name), None)
        if limit is None or len(values) != len(limit.per) + (limit.meter is not Meter.CONCURRENT_REQUESTS):
            return None
        whom = {**dict(limit.where), **dict(zip(limit.per, values, strict=False))}
        return Counted(
            limit,
            Account(**{str(who): value for who, value in whom.items()}),
            values[-1] if limit.period is not None else "",
        )

    def _place(self, whom: object, account: Account, wall: float) -> _Kept:
        until, applying = inf, []
        for limit in self._of(account):
            values = [getattr(account, who) for who in limit.per]
            counter = "|".join([_quoted(limit.name), *map(_quoted, values)])
            window, ends_at = limit.window, 0.0
            if limit.period is not None:
                now = span(limit.period, wall, self._zone)
                counter, ends_at = f"{counter}|{now.label}", now.ends_at
                until = min(until, ends_at)
            elif window:
                counter = f"{counter}|{window}s"
            meter = METERS.index(limit.meter)
            place = counter, _KINDS[limit.meter], limit.amount, meter, window, ends_at, limit.soft, limit.strict
            applying.append((limit, place))
        if len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        placed = free = _placed(applying)
        if until < inf:
            free = _placed([one for one in applying if one[0].meter is not Meter.MONEY])
        self._kept[whom] = kept = until, placed, free
        return kept

    def _of(self, account: Account) -> Iterator[Limit]:
        """Those that apply: more general ones first."""
        for shape in self._shapes:
            for limit in self._alike.get(tuple([(who, getattr(account, who)) for who in shape]), ()):
                counted_apart = [who for who in limit.per if who != "org" or "user" not in limit.per]
                if all(getattr(account, who) for who in counted_apart):
                    yield limit
        if self._own is not None and account.key:
            yield from [limit for limit in self._own(account.key) if limit.name not in self._named]


_KINDS: Final = {
    **dict.fromkeys(RATES, Kind.RATE),
    Meter.CONCURRENT_REQUESTS: Kind.GAUGE,
    Meter.MONEY: Kind.BUDGET,
}

OwnLimits = Callable[[str], Iterable[Limit]]
_Where = tuple[tuple[Who, str], ...]
_Place = tuple[str, Kind, int, int, int, float, bool, bool]  # as `Rules.apply` reads it
_Kept = tuple[float, Placed, Placed]  # until when; for requests that cost something, and for those that do not


def _placed(applying: Sequence[tuple[Limit, _Place]]) -> Placed:
    limits = tuple([limit for limit, _ in applying])
    return Placed(
        limits, tuple([METERS.index(limit.meter) for limit in limits]), tuple([place for _, place in applying])
    )


def _nobody(account: Account) -> object:
    return None


def _measured(amounts: Amounts) -> tuple[int, ...]:
    """In the order of `Meter`."""
    n, read, written = amounts.requests, amounts.input_tokens, amounts.output_tokens
    return n, read, written, read + written, n, amounts.nanos or 0


def _quoted(value: str) -> str:
    """So that no two callers' values, whatever they send, join to the same name."""
    return value.replace("%", "%25").replace("|", "%7C")


def _unquoted(value: str) -> str:
    return value.replace("%7C", "|").replace("%25", "%")
