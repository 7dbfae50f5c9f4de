"""An engine that answers by the clock and writes down when: `python bench/paced_engine.py PORT`.

What load generators are compared on. The nth chat waits for its first token, and between tokens, as long as a plan
of `CYCLE` requests says, so that whoever sends a multiple of that many meets the same delays, in whatever order. Tokens
leave at planned instants, not after sleeps, so that a late one does not make the next one late.

GET /v1/models and /health answer; GET /truth gives, for each chat since the last time, when it came in and when each of
its tokens was written, in seconds, and forgets them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from random import Random

CYCLE = 200
TTFT = (0.400, 1.600)  # seconds, spread evenly: a server with something to do, which is when one measures
TPOT = (0.015, 0.045)
MODEL = "paced"


def plan() -> list[tuple[float, float]]:
    """(TTFT, TPOT) of each request of a cycle."""
    rng = Random(7)

    def spread(low: float, high: float) -> list[float]:
        values = [low + (high - low) * (i + 0.5) / CYCLE for i in range(CYCLE)]
        rng.shuffle(values)
        return values

    return list(zip(spread(*TTFT), spread(*TPOT), strict=True))


PLAN = plan()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(payload: bytes) -> bytes:
    event = b"data: " + payload + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


TOKEN = chunk(
    b'{"id":"c","object":"chat.completion.chunk","model":"paced","choices":[{"index":0,"delta":{"content":" a"}}]}'
)
STOP = chunk(
    b'{"id":"c","object":"chat.completion.chunk","model":"paced",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}'
)


class Engine:
    def __init__(self) -> None:
        self.n_chats = 0
        self.truth: list[dict[str, object]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                came_in = asyncio.get_running_loop().time()
                line, *fields = head.split("\r\n")
                headers = dict(field.lower().split(": ", 1) for field in fields if ": " in field)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if line.startswith("POST"):
                    await self.chat(writer, json.loads(body), came_in)
                else:
                    self.told(writer, line.split(" ")[1])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def told(self, writer: asyncio.StreamWriter, path: str) -> None:
        answer: object = {"data": [{"id": MODEL, "object": "model"}]}
        if path == "/truth":
            answer, self.truth = self.truth, []
        data = json.dumps(answer).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data) + data
        )

    async def chat(self, writer: asyncio.StreamWriter, fields: dict[str, object], came_in: float) -> None:
        ttft, tpot = PLAN[self.n_chats % CYCLE]
        self.n_chats += 1
        n = int(str(fields.get("max_tokens") or fields.get("max_completion_tokens") or 16))
        words = sum(len(str(message["content"]).split()) for message in fields["messages"])  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        written: list[float] = []

        def token() -> None:
            writer.write(TOKEN if written else HEAD + TOKEN)
            written.append(loop.time())
            if len(written) < n:
                loop.call_at(came_in + ttft + len(written) * tpot, token)
                return
            usage = {"prompt_tokens": words, "completion_tokens": n, "total_tokens": words + n}
            told = json.dumps(
                {"id": "c", "object": "chat.completion.chunk", "model": MODEL, "choices": [], "usage": usage}
            )
            writer.write(STOP + chunk(told.encode()) + chunk(b"[DONE]") + b"0\r\n\r\n")
            over.set_result(None)

        loop.call_at(came_in + ttft, token)
        await over
        self.truth.append({"came_in": came_in, "tokens": written})


async def main() -> None:
    server = await asyncio.start_server(Engine().serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
