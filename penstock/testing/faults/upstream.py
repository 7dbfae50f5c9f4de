"""An HTTP server with every byte in its hand: scripts write, pause, cut and reset as they like, and what the gateway
did meanwhile is written down.

Which script answers is told by the model's name; which dialect, by the path.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import msgspec

from penstock.core.clock import Clock
from penstock.testing.faults.voices import SERVED, AnthropicVoice, OpenAIVoice, Voice

STALL: Final = 20.0  # seconds; longer than any caller of the wall waits
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
_MAX_HEAD: Final = 1024 * 1024
_NO_LINGER: Final = struct.pack("ii", 1, 0)  # a close becomes a reset
_TLS_REFUSAL: Final = b"\x15\x03\x03\x00\x02\x02\x28"  # a fatal alert, handshake_failure: RFC 8446, 6.2


class Gone(Exception):
    """The gateway closed the connection: the script has nobody to talk to any more."""


class Seen(msgspec.Struct):
    """One request as it arrived here. Times are Clock.now() seconds."""

    path: str
    headers: dict[str, str]
    fields: dict[str, Any]
    at: float
    reused: bool  # its connection had answered before
    n_before: int  # requests for the same model
    gone_at: float | None = None  # the gateway went away before the script was over
    ended_at: float | None = None
    over: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    @property
    def stream(self) -> bool:
        return self.fields.get("stream") is True


class Reply:
    """What a script writes with. Every write and wait raises `Gone` once the gateway has left."""

    def __init__(self, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        self._writer, self._gone = writer, gone
        self.keep = True  # whether the connection may be used again

    async def raw(self, data: bytes) -> None:
        if self._gone.is_set():
            raise Gone
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            raise Gone from None

    async def head(self, status: int = 200, kind: str = JSON, headers: Mapping[str, str] | None = None) -> None:
        """A head that announces chunks."""
        await self.raw(_head(status, {"content-type": kind, "transfer-encoding": "chunked", **(headers or {})}))

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def last_chunk(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def whole(
        self, body: bytes, *, status: int = 200, kind: str = JSON, headers: Mapping[str, str] | None = None
    ) -> None:
        await self.raw(
            _head(status, {"content-type": kind, "content-length": str(len(body)), **(headers or {})}) + body
        )

    async def events(self, *events: bytes) -> None:
        """Each in a chunk and, as far as the network lets it, a packet of its own."""
        for event in events:
            await self.chunk(event)

    async def pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            return
        raise Gone

    async def stall(self) -> None:
        """Say nothing until the gateway has had enough."""
        await self.pause(STALL)
        self.close()

    def close(self) -> None:
        """An orderly end (FIN), whatever was promised."""
        self.keep = False
        self._writer.close()

    def reset(self) -> None:
        """A broken connection (RST); what was written before may or may not arrive."""
        self.keep = False
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._writer.transport.abort()


Bytes = asyncio.StreamReader
Script = Callable[[Reply, Voice, Seen], Awaitable[None]]


class Ports(msgspec.Struct, frozen=True):
    """Where the upstream listens; 0 lets the system choose."""

    main: int = 0  # scripts
    tls: int = 0  # refuses every TLS handshake
    thief: int = 0  # where redirects point to; nobody should come
    refused: int = 0  # nobody listens

    @staticmethod
    def after(first: int) -> Ports:
        return Ports(*range(first, first + 4))


class FaultServer:
    """`scripts` by the model's name without its `SERVED` prefix; `seen` is what came, likewise by name."""

    def __init__(self, scripts: Mapping[str, Script], clock: Clock, ports: Ports) -> None:
        self._scripts, self._clock = scripts, clock
        self.ports = ports
        self.seen: dict[str, list[Seen]] = {}
        self.stolen: list[str] = []  # the models of prompts that came to the thief
        self._listening = AsyncExitStack()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultServer:
        """Raises `OSError` when a port is taken."""
        loop = asyncio.get_running_loop()
        wanted, found = self.ports, {}
        reserved = socket.socket()  # bound and never listening: connecting is refused, and nobody else gets the port
        reserved.bind(("127.0.0.1", wanted.refused))
        self._listening.push(lambda *_: reserved.close())
        found["refused"] = reserved.getsockname()[1]
        listeners: dict[str, Serve] = {
            "main": self._serve, "tls": self._refuse_tls, "thief": self._steal,
        }  # fmt: skip
        for name, serve in listeners.items():
            protocol = partial(_Watched, serve, self._connections)
            server = await loop.create_server(protocol, "127.0.0.1", getattr(wanted, name))
            self._listening.push_async_exit(server)
            found[name] = server.sockets[0].getsockname()[1]
        self.ports = Ports(**found)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._listening.aclose()

    def of(self, name: str) -> list[Seen]:
        return self.seen.get(name, [])

    # --- one connection ---

    async def _serve(self, reader: Bytes, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        reused = False
        while await self._exchange(reader, writer, gone, reused):
            reused = True

    async def _refuse_tls(self, reader: Bytes, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        del gone
        await reader.read(1024)
        writer.write(_TLS_REFUSAL)
        await writer.drain()

    async def _steal(self, reader: Bytes, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        head = await _read_head(reader)
        if head is None:
            return
        path, headers = _parsed(head)
        if await reader.readexactly(int(headers.get("content-length", "0"))):
            self.stolen.append(path.rpartition("/")[2])
        await Reply(writer, gone).whole(OpenAIVoice().plain("stolen", reason="stop", cost=None))

    async def _exchange(self, reader: Bytes, writer: asyncio.StreamWriter, gone: asyncio.Event, reused: bool) -> bool:
        """One request and its script; whether there may be another."""
        head = await _read_head(reader)
        if head is None:
            return False
        path, headers = _parsed(head)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        reply = Reply(writer, gone)
        try:
            fields = json.loads(body) if body else {}
        except ValueError:
            fields = {}
        voice: Voice = AnthropicVoice() if path.endswith("/messages") else OpenAIVoice()
        name = str(fields.get("model", "")).rpartition("/")[2].removeprefix(SERVED)
        script = self._scripts.get(name)
        if script is None or not path.endswith(("/chat/completions", "/messages")):
            await reply.whole(voice.error("not_found_error", f"nothing at {path[:80]}"), status=404)
            return True
        before = self.seen.setdefault(name, [])
        seen = Seen(path, headers, fields, self._clock.now(), reused=reused, n_before=len(before))
        before.append(seen)
        try:
            await script(reply, voice, seen)
            seen.ended_at = self._clock.now()
        except Gone:
            seen.gone_at = self._clock.now()
            return False
        finally:
            seen.over.set()
        return reply.keep and headers.get("connection", "").lower() != "close"


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event], Awaitable[None]]


class _Watched(asyncio.StreamReaderProtocol):
    """Says when the other side has left even while nobody reads or writes."""

    def __init__(self, serve: Serve, connections: set[asyncio.Task[None]]) -> None:
        self._gone = asyncio.Event()
        self._serve, self._connections = serve, connections
        reader = asyncio.StreamReader(limit=_MAX_HEAD)
        super().__init__(reader)
        self._bytes = reader

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        writer = asyncio.StreamWriter(transport, self, self._bytes, loop)  # type: ignore[arg-type]  # a WriteTransport
        task = loop.create_task(self._run(writer))  # FaultServer ends those that are left
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _run(self, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(self._bytes, writer, self._gone)
        except (asyncio.IncompleteReadError, ConnectionError, Gone):
            return  # they left; that is what is watched for
        finally:
            writer.close()

    def eof_received(self) -> bool | None:
        self._gone.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        super().connection_lost(exc)


async def _read_head(reader: asyncio.StreamReader) -> bytes | None:
    """Up to the blank line; None when the other side closed instead."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    """The path and the headers, names in lower case."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return first.split(" ")[1].partition("?")[0], headers


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}", *(f"{n}: {v}" for n, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
