from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import FailureKind
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import CANCELLED, OK, Attempt
from penstock.core.request import Priority, Usage
from penstock.telemetry import fold
from penstock.telemetry.fold import RequestMetrics
from penstock.telemetry.metrics import Registry
from tests.telemetry.outcomes import OUTCOMES, REFUSED, RETRIED, STREAMED, like


class Watched:
    """Metrics of some outcomes, easy to ask."""

    def __init__(self, *outcomes: Outcome, serves: tuple[str, ...] = ()) -> None:
        self.registry = Registry()
        self.metrics = RequestMetrics(self.registry)
        self.metrics.serves(serves)
        for outcome in outcomes:
            self.metrics.on_outcome(outcome)

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        rows = self.registry.snapshot().series["penstock_" + name]
        return {row.labels: row.value for row in rows if row.value}

    def observed(self, name: str) -> tuple[int, float]:
        """How many observations of all series, and their sum."""
        rows = self.registry.snapshot().series["penstock_" + name]
        return sum(sum(row.counts) for row in rows), round(sum(row.value for row in rows), 9)


def test_a_request_is_counted_by_model_endpoint_status_class_and_error() -> None:
    watched = Watched(STREAMED, STREAMED, like(STREAMED, error="upstream_broke"), like(STREAMED, status=499))
    assert watched.values("requests_total") == {
        ("chat", "chat.completions", "2xx", "none"): 2,
        ("chat", "chat.completions", "2xx", "upstream_broke"): 1,
        ("chat", "chat.completions", "4xx", "none"): 1,
    }


def test_a_streams_latencies_are_measured_from_the_callers_side() -> None:
    watched = Watched(STREAMED)
    assert watched.observed("request_duration_seconds") == (1, 2.0005)
    assert watched.observed("time_to_first_token_seconds") == (1, 0.2)
    assert watched.observed("time_per_output_token_seconds") == (1, round(1.8005 / 60, 9))


def test_an_answer_that_is_not_streamed_has_no_first_token_time() -> None:
    watched = Watched(like(STREAMED, stream=False))
    assert watched.observed("time_to_first_token_seconds")[0] == 0
    assert watched.observed("time_per_output_token_seconds")[0] == 0
    assert watched.observed("request_duration_seconds")[0] == 1


def test_a_stream_of_one_token_or_a_broken_one_has_no_time_per_token() -> None:
    watched = Watched(like(STREAMED, usage=Usage(5, 1)), like(STREAMED, error="upstream_broke"))
    assert watched.observed("time_per_output_token_seconds")[0] == 0
    assert watched.observed("time_to_first_token_seconds")[0] == 2


def test_overhead_is_what_the_gateway_took_before_the_first_attempt_and_after_the_last() -> None:
    assert Watched(STREAMED).observed("gateway_overhead_seconds") == (1, 0.0015)
    # the wait between the two attempts is a decision, not overhead
    assert Watched(RETRIED).observed("gateway_overhead_seconds") == (1, 0.0015)


def test_overhead_of_a_hedged_request_looks_at_all_attempts_whatever_their_order() -> None:
    hedged = like(
        STREAMED,
        attempts=(
            Attempt(1, "local/1", OK, 0.5, 0.6, 2.0),
            Attempt(0, "local/0", CANCELLED, 0.001, None, 0.6),
        ),
    )
    assert Watched(hedged).observed("gateway_overhead_seconds") == (1, 0.0015)


def test_attempts_are_counted_by_replica_and_how_they_ended_and_all_but_the_first_are_retries() -> None:
    watched = Watched(STREAMED, RETRIED)
    assert watched.values("attempts_total") == {
        ("local/0", "ok"): 1,
        ("local/0", "server_error"): 1,
        ("local/1", "ok"): 1,
    }
    assert watched.values("retries_total") == {("chat",): 1}


