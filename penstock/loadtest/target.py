"""Who is loaded: an address, keys, and how a chat request to it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from penstock.http.client import Call, Receiver
from penstock.loadtest.prompts import Message


class Transport(Protocol):
    """`http.client.Pool`, or what a test has in its place."""

    host: bytes

    def send(self, prefix: bytes, extra: bytes, body: bytes, receiver: Receiver) -> Call: ...


class Address(msgspec.Struct, frozen=True):
    origin: str  # http://host:port
    path: str  # of the chat completions


def address(url: str) -> Address:
    """`url` may end in /v1, in the path of the chat completions, or in neither. Raises `ValueError`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or " " in url:
        raise ValueError(f"{url!r} is not the address of a server; expected something like http://127.0.0.1:8080")
    base = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
    return Address(f"{parts.scheme}://{parts.netloc}", f"{base}/v1/chat/completions")


class Target:
    """Sends chats. `extra` goes into every body; a tenant without a key of its own has `key`."""

    def __init__(
        self,
        transport: Transport,
        path: str,
        model: str,
        *,
        key: str | None = None,
        tenant_keys: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        exact: bool = False,
    ) -> None:
        self.model = model
        self._transport = transport
        self._prefix = (
            f"POST {path} HTTP/1.1\r\nhost: {transport.host.decode()}\r\nuser-agent: penstock-load\r\n"
            "content-type: application/json\r\naccept: text/event-stream\r\n"
        ).encode("ascii")
        self._key = key
        self._tenant_keys = dict(tenant_keys or {})
        self._extra = dict(extra or {})
        self._exact = exact

    def body(self, messages: list[Message], max_tokens: int, model: str = "") -> bytes:
        exact = {"ignore_eos": True} if self._exact else {}
        return msgspec.json.encode(
            {
                "model": model or self.model,
                "messages": messages,
                "max_tokens": max_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
                **exact,
                **self._extra,
            }
        )

    def send(self, body: bytes, receiver: Receiver, tenant: str = "", session: str = "") -> Call:
        extra = ""
        key = self._tenant_keys.get(tenant, self._key)
        if key:
            extra += f"authorization: Bearer {key}\r\n"
        if session:
            extra += f"x-penstock-session: {session}\r\n"
        return self._transport.send(self._prefix, extra.encode("ascii"), body, receiver)
