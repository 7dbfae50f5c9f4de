"""Claude in other companies' clouds: Anthropic's own Messages dialect, with the model in the path instead of the body.

Answers that are not streamed are Anthropic's; so are Vertex AI's streams. Bedrock wraps each event of a stream into an
event-stream message. Sources: Anthropic's pages on Claude in Amazon Bedrock and on Vertex AI.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.wire.converse_answer import failure_of_message
from penstock.wire.eventstream import Message
from penstock.wire.prompts import UNREADABLE

_BEDROCK_VERSION: Final = msgspec.Raw(b'"bedrock-2023-05-31"')
_VERTEX_VERSION: Final = msgspec.Raw(b'"vertex-2023-10-16"')
_encode = msgspec.json.Encoder().encode


class _Chunk(msgspec.Struct, gc=False):
    bytes: str = ""  # base64; a member `p` beside it is padding against guessing from lengths


_chunk = msgspec.json.Decoder(_Chunk).decode


def bedrock_path(served: str, *, stream: bool) -> str:
    """The model id is one segment: its slashes and colons are escaped. A signature escapes the path a second time."""
    return f"/model/{quote(served, safe='')}/{'invoke-with-response-stream' if stream else 'invoke'}"


def bedrock_body(fields: Mapping[str, msgspec.Raw], betas: Sequence[str] = ()) -> bytes:
    """A Messages request for `bedrock_path`. `betas` are feature flags, which Bedrock wants in the body; one that it
    does not know fails the whole request, so they must have been chosen for it."""
    body = {name: value for name, value in fields.items() if name not in ("model", "stream")}
    body["anthropic_version"] = _BEDROCK_VERSION
    if betas:
        body["anthropic_beta"] = msgspec.Raw(_encode(betas))
    return _encode(body)


def vertex_body(fields: Mapping[str, msgspec.Raw], model: msgspec.Raw | None = None) -> bytes:
    """A Messages request for rawPredict and streamRawPredict of Vertex AI. Feature flags go into the header
    anthropic-beta, as at Anthropic's.

    `model` only for counting tokens, whose path does not name it.
    """
    body = {name: value for name, value in fields.items() if name != "model"}
    body["anthropic_version"] = _VERTEX_VERSION
    if model is not None:
        body["model"] = model
    return _encode(body)


def unwrap_chunk(message: Message) -> bytes:
    """The event of Anthropic's in one message of Bedrock's stream; b"" where there is none.

    Raises `UpstreamError`: an exception, or not what it should be.
    """
    if message.kind != "event":
        raise failure_of_message(message)
    if message.name != "chunk":
        return b""
    try:
        return b64decode(_chunk(message.payload).bytes, validate=True)
    except (*UNREADABLE, NotBase64) as error:
        raise UpstreamError(FailureKind.BAD_PAYLOAD, f"chunk: {error}") from None
