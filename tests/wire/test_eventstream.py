"""AWS event-stream messages: what we cut is what botocore cuts."""

import struct
from binascii import crc32
from itertools import pairwise

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.errors import FailureKind, UpstreamError
from penstock.wire.eventstream import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES, Message, MessageCutter, encode

names = st.text(min_size=1, max_size=20).filter(lambda name: len(name.encode()) < 256)
values = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | st.text(max_size=40)
messages = st.tuples(st.dictionaries(names, values, max_size=5), st.binary(max_size=300))


def cut(data, *cuts):
    """Fed in pieces that end at `cuts`."""
    cutter, found = MessageCutter(), []
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in pairwise(edges):
        found += cutter.feed(data[start:end])
    assert not cutter.holds_data
    return found


def by_hand(headers: bytes, payload: bytes = b"") -> bytes:
    lengths = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack("!I", crc32(lengths)) + headers + payload
    return message + struct.pack("!I", crc32(message))


@given(st.lists(messages, max_size=4), st.lists(st.integers(0, 1500), max_size=12))
def test_messages_come_out_as_they_went_in_wherever_the_stream_is_cut(sent, cuts):
    stream = b"".join(encode(headers, payload) for headers, payload in sent)
    assert cut(stream, *cuts) == [Message(headers, payload) for headers, payload in sent]


@given(messages)
def test_a_message_in_single_bytes_is_the_same_message(message):
    data = encode(*message)
    assert cut(data, *range(len(data))) == [Message(*message)]


@given(st.lists(messages, max_size=4))
def test_botocore_reads_what_we_write(sent):
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(encode(headers, payload) for headers, payload in sent))
    assert [(event.headers, event.payload) for event in buffer] == sent


def test_every_type_of_header_is_read_as_botocore_reads_it():
    headers = (
        b"\1a\0" + b"\1b\1" + b"\1c\2\xfe" + b"\1d\3\xff\x00" + b"\1e\4\x80\0\0\0" + b"\1f\5" + b"\x7f" * 8
        + b"\1g\6\0\3\0\1\2" + b"\1h\7\0\2\xc3\xa9" + b"\1i\x08\0\0\1\x92\0\0\0\0" + b"\1j\x09" + bytes(range(16))
    )  # fmt: skip
    data = by_hand(headers, b"{}")
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    [expected], [message] = list(buffer), cut(data)
    assert message.headers == expected.headers
    assert message.headers["a"] is True and message.headers["h"] == "é" and len(message.headers) == 10


@given(messages, st.data())
def test_no_flipped_bit_goes_unnoticed(message, data):
    stream = bytearray(encode(*message))
    bit = data.draw(st.integers(0, len(stream) * 8 - 1))
    stream[bit // 8] ^= 1 << bit % 8
    with pytest.raises(UpstreamError) as failed:
        cut(bytes(stream))
    assert failed.value.kind is FailureKind.BAD_PAYLOAD


@given(st.binary(max_size=200))
@example(by_hand(b"\1a\7\0\xff"))  # a value beyond the headers
@example(by_hand(b"\xffa"))  # a name beyond them
@example(by_hand(b"\1a\x0a"))  # a type that does not exist
@example(by_hand(b"\1a\7\0\1\xff"))  # not UTF-8
@example(by_hand(b"\1a\0\1a\1"))  # the same name twice
@example(by_hand(b"\1a\x05\0", b"1234567890"))  # a number that reaches into the payload
def test_noise_is_a_bad_payload_or_the_beginning_of_a_message_and_nothing_else(noise):
    cutter = MessageCutter()
    if len(noise) < 12:
        assert cutter.feed(noise) == []
        assert cutter.holds_data == bool(noise)
    else:
        with pytest.raises(UpstreamError, match=f"^{FailureKind.BAD_PAYLOAD}: "):
            cutter.feed(noise)


@pytest.mark.parametrize(
    ("total", "headers"),
    [(15, 0), (20, 5), (2**32 - 1, 0), (MAX_PAYLOAD_BYTES + 17, 0), (2**20, MAX_HEADERS_BYTES + 1)],
)
def test_impossible_lengths_are_refused_at_the_prelude(total, headers):
    lengths = struct.pack("!II", total, headers)
    with pytest.raises(UpstreamError, match="bytes"):
        MessageCutter().feed(lengths + struct.pack("!I", crc32(lengths)))


def test_a_stream_that_stops_inside_a_message_is_seen():
    cutter = MessageCutter()
    data = encode({":event-type": "chunk"}, b"{}")
    assert cutter.feed(data + data[:-1]) == [Message({":event-type": "chunk"}, b"{}")]
    assert cutter.holds_data


def test_a_message_says_what_it_is():
    assert Message({":message-type": "event", ":event-type": "chunk"}, b"").name == "chunk"
    exception = Message({":message-type": "exception", ":exception-type": "throttlingException"}, b"")
    assert (exception.kind, exception.name) == ("exception", "throttlingException")
    assert Message({":message-type": "error", ":error-code": "InternalFailure"}, b"").name == "InternalFailure"
    assert (Message({}, b"").kind, Message({}, b"").name) == ("event", "")


def test_what_a_reader_would_refuse_is_not_written():
    for headers, payload in (
        ({"": 1}, b""),
        ({"n" * 256: 1}, b""),
        ({"n": "v" * 70_000}, b""),
        ({str(n): b"v" * 60_000 for n in range(3)}, b""),
        ({}, bytes(MAX_PAYLOAD_BYTES + 1)),
    ):
        with pytest.raises(ValueError, match=r"header|message"):
            encode(headers, payload)
