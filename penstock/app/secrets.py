"""Reads the secrets that references name: `env:NAME`, `file:/path`. Says which one is missing, never what one is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from penstock.config.secrets import EnvReference, parse

MAX_BYTES: Final = 64 * 1024


class Secrets:
    """Values are read anew at every call, so that a reload sees a rotated file."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def read(self, reference: str) -> str:
        """The secret without white space around it. Raises `LookupError` with a sentence that says what to do."""
        try:
            where = parse(reference)
        except ValueError as error:
            raise LookupError(str(error)) from None
        if isinstance(where, EnvReference):
            value = self._environ.get(where.name, "").strip()
            if not value:
                raise LookupError(
                    f"the environment variable {where.name} is not set. Set it where Penstock is started: "
                    f"export {where.name}=..."
                )
            return value
        return _from_file(where.path)


def _from_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LookupError(
            f"{path} cannot be read: {error.strerror}. Put the secret there, or change the path."
        ) from None
    if len(data) > MAX_BYTES:
        raise LookupError(f"{path} is larger than {MAX_BYTES:,} bytes: it cannot be a secret")
    try:
        value = data.decode().strip()
    except UnicodeDecodeError:
        raise LookupError(f"{path} is not text: it cannot be a secret") from None
    if not value:
        raise LookupError(f"{path} is empty. Put the secret there, or change the path.")
    return value
