"""Workers that are killed in the middle of everything, under load, and books that are right all the same.

Callers stream, some leave in the middle, the provider refuses some; meanwhile workers are killed, at random, with no
time for a last word. Afterwards nothing is reserved any more, and the ledger says of every single request what the
provider says. PENSTOCK_KILLS=200 kills so many (`make bench-crash`); without, a few.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import uvloop

from penstock.app import workers
from penstock.app.serve import ServeOptions
from penstock.core.clock import SystemClock
from penstock.core.keys import ENTROPY_BYTES, digest, mint
from penstock.http.client import Pool, TransportError
from penstock.limits.charges import Charge, Kind
from penstock.platforms.processes import ProcessOptions
from penstock.pricing.usage_report import read_report
from penstock.stores.base import CountersUnavailable
from penstock.stores.begun import GATEWAY_CRASHED
from penstock.stores.bookkeeper import Bookkeeper
from penstock.stores.corrections import Corrections
from penstock.stores.costs import Costs, Question
from penstock.stores.counters_shared import SharedCounters
from penstock.stores.databases import open_database
from penstock.stores.entry import CORRECTION, Entry
from penstock.stores.ledger import Span, SqlLedger
from penstock.stores.spool import Spool
from tests.app.billing_provider import PRICE, BillingProvider, marker
from tests.app.driver import Running, serving
from tests.app.test_workers import children

pytestmark = pytest.mark.journey

KILLS = int(os.environ.get("PENSTOCK_KILLS", "5"))
WORKERS, CALLERS = 3, 24
ALWAYS = 2**53
KEY = mint(bytes(ENTROPY_BYTES))
SLOTS = Charge("slots|web", Kind.GAUGE, 1_000, 0)
MONEY = Charge("money|web|total", Kind.BUDGET, 10**12, 0, 60)


def config(provider: BillingProvider) -> str:
    return f"""
models: {{ chat: {{ deployments: [paid], on_disconnect: drain }} }}
deployments: {{ paid: {{ engine: {provider.address}, served: small, price: {PRICE} }} }}
limits:
  tokens: {{ tokens: 1000M/d }}
  slots: {{ concurrent_requests: 1000 }}
