"""What is heard of answers on their way, and what of them their callers see."""

import json
from math import log

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.request import ANYONE, Endpoint
from penstock.wire import openai_chat
from penstock.wire.heard import AS_IT_COMES, HIDDEN, Heard, asking_for_probabilities


def request(endpoint=Endpoint.CHAT, **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi"} | fields
    return openai_chat.parse(json.dumps(body).encode(), id="1", endpoint=endpoint, caller=ANYONE, now=0.0)


@pytest.mark.parametrize(
    ("endpoint", "said", "sent", "shown"),
    [
        (Endpoint.CHAT, {}, {"logprobs": True, "top_logprobs": 2}, HIDDEN),
        (Endpoint.CHAT, {"logprobs": False}, {"logprobs": True, "top_logprobs": 2}, HIDDEN),
        (Endpoint.CHAT, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2}, 0),
        (Endpoint.CHAT, {"logprobs": True, "top_logprobs": 1}, {"logprobs": True, "top_logprobs": 2}, 1),
        (Endpoint.CHAT, {"logprobs": True, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}, AS_IT_COMES),
        (Endpoint.COMPLETION, {}, {"logprobs": 2}, HIDDEN),
        (Endpoint.COMPLETION, {"logprobs": 0}, {"logprobs": 2}, 0),
        (Endpoint.COMPLETION, {"logprobs": 3}, {"logprobs": 3}, AS_IT_COMES),
        (Endpoint.CHAT, {"top_logprobs": "many"}, {"logprobs": True, "top_logprobs": 2}, HIDDEN),
    ],
)
def test_probabilities_are_asked_for_and_their_caller_sees_what_they_asked_for(endpoint, said, sent, shown):
    asked, found = asking_for_probabilities(request(endpoint, **said))
    fields = {name: msgspec.json.decode(raw) for name, raw in asked.fields.items() if "logprobs" in name}
    assert (fields, found) == (sent, shown)


TOP = [{"token": "a", "logprob": log(0.6)}, {"token": "b", "logprob": log(0.3)}, {"token": "c", "logprob": log(0.1)}]
IN_CHAT = {"content": [{"token": "a", "logprob": log(0.6), "bytes": [97], "top_logprobs": TOP}], "refusal": None}
IN_COMPLETIONS = {
    "tokens": ["a"], "token_logprobs": [log(0.6)], "top_logprobs": [{"a": log(0.6), "b": log(0.3), "c": -9.0}],
    "text_offset": [0],
}  # fmt: skip


def chunk(delta, **more):
    return {"id": "x", "unheard_of": 1.50, "choices": [{"index": 0, "delta": delta, **more}]}


def events(*payloads):
    return b"".join(b"data: %b\n\n" % json.dumps(payload).encode() for payload in payloads)


def test_texts_and_probabilities_are_heard_of_a_stream_and_only_the_probabilities_are_taken_out():
    heard = Heard(Endpoint.CHAT, HIDDEN)
    block = b": ping\n\n" + events(chunk({"content": "a"}, logprobs=IN_CHAT), chunk({"content": "b"}, logprobs=None))
    told = heard.events(block + b"data: [DONE]\n\n")
    assert heard.text == "ab"
    assert heard.likely == [(pytest.approx(log(0.6)), pytest.approx(log(0.3)))]
    assert told.startswith(b": ping\n\ndata: {")
    assert told.endswith(b"data: [DONE]\n\n")
    first = json.loads(told.split(b"\n\n")[1][6:])
    assert first == chunk({"content": "a"}, logprobs=None)
    assert b"1.5," in told, "what is not ours is as it came"


def test_of_the_likeliest_tokens_as_many_are_shown_as_were_asked_for():
    body = json.dumps({"choices": [{"message": {"content": "a"}, "logprobs": IN_CHAT}]}).encode()
    shown = json.loads(Heard(Endpoint.CHAT, 1).whole(body))["choices"][0]["logprobs"]
    assert shown["content"][0]["top_logprobs"] == TOP[:1]
    assert shown["content"][0]["bytes"] == [97]
    body = json.dumps({"choices": [{"text": "a", "logprobs": IN_COMPLETIONS}]}).encode()
    heard = Heard(Endpoint.COMPLETION, 1)
    assert json.loads(heard.whole(body))["choices"][0]["logprobs"]["top_logprobs"] == [{"a": log(0.6)}]
    assert (heard.text, heard.likely) == ("a", [(log(0.6), log(0.3))])
    assert Heard(Endpoint.CHAT).whole(body) is body


def test_only_the_first_choice_is_read_and_a_call_of_a_tool_is_heard():
    heard = Heard(Endpoint.CHAT)
    two = [{"index": 1, "message": {"content": "second"}}, {"index": 0, "message": {"content": "first"}}]
    heard.whole(json.dumps({"choices": two}).encode())
    assert (heard.text, heard.called_tools) == ("first", False)
    heard.whole(json.dumps({"choices": [{"message": {"content": None, "tool_calls": [{"id": "x"}]}}]}).encode())
    assert heard.called_tools


MESSAGE = {"content": [{"type": "text", "text": "hello"}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
OF_MESSAGES = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
]
RESPONSE = {
    "object": "response",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hello"}]}, {"type": "function_call"}],
}
OF_RESPONSES = [
    {"type": "response.output_text.delta", "delta": "hel"},
    {"type": "response.output_text.delta", "delta": "lo"},
    {"type": "response.output_text.done", "text": "hello"},
    {"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}},
    {"type": "response.completed", "response": RESPONSE},
]


@pytest.mark.parametrize(
    ("endpoint", "whole", "streamed"),
    [(Endpoint.MESSAGES, MESSAGE, OF_MESSAGES), (Endpoint.RESPONSES, RESPONSE, OF_RESPONSES)],
)
def test_every_dialect_of_callers_is_understood_and_passed_on_as_it_is(endpoint, whole, streamed):
    body = json.dumps(whole).encode()
    heard = Heard(endpoint, HIDDEN)
    assert heard.whole(body) is body
    assert (heard.text, heard.called_tools) == ("hello", True)
    block = b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in streamed)
    heard = Heard(endpoint, HIDDEN)
    assert heard.events(block) == block
    assert (heard.text, heard.called_tools) == ("hello", True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "delta", "logprobs", "content", "token", "top_logprobs"]), inner)
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from(Endpoint), st.sampled_from([HIDDEN, AS_IT_COMES, 0, 1]))
def test_what_cannot_be_understood_never_raises(value, endpoint, shown):
    body = json.dumps({"choices": [value]} if isinstance(value, dict) else value).encode()
    told = Heard(endpoint, shown).whole(body)
    assert told == body or (shown != AS_IT_COMES and json.loads(told).keys() == json.loads(body).keys())
    assert Heard(endpoint, shown).events(b"data: " + body + b"\n\n").endswith(b"\n\n")
