"""A provider that keeps its own books: what it has served of each request, by the id that came with it, and what it
asks for that. Streams chats in OpenAI's dialect, at the pace and of the length that the question says.

Runs in a test, or as a process of its own: `python billing_provider.py --announce-fd N [--seed S --failing SHARE]`.
`GET /books` are its books so far, by model; `GET /report` is a line of JSON for each request.

A caller who leaves is billed for what was written until then, as providers do who notice.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from random import Random
from typing import Any, Final

import uvloop

from penstock.http.server import Exchange, Server

INPUT, OUTPUT = Fraction("1037.5"), Fraction("4150.5")  # nano-dollars per token: not whole, so that rounding matters
PRICE: Final = "{ input: $1.0375/M, output: $4.1505/M }"  # the same, for a gateway's configuration
EVERY: Final = 0.05  # seconds between events, of as many tokens as there were time for
ASKED: Final = re.compile(rb"@n(\d+)i(\d+)@")  # tokens that the whole answer has, microseconds for each
WHOLE: Final = b'{"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"%b"}]}'
USAGE: Final = (
    b'{"model":"m","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\n'
    b"data: [DONE]\n\n"
)


def marker(n_tokens: int, micros: int) -> str:
    """To be written anywhere in a question."""
    return f"@n{n_tokens}i{micros}@"


def n_tokens_of(messages: list[dict[str, str]]) -> int:
    """By its own tokenizer, which needs no more tokens than a gateway would guess from the bytes."""
    return sum(3 + -(-len(message["content"].encode()) // 5) for message in messages)


def nanos_of(input_tokens: int, output_tokens: int) -> int:
    """Rounded once, a half upwards."""
    return floor(input_tokens * INPUT + output_tokens * OUTPUT + Fraction(1, 2))


@dataclass
class Served:
    """One request, or one attempt of it."""

    id: str
    model: str
    input_tokens: int
    output_tokens: int = 0
    over: bool = False
    whole: bool = False

    @property
    def nanos(self) -> int:
        return nanos_of(self.input_tokens, self.output_tokens)


class _Answer:
    """A stream on its way: the flow of its exchange."""

    def __init__(self, exchange: Exchange, served: Served, most: int, wanted: int, pace: float) -> None:
        self._exchange, self._served, self._pace = exchange, served, pace
        self._left = min(most, wanted)
        self._reason = b"length" if most < wanted else b"stop"
        self._loop = asyncio.get_running_loop()
        self._at_once = max(1, int(EVERY / pace)) if pace else self._left

    def begin(self) -> None:
        self._exchange.flow = self
        self._exchange.start(200)
        self._due = self._loop.time()
        self._timer = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        n = min(self._left, self._at_once)
        if not n:
            self._end()
            return
        self._left -= n
        self._served.output_tokens += n
        text = b"".join([b"%03d " % (at % 1000) for at in range(self._left, self._left + n)])  # no chunk twice
        self._exchange.write(b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text)
        self._due += n * self._pace
        self._timer = self._loop.call_at(self._due, self._go_on)

    def _end(self) -> None:
        served = self._served
        served.over = served.whole = True
        used = served.input_tokens, served.output_tokens, served.input_tokens + served.output_tokens
        self._exchange.finish(b"data: " + WHOLE % self._reason + b"\n\ndata: " + USAGE % used)

    def pause(self) -> None:
        """What was generated is written, however slowly it is read."""

    def resume(self) -> None: ...

    def left(self) -> None:
        self._timer.cancel()
        self._served.over = True


class BillingProvider:
    """`failing` is the share of attempts that are refused with a 503, and not billed."""

    def __init__(self, rng: Random, failing: float = 0.0) -> None:
        self.served: list[Served] = []
        self.failed = 0
        self._rng, self._failing = rng, failing
        self._server = Server(self._handle, on_crash=self._crashed)
        self._crashes: list[Exception] = []

    async def __aenter__(self) -> BillingProvider:
        await self._server.start()
        self.port = self._server.port
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        assert not self._crashes, self._crashes

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def busy(self) -> int:
        return sum(not served.over for served in self.served)

    def books(self) -> dict[str, dict[str, int]]:
        books: dict[str, dict[str, int]] = {}
        for served in self.served:
            of = books.setdefault(served.model, dict.fromkeys(("requests", "tokens", "nanos", "cut", "busy"), 0))
            of["requests"] += 1
            of["tokens"] += served.input_tokens + served.output_tokens
            of["nanos"] += served.nanos
            of["cut"] += served.over and not served.whole
            of["busy"] += not served.over
        return books

    def report(self) -> list[str]:
        """As `penstock cost correct` reads it."""
        return [
            json.dumps(
                {
                    "request_id": served.id,
                    "input_tokens": served.input_tokens,
                    "output_tokens": served.output_tokens,
                    "cost_nanos": served.nanos,
                }
            )
            for served in self.served
        ]

    def _handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        if exchange.method == b"POST":
            return self._answer(exchange)
        if exchange.path == b"/books":
            exchange.respond(200, json.dumps(self.books()).encode())
        elif exchange.path == b"/report":
            exchange.respond(200, "\n".join(self.report()).encode())
        else:
            exchange.respond(200, b'{"status":"ok","data":[]}')  # a health check
        return None

    async def _answer(self, exchange: Exchange) -> None:
        if self._rng.random() < self._failing:
            self.failed += 1
            exchange.respond(503, b'{"error":{"message":"overloaded","type":"overloaded_error"}}')
            return
        asked = json.loads(exchange.body)
        found = ASKED.search(exchange.body)
        assert found is not None, "the question says nothing of its answer"
        wanted, micros = int(found[1]), int(found[2])
        most = asked.get("max_completion_tokens") or asked.get("max_tokens") or wanted
        id = (exchange.header(b"x-request-id") or b"").decode()
        served = Served(id, asked["model"], n_tokens_of(asked["messages"]))
        self.served.append(served)
        _Answer(exchange, served, most, wanted, micros / 1e6).begin()

    def _crashed(self, error: Exception) -> None:
        self._crashes.append(error)


async def main() -> None:
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    rng, failing = Random(options.get("--seed", "1")), float(options.get("--failing", "0"))
    async with BillingProvider(rng, failing) as provider:
        announce = int(options["--announce-fd"])
        os.write(announce, b"%d\n" % provider.port)
        os.close(announce)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main())
