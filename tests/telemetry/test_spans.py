"""A receipt becomes a tree of spans: every stage and attempt has its place in time and beneath its parent."""

from __future__ import annotations

import pytest
from hypothesis import given

from penstock.core.outcome import Outcome
from penstock.core.plan import CANCELLED, OK, Attempt
from penstock.telemetry.spans import Kind, Role, Served, Span, trace_of
from penstock.wire.trace_context import for_attempt, trace_id_of
from tests.telemetry.outcomes import FULL, OUTCOMES, REFUSED, RETRIED, STREAMED, like


def named(outcome: Outcome, name: str) -> Span:
    (span,) = [span for span in trace_of(outcome).spans if span.name == name]
    return span


def at(outcome: Outcome, span: Span) -> tuple[float, float]:
    began = outcome.received_at
    return round(span.started_at - began, 6), round(span.ended_at - began, 6)


def test_a_retried_stream_is_a_request_with_stages_two_calls_and_the_phases_of_the_one_that_answered() -> None:
    spans = trace_of(FULL).spans
    assert [(span.name, span.role, at(FULL, span)) for span in spans] == [
        ("chat.completions chat", Role.REQUEST, (0.0, 2.0005)),
        ("admission", Role.STAGE, (0.0, 0.0004)),
        ("queue", Role.STAGE, (0.0004, 0.0009)),
        ("routing", Role.STAGE, (0.0009, 0.001)),
        ("chat chat", Role.ATTEMPT, (0.001, 0.1)),
        ("chat chat", Role.ATTEMPT, (0.15, 2.0)),
        ("prefill", Role.PHASE, (0.15, 0.2)),
        ("decode", Role.PHASE, (0.2, 2.0)),
    ]
    root, *stages = spans[:4]
    failed, answered, *phases = spans[4:]
    assert {span.parent_id for span in (*stages, failed, answered)} == {root.id}
    assert {span.parent_id for span in phases} == {answered.id}
    assert (root.kind, answered.kind, stages[0].kind) == (Kind.SERVER, Kind.CLIENT, Kind.INTERNAL)


def test_the_trace_is_the_callers_and_the_root_is_beneath_their_span() -> None:
    trace = trace_of(FULL)
    assert (trace.id, trace.spans[0].parent_id) == (FULL.trace_id, FULL.parent_id)
    assert trace_of(STREAMED).id == trace_id_of(STREAMED.request_id)
    assert trace_of(STREAMED).spans[0].parent_id == ""


def test_what_an_upstream_was_told_is_the_span_of_its_attempt() -> None:
    attempts = [span for span in trace_of(RETRIED).spans if span.role is Role.ATTEMPT]
    for number, span in enumerate(attempts):
        assert span.id.encode() in for_attempt(RETRIED.request_id, number, "f" * 32, False)


def test_tokens_and_cost_are_on_the_attempt_that_answered_and_nowhere_else() -> None:
    holders = [span for span in trace_of(FULL).spans if "output_tokens" in span.attributes]
    assert [(span.role, span.attributes["attempt"]) for span in holders] == [(Role.ATTEMPT, 1)]
    attributes = holders[0].attributes
    assert (attributes["input_tokens"], attributes["output_tokens"], attributes["cost"]) == (210, 61, 0.0012345)
    assert (attributes["uncached_tokens"], attributes["visible_tokens"]) == (210 - 128 - 16, 61 - 20)


def test_a_decision_is_told_in_words_with_what_was_predicted() -> None:
    routing = named(FULL, "routing")
    assert routing.attributes == {
        "why": FULL.why,
        "arm": "canary",
        "predicted_ttft": 0.18,
        "matched_tokens": 128,
    }


def test_a_failed_attempt_is_a_failed_span_and_a_cancelled_one_is_not() -> None:
    hedged = like(
        STREAMED,
        attempts=(
            Attempt(0, "local/0", CANCELLED, 0.001, None, 0.6),
            Attempt(1, "local/1", OK, 0.5, 0.6, 2.0),
        ),
    )
    assert [span.error for span in trace_of(hedged).spans if span.role is Role.ATTEMPT] == ["", ""]
    assert [span.error for span in trace_of(RETRIED).spans if span.role is Role.ATTEMPT] == ["server_error", ""]


@pytest.mark.parametrize(
    ("error", "failed"), [("model_not_found", ""), ("client_left", ""), ("idle_timeout", "idle_timeout"), (None, "")]
)
def test_a_callers_own_mistake_is_no_failure_of_our_span_but_it_is_named(error: str | None, failed: str) -> None:
    root = trace_of(like(STREAMED, error=error)).spans[0]
    assert root.error == failed
    assert root.attributes.get("error") == error


def test_a_preempted_attempt_and_the_one_that_took_its_number_are_two_spans() -> None:
    preempted = like(
        STREAMED,
        attempts=(Attempt(0, "local/0", CANCELLED, 0.001, None, 0.1), Attempt(0, "local/1", OK, 0.2, 0.3, 2.0)),
    )
    first, second = [span for span in trace_of(preempted).spans if span.role is Role.ATTEMPT]
    assert first.id != second.id
    assert second.id.encode() in for_attempt(STREAMED.request_id, 0, "f" * 32, False)


def test_a_refused_request_is_one_span() -> None:
    assert [span.role for span in trace_of(REFUSED).spans] == [Role.REQUEST]


def test_the_provider_and_its_name_of_the_model_come_from_the_deployment() -> None:
    served = {"local": Served("mistral_ai", "mistral-large-3")}
    (attempt,) = [span for span in trace_of(STREAMED, served).spans if span.role is Role.ATTEMPT]
    assert attempt.name == "chat mistral-large-3"
    assert attempt.attributes["provider"] == "mistral_ai"
    assert attempt.attributes["request_model"] == "mistral-large-3"


@given(OUTCOMES)
def test_every_receipt_is_one_tree_whose_spans_lie_within_time_and_have_ids_of_their_own(outcome: Outcome) -> None:
    trace = trace_of(outcome)
    seen = set[str]()
    for i, span in enumerate(trace.spans):
        assert span.id not in seen
        assert len(span.id) == 16
        assert i == 0 or span.parent_id in seen
        assert span.started_at <= span.ended_at
        seen.add(span.id)
    assert sum(span.role is Role.ATTEMPT for span in trace.spans) == len(outcome.attempts)
    assert trace == trace_of(outcome)
