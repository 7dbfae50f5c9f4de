"""What may be written under `routing:`, what is said of the rest, and what it comes to."""

import pytest

from penstock.config.compile import compile_plane
from penstock.config.diff import diff
from penstock.config.load import ConfigError, load
from penstock.config.spec import PlaneSpec
from penstock.routing.difficulty import MARKS, Classifier
from penstock.routing.spec import EVERY_PII, PlanChanges, RoutingSpec

FILE = """
models:
  chat:
    deployments: [local, cheap, strong]
    routing: {routing}
  small: {{ deployments: [local] }}
deployments:
  local: {{ model: tiny, location: eu-west-1 }}
  cheap: {{ provider: openai, served: gpt-5-nano, key: env:K }}
  strong: {{ provider: openai, served: gpt-5, key: env:K, context_window: 400000 }}
"""
LOCAL = {"local": ("http://127.0.0.1:1",)}


def written(routing: str, read=None) -> PlaneSpec:
    return compile_plane(load(FILE.format(routing=routing), "p.yaml", read), 1, LOCAL)


def routing(text: str) -> RoutingSpec:
    found = written(text).models[0].routing
    assert found is not None
    return found


def test_without_the_section_and_without_windows_there_is_nothing_to_decide():
    text = FILE.format(routing="{}").replace("    routing: {}\n", "").replace(", context_window: 400000", "")
    assert [model.routing for model in compile_plane(load(text, "p.yaml"), 1, LOCAL).models] == [None, None]


def test_a_window_alone_is_enough_to_be_decided_by():
    text = FILE.format(routing="{}").replace("    routing: {}\n", "")
    assert [model.routing for model in compile_plane(load(text, "p.yaml"), 1, LOCAL).models] == [RoutingSpec(), None]


def test_a_model_that_a_rule_leads_to_is_decided_too_so_that_what_is_inside_stays_inside():
    plane = written("{ rules: [{ when: stream, model: small }] }")
    assert plane.models[1].routing == RoutingSpec()


def test_everything_that_may_be_said_comes_out_as_it_was_meant():
    found = routing("""
      rules:
        - { name: gold, when: 'headers["x-tier"] == "gold"', use: [strong], first_token: 5s, max_attempts: 2 }
      difficulty: { easy: [cheap], hard: [strong], threshold: 0.4 }
      cascade:
        steps: [cheap, [strong, local]]
        escalate: { min_probability: 0.6, strictness: 0.3, refusal: true, judge: small }
      sensitive: { pii: all, when: '"secret" in tags', media: anywhere }
      ceilings: { cost: $0.05, first_token: 2s, unknown: drop }
      places: { allowed: [eu], preferred: [eu-west] }
      context: false""")
    assert found.rules[0].changes == PlanChanges(max_attempts=2, first_token_timeout=5.0)
    assert found.difficulty.threshold == 0.4
    assert (found.cascade.steps, found.cascade.hold) == ((("cheap",), ("strong", "local")), None)
    assert (found.cascade.escalation.min_probability, found.cascade.escalation.strictness) == (0.6, 0.3)
    assert (found.sensitive.pii, found.sensitive.media) == (EVERY_PII, False)
    assert (found.ceilings.cost, found.ceilings.first_token, found.ceilings.unknown) == (50_000_000, 2.0, True)
    assert (found.places.allowed, found.context) == (("eu",), False)


def test_shares_are_parts_of_one_and_one_arm_gets_the_rest():
    found = routing(
        "{ split: { by: key, arms: { a: { deployments: [cheap] }, b: { deployments: [strong], share: 2.5% } } } }"
    )
    assert [(arm.name, arm.share) for arm in found.split.arms] == [("a", None), ("b", 0.025)]


