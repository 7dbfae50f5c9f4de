"""LangChain. The argument is the kind of model: openai or anthropic."""

import sys
from typing import Any

from cases import ASK, GREET, Target, get_weather, main, streamed
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def model(target: Target) -> BaseChatModel:
    if sys.argv[1] == "anthropic":
        return ChatAnthropic(model=target.model, base_url=target.origin, api_key="sk-canary-client", max_retries=0)
    return ChatOpenAI(model=target.model, base_url=f"{target.origin}/v1", api_key="sk-canary-client", max_retries=0)


def chat(target: Target) -> str:
    answer = model(target).invoke([SystemMessage("Be brief."), HumanMessage(GREET)])
    assert answer.usage_metadata is not None and answer.usage_metadata["total_tokens"] == 22
    return answer.text


def stream(target: Target) -> Any:
    return streamed([chunk.text for chunk in model(target).stream(GREET)])


def tools(target: Target) -> str:
    asking, said = model(target).bind_tools([get_weather]), [HumanMessage(ASK)]
    for _ in range(4):
        answer = asking.invoke(said)
        if not answer.tool_calls:
            return answer.text
        said.append(answer)
        said += [ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]
    raise AssertionError("it went on calling")


def schema(target: Target) -> Any:
    """In both ways it has: as a tool, and as the provider's own structured output."""
    ways = [
        model(target).with_structured_output(Weather, method=method) for method in ("function_calling", "json_schema")
    ]
    as_tool, native = (way.invoke(GREET) for way in ways)
    assert as_tool == native
    return native.model_dump()


main({"chat": chat, "stream": stream, "tools": tools, "schema": schema})
