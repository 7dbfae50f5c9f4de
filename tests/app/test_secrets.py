"""Secrets are read where references point, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.app.secrets import MAX_BYTES, Secrets


def test_a_secret_comes_from_the_variable_or_the_file_that_is_named(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("sk-canary-from-file\n")
    secrets = Secrets({"THE_KEY": " sk-canary-from-env "})
    assert secrets.read("env:THE_KEY") == "sk-canary-from-env"
    assert secrets.read(f"file:{file}") == "sk-canary-from-file"
    file.write_text("sk-canary-rotated\n")
    assert secrets.read(f"file:{file}") == "sk-canary-rotated"


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe", b"x" * (MAX_BYTES + 1)])
def test_a_file_that_holds_no_secret_is_told_without_what_it_holds(tmp_path: Path, content: bytes):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(LookupError) as caught:
        Secrets({}).read(f"file:{file}")
    assert str(file) in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_what_is_missing_is_told_with_what_to_do(tmp_path: Path):
    with pytest.raises(LookupError, match="environment variable THE_KEY is not set"):
        Secrets({"THE_KEY": ""}).read("env:THE_KEY")
    with pytest.raises(LookupError, match="cannot be read: No such file"):
        Secrets({}).read(f"file:{tmp_path}/none")


def test_a_secret_in_the_place_of_a_reference_is_not_repeated():
    with pytest.raises(LookupError) as caught:
        Secrets({}).read("sk-verysecret")
    assert "verysecret" not in str(caught.value)
