"""Spans as OTLP/HTTP bodies: protobuf by hand, because the classes that protobuf makes cost three times as much and are
one more dependency. Field numbers: opentelemetry-proto 1.x, opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final

from penstock.telemetry.conventions import Convention
from penstock.telemetry.spans import Event, Span, Trace, Value

CONTENT_TYPE: Final = "application/x-protobuf"
SCOPE: Final = "penstock"

_fixed = Struct("<Q").pack
_double = Struct("<d").pack
_SMALL: Final = [bytes((n,)) for n in range(128)]
_ERROR_STATUS: Final = b"\x18\x02"  # Status.code = ERROR
_SPAN_FLAGS: Final = b"\x85\x01" + (1).to_bytes(4, "little")  # Span.flags: sampled


def varint(n: int) -> bytes:
    """Of 0 to 2^64 - 1; a negative number as its two's complement of 64 bits."""
    if 0 <= n < 128:
        return _SMALL[n]
    n &= 0xFFFFFFFFFFFFFFFF
    parts = bytearray()
    while n > 127:
        parts.append(n & 127 | 128)
        n >>= 7
    parts.append(n)
    return bytes(parts)


def _field(tag: bytes, data: bytes) -> bytes:
    """A field of bytes, or a message."""
    n = len(data)
    return tag + (_SMALL[n] if n < 128 else varint(n)) + data


_EACH_ITS_OWN: Final = frozenset(
    {
        "request_id", "session", "user", "ttft", "time_to_first_chunk", "predicted_ttft", "matched_tokens", "cost",
        "input_tokens", "output_tokens", "total_tokens", "uncached_tokens", "visible_tokens", "cache_read_tokens",
        "cache_write_tokens", "reasoning_tokens", "input", "output", "prompt_hash", "output_hash", "context", "why",
        "tags",
    }
)  # fmt: skip
"""Attributes whose values hardly come twice. Those of the others are encoded once."""

MOST_KNOWN: Final = 4_096


class Encoder:
    """Bodies for one exporter. Names of attributes, and values that are always the same few, are encoded once."""

    def __init__(self, convention: Convention, resource: Mapping[str, str], version: str = "") -> None:
        """`resource` describes who sends: "service.name" and the like."""
        self._convention = convention
        self._keys: dict[str, bytes] = {}
        self._keys_of: dict[str, list[bytes]] = {
            ours: [_field(b"\x0a", _utf8(name)) for name in names]
            for ours, names in convention.names.items()
            if not any("{}" in name for name in names)
        }
        self._known: dict[tuple[str, Value], bytes] = {}  # whole attributes
        attributes = b"".join([_field(b"\x0a", self._pair(name, value)) for name, value in resource.items() if value])
        scope = _field(b"\x0a", SCOPE.encode()) + (_field(b"\x12", version.encode()) if version else b"")
        self._resource = _field(b"\x0a", attributes)
        self._scope = _field(b"\x0a", scope)

    def body(self, spans: Iterable[bytes]) -> bytes:
        """ExportTraceServiceRequest, of spans that `span` has encoded."""
        scope_spans = self._scope + b"".join(spans)
        return _field(b"\x0a", self._resource + _field(b"\x12", scope_spans))

    def spans(self, trace: Trace) -> list[bytes]:
        trace_id = bytes.fromhex(trace.id)
        return [_field(b"\x12", self._span(trace_id, span)) for span in trace.spans]

    def _span(self, trace_id: bytes, span: Span) -> bytes:
        parts = [
            _field(b"\x0a", trace_id),
            _field(b"\x12", bytes.fromhex(span.id)),
            _field(b"\x22", bytes.fromhex(span.parent_id)) if span.parent_id else b"",
            _field(b"\x2a", _utf8(span.name)),
            b"\x30" + _SMALL[span.kind],
            b"\x39" + _fixed(_nanos(span.started_at)),
            b"\x41" + _fixed(_nanos(span.ended_at)),
        ]
        known = self._known
        for ours, value in span.attributes.items():
            if ours in _EACH_ITS_OWN:
                parts.append(self._attribute(ours, value))
                continue
            attribute = known.get((ours, value))
            if attribute is None:
                if len(known) >= MOST_KNOWN:
                    known.clear()
                attribute = known[ours, value] = self._attribute(ours, value)
            parts.append(attribute)
        parts += [_field(b"\x4a", self._pair(name, value)) for name, value in self._convention.besides(span)]
        parts += [_field(b"\x5a", _event(event)) for event in span.events]
        if span.error:
            parts.append(_field(b"\x7a", _field(b"\x12", _utf8(span.error)) + _ERROR_STATUS))
        parts.append(_SPAN_FLAGS)
        return b"".join(parts)

    def _attribute(self, ours: str, value: Value) -> bytes:
        keys = self._keys_of.get(ours)
        if keys is None:
            pairs = [self._pair(name, one) for name, one in self._convention.called(ours, value)]
            return b"".join([_field(b"\x4a", pair) for pair in pairs])
        if not keys:
            return b""
        said = _field(b"\x12", _any(value))
        return b"".join([_field(b"\x4a", key + said) for key in keys])

    def _pair(self, name: str, value: Value) -> bytes:
        key = self._keys.get(name)
        if key is None:
            key = _field(b"\x0a", _utf8(name))
            if len(self._keys) < 1_000:
                self._keys[name] = key
        return key + _field(b"\x12", _any(value))


def _any(value: Value) -> bytes:
    """AnyValue."""
    if isinstance(value, str):
        return _field(b"\x0a", _utf8(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(value)
    if isinstance(value, float):
        return b"\x21" + _double(value)
    return _field(b"\x2a", b"".join([_field(b"\x0a", _any(one)) for one in value]))


def _event(event: Event) -> bytes:
    return b"\x09" + _fixed(_nanos(event.at)) + _field(b"\x12", _utf8(event.name))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # a lone surrogate is no text to anybody


def _nanos(at: float) -> int:
    """A float has half a microsecond of Unix time, so no more is said."""
    return int(at * 1e6 + 0.5) * 1_000
