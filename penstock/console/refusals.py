"""Why a request is not done, in one shape: `{"error": {"code", "message", "faults": [{"at", "message"}]}}`."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.control.tenants import Changed, Declared, Exists, Fault, Invalid, NotThere, Refused
from penstock.stores.base import StoreFailed, StoreRefused

HEADERS: Final = (
    b"cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: same-origin\r\n"
    b"content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n"
)
"""Of every answer that is data."""


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """`faults` say what is wrong where in what was sent."""

    code: str
    message: str
    faults: tuple[Fault, ...] = ()


class ErrorBody(msgspec.Struct, frozen=True):
    error: Error


class Denied(Exception):
    """`wait` is seconds, for `retry-after`."""

    def __init__(
        self, status: int, code: str, message: str, wait: int | None = None, faults: tuple[Fault, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.wait, self.faults = status, code, message, wait, faults

    def body(self) -> bytes:
        return msgspec.json.encode(ErrorBody(Error(self.code, self.message, self.faults)))


_STATUS: Final = {
    NotThere: (404, "not_found"),
    Exists: (409, "exists"),
    Declared: (409, "declared_in_file"),
    Changed: (412, "changed_meanwhile"),
    Invalid: (400, "invalid"),
}


def denied(error: Refused | StoreFailed) -> Denied:
    if isinstance(error, StoreRefused):
        return Denied(400, "invalid", "something in it cannot be stored")
    if isinstance(error, StoreFailed):
        return Denied(503, "store_away", "the database cannot be asked at the moment", 1)
    status, code = _STATUS[type(error)]
    return Denied(status, code, error.message, faults=error.faults if isinstance(error, Invalid) else ())


def body(status: int, message: str) -> bytes:
    """For what never reaches a route: a malformed or too large request, a crash."""
    return Denied(status, "server_error" if status >= 500 else "malformed", message).body()
