"""The language of rules: what it accepts, what it says of the rest, and that it never fails on a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.expressions import FACTS, MAX_DEPTH, Expression, ExpressionError, Kind
from penstock.routing.facts import Facts

FACT = Facts(
    model="chat",
    endpoint="chat.completions",
    org="acme",
    tags=("beta", "tier=gold"),
    priority="high",
    stream=True,
    prompt_tokens=1_200,
    max_tokens=500,
    hour=13,
    difficulty=0.25,
    headers={"x-tier": "gold"},
)


@pytest.mark.parametrize(
    "source",
    [
        'org == "acme" && prompt_tokens > 1000',
        "prompt_tokens + max_tokens == 1700",
        "prompt_tokens - max_tokens * 2 > 100",
        '!(org == "other") || false',
        '"beta" in tags && !("alpha" in tags)',
        'org in ["globex", "acme"]',
        "hour in [12, 13, 14]",
        "hour >= 8 && hour < 18",
        'headers["X-Tier"] == "gold"',
        'headers["x-absent"] == ""',
        'org.startsWith("ac") && org.endsWith("me") && org.contains("c")',
        "size(tags) == 2 && size(org) == 4",
        "stream && stream == true",
        "difficulty < 0.5 && difficulty > -1",
        "org == 'acme'",
        'org != "a\\"b"',
        "false || true && true",
        'priority == "high" && endpoint == "chat.completions"',
    ],
)
def test_a_condition_that_is_true_holds(source):
    assert Expression(source).holds(FACT) is True


@pytest.mark.parametrize(
    "source",
    [
        'org == "globex"', '"alpha" in tags', "!stream", "true && false", 'headers["x-tier"] == "silver"',
        "prompt_tokens < 1200", 'org.startsWith("me")', "hour in [1, 2]",
    ],
)  # fmt: skip
def test_a_condition_that_is_false_does_not_hold(source):
    assert Expression(source).holds(FACT) is False


@pytest.mark.parametrize(
    ("source", "column", "says"),
    [
        ("prompt_tokenz > 1", 1, "Did you mean `prompt_tokens`?"),
        ('prompt_tokens > "many"', 15, "a number `>` a text"),
        ('org = "acme"', 5, "write `==`"),
        ('org == "acme" and stream', 15, "`and` is written `&&`"),
        ('priority == "urgent"', 1, "`priority` is never `urgent`. There are: critical, high, low, normal."),
        ('headers["Authorization"] == ""', 9, "carries secrets"),
        ('headers["x y"] == ""', 9, "no name of a header"),
        ("org", 1, "is a text, where true or false is needed"),
        ("", 1, "a fact, a value or `(` is missing here"),
        ('(org == "a"', 12, "`)` is missing here"),
        ("tags == tags", 6, "Use `in`"),
        ("org.lower()", 5, "There are: contains, endsWith, startsWith."),
        ('"acme', 1, "a text begins here that does not end"),
        ("1 < 2 < 3", 7, "expected the end"),
        ('org in ["a", 1]', 14, "all alike"),
        ("stream @ stream", 8, "'@' means nothing here"),
        ("prompt_tokens > 1e9", 17, "a number is written"),
        ('"x-tier" in headers', 10, 'write headers["x-tier"] != ""'),
        ("stream && 1", 11, "a number, where true or false is needed"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_would_be_right(source, column, says):
    with pytest.raises(ExpressionError) as told:
        Expression(source)
    assert says in str(told.value)
    assert told.value.column == column


def test_what_a_condition_needs_is_known_before_any_request():
    expression = Expression('language == "de" && headers["X-Tier"] == "gold" && prompt_tokens > 3')
    assert expression.needs == {"language", "headers", "prompt_tokens"}
    assert expression.headers == {"x-tier"}


def test_nothing_nests_so_deep_that_asking_would_fail():
    with pytest.raises(ExpressionError, match="nested deeper"):
        Expression("(" * (MAX_DEPTH + 1) + "stream" + ")" * (MAX_DEPTH + 1))
    with pytest.raises(ExpressionError, match="at most 100 operators"):
        Expression("1" + "+1" * 101 + " > 0")
    assert Expression("1" + "+1" * 100 + " == 101").holds(FACT)
    assert Expression("999999999999999" + "*999999999999999" * 99 + " > 0.5").holds(FACT)  # infinite


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_a_mistake_with_a_place(source):
    column = 1
    try:
        Expression(source)
    except ExpressionError as error:
        column = error.column
    assert 1 <= column <= len(source) + 1


# --- whatever is well typed means what Python means by it ---

NUMBERS = st.sampled_from([name for name, kind in FACTS.items() if kind is Kind.NUMBER])
TEXTS = st.sampled_from(
    [name for name, kind in FACTS.items() if kind is Kind.TEXT and name not in ("priority", "endpoint")]
)
FLAGS = st.sampled_from([name for name, kind in FACTS.items() if kind is Kind.FLAG])
WORDS = st.sampled_from(["", "a", "acme", "de", "x-1", "user"])


number = st.recursive(
    NUMBERS.map(lambda name: (name, f"f.{name}")) | st.integers(0, 2_000).map(lambda n: (str(n), str(n))),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", f"({t[0][1]} {t[1]} {t[2][1]})")
    ),
    max_leaves=4,
)
text = TEXTS.map(lambda name: (name, f"f.{name}")) | WORDS.map(lambda word: (f'"{word}"', repr(word)))
comparison = st.tuples(number, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), number).map(
    lambda t: (f"{t[0][0]} {t[1]} {t[2][0]}", f"({t[0][1]} {t[1]} {t[2][1]})")
)
same = st.tuples(text, st.sampled_from(["==", "!=", "<"]), text).map(
    lambda t: (f"{t[0][0]} {t[1]} {t[2][0]}", f"({t[0][1]} {t[1]} {t[2][1]})")
)
among = st.tuples(text, st.lists(WORDS, min_size=1, max_size=3)).map(
    lambda t: (f"{t[0][0]} in [{', '.join(f'{chr(34)}{w}{chr(34)}' for w in t[1])}]", f"({t[0][1]} in {t[1]!r})")
)
tagged = WORDS.map(lambda word: (f'"{word}" in tags', f"({word!r} in f.tags)"))
begins = st.tuples(text, text).map(lambda t: (f"{t[0][0]}.startsWith({t[1][0]})", f"{t[0][1]}.startswith({t[1][1]})"))
condition = st.recursive(
    FLAGS.map(lambda name: (name, f"f.{name}")) | comparison | same | among | tagged | begins,
    lambda inner: (
        st.tuples(inner, st.sampled_from([("&&", "and"), ("||", "or")]), inner).map(
            lambda t: (f"({t[0][0]} {t[1][0]} {t[2][0]})", f"({t[0][1]} {t[1][1]} {t[2][1]})")
        )
        | inner.map(lambda t: (f"!({t[0]})", f"(not {t[1]})"))
    ),
    max_leaves=8,
)
facts = st.builds(
    Facts,
    model=WORDS, org=WORDS, team=WORDS, key=WORDS, user=WORDS, feature=WORDS, session=WORDS, language=WORDS,
    tags=st.lists(WORDS, max_size=3).map(tuple), stream=st.booleans(), json=st.booleans(), opaque=st.booleans(),
    prompt_tokens=st.integers(0, 2_000), max_tokens=st.integers(0, 2_000), turns=st.integers(0, 9),
    tools=st.integers(0, 9), images=st.integers(0, 9), hour=st.integers(0, 23), weekday=st.integers(1, 7),
    difficulty=st.floats(0, 1),
)  # fmt: skip


@given(condition, facts)
def test_a_condition_means_what_python_means_by_the_same_words(condition, facts):
    ours, pythons = condition
    assert Expression(ours).holds(facts) is eval(pythons, {"f": facts})
