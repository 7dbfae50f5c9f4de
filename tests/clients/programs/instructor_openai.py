"""Instructor on openai-python: structured answers as tool calls."""

import json

import instructor
from cases import ASK, DESCRIPTION, GREET, PARAMETERS, Target, get_weather, main, streamed
from openai import OpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    city: str
    degrees: int


def client(target: Target) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=f"{target.origin}/v1", api_key="sk-canary-client", max_retries=0))


def chat(target: Target) -> str:
    said = [{"role": "user", "content": GREET}]
    answer = client(target).chat.completions.create(model=target.model, messages=said, response_model=None)
    return answer.choices[0].message.content


def stream(target: Target) -> object:
    """Its own kind of stream: an object that fills up."""
    said = [{"role": "user", "content": GREET}]
    seen = list(client(target).create_partial(model=target.model, messages=said, response_model=Weather))
    assert seen[-1].model_dump() == {"city": "Paris", "degrees": 21}
    plain = client(target).client.chat.completions.create(model=target.model, messages=said, stream=True)
    return streamed([choice.delta.content or "" for chunk in plain for choice in chunk.choices])


def tools(target: Target) -> str:
    said = [{"role": "user", "content": ASK}]
    offered = [
        {"type": "function", "function": {"name": "get_weather", "description": DESCRIPTION, "parameters": PARAMETERS}}
    ]
    for _ in range(4):
        answer = client(target).chat.completions.create(
            model=target.model, messages=said, tools=offered, response_model=None
        )
        message = answer.choices[0].message
        if not message.tool_calls:
            return message.content
        said.append({"content": None, **message.model_dump(exclude_none=True)})  # it reads `content` itself
        for call in message.tool_calls:
            result = get_weather(**json.loads(call.function.arguments))
            said.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise AssertionError("it went on calling")


def schema(target: Target) -> object:
    said = [{"role": "user", "content": GREET}]
    return client(target).create(model=target.model, messages=said, response_model=Weather).model_dump()


main({"chat": chat, "stream": stream, "tools": tools, "schema": schema})
