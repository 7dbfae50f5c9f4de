from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.outcome import Outcome
from penstock.telemetry.access_log import BATCH, FLUSH_AT, AccessLog
from penstock.telemetry.metrics import Counter
from penstock.wire.trace_context import trace_id_of
from tests.telemetry.outcomes import FULL, OUTCOMES, REFUSED, RETRIED, STREAMED, like


class Sink:
    """A file that can be full."""

    def __init__(self) -> None:
        self.written = b""
        self.n_writes = 0
        self.full = False

    def __call__(self, data: bytes) -> None:
        self.n_writes += 1
        if self.full:
            raise OSError("No space left on device")
        self.written += data

    def lines(self) -> list[dict[str, Any]]:
        assert self.written.endswith(b"\n") or not self.written
        return [json.loads(line) for line in self.written.splitlines()]


def logged(*outcomes: Outcome) -> list[dict[str, Any]]:
    sink = Sink()
    log = AccessLog(sink)
    for outcome in outcomes:
        log.on_outcome(outcome)
    log.flush()
    return sink.lines()


def test_a_line_says_who_asked_for_what_where_it_was_tried_and_what_it_took() -> None:
    (line,) = logged(RETRIED)
    assert datetime.fromisoformat(line.pop("time")).timestamp() == RETRIED.received_at
    assert line == {
        "level": "info",
        "trace_id": "1bd8cb67e8e3289eb580d35c38ad4d09",
        "received_at": 1_800_000_000.25,
        "request_id": "req_0199aa",
        "tenant": "acme",
        "key_id": "web",
        "endpoint": "chat.completions",
        "model": "chat",
        "stream": True,
        "status": 200,
        "error": None,
        "finish_reason": "stop",
        "attempts": [
            {
                "number": 0,
                "replica": "local/0",
                "ended": "server_error",
                "started_after": 0.001,
                "first_token_after": None,
                "ended_after": 0.1,
            },
            {
                "number": 1,
                "replica": "local/1",
                "ended": "ok",
                "started_after": 0.15,
                "first_token_after": 0.2,
                "ended_after": 2.0,
            },
        ],
        "usage": {
            "prompt_tokens": 210,
            "completion_tokens": 61,
            "cached_tokens": 128,
            "cache_write_tokens": 0,
            "cache_write_1h_tokens": 0,
            "reasoning_tokens": 0,
        },
        "usage_source": "provider",
        "first_token_after": 0.2,
        "duration": 2.0005,
        "plane_version": 7,
    }


def test_every_outcome_is_one_line_in_order_whatever_the_caller_wrote() -> None:
    names = ["a\nb", 'quote"', "\u2028", "\r\n\r\n", "é"]
    assert [line["model"] for line in logged(*(like(STREAMED, model=name) for name in names))] == names


def test_a_key_in_the_place_of_a_model_name_is_not_logged_and_a_long_name_is_cut() -> None:
    lines = logged(like(REFUSED, model="sk-pen-01234567-secretsecret"), like(REFUSED, model="m" * 100_000))
    assert lines[0]["model"] == "sk-***"
    assert lines[1]["model"] == "m" * 128 + "..."


def test_lines_wait_until_there_are_enough_or_flush_is_called() -> None:
    sink = Sink()
    log = AccessLog(sink)
    n = 0
    while sink.n_writes == 0:
        log.on_outcome(STREAMED)
        n += 1
    assert len(sink.written) >= FLUSH_AT
    assert (len(sink.lines()), log.waiting) == (n, 0)
    log.on_outcome(STREAMED)
    log.flush()
    assert (sink.n_writes, len(sink.lines())) == (2, n + 1)


def test_a_writer_that_fails_loses_nothing_and_is_not_asked_again_on_the_request_path() -> None:
    sink = Sink()
    log = AccessLog(sink)
    sink.full = True
    log.on_outcome(STREAMED)
    assert log.flush() is False
    n = 1
    while log.waiting < 2 * FLUSH_AT:
        log.on_outcome(STREAMED)
        n += 1
    log.on_outcome(STREAMED)
    n += 1
    assert sink.n_writes == 1
    sink.full = False
    assert log.flush() is True
    assert len(sink.lines()) == n


