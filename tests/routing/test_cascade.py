"""Cheap first: what is shown when, and what is not good enough."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.cascade import (
    Answered,
    Ask,
    Cascade,
    Confidence,
    Discard,
    Failed,
    GiveUp,
    Judge,
    Judged,
    Release,
    Token,
    misfit,
)
from penstock.routing.spec import CascadeSpec, Escalation

STEPS = (("cheap",), ("strong", "other"))


def cascade(hold: int | None = None, wants_json: bool = False, schema: object = None, **rule: object) -> Cascade:
    machine = Cascade(CascadeSpec(STEPS, Escalation(**rule), hold), wants_json=wants_json, schema=schema)
    assert machine.start() == [Ask(0, ("cheap",), shown=False)]
    return machine


def token(probability: float, other: float | None = None) -> Token:
    return Token(log(probability), None if other is None else log(other))


def escalated(actions: list[object]) -> str:
    """The reason; the next step is asked and shown as it comes."""
    discard, ask = actions
    assert ask == Ask(1, ("strong", "other"), shown=True)
    assert isinstance(discard, Discard)
    return discard.why


def test_a_confident_answer_is_shown_when_it_is_complete():
    machine = cascade(min_probability=0.5)
    assert machine.on(token(0.9)) == machine.on(token(0.6)) == []
    assert machine.on(Answered("Yes.")) == [Release()]
    assert machine.why == []


@pytest.mark.parametrize(
    ("rule", "tokens", "why"),
    [
        ({"min_probability": 0.5}, [token(0.9), token(0.4)], "least probability 0.400 < 0.5"),
        ({"mean_probability": 0.7}, [token(0.9), token(0.4)], "mean probability 0.600 < 0.7"),
        ({"margin": 0.4}, [token(0.6, 0.3)], "margin 0.300 < 0.4"),
        ({"min_probability": 0.5}, [Token()], "no probabilities came"),
    ],
)
def test_an_answer_that_is_not_confident_is_asked_for_again_and_it_is_said_why(rule, tokens, why):
    machine = cascade(**rule)
    for one in tokens:
        assert machine.on(one) == []
    assert escalated(machine.on(Answered("Well."))) == why
    assert machine.why == [f"step 1 (cheap): {why}"]


def test_with_first_tokens_an_answer_flows_as_soon_as_those_are_good():
    machine = cascade(hold=2, min_probability=0.5)
    assert machine.on(token(0.9)) == []
    assert machine.on(token(0.8)) == [Release()]
    assert machine.on(token(0.01)) == machine.on(Answered("so it is")) == []


def test_with_first_tokens_a_doubt_is_acted_on_before_the_rest_is_generated():
    machine = cascade(hold=2, min_probability=0.5)
    machine.on(token(0.9))
    assert escalated(machine.on(token(0.3))) == "least probability 0.300 < 0.5"


def test_an_answer_that_is_shorter_than_what_is_held_is_judged_at_its_end():
    machine = cascade(hold=10, min_probability=0.5)
    machine.on(token(0.3))
    assert escalated(machine.on(Answered("No."))) == "least probability 0.300 < 0.5"


def test_nothing_is_begun_anew_after_something_was_shown():
    machine = cascade(hold=1, min_probability=0.5)
    machine.on(token(0.9))
    assert machine.on(Failed("the connection broke")) == [GiveUp("the connection broke")]


def test_a_step_that_fails_is_followed_by_the_next_and_the_last_one_by_giving_up():
    machine = cascade()
    assert escalated(machine.on(Failed("no replica"))) == "no replica"
    assert machine.on(Failed("none here either")) == [GiveUp("none here either")]


def test_the_last_step_is_shown_whatever_it_says():
    machine = cascade(min_probability=0.9)
    machine.on(Failed("x"))
    assert machine.on(token(0.01)) == machine.on(Answered("")) == []


def test_what_should_be_json_and_is_not_is_asked_for_again():
    assert escalated(cascade(wants_json=True).on(Answered("Sure! {"))) == "it is not JSON"
    assert cascade(wants_json=True).on(Answered('{"a": 1}')) == [Release()]
    assert cascade().on(Answered("Sure! {")) == [Release()]


def test_a_refusal_counts_only_where_that_is_said_and_a_call_of_a_tool_is_none():
    assert escalated(cascade(refusal=True).on(Answered("I'm sorry, but I can't do that."))) == "it refuses"
    assert cascade().on(Answered("I'm sorry, but I can't do that.")) == [Release()]
    assert cascade(refusal=True).on(Answered("", called_tools=True)) == [Release()]


def test_an_empty_answer_is_not_good_enough():
    assert escalated(cascade().on(Answered(" \n"))) == "it is empty"


def test_the_judge_is_asked_last_and_decides():
    machine = cascade(judge="critic", judge_at_least=0.7)
    assert machine.on(Answered("So.")) == [Judge("critic", "So.")]
    assert escalated(machine.on(Judged(0.6))) == "the judge says 0.60 < 0.7"
    machine = cascade(judge="critic", judge_at_least=0.7)
    machine.on(Answered("So."))
    assert machine.on(Judged(0.7)) == [Release()]
    machine = cascade(judge="critic")
    machine.on(Answered("So."))
    assert escalated(machine.on(Judged(None))) == "the judge gave no verdict"


@given(st.lists(st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)), min_size=1, max_size=30))
def test_confidence_is_between_the_least_and_the_best(pairs):
    confidence = Confidence()
    for chosen, other in pairs:
        confidence.add(log(chosen), log(other))
    least, best = min(p for p, _ in pairs), max(p for p, _ in pairs)
    assert confidence.least == pytest.approx(least)
    assert least - 1e-9 <= confidence.mean <= best + 1e-9
    assert -1 <= confidence.margin <= 1


EVENTS = st.one_of(
    st.floats(-5, 0).map(Token),
    st.sampled_from([Token(), Answered("x"), Answered(""), Judged(0.1), Judged(0.9), Failed("f")]),
)


@given(st.lists(EVENTS, max_size=20), st.sampled_from([None, 1, 3]), st.booleans())
def test_whatever_happens_a_step_is_asked_once_and_at_most_one_is_shown(events, hold, judged):
    machine = cascade(hold=hold, min_probability=0.5, judge="j" if judged and hold is None else None)
    asked, shown, ended = [0], 0, False
    for event in events:
        for action in machine.on(event):
            assert not ended
            match action:
                case Ask(step, _, is_shown):
                    asked.append(step)
                    shown += is_shown
                case Release():
                    shown += 1
                case GiveUp():
                    ended = True
        if ended:
            break
    assert asked == list(range(len(asked)))
    assert shown <= 1


@pytest.mark.parametrize(
    ("text", "schema", "why"),
    [
        ("{", None, "it is not JSON"),
        ('{"a": "x"}', {"type": "array"}, "it is not array"),
        ('{"a": "x"}', {"properties": {"a": {"type": "integer"}}}, "it.a is not integer"),
        ("{}", {"required": ["name"]}, "it lacks name"),
        ('{"b": 1}', {"properties": {}, "additionalProperties": False}, "it has more than is allowed"),
        ('["x"]', {"items": {"enum": ["y"]}}, "it[0] is none of what is allowed"),
        ("true", {"type": "integer"}, "it is not integer"),
        ("2", {"const": 1}, "it is not what it has to be"),
        ("1.0", {"type": "integer"}, ""),
        ("null", {"type": ["string", "null"]}, ""),
        (' {"a": 1} \n', {"type": "object", "required": ["a"]}, ""),
        ('{"a": 1}', {"type": 3, "required": 4, "properties": [], "enum": "x", "items": 9}, ""),
    ],
)
def test_an_answer_that_does_not_fit_its_schema_is_found(text, schema, why):
    assert misfit(text, schema) == why


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "enum", "required", "properties", "items", "const", "additionalProperties", "a"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.text(max_size=10) | st.sampled_from(['{"a": [1]}', "[[1]]", "3"]), ANYTHING)
def test_no_schema_and_no_answer_makes_the_check_fail(text, schema):
    assert isinstance(misfit(text, schema), str)
