"""Events are the same events however the network cut them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import UpstreamError
from penstock.wire.sse import MAX_EVENT_BYTES, EventCutter, data_of

lines = st.sampled_from(
    [b"data: a", b"data:b", b"data: {}", b": ping", b"event: x", b"data", b"id: 1", b"data: \xc3\xa9"]
)
streams = st.lists(st.lists(lines, min_size=1, max_size=3), min_size=1, max_size=5)


def cut(data, places):
    edges = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a != b]


@given(streams, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 999)), st.booleans())
def test_events_do_not_depend_on_where_the_network_cut_them(events, ending, places, bom):
    expected = b"".join(b"\n".join(event) + b"\n\n" for event in events)
    sent = (b"\xef\xbb\xbf" if bom else b"") + b"".join(ending.join(event) + ending * 2 for event in events)
    cutter = EventCutter()
    places = [p + 3 if bom else p for p in places]  # a BOM in two pieces is no BOM anybody sends
    sent_pieces = cut(sent, [p for p in places if p % (len(sent) + 1) > 2])
    got = b"".join(cutter.feed(piece) for piece in sent_pieces)
    if ending == b"\r":  # the last CR may still turn out to be half of a CRLF
        got += cutter.feed(b"\n")
        assert got.rstrip(b"\n") == expected.rstrip(b"\n")
    else:
        assert got == expected
        assert not cutter.holds_data


def test_what_has_no_blank_line_yet_is_held_and_said_to_be():
    cutter = EventCutter()
    assert cutter.feed(b"data: a\n\ndata: b") == b"data: a\n\n"
    assert cutter.holds_data
    assert cutter.rest() == b"data: b"
    assert not cutter.holds_data


def test_an_event_without_end_is_given_up():
    cutter = EventCutter()
    for _ in range(16):
        cutter.feed(b"x" * (MAX_EVENT_BYTES // 16))
    with pytest.raises(UpstreamError, match="bad_payload"):
        cutter.feed(b"x")


def test_a_large_event_in_many_pieces_is_put_together_once():
    cutter = EventCutter()
    assert all(cutter.feed(b"y" * 1000) == b"" for _ in range(5000))
    assert len(cutter.feed(b"\n\n")) == 5_000_002


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a", b"a"),
        (b"data:a", b"a"),
        (b"data:  a", b" a"),
        (b"data: a\ndata: b", b"a\nb"),
        (b": comment", b""),
        (b"event: x\ndata: a", b"a"),
        (b"data", b""),
        (b"database: a", b""),
    ],
)
def test_the_payload_is_what_the_standard_says(event, data):
    assert data_of(event) == data
