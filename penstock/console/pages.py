"""The console's own files: a page, its styles and its modules, as they lie in `static`. They hold nothing of anybody's,
so nobody has to be let in to read them; what they show, they ask `/console/api` for.

All files are read once and found by their whole names: there is no path that could lead elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import msgspec

from penstock.console.refusals import Denied
from penstock.http.server import Exchange

ROOT: Final = b"/console"
STATIC: Final = b"/console/static/"
API: Final = b"/console/api/"
TYPES: Final = {
    "css": b"text/css; charset=utf-8",
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS: Final = (
    b"content-security-policy: " + POLICY + b"\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"referrer-policy: same-origin\r\n"
    b"cross-origin-opener-policy: same-origin\r\n"
    b"cache-control: no-cache\r\n"  # kept, and asked about each time: a new version is there with the next look
    b"vary: accept-encoding\r\n"
)


class File(msgspec.Struct, frozen=True):
    body: bytes
    packed: bytes  # by gzip
    content_type: bytes
    etag: bytes


class Pages:
    """`answer` what `answers` says yes to. Views are told apart in the browser: every address of one has the page."""

    def __init__(self) -> None:
        self._files = dict(_read(files("penstock.console").joinpath("static"), ""))
        self._page = self._files["index.html"]

    def answers(self, path: bytes) -> bool:
        return path == ROOT or (path.startswith(ROOT + b"/") and not path.startswith(API))

    def answer(self, exchange: Exchange) -> None:
        file = self._file(exchange.path)
        if file is None:
            return _refuse(exchange, Denied(404, "not_found", "there is no such file"))
        if exchange.method not in (b"GET", b"HEAD"):
            return _refuse(exchange, Denied(405, "method_not_allowed", "this path takes GET"))
        lines = b"%betag: %b\r\n" % (_HEADERS, file.etag)
        if file.etag in [one.strip() for one in (exchange.header(b"if-none-match") or b"").split(b",")]:
            return exchange.respond(304, b"", lines, file.content_type)
        if b"gzip" in (exchange.header(b"accept-encoding") or b""):
            return exchange.respond(200, file.packed, lines + b"content-encoding: gzip\r\n", file.content_type)
        return exchange.respond(200, file.body, lines, file.content_type)

    def _file(self, path: bytes) -> File | None:
        if not path.startswith(STATIC):
            return self._page
        return self._files.get(path.removeprefix(STATIC).decode("latin-1"))

    @property
    def size(self) -> int:
        """Bytes that a browser fetches for the whole console."""
        return sum(len(file.packed) for file in self._files.values())


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, File]]:
    """Those that a browser may ask for: not the notes beside them."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif content_type := TYPES.get(entry.name.rpartition(".")[2]):
            body = entry.read_bytes()
            etag = b'W/"%b"' % hashlib.sha256(body).hexdigest()[:20].encode()  # weak: the same, packed or not
            yield prefix + entry.name, File(body, gzip.compress(body, 9, mtime=0), content_type, etag)


def _refuse(exchange: Exchange, denied: Denied) -> None:
    exchange.respond(denied.status, denied.body(), _HEADERS)
