"""Which deployments are left, in which order, and what is said of the others."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.facts import Facts
from penstock.routing.router import follow
from penstock.routing.spec import (
    ArmSpec,
    CascadeSpec,
    CeilingSpec,
    DifficultySpec,
    Escalation,
    PlacesSpec,
    PlanChanges,
    RoutingSpec,
    RuleSpec,
    SensitiveSpec,
    SplitSpec,
)
from tests.routing.worlds import CHEAP, LOCAL, STRONG, TARGETS, At, World, decide, router

ALL = ("local", "cheap", "strong")


def rules(*given: RuleSpec) -> RoutingSpec:
    return RoutingSpec(rules=given)


def test_without_options_all_deployments_are_left_in_their_order():
    assert decide(RoutingSpec()).deployments == ALL


# --- rules ---


def test_a_rule_that_holds_chooses_deployments_and_their_order():
    spec = rules(RuleSpec("long", "prompt_tokens > 10", use=("strong", "cheap")))
    assert decide(spec, Facts(prompt_tokens=11)).deployments == ("strong", "cheap")
    assert decide(spec, Facts(prompt_tokens=10)).deployments == ALL
    assert decide(spec, Facts(prompt_tokens=11)).dropped == {"local": "long uses others"}


def test_the_first_rule_that_decides_is_the_last_that_is_asked():
    spec = rules(RuleSpec("one", "stream", use=("cheap",)), RuleSpec("two", "stream", use=("strong",)))
    found = router(spec).explain(World(), Facts(stream=True), Random(1))
    assert found.decision.deployments == ("cheap",)
    assert [rule.held for rule in found.rules] == [True, None]


def test_avoiding_and_preferring_add_up():
    spec = rules(
        RuleSpec("no", "stream", avoid=("cheap",)),
        RuleSpec("yes", "stream", prefer=("strong",), changes=PlanChanges(hedge_after=0.5)),
        RuleSpec("also", "stream", changes=PlanChanges(max_attempts=1)),
    )
    found = decide(spec, Facts(stream=True))
    assert found.deployments == ("strong", "local")
    assert found.changes == PlanChanges(max_attempts=1, hedge_after=0.5)
    assert found.dropped == {"cheap": "no avoids it"}


def test_a_rule_may_refuse_in_its_own_words():
    found = decide(rules(RuleSpec("closed", "hour < 6", refuse="We sleep.")), Facts(hour=3))
    assert found.deployments == ()
    assert (found.refusal.status, found.refusal.message) == (403, "We sleep.")


def test_when_every_deployment_is_avoided_the_request_is_refused_and_not_sent_anywhere():
    found = decide(rules(RuleSpec("no", "stream", avoid=ALL)), Facts(stream=True))
    assert (found.deployments, found.refusal.code) == ((), "no_route")
    assert found.dropped.keys() == set(ALL)


# --- another model ---


def test_a_rule_may_send_a_request_on_to_another_model_whose_rules_then_hold():
    routers = {
        "chat": router(rules(RuleSpec("small", "stream", model="small"))),
        "small": router(rules(RuleSpec("only", "true", use=("local",))), model="small"),
    }
    found = follow(routers, "chat", lambda router: (World(), Facts(stream=True)), Random(1))
    assert (found.model, found.deployments) == ("small", ("local",))
    assert found.why == ("small: goes on as the model small", "only: uses local")


def test_what_had_to_stay_inside_stays_inside_in_the_model_that_it_is_sent_on_to():
    routers = {
        "chat": router(
            RoutingSpec(
                rules=(RuleSpec("away", "true", model="other"),), sensitive=SensitiveSpec(when='"secret" in tags')
            )
        ),
        "other": router(RoutingSpec(), model="other"),
    }
    found = follow(routers, "chat", lambda router: (World(), Facts(tags=("secret",))), Random(1))
    assert found.deployments == ("local",)
    assert follow(routers, "chat", lambda router: (World(), Facts()), Random(1)).deployments == ALL


def test_a_circle_of_models_ends_in_a_refusal():
    routers = {name: router(rules(RuleSpec("on", "true", model=to)), model=name) for name, to in ("ab", "ba")}
    assert follow(routers, "a", lambda router: (World(), Facts()), Random(1)).refusal.code == "no_route"


# --- what must stay inside ---


def sensitive(**options: object) -> RoutingSpec:
    return RoutingSpec(sensitive=SensitiveSpec(**options))


def test_personal_data_stays_on_deployments_that_are_ones_own():
    found = decide(sensitive(pii=("email",)), Facts(pii=("email",)))
    assert found.deployments == ("local",)
    assert found.dropped["strong"] == "is not self-hosted, the request is sensitive"
    assert decide(sensitive(pii=("card",)), Facts(pii=("email",))).deployments == ALL


def test_when_nothing_inside_is_ready_a_sensitive_request_is_refused():
    found = decide(sensitive(pii=("email",)), Facts(pii=("email",)), World(local=At(ready=False)))
    assert (found.deployments, found.refusal.status, found.refusal.code) == ((), 503, "no_private_deployment")


def test_what_nobody_can_look_into_stays_inside_too_unless_that_is_allowed():
    assert decide(sensitive(pii=("email",)), Facts(opaque=True)).deployments == ("local",)
    assert decide(sensitive(pii=("email",), media=False), Facts(opaque=True)).deployments == ALL


OPTIONS = {
    "rules": (
        RuleSpec("use", "stream", use=("strong", "cheap", "local")),
        RuleSpec("prefer", "true", prefer=("cheap",)),
    ),
    "split": SplitSpec("s", "request", (ArmSpec("a", ("strong", "local"), 0.5), ArmSpec("b", ("cheap", "local")))),
    "cascade": CascadeSpec((("cheap",), ("strong", "local")), Escalation(min_probability=0.5)),
    "difficulty": DifficultySpec(("cheap", "local"), ("strong",)),
    "places": PlacesSpec(preferred=("us", "eu")),
    "ceilings": CeilingSpec(first_token=1.0),
}


@given(
    st.sets(st.sampled_from(sorted(OPTIONS))),
    st.booleans(), st.booleans(), st.booleans(), st.floats(0, 1), st.integers(0, 3_000),
    st.sampled_from([None, 0.5, 2.0]), st.integers(0, 2**32),
)  # fmt: skip
def test_a_sensitive_request_never_leaves_whatever_else_is_said(
    options, stream, ready, secret, difficulty, tokens, first, seed
):
    spec = RoutingSpec(
        **{name: OPTIONS[name] for name in options}, sensitive=SensitiveSpec(pii=("email",), when='"secret" in tags')
    )
    facts = Facts(
        stream=stream, tags=("secret",) if secret else (), pii=() if secret else ("email",), prompt_tokens=tokens,
        difficulty=difficulty,
    )  # fmt: skip
    found = router(spec).decide(World(local=At(ready=ready, first_token=first)), facts, Random(seed))
    assert set(found.deployments) <= {"local"}
    assert found.cascade is None
    assert bool(found.deployments) != (found.refusal is not None)
    assert ready or found.refusal is not None


@given(
    st.sets(st.sampled_from(sorted(OPTIONS))), st.booleans(), st.floats(0, 1), st.integers(0, 3_000), st.integers(0, 9)
)
def test_every_deployment_is_either_left_once_or_dropped_with_a_reason(options, stream, difficulty, tokens, seed):
    spec = RoutingSpec(**{name: OPTIONS[name] for name in options})
    facts = Facts(stream=stream, difficulty=difficulty, prompt_tokens=tokens)
    found = router(spec).decide(World(), facts, Random(seed))
    assert sorted((*found.deployments, *found.dropped)) == sorted(ALL)
    assert all(found.dropped.values())


# --- difficulty and cascade ---


def test_hard_requests_go_to_the_hard_deployments():
    spec = RoutingSpec(difficulty=DifficultySpec(("cheap", "local"), ("strong",), 0.5))
    assert decide(spec, Facts(difficulty=0.51)).deployments == ("strong",)
    assert decide(spec, Facts(difficulty=0.5)).deployments == ("cheap", "local")


def test_with_a_cascade_only_what_is_easy_enters_it():
    spec = RoutingSpec(
        difficulty=DifficultySpec(("cheap",), ("strong",)), cascade=CascadeSpec((("cheap",), ("strong",)), Escalation())
    )
    easy, hard = decide(spec, Facts(difficulty=0.1)), decide(spec, Facts(difficulty=0.9))
    assert (easy.deployments, easy.cascade.steps) == (("cheap", "strong"), (("cheap",), ("strong",)))
    assert (hard.deployments, hard.cascade) == (("strong",), None)


def test_the_harder_a_request_the_more_confidence_its_cascade_asks_for():
    spec = RoutingSpec(
        difficulty=DifficultySpec(("cheap",), ("strong",), 1.0),
        cascade=CascadeSpec((("cheap",), ("strong",)), Escalation(min_probability=0.5, strictness=0.4)),
    )
    asked = [decide(spec, Facts(difficulty=hard)).cascade.escalation.min_probability for hard in (0.0, 0.5, 1.0)]
    assert asked == pytest.approx([0.5, 0.7, 0.9])


def test_a_cascade_of_which_one_step_is_left_is_none():
    spec = RoutingSpec(cascade=CascadeSpec((("cheap",), ("strong",)), Escalation()), places=PlacesSpec(allowed=("eu",)))
    found = decide(spec)
    assert (found.deployments, found.cascade) == (("cheap",), None)
    assert "no cascade: one step is left" in found.why


# --- context, ceilings, places ---


def test_a_deployment_whose_window_cannot_hold_prompt_and_answer_is_left_out():
    found = decide(RoutingSpec(), Facts(prompt_tokens=2_000, max_tokens=49))
    assert found.deployments == ("cheap", "strong")
    assert found.dropped == {"local": "holds 2,048 tokens, the request needs 2,049"}
    assert decide(RoutingSpec(), Facts(prompt_tokens=2_000, max_tokens=48)).deployments == ALL


def test_the_smaller_of_the_configured_and_the_reported_window_counts():
    found = decide(RoutingSpec(), Facts(prompt_tokens=1_500), World(local=At(window=1_000), cheap=At(window=10**6)))
    assert found.deployments == ("cheap", "strong")


def test_a_request_that_nothing_can_hold_is_told_what_would_fit():
    world = World(cheap=At(window=8_000), strong=At(window=16_000))
    found = decide(RoutingSpec(), Facts(prompt_tokens=20_000), world)
    assert (found.refusal.status, found.refusal.code) == (400, "context_length_exceeded")
    assert "20,000" in found.refusal.message and "16,000" in found.refusal.message


def test_what_is_too_dear_or_too_slow_is_left_out_and_the_figures_are_told():
    spec = RoutingSpec(ceilings=CeilingSpec(cost=1_000_000, first_token=1.0))
    world = World(strong=At(cost=2_000_000), cheap=At(cost=10, first_token=1.5), local=At(cost=0, first_token=0.9))
    found = decide(spec, world=world)
    assert found.deployments == ("local",)
    assert found.dropped == {
        "strong": "would cost $0.002, the ceiling is $0.001",
        "cheap": "would begin after 1.50 s, the ceiling is 1 s",
    }


def test_what_nobody_knows_is_kept_unless_it_is_to_be_dropped():
    assert decide(RoutingSpec(ceilings=CeilingSpec(cost=1))).deployments == ALL
    found = decide(RoutingSpec(ceilings=CeilingSpec(cost=1, unknown=True)))
    assert (found.deployments, found.refusal.code) == ((), "over_ceiling")


def test_answers_are_made_only_in_allowed_places_and_first_in_preferred_ones():
    assert decide(RoutingSpec(places=PlacesSpec(allowed=("eu",)))).deployments == ("local", "cheap")
    assert decide(RoutingSpec(places=PlacesSpec(preferred=("us", "eu-central")))).deployments == (
        "strong",
        "cheap",
        "local",
    )


def test_a_place_is_not_a_prefix_of_letters():
    assert decide(RoutingSpec(places=PlacesSpec(allowed=("e", "eu-west-1")))).deployments == ("local",)


def test_what_a_rule_prefers_comes_before_what_a_place_does():
    spec = RoutingSpec(rules=(RuleSpec("r", "true", prefer=("cheap",)),), places=PlacesSpec(preferred=("us",)))
    assert decide(spec).deployments == ("cheap", "strong", "local")


def test_a_deployment_without_the_endpoint_is_never_left():
    assert decide(RoutingSpec(), world=World(cheap=At(serves=False))).deployments == ("local", "strong")


# --- explaining ---


def test_an_explanation_has_the_decision_and_a_line_for_each_that_lost():
    spec = RoutingSpec(rules=(RuleSpec("no", "stream", avoid=("cheap",)),), ceilings=CeilingSpec(cost=5))
    world = World(strong=At(cost=9, ready=False), local=At(cost=1, first_token=0.1))
    found = router(spec).explain(world, Facts(stream=True), Random(1))
    assert found.decision == router(spec).decide(world, Facts(stream=True), Random(1))
    assert [(one.deployment, one.rank, one.ready, one.cost, one.why) for one in found.candidates] == [
        ("local", 1, True, 1, ""),
        ("cheap", None, True, None, "no avoids it"),
        ("strong", None, False, 9, "would cost $0.000000009, the ceiling is $0.000000005"),
    ]
    assert found.facts == {"stream": True, "model": "", "prompt_tokens": 0, "max_tokens": 0}


def test_only_the_models_own_deployments_are_ever_chosen():
    assert {target.name for target in TARGETS} == {LOCAL.name, CHEAP.name, STRONG.name}
    spec = RoutingSpec(rules=(RuleSpec("r", "true", use=("elsewhere", "cheap")),))
    assert decide(spec).deployments == ("cheap",)
