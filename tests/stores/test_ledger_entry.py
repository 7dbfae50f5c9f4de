"""A receipt becomes a row that any database can hold, whatever a caller or an upstream has put into it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import FailureKind
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import CANCELLED, OK, Attempt
from penstock.core.request import Usage
from penstock.stores.entry import Entry
from penstock.stores.entry_checks import MAX_COST_NANOS, MAX_TEXT_BYTES, MAX_TOKENS, check_text
from penstock.stores.receipts import entry_of, plain


def attempt(n, replica, ended):
    return Attempt(n, replica, ended, 0.0, None, 1.0)


def outcome(**changes):
    fields = {
        "received_at": 1_800_000_000.25,
        "request_id": "req_1",
        "endpoint": "chat.completions",
        "tenant": "acme",
        "key_id": "web",
        "model": "chat",
        "stream": True,
        "status": 200,
        "error": None,
        "attempts": (attempt(0, "a/0", FailureKind.OVERLOADED), attempt(1, "b/0", OK), attempt(2, "c/0", CANCELLED)),
        "usage": Usage(100, 50, cached_tokens=30, cache_write_tokens=20, cache_write_1h_tokens=15, reasoning_tokens=40),
        "usage_source": UsageSource.PROVIDER,
        "finish_reason": "stop",
        "first_token_after": 0.5,
        "duration": 2.0000004,
        "plane_version": 3,
    }
    return Outcome(**fields | changes)


def test_a_receipt_becomes_a_row():
    told = outcome(
        team="search",
        user_hash="u5e7",
        feature="summaries",
        session="s-1",
        tags=("beta", "project=x"),
        deployment="pool",
        cost_nanos=5,
    )
    assert entry_of(told, cache="exact", price_version="v3") == Entry(
        request_id="req_1",
        at_micros=1_800_000_000_250_000,
        org="acme",
        team="search",
        key_id="web",
        user_hash="u5e7",
        feature="summaries",
        session="s-1",
        tags='{"beta":"","project":"x"}',
        model="chat",
        deployment="pool",
        replica="b/0",
        endpoint="chat.completions",
        status=200,
        error=None,
        cache="exact",
        input_tokens=50,
        cached_tokens=30,
        cache_write_tokens=5,
        cache_write_1h_tokens=15,
        output_tokens=10,
        reasoning_tokens=40,
        usage_source="provider",
        cost_nanos=5,
        price_version="v3",
        duration_micros=2_000_000,
    )


def test_without_an_answer_the_replica_is_the_last_that_was_tried():
    def replica(*attempts):
        return entry_of(outcome(attempts=attempts)).replica

    assert replica(attempt(0, "a", FailureKind.OVERLOADED), attempt(1, "b", FailureKind.OVERLOADED)) == "b"
    assert replica() == ""


def test_a_price_that_nobody_knows_or_that_is_absurd_is_none_and_not_zero():
    def cost(nanos):
        return entry_of(outcome(cost_nanos=nanos)).cost_nanos

    assert [cost(n) for n in (None, 0, MAX_COST_NANOS, MAX_COST_NANOS + 1, -MAX_COST_NANOS - 1)] == [
        None,
        0,
        MAX_COST_NANOS,
        None,
        None,
    ]


anything = st.text(st.characters(exclude_categories=()), max_size=400)
counts = st.integers(-(2**70), 2**70)


@given(
    texts=st.lists(anything, min_size=8, max_size=8),
    tags=st.lists(anything, max_size=40),
    usage=st.builds(Usage, counts, counts, counts, counts, counts, counts),
    cost=st.none() | counts,
)
def test_whatever_is_in_a_receipt_its_row_can_be_stored_and_read_again(texts, tags, usage, cost):
    error, model, user, feature, session, org, team, key = texts
    told = outcome(
        error=error,
        model=model,
        key_id=key,
        endpoint=model,
        usage=usage,
        tenant=org,
        team=team,
        user_hash=user,
        feature=feature,
        session=session,
        tags=tuple(tags),
        deployment=team,
        cost_nanos=cost,
    )
    entry = entry_of(told, cache=user)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(entry), type=Entry) == entry
    assert 0 <= entry.input_tokens <= MAX_TOKENS
    for text in (entry.model, entry.error, entry.user_hash, entry.tags):
        check_text(text, 64 * MAX_TEXT_BYTES)


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_token_classes_do_not_overlap_and_leave_none_out(plain_input, cached, short, hour, answer, reasoning):
    prompt = plain_input + cached + short + hour
    usage = Usage(prompt, answer + reasoning, cached, short + hour, hour, reasoning)
    entry = entry_of(outcome(usage=usage))
    assert (entry.input_tokens, entry.cached_tokens, entry.cache_write_tokens) == (plain_input, cached, short)
    assert (entry.cache_write_1h_tokens, entry.output_tokens, entry.reasoning_tokens) == (hour, answer, reasoning)


@given(anything)
def test_plain_changes_only_what_no_database_takes(text):
    made = plain(text)
    check_text(made)
    assert plain(made) == made
    if "\0" not in text and not any(0xD800 <= ord(char) < 0xE000 for char in text):
        assert text.startswith(made)
        assert made == text or len(text.encode()) > MAX_TEXT_BYTES


@pytest.mark.parametrize(
    "wrong",
    [
        {"request_id": ""},
        {"model": "a" * 257},
        {"model": "é" * 129},
        {"org": "a\0b"},
        {"error": "\udc00"},
        {"tags": '{"a":"\0"}'},
        {"cost_nanos": MAX_COST_NANOS + 1},
        {"output_tokens": MAX_TOKENS + 1},
        {"at_micros": -1},
        {"duration_micros": 2**53},
        {"status": 1000},
    ],
)
def test_a_row_that_no_database_would_take_cannot_be_made(wrong):
    with pytest.raises(ValueError, match=r"ledger|stored|surrogates"):
        Entry(**{"request_id": "r", "at_micros": 1} | wrong)
