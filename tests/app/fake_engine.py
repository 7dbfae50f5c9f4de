"""A small engine: streams tokens, can be held in the middle of an answer, runs in the test or as a process of its own.

As a process: `python fake_engine.py NAME [--announce-fd N]`; NAME `broken` ends before it is ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

CHUNK = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
STOP = b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"
PLAIN = (
    b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"%b"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4}}'
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class FakeEngine:
    """Answers every chat with its own name. While `gate` is closed, streams wait after their first token."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.gate = asyncio.Event()
        self.gate.set()
        self.holding = asyncio.Event()  # a stream has sent its first token
        self.n_answers = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> FakeEngine:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.split(b"\r\n"):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                body = await reader.readexactly(length)
                await self._answer(head, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if not head.startswith(b"POST"):
            data = json.dumps({"object": "list", "data": [{"id": self.name.decode()}]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data))
        elif json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunk(CHUNK % self.name))
            self.holding.set()
            await self.gate.wait()
            writer.write(chunk(CHUNK % b" done") + chunk(STOP + USAGE + DONE) + b"0\r\n\r\n")
            self.n_answers += 1
        else:
            data = PLAIN % self.name
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)
            )
            self.n_answers += 1
        await writer.drain()


async def _main(name: str, announce: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with FakeEngine(name) as engine:
        os.write(announce, json.dumps({"port": engine.port, "pid": os.getpid()}).encode() + b"\n")
        os.close(announce)
        await stop.wait()


if __name__ == "__main__":
    if sys.argv[1] == "broken":
        sys.exit("there are no such weights")
    asyncio.run(_main(sys.argv[1], int(sys.argv[3])))
