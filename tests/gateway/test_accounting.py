"""Limits, budgets, attribution and the ledger's rows, as a request meets them."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.config.spec import GrantSpec, KeySpec, MaxTokens
from penstock.core.keys import digest
from penstock.core.request import Endpoint
from penstock.gateway.accounting import Accounting
from penstock.gateway.operations import OPERATIONS, azure
from penstock.limits.charges import Kind
from penstock.limits.limit import Account, Amounts, Limit, Meter
from penstock.limits.periods import Period
from penstock.pricing.options import PriceOptions
from penstock.stores.counters_memory import MemoryCounters
from penstock.testing import virtual_loop
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import Script
from tests.worlds import PLAIN, STREAM, World


def azure_has(path):
    return azure(b"/openai/deployments/chat/" + path.removeprefix(b"/v1/")) is not None


MONTH = Period.MONTH
PRICE = PriceOptions(input="$1/M", output="$10/M")
DOLLAR = 10**9
UNCAPPED = b'{"model":"chat","messages":[{"role":"user","content":"hello there"}]}'


class Books:
    """An accounting whose ledger is a list, and what it had spent before."""

    def __init__(self, loop, spent=0):
        self.rows, self.asked, self.crossed, self.overs = [], [], [], []
        self.begun, self.ended = [], []
        self.counters = MemoryCounters(loop, on_over=self.overs.append)

        async def spend(charges):
            self.asked.append(charges)
            await asyncio.sleep(0.01)
            return {charge.counter: spent for charge in charges}

        self.accounting = Accounting(
            self.counters,
            spent=spend,
            begin=self.begin,
            on_entry=self.record,
            on_crossing=lambda *crossing: self.crossed.append(crossing),
        )

    def begin(self, begun):
        self.begun.append(begun)
        return len(self.begun)

    def record(self, entry, slot):
        self.rows.append(entry)
        if slot >= 0:
            self.ended.append(slot)


def world(loop, scripts=None, *, books=None, limits=(), price=(PRICE,), native=None, **more):
    books = books or Books(loop)
    made = World(
        loop,
        scripts or {"a": Script(tokens=10)},
        accounting=books.accounting,
        limits=limits,
        deployment={"price": price} | ({} if native is None else {"native": native}),
        **more,
    )
    made.books = books
    return made


def budget(amount, **more):
    return Limit("spend", Meter.MONEY, amount, period=MONTH, per=("key",), **more)


def requests(amount, window=60):
    return Limit("requests", Meter.REQUESTS, amount, window=window, per=("key",))


def error(exchange):
    return msgspec.json.decode(exchange.text)["error"]


def test_a_limit_of_requests_refuses_the_one_too_many_and_says_when_to_come_again():
    async def main(loop):
        w = world(loop, limits=(requests(2),))
        first, second, third = [await w.ask(PLAIN) for _ in range(3)]
        assert (first.status, second.status, third.status) == (200, 200, 429)
        assert b"x-ratelimit-remaining-requests: 1\r\n" in first.headers
        assert b"x-ratelimit-remaining-requests: 0\r\n" in second.headers
        assert error(third)["code"] == "request_rate_limit"
        assert "requests: 2 of 2" in error(third)["message"]
        assert b"retry-after: 30\r\n" in third.headers
        assert b"x-ratelimit-limit-requests: 2\r\n" in third.headers
        assert len(w.opened) == 2, "nobody was asked"
        await asyncio.sleep(30)
        assert (await w.ask(PLAIN)).status == 200
        w.check_nothing_is_held()

    virtual_loop.run(main)


def test_what_was_reserved_and_not_used_is_given_back():
    async def main(loop):
        limit = Limit("output", Meter.OUTPUT_TOKENS, 100, window=60, per=("key",))
        w = world(loop, {"a": Script(tokens=10)}, limits=(limit,))
        for _ in range(4):  # each reserves 64 and uses 10
            assert (await w.ask(STREAM)).status == 200
        assert (await w.ask(STREAM)).status == 429

    virtual_loop.run(main)


def test_a_hard_budget_is_charged_to_the_nano_dollar_and_never_exceeded():
    async def main(loop):
        w = world(loop, {"a": Script(tokens=10)}, limits=(budget(800_000),))
        statuses = [(await w.ask(STREAM)).status for _ in range(4)]
        costs = [outcome.cost_nanos for outcome in w.outcomes]
        # 9 tokens of prompt and 10 of answer, as the upstream counted: $0.000009 + $0.0001
        assert costs[0] == 109_000
        assert statuses == [200, 200, 429, 429], "the third may need 640,000 for its answer"
        assert error_code_of_last(w) == "budget_exceeded"

    def error_code_of_last(w):
        return w.outcomes[-1].error

    virtual_loop.run(main)


def test_what_the_ledger_says_was_spent_before_counts_and_is_asked_once():
    async def main(loop):
        books = Books(loop, spent=DOLLAR)
        w = world(loop, books=books, limits=(budget(DOLLAR),))
        exchanges = await asyncio.gather(*[w.ask(PLAIN) for _ in range(5)])
        assert {exchange.status for exchange in exchanges} == {429}
        assert len(books.asked) == 1
        assert w.opened == []

    virtual_loop.run(main)


def test_a_soft_budget_allows_and_tells():
    async def main(loop):
        w = world(loop, limits=(budget(100_000, soft=True),))
        assert [(await w.ask(STREAM)).status for _ in range(3)] == [200, 200, 200]
        assert [(limit.name, before, spent) for limit, _, before, spent in w.books.crossed[:1]] == [
            ("spend", 0, 109_000)
        ]

    virtual_loop.run(main)


def test_budgets_do_not_hold_for_free_models():
    async def main(loop):
        w = world(loop, limits=(budget(0),), price=(PriceOptions(free=True),))
        assert (await w.ask(PLAIN)).status == 200
        assert w.outcomes[0].cost_nanos == 0

    virtual_loop.run(main)


def test_a_model_without_a_price_is_refused_where_a_hard_budget_would_have_to_know_it():
    async def main(loop):
        w = world(loop, limits=(budget(DOLLAR),), price=())
        refused = await w.ask(PLAIN)
        assert (refused.status, error(refused)["code"]) == (403, "model_not_priced")
        w = world(loop, limits=(budget(DOLLAR, soft=True),), price=())
        assert (await w.ask(PLAIN)).status == 200
        assert w.outcomes[0].cost_nanos is None, "unknown, which is not nothing"
        assert w.books.rows[0].cost_nanos is None

    virtual_loop.run(main)


def test_a_request_that_can_never_fit_is_not_told_to_come_again():
    async def main(loop):
        limit = Limit("output", Meter.OUTPUT_TOKENS, 50, window=60, per=("key",))
        exchange = await world(loop, limits=(limit,)).ask(STREAM)
        assert exchange.status == 429
        assert b"retry-after" not in exchange.headers
        assert b"x-should-retry: false\r\n" in exchange.headers

    virtual_loop.run(main)


def test_one_request_may_not_cost_more_than_its_key_allows():
    async def main(loop):
        key = b"sk-pen-test"
        grant = GrantSpec("acme", "search", max_cost=100_000)
        w = world(
            loop,
            insecure_dev=False,
            keys=(KeySpec("web", digest(key.decode()), 0),),
            grants=(grant,),
        )
        headers = ((b"authorization", b"Bearer " + key),)
        exchange = await w.ask(PLAIN, headers=headers)
        assert (exchange.status, error(exchange)["code"]) == (403, "request_cost_limit")
        cheap = PLAIN.replace(b"64", b"5")
        assert (await w.ask(cheap, headers=headers)).status == 200
        assert w.books.rows[-1].team == "search"

    virtual_loop.run(main)


def test_every_request_has_one_row_with_whom_it_was_for_and_what_it_cost():
    async def main(loop):
        w = world(loop)
        headers = ((b"x-penstock-feature", b"search"), (b"x-penstock-user", b"u1"), (b"x-penstock-tags", b"b,a=1"))
        await w.ask(STREAM, headers=headers)
        await w.ask(b"{")
        row, refused = w.books.rows
        assert (row.feature, row.tags, row.deployment, row.cost_nanos) == (
            "search",
            '{"a":"1","b":""}',
            "main",
            109_000,
        )
        assert len(row.user_hash) == 32
        assert (row.input_tokens, row.output_tokens, row.usage_source) == (9, 10, "provider")
        assert (refused.status, refused.cost_nanos, refused.error) == (400, 0, "invalid_request")
        outcome = w.outcomes[0]
        assert (outcome.feature, outcome.tags, outcome.cost_nanos) == ("search", ("a=1", "b"), 109_000)

    virtual_loop.run(main)


def test_a_request_is_written_down_before_its_upstream_hears_of_it_and_its_row_ends_that():
    async def main(loop):
        w = world(loop, limits=(requests(1),))
        exchange = FakeExchange(STREAM)
        task = loop.create_task(exchange.carry(w.gateway.handle))
        await asyncio.sleep(0)
        (begun,) = w.books.begun
        assert (begun.key_id, begun.model) == ("anonymous", "chat")
        assert begun.cost_nanos >= 64 * 10_000
        assert w.books.ended == []
        await task
        assert begun.request_id == w.books.rows[0].request_id
        await w.ask(STREAM)
        assert w.books.ended == [1], "the second was refused, and nobody was asked"
        assert len(w.books.begun) == 1

    virtual_loop.run(main)


def test_an_answer_without_a_maximum_reserves_what_such_answers_use():
    async def main(loop):
        limit = Limit("output", Meter.OUTPUT_TOKENS, 100_000, window=3600, per=("key",))
        w = world(loop, {"a": Script(tokens=10)}, limits=(limit,))
        for _ in range(30):
            assert (await w.ask(UNCAPPED)).status == 200
        expected = w.books.accounting._estimates.expect("chat", "anonymous", 4096)
        assert 10 <= expected < 40

    virtual_loop.run(main)


scripts = st.builds(
    Script,
    ttft=st.floats(0, 4),
    tokens=st.integers(1, 4),
    tpot=st.floats(0, 1),
    status=st.sampled_from([200, 200, 200, 500, 429, 400]),
    fault=st.sampled_from([None, None, None, "connect", "reset"]),
    cut_after=st.one_of(st.none(), st.integers(0, 3)),
    cut=st.sampled_from(["eof", "reset", "stall"]),
)


@given(st.lists(scripts, min_size=1, max_size=3), st.lists(st.floats(0, 12), min_size=1, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_everything_reserved_is_settled_once_whenever_callers_leave(behaviours, leaving, stream):
    async def main(loop):
        limits = (
            budget(10 * DOLLAR),
            requests(1_000),
            Limit("tokens", Meter.TOKENS, 100_000, window=60, per=("key",)),
            Limit("at once", Meter.CONCURRENT_REQUESTS, 100, per=("key",)),
        )
        w = world(loop, {f"r{i}": s for i, s in enumerate(behaviours)}, limits=limits)
        tasks = [loop.create_task(w.ask(STREAM if stream else PLAIN)) for _ in leaving]
        for task, at in zip(tasks, leaving, strict=True):
            loop.call_later(at, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        w.check_nothing_is_held()
        assert len(w.books.rows) == len(w.outcomes) == len(leaving)
        assert len({row.request_id for row in w.books.rows}) == len(leaving)
        assert sorted(w.books.ended) == list(range(1, len(w.books.begun) + 1))
        applied = w.gateway.plane.rules.apply(Account(key="anonymous"), Amounts(0, 0, 0), loop.wall())
        used = await w.books.counters.used(applied.charges)
        used = {charge.kind: used[i] for i, charge in enumerate(applied.charges)}
        assert used[Kind.BUDGET] == sum(row.cost_nanos for row in w.books.rows)
        assert used[Kind.GAUGE] == 0
        assert w.books.overs == []

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (b"/v1/chat/completions", UNCAPPED, "max_tokens"),
        (b"/v1/completions", b'{"model":"chat","prompt":"hello"}', "max_tokens"),
    ],
)
def test_who_says_no_maximum_gets_the_models_and_is_told(path, body, name):
    async def main(loop):
        w = World(loop, {"a": Script()}, max_tokens=MaxTokens(most=100, default=50))
        exchange = await w.ask(body, path=path)
        assert exchange.status == 200
        assert b"x-penstock-max-tokens: 50\r\n" in exchange.headers
        assert msgspec.json.decode(w.transports["a"].bodies[0])[name] == 50

    virtual_loop.run(main)


def test_who_asks_for_more_than_the_models_maximum_is_refused_by_name():
    async def main(loop):
        w = World(loop, {"a": Script()}, max_tokens=MaxTokens(most=63))
        exchange = await w.ask(PLAIN)
        assert (exchange.status, error(exchange)["param"]) == (400, "max_tokens")
        exchange = await w.ask(PLAIN.replace(b"64", b"63"))
        assert exchange.status == 200
        assert b"x-penstock-max-tokens" not in exchange.headers

    virtual_loop.run(main)


EVERY_PATH = [
    *OPERATIONS,
    *(b"/openai/deployments/chat/" + path.removeprefix(b"/v1/") for path in OPERATIONS if azure_has(path)),
]
FORM = (
    b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nchat\r\n'
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n--X--\r\n'
)
BODY = (
    b'{"model":"chat","messages":[{"role":"user","content":"hi"}],"prompt":"hi","input":"hi","query":"hi",'
    b'"documents":["a"],"tokens":[1],"voice":"alloy","max_tokens":5}'
)


@pytest.mark.parametrize("path", EVERY_PATH)
def test_no_path_reaches_an_upstream_without_a_key_its_limits_and_the_ledger(path):
    """Except for counting tokens, which costs nothing where nobody is asked."""
    key = (b"authorization", b"Bearer sk-pen-test")
    is_form = b"audio/tr" in path or b"images/edits" in path or b"images/variations" in path
    body = FORM if is_form else BODY
    kind = ((b"content-type", b"multipart/form-data; boundary=X"),) if is_form else ()

    async def main(loop):
        limit = Limit("requests", Meter.REQUESTS, 1, window=3600, per=("key",))
        w = world(
            loop,
            {"a": Script(answer=b"{}")},
            limits=(limit,),
            insecure_dev=False,
            keys=(KeySpec("web", digest("sk-pen-test")),),
            native=tuple(Endpoint),
        )
        assert (await w.ask(body, path=path, headers=kind)).status == 401
        assert w.opened == []
        await w.ask(body, path=path, headers=(key, *kind))
        n = len(w.opened)
        assert n > 0
        refused = await w.ask(body, path=path, headers=(key, *kind))
        assert (refused.status, len(w.opened)) == (429, n)
        assert [row.key_id for row in w.books.rows] == ["anonymous", "web", "web"]

    virtual_loop.run(main)
