"""A committed stream breaks, another replica says the rest: the caller sees one answer, the receipt both attempts."""

import asyncio
import re
from random import Random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.core.errors import FailureKind
from penstock.core.outcome import UsageSource
from penstock.core.plan import Plan
from penstock.resilience.breaker import BreakerRule
from penstock.testing import virtual_loop
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import DONE, Script
from tests.worlds import PLAN, World

decode, encode = msgspec.json.decode, msgspec.json.encode
ENGINE = {"quirks": ("resume_token_ids", "strict")}
WITH_USAGE = {"stream_options": {"include_usage": True}}
BODY = {"model": "chat", "messages": [{"role": "user", "content": "hello there"}], "stream": True, "max_tokens": 64}


def event(head, choices, **more):
    return b"data: %b\n\n" % encode(head | {"choices": choices} | more)


def choice(delta, finish=None, **more):
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish} | more


class Engine:
    """What a model says to a request, token by token, the same on every replica; each third token has no text.

    `cuts`: for each call to come, how many bytes of the answer arrive and what happens then ("end" is a clean end,
    "stall" is nothing, anything else breaks the connection, and bytes are an event that is said instead of the rest).
    """

    def __init__(self, n_tokens=12, cuts=(), size=10_000, tpot=0.1):
        self.n_tokens, self.size, self.tpot = n_tokens, size, tpot
        self.cuts = list(cuts)
        self.asked = []

    def script(self):
        return Script(steps=self.steps)

    def events(self, fields):
        known = fields.get("resume_token_ids", [])
        usage = fields.get("stream_options", {}).get("include_usage")
        head = {
            "id": f"answer-{len(self.asked)}",
            "object": "chat.completion.chunk",
            "created": 1000 + len(self.asked),
            "model": fields["model"],
        }
        more = {"usage": None} if usage else {}
        yield event(head, [choice({"role": "assistant", "content": ""})], **more)
        tokens = Random(fields.get("seed")).choices(range(50_000), k=min(self.n_tokens, fields["max_tokens"]))
        assert tokens[: len(known)] == known, "these are not the tokens of this answer"
        untold = []
        for place, token in enumerate(tokens):
            last = place == len(tokens) - 1
            if place < len(known) and not last:
                continue
            if place >= len(known):
                untold.append(token)
            if place % 3 == 2 and not last:
                continue
            delta = {"content": f' "{token}",é'} if place >= len(known) else {}
            ids = {"token_ids": untold} if fields.get("return_token_ids") else {}
            finish = "length" if last else None
            yield event(head, [choice(delta, finish, **ids)], **more)
            untold = []
        n = len(tokens)
        if usage:
            counts = {"prompt_tokens": 9, "completion_tokens": n, "total_tokens": n + 9}
            yield event(head, [], usage=counts)
        yield DONE

    def steps(self, fields):
        self.asked.append(fields)
        answer = b"".join(self.events(fields))
        at, how = self.cuts.pop(0) if self.cuts else (len(answer), "end")
        answer = answer[:at]
        steps = [(self.tpot, answer[i : i + self.size]) for i in range(0, len(answer), self.size)]
        if isinstance(how, bytes):
            return [*steps, (self.tpot, how)]
        return steps if how == "stall" else [*steps, (self.tpot, how)]


def seeded(**more):
    return BODY | {"seed": 5} | more


def after(n_events):
    """How many bytes the first so many events of an answer to `seeded()` have."""
    asked = seeded(return_token_ids=True, model="served", **WITH_USAGE)
    return sum(len(event) for event in list(Engine().events(asked))[:n_events])


def serve(engine, *, body=BODY, pools=None, on_cut="continue", deployment=ENGINE, **world):
    """One request on virtual time; (exchange, outcome, world)."""

    async def main(loop):
        pools_ = pools or {"main": ["a", "b"]}
        scripts = {name: engine.script() for names in pools_.values() for name in names}
        w = World(loop, scripts, replicas=pools_, on_cut=on_cut, deployment=deployment, **world)
        exchange = await w.ask(encode(body))
        w.check_nothing_is_held()
        assert len(w.outcomes) == 1
        assert exchange.ended
        return exchange, w.outcomes[0], w

    return virtual_loop.run(main)


