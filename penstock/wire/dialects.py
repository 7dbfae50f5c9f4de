"""Which module speaks which dialect on the caller's side, and how a request gets from one to another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec

from penstock.core.request import Endpoint, Request
from penstock.wire import anthropic, openai_hub, responses
from penstock.wire.canonical import AnswerReader, AnswerWriter, Ask, Asked, Losses
from penstock.wire.readings import Passing, Reading, Translated
from penstock.wire.special import PassingResponses
from penstock.wire.unary import Whole

Reader = TypeVar("Reader", bound=AnswerReader)
Asking = tuple[bytes, Reading, tuple[str, ...]]
"""The body to send, how to read the answer, and the caller's fields that were left out."""


class Speaks(NamedTuple):
    """A dialect of callers. `names` are its words for canonical fields, where they differ."""

    read_request: Callable[[dict[str, msgspec.Raw]], Ask]
    writer: Callable[[Asked], AnswerWriter]
    names: Mapping[str, str]


_OF_RESPONSES: Final = {
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}
CALLERS: Final[Mapping[Endpoint, Speaks]] = {
    Endpoint.CHAT: Speaks(openai_hub.read_request, openai_hub.ChatWriter, {"reasoning": "reasoning_effort"}),
    Endpoint.MESSAGES: Speaks(anthropic.read_request, anthropic.MessagesWriter, anthropic.NAMES),
    Endpoint.RESPONSES: Speaks(responses.read_request, responses.ResponsesWriter, _OF_RESPONSES),
}


def translated(
    request: Request,
    write: Callable[[Ask, Losses], bytes],
    reader: Callable[[Ask], Reader],
    lose: Collection[str],
    created: float,
    reading: Callable[[Reader, AnswerWriter], Translated] = Translated,
) -> Asking:
    """The request in another dialect, and how to read its answer back. Raises `BadRequest` for what cannot be said.

    `created` is Unix time, for dialects whose answers tell it.
    """
    caller = CALLERS[request.endpoint]
    losses = Losses(lose, caller.names)
    ask = caller.read_request(request.fields)
    body = write(ask, losses)
    writer = caller.writer(asked_of(request, created, ask))
    return body, reading(reader(ask), writer), tuple(losses.lost)


def asked_of(request: Request, created: float, ask: Ask | None = None) -> Asked:
    """What whoever writes the answer needs to know; settings are echoed as the caller wrote them."""
    fields = dict(request.fields)
    if request.follows is not None:
        fields["previous_response_id"] = msgspec.Raw(msgspec.json.encode(request.follows))
    return Asked(
        id=request.id.removeprefix("req_"),
        model=request.model,
        created=int(created),
        include_usage=request.include_usage,
        prompt_tokens=request.prompt_tokens,
        ask=ask,
        fields=fields,
    )


def passing(endpoint: Endpoint, served: msgspec.Raw | None) -> Callable[[Request], Asking]:
    """Messages and responses to an upstream that has them itself."""
    body = (
        responses.upstream_body if endpoint in (Endpoint.RESPONSES, Endpoint.INPUT_TOKENS) else anthropic.upstream_body
    )
    if endpoint is Endpoint.RESPONSES:
        return lambda request: (body(request, served), PassingResponses(responses.ResponsesMeter()), ())
    if endpoint is Endpoint.MESSAGES:
        return lambda request: (body(request, served), Passing(anthropic.MessagesMeter()), ())
    return lambda request: (body(request, served), Whole(), ())


COUNTED_AS: Final[Mapping[Endpoint, Endpoint]] = {
    Endpoint.COUNT_TOKENS: Endpoint.MESSAGES,
    Endpoint.INPUT_TOKENS: Endpoint.RESPONSES,
}
"""Endpoints that count the tokens of a request, and the endpoint whose request it is."""
