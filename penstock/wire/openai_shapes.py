"""What is read of OpenAI's JSON: only what the gateway needs, so that all else is skipped in C.

Apart from the code that reads them, because that code is compiled and msgspec must see these types as they are written.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.errors import Said


class StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class TokenDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class TokenCounts(msgspec.Struct, gc=False):
    """`usage` of completions and of responses, which call the same things by different names.

    Parts of the prompt with a price of their own are told in several ways: OpenAI and who follows it in the details
    (https://platform.openai.com/docs/guides/prompt-caching), OpenRouter writes to a cache beside them
    (https://openrouter.ai/docs/use-cases/usage-accounting), DeepSeek its hits next to the total, of which they are part
    (https://api-docs.deepseek.com/guides/kv_cache), LiteLLM under Anthropic's name.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: TokenDetails | None = None
    output_tokens_details: TokenDetails | None = None
    cache_creation_input_tokens: int | None = None  # LiteLLM and others in front of Claude
    prompt_cache_hit_tokens: int | None = None  # DeepSeek


class Delta(msgspec.Struct, gc=False):
    """Only what tells a token from an empty gesture; a role alone is none. Any type: some servers send parts."""

    content: Any = None
    tool_calls: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    function_call: Any = None
    audio: Any = None


class Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: Delta | None = None
    text: str | None = None  # completions
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] | None = None
    usage: TokenCounts | None = None
    error: Any = None


class Wrapped(msgspec.Struct):
    error: Said


class Counts(msgspec.Struct, gc=False):
    """Of embeddings, rerank, transcriptions, images: each has its own names for the same thing."""

    prompt_tokens: int | None = None
    input_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None


class Unary(msgspec.Struct, gc=False):
    usage: Counts | None = None
    error: Any = None


class Tokens(msgspec.Struct):
    """Of an engine's `/tokenize`."""

    count: int
