"""Instructor on anthropic-python: structured answers as tool calls."""

import instructor
from anthropic import Anthropic
from cases import ASK, DESCRIPTION, GREET, PARAMETERS, Target, get_weather, main, streamed
from pydantic import BaseModel


class Weather(BaseModel):
    city: str
    degrees: int


def client(target: Target) -> instructor.Instructor:
    return instructor.from_anthropic(Anthropic(base_url=target.origin, api_key="sk-canary-client", max_retries=0))


def chat(target: Target) -> str:
    said = [{"role": "user", "content": GREET}]
    return client(target).create(model=target.model, messages=said, max_tokens=64, response_model=None).content[0].text


def stream(target: Target) -> object:
    """Its own kind of stream: an object that fills up."""
    said = [{"role": "user", "content": GREET}]
    seen = list(client(target).create_partial(model=target.model, messages=said, max_tokens=64, response_model=Weather))
    assert seen[-1].model_dump() == {"city": "Paris", "degrees": 21}
    with client(target).client.messages.stream(model=target.model, messages=said, max_tokens=64) as events:
        return streamed(list(events.text_stream))


def tools(target: Target) -> str:
    said = [{"role": "user", "content": ASK}]
    offered = [{"name": "get_weather", "description": DESCRIPTION, "input_schema": PARAMETERS}]
    for _ in range(4):
        answer = client(target).create(
            model=target.model, messages=said, max_tokens=64, tools=offered, response_model=None
        )
        asked = [block for block in answer.content if block.type == "tool_use"]
        if not asked:
            return answer.content[0].text
        said.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]})
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(**call.input)} for call in asked
        ]
        said.append({"role": "user", "content": results})
    raise AssertionError("it went on calling")


def schema(target: Target) -> object:
    said = [{"role": "user", "content": GREET}]
    return client(target).create(model=target.model, messages=said, max_tokens=64, response_model=Weather).model_dump()


main({"chat": chat, "stream": stream, "tools": tools, "schema": schema})