def told(exchange):
    """The answer, with the same name for every first attempt."""
    text = exchange.text
    names = set(re.findall(rb'"id":"answer-(\d+)","object":"[a-z.]+","created":1(\d+),', text))
    assert len(names) == 1, "one answer has one id and one time"
    assert b"token_ids" not in text
    assert text.count(b'"role"') == 1
    return re.sub(rb'"id":"answer-\d+","object":"chat.completion.chunk","created":\d+', b'"id":"x"', text)


ERROR = b'data: {"error":{"message":"out of memory","type":"server_error","code":500}}\n\n'


@pytest.mark.parametrize(
    ("how", "ended"),
    [
        ("end", FailureKind.TRUNCATED),
        ("reset", FailureKind.NETWORK),
        ("stall", FailureKind.IDLE_TIMEOUT),
        (ERROR, FailureKind.SERVER_ERROR),
        (b"data: {nonsense\n\n", FailureKind.BAD_PAYLOAD),
    ],
)
def test_whatever_breaks_a_stream_the_caller_sees_one_answer_and_the_receipt_both_attempts(how, ended):
    whole, _, _ = serve(Engine(), body=seeded(**WITH_USAGE))
    engine = Engine(cuts=[(after(5), how)], size=40)
    exchange, outcome, world = serve(engine, body=seeded(**WITH_USAGE))
    assert told(exchange) == told(whole)
    assert exchange.text.endswith(DONE)
    assert [attempt.ended for attempt in outcome.attempts] == [ended, "ok"]
    assert sorted(world.opened) == ["a", "b"], "another replica is preferred"
    assert (outcome.status, outcome.error, outcome.finish_reason) == (200, None, "length")
    assert (outcome.usage.completion_tokens, outcome.usage_source) == (12, UsageSource.PROVIDER)
    assert outcome.first_token_after == outcome.attempts[0].first_token_after
    assert [bool(fields.get("resume_token_ids")) for fields in engine.asked] == [False, True]


def test_who_gives_no_seed_gets_one_and_what_is_drawn_goes_on_where_it_stopped():
    engine = Engine(cuts=[(700, "reset")])
    exchange, _, _ = serve(engine)
    first, second = engine.asked
    assert first["seed"] == second["seed"]
    assert first["return_token_ids"] is second["return_token_ids"] is True
    whole, _, _ = serve(Engine(), body=BODY | {"seed": first["seed"]})
    assert told(exchange) == told(whole)
    engine = Engine()
    serve(engine, body=BODY | {"seed": None}, seed=8)
    assert engine.asked[0]["seed"] != first["seed"]


def test_a_callers_own_seed_is_theirs():
    engine = Engine()
    serve(engine, body=seeded())
    assert engine.asked[0]["seed"] == 5


def test_who_asks_for_the_tokens_gets_them_all():
    engine = Engine(cuts=[(900, "reset")])
    exchange, _, _ = serve(engine, body=seeded(return_token_ids=True))
    events = [decode(line[6:]) for line in exchange.text.split(b"\n\n") if line.startswith(b"data: {")]
    tokens = [token for one in events for token in one["choices"][0].get("token_ids", [])]
    assert tokens == Random(5).choices(range(50_000), k=12)


def test_by_default_nothing_is_asked_for_and_a_cut_is_an_error():
    engine = Engine(cuts=[(700, "reset")])
    exchange, outcome, _ = serve(engine, on_cut="error")
    assert engine.asked[0].keys() == {*BODY, "stream_options"}
    assert b'"upstream_broke"' in exchange.text
    assert len(outcome.attempts) == 1


def broken(exchange, outcome, code):
    last = exchange.text.split(b"\n\n")[-2]
    assert decode(last.removeprefix(b"data: "))["error"]["code"] == code
    assert DONE not in exchange.text
    assert (outcome.status, outcome.error) == (200, code)
    return [attempt.ended for attempt in outcome.attempts]


def test_an_engine_that_does_not_know_tokens_is_asked_as_always_and_a_cut_is_an_error():
    engine = Engine(cuts=[(700, "reset")])
    exchange, outcome, _ = serve(engine, deployment={"quirks": ("continue_final_message",)})
    assert "return_token_ids" not in engine.asked[0]
    assert "seed" not in engine.asked[0]
    assert broken(exchange, outcome, "upstream_broke") == ["network"]


