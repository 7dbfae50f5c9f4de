"""A caller without any client library: one request over one connection, and everything that came back."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from penstock.core.clock import Clock
from penstock.testing.faults.told import READERS, Events, Told

_LIMIT: Final = 16 * 1024 * 1024  # a line may be this long


class Gateway(msgspec.Struct, frozen=True):
    """What is scored. `url` without `/v1`; The `deadline_headers` take seconds."""

    url: str
    key: str
    deadline_headers: tuple[str, ...] = ("x-request-timeout",)


class Ask(msgspec.Struct, frozen=True):
    """What the caller does. Times in seconds."""

    dialect: str
    stream: bool
    model: str
    fields: dict[str, Any] = {}  # more of the body, in OpenAI's words where both dialects have it
    body: bytes | None = None  # instead of a right one
    key: str | None = None  # instead of the right one; "" sends none
    deadline: float | None = None
    leave_after_text: bool = False  # hang up at the first token
    leave_after: float | None = None
    read_after: float = 0.0  # begin to read so late
    patience: float = 15.0


async def ask(gateway: Gateway, what: Ask, clock: Clock) -> Told:
    """Never raises for what the gateway does: it is in the answer."""
    told = Told(asked_at=clock.now())
    try:
        async with asyncio.timeout(min(what.patience, what.leave_after or what.patience)):
            await _converse(gateway, what, told, clock)
    except TimeoutError:
        told.late = what.leave_after is None
    except (OSError, asyncio.IncompleteReadError, ValueError):
        told.cut = True
    told.ended_at = clock.now()
    return told


async def _converse(gateway: Gateway, what: Ask, told: Told, clock: Clock) -> None:
    parts = urlsplit(gateway.url)
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        parts.port or (443 if secure else 80),
        ssl=ssl.create_default_context() if secure else None,
        limit=_LIMIT if not what.read_after else 64 * 1024,
    )
    try:
        writer.write(_request(gateway, what, parts.netloc, parts.path.rstrip("/")))
        if what.read_after:
            await asyncio.sleep(what.read_after)  # the reader stops taking from the socket at twice its limit
        head = await _head(reader, told)
        listen = READERS[what.dialect](told)
        if told.status == 200 and (told.header("content-type") or "").startswith("text/event-stream"):
            events = Events()
            async for data in _body(reader, head, told):
                now = clock.now()
                for name, payload in events.feed(data):
                    listen.event(name, payload, now)
                if what.leave_after_text and told.first_text_at is not None:
                    return
            listen.end()
        else:
            async for _ in _body(reader, head, told):
                pass
            if what.stream and told.status == 200:
                told.complain("a plain answer to who asked for a stream")
            listen.body(bytes(told.body))
    finally:
        writer.transport.abort()


def _request(gateway: Gateway, what: Ask, host: str, base: str) -> bytes:
    key = gateway.key if what.key is None else what.key
    if what.dialect == "openai":
        path, more = "/v1/chat/completions", f"authorization: Bearer {key}\r\n" if key else ""
    else:
        path, more = "/v1/messages", "anthropic-version: 2023-06-01\r\n" + (f"x-api-key: {key}\r\n" if key else "")
    if what.deadline is not None:
        more += "".join(f"{header}: {what.deadline:g}\r\n" for header in gateway.deadline_headers)
    body = json.dumps(_fields(what)).encode() if what.body is None else what.body
    head = f"POST {base}{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return f"{head}{more}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body


def _fields(what: Ask) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": what.model,
        "messages": [{"role": "user", "content": "Count to twenty."}],
        "max_tokens": 256,
        "stream": what.stream,
    }
    if what.dialect == "openai" and what.stream:
        fields["stream_options"] = {"include_usage": True}
    for name, value in what.fields.items():
        if name == "tools" and what.dialect == "anthropic":
            value = [{"name": f["name"], "input_schema": f["parameters"]} for f in (tool["function"] for tool in value)]
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = value
    return fields


async def _head(reader: asyncio.StreamReader, told: Told) -> dict[str, str]:
    """Reads up to the body; 1xx are skipped."""
    while True:
        told.head = head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        status = int(first.split(" ")[1])
        if status >= 200:
            break
    told.status = status
    told.headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return dict(told.headers)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str], told: Told) -> AsyncIterator[bytes]:
    """Its pieces as they come, also kept in `told`. Raises what asyncio raises when the message is not whole."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            data = (await reader.readexactly(size + 2))[:-2]
            told.body += data
            yield data
    elif "content-length" in headers:
        told.body += await reader.readexactly(int(headers["content-length"]))
        yield bytes(told.body)
    else:
        while data := await reader.read(65536):
            told.body += data
            yield data
