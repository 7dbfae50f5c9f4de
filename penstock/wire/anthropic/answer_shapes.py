"""What is read of Claude's answers, as msgspec needs to see it written: whole, in passing, and what it cost.

Apart from the code that reads it, because that code is compiled.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Writes(msgspec.Struct, gc=False):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class Counted(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class Tokens(msgspec.Struct, gc=False):
    """As they come, and all may be left out."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: Writes | None = None
    output_tokens_details: Counted | None = None


class Told(msgspec.Struct, gc=False):
    """The `error` of an error body or event."""

    type: str = ""
    message: str = ""


class ErrorBody(msgspec.Struct, gc=False):
    error: Told


# --- read whole -------------------------------------------------------------------------------------------------------


class Block(msgspec.Struct, gc=False):
    type: str
    text: str = ""
    citations: list[msgspec.Raw] | None = None
    thinking: str = ""
    signature: str = ""
    data: object = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class StopDetails(msgspec.Struct, gc=False):
    explanation: str | None = None


class BlockDelta(msgspec.Struct, gc=False):
    """Of a block, or (the last three) of the message."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: msgspec.Raw = msgspec.Raw(b"null")
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class Answer(msgspec.Struct, gc=False):
    type: str = ""
    id: str = ""
    model: str = ""
    content: list[Block] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    usage: Tokens | None = None
    error: Told | None = None


class Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: Answer | None = None
    content_block: Block | None = None
    delta: BlockDelta | None = None
    usage: Tokens | None = None
    error: Told | None = None


# --- read in passing --------------------------------------------------------------------------------------------------


class PassingBlock(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""


class PassingDelta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class PassingAnswer(msgspec.Struct, gc=False):
    type: str = ""
    content: Any = None
    stop_reason: str | None = None
    usage: Tokens | None = None
    error: Told | None = None


class PassingStart(msgspec.Struct, gc=False):
    usage: Tokens | None = None


class PassingEvent(msgspec.Struct, gc=False):
    type: str = ""
    delta: PassingDelta | None = None
    content_block: PassingBlock | None = None
    usage: Tokens | None = None
    message: PassingStart | None = None
    error: Told | None = None


class CitationType(msgspec.Struct, gc=False):
    type: str = ""
