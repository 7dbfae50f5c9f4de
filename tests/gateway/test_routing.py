"""Rules, experiments, ceilings and what must stay inside, in the live gateway on virtual time."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.gateway.prepare import PrepareError
from penstock.limits.rules import Limit, Meter
from penstock.resilience.options import NO_REPLICA, Step
from penstock.routing.spec import (
    ArmSpec,
    CascadeSpec,
    CeilingSpec,
    Escalation,
    PlanChanges,
    RoutingSpec,
    RuleSpec,
    SensitiveSpec,
    SplitSpec,
)
from penstock.testing.fake_upstream import Script
from tests.gateway.routed_world import Routed, deployment, header, model, play, says, text_of

LOCAL, CHEAP, STRONG = deployment("local", inside=True), deployment("cheap", price=1), deployment("strong", price=10)
ALL = (LOCAL, CHEAP, STRONG)
ANSWERS = {name: says(f"from {name}") for name in ("local", "cheap", "strong")}


def routed(loop, spec, scripts=ANSWERS, deployments=ALL, others=(), **more):
    chat = model("chat", *(one.name for one in deployments), routing=spec)
    return Routed(loop, scripts, [chat, *others], deployments, **more)


def rules(*rows):
    return RoutingSpec(rules=tuple(RuleSpec(f"rule {n}", **row) for n, row in enumerate(rows, 1)))


def test_a_rule_decides_by_a_header_and_the_caller_and_the_receipt_are_told_why():
    async def story(loop):
        world = routed(loop, rules({"when": 'headers["x-tier"] == "gold"', "use": ("strong",)}))
        gold = await world.chat(headers=[("x-tier", "gold")])
        plain = await world.chat()
        assert (text_of(gold), text_of(plain)) == ("from strong", "from local")
        assert header(gold, "x-penstock-route") == "rule 1: uses strong"
        assert header(plain, "x-penstock-route") is None
        assert [outcome.why for outcome in world.outcomes] == [("rule 1: uses strong",), ()]
        world.check_nothing_is_held()

    play(story)


def test_what_a_rule_refuses_is_refused_in_its_words_and_nobody_is_asked():
    async def story(loop):
        world = routed(loop, rules({"when": "stream", "refuse": "No streams today."}))
        refused = await world.chat(stream=True)
        said = msgspec.json.decode(refused.text)["error"]
        assert (refused.status, said["code"], said["message"]) == (403, "refused_by_rule", "No streams today.")
        assert world.opened == []
        assert world.outcomes[0].why == ("rule 1: refused",)
        world.check_nothing_is_held()

    play(story)


def test_a_rule_to_another_model_asks_for_it_by_its_name_and_counts_against_the_one_that_was_asked_for():
    async def story(loop):
        limit = Limit("asked", Meter.REQUESTS, 1, window=60, per=("model",), where=(("model", "chat"),))
        nameless = msgspec.structs.replace(deployment("other"), served=None)
        world = routed(
            loop,
            rules({"when": 'feature == "drafts"', "model": "b"}),
            {**ANSWERS, "other": says("from b")},
            (*ALL, nameless),
            others=[model("b", "other")],
            limits=(limit,),
        )
        answer = await world.chat(headers=[("x-penstock-feature", "drafts")])
        assert text_of(answer) == "from b"
        assert [body["model"] for body in world.bodies("other")] == ["b"]
        assert (world.outcomes[0].model, world.outcomes[0].deployment) == ("chat", "other")
        assert (await world.chat(headers=[("x-penstock-feature", "drafts")])).status == 429
        assert (await world.chat(model="b")).status == 200
        world.check_nothing_is_held()

    play(story)


def test_a_split_keeps_everybody_in_their_arm_and_names_it():
    arms = (ArmSpec("next", ("strong",), 0.5), ArmSpec("stable", ("cheap",)))

    async def story(loop):
        world = routed(loop, RoutingSpec(split=SplitSpec("canary", "user", arms)))
        seen = {}
        for n in range(40):
            user = f"user {n % 20}"
            answer = await world.chat(headers=[("x-penstock-user", user)])
            arm = header(answer, "x-penstock-arm")
            assert seen.setdefault(user, arm) == arm
            assert text_of(answer) == {"canary/next": "from strong", "canary/stable": "from cheap"}[arm]
        assert set(seen.values()) == {"canary/next", "canary/stable"}
        assert {outcome.arm for outcome in world.outcomes} == set(seen.values())

    play(story)


def test_a_rule_may_change_how_hard_is_tried():
    async def story(loop):
        spec = rules({"when": "stream", "changes": PlanChanges(max_attempts=1, first_token_timeout=0.5)})
        world = routed(loop, spec, {"local": Script(ttft=1.0)}, (deployment("local", inside=True, replicas=2),))
        answer = await world.chat(stream=True)
        assert (answer.status, len(world.opened), loop.time()) == (504, 1, 0.5)
        world.check_nothing_is_held()

    play(story)


def test_a_ceiling_leaves_out_what_limits_would_reserve_too_much_for():
    async def story(loop):
        world = routed(loop, RoutingSpec(ceilings=CeilingSpec(cost=2_000_000)), deployments=(CHEAP, STRONG))
        assert text_of(await world.chat(max_tokens=100)) == "from cheap"
        over = await world.chat(max_tokens=100_000)
        assert (over.status, msgspec.json.decode(over.text)["error"]["code"]) == (503, "over_ceiling")
        world.check_nothing_is_held()

    play(story)


def test_a_slow_deployment_is_left_out_once_enough_of_its_first_tokens_were_seen():
    spec = RoutingSpec(ceilings=CeilingSpec(first_token=1.0))

    async def story(loop):
        world = routed(loop, spec, {"cheap": Script(ttft=1.9), "strong": Script(ttft=0.1)}, (CHEAP, STRONG))
        for n in range(60):
            await world.chat(f"{n} " * 4_000, stream=True)  # nothing of which is cached
        assert world.opened[0] == "cheap/0"
        assert world.opened[-1] == "strong/0"

    play(story)


# --- inside ---

PRIVATE = SensitiveSpec(pii=("email",))
MAIL = "Write to ann@example.com about it"


@pytest.mark.parametrize("stream", [False, True])
def test_what_must_stay_inside_is_refused_when_nobody_there_is_ready(stream):
    async def story(loop):
        world = routed(loop, RoutingSpec(sensitive=PRIVATE))
        assert text_of(await world.chat(MAIL, stream=stream)) == "from local"
        world.gateway.plane.pools["local"][0].ready = False
        refused = await world.chat(MAIL, stream=stream)
        assert (refused.status, world.outcomes[-1].error) == (503, "no_private_deployment")
        assert text_of(await world.chat("nothing private", stream=stream)) == "from cheap"
        assert set(world.opened) == {"local/0", "cheap/0"}
        world.check_nothing_is_held()

    play(story)


script = st.builds(
    Script,
    ttft=st.sampled_from([0.0, 0.3, 3.0]),
    tokens=st.integers(1, 3),
    tpot=st.sampled_from([0.0, 0.4]),
    status=st.sampled_from([200, 200, 503, 429]),
    fault=st.sampled_from([None, None, "connect", "reset"]),
    cut_after=st.sampled_from([None, None, 1]),
    cut=st.sampled_from(["eof", "reset"]),
)
ladders = st.sampled_from(
    [
        (),
        (Step(NO_REPLICA, NO_REPLICA, model="elsewhere"),),
        (Step(0.0, 0.0, model="elsewhere"), Step(NO_REPLICA, NO_REPLICA, answer="Later.")),
    ]
)
doubts = Escalation(min_probability=0.5, judge="elsewhere")
cascades = st.sampled_from([None, CascadeSpec((("local",), ("cheap",), ("strong",)), doubts)])


@settings(max_examples=120, deadline=None)
@given(
    st.fixed_dictionaries(dict.fromkeys(("local", "cheap", "strong"), script)),
    ladders,
    cascades,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["error", "prefix"]),
    st.sampled_from([None, 0.2]),
    st.integers(0, 99),
)
def test_nothing_private_ever_leaves_whatever_breaks(scripts, ladder, cascade, ready, stream, on_cut, hedge, seed):
    spec = RoutingSpec(
        rules=(RuleSpec("r", 'headers["x-on"] == "1"', model="elsewhere"),), sensitive=PRIVATE, cascade=cascade
    )

    async def story(loop):
        world = routed(
            loop,
            spec,
            scripts,
            others=[model("elsewhere", "strong", "cheap", "local", routing=RoutingSpec())],
            seed=seed,
        )
        chat, *others = world.gateway.plane.spec.models
        plan = msgspec.structs.replace(chat.plan, hedge_after=hedge)
        chat = msgspec.structs.replace(chat, degrade=ladder, on_cut=on_cut, plan=plan)
        world.reload(models=(chat, *others))
        world.gateway.plane.pools["local"][0].ready = ready
        world.gateway.tend()
        for on in ("0", "1", "0"):
            await world.chat(MAIL, stream=stream, headers=[("x-on", on)])
        assert set(world.opened) <= {"local/0"}
        assert len(world.outcomes) == 3
        await asyncio.sleep(90)
        world.check_nothing_is_held()

    play(story)


def test_a_condition_that_cannot_be_read_is_told_before_anything_changes():
    async def story(loop):
        with pytest.raises(PrepareError, match=r"models\.chat\.routing"):
            routed(loop, rules({"when": "no such fact", "use": ("local",)}))

    play(story)