def test_tokens_are_counted_by_who_counted_them() -> None:
    estimated = like(STREAMED, usage=Usage(10, 3), usage_source=UsageSource.ESTIMATE)
    watched = Watched(STREAMED, estimated, REFUSED)
    assert watched.values("prompt_tokens_total") == {("chat", "provider"): 210, ("chat", "estimate"): 10}
    assert watched.values("completion_tokens_total") == {("chat", "provider"): 61, ("chat", "estimate"): 3}
    assert watched.values("cached_prompt_tokens_total") == {("chat",): 128}


def test_a_model_name_that_nobody_serves_does_not_become_a_label() -> None:
    watched = Watched(*(like(REFUSED, model=f"typo-{i}") for i in range(50)), STREAMED)
    assert watched.values("requests_total") == {
        ("unknown", "chat.completions", "4xx", "model_not_found"): 50,
        ("chat", "chat.completions", "2xx", "none"): 1,
    }


def test_a_served_model_keeps_its_name_when_no_replica_was_left_to_try() -> None:
    overloaded = like(REFUSED, model="chat", status=503, error="no_replica")
    assert set(Watched(overloaded, serves=("chat",)).values("requests_total")) == {
        ("chat", "chat.completions", "5xx", "no_replica")
    }


def test_a_name_that_was_unknown_is_counted_under_its_own_once_it_is_served() -> None:
    watched = Watched(like(REFUSED, model="new"))
    assert {labels[0] for labels in watched.values("requests_total")} == {"unknown"}
    watched.metrics.serves(("new",))
    watched.metrics.on_outcome(like(REFUSED, model="new"))
    assert {labels[0] for labels in watched.values("requests_total")} == {"unknown", "new"}


def test_bound_children_are_forgotten_before_they_are_too_many_and_nothing_is_lost() -> None:
    watched = Watched()
    n = fold.MAX_BOUND + 10
    for i in range(n):
        watched.metrics.on_outcome(like(STREAMED, error=f"code-{i}"))
    counted = sum(watched.values("requests_total").values())
    assert len(watched.metrics._bound) <= fold.MAX_BOUND
    assert counted == n


def test_every_failure_has_its_nature_whether_of_a_request_or_of_an_attempt() -> None:
    watched = Watched(
        RETRIED,
        like(STREAMED, error="idle_timeout", attempts=(Attempt(0, "local/0", FailureKind.IDLE_TIMEOUT, 0, 1, 2),)),
        like(REFUSED, model="chat", error="token_rate_limit", status=429),
        serves=("chat",),
    )
    assert watched.values("failures_total") == {
        ("chat", "attempt", "server_error", "transient", "provider"): 1,
        ("chat", "attempt", "idle_timeout", "transient", "provider"): 1,
        ("chat", "request", "idle_timeout", "transient", "provider"): 1,
        ("chat", "request", "token_rate_limit", "transient", "caller"): 1,
    }


def test_requests_with_which_nothing_is_wrong_are_admitted_or_refused_by_a_reason() -> None:
    watched = Watched(
        STREAMED,
        like(REFUSED, model="chat", error="queue_full", status=503, priority=Priority.LOW),
        like(REFUSED, model="chat", error="budget_exceeded", status=429),
        like(REFUSED, model="chat", error="invalid_request", status=400),
        serves=("chat",),
    )
    assert watched.values("admissions_total") == {
        ("chat", "normal", "admitted"): 1,
        ("chat", "low", "queue_full"): 1,
        ("chat", "normal", "budget_exceeded"): 1,
    }


def test_a_second_attempt_is_a_hedge_a_failover_or_just_another_try() -> None:
    def both(one: str, ended_after: float, other: str, started_after: float) -> Outcome:
        first = Attempt(0, one, FailureKind.NETWORK, 0.001, None, ended_after)
        return like(STREAMED, attempts=(first, Attempt(1, other, OK, started_after, 1.5, 2.0)))

    hedged, again = both("a/0", 0.6, "b/0", 0.5), both("a/0", 0.6, "a/1", 0.7)
    failed_over = both("a/0", 0.6, "b/0", 0.7)
    watched = Watched(hedged, again, failed_over)
    assert watched.values("hedges_total") == {("chat",): 1}
    assert watched.values("failovers_total") == {("chat",): 1}
    assert watched.values("retries_total") == {("chat",): 3}


