"""Feedback is small, exact and adds up; sessions say more without being asked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import Attempt
from penstock.core.request import Usage
from penstock.quality.feedback import GONE_AFTER, Feedback, Sessions, Signal, Verdict, parse

T = 1_800_000_000.0
TRIED = (Attempt(0, "a/0", "ok", 0.0, 0.1, 2.0),)


def test_everything_that_can_be_said_is_understood():
    said = parse(b'{"request_id":"r1","thumbs":"down","rating":5,"comment":"no","accepted":false,"retried":true}')
    assert said == Feedback("r1", "down", 5, "no", False, True)
    assert said.verdicts() == {
        Signal.THUMBS: Verdict.BAD,
        Signal.RATING: Verdict.GOOD,
        Signal.ACCEPTED: Verdict.BAD,
        Signal.RETRIED: Verdict.BAD,
    }
    assert parse(b'{"request_id":"r1","rating":3}').verdicts() == {Signal.RATING: Verdict.NEUTRAL}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"request_id":"r1"}',
        b'{"thumbs":"up"}',
        b'{"request_id":"r1","thumbs":"sideways"}',
        b'{"request_id":"r1","rating":6}',
        b'{"request_id":"r1","rating":true}',
        b'{"request_id":"r1","stars":5}',
        b'{"request_id":"a b","thumbs":"up"}',
        b'{"request_id":"a\\n","thumbs":"up"}',
        b'{"request_id":"r1","comment":"' + b"x" * 2_001 + b'"}',
        b'{"request_id":"r1","comment":"' + b"x" * 20_000 + b'"}',
        b"[" * 5_000,
    ],
)
def test_what_is_no_feedback_is_refused_without_being_repeated(body: bytes):
    with pytest.raises(BadRequest) as refusal:
        parse(body)
    for secret in ("sideways", "stars", "a b", "xxx"):
        assert secret not in refusal.value.message


def test_the_field_that_is_wrong_is_named():
    with pytest.raises(BadRequest) as refusal:
        parse(b'{"request_id":"r1","rating":6}')
    assert refusal.value.param == "rating"


said = st.builds(
    Feedback,
    st.just("r1"),
    st.none() | st.sampled_from(["up", "down"]),
    st.none() | st.integers(1, 5),
    st.none() | st.text(max_size=20),
    st.none() | st.booleans(),
    st.none() | st.booleans(),
)


@given(said, said, said)
def test_later_words_replace_earlier_ones_and_the_same_again_changes_nothing(a: Feedback, b: Feedback, c: Feedback):
    assert b.after(a).after(a).after(b.after(a)) == b.after(a)
    assert c.after(b.after(a)) == c.after(b).after(a)


@given(said.filter(lambda one: not one.empty))
def test_what_is_written_is_read(one: Feedback):
    assert (
        parse(
            json.dumps(
                {name: getattr(one, name) for name in one.__struct_fields__ if getattr(one, name) is not None}
            ).encode()
        )
        == one
    )


def outcome(
    at: float, prompt: int, completion: int = 100, error: str | None = None, session: str = "s", **more
) -> Outcome:
    return Outcome(
        T + at, f"r{at:g}", "chat.completions", "acme", "web", "chat", True, 200, error, TRIED,
        Usage(prompt, completion), UsageSource.PROVIDER, "stop", 0.1, 2.0, 1, session=session, **more,
    )  # fmt: skip


def test_the_same_question_again_soon_after_says_something_of_the_first_answer():
    sessions = Sessions()
    assert sessions.on_outcome(outcome(0, prompt=200)) is None
    derived = sessions.on_outcome(outcome(20, prompt=205))
    assert derived is not None
    assert (derived.request_id, derived.signal) == ("r0", Signal.REQUERY)


@pytest.mark.parametrize(
    "second",
    [
        outcome(20, prompt=330),  # the first answer is in its prompt: the conversation goes on
        outcome(20, prompt=20),  # something else
        outcome(300, prompt=200),  # much later
        outcome(20, prompt=200, session="other"),
        outcome(1, prompt=200),  # began before the first had ended: two at once
        outcome(20, prompt=200, session=""),
    ],
)
def test_what_goes_on_or_is_something_else_says_nothing(second: Outcome):
    sessions = Sessions()
    sessions.on_outcome(outcome(0, prompt=200))
    assert sessions.on_outcome(second) is None


def test_to_ask_again_after_a_failure_says_nothing_of_an_answer():
    sessions = Sessions()
    sessions.on_outcome(outcome(0, prompt=200, error="upstream_error"))
    assert sessions.on_outcome(outcome(20, prompt=200)) is None


def test_who_leaves_and_does_not_come_back_has_abandoned():
    sessions = Sessions()
    sessions.on_outcome(outcome(0, prompt=200, error="client_left"))
    sessions.on_outcome(outcome(1, prompt=200, error="client_left", session="back"))
    sessions.on_outcome(outcome(60, prompt=900, session="back"))
    sessions.on_outcome(outcome(2, prompt=200, session="content"))
    assert sessions.gone(T + GONE_AFTER) == []
    assert [one.request_id for one in sessions.gone(T + 70 + GONE_AFTER)] == ["r0"]
    assert len(sessions) == 0


def test_no_more_sessions_are_watched_than_there_is_room_for():
    sessions = Sessions(most=3)
    for n in range(10):
        sessions.on_outcome(outcome(n, prompt=200, session=f"s{n}"))
    assert len(sessions) == 3


def test_another_organisation_with_the_same_session_is_another_session():
    sessions = Sessions()
    sessions.on_outcome(outcome(0, prompt=200))
    other = outcome(20, prompt=200)
    assert (
        sessions.on_outcome(type(other)(**{**{f: getattr(other, f) for f in other.__struct_fields__}, "tenant": "b"}))
        is None
    )
