"""A cheap answer first, in the live gateway on virtual time: what is shown, what is paid for, what is given back."""

import asyncio
import json
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.config.spec import GrantSpec, KeySpec
from penstock.core.errors import FailureKind
from penstock.core.outcome import UsageSource
from penstock.core.plan import CANCELLED, OK
from penstock.core.request import Endpoint
from penstock.gateway import cascading
from penstock.gateway.accounting import Accounting
from penstock.gateway.cascading import verdict, wanted
from penstock.resilience.options import NO_REPLICA, Step
from penstock.routing.spec import CascadeSpec, Escalation, RoutingSpec
from penstock.stores.counters_memory import MemoryCounters
from penstock.testing.fake_upstream import Script
from tests.gateway.routed_world import Routed, deployment, header, model, play, says, text_of

# $1 and $10 for a million tokens: what `says` counts is 100 tokens of prompt and 10 of each word
CHEAP, STRONG, JUDGE = deployment("cheap", price=1), deployment("strong", price=10), deployment("judge", price=100)
CHEAPLY, STRONGLY = (100 + 20) * 1_000, (100 + 20) * 10_000  # nano-dollars, of an answer of two words
SURE, UNSURE, RIGHT = (says("good", " one", probability=p) for p in (0.9, 0.4, 0.99))


def cascaded(loop, cheap, strong=RIGHT, *, hold=None, steps=(("cheap",), ("strong",)), scripts=(), **rule):
    spec = RoutingSpec(cascade=CascadeSpec(steps, Escalation(**(rule or {"min_probability": 0.5})), hold))
    models = [model("chat", "cheap", "strong", routing=spec), model("judge", "judge")]
    scripts = {"cheap": cheap, "strong": strong, **dict(scripts)}
    return Routed(loop, scripts, models, [CHEAP, STRONG, JUDGE])


def test_whether_an_answer_is_streamed_does_not_change_who_gives_it_or_what_it_costs():
    async def story(loop):
        for stream in (False, True):
            world = cascaded(loop, SURE)
            answer = await world.chat(stream=stream)
            assert (text_of(answer), world.opened) == ("good one", ["cheap/0"])
            (outcome,) = world.outcomes
            assert (outcome.cost_nanos, outcome.deployment) == (CHEAPLY, "cheap")
            assert outcome.why == ("cascade of 2 steps",)
            world.check_nothing_is_held()
            world = cascaded(loop, UNSURE, says("better", " one"))
            answer = await world.chat(stream=stream)
            assert (text_of(answer), world.opened) == ("better one", ["cheap/0", "strong/0"])
            (outcome,) = world.outcomes
            assert (outcome.cost_nanos, outcome.deployment) == (CHEAPLY + STRONGLY, "strong")
            assert [(one.number, one.replica, one.ended) for one in outcome.attempts] == [
                (0, "cheap/0", OK), (1, "strong/0", OK),
            ]  # fmt: skip
            assert outcome.usage.completion_tokens == 20, "of the answer that the caller got"
            reason = "cascade of 2 steps; step 1 (cheap): least probability 0.400 < 0.5"
            assert header(answer, "x-penstock-route") == reason == "; ".join(outcome.why)
            assert header(answer, "x-penstock-attempts") == "2"
            world.check_nothing_is_held()

    play(story)


def test_probabilities_that_nobody_asked_for_are_not_shown_and_those_asked_for_are():
    async def story(loop):
        world = cascaded(loop, SURE)
        for stream in (False, True):
            unasked = await world.chat(stream=stream)
            assert b'"logprobs": null' in unasked.text or b'"logprobs":null' in unasked.text
            assert b"top_logprobs" not in unasked.text
            assert b"top_logprobs" in (await world.chat(stream=stream, logprobs=True, top_logprobs=2)).text
            few = await world.chat(stream=stream, logprobs=True)
            assert b'"top_logprobs":[]' in few.text
            assert b'"token":"good"' in few.text
        assert all((body["logprobs"], body["top_logprobs"]) == (True, 2) for body in world.bodies("cheap"))

    play(story)


def test_the_last_step_is_asked_as_the_caller_asked_and_flows_at_once():
    async def story(loop):
        world = cascaded(loop, UNSURE, says(*"abcdef", ttft=1.0, tpot=1.0))
        asking = loop.create_task(world.chat(stream=True))
        await asyncio.sleep(0.1 + 0.1 + 1.0 + 0.05)
        assert "logprobs" not in world.bodies("strong")[0]
        assert len(world.opened) == 2
        await asking
        (outcome,) = world.outcomes
        assert outcome.first_token_after == pytest.approx(1.2)
        assert outcome.duration == pytest.approx(6.2)

    play(story)


