"""A transport that does what a script says, over the real adapter: for tests and for trying things out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

Step: TypeAlias = tuple[float, bytes | str]
"""Seconds since the step before; bytes to deliver, or "end", "eof", "reset"."""


class Fault(Exception):
    """What the transport reports; has the shape of `http.client.TransportError`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind, self.detail, self.sent = kind, "", kind not in ("connect", "dns", "tls", "connect_timeout")


class Script(msgspec.Struct, frozen=True):
    """One replica's behaviour; times in seconds.

    `status` other than 200 answers with an error body after `fail_after`; `fault` breaks the connection then, before
    any byte; `cut_after` breaks a stream after so many tokens (`cut`: "eof" cleanly, "reset", "stall", or "role" for a
    role and comments without end).
    """

    ttft: float = 0.0
    tokens: int = 1
    tpot: float = 0.0
    status: int = 200
    fault: str | None = None
    fail_after: float = 0.0
    headers: tuple[tuple[bytes, bytes], ...] = ()
    answer: bytes | None = None  # the body, whatever was asked, in place of a chat answer
    cut_after: int | None = None
    cut: str = "eof"
    steps: Callable[[dict[str, Any]], Sequence[Step]] | None = None
    """What happens after a request with these fields, call by call, in place of all the rest."""


ROLE = b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" hi"}}]}\n\n'
STOP = b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}\n\n'
DONE = b"data: [DONE]\n\n"
ANSWER = (
    b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}'
)


class FakeCall:
    def __init__(self, steps: Sequence[Step], receiver: Any, script: Script) -> None:
        self._steps, self._receiver, self._script = list(steps), receiver, script
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._head_sent = False
        self.closed = False
        self.finished = False
        self._next()

    def _next(self) -> None:
        if self._steps:
            self._timer = self._loop.call_later(self._steps[0][0], self._step)

    def _step(self) -> None:
        _, what = self._steps.pop(0)
        receiver, script = self._receiver, self._script
        if isinstance(what, str) and what != "end":
            self.finished = True
            receiver.on_failure(Fault(what))
            return
        if not self._head_sent:
            self._head_sent = True
            receiver.on_head(script.status, list(script.headers))
        if self.closed:
            return
        if isinstance(what, str):
            self.finished = True
            receiver.on_data(b"", True)
            return
        receiver.on_data(what, False)
        if not self.closed:
            self._next()

    def pause(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def resume(self) -> None:
        self._next()

    def close(self) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()


class FakeTransport:
    """One replica. `bodies` are the requests it was sent, `calls` what came of them."""

    def __init__(self, name: str, script: Script, opened: list[str]) -> None:
        self.name, self.script, self._opened = name, script, opened
        self.host = name.encode("ascii")
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []  # request line and headers
        self.calls: list[FakeCall] = []
        self.closed = False

    def send(self, prefix: bytes, extra: bytes, body: bytes, receiver: Any) -> FakeCall:
        self._opened.append(self.name)
        self.bodies.append(body)
        self.heads.append(prefix + extra)
        fields = msgspec.json.decode(body) if body.startswith(b"{") else {}
        script = self.script
        planned = script.steps(fields) if script.steps else steps(script, stream=fields.get("stream") is True)
        call = FakeCall(planned, receiver, script)
        self.calls.append(call)
        return call

    def close(self) -> None:
        self.closed = True


def steps(script: Script, *, stream: bool) -> list[Step]:
    if script.fault is not None:
        return [(script.fail_after, script.fault)]
    if script.status != 200:
        body = b'{"error":{"message":"scripted %d","type":"scripted","code":"scripted"}}' % script.status
        return [(script.fail_after, body), (0.0, "end")]
    if script.answer is not None:
        return [(script.ttft, script.answer), (0.0, "end")]
    n = script.tokens
    if not stream:
        return [(script.ttft + (n - 1) * script.tpot, ANSWER % (n, n + 9)), (0.0, "end")]
    all_tokens: list[Step] = [(script.ttft, ROLE + TOKEN), *[(script.tpot, TOKEN)] * (n - 1)]
    if script.cut_after is not None:
        kept = all_tokens[: script.cut_after]
        if script.cut == "stall":
            return kept
        if script.cut == "role":  # a gesture and comments for a minute, and never a token
            return [(0.1, ROLE), *[(1.0, b": ping\n\n")] * 60]
        return [*kept, (script.tpot, "end" if script.cut == "eof" else script.cut)]
    return [*all_tokens, (0.0, STOP + USAGE % (n, n + 9) + DONE), (0.0, "end")]


def transports(scripts: Mapping[str, Script]) -> tuple[dict[str, FakeTransport], list[str]]:
    """A transport per replica name, and the list in which they write who was opened, in order."""
    opened: list[str] = []
    return {name: FakeTransport(name, script, opened) for name, script in scripts.items()}, opened
