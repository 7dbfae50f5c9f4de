"""openai-python, the Responses API."""

import json

from cases import ASK, DESCRIPTION, GREET, PARAMETERS, WEATHER, Target, get_weather, main, streamed
from openai import OpenAI


def client(target: Target) -> OpenAI:
    return OpenAI(base_url=f"{target.origin}/v1", api_key="sk-canary-client", max_retries=0)


def chat(target: Target) -> str:
    answer = client(target).responses.create(model=target.model, instructions="Be brief.", input=GREET)
    assert answer.status == "completed"
    assert answer.usage is not None and answer.usage.total_tokens == 22
    return answer.output_text


def stream(target: Target) -> object:
    with client(target).responses.stream(model=target.model, input=GREET) as events:
        told = streamed([event.delta for event in events if event.type == "response.output_text.delta"])
        assert events.get_final_response().status == "completed"
    return told


def tools(target: Target) -> str:
    said = [{"role": "user", "content": ASK}]
    offered = [
        {
            "type": "function",
            "name": "get_weather",
            "description": DESCRIPTION,
            "parameters": PARAMETERS,
            "strict": True,
        }
    ]
    for _ in range(4):
        answer = client(target).responses.create(model=target.model, input=said, tools=offered)
        asked = [item for item in answer.output if item.type == "function_call"]
        if not asked:
            return answer.output_text
        said += [item.model_dump(exclude_none=True) for item in answer.output]
        for call in asked:
            result = get_weather(**json.loads(call.arguments))
            said.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
    raise AssertionError("it went on calling")


def schema(target: Target) -> object:
    answer = client(target).responses.create(
        model=target.model,
        input=GREET,
        text={"format": {"type": "json_schema", "name": "weather", "schema": WEATHER, "strict": True}},
    )
    return json.loads(answer.output_text)


main({"chat": chat, "stream": stream, "tools": tools, "schema": schema})
