"""W3C Trace Context, in and out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.trace_context import (
    NO_PARENT,
    drawn,
    for_attempt,
    passed_on,
    read_traceparent,
    span_id_of,
    trace_id_of,
    traceparent,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)


def test_the_example_of_the_standard_is_read():
    assert read_traceparent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") == (TRACE, SPAN, True)
    assert read_traceparent(b" 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00 ") == (TRACE, SPAN, False)


def test_a_later_version_may_say_more_and_the_first_one_may_not():
    assert read_traceparent(f"01-{TRACE}-{SPAN}-03-more".encode()) == (TRACE, SPAN, True)
    assert read_traceparent(f"00-{TRACE}-{SPAN}-03-more".encode()) == NO_PARENT


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"junk",
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"ff-{TRACE}-{SPAN}-01".encode(),
        f"00-{TRACE.upper()}-{SPAN}-01".encode(),
        f"00-{TRACE[1:]}-{SPAN}-01".encode(),
        f"00-{TRACE}-{SPAN}".encode(),
        f"00-{TRACE}-{SPAN}-zz".encode(),
        "00-٠af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".encode(),
    ],
)
def test_what_is_not_as_it_must_be_begins_a_new_trace(header):
    assert read_traceparent(header) == NO_PARENT


@given(HEX.filter(lambda one: one.strip("0")), HEX.map(lambda one: one[:15] + "1"), st.booleans())
def test_what_is_written_is_read(trace_id, span_id, sampled):
    assert read_traceparent(traceparent(trace_id, span_id, sampled)) == (trace_id, span_id, sampled)


@given(st.binary(max_size=80))
def test_no_header_is_too_odd_to_be_read(header):
    trace_id, span_id, _ = read_traceparent(header)
    assert (len(trace_id), len(span_id)) in ((0, 0), (32, 16))


def test_an_upstream_is_told_of_its_own_attempt_in_the_trace_of_the_request() -> None:
    assert for_attempt("req_1", 2, TRACE, True) == f"00-{TRACE}-{span_id_of('req_1', 'attempt 2')}-01".encode()


def test_the_callers_trace_is_passed_on_and_where_there_is_none_the_requests_own() -> None:
    assert passed_on("req_1", (TRACE, SPAN, True), 0.0) == (TRACE, True)
    assert passed_on("req_1", (TRACE, SPAN, False), 0.0) == (TRACE, False)
    assert passed_on("req_1", NO_PARENT, 0.0) == (trace_id_of("req_1"), False)
    assert passed_on("req_1", NO_PARENT, 1.0) == (trace_id_of("req_1"), True)


def test_ids_follow_from_the_request_alone_and_differ_between_spans():
    assert trace_id_of("req_1") == trace_id_of("req_1") != trace_id_of("req_2")
    assert len({span_id_of("req_1", name) for name in ("request", "queue", "attempt 0", "attempt 1")}) == 4


@given(HEX, st.floats(0, 1), st.floats(0, 1))
def test_whoever_is_drawn_at_a_small_ratio_is_drawn_at_a_greater_one(trace_id, one, other):
    small, great = sorted((one, other))
    assert drawn(trace_id, great) or not drawn(trace_id, small)


def test_about_as_many_are_drawn_as_were_asked_for():
    n = sum(drawn(trace_id_of(f"req_{i}"), 0.01) for i in range(100_000))
    assert 850 < n < 1_150  # five standard deviations
    assert not any(drawn(trace_id_of(f"req_{i}"), 0.0) for i in range(100))
    assert all(drawn(trace_id_of(f"req_{i}"), 1.0) for i in range(100))
