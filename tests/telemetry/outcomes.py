"""Real outcomes for the tests of this room."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from penstock.core.errors import FailureKind
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import CANCELLED, OK, Attempt
from penstock.core.request import Endpoint, Priority, Usage

STREAMED = Outcome(
    received_at=1_800_000_000.25,
    request_id="req_0199aa",
    endpoint=Endpoint.CHAT,
    tenant="acme",
    key_id="web",
    model="chat",
    stream=True,
    status=200,
    error=None,
    attempts=(Attempt(0, "local/0", OK, 0.001, 0.2, 2.0),),
    usage=Usage(210, 61, 128),
    usage_source=UsageSource.PROVIDER,
    finish_reason="stop",
    first_token_after=0.2,
    duration=2.0005,
    plane_version=7,
)
RETRIED = msgspec.structs.replace(
    STREAMED,
    attempts=(
        Attempt(0, "local/0", FailureKind.SERVER_ERROR, 0.001, None, 0.1),
        Attempt(1, "local/1", OK, 0.15, 0.2, 2.0),
    ),
)
REFUSED = msgspec.structs.replace(
    STREAMED,
    status=404,
    error="model_not_found",
    model="no-such",
    attempts=(),
    usage=Usage(),
    usage_source=UsageSource.NONE,
    finish_reason=None,
    first_token_after=None,
    duration=0.0001,
)
FULL = msgspec.structs.replace(
    RETRIED,
    usage=Usage(210, 61, 128, 16, 0, 20),
    deployment="local",
    team="search",
    user_hash="f" * 32,
    feature="summaries",
    session="s-1",
    tags=("a=1", "b"),
    cost_nanos=1_234_500,
    priority=Priority.HIGH,
    admitted_after=0.0004,
    queued_for=0.0005,
    predicted_ttft=0.18,
    matched_tokens=128,
    why=("rule 1: long prompts", "cheapest"),
    arm="canary",
    degraded=("max_tokens",),
    trace_id="0af7651916cd43dd8448eb211c80319c",
    parent_id="b7ad6b7169203331",
    sampled=True,
    prompt_version="v12",
    context=("doc-1", "doc-2"),
)
"""With everything that a receipt can say."""

ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        number=st.integers(0, 3),
        replica=st.sampled_from(["a/0", "a/1", "b/0"]),
        started_after=st.floats(0, 20),
        ended_after=st.floats(0, 30),
        first_token_after=st.none() | st.floats(10, 20),
        ended=st.sampled_from([OK, CANCELLED, *FailureKind]),
    ),
    max_size=4,
).map(tuple)
WORDS = st.lists(st.text(max_size=5), max_size=3).map(tuple)
OUTCOMES = st.builds(
    Outcome,
    request_id=st.uuids().map(str),
    endpoint=st.sampled_from(Endpoint),
    tenant=st.text(max_size=3),
    key_id=st.text(max_size=3),
    model=st.sampled_from(["chat", "code"]) | st.text(max_size=4),
    stream=st.booleans(),
    status=st.sampled_from([200, 400, 401, 404, 429, 499, 502, 503, 504]),
    error=st.none() | st.sampled_from(["overloaded", "client_left", "token_rate_limit", "no_replica"]),
    attempts=ATTEMPTS,
    usage=st.builds(Usage, st.integers(0, 999), st.integers(0, 999), st.integers(0, 9)),
    usage_source=st.sampled_from(UsageSource),
    finish_reason=st.none() | st.sampled_from(["stop", "max_tokens", "refusal", "whatever"]),
    received_at=st.floats(1.8e9, 1.9e9),
    first_token_after=st.none() | st.floats(10, 20),
    duration=st.floats(20, 40),
    plane_version=st.integers(1, 9),
    session=st.text(max_size=3),
    tags=WORDS,
    cost_nanos=st.none() | st.integers(0, 10**12),
    priority=st.sampled_from(Priority),
    admitted_after=st.floats(0, 1),
    queued_for=st.floats(0, 1),
    why=WORDS,
    degraded=WORDS,
    trace_id=st.just("") | st.integers(1, 2**128 - 1).map(lambda n: f"{n:032x}"),
    parent_id=st.just("") | st.integers(1, 2**64 - 1).map(lambda n: f"{n:016x}"),
    sampled=st.booleans(),
    context=WORDS,
)


def like(outcome: Outcome, **changes: Any) -> Outcome:
    return msgspec.structs.replace(outcome, **changes)
