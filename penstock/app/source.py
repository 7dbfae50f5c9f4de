"""Where the configuration comes from: a file and the keys file it names, or a text. Notices when a file has changed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from penstock.app.errors import StartError
from penstock.config.compile import embedded
from penstock.config.load import load
from penstock.config.schema import Config

Stamp = tuple[int, int, int] | None  # inode, size and time of the last change; None: there is no such file


class ConfigSource:
    """Reads the configuration, again and again. `name` is how messages call it."""

    def __init__(self, *, path: str | None, text: str | None, engine_replicas: int | None) -> None:
        assert (path is None) != (text is None), "one or the other"
        self.name = path if path is not None else "(command line)"
        self._path = None if path is None else Path(path)
        self._text = text
        self._engine_replicas = engine_replicas
        self._stamps: dict[Path, Stamp] = {}
        self.text = text or ""  # as it was last read

    @property
    def is_file(self) -> bool:
        return self._path is not None

    def read(self) -> Config:
        """Raises `ConfigError` for what is in it, `StartError` when it cannot be read."""
        self._stamps = {}
        text = self._text if self._path is None else self._read_file(self._path)
        assert text is not None
        config = load(text, self.name, self._read_named)
        self.text = text
        if self._engine_replicas is None:
            return config
        changed = {
            name: msgspec.structs.replace(deployment, replicas=self._engine_replicas)
            for name, deployment in embedded(config).items()
        }
        return msgspec.structs.replace(config, deployments=config.deployments | changed)

    def changed(self) -> bool:
        """Whether a file is not as it was when it was last read."""
        return self.stamps() != self._stamps

    def stamps(self) -> dict[Path, Stamp]:
        """What tells whether the files that were last read change, as they are now."""
        return {path: _stamp(path) for path in list(self._stamps)}

    def _read_file(self, path: Path) -> str:
        self._stamps[path] = _stamp(path)  # before reading: a change in between is then seen as one
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise StartError(
                f"There is no {path}. `penstock init` writes one to begin with; `penstock serve tiny` needs none."
            ) from None
        except OSError as error:
            raise StartError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise StartError(f"{path} is not UTF-8 text") from None

    def beside(self, name: str) -> Path:
        """A file that the configuration names, relative to where that is."""
        return (self._path.parent if self._path is not None else Path()) / name

    def _read_named(self, name: str) -> str:
        path = self.beside(name)
        self._stamps[path] = _stamp(path)
        return path.read_text(encoding="utf-8")


def _stamp(path: Path) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
