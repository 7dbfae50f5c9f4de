"""What is read of the Responses API, as msgspec needs to see it written.

Apart from the code that reads it, because that code is compiled.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.wire.openai_shapes import TokenCounts


class TextFormat(msgspec.Struct, gc=False):
    type: str
    name: str | None = None
    schema: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None
    description: str | None = None


class Logprob(msgspec.Struct, gc=False):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[Logprob] | None = None


class Logprobs(msgspec.Struct, gc=False):
    content: list[Logprob] | None = None


class PassingEvent(msgspec.Struct, gc=False):
    type: str = ""
    delta: Any = None
    response: msgspec.Raw = msgspec.Raw(b"null")
    sequence_number: int | None = None
    error: Any = None
    code: Any = None
    message: str | None = None
    param: str | None = None


class PassingItem(msgspec.Struct, gc=False):
    type: str = ""


class Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class PassingResponse(msgspec.Struct, gc=False):
    object: str | None = None
    status: str | None = None
    error: Any = None
    incomplete_details: Incomplete | None = None
    output: list[PassingItem] | None = None
    usage: TokenCounts | None = None
