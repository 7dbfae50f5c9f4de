"""AWS event-stream framing (`application/vnd.amazon.eventstream`): a byte stream cut into messages, wherever the
network cut it, and messages as bytes.

Source: Smithy, "Amazon Event Stream Specification". A message is two big-endian lengths (whole, headers), the CRC-32 of
those eight bytes, the headers, the payload, and the CRC-32 of everything before it.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Mapping
from struct import Struct, error
from typing import Final

import msgspec

from penstock.core.errors import FailureKind, UpstreamError

MAX_HEADERS_BYTES: Final = 128 * 1024  # the specification's limits
MAX_PAYLOAD_BYTES: Final = 24 * 1024 * 1024
_PRELUDE: Final = Struct("!III")
_CRC: Final = Struct("!I")
_LENGTH: Final = Struct("!H")
_LEAST: Final = _PRELUDE.size + _CRC.size

HeaderValue = bool | int | bytes | str
"""Timestamps are milliseconds since the Unix epoch, UUIDs their 16 bytes."""


class Message(msgspec.Struct, frozen=True, gc=False):
    headers: dict[str, HeaderValue]
    payload: bytes

    @property
    def kind(self) -> str:
        """`event`, `exception`, or `error`, which has no payload but says all in its headers."""
        return str(self.headers.get(":message-type", "event"))

    @property
    def name(self) -> str:
        """What the event or the exception is."""
        headers = self.headers
        name = headers.get(":event-type") or headers.get(":exception-type") or headers.get(":error-code")
        return str(name or "")


class EventType(msgspec.Struct, gc=False):
    """What Anthropic's events say of themselves, inside a frame of Bedrock's."""

    type: str = ""


class MessageCutter:
    """Feed it reads; it answers with the messages that are whole."""

    __slots__ = ("_held", "_needed")

    def __init__(self) -> None:
        self._held = bytearray()
        self._needed = 0  # bytes of the message that has begun; 0: its prelude is not here yet

    def feed(self, data: bytes) -> list[Message]:
        """Raises `UpstreamError` (bad payload) for a wrong checksum, and for lengths beyond the limits as soon as the
        prelude is here: a length that is noise must not make us wait for gigabytes."""
        held = self._held
        held += data
        messages: list[Message] = []
        start = 0
        while len(held) - start >= _PRELUDE.size:
            if not self._needed:
                self._needed = _checked_length(held, start)
            end = start + self._needed
            if len(held) < end:
                break
            messages.append(_message(bytes(memoryview(held)[start:end])))
            start, self._needed = end, 0
        del held[:start]
        return messages

    @property
    def holds_data(self) -> bool:
        """The stream stopped inside a message."""
        return bool(self._held)


def _checked_length(held: bytearray, start: int) -> int:
    total, of_headers, checksum = _PRELUDE.unpack_from(held, start)
    if crc32(memoryview(held)[start : start + 8]) != checksum:
        raise _bad("the prelude's checksum is wrong")
    if of_headers > MAX_HEADERS_BYTES:
        raise _bad(f"{of_headers} bytes of headers")
    if not 0 <= total - of_headers - _LEAST <= MAX_PAYLOAD_BYTES:
        raise _bad(f"a message of {total} bytes with {of_headers} of headers")
    return int(total)


def _message(data: bytes) -> Message:
    if crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise _bad("a message's checksum is wrong")
    body = _PRELUDE.size + _PRELUDE.unpack_from(data)[1]
    try:
        headers = _headers(data, _PRELUDE.size, body)
    except (error, IndexError, UnicodeDecodeError):
        raise _bad("headers that are cut short or not UTF-8") from None
    return Message(headers, data[body : -_CRC.size])


_NUMBERS: Final = {2: Struct("!b"), 3: Struct("!h"), 4: Struct("!i"), 5: Struct("!q"), 8: Struct("!q")}
_BYTES, _STRING, _UUID = 6, 7, 9


def _headers(data: bytes, at: int, end: int) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    while at < end:
        after = at + 1 + data[at]
        name, kind = data[at + 1 : after].decode(), data[after]
        at = after + 1
        value: HeaderValue
        if kind in (_STRING, _BYTES):
            start = at + _LENGTH.size
            at = start + _LENGTH.unpack_from(data, at)[0]
            value = data[start:at] if kind == _BYTES else data[start:at].decode()
        elif kind in (0, 1):
            value = kind == 0
        elif kind in _NUMBERS:
            value = _NUMBERS[kind].unpack_from(data, at)[0]
            at += _NUMBERS[kind].size
        elif kind == _UUID:
            value = data[at : at + 16]
            at += 16
        else:
            raise _bad(f"a header of type {kind}, which does not exist")
        if at > end or name in headers:
            raise _bad(f"header {name[:40]!r} is longer than its message" if at > end else f"two headers {name[:40]!r}")
        headers[name] = value
    return headers


def encode(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """One message. Integers go out as 64-bit ones. Raises ValueError beyond the limits that a reader keeps."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    if len(encoded) > MAX_HEADERS_BYTES or len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"{len(encoded)} bytes of headers and {len(payload)} of payload: too much for one message")
    total = _LEAST + len(encoded) + len(payload)
    lengths = total.to_bytes(4, "big") + len(encoded).to_bytes(4, "big")
    message = b"%b%b%b%b" % (lengths, _CRC.pack(crc32(lengths)), encoded, payload)
    return message + _CRC.pack(crc32(message))


def _header(name: str, value: HeaderValue) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) < 256:
        raise ValueError(f"a header's name has 1 to 255 bytes, {name[:40]!r} has {len(encoded)}")
    start = bytes([len(encoded)]) + encoded
    match value:
        case bool():
            return start + (b"\0" if value else b"\1")
        case int():
            return start + b"\5" + _NUMBERS[5].pack(value)
        case _:
            kind, data = (b"\6", value) if isinstance(value, bytes) else (b"\7", value.encode())
            if len(data) > 0xFFFF:
                raise ValueError(f"header {name[:40]!r} has {len(data)} bytes; 65,535 is the most")
            return start + kind + _LENGTH.pack(len(data)) + data


def _bad(detail: str) -> UpstreamError:
    return UpstreamError(FailureKind.BAD_PAYLOAD, f"event stream: {detail}")
