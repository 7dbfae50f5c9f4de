"""An answer of the scripted upstream, before it is HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec


class Reply(msgspec.Struct, frozen=True):
    """`events`: a stream, each piece sent on its own."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    events: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = {}
    broken_off: bool = False  # the connection is cut after the last event


class Refused(Exception):
    """The provider will not take this request."""

    def __init__(self, message: str, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


class Query(msgspec.Struct, frozen=True):
    """A request, read. `fields`: the JSON object, or the form."""

    method: str
    path: str  # without /v1
    parameters: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    fields: dict[str, Any]


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), headers=headers or {})


def stream(*events: bytes, broken_off: bool = False) -> Reply:
    return Reply(content_type="text/event-stream", events=events, broken_off=broken_off)


def event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One server-sent event, with a `event:` line where the dialect has them."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + json.dumps(data).encode() + b"\n\n"


def missing(fields: Mapping[str, Any], *names: str) -> None:
    """Raises `Refused` for the first that is not there."""
    for name in names:
        if fields.get(name) is None:
            raise Refused(f"{name}: Field required", param=name)