def test_a_deployment_is_where_its_location_or_else_its_region_is_and_ones_own_if_it_is_no_providers():
    local, cheap, strong = written("{ context: true }").deployments
    assert (local.location, local.self_hosted, local.context_window) == ("eu-west-1", True, None)
    assert (cheap.location, cheap.self_hosted) == ("", False)
    assert strong.context_window == 400_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{ rules: [{ when: 'orgg == 1', use: [cheap] }] }",
         "rules.0.when at character 1: `orgg` is not a fact. Did you mean `org`?"),
        ("{ rules: [{ when: stream, use: [chep] }] }",
         "names `chep`, which is not one of the model's deployments. Did you mean `cheap`?"),
        ("{ rules: [{ when: stream }] }", "says nothing about the requests"),
        ("{ rules: [{ when: stream, use: [cheap], refuse: no }] }", "has both `use` and `refuse`"),
        ("{ rules: [{ when: stream, model: smal }] }", "Did you mean `small`?"),
        ("{ rules: [{ when: stream, model: chat }] }", "lead from `chat` back to `chat`"),
        ("{ split: { arms: { a: { deployments: [cheap] }, b: { deployments: [cheap] } } } }",
         "exactly one arm without `share`"),
        ("{ split: { arms: { a: &a { deployments: [cheap], share: 60% }, b: *a, c: { deployments: [local] } } } }",
         "has shares of 120.0% together"),
        ("{ cascade: { steps: [cheap, strong], escalate: { schema: false } } }", "says nothing that would make"),
        ("{ cascade: { steps: [cheap, strong], hold: { first_tokens: 8 }, escalate: { margin: 0.1, refusal: true } } }",
         "needs `hold: all`"),
        ("{ cascade: { steps: [cheap, strong], hold: { first_tokens: 8 }, escalate: {} } }",
         "`first_tokens` needs `mean_probability`"),
        ("{ cascade: { steps: [cheap, [strong, cheap]], escalate: {} } }", "names `cheap` a second time"),
        ("{ cascade: { steps: [cheap, strong], escalate: { judge: chat } } }", "is this model itself"),
        ("{ cascade: { steps: [cheap, strong], escalate: { min_probability: 0.5, strictness: 0.1 } } }",
         "needs `difficulty`"),
        ("{ cascade: { steps: [cheap, strong], escalate: { min_probability: 80% } } }", "must be a number from 0 to 1"),
        ("{ sensitive: {} }", "needs `pii`, `when` or both"),
        ("{ sensitive: { pii: [emial] } }", "Did you mean `email`?"),
        ("{ ceilings: {} }", "needs `cost`, `first_token` or both"),
        ("{ places: {} }", "needs `allowed`, `preferred` or both"),
        ("{ places: { allowed: [EU] } }", "must be a place in small letters"),
        ("{ difficulty: { easy: &a [cheap], hard: *a }, "
         "split: { arms: { a: { deployments: *a }, b: { deployments: *a, share: 1% } } } }",
         "`difficulty` both say who answers"),
        ("{ difficulty: { easy: [cheap], hard: [strong], classifier: c.json } }",
         "classifier cannot be read: this place reads one file only"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_what_would_be_right(text, says):
    with pytest.raises(ConfigError) as told:
        written(text)
    assert says in str(told.value)
    assert str(told.value).startswith("p.yaml:5: models.chat.routing.")
    assert len(told.value.problems) == 1


def test_requests_that_could_only_ever_be_refused_are_a_mistake():
    text = FILE.format(routing="{ sensitive: { pii: all } }").replace("[local, cheap, strong]", "[cheap, strong]")
    with pytest.raises(ConfigError, match="none of the model's deployments has `engine` or `model`"):
        load(text, "p.yaml")


def test_a_classifier_is_read_from_its_file_and_a_bad_one_is_told():
    text = "{ difficulty: { easy: [cheap], hard: [strong], classifier: c.json } }"
    good = Classifier(0.5, (0.0,) * len(MARKS), (0.0, 1.0)).write({})
    assert written(text, {"c.json": good}.__getitem__).models[0].routing.difficulty.classifier == good
    with pytest.raises(ConfigError, match="is not a file of `penstock route train`"):
        written(text, lambda name: "")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        written(text, lambda name: b"\xff".decode())


def test_what_changed_about_routing_is_told_by_its_part():
    before, after = written("{ places: { allowed: [eu] } }"), written("{ places: { allowed: [us] } }")
    assert diff(before, before) == []
    (line,) = diff(before, after)
    assert line.startswith("~ model chat: routing.places: ") and '["eu"]' in line and '["us"]' in line


@pytest.mark.parametrize("judge", ["small", "outside"])
def test_a_judge_outside_may_not_see_what_must_stay_inside(judge):
    escalate = f"escalate: {{ judge: {judge} }}"
    section = f"{{ sensitive: {{ pii: all }}, cascade: {{ steps: [cheap, strong], {escalate} }} }}"
    text = FILE.format(routing=section).replace(
        "deployments:\n", "  outside: { deployments: [local, cheap] }\ndeployments:\n"
    )
    if judge == "small":
        assert load(text, "p.yaml")
        return
    with pytest.raises(ConfigError) as caught:
        load(text, "p.yaml")
    assert "escalate.judge would see what must stay inside: its deployment `cheap`" in str(caught.value)