def test_a_stream_is_held_until_it_is_whole_or_until_enough_good_tokens_came():
    async def story(loop):
        slow = says(*"abcdefgh", probability=0.9, ttft=1.0, tpot=1.0)
        for hold, first in ((None, 8.0), (3, 3.0)):
            world = cascaded(loop, slow, hold=hold)
            answer = await world.chat(stream=True)
            (outcome,) = world.outcomes
            assert text_of(answer) == "abcdefgh"
            assert outcome.first_token_after == pytest.approx(first)
            assert outcome.duration == pytest.approx(8.0)
            assert b"top_logprobs" not in answer.text
            world.check_nothing_is_held()

    play(story)


def test_a_stream_that_is_not_good_enough_is_stopped_as_soon_as_that_is_known():
    async def story(loop):
        world = cascaded(loop, says(*"abcdefgh", probability=0.3, ttft=1.0, tpot=1.0), hold=2)
        answer = await world.chat(stream=True)
        assert text_of(answer) == "good one"
        (outcome,) = world.outcomes
        stopped, shown = outcome.attempts
        assert (stopped.ended, stopped.ended_after) == (CANCELLED, pytest.approx(2.0))
        assert shown.ended == OK
        prompt = outcome.cost_nanos - STRONGLY
        assert 0 < prompt < CHEAPLY, "what came until then, as far as we can count it"
        world.check_nothing_is_held()

    play(story)


@pytest.mark.parametrize(
    ("cheap", "rule", "told"),
    [
        (says("no", " json"), {"schema": True}, "it is not JSON"),
        (says("I'm sorry,", " but no"), {"refusal": True, "schema": False}, "it refuses"),
        (says("x"), {"min_probability": 0.5}, "no probabilities came"),
        (Script(status=500), {"min_probability": 0.5}, "nobody has answered (upstream_error)"),
        (Script(fault="connect"), {"refusal": True}, "nobody has answered (upstream_unreachable)"),
    ],
)
def test_what_is_not_good_enough_is_said(cheap, rule, told):
    async def story(loop):
        for stream in (False, True):
            world = cascaded(loop, cheap, says('{"a":', "1}"), **rule)
            answer = await world.chat(stream=stream, response_format={"type": "json_object"})
            assert text_of(answer) == '{"a":1}'
            assert world.outcomes[0].why[-1] == f"step 1 (cheap): {told}"
            world.check_nothing_is_held()

    play(story)


def test_a_call_of_a_tool_is_an_answer_and_is_shown():
    async def story(loop):
        world = cascaded(loop, says(tools=True), refusal=True)
        assert b'"name": "f"' in (await world.chat()).text
        assert world.opened == ["cheap/0"]

    play(story)


def test_a_held_stream_that_breaks_or_falls_silent_is_made_good_by_the_next_step():
    async def story(loop):
        breaks = says(*"abc", probability=0.9, breaks_after=2)
        silent = Script(steps=lambda fields: [(0.1, says("a", probability=0.9).steps(fields)[0][1]), (999.0, "end")])
        for cheap, why, ended in (
            (breaks, "it broke off (network)", FailureKind.NETWORK),
            (silent, "it fell silent", FailureKind.IDLE_TIMEOUT),
        ):
            world = cascaded(loop, cheap)
            answer = await world.chat(stream=True)
            assert text_of(answer) == "good one"
            assert world.outcomes[0].why[-1] == f"step 1 (cheap): {why}"
            assert [attempt.ended for attempt in world.outcomes[0].attempts] == [ended, OK]
            world.check_nothing_is_held()

    play(story)


def test_when_the_last_step_has_no_answer_its_failure_is_told_and_what_was_thrown_away_is_paid():
    async def story(loop):
        world = cascaded(loop, UNSURE, Script(status=400))
        answer = await world.chat()
        assert answer.status == 400
        (outcome,) = world.outcomes
        assert (outcome.cost_nanos, outcome.usage_source) == (CHEAPLY, UsageSource.NONE)
        world.check_nothing_is_held()

    play(story)


def test_the_ledger_has_the_cost_of_everything_that_was_asked_to_the_nano_dollar():
    async def story(loop):
        entries = []
        accounting = Accounting(MemoryCounters(loop), on_entry=lambda entry, slot: entries.append(entry))
        spec = RoutingSpec(cascade=CascadeSpec((("cheap",), ("strong",)), Escalation(refusal=True, judge="judge")))
        models = [model("chat", "cheap", "strong", routing=spec), model("judge", "judge")]
        scripts = {"cheap": SURE, "strong": RIGHT, "judge": says("3")}
        world = Routed(loop, scripts, models, [CHEAP, STRONG, JUDGE], accounting=accounting)
        await world.chat()
        (entry,) = entries
        assert entry.cost_nanos == CHEAPLY + STRONGLY + 110 * 100_000 == world.outcomes[0].cost_nanos
        assert (entry.deployment, entry.output_tokens) == ("strong", 20)

    play(story)


