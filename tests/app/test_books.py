"""Money and limits in a running server: rows outlive processes, keys come and go, databases may be away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import uvloop
from msgspec import structs

from penstock.app.books import TEND_EVERY, Books
from penstock.app.errors import StartError
from penstock.app.options import BooksOptions
from penstock.app.register import Register, books_options
from penstock.app.serve import ServeOptions
from penstock.app.source import ConfigSource
from penstock.config.spec import GrantSpec
from penstock.config.stored_keys import KeyOptions, read_options, write_options
from penstock.core.clock import SystemClock
from penstock.core.keys import ENTROPY_BYTES, digest, mint
from penstock.core.request import Caller
from penstock.gateway.keyring import Keyring
from penstock.limits.charges import Granted, Unseeded
from penstock.limits.limit import Account, Amounts, Limit, Meter
from penstock.limits.periods import Period
from penstock.limits.rules import Rules
from penstock.stores.base import CountersUnavailable
from penstock.stores.begun import Begun
from penstock.stores.counters_fallback import FallbackCounters
from penstock.stores.counters_memory import MemoryCounters
from penstock.stores.counters_shared import SharedCounters
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.keys import SqlKeys, StoredKey
from penstock.stores.ledger import SqlLedger
from penstock.stores.migrate import migrate, schema_status
from penstock.stores.spool import Spool
from penstock.stores.sql import Database, Table
from penstock.stores.tenants import StoredTenant
from penstock.stores.tenants import creation as tenant_creation
from penstock.telemetry.metrics import Registry
from tests.app.driver import Running, serving
from tests.app.fake_engine import FakeEngine
from tests.app.test_alerts import Hook
from tests.app.test_workers import children, metric
from tests.stores.conftest import empty_schema
from tests.stores.postgres_server import PostgresServer, postgres_server
from tests.stores.redis_server import redis_server
from tests.worlds import spec as plane_spec

ALWAYS = 2**53
NOW = 1_800_000_000.0
SECRET = mint(bytes(ENTROPY_BYTES))


def run(story: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(story)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


def entry(n: int, **fields: Any) -> Entry:
    return Entry(f"r{n}", round((NOW + n) * 1e6), **fields)


class FixedClock(SystemClock):
    """Wall time stands still, so that it is in one month."""

    @staticmethod
    def wall() -> float:
        return NOW


@contextlib.asynccontextmanager
async def books(
    options: BooksOptions, *, directory: Path | None = None, told: list[str] | None = None, clean: bool = True
) -> AsyncIterator[Books]:
    """Opened, over a database with the newest schema; closed as at the end of a server, or let go as at a crash."""
    if options.database and "://" not in options.database:
        database = await open_database(options.database)
        await migrate(database, 0.0)
        await database.close()
    lines = [] if told is None else told
    async with asyncio.TaskGroup() as group:
        made = Books(
            options,
            group=group,
            clock=FixedClock(),
            rng=Random(1),
            secret=lambda reference: os.environ[reference.removeprefix("env:")],
            tell=lines.append,
            registry=Registry(),
            directory=directory,
        )
        try:
            await made.open()
            yield made
            if clean:
                await made.close()
        finally:
            made.let_go()


def sqlite(folder: Path) -> BooksOptions:
    return BooksOptions(database=str(folder / "penstock.db"), spool=str(folder / "penstock.spool"))


async def rows(url: str) -> list[Entry]:
    database = await open_database(url)
    try:
        return await SqlLedger(database).entries(0, ALWAYS)
    finally:
        await database.close()


async def until(true: Callable[[], bool | Awaitable[bool]]) -> None:
    """Other threads and processes ring no bell here."""
    async with asyncio.timeout(25):
        while not (await found if isinstance(found := true(), Awaitable) else found):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def n_rows(url: str, n: int) -> bool:
    return len(await rows(url)) == n


async def answered(server: Running, secret: str, status: int) -> bool:
    return (await server.chat(key=secret))[0] == status


# --- where the books are ---


def source(folder: Path, text: str = "") -> tuple[Any, ConfigSource]:
    (folder / "gateway.yaml").write_text(
        "models: { chat: { deployments: [local] } }\ndeployments: { local: { engine: http://127.0.0.1:9 } }\n" + text
    )
    found = ConfigSource(path=str(folder / "gateway.yaml"), text=None, engine_replicas=None)
    return found.read(), found


@pytest.mark.parametrize(
    ("text", "database", "spool"),
    [
        ("", "{}/penstock.db", "{}/penstock.spool"),
        ("store: { database: books/a.db }", "{}/books/a.db", "{}/books/a.spool"),
        ("store: { database: 'sqlite:///a.db', spool: waits }", "{}/a.db", "{}/waits"),
        ("store: { database: env:PLACE }", "{}/from-env.db", "{}/from-env.spool"),
        ("store: { database: env:SERVER }", "env:SERVER", "{}/gateway.spool"),
        ("store: { database: 'postgres://a@b/c' }", "postgres://a@b/c", "{}/gateway.spool"),
        ("store: { database: off }", "", ""),
    ],
)
def test_the_books_are_beside_the_file_unless_it_says_otherwise(
    tmp_path: Path, text: str, database: str, spool: str
) -> None:
    secrets = {"env:PLACE": "from-env.db", "env:SERVER": "postgres://a:secret@b/c"}
    options = books_options(*source(tmp_path, text), secrets.__getitem__)
    assert options == BooksOptions(database=database.format(tmp_path), spool=spool.format(tmp_path))


def test_without_a_file_there_is_no_ledger_and_that_is_said() -> None:
    async def story() -> None:
        async with FakeEngine("one") as engine:

            async def use(server: Running) -> None:
                assert (await server.chat())[0] == 200
                await server.until_told("No ledger is kept")

            await serving(ServeOptions(config_text=text_of(engine), insecure_dev=True), use)

    run(story())


def open_register(options: BooksOptions, told: list[str] | None = None, asked: bool = True) -> Any:
    async def story() -> tuple[Register, Any]:
        register = await Register.open(
            options,
            asked=asked,
            clock=SystemClock(),
            secret=os.environ.__getitem__,
            tell=([] if told is None else told).append,
        )
        await register.close()
        return register

    return run(story())


def test_an_empty_sqlite_file_gets_the_schema_without_a_word_and_an_older_one_with_a_word_for_each_step(
    tmp_path: Path,
) -> None:
    options = sqlite(tmp_path)
    told: list[str] = []
    open_register(options, told)
    assert told == []

    async def older(database: Database) -> None:
        await migrate(database, 0.0, upto=2)

    (tmp_path / "penstock.db").unlink()
    run(with_database(options.database, older))
    open_register(options, told)
    assert "applied 0003 tenants" in told[0]

    async def whole(database: Database) -> None:
        assert not (await schema_status(database)).pending

    run(with_database(options.database, whole))


async def with_database(url: str, work: Callable[[Database], Any]) -> None:
    database = await open_database(url)
    try:
        await work(database)
    finally:
        await database.close()


def test_a_server_database_is_not_migrated_by_itself_and_the_refusal_names_the_verb(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = run(empty_schema(postgres))
    with pytest.raises(StartError, match="penstock db migrate"):
        open_register(BooksOptions(database=url, spool=str(tmp_path / "s")))


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("mysql://x", "store.database: a database is postgres://"),
        ("{}/no/such/folder.db", "store.database: .* cannot be used as a database"),
        ("{}", "store.database: .* cannot be used as a database"),
    ],
)
def test_a_database_that_cannot_be_one_is_a_sentence(tmp_path: Path, place: str, says: str) -> None:
    with pytest.raises(StartError, match=says):
        open_register(BooksOptions(database=place.format(tmp_path), spool=str(tmp_path / "s")))


def test_a_database_of_another_program_is_a_sentence_and_not_overwritten(tmp_path: Path) -> None:
    options = sqlite(tmp_path)
    Path(options.database).write_bytes(b"this is not a database, but somebody needs it" * 100)
    with pytest.raises(StartError, match=r"store\.database"):
        open_register(options)
    assert Path(options.database).read_bytes().startswith(b"this is not")


def test_where_nobody_asked_for_a_ledger_and_none_can_be_kept_serving_begins_without(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "penstock.db").mkdir()
    register = open_register(sqlite(tmp_path), told, asked=False)
    assert register.options == BooksOptions()
    assert "No ledger is kept, because of" in told[0]


def test_a_password_in_an_address_is_never_told(tmp_path: Path, postgres: PostgresServer) -> None:
    told: list[str] = []
    url = postgres.url.replace("penstock@", "penstock:hunter2@").replace("/postgres", "/nowhere")
    with pytest.raises(StartError) as refused:
        open_register(BooksOptions(database=url, spool=str(tmp_path / "s")), told)
    assert "nowhere" in str(refused.value)
    away = BooksOptions(database="postgres://x:hunter2@127.0.0.1:9/y", spool=str(tmp_path / "s"))
    assert open_register(away, told).n_keys == 1  # there may be keys: nobody is let in without one
    assert "The database is away" in told[0]
    assert "hunter2" not in str(refused.value) + "".join(told)


# --- rows ---


def test_what_is_recorded_is_in_the_ledger_when_it_ends_and_in_the_spool_when_it_is_cut_off(tmp_path: Path) -> None:
    async def story() -> None:
        options = sqlite(tmp_path)
        async with books(options) as one:
            one.record(entry(1))
        assert [row.request_id for row in await rows(options.database)] == ["r1"]
        async with books(options, clean=False) as one:
            one.let_go()
            one.record(entry(2))  # the last words of a request that is cut off
            assert [row.request_id for row in await rows(options.database)] == ["r1"]
        async with books(options):
            pass
        assert [row.request_id for row in await rows(options.database)] == ["r1", "r2"]

    run(story())


def test_the_rows_of_a_dead_worker_are_adopted_by_one_that_has_its_own_spool(tmp_path: Path) -> None:
    async def story() -> None:
        options = sqlite(tmp_path)
        first, second = Spool.claim(Path(options.spool)), Spool.claim(Path(options.spool))
        async with books(options) as one:
            one.record(entry(1))
            second.close()
            first.close()
        assert len(await rows(options.database)) == 1

    run(story())


def test_a_database_that_is_away_makes_nobody_wait_and_gets_everything_when_it_is_back(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async def story() -> None:
        url = await empty_schema(postgres)
        await with_database(url, lambda database: migrate(database, 0.0))
        options = BooksOptions(database=url, spool=str(tmp_path / "spool"))
        told: list[str] = []
        await asyncio.to_thread(postgres.stop)
        async with books(options, told=told) as one:
            try:
                assert "The database is away" in told[0]
                one.record(entry(1))
            finally:
                await asyncio.to_thread(postgres.start)
            await until(lambda: n_rows(url, 1))
            await asyncio.to_thread(postgres.stop)
            try:
                one.record(entry(2))
                await until(lambda: any("does not answer" in line for line in told))
            finally:
                await asyncio.to_thread(postgres.start)
            await until(lambda: told[-1] == "The database answers again.")
        assert [row.request_id for row in await rows(url)] == ["r1", "r2"]

    run(story())


# --- what was spent ---

BUDGET = Limit("money", Meter.MONEY, 1000, period=Period.MONTH, per=("org", "team"))


def charges(rules: Rules, *accounts: Account, cost: int = 10) -> Any:
    return tuple(charge for one in accounts for charge in rules.apply(one, Amounts(1, 1, cost), NOW).charges)


def with_rules(one: Books, *limits: Limit) -> Rules:
    rules = Rules(limits)
    one._rules = rules
    return rules


def test_what_was_spent_is_of_whom_the_budget_is_and_of_this_month(tmp_path: Path) -> None:
    async def story() -> None:
        options = sqlite(tmp_path)
        async with books(options) as one:
            rules = with_rules(one, BUDGET, structs.replace(BUDGET, name="of users", per=("org", "user")))
            mine = {"org": "acme", "team": "search", "user_hash": "u"}
            for n, fields in enumerate(
                (
                    {**mine, "cost_nanos": 1},
                    {**mine, "cost_nanos": None},
                    {**mine, "cost_nanos": 2, "key_id": "other"},
                    {**mine, "cost_nanos": 4, "user_hash": "v"},
                    {**mine, "cost_nanos": 8, "team": "ads"},
                    {**mine, "cost_nanos": 16, "org": "other"},
                )
            ):
                one.record(entry(n, **fields))
            one.record(Entry("last month", round((NOW - 40 * 86_400) * 1e6), cost_nanos=32, **mine))
            asked = charges(rules, Account("acme", "search", "k", "u"))
            spent = await one.spent(asked)
            assert [spent[charge.counter] for charge in asked] == [1 + 2 + 4, 1 + 2 + 8]

    run(story())


def test_what_waits_in_the_spools_of_others_is_spent_too(tmp_path: Path) -> None:
    async def story() -> None:
        options = sqlite(tmp_path)
        async with books(options) as one, books(options, clean=False) as other:
            rules = with_rules(one, BUDGET)
            for task in other._tasks:
                task.cancel()  # it is slow to write
            for n in range(3):
                other.record(entry(n, org="acme", team="search", cost_nanos=5))
            asked = charges(rules, Account("acme", "search"))
            assert await one.spent(asked) == {asked[0].counter: 15}
            assert len(await rows(options.database)) == 3
            assert other._bookkeeper is not None
            assert other._bookkeeper.waiting == 3

    run(story())


def test_a_budget_that_cannot_be_looked_up_is_what_waits_here_and_is_put_right_later(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async def story() -> None:
        url = await empty_schema(postgres)
        await with_database(url, lambda database: migrate(database, 0.0))
        await with_database(
            url, lambda database: SqlLedger(database).append([entry(0, org="acme", team="search", cost_nanos=900)])
        )
        async with books(BooksOptions(database=url, spool=str(tmp_path / "spool"))) as one:
            rules = with_rules(one, BUDGET)
            (charge,) = charges(rules, Account("acme", "search"))
            await asyncio.to_thread(postgres.stop)
            try:
                one.record(entry(1, org="acme", team="search", cost_nanos=7))
                one.record(entry(2, org="acme", team="ads", cost_nanos=70))
                strict = structs.replace(charge, strict=True)
                with pytest.raises(CountersUnavailable):
                    await one.spent((strict,))
                assert isinstance(await one.counters.reserve("a", (charge,)), Unseeded)
                assert await one.spent((charge,)) == {charge.counter: 7}
                await one.counters.seed(charge.counter, 7, charge.window)
                granted = await one.counters.reserve("b", (charge,))
                assert isinstance(granted, Granted)
            finally:
                await asyncio.to_thread(postgres.start)

            async def put_right() -> bool:
                return await one.counters.used((charge,)) == (907 + 10,)

            await until(put_right)
            assert one._spent is not None
            assert one._spent.unsure == 0

    run(story())


def test_what_a_dead_worker_had_in_flight_is_spent_of_its_budgets(tmp_path: Path) -> None:
    async def story() -> None:
        options = sqlite(tmp_path)
        async with books(options) as one:
            rules = with_rules(one, BUDGET)
            (charge,) = charges(rules, Account("acme", "search"))
            assert isinstance(await one.counters.reserve("a", (charge,)), Unseeded)
            await one.counters.seed(charge.counter, 5, charge.window)
            async with books(options, clean=False) as other:
                for n in range(3):
                    begun = Begun(f"r{n}", NOW, org="acme", team="search", cost_nanos=100)
                    slot = other.begin(begun)
                assert slot == 2
                other.record(entry(2, org="acme", team="search", cost_nanos=7), slot)
            await asyncio.sleep(0)
            assert one._bookkeeper is not None

            async def known() -> bool:
                return await one.counters.used((charge,)) == (207,)

            assert not await known()
            await one._bookkeeper.adopt(Path(options.spool))
            await until(known)
            assert [row.error for row in await rows(options.database)] == ["gateway_crashed"] * 2 + [None]

    run(story())


# --- counters ---


def test_a_worker_alone_counts_in_memory_several_in_a_file_and_hosts_in_redis(tmp_path: Path) -> None:
    async def story(url: str) -> None:
        async with books(BooksOptions()) as one:
            assert type(one.counters) is MemoryCounters
        async with books(BooksOptions(), directory=tmp_path) as one, books(BooksOptions(), directory=tmp_path) as two:
            assert type(one.counters) is SharedCounters
            rules = Rules([Limit("r", Meter.REQUESTS, 1, 60)])
            assert isinstance(await one.counters.reserve("a", charges(rules, Account(key="k"))), Granted)
            assert not isinstance(await two.counters.reserve("b", charges(rules, Account(key="k"))), Granted)
        os.environ["PENSTOCK_TEST_REDIS"] = url
        async with books(BooksOptions(counters="env:PENSTOCK_TEST_REDIS"), directory=tmp_path) as one:
            assert type(one.counters) is FallbackCounters
            await until(lambda: one.counters._shared._shared.connected)  # type: ignore[attr-defined]
            assert isinstance(await one.counters.reserve("a", charges(rules, Account(key="k"))), Granted)
            assert one.counters.alone == 0

    with redis_server(tmp_path) as url:
        run(story(url))


def test_what_a_dead_worker_held_is_given_back_within_seconds(tmp_path: Path) -> None:
    async def story() -> None:
        slots = charges(Rules([Limit("s", Meter.CONCURRENT_REQUESTS, 1)]), Account(key="k"))
        async with books(BooksOptions(), directory=tmp_path) as one:
            async with books(BooksOptions(), directory=tmp_path) as other:
                assert isinstance(await other.counters.reserve("a", slots), Granted)
            assert await one.counters.used(slots) == (1,)

            async def free() -> bool:
                return await one.counters.used(slots) == (0,)

            async with asyncio.timeout(TEND_EVERY / 2):
                await until(free)

    run(story())


def refused_counters(place: str) -> str:
    async def story() -> None:
        async with books(BooksOptions(counters=place)):
            raise AssertionError

    with pytest.raises(BaseException) as refused:  # noqa: PT011 - in a group or alone
        run(story())
    error = refused.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, StartError)
    return str(error)


@pytest.mark.parametrize(("place", "says"), [("http://x", "begins with redis://"), ("env:NOT_SET", "NOT_SET")])
def test_an_address_of_counters_that_is_none_is_a_sentence(place: str, says: str) -> None:
    told = refused_counters(place)
    assert "store.counters" in told
    assert says in told


def test_counters_in_redis_without_its_library_are_a_sentence_that_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("penstock.app.books.find_spec", lambda name: None)
    assert "pip install 'penstock[redis]'" in refused_counters("redis://127.0.0.1:1")


# --- keys made at run time ---


def key(id: str = "web", secret: str = SECRET, **more: Any) -> StoredKey:
    return StoredKey(id, digest(secret), more.pop("org", ""), "", write_options(KeyOptions()), NOW, **more)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_key_works_soon_after_it_is_made_and_stops_soon_after_it_is_revoked(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    async def story(url: str) -> None:
        options = BooksOptions(database=url, spool=str(tmp_path / "spool"))
        await with_database(url, lambda database: migrate(database, 0.0))
        database = await open_database(url)
        keys = SqlKeys(database)
        await keys.create(key("before"))
        async with books(options) as one:
            ring = Keyring(plane_spec({}), None, one.issued)
            known = ring.find(SECRET.encode())
            assert known is not None
            assert known.caller == Caller("before")
            secret = mint(bytes(range(ENTROPY_BYTES)))
            await keys.create(key("web", secret))
            await until(lambda: ring.find(secret.encode()) is not None)
            stored = await keys.get("web")
            assert stored is not None
            assert await keys.replace(structs.replace(stored, revoked_at=NOW))

            def revoked() -> bool:
                found = ring.find(secret.encode())
                return found is not None and found.terms is not None and found.terms.revoked == NOW

            await until(revoked)
        await database.close()

    if kind == "postgres":
        run(story(run(empty_schema(request.getfixturevalue("postgres")))))
    else:
        run(story(sqlite(tmp_path).database))


def test_when_a_key_was_last_used_is_written_at_the_end_and_not_for_those_of_the_file(tmp_path: Path) -> None:
    async def story() -> None:
        options = sqlite(tmp_path)
        async with books(options):
            await with_database(options.database, lambda database: SqlKeys(database).create(key("web")))
        async with books(options) as one:
            for n, (id, status) in enumerate((("web", 200), ("file", 200), ("web", 403))):
                one.record(entry(n, key_id=id, status=status))

        async def look(database: Database) -> None:
            (stored,) = await SqlKeys(database).owned()
            assert stored.last_used_at == NOW

        await with_database(options.database, look)

    run(story())


def test_limits_of_a_key_made_at_run_time_hold_as_soon_as_it_does(tmp_path: Path) -> None:
    async def story() -> None:
        options = sqlite(tmp_path)
        limited = write_options(read_options('{"limits": {"requests": "5/m"}}', KeyOptions))
        async with books(options) as one:
            assert one.issued is not None
            rules = one._rules = Rules((), own=one.issued.limits_of)
            assert charges(rules, Account(key="web")) == ()
            stored = structs.replace(key("web"), attributes=limited)
            await with_database(options.database, lambda database: SqlKeys(database).create(stored))
            await until(lambda: charges(rules, Account(key="web")) != ())

    run(story())


def test_a_budget_of_a_key_made_at_run_time_is_told_of_when_and_where_it_says(tmp_path: Path) -> None:
    async def story() -> None:
        async with Hook(204) as hook:
            options, told = sqlite(tmp_path), []
            budget = {"amount": "$100", "every": "month", "notify": ["10%"], "webhook": hook.url}
            async with books(options, told=told) as one:
                assert one.issued is not None
                rules = one._rules = Rules((), own=one.issued.limits_of)
                for id, written in (("web", budget), ("plain", "$100/month")):
                    attributes = write_options(msgspec.convert({"budget": written}, KeyOptions))
                    one.issued.put(structs.replace(key(id), digest=digest(id), attributes=attributes))
                for id, spent in (("web", 9), ("web", 11), ("plain", 11), ("plain", 81)):
                    applied = rules.apply(Account(key=id), Amounts(1, 1, 1), NOW)
                    one.crossed(applied.limits[0], applied.charges[0], 0, spent * 10**9)
                await hook.taken.wait()
            assert [line.partition(";")[0] for line in told] == [
                "key web: budget: 10% of $100.00 spent this month is reached",
                "key plain: budget: 80% of $100.00 spent this month is reached",
            ]
            assert [body["percent"] for body in hook.bodies] == [10]

    run(story())


def test_a_hundred_thousand_keys_take_less_than_120_mb(tmp_path: Path) -> None:
    """How long they take is measured by `make bench-limits`."""
    import resource

    async def story() -> None:
        options = sqlite(tmp_path)
        async with books(options):
            pass
        database = await open_database(options.database)
        hashes = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(100_000)]
        table = Table("api_keys", tuple((name, "") for name in StoredKey.__struct_fields__))
        options_of = [write_options(KeyOptions(models=(f"m{n}",))) for n in range(50)]
        await database.insert(
            table,
            [
                (f"key-{n}", one, "acme", f"t{n % 200}", options_of[n % 50], NOW, None, None, None, n + 1)
                for n, one in enumerate(hashes)
            ],
        )
        await database.close()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with books(options) as one:
            assert one.issued is not None
            assert len(one.issued) == 100_000
            assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 120
            ring = Keyring(plane_spec({}), None, one.issued)
            known = ring.find(b"99999")
            assert known is not None
            assert known.caller.models == {"m49"}

    run(story())


# --- in a server ---


def text_of(engine: FakeEngine, more: str = "", price: str = "{ free: true }") -> str:
    return (
        "models: { chat: { deployments: [local] } }\n"
        f"deployments: {{ local: {{ engine: {engine.address}, served: small, price: {price} }} }}\n"
        f"server: {{ port: 0, drain: 20s, access_log: off }}\n{more}"
    )


def in_server(
    folder: Path, use: Callable[[Running], Any], *, workers: int = 1, insecure_dev: bool = False, **text: str
) -> list[str]:
    async def story() -> list[str]:
        async with FakeEngine("one") as engine:
            (folder / "penstock.yaml").write_text(text_of(engine, **text))
            options = ServeOptions(
                config_path=str(folder / "penstock.yaml"), workers=workers, insecure_dev=insecure_dev
            )
            code, told = await serving(options, use)
            assert code == 0, told
            return told

    told: list[str] = run(story())
    return told


@pytest.mark.journey
def test_every_request_of_a_server_is_a_row_of_its_ledger(tmp_path: Path) -> None:
    async def use(server: Running) -> None:
        for _ in range(3):
            assert (await server.chat())[0] == 200

    in_server(tmp_path, use, insecure_dev=True)
    found = run(rows(str(tmp_path / "penstock.db")))
    assert [(row.model, row.status, row.output_tokens) for row in found] == [("chat", 200, 2)] * 3


@pytest.mark.journey
def test_a_worker_that_is_killed_leaves_its_rows_to_the_next(tmp_path: Path) -> None:
    """The database is locked by somebody else, so that nothing is written before the worker is dead."""
    import sqlite3

    async def use(server: Running) -> None:
        lock = sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)
        lock.execute("begin immediate")
        for _ in range(6):
            assert (await server.chat())[0] == 200
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        await server.until_told("Starting it again")
        lock.execute("rollback")
        lock.close()
        await until(lambda: n_rows(str(tmp_path / "penstock.db"), 6))

    in_server(tmp_path, use, workers=2, insecure_dev=True)
    assert len(run(rows(str(tmp_path / "penstock.db")))) == 6


@pytest.mark.journey
def test_where_keys_are_in_the_database_alone_nobody_is_let_in_without_one(tmp_path: Path) -> None:
    async def use(server: Running) -> None:
        assert (await server.chat())[0] == 401
        assert (await server.chat(key=SECRET))[0] == 200
        another = mint(bytes(range(ENTROPY_BYTES)))
        await with_database(database, lambda one: SqlKeys(one).create(key("other", another)))
        await until(lambda: answered(server, another, 200))

    database = str(tmp_path / "penstock.db")
    run(make(database, key()))
    in_server(tmp_path, use)


async def make(database: str, *keys: StoredKey) -> None:
    opened = await open_database(database)
    await migrate(opened, 0.0)
    for one in keys:
        await SqlKeys(opened).create(one)
    await opened.close()


@pytest.mark.journey
@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_organisation_made_at_run_time_may_do_holds_within_moments(tmp_path: Path, workers: int) -> None:
    database = str(tmp_path / "penstock.db")

    async def use(server: Running) -> None:
        assert (await server.chat(key=SECRET))[0] == 200
        tenant = StoredTenant("acme", "", '{"models": ["other"]}', NOW)
        await with_database(database, lambda one: one.write_all(tenant_creation(tenant)))
        await until(lambda: answered(server, SECRET, 403))
        page = (await server.get("/metrics"))[1]
        assert metric(page, "penstock_issued_keys") == 1

    run(make(database, key("web", org="acme")))
    in_server(tmp_path, use, workers=workers)


def test_the_plane_has_the_organisations_of_the_file_and_the_limits_of_all_of_them(tmp_path: Path) -> None:
    from penstock.config.compile import compile_plane

    config, _ = source(tmp_path, "organisations: { acme: { models: [chat], teams: { search: {} } } }\n")
    stored = (StoredTenant("other", "", '{"limits": {"requests": "5/m"}}', 0.0), StoredTenant("acme", "ads", "{}", 0.0))
    plane = compile_plane(config, 1, {}, tenants=stored)
    assert {(grant.org, grant.team) for grant in plane.tenants} == {
        ("acme", ""),
        ("acme", "search"),
    }
    assert GrantSpec("acme", "search", models=("chat",)) in plane.tenants
    assert [limit.name for limit in plane.limits] == ["org other: requests"]


@pytest.mark.journey
@pytest.mark.parametrize("workers", [1, 2])
def test_a_budget_that_is_spent_is_spent_after_a_restart_too_and_told_of_once(tmp_path: Path, workers: int) -> None:
    async def spend(server: Running) -> None:
        assert [(await server.chat())[0] for _ in range(4)] == [200, 429, 429, 429]

    async def still(server: Running) -> None:
        assert (await server.chat())[0] == 429

    def serve(use: Callable[[Running], Any]) -> list[str]:
        more = "budgets: { house: { amount: $1.50, every: month, per: all, notify: [50%] } }"
        price = "{ input: $0/M, output: $0/M, request: $1 }"
        return in_server(tmp_path, use, workers=workers, insecure_dev=True, more=more, price=price)

    told = serve(spend)
    if workers == 1:  # others tell on the terminal
        assert [line for line in told if "house: 50% of $1.50" in line] != []
    assert len(list((tmp_path / "penstock.spool" / "told").iterdir())) == 1
    found = run(rows(str(tmp_path / "penstock.db")))
    assert sorted((row.status, row.cost_nanos) for row in found) == [(200, 10**9), (429, 0), (429, 0), (429, 0)]
    assert not any("house: 50%" in line for line in serve(still))
