"""`POST /v1/route/explain`: the decision of the moment, told to who asks, and nothing else happens."""

import asyncio
from hashlib import sha256

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.spec import GrantSpec, KeySpec
from penstock.limits.rules import Limit, Meter
from penstock.resilience.options import NO_REPLICA, Step
from penstock.routing.decision import Explained
from penstock.routing.spec import ArmSpec, CascadeSpec, Escalation, RoutingSpec, RuleSpec, SensitiveSpec, SplitSpec
from penstock.testing.exchange import FakeExchange
from tests.gateway.routed_world import Routed, deployment, header, model, play, says

LOCAL, CHEAP, STRONG = deployment("local", inside=True, replicas=2), deployment("cheap", price=1), deployment("strong")
ALL = (LOCAL, CHEAP, STRONG)
SPEC = RoutingSpec(
    rules=(
        RuleSpec("gold", 'headers["x-tier"] == "gold"', use=("strong", "cheap")),
        RuleSpec("drafts", 'feature == "drafts"', model="other"),
    ),
    sensitive=SensitiveSpec(when='"secret" in tags'),
)


def world_of(loop, *models, scripts=None, **more):
    return Routed(loop, scripts or {}, models, ALL, **more)


async def explained(world, headers=(), query=b"", **fields):
    answer = await world.chat(headers=headers, path=b"/v1/route/explain", query=query, **fields)
    assert answer.status == 200, answer.text
    return msgspec.json.decode(answer.text, type=Explained)


def test_what_wins_and_what_loses_is_told_and_nobody_is_asked_and_nothing_is_counted():
    async def story(loop):
        limit = Limit("few", Meter.REQUESTS, 1, window=60, per=("model",))
        chat = model("chat", "local", "cheap", "strong", routing=SPEC)
        world = world_of(loop, chat, model("other", "local", "cheap"), limits=(limit,))
        for _ in range(3):
            told = await explained(world, headers=[("x-tier", "gold")])
        assert told.decision.deployments == ("strong", "cheap")
        assert told.decision.why == ("gold: uses strong, cheap",)
        assert [(one.deployment, one.rank, one.why) for one in told.candidates] == [
            ("strong", 1, ""), ("cheap", 2, ""), ("local", None, "gold uses others"),
        ]  # fmt: skip
        assert [(rule.rule, rule.held) for rule in told.rules] == [("gold", True), ("drafts", None)]
        assert [(one.replica, one.chosen, one.why) for one in told.replicas] == [
            ("strong/0", True, ""), ("cheap/0", False, "later"),
        ]  # fmt: skip
        assert (world.opened, world.outcomes) == ([], [])
        assert (await world.chat()).status == 200

    play(story)


def test_a_model_with_nothing_to_decide_is_explained_too():
    async def story(loop):
        world = world_of(loop, model("chat", "local", "cheap"))
        told = await explained(world)
        assert told.decision.deployments == ("local", "cheap")
        assert sum(one.chosen for one in told.replicas) == 1
        assert {one.replica for one in told.replicas} == {"local/0", "local/1", "cheap/0"}
        assert (told.rules, told.queue, told.degraded) == ((), (), ())

    play(story)


def test_the_way_from_model_to_model_is_told_with_the_rules_of_both():
    async def story(loop):
        other = model(
            "other", "local", "cheap", routing=RoutingSpec(rules=(RuleSpec("then", "true", avoid=("local",)),))
        )
        world = world_of(loop, model("chat", "local", "strong", routing=SPEC), other)
        told = await explained(world, headers=[("x-penstock-feature", "drafts")])
        assert (told.decision.model, told.decision.deployments) == ("other", ("cheap",))
        assert told.decision.why == ("drafts: goes on as the model other", "then: avoids local")
        assert [rule.rule for rule in told.rules] == ["gold", "drafts", "then"]

    play(story)


def test_a_refusal_and_what_is_given_up_are_told():
    async def story(loop):
        ladder = (Step(0.5, 0.4, max_tokens=9), Step(NO_REPLICA, NO_REPLICA, answer="Later."))
        chat = model("chat", "local", "strong", routing=SPEC, degrade=ladder)
        world = world_of(loop, chat, model("other", "cheap"))
        for replica in world.gateway.plane.pools["local"]:
            replica.ready = False
        assert (await explained(world)).decision.deployments == ("local", "strong")
        secret = await explained(world, headers=[("x-penstock-tags", "secret")])
        assert (secret.say, secret.degraded, secret.decision.deployments) == ("Later.", ("static",), ())
        world.reload(models=(msgspec.structs.replace(chat, degrade=()), model("other", "cheap")))
        secret = await explained(world, headers=[("x-penstock-tags", "secret")])
        assert secret.decision.refusal.code == "no_private_deployment"
        assert [one.why for one in secret.candidates] == [
            "is not ready, the request is sensitive", "is not self-hosted, the request is sensitive",
        ]  # fmt: skip

    play(story)