budgets: {{ money: {{ amount: $1000, every: total }} }}
keys: [{{ id: web, sha256: {digest(KEY)} }}]
server: {{ port: 0, drain: 20s, access_log: off }}
"""


class Asked:
    """The receiver of one answer."""

    def __init__(self) -> None:
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._status = 0

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status

    def on_data(self, data: bytes, ended: bool) -> None:
        if ended:
            self.over.set_result(str(self._status))

    def on_failure(self, failure: TransportError) -> None:
        self.over.set_result("cut")


async def call(pool: Pool, rng: Random, seen: Counter[str]) -> None:
    n_tokens = min(400, 1 + int(rng.lognormvariate(4, 1)))
    question = "why is it so? " * rng.randrange(1, 30) + marker(n_tokens, 2_000)
    fields = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": question}]}
    if rng.random() < 0.7:
        fields["max_tokens"] = rng.choice((50, 200, 800))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode()
    asked = Asked()
    sent = pool.send(head, b"", json.dumps(fields).encode(), asked)
    patience = rng.uniform(0.0, 0.3) if rng.random() < 0.2 else None
    done, _ = await asyncio.wait({asked.over}, timeout=patience)
    if done:
        seen[asked.over.result()] += 1
        if asked.over.result() == "cut":
            await asyncio.sleep(rng.uniform(0.0, 0.1))  # or refused connections would be most of what happens
    else:
        sent.close()
        seen["left"] += 1


async def besiege(server: Running, provider: BillingProvider, rng: Random) -> Counter[str]:
    """Load and kills together; returns when all is quiet again."""
    seen: Counter[str] = Counter()
    pool = Pool(f"http://127.0.0.1:{server.port}")
    stopped = asyncio.Event()

    async def caller(own: Random) -> None:
        while not stopped.is_set():
            await call(pool, own, seen)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller(Random(rng.random())))
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.1, 0.9))
            while not (living := children()):  # noqa: ASYNC110  nobody tells when another one lives
                await asyncio.sleep(0.05)
            os.kill(rng.choice(living), signal.SIGKILL)
        await asyncio.sleep(0.5)
        stopped.set()
    while provider.busy:  # noqa: ASYNC110  answers whose callers left are read to their end
        await asyncio.sleep(0.05)
    pool.abort()
    return seen


def counters_of(folder: Path) -> Path:
    """What the workers share, in the directory that their parent has made."""
    (file,) = folder.glob("penstock-*/counters")
    return file


async def looked_at(file: Path) -> tuple[int, int]:
    """How many requests hold a slot, and what is spent or reserved of the budget, when the dead have been let go."""
    holder = SharedCounters(file, SystemClock())
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    await holder.tend()
                    in_use, spent = await holder.used((SLOTS, MONEY))
                except CountersUnavailable:  # so many processes on few cores
                    continue
                if not in_use:
                    holder.check()
                    return in_use, spent
                await asyncio.sleep(0.05)  # the last answers are ending
    finally:
        await holder.close()


async def rows_of(ledger: SqlLedger) -> list[Entry]:
    found: list[Entry] = []
    while page := await ledger.entries(0, ALWAYS, after=found[-1] if found else None):
        found += page
    return found


def told(rows: list[Entry]) -> Counter[str]:
    """Nano-dollars by request, corrections and all."""
    nanos: Counter[str] = Counter()
    for row in rows:
        nanos[row.request_id.partition("+")[0]] += row.cost_nanos or 0
    return nanos


@pytest.mark.timeout(240 + 4 * KILLS)
def test_whoever_is_killed_and_whenever_the_books_say_what_the_provider_says(
    monkeypatch: pytest.MonkeyPatch, rng: Random
) -> None:
    """Takes some seconds: processes are started, and killed."""
    options = ProcessOptions(ready_within=60.0, backoff_base=0.0, backoff_cap=0.0, give_up_after=10**9)
    monkeypatch.setattr(workers, "child_options", lambda drain_seconds: options)

    async def story(folder: Path) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        (folder / "penstock.yaml").touch()
        async with BillingProvider(Random(rng.random()), failing=0.03) as provider:
            (folder / "penstock.yaml").write_text(config(provider))
            seen, spent = Counter[str](), 0

            async def use(server: Running) -> None:
                nonlocal seen, spent
                seen = await besiege(server, provider, rng)
                in_use, spent = await looked_at(counters_of(folder))
                assert in_use == 0

            served = ServeOptions(config_path=str(folder / "penstock.yaml"), workers=WORKERS)
            code, _ = await serving(served, use, within=180 + 4 * KILLS)
            assert code == 0
            await compare(folder, provider, seen, spent)

    with (
        tempfile.TemporaryDirectory(prefix="crash-") as place,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as run,
    ):
        run.run(story(Path(place)))


async def compare(folder: Path, provider: BillingProvider, seen: Counter[str], spent: int) -> None:
    database = await open_database(str(folder / "penstock.db"))
    try:
        ledger, spools = SqlLedger(database), folder / "penstock.spool"
        last = Bookkeeper(ledger, Spool.claim(spools), SystemClock(), Random(1))
        await last.adopt(spools)  # what those left who were killed last
        assert await last.close(10) == 0

        rows, billed = await rows_of(ledger), Counter[str]()
        for one in provider.served:
            billed[one.id] += one.nanos
        booked = told(rows)
        assert len(booked) == len(rows), "a request has one row"
        assert not billed.keys() - booked.keys(), "the provider got it, and it is not in the ledger"
        crashed = {row.request_id for row in rows if row.error == GATEWAY_CRASHED}
        wrong = {id for id in booked if booked[id] != billed[id]}
        assert wrong <= crashed, [(booked[id], billed[id]) for id in wrong - crashed][:5]
        assert crashed
        ended = sum(row.cost_nanos or 0 for row in rows if row.request_id not in crashed)
        assert ended <= spent, "what has been spent is counted"

        corrections, report = Corrections(database), read_report(provider.report())
        done = await corrections.apply(report, complete=Span((), 0, ALWAYS))
        assert done.unknown == done.unpriced == 0
        again = await corrections.apply(report, complete=Span((), 0, ALWAYS))
        assert again.corrected == 0

        rows = await rows_of(ledger)
        assert +told(rows) == +billed
        total = (await Costs(database).sums(Question())).total
        assert total.cost_nanos == sum(one.nanos for one in provider.served)
        assert await ledger.disagreeing_hours(0, ALWAYS) == []
        sys.stdout.write(
            f"{KILLS} killed; callers saw {dict(seen)}; the provider served {len(provider.served)} and refused "
            f"{provider.failed}; {len(crashed)} rows of crashed requests, {done.corrected} corrected by {done.nanos} "
            f"nano-dollars ({done.never_got} that it never got) of {total.cost_nanos}\n"
        )
        assert sum(row.usage_source == CORRECTION for row in rows) == done.corrected
    finally:
        await database.close()
