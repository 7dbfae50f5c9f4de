"""What each inference server can do and cannot: one row per name that may follow `software:`.

A row is believed without asking, so it holds only what the server's own documentation or source says.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.config.providers import COMPATIBLE, OF_ANTHROPIC, Quirk
from penstock.core.request import Endpoint


class Software(msgspec.Struct, frozen=True):
    native: tuple[Endpoint, ...]
    quirks: tuple[Quirk, ...] = ()
    health: str = "/health"
    metrics: str = "/metrics"


_GENERATE: Final = (Endpoint.CHAT, Endpoint.COMPLETION)
_TOKENS: Final = (Endpoint.TOKENIZE, Endpoint.DETOKENIZE)

SOFTWARE: Final = {
    # https://docs.vllm.ai/en/latest/serving/online_serving; unknown fields are logged and ignored
    # (vllm/entrypoints/openai/engine/protocol.py: extra="allow")
    "vllm": Software(
        (
            *_GENERATE,
            *OF_ANTHROPIC,
            *_TOKENS,
            Endpoint.RESPONSES,
            Endpoint.EMBEDDING,
            Endpoint.RERANK,
            Endpoint.TRANSCRIPTION,
            Endpoint.TRANSLATION,
        ),
        ("more_sampling", "continue_final_message", "counts_messages"),
    ),
    # https://docs.sglang.ai, python/sglang/srt/entrypoints/http_server.py. Its /v1/rerank answers in a form of its own,
    # and its /v1/responses has only part of that API: both are better translated, or refused.
    "sglang": Software(
        (*_GENERATE, *OF_ANTHROPIC, *_TOKENS, Endpoint.EMBEDDING, Endpoint.TRANSCRIPTION),
        ("more_sampling", "continue_final_message"),
    ),
    # https://huggingface.github.io/text-generation-inference, router/src/lib.rs: ChatRequest has `max_tokens` only; its
    # /tokenize is of another form; integration-tests/models/test_continue_final_message.py
    "tgi": Software(_GENERATE, ("max_tokens_only", "prefill")),
    # tools/server/README.md of ggml-org/llama.cpp: "prefilling of assistant messages"; its /tokenize is of another form
    "llama.cpp": Software(
        (*_GENERATE, *OF_ANTHROPIC, Endpoint.RESPONSES, Endpoint.EMBEDDING, Endpoint.RERANK),
        ("more_sampling", "prefill"),
    ),
    # https://docs.ollama.com/api/openai-compatibility, .../anthropic-compatibility (no token counting); "/" answers 200
    "ollama": Software(
        (*_GENERATE, Endpoint.MESSAGES, Endpoint.RESPONSES, Endpoint.EMBEDDING),
        ("max_tokens_only",),
        health="/",
        metrics="off",
    ),
    # tensorrt_llm/serve/openai_protocol.py: extra="forbid"
    "tensorrt-llm": Software((*_GENERATE, Endpoint.RESPONSES), ("more_sampling", "strict")),
    # another gateway like this one
    "penstock": Software(
        (*COMPATIBLE, *OF_ANTHROPIC, Endpoint.RESPONSES, Endpoint.INPUT_TOKENS), health="/readyz", metrics="off"
    ),
}

EMBEDDED: Final = Software((*_GENERATE, *_TOKENS), ("more_sampling", "resume_token_ids", "counts_messages", "strict"))
"""The engine that Penstock starts itself: penstock/engine/api.py."""
