"""Tools for tests that speak to our server and client in bytes: a raw caller, a raw upstream, a transport in memory."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from penstock.http.options import ServerOptions
from penstock.http.server import Connection, Exchange, Server

HOST = b"host: test\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


class Caller:
    """One raw connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[bytes, bytes]]:
        text = await self.reader.readuntil(b"\r\n\r\n")
        lines = text[:-4].split(b"\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(b":") for line in lines[1:])}
        return int(lines[0].split(b" ", 2)[1]), headers

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        status, headers = await self.head()
        if headers.get(b"transfer-encoding") == b"chunked":
            chunks = []
            while chunk := await self.chunk():
                chunks.append(chunk)
            body = b"".join(chunks)
        elif b"content-length" in headers:
            body = await self.reader.readexactly(int(headers[b"content-length"]))
        elif status in (100, 204, 304):
            body = b""
        else:
            body = await self.reader.read()
        return status, headers, body

    async def chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        assert data[-2:] == b"\r\n"
        return data[:-2]

    async def rest(self) -> bytes:
        """Everything until the server closes; a reset ends it too."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    def leave(self) -> None:
        self.writer.transport.abort()


class World:
    """A server with its handler, and who calls it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.crashes: list[Exception] = []
        self._callers: list[Caller] = []

    async def call(self, data: bytes = b"", **options: Any) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.server.port, **options))
        self._callers.append(caller)
        if data:
            caller.send(data)
        return caller

    async def end(self) -> None:
        for caller in self._callers:
            caller.leave()
        await self.server.drain(0)
        await until(lambda: not self.server.connections and not self.server.tasks)
        assert not len(self.server.wheel), "a closed connection still has a time limit"


@asynccontextmanager
async def serving(handler: Callable[[Exchange], Any], options: ServerOptions | None = None, **listen: Any):
    crashes: list[Exception] = []
    server = Server(handler, options, on_crash=crashes.append)
    await server.start(**listen)
    world = World(server)
    world.crashes = crashes
    try:
        yield world
    finally:
        await world.end()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until it is so. No clock: the suite's own time limit is the time limit."""
    while not condition():  # noqa: ASYNC110 - conditions of our own code, which rings no bell for tests
        await asyncio.sleep(0.001)


@asynccontextmanager
async def upstream(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **listen: Any):
    """A raw upstream: `serve` runs once per connection. Gives its origin."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.add(asyncio.get_running_loop().create_task(run(reader, writer)))

    writers: list[asyncio.StreamWriter] = []
    listener = await asyncio.start_server(accept, "127.0.0.1", 0, **listen)
    scheme = "https" if "ssl" in listen else "http"
    try:
        yield f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        await asyncio.sleep(0.002)  # asyncio loses a connection accepted in the very turn in which its listener closes
        listener.close()
        for writer in writers:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


async def request_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next request, with a counted body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return head, await reader.readexactly(int(length[1])) if length else b""


class MemoryTransport(asyncio.Transport):
    """Where a connection's bytes go when there is no socket: every split of the input can be tried quickly."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True
        self.at_end = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.at_end = True

    def can_write_eof(self) -> bool:
        return True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def feed(server: Server, pieces: list[bytes]) -> tuple[Connection, MemoryTransport]:
    """A connection that received these reads, one after the other. The caller ends it with `connection_lost`."""
    connection = server.protocol()
    transport = MemoryTransport()
    connection.connection_made(transport)
    for piece in pieces:
        if piece and not transport.closed:
            connection.data_received(piece)
    return connection, transport
