"""One streamed chat completion, timed piece by piece where its bytes come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.http.client import Call, TransportError
from penstock.wire.openai_chat import failure_of
from penstock.wire.sse import EventCutter, data_of

EMPTY: Final = "empty"  # a complete answer without a single token
UNFINISHED: Final = "unfinished"  # we left before it was complete
MAX_TOLD: Final = 65_536  # bytes of an error answer that are read

_BROKEN: Final = {
    "connect": FailureKind.CONNECT,
    "dns": FailureKind.CONNECT,
    "tls": FailureKind.CONNECT,
    "connect_timeout": FailureKind.CONNECT_TIMEOUT,
    "reset": FailureKind.NETWORK,
    "eof": FailureKind.NETWORK,
    "protocol": FailureKind.BAD_PAYLOAD,
}


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None  # an object by the standard, a sentence from some


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class Exchange:
    """A `Receiver`. Calls `done` once, when nothing more will come; then `failure` says how it went."""

    __slots__ = (
        "_cutter",
        "_done",
        "_finished",
        "_now",
        "_over",
        "_told",
        "cached_tokens",
        "call",
        "detail",
        "ended",
        "failure",
        "first",
        "gaps",
        "last",
        "output_tokens",
        "pieces",
        "prompt_tokens",
        "replica",
        "sent",
        "status",
        "text",
    )

    def __init__(self, now: Callable[[], float], done: Callable[[Exchange], None], *, keep_text: bool) -> None:
        self._now, self._done = now, done
        self._cutter = EventCutter()
        self._finished = False  # the model said why it stopped, or the stream that it is over
        self._over = False
        self._told: list[bytes] = []  # of an error answer
        self.call: Call | None = None
        self.sent = now()
        self.ended = self.sent
        self.first: float | None = None
        self.last: float | None = None
        self.gaps: list[float] = []
        self.pieces = 0
        self.text: list[str] | None = [] if keep_text else None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.output_tokens: int | None = None
        self.status = 0
        self.replica = ""
        self.failure = ""
        self.detail = ""

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        for name, value in headers:
            if name == b"x-penstock-replica":
                self.replica = value.decode("latin-1")

    def on_data(self, data: bytes, ended: bool) -> None:
        now = self._now()
        if self.status != 200:
            if sum(map(len, self._told)) < MAX_TOLD:
                self._told.append(data)
            if ended:
                body = b"".join(self._told)
                self._end(failure_of(self.status, body).kind, now, f"{self.status}: {_words(body)}")
            return
        try:
            whole = self._cutter.feed(data)
            if whole:
                self._read(whole, now)
        except msgspec.MsgspecError:
            self.leave(FailureKind.BAD_PAYLOAD, "the answer is not a stream of chat completion chunks")
            return
        except UpstreamError as error:
            self.leave(error.kind, error.detail)
            return
        if ended and not self._over:
            if not self._finished:
                self._end(FailureKind.TRUNCATED, now, "the stream ended before the answer did")
            elif self.first is None:
                self._end(EMPTY, now, "a complete answer without a token")
            else:
                self._end("", now, "")

    def on_failure(self, failure: TransportError) -> None:
        self._end(_BROKEN[failure.kind], self._now(), str(failure))

    def leave(self, failure: str, detail: str) -> None:
        """Let go of it now. Nothing happens when it is over."""
        if self.call is not None:
            self.call.close()
        self._end(failure, self._now(), detail)

    def _read(self, whole: bytes, now: float) -> None:
        for event in whole.split(b"\n\n"):
            payload = data_of(event)
            if not payload:
                continue
            if payload == b"[DONE]":
                self._finished = True
                continue
            chunk = _decode(payload)
            if chunk.error is not None:
                raise UpstreamError(FailureKind.SERVER_ERROR, f"in mid-answer: {_words(payload)}")
            if chunk.usage is not None:
                usage = chunk.usage
                self.prompt_tokens, self.output_tokens = usage.prompt_tokens, usage.completion_tokens
                if usage.prompt_tokens_details is not None:
                    self.cached_tokens = usage.prompt_tokens_details.cached_tokens
            for choice in chunk.choices or ():
                if choice.finish_reason is not None:
                    self._finished = True
                delta = choice.delta
                if delta is not None and (
                    delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls
                ):
                    self._piece(now, delta.content or "")

    def _piece(self, now: float, text: str) -> None:
        if self.last is None:
            self.first = now
        else:
            self.gaps.append(now - self.last)
        self.last = now
        self.pieces += 1
        if self.text is not None:
            self.text.append(text)

    def _end(self, failure: str, now: float, detail: str) -> None:
        if not self._over:
            self._over = True
            self.failure, self.detail, self.ended = str(failure), detail, now
            self._done(self)


def _words(body: bytes) -> str:
    """The message of an error body, wrapped or bare; else how it begins."""
    try:
        tree = msgspec.json.decode(body)
        error = tree.get("error", tree) if isinstance(tree, dict) else tree
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str):
            return message[:500]
    except (msgspec.MsgspecError, RecursionError):
        pass
    return body[:200].decode("utf-8", "replace").strip() or "without a word"
