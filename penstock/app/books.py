"""Everything of one worker that is about money and limits: the counters, its way to the ledger, the keys made at run
time. A database or a Redis that is slow or away is felt here, and no further.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import UTC, tzinfo
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from penstock.app.alerts import Alerts
from penstock.app.books_metrics import BooksMetrics
from penstock.app.errors import StartError
from penstock.app.follow_keys import KeyFollower
from penstock.app.options import BooksOptions
from penstock.app.spent import MOST_UNSURE, Spent, span_of
from penstock.config.secrets import resolved
from penstock.config.spec import Notify
from penstock.config.units import zone
from penstock.core.clock import Clock
from penstock.gateway.issued_keys import IssuedKeys
from penstock.gateway.plane import Plane
from penstock.limits.charges import Charge, Kind
from penstock.limits.limit import Account, Amounts, Limit
from penstock.limits.rules import Rules
from penstock.stores.base import Counters, CountersUnavailable, StoreFailed
from penstock.stores.begun import Begun
from penstock.stores.bookkeeper import Bookkeeper
from penstock.stores.counters_memory import HOLD, MemoryCounters
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.feedback import FeedbackStore, MemoryFeedback, SqlFeedback
from penstock.stores.flight import NONE
from penstock.stores.keys import SqlKeys
from penstock.stores.ledger import Ledger, Span, SqlLedger
from penstock.stores.spool import Spool
from penstock.stores.sql import Database
from penstock.stores.tenants import SqlTenants
from penstock.telemetry.metrics import Registry

if TYPE_CHECKING:  # hiredis is only imported where it is needed
    from penstock.stores.counters_redis import RedisCounters

ADOPT_EVERY: Final = 30.0  # seconds between looks for what dead workers left
LET_GO_EVERY: Final = 6 * 3600.0  # seconds between looks for rows that are older than they are kept
TOLD: Final = "told"  # the directory of what has been told of budgets
TEND_EVERY: Final = HOLD / 4
TEND_SHARED_EVERY: Final = 2.0  # seconds that what waited for the lock, or was held by the dead, is still counted
SURE_EVERY: Final = 1.0  # seconds between tries to look up budgets that could not be looked up
KEYS_WITHIN: Final = 10.0  # seconds for the keys to be read at the start
COUNTERS_WITHIN: Final = 1.0  # seconds for a connection to Redis at the start
CLOSE_WITHIN: Final = 5.0  # seconds for what waits to be written out at the end
USED_WITHIN: Final = 1.0  # seconds for when keys were last used


class Books:
    """Made before the gateway, which takes `counters`, `spent` and `record` from it; `open` before anybody is served.

    `directory` is what the workers of one host share, None for a worker alone. Tasks run in `group`.
    """

    def __init__(
        self,
        options: BooksOptions,
        *,
        group: asyncio.TaskGroup,
        clock: Clock,
        rng: Random,
        secret: Callable[[str], str],
        tell: Callable[[str], None],
        registry: Registry,
        directory: Path | None = None,
    ) -> None:
        """Raises `StartError`."""
        self.issued = IssuedKeys() if options.database else None
        self._options, self._group, self._clock, self._rng = options, group, clock, rng
        self._secret, self._tell = secret, tell
        self._rules, self._zone = Rules(()), _UTC
        self._retention = float("inf")
        self._thresholds: Mapping[str, Notify] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._database: Database | None = None
        self._ledger: Ledger | None = None
        self._spool: Spool | None = None
        self._bookkeeper: Bookkeeper | None = None
        self._follower: KeyFollower | None = None
        self._spent: Spent | None = None
        self._crashed: deque[Entry] = deque(maxlen=MOST_UNSURE)
        self._closed = False
        self._metrics = BooksMetrics(registry)
        self._redis: RedisCounters | None = None
        self._tend_every = TEND_EVERY
        self.counters = self._counters(directory)
        self.feedback: FeedbackStore = MemoryFeedback()
        marks = Path(options.spool) / TOLD if options.spool else directory and directory / TOLD
        self._alerts = Alerts(clock=clock, rng=rng, secret=secret, tell=tell, marks=marks)
        self._metrics.read_alerts(self._alerts)

    @property
    def keeps_ledger(self) -> bool:
        """Else `begin` and `record` need not be called."""
        return bool(self._options.database)

    async def open(self) -> None:
        """Returns when the keys are known, or when the database has had its time. Raises `StartError` for what can be
        mended; a database server that is away is not such a thing.
        """
        if self._options.database:
            await self._open_database(Path(self._options.spool))
        self._spawn(self._tend())
        self._spawn(self._alerts.run())
        if self._redis is not None:
            await self._redis.wait_connected(COUNTERS_WITHIN)
            with suppress(CountersUnavailable):
                await self.counters.tend()  # so that it knows how many others there are

    def serves(self, plane: Plane) -> None:
        """To be called with every plane, before its first request."""
        self._rules, self._zone = plane.rules, zone(plane.spec.timezone)
        self._retention, self._thresholds = plane.spec.ledger_retention, plane.spec.thresholds

    def begin(self, begun: Begun) -> int:
        """A request is about to be sent to its first upstream. The answer, its slot, is for `record`. Never raises."""
        return NONE if self._bookkeeper is None else self._bookkeeper.begin(begun)

    def record(self, entry: Entry, slot: int = NONE) -> None:
        """A request's row for the ledger. Never raises; a row that is lost is counted."""
        if self._bookkeeper is not None:
            self._bookkeeper.record(entry, slot)
        if self._follower is not None and entry.status not in _NOT_LET_IN:
            self._follower.used(entry.key_id, entry.at_micros / 1e6)

    async def spent(self, charges: tuple[Charge, ...]) -> dict[str, int]:
        """Nano-dollars by the counters of these budgets. Raises `CountersUnavailable`, see `Spent.of`."""
        return {} if self._spent is None else await self._spent.of(charges)

    def crossed(self, limit: Limit, charge: Charge, before: int, spent: int) -> None:
        """So much of a budget, in nano-dollars, is spent or reserved now; the last time it was `before` percent."""
        counted = self._rules.counted(charge.counter)
        if counted is None:  # a budget that a reload has just removed
            return
        notify = self._thresholds.get(limit.name)
        if notify is None and self.issued is not None:
            notify = self.issued.notify_of(counted.account.key, limit)
        notify = notify or _USUAL
        for percent in notify.shares:
            if before < percent <= spent * 100 // charge.limit and self._alerts.reached(
                counted, charge, percent, spent, notify
            ):
                self._metrics.reached(limit.name, percent)

    async def close(self, within: float = CLOSE_WITHIN) -> None:
        """After the last request: write everything out, as far as that is possible in this time. What is left is in the
        spool, for the next process.
        """
        if self._closed:
            return
        self._closed = True
        self._end_tasks()
        async with asyncio.TaskGroup() as closing:
            closing.create_task(self.counters.close())
            closing.create_task(self._write_out(within))
        await self._close_database()

    async def _write_out(self, within: float) -> None:
        if self._bookkeeper is not None:
            left = await self._bookkeeper.close(within)
            if left:
                self._tell(f"{left:,} rows of the ledger wait in {self._options.spool} for the next start.")
        if self._follower is not None:
            with suppress(StoreFailed, TimeoutError):
                async with asyncio.timeout(USED_WITHIN):
                    await self._follower.write_used()

    def let_go(self) -> None:
        """Instead of `close`, at once: what waits is in the spool. After it is harmless."""
        if self._closed:
            return
        self._closed = True
        self._end_tasks()
        if self._bookkeeper is not None:
            # requests that are cut off now write their rows in the next turns of the loop
            loop, bookkeeper = asyncio.get_running_loop(), self._bookkeeper
            loop.call_soon(loop.call_soon, loop.call_soon, bookkeeper.let_go)
        closing = self._close_database()
        try:
            self._group.create_task(closing)
        except RuntimeError:  # the group is ending, and the process with it
            closing.close()

    # --- beginning and end ---

    async def _open_database(self, spools: Path) -> None:
        try:
            self._database = await open_database(resolved(self._options.database, self._secret))
            self._spool = await asyncio.to_thread(Spool.claim, spools)
            self._ledger = SqlLedger(self._database)
            self.feedback = SqlFeedback(self._database)
            self._bookkeeper = Bookkeeper(
                self._ledger, self._spool, self._clock, self._rng, on_crashed=self._crashed.append
            )
        except (StoreFailed, LookupError) as error:
            await self._close_database()
            raise StartError(f"store: {error.args[0]}") from None
        self._spent = Spent(self._ledger, self._bookkeeper, spools, self._clock, self._span)
        assert self.issued is not None
        self._follower = KeyFollower(
            SqlKeys(self._database),
            SqlTenants(self._database),
            self.issued,
            self._clock,
            tell=self._tell,
            on_limits=lambda: self._rules.forget(),
        )
        bookkeeper, spent, follower = self._bookkeeper, self._spent, self._follower
        self._metrics.read_ledger(bookkeeper, self._clock, lambda: spent.unsure)
        self._metrics.read_keys(self.issued, self._clock, lambda: follower.synced_at)
        try:
            async with asyncio.timeout(KEYS_WITHIN):
                await self._follower.catch_up()
        except (StoreFailed, TimeoutError) as error:
            why = str(error) or f"no answer within {KEYS_WITHIN:g} s"
            self._tell(
                f"The database is away ({why}). Serving begins without the keys that were made at run time; rows of "
                f"the ledger wait in {self._options.spool}."
            )
        for task in (self._bookkeeper.run(), self._follower.run(), self._adopt(spools), self._let_go_of_the_old()):
            self._spawn(task)
        self._spawn(self._make_sure())

    async def _close_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):  # a server that is away need not be waited for
                    await database.close()

    def _spawn(self, task: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._group.create_task(task))

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _counters(self, directory: Path | None) -> Counters:
        """Of this process, of this host, or of all hosts that have the same Redis."""
        if not self._options.counters:
            if directory is None:
                return MemoryCounters(self._clock, on_over=self._metrics.over)
            from penstock.stores.counters_shared import SharedCounters

            try:
                shared = SharedCounters(directory / "counters", self._clock, on_over=self._metrics.over)
                self._metrics.read_counters(lambda: shared.lost, None)
                self._tend_every = TEND_SHARED_EVERY
                return shared
            except (OSError, CountersUnavailable) as error:
                raise StartError(f"The workers cannot count together in {directory}: {error}") from None
        if find_spec("hiredis") is None:
            raise StartError("store.counters needs hiredis. Install it with: pip install 'penstock[redis]'")
        from penstock.stores.counters_fallback import FallbackCounters
        from penstock.stores.counters_leased import FRESH, LeasedCounters
        from penstock.stores.counters_redis import RedisCounters

        try:
            url = resolved(self._options.counters, self._secret)
            redis = RedisCounters(url, on_over=self._metrics.over)
        except (ValueError, LookupError) as error:
            raise StartError(f"store.counters: {error.args[0]}") from None
        self._redis, self._tend_every = redis, FRESH / 4  # the others have to be heard of
        fallback = FallbackCounters(
            LeasedCounters(redis, self._clock, holders=lambda: redis.holders),
            lambda: MemoryCounters(self._clock, on_over=self._metrics.over),
            self._clock,
            holders=lambda: redis.holders,
        )
        self._metrics.read_counters(lambda: redis.lost, fallback)
        return fallback

    # --- now and then ---

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(self._tend_every)
            with suppress(CountersUnavailable):
                await self.counters.tend()

    async def _adopt(self, spools: Path) -> None:
        assert self._bookkeeper is not None
        while True:
            with suppress(StoreFailed, OSError):
                await self._bookkeeper.adopt(spools)
            await asyncio.sleep(ADOPT_EVERY * self._rng.uniform(0.5, 1.5))

    async def _make_sure(self) -> None:
        assert self._spent is not None
        while True:
            await asyncio.sleep(SURE_EVERY)
            while self._crashed and self._rules:
                self._spent.doubt(self._budgets_of(self._crashed.popleft()))
            with suppress(StoreFailed, OSError, CountersUnavailable):
                await self._spent.make_sure(self.counters)

    def _budgets_of(self, row: Entry) -> list[Charge]:
        """Of a request that died with its worker: counters let go of what it had reserved, and its row says more."""
        account = Account(row.org, row.team, row.key_id, row.user_hash, row.model)
        amounts = Amounts(row.input_tokens, row.output_tokens, row.cost_nanos or 0)
        applied = self._rules.apply(account, amounts, row.at_micros / 1e6)
        return [charge for charge in applied.charges if charge.kind is Kind.BUDGET]

    async def _let_go_of_the_old(self) -> None:
        assert self._ledger is not None
        while True:
            await asyncio.sleep(LET_GO_EVERY * self._rng.uniform(0.0, 1.0))
            with suppress(OSError):
                await asyncio.to_thread(self._alerts.forget)
            before = max(0, int((self._clock.wall() - self._retention) * 1e6))
            with suppress(StoreFailed):
                await self._ledger.let_go(before)
                await self.feedback.let_go(before)

    def _span(self, counter: str) -> Span | None:
        counted = self._rules.counted(counter)
        if counted is None or counted.limit.period is None:
            return None
        try:
            return span_of(counted, self._zone)
        except ValueError:  # a budget that had another period before a reload
            return None


_USUAL: Final = Notify()
_UTC: Final[tzinfo] = UTC
_NOT_LET_IN: Final = frozenset({401, 403})
