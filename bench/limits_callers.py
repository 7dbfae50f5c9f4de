"""Callers who want more than they may have: many at once, answers of very different lengths. Whoever is refused comes
again, until nothing more fits.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from penstock.http.client import Pool, TransportError  # noqa: E402
from tests.app.billing_provider import marker  # noqa: E402

AT_ONCE = 500
MEDIAN, SIGMA, LONGEST = 120, 1.3, 2_048  # tokens of an answer: log-normal; the mean is twice the median
CAPS = (256, 512, 1_024, 2_048)  # what callers write as `max_tokens`
MICROS = 3_000  # per token: some 330 a second
COMES_AGAIN = 1.0  # seconds after a refusal at most, whatever Retry-After says
WORDS = "how much of it is left when all that was promised has been given and taken back "


@dataclass(frozen=True)
class Question:
    text: str
    n_tokens: int  # of the whole answer
    max_tokens: int | None

    def body(self, model: str) -> bytes:
        fields = {"model": model, "stream": True, "messages": [{"role": "user", "content": self.text}]}
        if self.max_tokens is not None:
            fields["max_tokens"] = self.max_tokens
        return json.dumps(fields, separators=(",", ":")).encode()


def questions(seed: object, *, with_caps: bool, micros: int = MICROS) -> Iterator[Question]:
    rng = Random(f"{seed}")
    while True:
        n = max(1, min(LONGEST, round(rng.lognormvariate(math.log(MEDIAN), SIGMA))))
        text = WORDS * rng.randint(1, 8) + marker(n, micros)
        yield Question(text, n, rng.choice(CAPS) if with_caps else None)


@dataclass
class Tally:
    """What callers have seen."""

    whole: int = 0
    refused: int = 0
    broken: int = 0
    seconds: float = 0.0
    last_words: str = ""  # of an answer that was neither


class _Asked:
    """One request: its receiver."""

    def __init__(self, tally: Tally) -> None:
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # whether it was let in
        self.retry_after = COMES_AGAIN
        self._tally = tally
        self._status = 0
        self._last = b""

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        for name, value in headers:
            if name == b"retry-after" and value.isdigit():
                self.retry_after = float(value)

    def on_data(self, data: bytes, ended: bool) -> None:
        self._last = (self._last[-200:] + data)[-400:]
        if ended:
            tally = self._tally
            whole = self._status == 200 and b"[DONE]" in self._last
            if whole:
                tally.whole += 1
            elif self._status == 429:
                tally.refused += 1
            else:
                tally.broken += 1
                tally.last_words = f"{self._status} {self._last.decode(errors='replace')}"
            self._end(self._status == 200)

    def on_failure(self, failure: TransportError) -> None:
        self._tally.broken += 1
        self._tally.last_words = str(failure)
        self._end(False)

    def _end(self, let_in: bool) -> None:
        if not self.over.done():
            self.over.set_result(let_in)


class Callers:
    """All ask for one model, at several gateways, with one key."""

    def __init__(
        self,
        ports: Sequence[int],
        *,
        model: str,
        key: str,
        seed: object,
        with_caps: bool,
        quiet: float,
        n: int = AT_ONCE,
    ) -> None:
        """`quiet` is for how many seconds after the last answer something may still be given back."""
        self._pools = [Pool(f"http://127.0.0.1:{port}") for port in ports]
        self._heads = [
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {key}\r\n".encode()
            for port in ports
        ]
        self._model, self._seed, self._with_caps, self._quiet, self._n = model, seed, with_caps, quiet, n
        self._open = 0  # requests that are answered, or may be
        self._moved_at = 0.0  # when the last of them ended
        self.tally = Tally()

    async def until_nothing_fits(self, within: float) -> Tally:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for i in range(self._n):
                group.create_task(self._one(i, began + within))
        self.tally.seconds = loop.time() - began
        for pool in self._pools:
            pool.abort()
        return self.tally

    async def _one(self, i: int, until: float) -> None:
        """Goes home when it is refused although all is quiet, and has been since before it asked."""
        loop = asyncio.get_running_loop()
        rng = Random(f"{self._seed} waits {i}")
        pool, head = self._pools[i % len(self._pools)], self._heads[i % len(self._pools)]
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        for question in questions(f"{self._seed} {i}", with_caps=self._with_caps):
            while True:
                asked, at = _Asked(self.tally), loop.time()
                self._open += 1
                pool.send(head, b"", question.body(self._model), asked)
                let_in = await asked.over
                self._open -= 1
                if loop.time() > until:
                    return
                if let_in:
                    self._moved_at = loop.time()
                    break
                if not self._open and at > self._moved_at + self._quiet:
                    return
                await asyncio.sleep(min(asked.retry_after, COMES_AGAIN) * rng.uniform(0.5, 1.0))
