"""What we write by hand, the protocol's own classes read."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from penstock.core.outcome import Outcome
from penstock.telemetry.conventions import DIALECTS, Convention
from penstock.telemetry.options import Dialect
from penstock.telemetry.otlp import Encoder, varint
from penstock.telemetry.spans import Kind, Role, Span, Trace, Value, trace_of
from tests.telemetry.outcomes import FULL, OUTCOMES, like


def decoded(*traces: Trace, dialect: Dialect = "otel") -> Any:
    encoder = Encoder(Convention("latest", dialect), {"service.name": "penstock", "nothing": ""}, "1.2")
    request = ExportTraceServiceRequest()
    request.ParseFromString(encoder.body([span for trace in traces for span in encoder.spans(trace)]))
    _check_known(request)
    return request


def _check_known(message: Any) -> None:
    """No field that the protocol does not have, anywhere."""
    assert len(UnknownFieldSet(message)) == 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else [value]:
                _check_known(one)


def spans_of(request: Any) -> list[Any]:
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    return list(scope.spans)


def plain(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(plain(one) for one in value.array_value.values)
    return getattr(value, kind)


def test_who_sends_is_said_once() -> None:
    request = decoded(trace_of(FULL))
    (resource,) = request.resource_spans
    assert {pair.key: plain(pair.value) for pair in resource.resource.attributes} == {"service.name": "penstock"}
    assert (resource.scope_spans[0].scope.name, resource.scope_spans[0].scope.version) == ("penstock", "1.2")


def test_ids_times_and_kinds_arrive() -> None:
    root, *rest = spans_of(decoded(trace_of(FULL)))
    assert root.trace_id.hex() == FULL.trace_id
    assert root.parent_span_id.hex() == FULL.parent_id
    assert root.kind == ProtoSpan.SPAN_KIND_SERVER
    assert root.start_time_unix_nano == 1_800_000_000_250_000_000
    assert root.end_time_unix_nano == 1_800_000_002_250_500_000
    assert root.flags & 1
    answered = next(span for span in rest if span.events)
    assert answered.kind == ProtoSpan.SPAN_KIND_CLIENT
    assert [(event.name, event.time_unix_nano) for event in answered.events] == [
        ("first_token", 1_800_000_000_450_000_000)
    ]


def test_a_failed_span_says_so_and_others_leave_it_open() -> None:
    codes = {(span.name, span.status.code, span.status.message) for span in spans_of(decoded(trace_of(FULL)))}
    assert ("chat chat", 2, "server_error") in codes
    assert ("chat chat", 0, "") in codes


@given(OUTCOMES, st.sampled_from(sorted(DIALECTS)))
def test_whatever_a_receipt_says_is_read_as_it_was_meant(outcome: Outcome, dialect: Dialect) -> None:
    trace, convention = trace_of(outcome), Convention("latest", dialect)
    for meant, read in zip(trace.spans, spans_of(decoded(trace, dialect=dialect)), strict=True):
        assert read.span_id.hex() == meant.id
        assert read.name == meant.name.encode("utf-8", "replace").decode()
        assert {pair.key: plain(pair.value) for pair in read.attributes} == {
            name: _readable(value) for name, value in convention.attributes(meant)
        }


def test_several_traces_in_one_body_and_one_after_the_other_do_not_mix() -> None:
    one, other = trace_of(FULL), trace_of(like(FULL, request_id="req_2", trace_id="f" * 32, model="code"))
    spans = spans_of(decoded(one, other))
    assert [span.trace_id.hex() for span in spans] == [one.id] * len(one.spans) + [other.id] * len(other.spans)
    models = {pair.value.string_value for span in spans for pair in span.attributes if pair.key == "penstock.model"}
    assert models == {"chat", "code"}


@pytest.mark.parametrize("value", [True, False, 0, -1, 2**63 - 1, -(2**63), 0.5, "", "é\n" * 300, (), ("a", "")])
def test_every_kind_of_value_arrives(value: Value) -> None:
    span = Span("1" * 16, "", "x", Kind.INTERNAL, Role.STAGE, 1.0, 2.0, {"why": value})
    (read,) = spans_of(decoded(Trace("2" * 32, (span,))))
    found = plain(read.attributes[0].value)
    assert (found, type(found)) == (value, type(value))


@given(st.integers(0, 2**64 - 1))
def test_a_number_of_any_size_is_written_as_protobuf_does(n: int) -> None:
    read, shift = 0, 0
    data = varint(n)
    for i, byte in enumerate(data):
        assert (byte > 127) == (i + 1 < len(data))
        read |= (byte & 127) << shift
        shift += 7
    assert read == n


def _readable(value: Value) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, tuple):
        return tuple(one.encode("utf-8", "replace").decode() for one in value)
    return value
