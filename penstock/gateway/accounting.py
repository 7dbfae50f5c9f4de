"""May this caller, now? And afterwards, what was it? Limits and budgets are reserved before anybody is asked, and then
settled with what was used, and the ledger gets its row. Nothing here waits for a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from penstock.core.errors import CostCapExceeded, LimitExceeded, Overloaded, Unpriced
from penstock.core.money import show
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.request import Attribution, Request, Usage
from penstock.gateway.max_tokens import is_capped
from penstock.gateway.plane import Plane, Route
from penstock.limits.charges import Charge, Granted, Refused, Unseeded, Verdict
from penstock.limits.estimate import Estimates
from penstock.limits.headers import rate_headers
from penstock.limits.limit import MONEY, Account, Amounts, Limit, Meter
from penstock.limits.refusal import refusal
from penstock.limits.rules import Applied
from penstock.pricing.bill import UNPRICED, Cost
from penstock.pricing.cost import cost_of, max_cost_nanos
from penstock.pricing.prices import Price, Row
from penstock.stores.base import Counters, CountersUnavailable
from penstock.stores.begun import Begun
from penstock.stores.entry import Entry
from penstock.stores.flight import NONE
from penstock.stores.receipts import entry_of
from penstock.wire.attribution import Vocabulary, attribution
from penstock.wire.prompts import decode_count, read_field

UNCAPPED: Final = 4_096  # tokens that an answer without a maximum is taken to have, until its model is known
SEEDS: Final = 3  # times that a budget may turn out to be unknown again while it is being looked up
MOST_TOLD: Final = 10_000  # budgets of which the last threshold is remembered
NOTHING: Final = Cost(0)

Spent = Callable[[tuple[Charge, ...]], Awaitable[Mapping[str, int]]]
"""What the ledger says was spent (nano-dollars) on the counter of each of these budgets, in its calendar window."""
Crossed = Callable[[Limit, Charge, int, int], object]
"""A budget has reached a share (percent) of its amount; the last argument is what is spent or reserved of it."""


class Bill:
    """One request's: whom it is for, what was reserved for it, what its answer may cost."""

    __slots__ = ("applied", "at", "attribution", "capped", "expected", "granted", "nanos", "slot")

    def __init__(self, attribution: Attribution) -> None:
        self.attribution = attribution
        self.at = 0.0  # Unix seconds, when it was opened; only where something holds for it
        self.slot = NONE  # where it stands while it is in flight
        self.capped = False  # it says how long its answer may be
        self.expected = 0  # tokens that its answer is taken to have
        self.nanos: int | None = None  # the most that it may cost then; None: not known, or nobody has asked
        self.applied: Applied | None = None
        self.granted: Granted | None = None

    def take(self, verdict: Granted | Refused) -> None:
        """Raises `LimitExceeded`."""
        applied = self.applied
        assert applied is not None, "asked only where there is something to reserve"
        if isinstance(verdict, Refused):
            told = refusal(applied, verdict)
            raise LimitExceeded(told.message, told.code, told.retry_after, rate_headers(applied, verdict.used))
        self.granted = verdict

    def headers(self) -> bytes:
        """What its caller may still use."""
        granted, applied = self.granted, self.applied
        return b"" if granted is None or applied is None else rate_headers(applied, granted.used)


