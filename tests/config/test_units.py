"""Durations and sizes with their units, addresses, and references to secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import addresses, secrets
from penstock.config.units import n_bytes, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", 30.0), ("500ms", 0.5), ("10m", 600.0), ("1.5h", 5400.0), ("0s", 0.0), ("30d", 2_592_000.0)],
)
def test_a_duration_is_read_in_its_unit(text: str, value: float):
    assert seconds(text) == value


@pytest.mark.parametrize(("text", "value"), [("32MiB", 33554432), ("1KB", 1000), ("1.5KiB", 1536), ("7B", 7)])
def test_a_size_is_read_in_its_unit(text: str, value: int):
    assert n_bytes(text) == value


@pytest.mark.parametrize("text", ["30", "s", "", "-1s", "1 s", "1e3s", "30s\n", "inf", "30 sec"])
def test_a_duration_without_a_unit_that_is_known_is_refused(text: str):
    with pytest.raises(ValueError, match="unit"):
        seconds(text)


@given(st.text(max_size=30))
def test_any_other_text_is_a_value_error(text: str):
    refused = 0
    for read in (seconds, n_bytes, addresses.parse, secrets.parse):
        try:
            read(text)
        except ValueError:
            refused += 1
    assert refused >= 3, "no text is two of these at once"


@pytest.mark.parametrize(
    ("text", "origin", "base_path"),
    [
        ("http://127.0.0.1:8001/v1", "http://127.0.0.1:8001", "/v1"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001", "/v1"),
        ("https://API.example.com/openai/v1/", "https://api.example.com", "/openai/v1"),
        ("http://[::1]:80/v1", "http://[::1]:80", "/v1"),
        ("unix:/run/vllm.sock", "unix:/run/vllm.sock", "/v1"),
    ],
)
def test_an_address_is_an_origin_and_a_path(text: str, origin: str, base_path: str):
    assert addresses.parse(text) == addresses.Address(origin, base_path)


@pytest.mark.parametrize(
    "text",
    ["", "localhost:1", "ftp://a", "http://", "http://a b", "http://a\r\nx", "http://u:p@a", "http://a?x=1", "http://a#f",
     "http://a:0", "http://a:99999", "http://a:x", "unix:relative", "http://a/ü", "http://-a", "http://a/b\\c"],
)  # fmt: skip
def test_an_address_that_could_be_read_in_two_ways_is_refused(text: str):
    with pytest.raises(ValueError, match=r"must|path"):
        addresses.parse(text)


def test_a_reference_names_a_variable_or_a_file():
    assert secrets.parse("env:OPENAI_API_KEY") == secrets.EnvReference("OPENAI_API_KEY")
    assert secrets.parse("file:/run/secrets/x") == secrets.FileReference("/run/secrets/x")