def test_the_queue_is_shown_without_whose_requests_wait():
    async def story(loop):
        world = world_of(loop, model("chat", "local"), scripts={"local": says("x", ttft=9.0)})
        for replica in world.gateway.plane.pools["local"]:
            replica.reported(waiting=0, running=0, kv_used=0.0, kv_tokens=100_000, max_running=1)
        world.gateway.tend()
        asks = [loop.create_task(world.chat()) for _ in range(5)]
        await asyncio.sleep(1.0)
        answer = await world.chat(path=b"/v1/route/explain")
        told = msgspec.json.decode(answer.text, type=Explained)
        assert {str(one.priority): one.waiting for one in told.queue} == {
            "critical": 0,
            "high": 0,
            "normal": 3,
            "low": 0,
        }
        assert next(one.drain for one in told.queue if one.waiting) > 0
        assert b"anonymous" not in answer.text
        assert b"tenant" not in answer.text
        for ask in asks:
            ask.cancel()
        await asyncio.wait(asks)

    play(story)


def test_the_query_says_which_api_the_body_is_for():
    async def story(loop):
        world = world_of(loop, model("chat", "local"))
        told = await explained(world, query=b"endpoint=messages", max_tokens=9)
        assert told.decision.deployments == ("local",)
        for query, fields, code in (
            (b"endpoint=nonsense", {}, "invalid_request"),
            (b"endpoint=messages", {}, "invalid_request"),
            (b"endpoint=embeddings", {"input": "x"}, "unsupported_endpoint"),
            (b"", {"model": "nobody"}, "model_not_found"),
        ):
            answer = await world.chat(path=b"/v1/route/explain", query=query, **fields)
            assert msgspec.json.decode(answer.text)["error"]["code"] == code
        get = FakeExchange(b"", method=b"GET", path=b"/v1/route/explain")
        world.gateway.handle(get)
        assert (get.status, header(get, "allow")) == (405, "POST")

    play(story)


def test_only_who_may_call_the_model_is_told():
    async def story(loop):
        key = KeySpec("k", sha256(b"sk-1").hexdigest(), 0)
        known = {"keys": (key,), "grants": (GrantSpec(models=("other",)),), "insecure_dev": False}
        world = world_of(loop, model("chat", "local"), model("other", "local"), **known)
        path = b"/v1/route/explain"
        bearer = [("authorization", "Bearer sk-1")]
        assert (await world.chat(path=path)).status == 401
        assert (await world.chat(path=path, headers=bearer)).status == 403
        assert (await world.chat(path=path, headers=bearer, model="other")).status == 200

    play(story)


arms = SplitSpec("s", "user", (ArmSpec("a", ("cheap",), 0.5), ArmSpec("b", ("strong", "local"))))
specs = st.sampled_from(
    [
        None,
        SPEC,
        RoutingSpec(split=arms),
        RoutingSpec(cascade=CascadeSpec((("cheap",), ("strong",)), Escalation(refusal=True))),
    ]
)


@given(
    specs,
    st.sampled_from(["gold", "no"]),
    st.sampled_from(["drafts", "x"]),
    st.sampled_from(["secret", "y"]),
    st.integers(0, 9),
)
def test_what_is_explained_is_what_happens(spec, tier, feature, tag, user):
    async def story(loop):
        scripts = {name: says("ok") for name in ("local", "cheap", "strong")}
        chat = model("chat", "local", "cheap", "strong", routing=spec)
        world = world_of(loop, chat, model("other", "cheap", "local", routing=RoutingSpec()), scripts=scripts)
        headers = [
            ("x-tier", tier), ("x-penstock-feature", feature), ("x-penstock-tags", tag), ("x-penstock-user", str(user)),
        ]  # fmt: skip
        told = await explained(world, headers=headers)
        answer = await world.chat(headers=headers)
        refusal = told.decision.refusal
        if refusal is not None:
            assert (answer.status, world.outcomes[0].error) == (refusal.status, refusal.code)
        else:
            assert (answer.status, world.outcomes[0].deployment) == (200, told.decision.deployments[0])
        assert world.outcomes[0].why == told.decision.why
        assert world.outcomes[0].arm == (told.decision.arm or "")

    play(story)
