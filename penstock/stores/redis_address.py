"""Where a Redis is, and who one is there."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec


class Address(msgspec.Struct, frozen=True):
    host: str
    port: int
    path: str | None  # a Unix socket instead
    tls: bool
    user: str
    password: str
    database: int


def parse_url(url: str) -> Address:
    """`redis://[user[:password]@]host[:port][/database]`, `rediss://` for TLS, `unix:///path`. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"a Redis address begins with redis://, rediss:// or unix://, not {parts.scheme!r}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        return Address("", 0, unquote(parts.path), False, user, password, 0)
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        raise ValueError(f"after the host of a Redis address comes the number of a database, not {database!r}")
    return Address(
        parts.hostname or "localhost", parts.port or 6379, None, parts.scheme == "rediss", user, password,
        int(database or 0),
    )  # fmt: skip
