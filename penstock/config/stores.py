"""Where things are kept: what an address of a store may be. Passwords are not in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from penstock.config.schema import Store
from penstock.config.secrets import REFERENCE_PATTERN

_DATABASES: Final = ("postgres", "postgresql", "sqlite")
_COUNTERS: Final = ("redis", "rediss", "unix")


def check(store: Store) -> Iterator[tuple[tuple[str, ...], str]]:
    """Never with the address, which may have a password in it."""
    if (
        store.database is not None
        and not is_reference(store.database)
        and (wrong := _wrong(store.database, _DATABASES, "postgres://user@host/name, or the path of a SQLite file"))
    ):
        yield ("store", "database"), wrong
    if store.counters is not None and not is_reference(store.counters):
        says = "redis://host:6379, rediss:// or unix:///path"
        wrong = f"must be {says}" if "://" not in store.counters else _wrong(store.counters, _COUNTERS, says)
        if wrong is not None:
            yield ("store", "counters"), wrong


def is_reference(text: str) -> bool:
    """Whether it says where the address is, instead of what it is."""
    return re.search(REFERENCE_PATTERN, text) is not None


def _wrong(text: str, schemes: tuple[str, ...], says: str) -> str | None:
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        return f"must be {says}"
    if "://" in text and parts.scheme not in schemes:
        return f"must be {says}"
    if password is not None:
        return "must not have a password in it: write env:NAME or file:/path, and put the whole address there"
    return None
