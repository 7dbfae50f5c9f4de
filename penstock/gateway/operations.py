"""The table of paths that reach a model: which endpoint each is, how its body is read, whose words its errors are in.

Every path that can cost money is here and nowhere else, so that all of them pass the same gate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from penstock import __version__
from penstock.core.errors import PenstockError
from penstock.core.request import Caller, Endpoint, Request
from penstock.gateway.exchange import Exchange
from penstock.wire import anthropic, errors, openai_chat, openai_more, responses
from penstock.wire.openapi import PAGES, document, of_endpoint


class Dialect(msgspec.Struct, frozen=True):
    """How a caller is told that something went wrong. The last argument is the request's id, "" before there is one.

    `event` is the last event of a stream that broke; None: the answer has no events, so its connection is cut.
    """

    status: Callable[[PenstockError], int]
    body: Callable[[PenstockError, str], bytes]
    event: Callable[[PenstockError, str], bytes] | None


OPENAI: Final = Dialect(errors.openai_status, errors.openai_body, errors.openai_event)
BYTES: Final = Dialect(errors.openai_status, errors.openai_body, None)
ANTHROPIC: Final = Dialect(errors.anthropic_status, errors.anthropic_body, errors.anthropic_event)

Parse = Callable[[Exchange, str, Endpoint, Caller, float, str], Request]
"""Exchange, request id, endpoint, caller, now, and the model where the path has named it. Raises `BadRequest`."""


class Operation(msgspec.Struct, frozen=True):
    endpoint: Endpoint
    dialect: Dialect
    parse: Parse


def _chat(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    return openai_chat.parse(exchange.body, id=id, endpoint=endpoint, caller=caller, now=now, model=model)


def _more(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    return openai_more.parse(exchange.body, id=id, endpoint=endpoint, caller=caller, now=now, model=model)


def _form(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    kind = exchange.header(b"content-type") or b""
    return openai_more.parse_form(exchange.body, kind, id=id, endpoint=endpoint, caller=caller, now=now, model=model)


def _responses(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    return responses.parse(exchange.body, id=id, endpoint=endpoint, caller=caller, now=now)


def _messages(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    request = anthropic.parse(exchange.body, id=id, endpoint=endpoint, caller=caller, now=now)
    version, betas = exchange.header(b"anthropic-version"), exchange.header(b"anthropic-beta")
    if version is None and betas is None:
        return request
    return msgspec.structs.replace(
        request,
        version="" if version is None else version.decode("latin-1"),
        betas=() if betas is None else tuple(flag.strip() for flag in betas.decode("latin-1").split(",")),
    )


_OPENAI_PATHS: Final = {
    b"/v1/chat/completions": Operation(Endpoint.CHAT, OPENAI, _chat),
    b"/v1/completions": Operation(Endpoint.COMPLETION, OPENAI, _chat),
    b"/v1/responses": Operation(Endpoint.RESPONSES, OPENAI, _responses),
    b"/v1/responses/input_tokens": Operation(Endpoint.INPUT_TOKENS, OPENAI, _responses),
    b"/v1/embeddings": Operation(Endpoint.EMBEDDING, OPENAI, _more),
    b"/v1/moderations": Operation(Endpoint.MODERATION, OPENAI, _more),
    b"/v1/rerank": Operation(Endpoint.RERANK, OPENAI, _more),
    b"/v1/audio/speech": Operation(Endpoint.SPEECH, BYTES, _more),
    b"/v1/audio/transcriptions": Operation(Endpoint.TRANSCRIPTION, BYTES, _form),
    b"/v1/audio/translations": Operation(Endpoint.TRANSLATION, BYTES, _form),
    b"/v1/images/generations": Operation(Endpoint.IMAGE, BYTES, _more),
    b"/v1/images/edits": Operation(Endpoint.IMAGE_EDIT, BYTES, _form),
    b"/v1/images/variations": Operation(Endpoint.IMAGE_VARIATION, BYTES, _form),
}
_ANTHROPIC_PATHS: Final = {
    b"/v1/messages": Operation(Endpoint.MESSAGES, ANTHROPIC, _messages),
    b"/v1/messages/count_tokens": Operation(Endpoint.COUNT_TOKENS, ANTHROPIC, _messages),
}
OPERATIONS: Final[dict[bytes, Operation]] = {
    **_OPENAI_PATHS,
    **_ANTHROPIC_PATHS,
    b"/tokenize": Operation(Endpoint.TOKENIZE, OPENAI, _more),
    b"/detokenize": Operation(Endpoint.DETOKENIZE, OPENAI, _more),
    b"/rerank": Operation(Endpoint.RERANK, OPENAI, _more),
    b"/v2/rerank": Operation(Endpoint.RERANK, OPENAI, _more),
    **{b"/openai" + path: operation for path, operation in _OPENAI_PATHS.items()},
    **{b"/anthropic" + path: operation for path, operation in _ANTHROPIC_PATHS.items()},
}
"""All POST. The drop-in prefixes are for clients whose base URL ends in a provider's name."""

_AZURE: Final = b"/openai/deployments/"
_NOT_AT_AZURES: Final = (Endpoint.RESPONSES, Endpoint.INPUT_TOKENS)


def azure(path: bytes) -> tuple[Operation, str] | None:
    """`/openai/deployments/{model}/chat/completions` and its like: the model is named by the path."""
    if not path.startswith(_AZURE):
        return None
    model, slash, rest = path[len(_AZURE) :].partition(b"/")
    operation = _OPENAI_PATHS.get(b"/v1/" + rest)
    if not model or not slash or operation is None or operation.endpoint in _NOT_AT_AZURES:
        return None
    return operation, model.decode("latin-1")


def openapi(keys: bool) -> bytes:
    """The OpenAPI document of all that is served. `keys`: callers need one."""
    deployments = {
        f"{_AZURE.decode()}{{model}}/{path.decode().removeprefix('/v1/')}": operation.endpoint
        for path, operation in _OPENAI_PATHS.items()
        if operation.endpoint not in _NOT_AT_AZURES
    }
    paths = {path.decode(): operation.endpoint for path, operation in OPERATIONS.items()}
    rows = [of_endpoint(path, endpoint) for path, endpoint in (paths | deployments).items()]
    return msgspec.json.encode(document([*rows, *PAGES], version=__version__, keys=keys))


def words_for(exchange: Exchange) -> Dialect:
    """Whose words an error is told in where the path does not say: Anthropic's clients name their API version."""
    if exchange.path.startswith((b"/anthropic/", b"/v1/messages")) or exchange.header(b"anthropic-version") is not None:
        return ANTHROPIC
    return OPENAI