def test_tokens_mean_nothing_to_another_deployment():
    plan = msgspec.structs.replace(PLAN, deployments=("main", "backup"))
    engine = Engine(cuts=[(700, "reset"), (0, "reset"), (0, "reset")])
    exchange, outcome, world = serve(engine, plan=plan, pools={"main": ["a"], "backup": ["z"]})
    assert broken(exchange, outcome, "upstream_broke") == ["network"] * 3
    assert world.opened == ["a"] * 3


def test_an_answer_that_breaks_again_goes_on_again_up_to_the_plans_attempts():
    whole, _, _ = serve(Engine(), body=seeded())
    cuts = [(after(3), "reset"), (700, "end"), (40, "reset"), (700, "stall")]
    plan = msgspec.structs.replace(PLAN, max_attempts=5)
    exchange, outcome, _ = serve(Engine(cuts=cuts), body=seeded(), plan=plan)
    assert told(exchange) == told(whole)
    assert [attempt.ended for attempt in outcome.attempts] == ["network", "truncated", "network", "idle_timeout", "ok"]
    exchange, outcome, _ = serve(Engine(cuts=cuts), body=seeded())
    assert broken(exchange, outcome, "upstream_truncated") == ["network", "truncated", "network"]
    assert told(whole).startswith(told(exchange).rpartition(b'data: {"error"')[0])


@pytest.mark.parametrize(
    ("code", "kind"),
    [("invalid_request_error", "rejected"), ("content_filter", "content_policy"), (400, "rejected")],
)
def test_a_fault_of_the_request_is_not_gone_on_with(code, kind):
    error = event({}, []).replace(b'"choices":[]', b'"error":{"message":"no","code":%b}' % encode(code))
    _, outcome, world = serve(Engine(cuts=[(after(4), error)]), body=seeded())
    assert [attempt.ended for attempt in outcome.attempts] == [kind]
    assert len(world.opened) == 1


def test_a_request_without_time_left_is_not_gone_on_with():
    plan = msgspec.structs.replace(PLAN, total_timeout=3.0, first_token_timeout=2.0)
    exchange, outcome, world = serve(Engine(cuts=[(700, "stall")]), plan=plan)
    assert broken(exchange, outcome, "timeout") == ["total_timeout"]
    assert len(world.opened) == 1


def test_the_time_of_the_request_ends_a_switch():
    plan = msgspec.structs.replace(PLAN, total_timeout=3.0, first_token_timeout=9.0, idle_timeout=2.0)
    exchange, outcome, _ = serve(Engine(cuts=[(700, "stall"), (0, "stall")]), plan=plan)
    assert broken(exchange, outcome, "idle_timeout") == ["idle_timeout", "cancelled"]
    assert outcome.duration == pytest.approx(3.0, abs=0.01)


def test_who_goes_on_has_as_long_for_its_first_token_as_anyone():
    exchange, outcome, _ = serve(Engine(cuts=[(700, "reset"), (0, "stall")]))
    assert [attempt.ended for attempt in outcome.attempts] == ["network", "first_token_timeout", "ok"]
    slow = outcome.attempts[1]
    assert slow.ended_after - slow.started_after == pytest.approx(PLAN.first_token_timeout, abs=0.01)
    assert exchange.text.endswith(DONE)


def test_a_spent_retry_budget_ends_it():
    exchange, outcome, _ = serve(Engine(cuts=[(700, "reset")]), retry_budget_ratio=0.0, retry_budget_per_second=0.0)
    assert broken(exchange, outcome, "upstream_broke") == ["network"]


def test_a_break_counts_once_against_the_breaker_of_who_broke():
    async def main(loop):
        rule = BreakerRule()
        cuts = [(700, "reset"), (10_000, "end")] * rule.failures
        engine = Engine(cuts=cuts)
        world = World(loop, {"a": engine.script(), "b": engine.script()}, on_cut="continue", deployment=ENGINE)
        first = []
        for _ in range(rule.failures):
            before = len(world.opened)
            exchange = await world.ask(encode(BODY))
            first.append(world.opened[before])
            assert exchange.text.endswith(DONE)
        breakers = world.gateway.plane.breakers
        assert {name: breakers[name].closed for name in "ab"} == {"a": True, "b": True}
        assert {len(outcome.attempts) for outcome in world.outcomes} == {2}
        assert set(first) == {"a", "b"}, "or nothing was shown"
        world.check_nothing_is_held()

    virtual_loop.run(main)


