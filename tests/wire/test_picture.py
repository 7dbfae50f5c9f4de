"""Sizes as a real decoder sees them, and nothing for what is broken."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from penstock.wire.picture import Picture, picture_of


def encoded(format: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 3).save(out, format, **options)
    return out.getvalue()


ENCODINGS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("GIF", {"mode": "P"}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True, "exif": b"Exif\x00\x00" + bytes(300)}),
    ("JPEG", {"mode": "L", "comment": b"\xff\xc0 in a comment"}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"mode": "RGBA", "exif": b"Exif\x00\x00"}),
]


@pytest.mark.parametrize(("format", "options"), ENCODINGS)
@pytest.mark.parametrize("size", [(1, 1), (3, 1000), (1025, 7)])
def test_type_and_size_are_those_a_decoder_finds(format, options, size):
    data = encoded(format, size, **options)
    assert picture_of(data) == Picture(f"image/{format.lower()}", *size)
    assert Image.open(io.BytesIO(data)).size == size


def test_an_animated_gif_is_as_large_as_its_screen_and_its_first_frame():
    frames = [Image.new("P", (20, 10), n) for n in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], comment=b"x" * 400)
    assert picture_of(out.getvalue()) == Picture("image/gif", 20, 10)
    small_screen = out.getvalue()[:6] + bytes([1, 0, 1, 0]) + out.getvalue()[10:]
    assert picture_of(small_screen) == Picture("image/gif", 20, 10)


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"%PDF-1.7", b"RIFF1234WAVE", b"\x00" * 64, b"BM" + bytes(60)])
def test_what_is_none_of_the_four_formats_is_none(data):
    assert picture_of(data) is None


@given(st.sampled_from([encoded(format, (9, 9), **options) for format, options in ENCODINGS]), st.data())
def test_a_picture_cut_short_has_its_size_or_none_and_never_another(data, draw):
    whole = picture_of(data)
    assert picture_of(data[: draw.draw(st.integers(0, len(data)))]) in (whole, None)


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF0000WEBPVP8 "]), st.binary(max_size=80))
@example(b"\xff\xd8\xff", b"\xe0\x00\x00" * 20)
@example(b"\xff\xd8\xff", b"\xff" * 60)
def test_any_bytes_have_a_positive_size_or_none(beginning, rest):
    picture = picture_of(beginning + rest)
    assert picture is None or (picture.width > 0 and picture.height > 0)
