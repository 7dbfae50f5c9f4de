"""The ladder in the live gateway on virtual time: what is given up, who is told, and when it is over."""

import asyncio

import msgspec
import pytest

from penstock.core.outcome import UsageSource
from penstock.gateway.degrading import given_up
from penstock.gateway.stored_responses import StoredResponses
from penstock.resilience.options import NO_REPLICA, Step
from penstock.routing.spec import CascadeSpec, Escalation, RoutingSpec, RuleSpec, SensitiveSpec
from penstock.stores.memory import MemoryResponses
from penstock.testing.fake_upstream import Script
from tests.gateway.routed_world import Routed, deployment, header, model, play, says, text_of, ticking

BIG, SMALL = deployment("big", inside=True), deployment("small", price=1)
ANSWERS = {"big": says("from", " big"), "small": says("from", " small")}
SORRY = "Please try again in a minute."
AT_NONE = (NO_REPLICA, NO_REPLICA)


def degraded(loop, *ladder, scripts=ANSWERS, **more):
    chat = model("chat", "big", degrade=ladder, **more)
    return Routed(loop, scripts, [chat, model("small", "small")], [BIG, SMALL])


def nobody(world, ready=False):
    for replica in world.gateway.plane.pools["big"]:
        replica.ready = ready


def pressed(world, saturation):
    """As if `Pressure.look` had seen that."""
    chat = world.gateway.plane.spec.models[0]
    world.gateway._pressure.steps = {"chat": tuple(step for step in chat.degrade if step.at <= saturation)}


