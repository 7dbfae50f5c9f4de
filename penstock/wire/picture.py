"""What a picture's first bytes say: which of four formats it is, and how large it becomes when it is decoded.

A few kilobytes can be a picture of gigabytes, so nobody should decode one whose size was not looked at. Nothing is
decoded here. Sources: PNG 3rd edition 11.2.1, GIF89a, ITU-T T.81 B.2.2 (JPEG frame header), RFC 9649 (WebP).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

MediaType = Literal["image/png", "image/jpeg", "image/webp", "image/gif"]

# Start of frame, with every kind of coding. C4, C8 and CC are among them in number only.
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE: Final = frozenset(range(0xD0, 0xD8)) | {0x01}  # markers without a length


class Picture(msgspec.Struct, frozen=True, gc=False):
    """Width and height in pixels."""

    media_type: MediaType
    width: int
    height: int


def picture_of(data: bytes) -> Picture | None:
    """By its own bytes, whatever anybody calls it. None: none of the four, or its size cannot be told."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        size = _png(data)
        return Picture("image/png", *size) if size else None
    if data.startswith(b"\xff\xd8\xff"):
        size = _jpeg(data)
        return Picture("image/jpeg", *size) if size else None
    if data[:6] in (b"GIF87a", b"GIF89a"):
        size = _gif(data)
        return Picture("image/gif", *size) if size else None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = _webp(data)
        return Picture("image/webp", *size) if size else None
    return None


def _png(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return _positive(int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may come before a marker
            at += 1
        elif marker in _JPEG_ALONE:
            at += 2
        elif marker in _JPEG_FRAMES:
            return _positive(int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7]))
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
    return None


def _gif(data: bytes) -> tuple[int, int] | None:
    """The screen, or the first frame where that is larger."""
    if len(data) < 13:
        return None
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while at + 10 <= len(data) and data[at] == 0x21:  # extensions: two bytes, then blocks up to an empty one
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    if at + 10 > len(data) or data[at] != 0x2C:
        return None
    left, top, wide, high = (int.from_bytes(data[at + n : at + n + 2], "little") for n in (1, 3, 5, 7))
    return _positive(max(width, left + wide), max(height, top + high))


def _webp(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if len(data) < 30:
        return None
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
        return _positive(width & 0x3FFF, height & 0x3FFF)
    return None


def _positive(width: int, height: int) -> tuple[int, int] | None:
    return (width, height) if width and height else None