def test_how_answers_ended_is_counted_in_the_same_words_whatever_the_dialect() -> None:
    endings = ["stop", "end_turn", "length", "max_tokens", "tool_use", "refusal", "something new"]
    watched = Watched(*(like(STREAMED, finish_reason=one) for one in endings), like(STREAMED, error="idle_timeout"))
    assert watched.values("finished_total") == {
        ("chat", "stop"): 2,
        ("chat", "length"): 2,
        ("chat", "tool_calls"): 1,
        ("chat", "refusal"): 1,
        ("chat", "other"): 1,
    }
    assert watched.values("refusals_total") == {("chat", "refusal"): 1}


def test_lengths_are_those_of_whole_answers_and_of_every_prompt() -> None:
    watched = Watched(STREAMED, like(STREAMED, error="idle_timeout"), REFUSED)
    assert watched.observed("output_length_tokens") == (1, 61)
    assert watched.observed("prompt_length_tokens") == (2, 420)


def test_the_wait_for_room_is_that_of_requests_that_were_sent() -> None:
    watched = Watched(like(STREAMED, queued_for=0.25, priority=Priority.HIGH), STREAMED, like(REFUSED, queued_for=9.0))
    rows = watched.registry.snapshot().series["penstock_queue_wait_seconds"]
    assert {row.labels: (sum(row.counts), row.value) for row in rows} == {
        ("chat", "high"): (1, 0.25),
        ("chat", "normal"): (1, 0),
    }


def test_what_was_given_up_and_what_was_only_thought_is_counted() -> None:
    watched = Watched(like(STREAMED, degraded=("max_tokens", "model"), usage=Usage(5, 9, reasoning_tokens=4)))
    assert watched.values("degraded_total") == {("chat", "max_tokens"): 1, ("chat", "model"): 1}
    assert watched.values("reasoning_tokens_total") == {("chat",): 4}


def test_exemplars_are_in_the_buckets_in_which_their_requests_are_counted() -> None:
    watched = Watched(STREAMED)
    watched.metrics.show(STREAMED, "f" * 32)
    series = watched.registry.snapshot().series
    for name in ("request_duration_seconds", "time_to_first_token_seconds", "time_per_output_token_seconds"):
        (row,) = series["penstock_" + name]
        assert [row.counts[place] for place in row.exemplars] == [1]


@given(st.lists(OUTCOMES, max_size=12))
def test_whatever_happened_every_request_and_every_attempt_is_counted_exactly_once(outcomes: list[Outcome]) -> None:
    watched = Watched(*outcomes)
    assert sum(watched.values("requests_total").values()) == len(outcomes)
    assert watched.observed("request_duration_seconds")[0] == len(outcomes)
    assert sum(watched.values("attempts_total").values()) == sum(len(outcome.attempts) for outcome in outcomes)
    assert sum(watched.values("retries_total").values()) == sum(
        max(0, len(outcome.attempts) - 1) for outcome in outcomes
    )
    failed = sum(outcome.error is not None for outcome in outcomes)
    ended = [attempt.ended for outcome in outcomes for attempt in outcome.attempts]
    failed += sum(one not in (OK, CANCELLED) for one in ended)
    assert sum(watched.values("failures_total").values()) == failed
    admitted = {labels: n for labels, n in watched.values("admissions_total").items() if labels[2] == "admitted"}
    assert sum(admitted.values()) == sum(bool(outcome.attempts) for outcome in outcomes)
    counted = [outcome for outcome in outcomes if outcome.usage_source is not UsageSource.NONE]
    assert sum(watched.values("prompt_tokens_total").values()) == sum(o.usage.prompt_tokens for o in counted)