def test_why_it_ended_and_what_it_cost_are_told_once_when_only_the_last_word_was_missing():
    whole, _, _ = serve(Engine(), body=seeded(**WITH_USAGE))
    n_events = len(list(Engine().events(seeded(model="served", return_token_ids=True, **WITH_USAGE))))
    for told_before in (n_events - 2, n_events - 1):  # without usage; without [DONE]
        engine = Engine(cuts=[(after(told_before), "reset")])
        exchange, outcome, _ = serve(engine, body=seeded(**WITH_USAGE))
        assert told(exchange) == told(whole)
        assert len(engine.asked[1]["resume_token_ids"]) == 12
        assert outcome.error is None


def test_completions_go_on_too():
    engine = Engine()
    body = {"model": "chat", "prompt": "once", "stream": True, "max_tokens": 9}

    def events(fields):
        known = fields.get("resume_token_ids", [])
        for place in range(len(known), 6):
            one = {"index": 0, "text": f" {place}", "token_ids": [place], "finish_reason": None}
            yield event({"id": f"c{len(engine.asked)}"}, [one | ({"finish_reason": "stop"} if place == 5 else {})])
        yield DONE

    engine.events = events
    engine.cuts = [(250, "reset")]

    async def main(loop):
        world = World(loop, {"a": engine.script()}, on_cut="continue", deployment=ENGINE)
        exchange = await world.ask(encode(body), path=b"/v1/completions")
        world.check_nothing_is_held()
        return exchange

    exchange = virtual_loop.run(main)
    lines = exchange.text.split(b"\n\n")[:-2]
    assert "".join(decode(line[6:])["choices"][0]["text"] for line in lines) == " 0 1 2 3 4 5"
    assert {decode(line[6:])["id"] for line in lines} == {"c1"}
    assert len(engine.asked) == 2


def test_what_comes_just_too_late_is_not_told_beside_what_another_one_says():
    class Late(Engine):
        def steps(self, fields):
            first = not self.asked
            ((_, answer), end) = super().steps(fields)
            cut = after(5)
            # inside the resolution of the clock: in the same turn of the loop as the idle timeout, and after it
            return (
                [(0.1, answer[:cut]), (PLAN.idle_timeout + 2e-10, answer[cut:]), end] if first else [(0, answer), end]
            )

    whole, _, _ = serve(Engine(), body=seeded())
    exchange, outcome, _ = serve(Late(), body=seeded())
    assert told(exchange) == told(whole)
    assert [attempt.ended for attempt in outcome.attempts] == ["idle_timeout", "ok"]


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(["end", "reset", "stall"])), max_size=4),
    st.integers(1, 400),
    st.integers(1, 14),
    st.integers(0, 99),
    st.booleans(),
)
@example([(700, "reset"), (1, "stall")], 1, 12, 7, True)
@settings(max_examples=250, deadline=None)
def test_cut_anywhere_and_in_any_pieces_the_caller_gets_the_bytes_of_the_uninterrupted_answer(
    cuts, size, n_tokens, seed, usage
):
    # a clean end after why the answer ended is an end, even if its usage is missing
    cuts = [(at, "reset" if how == "end" and usage else how) for at, how in cuts]
    plan = msgspec.structs.replace(PLAN, max_attempts=9, idle_timeout=1.0, first_token_timeout=1.0)
    body = seeded(**WITH_USAGE) if usage else seeded()
    whole, _, _ = serve(Engine(n_tokens), body=body)
    engine = Engine(n_tokens, cuts, size, tpot=0.001)
    exchange, outcome, _ = serve(engine, body=body, plan=plan, seed=seed)
    assert told(exchange) == told(whole)
    assert len(outcome.attempts) == len(engine.asked)
    assert outcome.error is None


# --- the caller ------------------------------------------------------------------------------------------------------


async def leave(world, after, body=BODY):
    exchange = FakeExchange(encode(body))
    task = asyncio.get_running_loop().create_task(exchange.carry(world.gateway.handle))
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return exchange


