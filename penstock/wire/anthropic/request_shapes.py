"""What is read of a Messages request, as msgspec needs to see it written.

Apart from the code that reads it, because that code is compiled.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from penstock.wire.canonical import Cache
from penstock.wire.prompts import NULL


class CacheControl(msgspec.Struct, gc=False):
    ttl: Cache = "5m"


class Choice(msgspec.Struct, gc=False):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Tool(msgspec.Struct, gc=False):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = NULL  # not `Raw | None`: msgspec would take only null
    strict: bool | None = None
    cache_control: CacheControl | None = None
    allowed_callers: msgspec.Raw = NULL
    defer_loading: msgspec.Raw = NULL
    eager_input_streaming: msgspec.Raw = NULL
    input_examples: msgspec.Raw = NULL


class Thinking(msgspec.Struct, gc=False):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: str | None = None


class Format(msgspec.Struct, gc=False):
    type: Literal["json_schema"]
    schema: msgspec.Raw


class Block(msgspec.Struct, gc=False):
    """Any block: which members it has depends on its type. What other types put there is not looked at."""

    type: str
    text: str | None = None
    cache_control: CacheControl | None = None
    citations: msgspec.Raw = NULL
    source: msgspec.Raw = NULL
    title: msgspec.Raw = NULL
    context: msgspec.Raw = NULL
    transformations: msgspec.Raw = NULL
    thinking: str | None = None
    signature: str | None = None
    data: msgspec.Raw = NULL
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = NULL
    caller: msgspec.Raw = NULL
    toolset_name: msgspec.Raw = NULL
    tool_use_id: str | None = None
    content: msgspec.Raw = NULL
    is_error: bool | None = None


class Turn(msgspec.Struct, gc=False):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]
    output_config: msgspec.Raw = NULL
    clear_at: msgspec.Raw = NULL


class Source(msgspec.Struct, gc=False):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: msgspec.Raw = NULL


class CalledBy(msgspec.Struct, gc=False):
    type: str = "direct"
