"""The corpus that the bundled models learn from, and the examination that it must not touch. No torch needed."""

import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    """models/corpus.py, which is a script beside the package and no part of it."""
    spec = importlib.util.spec_from_file_location("corpus_of_the_bundled_models", ROOT / "models" / "corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exam(corpus):
    return corpus.examination()


@pytest.fixture(scope="module")
def training(corpus):
    return list(itertools.islice(corpus.draws(), 15_000))


def test_a_seed_gives_the_same_conversations_and_another_seed_gives_others(corpus):
    def first(seed):
        return list(itertools.islice(corpus.conversations(seed), 300))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_the_examination_is_the_same_every_time_and_asks_at_least_200_different_prompts_per_skill(corpus, exam):
    assert corpus.examination() == exam
    assert set(exam) == {*corpus.EXAMINED, "harmless"}
    assert len(corpus.EXAMINED) == 10
    for skill, turns in exam.items():
        assert len({turn.prompt for turn in turns}) >= 200, skill


def test_a_shorter_examination_is_the_beginning_of_the_one_that_training_avoids(corpus, exam):
    for skill, turns in corpus.examination(50).items():
        assert turns == exam[skill][:50]


def test_no_examined_prompt_occurs_in_training(exam, training):
    examined = {turn.prompt for turns in exam.values() for turn in turns}
    assert not examined & {turn.prompt for turns in training for turn in turns}


def test_nothing_examined_occurs_in_training_in_another_wording(exam, training):
    examined = {turn.key for turns in exam.values() for turn in turns}
    assert not examined & {turn.key for turns in training for turn in turns}


def test_some_wordings_of_facts_and_requests_are_never_trained(corpus, exam, training):
    held_out = (*corpus.QUESTIONS_HELD_OUT, *corpus.SAFETY["asks_held_out"])
    patterns = [re.compile(re.escape(wording).replace(r"\{\}", ".+")) for wording in held_out]

    def uses_one(turn):
        return any(pattern.fullmatch(turn.prompt) for pattern in patterns)

    assert not any(uses_one(turn) for turns in training for turn in turns)
    for skill in ("fact", "refusal", "harmless"):
        assert sum(uses_one(turn) for turn in exam[skill]) > 60, skill


def test_no_act_is_both_refused_and_answered(corpus):
    def acts(kind):
        return {f"{v} {o}" for group in corpus.SAFETY[kind] for v in group["verbs"] for o in group["objects"]}

    refused = acts("harmful") | acts("despair")
    assert not refused & (acts("harmless") | acts("unknown"))


def test_no_question_about_serving_has_two_answers(corpus):
    names = [name.lower() for entry in corpus.SERVING["terms"] for name in entry["names"]]
    wordings = [wording.lower() for entry in corpus.SERVING["questions"] for wording in entry["wordings"]]
    assert len(names) == len(set(names))
    assert len(wordings) == len(set(wordings))
    assert len(corpus.SERVING["terms"]) >= 60


def test_an_answer_from_context_is_a_statement_of_the_context_about_what_was_asked(corpus, exam):
    relations = corpus.PERSON + corpus.THING + corpus.PROJECT
    n_absent = 0
    for turn in exam["context"]:
        if turn.answer == corpus.ABSENT:
            n_absent += 1
            continue
        assert turn.answer in turn.prompt
        readings = [
            question.format(s=match["s"])
            for relation in relations
            if (match := re.fullmatch(statement_pattern(relation), turn.answer))
            for question in relation.questions
        ]
        assert any(question in turn.prompt for question in readings), turn
    assert 10 < n_absent < 80


def test_a_question_that_the_context_does_not_answer_matches_no_statement(corpus, exam):
    relations = corpus.PERSON + corpus.THING + corpus.PROJECT
    for turn in exam["context"]:
        if turn.answer != corpus.ABSENT:
            continue
        statements = re.split(r"(?<=\.) ", turn.key.removeprefix("context:"))
        for statement, relation in itertools.product(statements, relations):
            match = re.fullmatch(statement_pattern(relation), statement)
            if match:
                assert not any(question.format(s=match["s"]) in turn.prompt for question in relation.questions), turn


def statement_pattern(relation) -> str:
    return re.escape(relation.statement).replace(r"\{s\}", "(?P<s>.+?)").replace(r"\{v\}", "(?P<v>.+?)")


def test_extracted_json_is_valid_has_the_asked_keys_and_only_values_from_the_text(exam):
    for turn in exam["json"]:
        record = json.loads(turn.answer)
        text = turn.key.removeprefix("json:")
        assert 2 <= len(record) <= 3
        for key, value in record.items():
            assert key in turn.prompt
            assert str(value) in text or str(value).capitalize() in text


def test_answers_about_words_and_numbers_are_right(exam):
    for turn in exam["sort"]:
        words = turn.prompt.partition(": ")[2].split(", ")
        assert turn.answer.split(", ") == sorted(words)
    for turn in exam["reverse"]:
        assert turn.answer.split() == turn.prompt.partition(": ")[2].split()[::-1]
    for turn in exam["copy"]:
        assert turn.answer == turn.prompt.partition(": ")[2]
    for turn in exam["count"]:
        assert int(turn.answer) == len(re.split(r"[:?] ", turn.prompt)[1].split())
    for turn in exam["add"]:
        a, sign, b = re.search(r"(\d+) ([+-]) (\d+)", turn.prompt).groups()
        assert int(turn.answer) == (int(a) + int(b) if sign == "+" else int(a) - int(b)) >= 0


def test_sentiment_words_praise_or_blame_but_never_both(corpus, exam):
    assert not set(corpus.PRAISE) & set(corpus.BLAME)
    for turn in exam["sentiment"]:
        words = set(re.findall(r"\w+", turn.key))
        assert bool(words & set(corpus.PRAISE)) == (turn.answer == "positive")
        assert bool(words & set(corpus.BLAME)) == (turn.answer == "negative")