def test_what_is_reserved_is_enough_for_all_steps_and_the_judge():
    async def story(loop):
        for judge, nanos in ((None, 11_000), ("judge", 111_000)):
            spec = RoutingSpec(cascade=CascadeSpec((("cheap",), ("strong",)), Escalation(refusal=True, judge=judge)))
            models = [model("chat", "cheap", "strong", routing=spec), model("judge", "judge")]
            for most, status in ((99 * nanos, 403), (199 * nanos, 200)):  # of 100 tokens and a short prompt
                key = KeySpec("k", sha256(b"sk-1").hexdigest(), 0)
                known = {"keys": (key,), "grants": (GrantSpec(max_cost=most),), "insecure_dev": False}
                scripts = {"cheap": SURE, "judge": says("9")}
                world = Routed(loop, scripts, models, [CHEAP, STRONG, JUDGE], **known)
                answer = await world.chat(max_tokens=100, headers=[("authorization", "Bearer sk-1")])
                assert answer.status == status, (judge, most)

    play(story)


def test_what_is_longer_than_can_be_held_is_not_good_enough(monkeypatch):
    monkeypatch.setattr(cascading, "MAX_HELD", 2 * 2**20)

    async def story(loop):
        long = says(*["x" * 50_000] * 60, probability=0.9)
        world = cascaded(loop, long)
        answer = await world.chat(stream=True)
        assert text_of(answer) == "good one"
        assert world.outcomes[0].why[-1] == "step 1 (cheap): it is longer than 2 MiB"
        assert world.outcomes[0].attempts[0].ended == CANCELLED
        world.check_nothing_is_held()

    play(story)


# --- judges ---


@pytest.mark.parametrize(("said", "shown"), [("9", "cheap/0"), ("I'd say 8/10", "cheap/0"), ("2", "strong/0")])
def test_a_judge_is_asked_about_the_answer_and_paid_and_its_verdict_counts(said, shown):
    async def story(loop):
        world = cascaded(loop, SURE, says("x", "y"), judge="judge", scripts={"judge": says(said)})
        answer = await world.chat("What is good?")
        asked = world.bodies("judge")[0]
        assert "What is good?" in asked["messages"][0]["content"]
        assert "<answer>\ngood one\n</answer>" in asked["messages"][0]["content"]
        assert (asked["model"], header(answer, "x-penstock-replica")) == ("served-judge", shown)
        (outcome,) = world.outcomes
        judged, strong = (100 + 10) * 100_000, STRONGLY if shown == "strong/0" else 0
        assert outcome.cost_nanos == CHEAPLY + judged + strong
        assert [attempt.replica for attempt in outcome.attempts][:2] == ["cheap/0", "judge/0"]
        world.check_nothing_is_held()

    play(story)


def test_a_judge_that_fails_or_says_nothing_useful_is_no_reason_to_trust_the_answer():
    async def story(loop):
        for judge in (Script(status=500), says("hm")):
            world = cascaded(loop, SURE, says("x", "y"), judge="judge", scripts={"judge": judge})
            assert text_of(await world.chat()) == "xy"
            assert world.outcomes[0].why[-1] == "step 1 (cheap): the judge gave no verdict"
            world.check_nothing_is_held()

    play(story)


@pytest.mark.parametrize(
    ("text", "found"),
    [("7", 0.7), ("10", 1.0), ("0", 0.0), ("**8**", 0.8), ("Score: 8/10.", 0.8), ("3 of 10 points? No: 4", 0.4),
     ("11", None), ("", None), ("good", None), ("7.5", 0.75)],
)  # fmt: skip
def test_a_verdict_is_the_last_number_up_to_ten(text, found):
    assert verdict(text) == found


def test_the_schema_that_an_answer_must_fit_is_found_in_every_dialect():
    schema = {"type": "object"}
    inner = {"type": "json_schema", "schema": schema}
    for fields, found in (
        ({}, (False, None)),
        ({"response_format": {"type": "json_object"}}, (True, None)),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}, (True, schema)),
        ({"text": {"format": inner}}, (True, schema)),
        ({"text": {"format": {"type": "text"}}}, (False, None)),
        ({"output_config": {"format": inner}}, (True, schema)),
        ({"output_format": inner}, (True, schema)),
        ({"response_format": "json"}, (False, None)),
    ):
        assert wanted({name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}) == found


# --- other dialects ---


