"""Readings of endpoints that need a little more than passing on: stored responses, and tokens counted by an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from penstock.core.errors import FailureKind, PenstockError, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Endpoint, Request, Usage
from penstock.wire import anthropic, responses
from penstock.wire.errors import responses_event
from penstock.wire.openai_shapes import Tokens
from penstock.wire.prompts import UNREADABLE
from penstock.wire.readings import Passing
from penstock.wire.unary import Whole

COUNT_BODIES: Final[Mapping[Endpoint, Callable[[int], bytes]]] = {
    Endpoint.COUNT_TOKENS: anthropic.count_tokens_body,
    Endpoint.INPUT_TOKENS: responses.input_tokens_body,
}


class Counted(Whole):
    """The answer of an engine's `/tokenize`, told as the endpoint that was asked for."""

    __slots__ = ("_endpoint",)
    keeps_type = False

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    def whole(self, body: bytes) -> bytes:
        super().whole(body)
        try:
            tokens = msgspec.json.decode(body, type=Tokens).count
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, f"tokenize: {error}") from None
        return COUNT_BODIES[self._endpoint](tokens)

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        return Usage(), UsageSource.NONE  # nothing was generated


class PassingResponses(Passing):
    """Keeps the response object that its last event carries."""

    __slots__ = ("_responses",)

    def __init__(self, meter: responses.ResponsesMeter) -> None:
        super().__init__(meter)
        self._responses = meter

    def final_response(self) -> bytes | None:
        return self._responses.final_response()

    def broken(self, error: PenstockError) -> bytes | None:
        return responses_event(error, self._responses.sequence_number + 1)
