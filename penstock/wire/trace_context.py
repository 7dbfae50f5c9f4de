"""W3C Trace Context: which trace a request belongs to, and what its upstreams are told of it.

Ids follow from the request's own, so that nobody has to keep them: whoever has a receipt can name every span of it.
Source: Trace Context, level 2 (www.w3.org/TR/trace-context-2).
"""

from __future__ import annotations

import re
from typing import Final

from xxhash import xxh3_64_hexdigest, xxh3_128_hexdigest

from penstock.core.outcome import Outcome

_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?").fullmatch
_LENGTH: Final = 55  # of version 00
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SAMPLED: Final = 1
_DRAWN: Final = 2**56  # a trace id ends with 56 bits that are as good as random

NO_PARENT: Final = ("", "", False)


def read_traceparent(header: bytes | None) -> tuple[str, str, bool]:
    """Trace id (32 hex digits), span id (16) and whether the caller records the trace; `NO_PARENT` where the header is
    missing or not as it must be, which is nobody's mistake to report: the trace begins anew.
    """
    if header is None:
        return NO_PARENT
    said = header.decode("latin-1").strip()
    if _PARENT(said) is None or said[:2] == "ff" or (said[:2] == "00" and len(said) != _LENGTH):
        return NO_PARENT
    trace_id, span_id = said[3:35], said[36:52]
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return NO_PARENT
    return trace_id, span_id, bool(int(said[53:55], 16) & _SAMPLED)


def trace_id_of(request_id: str) -> str:
    """32 hex digits, for a request whose caller began no trace."""
    return xxh3_128_hexdigest(request_id.encode())


def traced_as(outcome: Outcome) -> str:
    """The trace of a request: its caller's, or else one of its own."""
    return outcome.trace_id or trace_id_of(outcome.request_id)


def span_id_of(request_id: str, name: str) -> str:
    """16 hex digits. `name` is unique in the request: "attempt 1"."""
    return xxh3_64_hexdigest(f"{request_id} {name}".encode())


def drawn(trace_id: str, ratio: float) -> bool:
    """Whether a trace is among the `ratio` (0..1) that are kept anyway. Everybody who asks gets the same answer, and
    those kept at a smaller ratio are among those of a greater one.
    """
    return int(trace_id[18:], 16) < int(ratio * _DRAWN)  # as integers: no float is between the last ones


def traceparent(trace_id: str, span_id: str, sampled: bool) -> bytes:
    """The header's value."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}".encode("ascii")


def passed_on(request_id: str, trace: tuple[str, str, bool], ratio: float) -> tuple[str, bool]:
    """What a request's upstreams are told, from what its caller said: the id of the trace, and whether it is recorded,
    which it is too when it is `drawn` at that ratio. (What else is kept is known at its end only.)
    """
    trace_id = trace[0] or trace_id_of(request_id)
    return trace_id, trace[2] or drawn(trace_id, ratio)


def for_attempt(request_id: str, number: int, trace_id: str, sampled: bool) -> bytes:
    """The header's value for the upstream of that attempt."""
    return traceparent(trace_id, span_id_of(request_id, f"attempt {number}"), sampled)
