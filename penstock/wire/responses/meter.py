"""Reads a response as it goes by, from an upstream that speaks the dialect itself."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Request, Usage
from penstock.wire.openai_chat import failure_inside
from penstock.wire.openai_values import usage_of
from penstock.wire.prompts import BYTES_PER_TOKEN, UNREADABLE
from penstock.wire.responses.shapes import PassingEvent, PassingResponse
from penstock.wire.sse import data_of

_decode_event = msgspec.json.Decoder(PassingEvent).decode
_decode_response = msgspec.json.Decoder(PassingResponse).decode
_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_CUT: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
_CALLS: Final = frozenset({"function_call", "custom_tool_call"})


class ResponsesMeter:
    """`sequence_number`: of the last event that went by, for one of ours that must follow it."""

    terminator = b""  # a stream that has not said its last event is not whole
    __slots__ = ("_final", "done", "finish_reason", "sequence_number", "tokens_seen", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.tokens_seen = 0  # deltas; about one token each
        self.done = False
        self.sequence_number = -1
        self._final: bytes | None = None

    @property
    def complete(self) -> bool:
        return self.done

    def final_response(self) -> bytes | None:
        """The whole response object, once it has gone by."""
        return self._final

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        """Usage for the receipt: the upstream's own count, else an estimate that says so."""
        if self.usage is not None:
            return self.usage, UsageSource.PROVIDER if self.done else UsageSource.PROVIDER_PARTIAL
        if self.tokens_seen:
            return Usage(request.prompt_tokens, self.tokens_seen), UsageSource.ESTIMATE
        return Usage(), UsageSource.NONE

    def answer(self, body: bytes) -> None:
        """Read a whole answer. Raises `UpstreamError` when it is an error or not the dialect."""
        self._end(body)
        self.tokens_seen = max(1, len(body) // BYTES_PER_TOKEN)

    def events(self, block: bytes, strip_usage: bool) -> tuple[bytes, bool]:
        """Read whole events; say what to pass on, and whether anything in it was a token or an end.

        Nothing is ever left out before the end, and nothing passed on after it. Raises `UpstreamError` at an error
        event and at one that is not the dialect.
        """
        if self.done:
            return b"", False
        if block.count(b"\n\n") == 1:
            return block, self._event(block[:-2])
        meaningful, kept = False, []
        for event in block[:-2].split(b"\n\n"):
            meaningful |= self._event(event)
            if event:
                kept.append(event + b"\n\n")
            if self.complete:
                break
        return b"".join(kept), meaningful

    def _event(self, event: bytes) -> bool:
        data = data_of(event)
        if not data or data == b"[DONE]":  # vLLM's habit; the terminal event is what counts
            return False
        try:
            seen = _decode_event(data)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        if seen.sequence_number is not None:
            self.sequence_number = seen.sequence_number
        if seen.type in _TERMINAL:
            self._end(bytes(seen.response))
            return True
        if seen.error is not None or seen.type == "error":
            raise failure_inside(seen.error or {"code": seen.code, "message": seen.message or "", "param": seen.param})
        if seen.delta:
            self.tokens_seen += 1
            return True
        return False

    def _end(self, body: bytes) -> None:
        try:
            seen = _decode_response(body)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        if seen.usage is not None:
            self.usage = usage_of(seen.usage)
        if seen.error is not None or seen.status == "failed":
            raise failure_inside(seen.error or {"message": "the response failed"})
        if seen.object != "response":
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an answer that is not a response")
        self._final, self.done = body, True
        if seen.status == "incomplete":
            reason = seen.incomplete_details.reason if seen.incomplete_details is not None else None
            self.finish_reason = _CUT.get(reason or "", "length")
        elif seen.status == "completed":
            called = any(item.type in _CALLS for item in seen.output or ())
            self.finish_reason = "tool_calls" if called else "stop"
        else:  # queued or in_progress, of a background response; cancelled
            self.finish_reason = seen.status