class Accounting:
    """That of one worker. Bounded: words, estimates, thresholds; reservations are those of the requests in flight."""

    __slots__ = (
        "_begin", "_counters", "_estimates", "_on_crossing", "_on_entry", "_seeding", "_spent", "_told", "_vocabulary",
    )  # fmt: skip

    def __init__(
        self,
        counters: Counters,
        *,
        spent: Spent | None = None,
        begin: Callable[[Begun], int] | None = None,
        on_entry: Callable[[Entry, int], object] | None = None,
        on_crossing: Crossed | None = None,
    ) -> None:
        """Without `spent`, every budget begins with nothing spent. `begin` hears of each request before its upstream
        does, and `on_entry` gets its row for the ledger, with what `begin` has answered.
        """
        self._counters, self._spent, self._on_crossing = counters, spent, on_crossing
        self._begin, self._on_entry = begin, on_entry
        self._estimates = Estimates()
        self._vocabulary = Vocabulary()
        self._seeding = asyncio.Lock()
        self._told: dict[str, int] = {}  # by counter, the last threshold

    def attribute(self, plane: Plane, request: Request, header: Callable[[bytes], bytes | None]) -> Attribution:
        """Whom it is for. Raises `BadRequest` for a header of ours that is not as documented."""
        self._vocabulary.most = plane.spec.cost_tags
        return attribution(header, request.fields, request.caller.org, plane.keyring.user_secret, self._vocabulary)

    def expects(self, request: Request) -> int:
        """How many tokens all its answers together are taken to have."""
        return self._expected(request, is_capped(request))

    def open(
        self,
        plane: Plane,
        route: Route,
        request: Request,
        header: Callable[[bytes], bytes | None],
        said: Attribution | None = None,
    ) -> Bill:
        """Whom it is for (`said`, where `attribute` was asked before), and what holds for it; nothing is taken yet.
        Raises `CostCapExceeded` and `Unpriced`, and what `attribute` does.
        """
        caller, rules = request.caller, plane.rules
        bill = Bill(self.attribute(plane, request, header) if said is None else said)
        if self._begin is None and caller.max_cost is None and not rules:
            return bill
        bill.capped = is_capped(request)
        bill.expected = expected = self._expected(request, bill.capped)
        bill.at = wall = plane.clock.wall()
        if rules.counts_money or caller.max_cost is not None or self._begin is not None:
            bill.nanos = _most_nanos(route, request, expected, wall)
        nanos = bill.nanos
        if caller.max_cost is not None:
            _within(caller.max_cost, nanos, request.model)
        if rules:
            # free models: budgets do not apply; those without a price: they do, and hard ones refuse
            charged = None if nanos == 0 else nanos or 0
            account = Account(caller.org, caller.team, caller.key_id, bill.attribution.user_hash, request.model)
            applied = rules.apply(account, Amounts(request.prompt_tokens, expected, charged), wall)
            if nanos is None and rules.counts_money:
                _of_known_price(applied, request.model)
            if applied.charges:
                bill.applied = applied
        return bill

    def reserve_now(self, bill: Bill, id: str) -> bool:
        """False: it has to be asked elsewhere, with `reserve`. Otherwise as that."""
        applied = bill.applied
        assert applied is not None, "asked only where there is something to reserve"
        try:
            verdict = self._counters.reserve_now(id, applied.charges)
        except CountersUnavailable:
            raise _unavailable() from None
        if verdict is None or isinstance(verdict, Unseeded):
            return False
        bill.take(verdict)
        return True

    async def reserve(self, bill: Bill, id: str) -> None:
        """Everything, or nothing and it raises: `LimitExceeded`, and `Overloaded` when nobody can say."""
        applied = bill.applied
        assert applied is not None, "asked only where there is something to reserve"
        bill.take(await self._reserve(id, applied.charges))

    def begin(self, bill: Bill, route: Route, request: Request) -> None:
        """Its upstream is about to hear of it."""
        if self._begin is not None:
            bill.slot = self._begin(_begun(bill, route, request))

    def _expected(self, request: Request, capped: bool) -> int:
        """How many tokens all answers together are taken to have."""
        tokens = request.max_tokens
        if tokens and not capped:
            tokens = self._estimates.expect(request.model, request.caller.key_id, UNCAPPED)
        return tokens * _choices(request)

    async def _reserve(self, id: str, charges: tuple[Charge, ...]) -> Granted | Refused:
        try:
            verdict: Verdict = await self._counters.reserve(id, charges)
            if isinstance(verdict, Unseeded):
                async with self._seeding:  # one look-up for all who wait for it
                    for _ in range(SEEDS):
                        verdict = await self._counters.reserve(id, charges)
                        if not isinstance(verdict, Unseeded):
                            return verdict
                        await self._seed([charge for charge in charges if charge.counter in verdict.counters])
                raise CountersUnavailable("budgets are forgotten as fast as they are looked up")
            return verdict
        except CountersUnavailable:
            raise _unavailable() from None

    async def _seed(self, charges: list[Charge]) -> None:
        spent = {} if self._spent is None else await self._spent(tuple(charges))
        for charge in charges:
            await self._counters.seed(charge.counter, spent.get(charge.counter, 0), charge.window)

    def settle(self, bill: Bill, request: Request, outcome: Outcome) -> None:
        """What was reserved is given back or charged. Never waits, never raises for what anybody has said."""
        usage, nanos = outcome.usage, outcome.cost_nanos or 0
        granted, applied = bill.granted, bill.applied
        if granted is None and bill.slot == NONE:
            return
        if granted is not None and applied is not None:
            used = Amounts(usage.prompt_tokens, usage.completion_tokens, nanos)
            costs = applied.costs(used)
            self._counters.settle(granted, costs)
            if self._on_crossing is not None:
                self._look_at_budgets(applied, granted, costs)
        if not bill.capped and outcome.error is None and usage.completion_tokens:
            self._estimates.learn(request.model, request.caller.key_id, UNCAPPED, usage.completion_tokens)

    def record(self, outcome: Outcome, bill: Bill | None, cost: Cost) -> None:
        """The ledger's row, of refused requests too."""
        if self._on_entry is not None:
            entry = entry_of(outcome, price_version="" if cost.row is None else _version(cost.row))
            self._on_entry(entry, NONE if bill is None else bill.slot)

    def _look_at_budgets(self, applied: Applied, granted: Granted, costs: list[int]) -> None:
        """Tell of the thresholds that this request has crossed, as far as this worker knows what others reserve."""
        meters = applied.placed.meters
        for n, charge in enumerate(applied.charges):
            if meters[n] != MONEY or not charge.limit:
                continue
            spent = granted.used[n] - charge.cost + costs[n]
            share = spent * 100 // charge.limit
            before = self._told.get(charge.counter, 0)
            if share > before:
                if len(self._told) >= MOST_TOLD:
                    del self._told[next(iter(self._told))]
                self._told[charge.counter] = share
                assert self._on_crossing is not None
                self._on_crossing(applied.limits[n], charge, before, spent)


