"""`POST /v1/feedback`: answered with all that was said so far, counted once, refused in words."""

from __future__ import annotations

import asyncio
import json

import pytest

from penstock.core.clock import ManualClock
from penstock.core.errors import BadRequest, MethodNotAllowed, NotFound, StoreUnavailable
from penstock.core.request import Caller
from penstock.gateway.feedback import PATH, FeedbackPage
from penstock.quality.feedback import Feedback, Signal, Verdict
from penstock.stores.base import StoreFailed
from penstock.stores.feedback import FeedbackStore, MemoryFeedback, NotTheirs, Taken
from penstock.testing.exchange import FakeExchange

WEB = Caller("web", "acme")
Counted = list[tuple[str, Signal, Verdict]]


class Knows(MemoryFeedback):
    """As a ledger would."""

    async def put(self, caller: Caller, said: Feedback, now_micros: int) -> Taken:
        taken = await super().put(caller, said, now_micros)
        return Taken(taken.before, taken.after, "chat")


class Fails(MemoryFeedback):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def put(self, caller: Caller, said: Feedback, now_micros: int) -> Taken:
        raise self.error


def post(store: FeedbackStore, *bodies: str, method: bytes = b"POST") -> tuple[FakeExchange, Counted]:
    counted: Counted = []
    page = FeedbackPage(lambda: store, ManualClock(), lambda *what: counted.append(what))
    for body in bodies:
        exchange = FakeExchange(body.encode(), method=method, path=PATH)
        asyncio.run(page.answer(exchange, WEB))
    return exchange, counted


UP = '{"request_id":"r1","thumbs":"up"}'
DOWN = '{"request_id":"r1","thumbs":"down","comment":"no"}'


def test_it_answers_with_all_that_was_said_so_far():
    exchange, _ = post(Knows(), UP, '{"request_id":"r1","rating":4}')
    assert exchange.status == 200
    assert json.loads(b"".join(exchange.sent)) == {
        "feedback": {"request_id": "r1", "thumbs": "up", "rating": 4},
        "known": True,
        "object": "feedback",
    }


def test_about_a_request_that_is_not_known_yet_it_is_accepted():
    exchange, counted = post(MemoryFeedback(), UP)
    assert exchange.status == 202
    assert json.loads(b"".join(exchange.sent))["known"] is False
    assert counted == [("", Signal.THUMBS, Verdict.GOOD)]


def test_the_same_is_counted_once_and_another_opinion_again():
    _, counted = post(Knows(), UP, UP, DOWN, DOWN)
    assert counted == [("chat", Signal.THUMBS, Verdict.GOOD), ("chat", Signal.THUMBS, Verdict.BAD)]


@pytest.mark.parametrize(
    ("store", "body", "method", "refusal"),
    [
        (Knows(), "{}", b"POST", BadRequest),
        (Knows(), UP, b"GET", MethodNotAllowed),
        (Fails(NotTheirs()), UP, b"POST", NotFound),
        (Fails(StoreFailed("at postgres://secret")), UP, b"POST", StoreUnavailable),
    ],
)
def test_what_cannot_be_taken_is_refused_in_words(
    store: FeedbackStore, body: str, method: bytes, refusal: type[Exception]
):
    with pytest.raises(refusal) as refused:
        post(store, body, method=method)
    assert "secret" not in str(refused.value)
