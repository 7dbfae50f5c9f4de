"""What is read of chat completions on their way into the hub, as msgspec needs to see it written.

Apart from the code that reads it, because that code is compiled.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.wire.openai_shapes import TokenCounts
from penstock.wire.prompts import NULL


class AskedSchema(msgspec.Struct, gc=False):
    name: str | None = None
    schema: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None
    description: str | None = None


class AskedFormat(msgspec.Struct, gc=False):
    type: str
    json_schema: AskedSchema | None = None


class AskedThinking(msgspec.Struct, gc=False):
    type: str
    budget_tokens: int | None = None


# --- answers ----------------------------------------------------------------------------------------------------------


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallSaid(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: Function | None = None
    extra_content: Any = None


class Said(msgspec.Struct, gc=False):
    """A delta, or the message of a plain answer."""

    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM, SGLang
    reasoning: str | None = None  # vLLM's newer name, Groq, OpenRouter
    reasoning_details: list[dict[str, Any]] | None = None  # OpenRouter
    thinking_blocks: list[dict[str, Any]] | None = None  # LiteLLM, and Penstock
    refusal: str | None = None
    tool_calls: list[CallSaid] | None = None
    function_call: Function | None = None


class Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None  # vLLM: the stop text that was met, or a token's id
    logprobs: msgspec.Raw = NULL


class Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    created: float | None = None
    object: str | None = None
    choices: list[Choice] | None = None
    usage: TokenCounts | None = None
    error: Any = None
    message: Any = None  # of an error without its wrapping, as older vLLM sends it
