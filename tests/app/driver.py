"""Drives a real `serve` in the test's own loop, and speaks HTTP to it without any client library."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from penstock.app.serve import ServeOptions, serve
from tests.canaries import HEADER, PROMPT, SIGHTINGS, USER


class Running:
    """A server that is serving."""

    def __init__(self, port: int, told: list[str], told_more: asyncio.Condition) -> None:
        self.port, self.told = port, told
        self._told_more = told_more

    async def until_told(self, part: str) -> str:
        async with self._told_more:
            await self._told_more.wait_for(lambda: any(part in line for line in self.told))
        return next(line for line in self.told if part in line)

    def text(self) -> str:
        return "\n".join(self.told)

    async def get(self, path: str) -> tuple[int, bytes]:
        return await request(self.port, b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path.encode())

    async def chat(self, *, model: str = "chat", key: str | None = None) -> tuple[int, Any]:
        """Status and decoded body of a plain answer."""
        status, body = await request(self.port, chat_bytes(model=model, key=key))
        return status, json.loads(body)


def chat_bytes(*, model: str = "chat", stream: bool = False, key: str | None = None, close: bool = True) -> bytes:
    messages = [{"role": "user", "content": f"hi {PROMPT}"}]
    body = json.dumps({"model": model, "stream": stream, "user": USER, "messages": messages}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nx-app: {HEADER}\r\n"
    if close:
        head += "connection: close\r\n"
    if key is not None:
        head += f"authorization: Bearer {key}\r\n"
    return head.encode() + b"\r\n" + body


async def request(port: int, data: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own; the body is everything after the head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        answer = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


async def serving(
    options: ServeOptions,
    story: Callable[[Running], Awaitable[None]],
    *,
    stop: bool = True,
    on_tell: Callable[[str], None] | None = None,
    within: float = 50,
) -> tuple[int, list[str]]:
    """Starts `serve`, runs the story when requests can be served, then asks it to stop. Exit code, and what was told.

    What `serve` raises is raised.
    """
    told: list[str] = []
    more = asyncio.Condition()
    reading, writing = os.pipe()

    async with asyncio.timeout(within), asyncio.TaskGroup() as group:

        async def notify() -> None:
            async with more:
                more.notify_all()

        def tell(line: str) -> None:
            told.append(line)
            if on_tell is not None:
                on_tell(line)
            group.create_task(notify())

        options = msgspec.structs.replace(options, announce_fd=writing)
        server = group.create_task(_outcome(serve(options, tell)))
        ready = group.create_task(asyncio.to_thread(_read_line, reading))
        await asyncio.wait({server, ready}, return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            _close(writing)
        else:
            await story(Running(json.loads(await ready)["port"], told, more))
            if stop:
                os.kill(os.getpid(), signal.SIGTERM)
        result = await server
    if isinstance(result, Exception):
        raise result
    SIGHTINGS.look("what serve tells", "\n".join(told))
    return result, told


async def _outcome(coroutine: Any) -> int | Exception:
    try:
        return int(await coroutine)
    except Exception as error:  # noqa: BLE001 - it is raised again, outside of the task group
        return error


def _read_line(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.readline()


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        return  # it was announced, and closed, before the failure