def cost_of_answer(usage: Usage, source: UsageSource, price: Price | None, at: float) -> Cost:
    """What the upstream asks for its answer. Nobody knows it for what nobody counted, unless it is free."""
    if price is None:
        return UNPRICED
    if source is UsageSource.NONE:
        row = price.at(at)
        return cost_of(usage if row is not None and row.free else None, price, at)
    return cost_of(usage, price, at)


def _begun(bill: Bill, route: Route, request: Request) -> Begun:
    caller, said = request.caller, bill.attribution
    return Begun(
        request_id=request.id,
        at=bill.at,
        org=caller.org,
        team=caller.team,
        key_id=caller.key_id,
        user_hash=said.user_hash,
        feature=said.feature,
        session=said.session,
        tags=said.tags,
        model=request.model,
        deployment=route.plan.deployments[0],
        endpoint=request.endpoint,
        prompt_tokens=request.prompt_tokens,
        max_tokens=bill.expected,
        cost_nanos=bill.nanos,
    )


def _choices(request: Request) -> int:
    """How many answers are asked for at once."""
    fields = request.fields
    n = read_field(fields, "n", decode_count) if "n" in fields else None
    return n if n is not None and n > 0 else 1


def _most_nanos(route: Route, request: Request, expected: int, wall: float) -> int | None:
    """What it may cost wherever it is sent; None when that is not known of all places."""
    if not route.asks:
        return _dearest(route.prices.values(), request, expected, wall)
    total = 0
    for prices in route.asks:
        nanos = _dearest(prices, request, expected, wall)
        if nanos is None:
            return None
        total += nanos
    return total


def _dearest(prices: Iterable[Price | None], request: Request, expected: int, wall: float) -> int | None:
    most = 0
    for price in prices:
        nanos = max_cost_nanos(request.prompt_tokens, expected, price, wall)
        if nanos is None:
            return None
        most = max(most, nanos)
    return most


def _unavailable() -> Overloaded:
    return Overloaded("Limits and budgets cannot be checked at the moment; try again shortly.", retry_after=1.0)


def _within(max_cost: int, nanos: int | None, model: str) -> None:
    if nanos is None:
        raise Unpriced(f"What the model {model!r} costs is not known, and this key has a limit for each request.")
    if nanos > max_cost:
        raise CostCapExceeded(
            f"This request may cost {show(nanos)}, and one request of this key may cost {show(max_cost)} at most. A "
            "smaller `max_tokens` may help."
        )


def _of_known_price(applied: Applied, model: str) -> None:
    """Who spends from a hard budget must know what it costs."""
    for limit in applied.limits:
        if limit.meter is Meter.MONEY and not limit.soft:
            raise Unpriced(f"What the model {model!r} costs is not known, and the budget {limit.name!r} is a hard one.")


def _version(row: Row) -> str:
    return row.source if row.valid_from is None else f"{row.source} {row.valid_from}"
