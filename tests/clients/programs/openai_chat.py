"""openai-python, chat completions."""

import json

from cases import ASK, DESCRIPTION, GREET, PARAMETERS, WEATHER, Target, get_weather, main, streamed
from openai import OpenAI


def client(target: Target) -> OpenAI:
    return OpenAI(base_url=f"{target.origin}/v1", api_key="sk-canary-client", max_retries=0)


def chat(target: Target) -> str | None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": GREET}]
    answer = client(target).chat.completions.create(model=target.model, messages=said, max_completion_tokens=64)
    assert answer.usage is not None and answer.usage.total_tokens == 22
    return answer.choices[0].message.content


def stream(target: Target) -> object:
    said = [{"role": "user", "content": GREET}]
    with client(target).chat.completions.stream(
        model=target.model, messages=said, stream_options={"include_usage": True}
    ) as events:
        told = streamed([event.delta for event in events if event.type == "content.delta"])
        answer = events.get_final_completion()
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens == 22
    return told


def tools(target: Target) -> str | None:
    said = [{"role": "user", "content": ASK}]
    offered = [
        {"type": "function", "function": {"name": "get_weather", "description": DESCRIPTION, "parameters": PARAMETERS}}
    ]
    for _ in range(4):
        answer = client(target).chat.completions.create(model=target.model, messages=said, tools=offered)
        message = answer.choices[0].message
        if not message.tool_calls:
            return message.content
        assert answer.choices[0].finish_reason == "tool_calls"
        said.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = get_weather(**json.loads(call.function.arguments))
            said.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise AssertionError("it went on calling")


def schema(target: Target) -> object:
    answer = client(target).chat.completions.create(
        model=target.model,
        messages=[{"role": "user", "content": GREET}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "weather", "schema": WEATHER, "strict": True},
        },
    )
    return json.loads(answer.choices[0].message.content or "")


main({"chat": chat, "stream": stream, "tools": tools, "schema": schema})
