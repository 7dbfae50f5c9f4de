"""Answers that come at once and in one dialect, and bytes that are not events: read as far as the receipt needs."""

from __future__ import annotations

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Request, Usage
from penstock.wire.openai_shapes import Unary
from penstock.wire.prompts import UNREADABLE
from penstock.wire.readings import Reading, truncated

_unary = msgspec.json.Decoder(Unary).decode


class Whole(Reading):
    """Endpoints that answer at once and in one dialect (embeddings, moderations, rerank, images...): passed on."""

    __slots__ = ("_answered", "_usage")

    keeps_type = True

    def __init__(self) -> None:
        self._answered = False
        self._usage: Usage | None = None

    @property
    def done(self) -> bool:
        return self._answered

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        raise UpstreamError(FailureKind.BAD_PAYLOAD, "a stream from an endpoint that has none")

    def ended(self) -> bytes:
        raise truncated()

    def whole(self, body: bytes) -> bytes:
        """Text that is not JSON (a transcript, say) is an answer too; a JSON error with status 200 is none."""
        self._answered = True
        try:
            seen = _unary(body)
        except UNREADABLE:
            return body
        if seen.error:
            raise UpstreamError(FailureKind.SERVER_ERROR, f"an error with status 200: {str(seen.error)[:300]}")
        counts = seen.usage
        if counts is not None:
            prompt = counts.prompt_tokens if counts.prompt_tokens is not None else counts.input_tokens
            completion = counts.completion_tokens if counts.completion_tokens is not None else counts.output_tokens
            if prompt is None and counts.total_tokens is not None:
                prompt = counts.total_tokens - (completion or 0)
            self._usage = Usage(max(0, prompt or 0), max(0, completion or 0))
        return body

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        if self._usage is not None:
            return self._usage, UsageSource.PROVIDER
        if self._answered:
            return Usage(request.prompt_tokens), UsageSource.ESTIMATE
        return Usage(), UsageSource.NONE


class Raw(Reading):
    """Bytes without events, such as speech: HTTP alone says whether they are whole."""

    __slots__ = ("_done", "_seen")

    keeps_type = True

    def __init__(self) -> None:
        self._done = False
        self._seen = False

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        self._seen = True
        return data, True

    def ended(self) -> bytes:
        self._done = True
        return b""

    def whole(self, body: bytes) -> bytes:
        self._seen = self._done = True
        return body

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        return (Usage(request.prompt_tokens), UsageSource.ESTIMATE) if self._seen else (Usage(), UsageSource.NONE)