def test_a_caller_who_is_slow_while_replicas_are_switched_gets_it_all_when_they_read_on():
    async def main(loop):
        engine = Engine(cuts=[(after(4), "reset")], size=60)
        world = World(loop, {"a": engine.script(), "b": engine.script()}, on_cut="continue", deployment=ENGINE)
        exchange = FakeExchange(encode(seeded()))
        task = loop.create_task(exchange.carry(world.gateway.handle))
        await asyncio.sleep(after(4) / 60 * 0.1 + 0.25)  # the first one has broken, the second one begins
        assert len(engine.asked) == 2
        exchange.flow.pause()
        await asyncio.sleep(20)  # silence that is nobody's fault
        assert not task.done()
        assert exchange.text.count(b"data:") < 9
        exchange.flow.resume()
        await task
        assert exchange.text.endswith(DONE)
        assert [attempt.ended for attempt in world.outcomes[0].attempts] == ["network", "ok"]
        world.check_nothing_is_held()

    virtual_loop.run(main)


@pytest.mark.parametrize("on_disconnect", ["cancel", "drain"])
def test_a_caller_who_leaves_while_replicas_are_switched_leaves_nothing_behind(on_disconnect):
    async def main(loop):
        late = Engine(tpot=1.5, cuts=[(after(4), "reset")])
        world = World(
            loop,
            {"a": late.script(), "b": late.script()},
            on_cut="continue",
            deployment=ENGINE,
            on_disconnect=on_disconnect,
        )
        exchange = await leave(world, 4.0, seeded())  # one piece at 1.5 s, its end at 3.0 s, the rest from 4.5 s on
        assert len(late.asked) == 2
        sent = list(exchange.sent)
        await asyncio.sleep(30)
        world.check_nothing_is_held()
        (outcome,) = world.outcomes
        assert outcome.error == "client_left"
        assert exchange.sent == sent
        if on_disconnect == "drain":
            assert [attempt.ended for attempt in outcome.attempts] == ["network", "ok"]
            assert outcome.usage_source is UsageSource.PROVIDER
        else:
            assert [attempt.ended for attempt in outcome.attempts] == ["network", "cancelled"]
            assert outcome.usage_source is UsageSource.ESTIMATE

    virtual_loop.run(main)


cuts = st.lists(
    st.tuples(st.integers(0, 2500), st.sampled_from(["end", "reset", "stall", ERROR])), min_size=1, max_size=4
)


@given(cuts, st.integers(20, 900), st.floats(0, 8), st.integers(0, 99), st.booleans(), st.none() | st.floats(0.01, 0.5))
@settings(max_examples=200, deadline=None)
def test_nothing_leaks_and_there_is_one_receipt_whenever_the_caller_leaves(cuts, size, leaves_at, seed, drain, hedge):
    async def main(loop):
        plan = Plan(
            ("main",), max_attempts=4, first_token_timeout=2.0, idle_timeout=2.0, total_timeout=20.0, hedge_after=hedge
        )
        engine = Engine(cuts=cuts, size=size)
        world = World(
            loop,
            {name: engine.script() for name in "abc"},
            plan=plan,
            seed=seed,
            on_cut="continue",
            deployment=ENGINE,
            on_disconnect="drain" if drain else "cancel",
        )
        exchange = await leave(world, leaves_at)
        assert drain or len(world.outcomes) == 1
        await asyncio.sleep(60)
        world.check_nothing_is_held()
        assert len(world.outcomes) == 1
        assert len(world.outcomes[0].attempts) == len(world.opened)
        assert exchange.ended == (world.outcomes[0].error != "client_left")
        assert len(asyncio.all_tasks()) == 1

    virtual_loop.run(main)


# --- from the text ---------------------------------------------------------------------------------------------------


