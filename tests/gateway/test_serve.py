"""The live gateway on virtual time: answers, faults, outages, leaks, and agreement with the simulator."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import FailureKind
from penstock.core.outcome import UsageSource
from penstock.core.plan import Plan
from penstock.resilience.breaker import BreakerRule
from penstock.testing import virtual_loop
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import DONE, ROLE, TOKEN, USAGE, Script
from tests.simulated import Simulated, untied
from tests.worlds import PLAIN, PLAN, STREAM, World, request

ASK_USAGE = STREAM[:-1] + b',"stream_options":{"include_usage":true}}'


def serve(scripts, *, body=STREAM, **world):
    """Serve one request on virtual time; return (exchange, outcome, world)."""

    async def main(loop):
        w = World(loop, scripts, **world)
        exchange = await w.ask(body)
        w.check_nothing_is_held()
        assert len(w.outcomes) == 1
        return exchange, w.outcomes[0], w

    return virtual_loop.run(main)


def test_a_stream_is_passed_on_without_the_usage_event_the_caller_did_not_ask_for():
    exchange, outcome, _ = serve({"a": Script(ttft=0.1, tokens=3, tpot=0.01)})
    assert exchange.status == 200
    assert exchange.text.endswith(DONE)
    assert exchange.text.count(TOKEN) == 3
    assert b"usage" not in exchange.text
    assert outcome.usage.completion_tokens == 3
    assert outcome.usage_source is UsageSource.PROVIDER
    assert (outcome.status, outcome.error, outcome.finish_reason) == (200, None, "stop")


def test_the_receipt_says_when_the_last_token_came_also_of_a_stream_that_fell_silent():
    _, whole, _ = serve({"a": Script(ttft=0.1, tokens=3, tpot=0.5)})
    assert (whole.first_token_after, whole.last_token_after, whole.duration) == (0.1, 1.1, 1.1)
    _, silent, _ = serve({"a": Script(ttft=0.1, tokens=9, tpot=0.5, cut_after=3, cut="stall")})
    assert (silent.last_token_after, silent.error) == (1.1, "idle_timeout") and silent.duration == 6.1
    _, plain, _ = serve({"a": Script(ttft=0.1)}, body=PLAIN)
    assert plain.last_token_after is None


def test_a_caller_who_asks_for_usage_gets_it():
    exchange, _, _ = serve({"a": Script(tokens=3)}, body=ASK_USAGE)
    assert USAGE % (3, 12) in exchange.text


def test_the_upstream_is_always_asked_for_usage_and_by_its_own_model_name():
    body = STREAM[:-1] + b',"stream_options":{"x":1},"unheard_of":{"a":[1.50,1e3]}}'
    _, outcome, world = serve({"a": Script()}, body=body)
    assert (outcome.model, outcome.served) == ("chat", "served")
    (sent,) = world.transports["a"].bodies
    assert msgspec.json.decode(sent)["stream_options"] == {"x": 1, "include_usage": True}
    assert msgspec.json.decode(sent)["model"] == "served"
    assert b'"unheard_of":{"a":[1.50,1e3]}' in sent, "what we do not know goes out as it came, to the byte"


def test_a_plain_answer_is_passed_on_whole():
    exchange, outcome, _ = serve({"a": Script(tokens=5)}, body=PLAIN)
    assert exchange.status == 200
    assert msgspec.json.decode(exchange.text)["choices"][0]["message"]["content"] == "hi"
    assert outcome.usage.completion_tokens == 5
    assert b"x-penstock-replica: a\r\n" in exchange.headers


def test_a_plain_answer_may_take_longer_than_a_first_token():
    exchange, _, _ = serve({"a": Script(ttft=30.0)}, body=PLAIN)
    assert exchange.status == 200


def test_a_dead_replica_is_passed_over():
    for seed in range(8):
        exchange, outcome, _ = serve({"a": Script(fault="connect"), "b": Script(ttft=0.2, tokens=3)}, seed=seed)
        assert exchange.status == 200
        assert outcome.attempts[-1].replica == "b"
        assert outcome.usage.completion_tokens == 3


def test_the_next_deployment_is_asked_when_every_replica_of_the_first_failed():
    plan = msgspec.structs.replace(PLAN, deployments=("main", "backup"))
    _, outcome, _ = serve(
        {"a": Script(status=500), "b": Script(status=503), "z": Script()},
        plan=plan,
        replicas={"main": ["a", "b"], "backup": ["z"]},
    )
    assert [a.replica for a in outcome.attempts][-1] == "z"
    assert len(outcome.attempts) == 3


def test_ten_minutes_of_silence_cost_the_caller_six_seconds_and_us_milliseconds():
    exchange, outcome, world = serve({"a": Script(ttft=600.0), "b": Script(ttft=600.0)})
    assert exchange.status == 504
    assert len(world.opened) == 3
    assert 6.0 <= outcome.duration < 6.3
    assert b'"first_token_timeout"' in exchange.text


def test_a_role_without_a_token_does_not_end_the_wait_for_the_first_token():
    for seed in range(8):
        exchange, outcome, _ = serve({"a": Script(cut_after=0, cut="role"), "b": Script(ttft=0.1)}, seed=seed)
        assert exchange.text.endswith(DONE)
        assert exchange.text.count(ROLE) == 1, "the gesture of the attempt that was given up is not shown"
        if len(outcome.attempts) == 2:
            assert outcome.attempts[0].ended is FailureKind.FIRST_TOKEN_TIMEOUT


def test_a_hedge_wins():
    plan = Plan(("main",), hedge_after=0.3, first_token_timeout=30.0)
    for seed in range(6):
        _, outcome, _ = serve({"a": Script(ttft=9.0), "b": Script(ttft=0.1)}, plan=plan, seed=seed)
        assert outcome.first_token_after is not None
        assert outcome.first_token_after <= 0.4 + 1e-9


@pytest.mark.parametrize(
    ("cut", "code"), [("eof", "upstream_truncated"), ("reset", "upstream_broke"), ("stall", "idle_timeout")]
)
def test_a_stream_that_breaks_after_the_first_token_ends_in_an_error_event_and_never_in_done(cut, code):
    exchange, outcome, _ = serve({"a": Script(tokens=20, tpot=0.01, cut_after=8, cut=cut)})
    assert exchange.status == 200
    assert exchange.ended
    last = exchange.text.split(b"\n\n")[-2]
    assert msgspec.json.decode(last.removeprefix(b"data: "))["error"]["code"] == code
    assert b"[DONE]" not in exchange.text
    assert b'"finish_reason"' not in exchange.text
    assert outcome.error == code
    assert outcome.usage.completion_tokens == 8
    assert outcome.usage_source is UsageSource.ESTIMATE


def test_a_slow_caller_is_not_taken_for_a_silent_upstream():
    async def main(loop):
        world = World(loop, {"a": Script(tokens=10, tpot=0.1)})
        exchange = FakeExchange(STREAM)
        loop.call_later(0.55, lambda: exchange.flow.pause())
        loop.call_later(20.55, lambda: exchange.flow.resume())
        await exchange.carry(world.gateway.handle)
        assert exchange.text.count(TOKEN) == 10
        assert world.outcomes[0].error is None
        assert world.outcomes[0].duration > 20

    virtual_loop.run(main)


def test_the_last_failure_is_told_in_the_callers_words_and_without_ours():
    exchange, outcome, _ = serve({"a": Script(status=401)})
    assert exchange.status == 502, "their key is fine; ours is not"
    assert b'"upstream_auth"' in exchange.text
    assert b"scripted" not in exchange.text
    assert outcome.error == "upstream_auth"


def test_an_upstreams_word_about_the_callers_own_request_is_passed_on_and_not_retried():
    exchange, outcome, _ = serve({"a": Script(status=400), "b": Script(status=400)})
    assert exchange.status == 400
    assert msgspec.json.decode(exchange.text)["error"]["message"] == "scripted 400"
    assert len(outcome.attempts) == 1


def test_retry_after_survives_to_the_caller():
    exchange, _, _ = serve({"a": Script(status=429, headers=((b"retry-after", b"120"),))})
    assert exchange.status == 429
    assert b"retry-after: 120\r\n" in exchange.headers


def test_a_replica_that_asked_to_be_left_alone_is_left_alone():
    async def main(loop):
        world = World(loop, {"a": Script(status=429, headers=((b"retry-after", b"30"),)), "b": Script()})
        for _ in range(20):
            assert (await world.ask()).status == 200
        assert world.opened.count("a") <= 1

    virtual_loop.run(main)


def test_a_failing_replica_costs_a_few_attempts_and_then_its_breaker_is_open():
    async def main(loop):
        world = World(loop, {"a": Script(status=500), "b": Script(), "c": Script()})
        for _ in range(200):
            assert (await world.ask()).status == 200
        assert world.opened.count("a") == BreakerRule().failures

    virtual_loop.run(main)


def test_what_cannot_be_served_is_refused_by_name():
    async def main(loop):
        world = World(loop, {"a": Script()})
        for body, status, code in (
            (b"{", 400, "invalid_request"),
            (b"[]", 400, "invalid_request"),
            (b'{"messages":[{"role":"user"}]}', 400, "invalid_request"),
            (b'{"model":"chat"}', 400, "invalid_request"),
            (b'{"model":"chat","messages":[ ]}', 400, "invalid_request"),
            (b'{"model":"chat","messages":"hi"}', 400, "invalid_request"),
            (b'{"model":"chat","messages":[{}],"stream":"yes"}', 400, "invalid_request"),
            (b'{"model":"chat","messages":[{}],"max_tokens":-1}', 400, "invalid_request"),
            (b'{"model":7,"messages":[{}]}', 400, "invalid_request"),
            (b'{"model":"\xff","messages":[{}]}', 400, "invalid_request"),
            (b'{"model":"chta","messages":[{}]}', 404, "model_not_found"),
        ):
            exchange = await world.ask(body)
            assert (exchange.status, msgspec.json.decode(exchange.text)["error"]["code"]) == (status, code), body
        assert world.opened == []
        assert all(outcome.error for outcome in world.outcomes)

    virtual_loop.run(main)


def test_a_full_gateway_says_so_at_once():
    exchange, outcome, world = serve({"a": Script()}, max_in_flight=0)
    assert exchange.status == 503
    assert b"retry-after: 1\r\n" in exchange.headers
    assert (outcome.error, world.opened) == ("overloaded", [])


def test_the_first_of_two_models_with_one_name_in_the_body_is_not_smuggled_past_us():
    _, _, world = serve({"a": Script()}, body=b'{"model":"evil",' + PLAIN[1:])
    (sent,) = world.transports["a"].bodies
    assert sent.count(b'"model"') == 1


scripts = st.builds(
    Script,
    ttft=st.floats(0, 4),
    tokens=st.integers(1, 4),
    tpot=st.floats(0, 1),
    status=st.sampled_from([200, 200, 200, 500, 503, 429, 400]),
    fault=st.sampled_from([None, None, None, "connect", "reset", "eof"]),
    fail_after=st.floats(0, 1),
    headers=st.sampled_from([(), (), ((b"retry-after", b"1.2345"),)]),
    cut_after=st.one_of(st.none(), st.none(), st.integers(0, 3)),
    cut=st.sampled_from(["eof", "reset", "stall"]),
)
hedges = st.one_of(st.none(), st.floats(0.01, 1))


@given(st.lists(scripts, min_size=1, max_size=4), st.integers(0, 99), st.floats(0, 12), hedges, st.booleans())
@settings(max_examples=300, deadline=None)
def test_nothing_leaks_and_there_is_one_outcome_whenever_the_caller_leaves(behaviours, seed, leaves_at, hedge, stream):
    async def main(loop):
        plan = msgspec.structs.replace(PLAN, hedge_after=hedge)
        world = World(loop, {f"r{i}": s for i, s in enumerate(behaviours)}, plan=plan, seed=seed)
        task = asyncio.ensure_future(world.ask(STREAM if stream else PLAIN))  # noqa: TID251  awaited below
        loop.call_later(leaves_at, task.cancel)
        try:
            exchange = await task
        except asyncio.CancelledError:
            assert world.outcomes[0].error == "client_left"
        else:
            assert exchange.ended
        world.check_nothing_is_held()
        assert len(world.outcomes) == 1, "one receipt, always"
        assert len(world.outcomes[0].attempts) == len(world.opened)
        await asyncio.sleep(90)  # virtual
        assert len(asyncio.all_tasks()) == 1, "no task outlives its request"

    virtual_loop.run(main)


def test_an_answer_that_streams_costs_no_task():
    async def main(loop):
        world = World(loop, {"a": Script(ttft=0.1, tokens=10, tpot=0.1)})
        exchange = FakeExchange(STREAM)
        await world.gateway.handle(exchange)
        assert exchange.started
        assert not exchange.ended
        assert len(asyncio.all_tasks()) == 1
        assert world.outcomes == []
        await asyncio.sleep(2)
        assert exchange.text.endswith(DONE)
        assert [outcome.error for outcome in world.outcomes] == [None]
        world.check_nothing_is_held()

    virtual_loop.run(main)


@given(st.lists(scripts, min_size=1, max_size=4), st.integers(0, 999), hedges)
@settings(max_examples=300, deadline=None)
def test_the_simulator_takes_the_same_decisions(behaviours, seed, hedge):
    plan = msgspec.structs.replace(PLAN, hedge_after=hedge)
    by_name = {f"r{i}": untied(s, i) for i, s in enumerate(behaviours)}
    exchange, outcome, live = serve(by_name, plan=plan, seed=seed)
    simulated = Simulated(by_name, plan, seed=seed)
    simulated.ask(0.0, request())
    simulated.run(0.0, tended=False)
    assert simulated.opened == live.opened
    ((_, failed, ttft),) = simulated.ended
    assert (failed is not None) == (exchange.status != 200)
    if ttft is not None:
        assert ttft == pytest.approx(outcome.first_token_after, abs=1e-6)