def test_what_is_dropped_is_counted_and_the_log_says_how_many_lines_are_missing_and_where() -> None:
    sink, dropped = Sink(), Counter()
    log = AccessLog(sink, dropped=dropped, max_waiting=100_000)
    sink.full = True
    n = 1_000
    for i in range(n):
        log.on_outcome(like(STREAMED, request_id=f"req_{i}"))
    assert log.waiting < 100_000 + BATCH * 1_000
    sink.full = False
    assert log.flush() is True
    log.on_outcome(like(STREAMED, request_id="req_last"))
    log.flush()
    lines = sink.lines()
    kept = [line for line in lines if "request_id" in line]
    assert BATCH < len(kept) < n
    assert [line["request_id"] for line in kept[:-1]] == [f"req_{i}" for i in range(len(kept) - 1)]
    assert lines[-2] == {"event": "access_log_dropped", "lines": n + 1 - len(kept)}
    assert lines[-1]["request_id"] == "req_last"
    assert dropped.value == n + 1 - len(kept)


@given(st.lists(st.sampled_from(["outcome", "flush", "fill", "empty"]), max_size=400))
def test_every_line_is_written_once_in_order_or_said_to_be_missing(events: list[str]) -> None:
    sink = Sink()
    log = AccessLog(sink, max_waiting=20_000)
    n = 0
    for event in events:
        if event == "outcome":
            for _ in range(30):
                log.on_outcome(like(STREAMED, request_id=str(n)))
                n += 1
        elif event == "flush":
            log.flush()
        else:
            sink.full = event == "fill"
    sink.full = False
    log.flush()
    expected = 0
    for line in sink.lines():
        if "request_id" in line:
            assert line["request_id"] == str(expected)
            expected += 1
        else:
            expected += line["lines"]
    assert expected == n


def test_flushing_nothing_writes_nothing() -> None:
    sink = Sink()
    assert AccessLog(sink).flush() is True
    assert sink.n_writes == 0


def test_a_line_has_no_field_for_text_or_secrets() -> None:
    (line,) = logged(STREAMED)
    assert not {"prompt", "messages", "content", "body", "key", "authorization"} & set(line)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (None, "info"),
        ("model_not_found", "warn"),
        ("client_left", "warn"),
        ("queue_full", "error"),
        ("idle_timeout", "error"),
    ],
)
def test_the_level_says_whether_somebody_here_has_to_look_at_it(error: str | None, level: str) -> None:
    (line,) = logged(like(STREAMED, error=error))
    assert line["level"] == level


def test_a_line_names_its_trace_the_callers_where_there_is_one() -> None:
    own, callers = logged(STREAMED, FULL)
    assert own["trace_id"] == trace_id_of(STREAMED.request_id)
    assert callers["trace_id"] == FULL.trace_id


def test_with_the_names_of_elastic_everything_of_ours_is_beneath_penstock() -> None:
    sink = Sink()
    log = AccessLog(sink, keys="ecs", service="gateway")
    log.on_outcome(FULL)
    log.on_outcome(REFUSED, ("a1", "b2"))
    log.flush()
    full, refused = sink.lines()
    ours = refused.pop("penstock")
    assert datetime.fromisoformat(refused.pop("@timestamp")).timestamp() == REFUSED.received_at
    assert refused == {
        "ecs.version": "8.11.0",
        "event.dataset": "penstock.access",
        "event.kind": "event",
        "event.outcome": "failure",
        "event.duration": 100_000,
        "service.name": "gateway",
        "log.level": "warn",
        "trace.id": trace_id_of(REFUSED.request_id),
        "http.request.id": REFUSED.request_id,
        "http.response.status_code": 404,
        "error.code": "model_not_found",
        "organization.id": "acme",
    }
    assert (ours["prompt_hash"], ours["output_hash"], ours["model"]) == ("a1", "b2", "no-such")
    assert (full["user.hash"], full["trace.id"]) == (FULL.user_hash, FULL.trace_id)


def test_hashes_are_at_the_end_of_the_line_they_belong_to() -> None:
    sink = Sink()
    log = AccessLog(sink)
    log.on_outcome(STREAMED, ("a1", ""))
    log.on_outcome(STREAMED)
    log.flush()
    first, second = sink.lines()
    assert (first["prompt_hash"], first["output_hash"]) == ("a1", "")
    assert "prompt_hash" not in second


def test_keys_of_a_line_are_those_that_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    sink = Sink()
    log = AccessLog(sink)
    log.on_outcome(FULL, ("a", "b"))
    log.flush()
    (line,) = sink.lines()
    assert {key for key in line if f"`{key}`" not in page} == set()


@given(OUTCOMES, st.sampled_from(["penstock", "ecs"]))
def test_whatever_a_receipt_says_its_line_is_one_line_of_json(outcome: Outcome, keys: Any) -> None:
    sink = Sink()
    log = AccessLog(sink, keys=keys)
    log.on_outcome(outcome)
    log.flush()
    (line,) = sink.lines()
    assert (line["penstock"] if keys == "ecs" else line)["request_id"] == outcome.request_id
