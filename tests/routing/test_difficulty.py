"""How hard a request is, by hand and by what was learned."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.difficulty import MARKS, Classifier, heuristic, marks, tokens_of
from penstock.routing.facts import Reading
from penstock.routing.training import Example, held_out, threshold_at, train


def said(text: str, turns: int = 1) -> Reading:
    return Reading(words=text, last=text, turns=turns)


EASY = ("What is {}?", "Say {}.", "Is {} good or bad?", "Translate {} into French.")
HARD = ("Prove that {} is prime.", "Sort by {} and reverse it.", "Extract {} as JSON.", "Derive {} step by step.")
THINGS = [f"thing{i}" for i in range(200)]


def examples(n: int, rng: Random, things: list[str]) -> list[Example]:
    made = []
    for _ in range(n):
        hard = rng.random() < 0.4
        made.append(Example(said(rng.choice(HARD if hard else EASY).format(rng.choice(things))), hard))
    return made


def test_by_hand_a_plain_question_is_easy_and_a_proof_with_conditions_is_hard():
    easy = heuristic(said("What is the capital of France?"), 256)
    hard = heuristic(
        said("Prove step by step that the sum must be at most n. You must use only induction, and compare 2 + 2 = 4."),
        4_096,
    )
    assert easy < 0.3 < 0.5 < hard


@given(st.text(max_size=300), st.integers(0, 10**6), st.integers(0, 100), st.integers(0, 10))
def test_every_text_has_a_difficulty_and_marks_from_0_to_1(text, max_tokens, turns, images):
    reading = Reading(words=text, last=text[-50:], turns=turns, images=images)
    assert 0 <= heuristic(reading, max_tokens) <= 1
    assert all(0 <= mark <= 1 for mark in marks(reading, max_tokens))
    assert len(marks(reading, max_tokens)) == len(MARKS)


@pytest.mark.parametrize("piece", ["\n", "; ", "SELECT ", "1 ", "def a", "``", "1 +"])
def test_a_long_text_of_what_almost_matches_is_no_attack(piece):
    assert 0 <= heuristic(said(piece * 50_000), 1) <= 1


def test_what_was_learned_holds_for_words_that_were_never_seen():
    classifier = train(examples(400, Random(1), THINGS[:150]), Random(2))
    aside = examples(200, Random(3), THINGS[150:])
    found = held_out([(classifier.score(one.reading, one.max_tokens), one.hard) for one in aside])
    assert found.accuracy > 0.95
    assert found.auc > 0.98
    assert found.always < 0.7


def test_nothing_is_learned_from_labels_that_mean_nothing():
    rng = Random(5)
    noise = [Example(one.reading, rng.random() < 0.5) for one in examples(600, rng, THINGS)]
    classifier = train(noise[:400], Random(2))
    found = held_out([(classifier.score(one.reading, 256), one.hard) for one in noise[400:]])
    assert 0.35 < found.auc < 0.65


def test_the_same_examples_make_the_same_classifier():
    made = [train(examples(80, Random(1), THINGS), Random(2)).write({}) for _ in range(2)]
    assert made[0] == made[1]


def test_a_classifier_says_the_same_after_it_was_written_and_read():
    classifier = train(examples(80, Random(1), THINGS), Random(2))
    again = Classifier.read(classifier.write({"examples": 80}))
    assert again.trained == {"examples": 80}
    for one in examples(20, Random(9), THINGS):
        assert again.score(one.reading, 256) == classifier.score(one.reading, 256)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format":2,"bias":0,"marks":[],"weights":""}', "\x00",
     '{"format":1,"bias":0,"marks":[0],"weights":"AAAA"}',
     '{"format":1,"bias":0,"marks":[0,0,0,0,0,0,0,0],"weights":"AADAfwAAwH8="}'],
)  # fmt: skip
def test_a_file_that_is_no_classifier_is_refused_with_a_sentence(text):
    with pytest.raises(ValueError, match=r"train|of `penstock"):
        Classifier.read(text)


def test_labels_of_one_kind_teach_nothing():
    with pytest.raises(ValueError, match="both kinds"):
        train([Example(said("a"), True)] * 3, Random(1))


def test_numbers_are_known_by_their_length_and_long_texts_by_their_ends():
    assert tokens_of("What is 12 + 345?") == ["what", "is", "<2>", "+", "<3>", "?"]
    long = tokens_of(" ".join(["start"] + ["x"] * 1_000 + ["end"]))
    assert (len(long), long[0], long[-1]) == (200, "start", "end")


def test_the_area_under_the_curve_counts_pairs():
    assert held_out([(0.1, False), (0.9, True)]).auc == 1.0
    assert held_out([(0.9, False), (0.1, True)]).auc == 0.0
    assert held_out([(0.5, False), (0.5, True)]).auc == 0.5
    assert held_out([(0.1, False), (0.4, True), (0.35, True), (0.8, False)]).auc == 0.5


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.floats(0, 0.5))
def test_below_the_threshold_no_more_is_missed_than_was_allowed(scored, missed):
    at = threshold_at(scored, missed)
    below = sum(hard for score, hard in scored if score < at)
    assert below <= missed * len(scored)
