"""What a server is told: on its command line, before any file is read, and where its books are."""

from __future__ import annotations

import msgspec


class BooksOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the books are kept. `database` is a SQLite file, a `postgres://` address or a reference to one; "": what
    was used and what it cost is forgotten when the process ends. `spool` is the directory of rows that the database has
    not got yet. `counters` is the address of a Redis, or a reference to one; "": this host counts alone.
    """

    database: str = ""
    spool: str = ""
    counters: str = ""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of `config_path`, `config_text` and `targets` says what to serve.

    `host` and `port` go before what the file says; port 0 lets the system choose. `engine_replicas` goes before the
    `replicas` of every deployment of the embedded engine. When requests can be served, one line of JSON,
    `{"port":..., "pid":...}`, is written to `announce_fd`, if given, and it is closed.
    """

    config_path: str | None = None
    config_text: str | None = None
    targets: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    workers: int = 1
    insecure_dev: bool = False
    engine_replicas: int | None = None
    announce_fd: int | None = None