BODIES = {
    b"/v1/chat/completions": {},
    b"/v1/completions": {"prompt": "hi", "messages": None},
    b"/v1/messages": {"max_tokens": 9},
    b"/v1/responses": {"input": "hi", "messages": None},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", list(BODIES))
def test_a_text_is_the_answer_in_every_dialect_while_nobody_can_answer_and_costs_nothing(path, stream):
    async def story(loop):
        world = degraded(loop, Step(*AT_NONE, answer=SORRY))
        nobody(world)
        answer = await world.chat(path=path, stream=stream, **BODIES[path])
        assert (answer.status, SORRY.encode() in answer.text) == (200, True)
        assert answer.content_type.startswith(b"text/event-stream" if stream else b"application/json")
        assert header(answer, "x-penstock-degraded") == "static"
        assert header(answer, "x-request-id")
        (outcome,) = world.outcomes
        assert (outcome.status, outcome.error, outcome.cost_nanos) == (200, None, 0)
        assert (outcome.degraded, outcome.usage.completion_tokens) == (("static",), 0)
        assert (outcome.usage_source, outcome.attempts) == (UsageSource.NONE, ())
        assert world.opened == []
        world.check_nothing_is_held()
        nobody(world, ready=True)
        assert header(await world.chat(path=path, stream=stream, **BODIES[path]), "x-penstock-degraded") is None

    play(story)


def test_what_the_text_says_of_itself_is_what_an_upstream_would_have_said():
    async def story(loop):
        world = degraded(loop, Step(*AT_NONE, answer=SORRY))
        nobody(world)
        plain = msgspec.json.decode((await world.chat()).text)
        assert plain["choices"][0] | {"logprobs": None} == {
            "index": 0, "message": plain["choices"][0]["message"], "finish_reason": "stop", "logprobs": None
        }  # fmt: skip
        assert (plain["usage"]["prompt_tokens"], plain["usage"]["total_tokens"], plain["model"]) == (0, 0, "chat")
        streamed = await world.chat(stream=True)
        assert text_of(streamed) == SORRY
        assert streamed.text.endswith(b"data: [DONE]\n\n")
        claude = msgspec.json.decode((await world.chat(path=b"/v1/messages", max_tokens=9)).text)
        assert (claude["stop_reason"], claude["content"][0]["text"]) == ("end_turn", SORRY)

    play(story)


def test_a_conversation_can_go_on_from_a_text_that_was_the_answer():
    async def story(loop):
        chat = model("chat", "big", degrade=(Step(*AT_NONE, answer=SORRY),))
        world = Routed(loop, ANSWERS, [chat], [BIG], stored=StoredResponses(MemoryResponses(), loop))
        nobody(world)
        fields = {"path": b"/v1/responses", "messages": None}
        first = msgspec.json.decode((await world.chat(input="hi", **fields)).text)
        nobody(world, ready=True)
        answer = await world.chat(input="And?", previous_response_id=first["id"], **fields)
        assert answer.status == 200
        assert SORRY in str(world.bodies("big"))

    play(story)


def test_what_is_no_text_is_refused_as_ever():
    async def story(loop):
        world = degraded(loop, Step(*AT_NONE, answer=SORRY))
        nobody(world)
        told = await world.chat(path=b"/v1/embeddings", input="x", messages=None)
        assert (told.status, SORRY.encode() in told.text) == (400, False), "it has no embeddings at all"

    play(story)


def test_answers_are_shorter_and_the_caller_is_told_when_theirs_is():
    async def story(loop):
        world = degraded(loop, Step(0.8, 0.7, max_tokens=512))
        pressed(world, 0.9)
        for fields, sent, told in (
            ({"max_tokens": 4_000}, {"max_tokens": 512}, "max_tokens=512"),
            ({"max_completion_tokens": 4_000}, {"max_completion_tokens": 512}, "max_tokens=512"),
            ({}, {"max_tokens": 512}, "max_tokens=512"),
            ({"max_tokens": 64}, {"max_tokens": 64}, None),
        ):
            answer = await world.chat(**fields)
            body = world.bodies("big")[-1]
            assert {name: body[name] for name in body if "max" in name} == sent
            assert header(answer, "x-penstock-degraded") == told
            assert world.outcomes[-1].degraded == (() if told is None else (told,))
        world.check_nothing_is_held()

    play(story)


@pytest.mark.parametrize("stream", [False, True])
def test_another_model_answers_under_pressure_and_the_receipt_says_who_was_asked_for(stream):
    async def story(loop):
        world = degraded(loop, Step(0.5, 0.4, max_tokens=99), Step(0.8, 0.7, model="small"))
        pressed(world, 0.9)
        answer = await world.chat(stream=stream)
        assert text_of(answer) == "from small"
        assert header(answer, "x-penstock-degraded") == "max_tokens=99, model=small"
        (outcome,) = world.outcomes
        assert (outcome.model, outcome.deployment) == ("chat", "small")
        assert (outcome.cost_nanos, outcome.degraded) == (120_000, ("max_tokens=99", "model=small"))
        world.check_nothing_is_held()

    play(story)


def test_who_goes_on_to_another_model_is_turned_away_only_if_that_one_is_full():
    async def story(loop):
        world = degraded(loop, Step(0.8, 0.7, model="small"))
        pressed(world, 2.0)
        for full, status in (("chat", 200), ("small", 503)):
            world.gateway._pressure.saturations = {full: 2.0}
            assert (await world.chat()).status == status
        assert world.outcomes[-1].error == "shed"

    play(story)


def test_the_ladder_holds_at_once_when_the_last_replica_goes_and_a_model_that_can_comes_before_the_text():
    async def story(loop):
        world = degraded(loop, Step(*AT_NONE, model="small"), Step(*AT_NONE, answer=SORRY))
        world.gateway.tend()
        assert text_of(await world.chat()) == "from big"
        nobody(world)
        assert text_of(await world.chat()) == "from small"
        world.gateway.plane.pools["small"][0].ready = False
        assert text_of(await world.chat()) == SORRY
        nobody(world, ready=True)
        assert text_of(await world.chat()) == "from big"

    play(story)


def test_breakers_that_are_open_are_nobody_too():
    async def story(loop):
        world = degraded(loop, Step(*AT_NONE, answer=SORRY), scripts={"big": says("x", breaks_after=0)})
        statuses = [(await world.chat(stream=True)).status for _ in range(6)]
        assert statuses[0] == 502
        assert statuses[-1] == 200
        assert world.outcomes[-1].degraded == ("static",)
        world.check_nothing_is_held()

    play(story)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cascade", [False, True])
def test_who_finds_out_first_that_nobody_is_there_is_helped_too(stream, cascade):
    """Killed processes look ready until somebody has asked them."""
    step = CascadeSpec((("big",), ("other",)), Escalation(refusal=True))
    spec = RoutingSpec(cascade=step) if cascade else None

    async def story(loop):
        gone, ladder = Script(fault="connect"), (Step(*AT_NONE, model="small"), Step(*AT_NONE, answer=SORRY))
        chat = model("chat", "big", "other", degrade=ladder, routing=spec)
        for small, said, degraded, cost in (
            (ANSWERS["small"], "from small", "model=small", 120_000), (gone, SORRY, "static", 0),
        ):  # fmt: skip
            scripts = {"big": gone, "other": gone, "small": small}
            other = deployment("other", price=1)
            world = Routed(loop, scripts, [chat, model("small", "small")], [BIG, other, SMALL])
            if small is gone:  # a text is said only where the other model is known to be away as well
                world.gateway.plane.pools["small"][0].ready = False
            answer = await world.chat(stream=stream)
            assert (answer.status, text_of(answer)) == (200, said)
            assert header(answer, "x-penstock-degraded") == degraded
            (outcome,) = world.outcomes
            assert (outcome.cost_nanos, outcome.degraded, outcome.error) == (cost, (degraded,), None)
            assert [attempt.replica for attempt in outcome.attempts] == world.opened
            assert [attempt.number for attempt in outcome.attempts] == list(range(len(world.opened)))
            world.check_nothing_is_held()

    play(story)


def test_what_fails_for_another_reason_is_told_as_ever():
    async def story(loop):
        world = degraded(loop, Step(*AT_NONE, answer=SORRY), scripts={"big": Script(status=400)})
        assert (await world.chat()).status == 400
        world = degraded(loop, Step(0.9, 0.8, max_tokens=9), scripts={"big": Script(fault="connect")})
        assert (await world.chat()).status == 502, "there is nothing on this ladder that would help"
        world.check_nothing_is_held()

    play(story)


def test_pressure_makes_the_ladder_hold_and_it_goes_back_when_it_is_over():
    async def story(loop):
        ladder = Step(0.5, 0.4, 2.0, model="small")
        world = degraded(loop, ladder, scripts={**ANSWERS, "big": says("from", " big", ttft=1.0)})
        for replica in world.gateway.plane.pools["big"]:
            replica.reported(waiting=0, running=0, kv_used=0.0, kv_tokens=100_000, max_running=1)
        chat = world.gateway.plane.spec.models[0]
        plan = msgspec.structs.replace(chat.plan, first_token_timeout=4.0, total_timeout=600.0)
        world.reload(models=(msgspec.structs.replace(chat, plan=plan), *world.gateway.plane.spec.models[1:]), shed=None)
        ticks = loop.create_task(ticking(world))
        await asyncio.sleep(0.5)
        asks = [loop.create_task(world.chat(f"question {n}")) for n in range(30)]
        await asyncio.sleep(1.0)
        late = await world.chat()
        assert header(late, "x-penstock-degraded") == "model=small"
        await asyncio.gather(*asks)
        await asyncio.sleep(10.0)
        after = await world.chat()
        assert (text_of(after), header(after, "x-penstock-degraded")) == ("from big", None)
        ticks.cancel()
        world.check_nothing_is_held()

    play(story)


def test_a_private_request_is_answered_by_another_model_inside_or_by_the_text_but_never_outside():
    spec = RoutingSpec(sensitive=SensitiveSpec(when='"secret" in tags'))
    headers = [("x-penstock-tags", "secret")]

    async def story(loop):
        ladder = (Step(*AT_NONE, model="small"), Step(*AT_NONE, answer=SORRY))
        chat = model("chat", "big", "far", routing=spec, degrade=ladder)
        near, far = deployment("near", inside=True), deployment("far")
        models = [chat, model("small", "far", "near")]
        scripts = {"big": says("big"), "near": says("near"), "far": says("far")}
        world = Routed(loop, scripts, models, [BIG, near, far])
        nobody(world)
        assert text_of(await world.chat(headers=headers)) == "near"
        assert text_of(await world.chat()) == "far"
        world.gateway.plane.pools["near"][0].ready = False
        assert text_of(await world.chat(headers=headers)) == SORRY
        assert world.opened == ["near/0", "far/0"]

    play(story)


def test_what_a_rule_refuses_stays_refused_on_every_rung():
    spec = RoutingSpec(rules=(RuleSpec("no", "stream", refuse="No."),))

    async def story(loop):
        world = degraded(loop, Step(*AT_NONE, answer=SORRY), routing=spec)
        nobody(world)
        assert (await world.chat(stream=True)).status == 403
        assert (await world.chat()).status == 200

    play(story)


def test_a_later_step_that_says_the_same_thing_counts():
    steps = (
        Step(0.5, 0.4, max_tokens=9),
        Step(0.6, 0.5, model="a"),
        Step(0.7, 0.6, max_tokens=3),
        Step(0.8, 0.7, model="b"),
    )
    given = given_up(steps, str.upper, speaks=True)
    assert (given.max_tokens, given.instead, given.model_name) == (3, "B", "model=b")
    given = given_up((*steps, Step(0.9, 0.8, answer="x")), str.upper, speaks=True)
    assert (given.instead, given.answer, given.answer_name) == (None, "x", "static")
    given = given_up((*steps, Step(0.9, 0.8, answer="x")), lambda name: None, speaks=False)
    assert (given.instead, given.answer) == (None, None)
