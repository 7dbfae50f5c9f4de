"""Feedback is the caller's own, adds up, and is bounded; on SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from penstock.core.request import Caller
from penstock.quality.feedback import Feedback
from penstock.stores import feedback as module
from penstock.stores.entry import Entry
from penstock.stores.feedback import MemoryFeedback, NotTheirs, SqlFeedback
from penstock.stores.ledger import SqlLedger
from penstock.stores.sql import Database

WEB = Caller("web", "acme")
OTHER_KEY = Caller("cron", "acme")
STRANGER = Caller("web", "rival")
ALONE = Caller("web")


@pytest.fixture
def store(loop: asyncio.Runner, database: Database) -> SqlFeedback:
    rows = [
        Entry("r1", 1_000_000, org="acme", key_id="web", model="chat", user_hash="u1"),
        Entry("r2", 2_000_000, org="", key_id="web", model="chat"),
    ]
    loop.run(SqlLedger(database).append(rows))
    return SqlFeedback(database)


def test_everybody_of_an_organisation_may_speak_about_its_answers_and_nobody_else(
    loop: asyncio.Runner, store: SqlFeedback
):
    assert loop.run(store.put(WEB, Feedback("r1", "up"), 1)).model == "chat"
    assert loop.run(store.put(OTHER_KEY, Feedback("r1", rating=2), 2)).after == Feedback("r1", "up", 2)
    for caller in (STRANGER, ALONE):
        refused(loop, store.put(caller, Feedback("r1", "down"), 3))
    assert loop.run(store.put(ALONE, Feedback("r2", "up"), 3)).model == "chat"
    refused(loop, store.put(Caller("cron"), Feedback("r2", "up"), 3))


def refused(loop: asyncio.Runner, work: Coroutine[Any, Any, Any]) -> None:
    with pytest.raises(NotTheirs):
        loop.run(work)


def test_the_same_again_changes_nothing(loop: asyncio.Runner, store: SqlFeedback, database: Database):
    said = Feedback("r1", "down", 1, "no", False, True)
    first, again = loop.run(store.put(WEB, said, 5)), loop.run(store.put(WEB, said, 9))
    assert (first.before, first.after) == (None, said)
    assert (again.before, again.after) == (said, said)
    rows = loop.run(database.read("select at_micros, changed_micros from feedback"))
    assert [tuple(row) for row in rows] == [(5, 5)]


def test_words_of_two_at_once_are_both_kept(loop: asyncio.Runner, store: SqlFeedback):
    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(store.put(WEB, Feedback("r1", thumbs="up"), 1))
            group.create_task(store.put(OTHER_KEY, Feedback("r1", comment="nice"), 1))

    loop.run(both())
    assert loop.run(store.of("acme", 0, 10)) == [("chat", Feedback("r1", "up", comment="nice"))]


def test_what_comes_before_its_request_is_found_when_that_is_there(
    loop: asyncio.Runner, store: SqlFeedback, database: Database
):
    assert loop.run(store.put(WEB, Feedback("late", "up"), 1)).model == ""
    loop.run(store.put(STRANGER, Feedback("late", "down"), 1))
    assert loop.run(store.of("acme", 0, 10)) == []
    loop.run(SqlLedger(database).append([Entry("late", 3_000_000, org="acme", key_id="web", model="small")]))
    assert loop.run(store.of("acme", 0, 10)) == [("small", Feedback("late", "up"))]
    assert loop.run(store.of("rival", 0, 10)) == []  # it was never theirs


def test_nobody_can_fill_the_table_with_requests_that_are_not_known(
    loop: asyncio.Runner, store: SqlFeedback, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_UNKNOWN", 3)
    for n in range(3):
        loop.run(store.put(WEB, Feedback(f"x{n}", "up"), n))
    refused(loop, store.put(WEB, Feedback("x3", "up"), 3))
    loop.run(store.put(WEB, Feedback("r1", "up"), 3))  # what is known has room
    loop.run(store.put(STRANGER, Feedback("x3", "up"), 3))  # and so have others
    loop.run(SqlLedger(database).append([Entry("x0", 1, org="acme", key_id="web", model="chat")]))
    loop.run(store.put(WEB, Feedback("x3", "up"), 4))


def test_a_user_who_is_forgotten_leaves_no_words(loop: asyncio.Runner, store: SqlFeedback):
    loop.run(store.put(WEB, Feedback("r1", "up", comment="I am Ann"), 1))
    assert loop.run(store.forget_user("u1")) == 1
    assert loop.run(store.of("acme", 0, 10)) == [("chat", Feedback("r1", "up"))]


def test_what_is_old_goes(loop: asyncio.Runner, store: SqlFeedback, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "AT_ONCE", 1)
    for n in range(3):
        loop.run(store.put(WEB, Feedback(f"x{n}", "up"), n))
    assert loop.run(store.let_go(2)) == 2
    assert loop.run(store.let_go(2)) == 0


def test_without_a_database_the_same_is_still_not_counted_twice():
    async def story() -> None:
        store = MemoryFeedback(most=2)
        assert (await store.put(WEB, Feedback("a", "up"), 1)).before is None
        assert (await store.put(WEB, Feedback("a", "up"), 1)).before == Feedback("a", "up")
        assert (await store.put(STRANGER, Feedback("a", "down"), 1)).before is None
        await store.put(WEB, Feedback("b", "up"), 1)
        assert (await store.put(WEB, Feedback("a", "up"), 1)).before is None

    asyncio.run(story())
