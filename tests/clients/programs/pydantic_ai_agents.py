"""Pydantic AI. The argument is the kind of model: openai-chat, openai-responses or anthropic."""

import sys
from typing import Any

from anthropic import AsyncAnthropic
from cases import ASK, GREET, Target, get_weather, main, streamed
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Weather(BaseModel):
    city: str
    degrees: int


def model(target: Target) -> Model:
    if sys.argv[1] == "anthropic":
        anthropic = AsyncAnthropic(base_url=target.origin, api_key="sk-canary-client", max_retries=0)
        return AnthropicModel(target.model, provider=AnthropicProvider(anthropic_client=anthropic))
    openai = AsyncOpenAI(base_url=f"{target.origin}/v1", api_key="sk-canary-client", max_retries=0)
    kind = OpenAIChatModel if sys.argv[1] == "openai-chat" else OpenAIResponsesModel
    return kind(target.model, provider=OpenAIProvider(openai_client=openai))


def chat(target: Target) -> str:
    return Agent(model(target), instructions="Be brief.").run_sync(GREET).output


def stream(target: Target) -> Any:
    answer = Agent(model(target)).run_stream_sync(GREET)
    return streamed(answer.stream_text(delta=True, debounce_by=None))


def tools(target: Target) -> str:
    return Agent(model(target), tools=[get_weather]).run_sync(ASK).output


def schema(target: Target) -> Any:
    """In both ways it has: as a tool, and as the provider's own structured output."""
    as_tool = Agent(model(target), output_type=Weather).run_sync(GREET).output
    native = Agent(model(target), output_type=NativeOutput(Weather)).run_sync(GREET).output
    assert as_tool == native
    return native.model_dump()


main({"chat": chat, "stream": stream, "tools": tools, "schema": schema})
