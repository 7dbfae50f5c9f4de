"""Reading the file and noticing that it changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.app.errors import StartError
from penstock.app.source import ConfigSource
from penstock.config.load import ConfigError

TEXT = "models: { chat: { deployments: [a] } }\ndeployments: { a: { model: tiny, replicas: 2 } }\n"
KEY = "- { id: web, sha256: " + "ab" * 32 + " }\n"


def source(path: Path, **more: int) -> ConfigSource:
    return ConfigSource(path=str(path), text=None, engine_replicas=more.get("engine_replicas"))


def test_a_change_of_the_file_or_of_its_keys_file_is_noticed(tmp_path: Path):
    path, keys = tmp_path / "penstock.yaml", tmp_path / "keys.yaml"
    path.write_text(TEXT + "keys: { file: keys.yaml }\n")
    keys.write_text(KEY)
    one = source(path)
    assert len(one.read().keys) == 1  # type: ignore[arg-type]  # `load` puts the keys there
    assert not one.changed()
    keys.write_text(KEY + KEY.replace("web", "app").replace("ab", "cd"))
    assert one.changed()
    assert len(one.read().keys) == 2  # type: ignore[arg-type]
    assert not one.changed()
    path.unlink()
    assert one.changed()


def test_a_bad_file_is_not_told_again_until_it_changes_again(tmp_path: Path):
    path = tmp_path / "penstock.yaml"
    path.write_text("models: 1")
    one = source(path)
    with pytest.raises(ConfigError):
        one.read()
    assert not one.changed()


def test_a_file_replaced_by_another_of_the_same_size_and_time_is_noticed(tmp_path: Path):
    path, other = tmp_path / "penstock.yaml", tmp_path / "other"
    path.write_text(TEXT)
    one = source(path)
    one.read()
    other.write_text(TEXT.replace("chat", "chit"))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    assert one.changed()


def test_the_command_line_goes_before_the_file(tmp_path: Path):
    path = tmp_path / "penstock.yaml"
    path.write_text(TEXT)
    assert source(path).read().deployments["a"].replicas == 2
    assert source(path, engine_replicas=5).read().deployments["a"].replicas == 5


def test_a_file_that_cannot_be_read_is_told_in_words(tmp_path: Path):
    with pytest.raises(StartError, match=r"There is no .*penstock\.yaml\. `penstock init` writes one"):
        source(tmp_path / "penstock.yaml").read()
    with pytest.raises(StartError, match="cannot be read: Is a directory"):
        source(tmp_path).read()
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(StartError, match="is not UTF-8 text"):
        source(tmp_path / "latin").read()


def test_a_text_never_changes():
    one = ConfigSource(path=None, text=TEXT, engine_replicas=None)
    one.read()
    assert not one.changed()
