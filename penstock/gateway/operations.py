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
from penstock.gateway import parsing
from penstock.gateway.exchange import Exchange
from penstock.wire import errors


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


_OPENAI_PATHS: Final = {
    b"/v1/chat/completions": Operation(Endpoint.CHAT, OPENAI, parsing.chat),
    b"/v1/completions": Operation(Endpoint.COMPLETION, OPENAI, parsing.chat),
    b"/v1/responses": Operation(Endpoint.RESPONSES, OPENAI, parsing.responses),
    b"/v1/responses/input_tokens": Operation(Endpoint.INPUT_TOKENS, OPENAI, parsing.responses),
    b"/v1/embeddings": Operation(Endpoint.EMBEDDING, OPENAI, parsing.more),
    b"/v1/moderations": Operation(Endpoint.MODERATION, OPENAI, parsing.more),
    b"/v1/rerank": Operation(Endpoint.RERANK, OPENAI, parsing.more),
    b"/v1/audio/speech": Operation(Endpoint.SPEECH, BYTES, parsing.more),
    b"/v1/audio/transcriptions": Operation(Endpoint.TRANSCRIPTION, BYTES, parsing.form),
    b"/v1/audio/translations": Operation(Endpoint.TRANSLATION, BYTES, parsing.form),
    b"/v1/images/generations": Operation(Endpoint.IMAGE, BYTES, parsing.more),
    b"/v1/images/edits": Operation(Endpoint.IMAGE_EDIT, BYTES, parsing.form),
    b"/v1/images/variations": Operation(Endpoint.IMAGE_VARIATION, BYTES, parsing.form),
}
_ANTHROPIC_PATHS: Final = {
    b"/v1/messages": Operation(Endpoint.MESSAGES, ANTHROPIC, parsing.messages),
    b"/v1/messages/count_tokens": Operation(Endpoint.COUNT_TOKENS, ANTHROPIC, parsing.messages),
}
OPERATIONS: Final[dict[bytes, Operation]] = {
    **_OPENAI_PATHS,
    **_ANTHROPIC_PATHS,
    b"/tokenize": Operation(Endpoint.TOKENIZE, OPENAI, parsing.more),
    b"/detokenize": Operation(Endpoint.DETOKENIZE, OPENAI, parsing.more),
    b"/rerank": Operation(Endpoint.RERANK, OPENAI, parsing.more),
    b"/v2/rerank": Operation(Endpoint.RERANK, OPENAI, parsing.more),
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
    from penstock.wire.openapi import PAGES, document, of_endpoint  # few ever ask for it

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