def test_a_dialect_that_carries_no_probabilities_goes_to_the_last_step_at_once():
    async def story(loop):
        world = cascaded(loop, SURE)
        await world.chat(path=b"/v1/messages", max_tokens=9)
        assert world.opened == ["strong/0"]
        assert world.outcomes[0].why[-1] == "no cascade: messages carries no probabilities"

    play(story)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/responses"])
def test_answers_are_judged_in_every_dialect_of_callers(path, stream):
    async def story(loop):
        for cheap, opened in ((says("fine"), ["cheap/0"]), (says("I can't do that"), ["cheap/0", "strong/0"])):
            world = cascaded(loop, cheap, says("done"), refusal=True)
            fields = {"max_tokens": 9} if path == b"/v1/messages" else {"input": "hi", "messages": None}
            answer = await world.chat(path=path, stream=stream, **fields)
            assert (answer.status, world.opened) == (200, opened)
            assert (b"fine" if len(opened) == 1 else b"done") in answer.text
            world.check_nothing_is_held()

    play(story)


# --- whatever happens ---


words = st.builds(
    says,
    st.sampled_from(["yes", "I'm sorry, no", ""]),
    st.sampled_from([" a", " b"]),
    probability=st.sampled_from([None, 0.3, 0.9]),
    ttft=st.sampled_from([0.0, 0.3, 3.0]),
    tpot=st.sampled_from([0.0, 0.4, 7.0]),
    breaks_after=st.sampled_from([None, None, 1]),
)
broken = st.builds(Script, status=st.sampled_from([500, 429, 400]), fail_after=st.sampled_from([0.0, 0.4]))
scripts = st.one_of(words, words, words, broken, st.just(Script(fault="connect")))
escalations = st.sampled_from(
    [
        Escalation(min_probability=0.5),
        Escalation(refusal=True),
        Escalation(refusal=True, judge="judge"),
        Escalation(margin=0.2, judge="judge"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(dict.fromkeys(("cheap", "strong"), scripts)),
    st.one_of(st.sampled_from([says("9"), says("1", ttft=2.0)]), broken),
    escalations,
    st.sampled_from([None, 1, 2]),
    st.booleans(),
    st.sampled_from(["cancel", "drain"]),
    st.sampled_from([(), (Step(NO_REPLICA, NO_REPLICA, model="judge"),), (Step(NO_REPLICA, NO_REPLICA, answer="."),)]),
    st.one_of(st.none(), st.floats(0.0, 12.0)),
    st.integers(0, 99),
)
def test_nothing_leaks_and_every_attempt_is_told_whenever_the_caller_leaves(
    upstreams, judge, rule, hold, stream, on_disconnect, ladder, leaves_at, seed
):
    async def story(loop):
        spec = RoutingSpec(cascade=CascadeSpec((("cheap",), ("strong",)), rule, hold))
        chat = model("chat", "cheap", "strong", routing=spec, on_disconnect=on_disconnect, degrade=ladder)
        scripts = {**upstreams, "judge": judge}
        world = Routed(loop, scripts, [chat, model("judge", "judge")], [CHEAP, STRONG, JUDGE], seed=seed)
        task = loop.create_task(world.chat(stream=stream))
        if leaves_at is not None:
            loop.call_later(leaves_at, task.cancel)
        try:
            exchange = await task
        except asyncio.CancelledError:
            assert on_disconnect == "drain" or world.outcomes[0].error == "client_left"
        else:
            assert exchange.ended
        await asyncio.sleep(200)  # virtual: what is drained has its end
        world.check_nothing_is_held()
        (outcome,) = world.outcomes
        assert sorted(attempt.replica for attempt in outcome.attempts) == sorted(world.opened)
        assert [attempt.number for attempt in outcome.attempts] == list(range(len(world.opened)))
        assert outcome.cost_nanos is None or outcome.cost_nanos >= 0
        assert len(asyncio.all_tasks()) == 1

    play(story)


def test_endpoints_that_generate_nothing_know_no_cascade():
    async def story(loop):
        cheap = msgspec.structs.replace(CHEAP, native=(Endpoint.EMBEDDING,))
        strong = msgspec.structs.replace(STRONG, native=(Endpoint.EMBEDDING,))
        spec = RoutingSpec(cascade=CascadeSpec((("cheap",), ("strong",)), Escalation(refusal=True)))
        answer = Script(answer=b'{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}')
        chat = model("chat", "cheap", "strong", routing=spec)
        world = Routed(loop, {"cheap": answer, "strong": answer}, [chat], [cheap, strong])
        assert (await world.chat(path=b"/v1/embeddings", input="x", messages=None)).status == 200
        assert world.opened == ["cheap/0"]

    play(story)