class Talker:
    """Says `text` word by word, or what is left of it where it is told to go on; `echoes` like Mistral."""

    def __init__(self, text="one two three four five six", cut_after=None, how="reset", echoes=False, extra=None):
        self.words = re.findall(r" ?\w+", text)
        self.cut_after, self.how, self.echoes, self.extra = cut_after, how, echoes, extra or {}
        self.asked = []

    def steps(self, fields):
        self.asked.append(fields)
        head = {"id": f"answer-{len(self.asked)}", "created": len(self.asked), "model": "m"}
        last = fields["messages"][-1]
        known = last["content"] if last["role"] == "assistant" else ""
        words, said = list(self.words), ""
        while words and said != known:
            said += words.pop(0)
        assert said == known
        if known and self.echoes:
            words.insert(0, known)
        role = {"role": "assistant"}  # with its first word, as some do
        said = [
            event(head, [choice((role if not i else {}) | {"content": w} | self.extra)]) for i, w in enumerate(words)
        ]
        if not known and self.cut_after is not None:
            ends = [(0.1, self.how)] if self.how != "stall" else []
            return [*((0.1, one) for one in said[: self.cut_after]), *ends]
        counts = {"prompt_tokens": 20, "completion_tokens": len(words), "total_tokens": 20 + len(words)}
        said += [event(head, [choice({}, "stop")]), event(head, [], usage=counts), DONE]
        return [*((0.1, one) for one in said), (0.1, "end")]


def talk(talker, quirk="continue_final_message", body=BODY, **more):
    script = Script(steps=talker.steps)

    async def main(loop):
        world = World(
            loop, {"a": script, "b": script}, on_cut="prefix", deployment={"quirks": (quirk,) if quirk else ()}, **more
        )
        exchange = await world.ask(encode(body))
        world.check_nothing_is_held()
        return exchange, world.outcomes[0]

    return virtual_loop.run(main)


def deltas(exchange):
    events = [decode(line[6:]) for line in exchange.text.split(b"\n\n") if line.startswith(b"data: {")]
    assert len({(one["id"], one["created"]) for one in events}) == 1
    return [one["choices"][0]["delta"] for one in events if one["choices"]]


@pytest.mark.parametrize(
    ("quirk", "last", "more"),
    [
        ("continue_final_message", {}, {"continue_final_message": True, "add_generation_prompt": False}),
        ("prefix", {"prefix": True}, {}),
        ("prefill", {}, {}),
    ],
)
def test_another_one_goes_on_from_the_text_as_it_wants_to_be_told(quirk, last, more):
    talker = Talker(cut_after=3, echoes=quirk == "prefix")
    exchange, outcome = talk(talker, quirk)
    assert "".join(delta.get("content", "") for delta in deltas(exchange)) == "one two three four five six"
    assert ["role" in delta for delta in deltas(exchange)].count(True) == 1
    assert exchange.text.endswith(DONE)
    first, second = talker.asked
    assert first.keys() == {*BODY, "stream_options"}
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": "one two three"} | last]
    assert {name: second[name] for name in second.keys() - first.keys()} == more
    assert (first["max_tokens"], second["max_tokens"]) == (64, 61)
    assert [attempt.ended for attempt in outcome.attempts] == ["network", "ok"]
    assert outcome.error is None


def test_what_both_attempts_cost_is_added_up_and_called_an_estimate_to_everybody():
    exchange, outcome = talk(Talker(cut_after=2), body=BODY | WITH_USAGE)
    (usage,) = [decode(line[6:])["usage"] for line in exchange.text.split(b"\n\n") if b'"usage"' in line]
    prompt = outcome.usage.prompt_tokens
    assert prompt > 20, "the first one's prompt is in it, too"
    assert usage == {
        "prompt_tokens": prompt,
        "completion_tokens": 6,
        "total_tokens": prompt + 6,
        "usage_source": "estimate",
    }
    assert (outcome.usage.completion_tokens, outcome.usage_source) == (6, UsageSource.ESTIMATE)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"n": 2},
        {"reasoning_effort": "low"},
        {"max_tokens": 3},
    ],
)
def test_what_is_more_than_text_ends_with_an_error(more):
    exchange, outcome = talk(Talker(cut_after=3), body=BODY | more)
    assert broken(exchange, outcome, "upstream_broke") == ["network"]


@pytest.mark.parametrize("extra", [{"reasoning_content": "hm"}, {"tool_calls": [{"index": 0}]}, {"refusal": "no"}])
def test_an_answer_that_was_more_than_text_ends_with_an_error(extra):
    exchange, outcome = talk(Talker(cut_after=3, extra=extra))
    assert broken(exchange, outcome, "upstream_broke") == ["network"]


def test_where_nobody_goes_on_from_text_a_cut_is_an_error():
    exchange, outcome = talk(Talker(cut_after=3), quirk=None)
    assert broken(exchange, outcome, "upstream_broke") == ["network"]
