"""The clients that Penstock is tried with, and how each tells its user about errors."""

from __future__ import annotations

from typing import Final

import msgspec

GPT: Final = "gpt-6-astra"
CLAUDE: Final = "claude-opus-5-5"
MODELS: Final = (GPT, CLAUDE)


class Client(msgspec.Struct, frozen=True):
    """`program` is in programs/, with its arguments. `model`: clients do more for names that they know.

    `unknown` and `limited` are the names of the errors for a model that is not there and for a rate limit.
    """

    name: str
    program: str
    model: str
    unknown: str = "NotFoundError"
    limited: str = "RateLimitError"
    environment: str = "python"


_AGENT: Final = ("ModelNotFoundError", "ModelRateLimitError")
_AI_SDK: Final = ("AI_APICallError", "AI_APICallError")

CLIENTS: Final = (
    Client("openai-python", "openai_chat.py", GPT),
    Client("openai-python responses", "openai_responses.py", GPT),
    Client("anthropic-python", "anthropic_messages.py", CLAUDE),
    Client("instructor openai", "instructor_openai.py", GPT, environment="instructor"),
    Client("instructor anthropic", "instructor_anthropic.py", CLAUDE, environment="instructor"),
    Client("pydantic-ai openai", "pydantic_ai_agents.py openai-chat", GPT, *_AGENT),
    Client("pydantic-ai responses", "pydantic_ai_agents.py openai-responses", GPT, *_AGENT),
    Client("pydantic-ai anthropic", "pydantic_ai_agents.py anthropic", CLAUDE, *_AGENT),
    Client("langchain openai", "langchain_models.py openai", GPT, "OpenAIModelNotFoundError", "OpenAIRateLimitError"),
    Client(
        "langchain anthropic",
        "langchain_models.py anthropic",
        CLAUDE,
        "AnthropicModelNotFoundError",
        "AnthropicRateLimitError",
    ),
    Client("openai-node", "openai_chat.mjs", GPT),
    Client("openai-node responses", "openai_responses.mjs", GPT),
    Client("@anthropic-ai/sdk", "anthropic_messages.mjs", CLAUDE),
    Client("@ai-sdk/openai", "ai_sdk.mjs openai", GPT, *_AI_SDK),
    Client("@ai-sdk/openai-compatible", "ai_sdk.mjs openai-compatible", GPT, *_AI_SDK),
    Client("@ai-sdk/anthropic", "ai_sdk.mjs anthropic", CLAUDE, *_AI_SDK),
)
