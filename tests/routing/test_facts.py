"""What is read out of a request, in every dialect, and that nothing which is odd makes it fail."""

from datetime import UTC

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.request import UNATTRIBUTED, Attribution, Caller, Endpoint, Priority, Request
from penstock.routing.facts import facts_of, read
from penstock.routing.language import language_of
from penstock.routing.spec import DifficultySpec, RoutingSpec, RuleSpec, SensitiveSpec
from tests.routing.worlds import router

MONDAY = 1_796_036_400.0  # 2026-11-30 11:00 UTC


def request(form: bytes = b"", **body: object) -> Request:
    return Request(
        id="r", endpoint=Endpoint.CHAT, caller=Caller("key", "acme", team="web", priority=Priority.HIGH), model="chat",
        stream=True, include_usage=False, prompt_tokens=12, max_tokens=34, prefix_hashes=(),
        fields={name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}, received_at=0.0,
        form=form,
    )  # fmt: skip


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def test_what_the_gateway_knows_anyway_is_always_there():
    facts = facts_of(
        request(), Attribution("u", "drafts", "s", ("a",)), lambda name: None, MONDAY, UTC, frozenset(), ()
    )
    assert (facts.org, facts.team, facts.key, facts.priority) == ("acme", "web", "key", "high")
    assert (facts.user, facts.feature, facts.session, facts.tags) == ("u", "drafts", "s", ("a",))
    assert (facts.model, facts.endpoint, facts.stream) == ("chat", "chat.completions", True)
    assert (facts.prompt_tokens, facts.max_tokens, facts.hour) == (12, 34, 0)


def test_the_hour_is_that_of_the_zone_and_monday_is_the_first_day():
    facts = facts_of(request(), UNATTRIBUTED, lambda name: None, MONDAY, UTC, frozenset({"hour"}))
    assert (facts.hour, facts.weekday) == (11, 1)


def test_only_headers_that_rules_speak_of_are_looked_at():
    asked = []

    def header(name: bytes) -> bytes | None:
        asked.append(name)
        return b"gold" if name == b"x-tier" else None

    spec = RoutingSpec(rules=(RuleSpec("r", 'headers["X-Tier"] == "gold" && headers["x-b"] == ""', avoid=("cheap",)),))
    facts = router(spec).facts(request(), UNATTRIBUTED, header, MONDAY, UTC)
    assert facts.headers == {"x-tier": "gold", "x-b": ""}
    assert sorted(asked) == [b"x-b", b"x-tier"]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": user("Hello there")},
        {"messages": user([{"type": "text", "text": "Hello there"}])},
        {"system": [{"type": "text", "text": "Hello"}], "messages": user("there")},
        {"input": "Hello there"},
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello there"}]}]},
        {"instructions": "Hello", "input": "there"},
        {"prompt": "Hello there"},
    ],
)
def test_the_words_are_found_in_every_dialect(body):
    reading = read(request(**body))
    assert reading.words.split() == ["Hello", "there"]
    assert (reading.turns, reading.images, reading.opaque) == (1, 0, False)


def test_pictures_and_files_are_counted_and_cannot_be_looked_into():
    parts = [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
    ]
    reading = read(request(messages=user(parts)))
    assert (reading.words, reading.images, reading.opaque) == ("See", 1, True)
    assert read(request(form=b"x")).opaque


def test_a_body_that_cannot_be_read_is_opaque_and_no_error():
    odd = request()
    odd.fields["messages"] = msgspec.Raw(b"[" * 100_000)
    assert read(odd).opaque


def test_personal_data_is_found_wherever_in_the_body_it_is():
    spec = RoutingSpec(sensitive=SensitiveSpec(pii=("email",)))
    for body in (
        {"messages": user("Mail \u0061@example.com")},
        {"messages": user("Hi"), "user": "a@example.com"},
        {"messages": user("Hi"), "metadata": {"who": ["a@example.com"]}},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": '{"to":"a@example.com"}'}}]}]},
        {"messages": user("Hi"), "tools": [{"function": {"description": "for a@example.com"}}]},
        {"messages": user({"type": "text", "text": "a@example.com"})},
    ):
        facts = router(spec).facts(request(**body), UNATTRIBUTED, lambda name: None, MONDAY, UTC)
        assert facts.pii == ("email",), body


def test_tools_json_and_turns_are_told_where_a_rule_asks():
    spec = RoutingSpec(rules=(RuleSpec("r", "tools > 0 && json && turns > 1", avoid=("cheap",)),))
    body = {
        "messages": [*user("a"), {"role": "assistant", "content": "b"}, *user("c")],
        "tools": [{}, {}],
        "response_format": {"type": "json_schema"},
    }
    facts = router(spec).facts(request(**body), UNATTRIBUTED, lambda name: None, MONDAY, UTC)
    assert (facts.tools, facts.json, facts.turns) == (2, True, 2)


def test_difficulty_is_told_where_something_depends_on_it():
    spec = RoutingSpec(difficulty=DifficultySpec(("cheap",), ("strong",)))
    body = {"messages": user("Prove step by step, and compare: 2 + 2 = 4?")}
    assert router(spec).facts(request(**body), UNATTRIBUTED, lambda name: None, MONDAY, UTC).difficulty > 0.3
    assert router(RoutingSpec()).facts(request(**body), UNATTRIBUTED, lambda name: None, MONDAY, UTC).difficulty == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["image", "user", "json_object"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "role", "content", "text", "url", "format"]), inner, max_size=3)
    ),
    max_leaves=15,
)
NAMES = ("messages", "input", "system", "prompt", "tools", "response_format", "text", "metadata")


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_no_body_makes_routing_fail(body):
    spec = RoutingSpec(
        rules=(RuleSpec("r", 'tools > 1 && json && language == "de" && images > 0', avoid=("cheap",)),),
        sensitive=SensitiveSpec(pii=("email", "card", "phone")),
        difficulty=DifficultySpec(("cheap",), ("strong",)),
    )
    facts = router(spec).facts(request(**body), UNATTRIBUTED, lambda name: None, MONDAY, UTC)
    assert 0 <= facts.difficulty <= 1


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "What is the capital of France and how many people live there?"),
        ("de", "Wie heißt die Hauptstadt von Frankreich, und was ist sie für ein Ort?"),
        ("fr", "Quel est le nom de la capitale et des villes dans le pays ?"),
        ("es", "¿Cuál es la capital de España y por qué los trenes no llegan?"),
        ("it", "Come si chiama il fiume che è nel centro della città?"),
        ("nl", "Wat is de hoofdstad van het land en hoe oud zijn de huizen?"),
        ("ru", "Какая столица Франции?"),
        ("uk", "Яка столиця Франції і скільки їй років?"),
        ("ja", "フランスの首都は何ですか"),
        ("zh", "法国的首都是哪里"),
        ("ko", "프랑스의 수도는 어디입니까"),
        ("ar", "ما هي عاصمة فرنسا"),
        ("", "Hm."),
        ("", "42 + 1"),
        ("en", "What does the word λόγος mean in the text of the book that you have?"),
    ],
)
def test_the_language_is_told_or_nothing_is(language, text):
    assert language_of(text) == language
