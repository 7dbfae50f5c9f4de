"""anthropic-python."""

import json

from anthropic import Anthropic
from cases import ASK, DESCRIPTION, GREET, PARAMETERS, WEATHER, Target, get_weather, main, streamed


def client(target: Target) -> Anthropic:
    return Anthropic(base_url=target.origin, api_key="sk-canary-client", max_retries=0)


def chat(target: Target) -> str:
    answer = client(target).messages.create(
        model=target.model, max_tokens=64, system="Be brief.", messages=[{"role": "user", "content": GREET}]
    )
    assert answer.stop_reason == "end_turn"
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (11, 4, 7)
    return answer.content[0].text


def stream(target: Target) -> object:
    said = [{"role": "user", "content": GREET}]
    with client(target).messages.stream(model=target.model, max_tokens=64, messages=said) as events:
        told = streamed(list(events.text_stream))
        answer = events.get_final_message()
    assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 7)
    return told


def tools(target: Target) -> str:
    said = [{"role": "user", "content": ASK}]
    offered = [{"name": "get_weather", "description": DESCRIPTION, "input_schema": PARAMETERS}]
    for _ in range(4):
        answer = client(target).messages.create(model=target.model, max_tokens=64, messages=said, tools=offered)
        asked = [block for block in answer.content if block.type == "tool_use"]
        if not asked:
            return answer.content[0].text
        assert answer.stop_reason == "tool_use"
        said.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]})
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(**call.input)} for call in asked
        ]
        said.append({"role": "user", "content": results})
    raise AssertionError("it went on calling")


def schema(target: Target) -> object:
    answer = client(target).messages.create(
        model=target.model,
        max_tokens=64,
        messages=[{"role": "user", "content": GREET}],
        output_config={"format": {"type": "json_schema", "schema": WEATHER}},
    )
    return json.loads(answer.content[0].text)


main({"chat": chat, "stream": stream, "tools": tools, "schema": schema})
