"""Bodies to parameters: whatever is sent is either understood or refused with a reason, never a crash and never
ignored.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, PenstockError
from penstock.engine.api import (
    DEFAULTS,
    ChatRequest,
    CompletionRequest,
    Unsupported,
    messages_of,
    prompt_of,
    read,
    sampling_of,
)
from penstock.engine.sampling import SamplingParams

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def sampling(shape: Any = ChatRequest, prompt_tokens: int = 10, **fields: Any) -> SamplingParams:
    body = CHAT if shape is ChatRequest else {"prompt": "hi"}
    request = read(json.dumps({**body, **fields}).encode(), shape)
    return sampling_of(request, prompt_tokens=prompt_tokens, max_model_len=100, vocab_size=50, seed=77)


def test_without_any_wish_a_chat_may_fill_the_context_and_a_completion_has_sixteen_tokens():
    assert sampling().max_tokens == 90
    assert sampling(CompletionRequest).max_tokens == 16
    assert sampling(CompletionRequest, prompt_tokens=95).max_tokens == 5
    assert (sampling().temperature, sampling().seed) == (1.0, 77)


def test_the_newer_name_for_max_tokens_goes_first():
    assert sampling(max_tokens=5, max_completion_tokens=7).max_tokens == 7


def test_every_sampling_field_arrives():
    assert sampling(
        max_tokens=3,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        min_p=0.1,
        seed=-1,
        frequency_penalty=0.2,
        presence_penalty=-0.2,
        logit_bias={"7": -1},
        stop="x",
        stop_token_ids=[3],
        ignore_eos=True,
        logprobs=True,
        top_logprobs=2,
    ) == SamplingParams(
        max_tokens=3,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        min_p=0.1,
        seed=2**64 - 1,
        frequency_penalty=0.2,
        presence_penalty=-0.2,
        logit_bias={7: -1.0},
        stop=("x",),
        stop_token_ids=frozenset({3}),
        ignore_eos=True,
        logprobs=2,
    )


def test_no_top_k_may_be_said_in_both_ways():
    assert sampling(top_k=-1).top_k == sampling(top_k=0).top_k == 0


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_what_is_not_supported_is_accepted_only_with_the_value_that_changes_nothing(name):
    for default in (None, *DEFAULTS[name]):
        sampling(**{name: default})
    with pytest.raises(Unsupported, match=name):
        sampling(**{name: "something else"})


def test_text_parts_become_one_text_and_developers_speak_for_the_system():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = ChatRequest(
        messages=[{"role": "developer", "content": parts}, {"role": "user", "content": "c", "name": "x"}]
    )
    assert messages_of(request) == [{"role": "system", "content": "ab"}, {"role": "user", "content": "c"}]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user"},
        {"role": "user", "content": 5},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "tool", "content": "x", "tool_call_id": "1"},
        {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]},
        {"role": ["user"], "content": "x"},
        {},
    ],
)
def test_a_message_that_cannot_be_shown_to_the_model_is_refused_with_its_place(message):
    with pytest.raises(BadRequest, match=r"messages\[1\]"):
        messages_of(ChatRequest(messages=[{"role": "user", "content": "x"}, message]))


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [("a", "a"), (["a"], "a"), ([1, 2], [1, 2]), ([[1, 2]], [1, 2]), ([], [])],
)
def test_one_prompt_can_be_said_in_several_ways(prompt, meant):
    assert prompt_of(CompletionRequest(prompt=prompt)) == meant


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], [1, "a"], [True], [1.5], [{}]])
def test_several_prompts_or_none_are_refused(prompt):
    with pytest.raises(BadRequest) as refusal:
        prompt_of(CompletionRequest(prompt=prompt))
    assert refusal.value.param == "prompt"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        *(
            "messages",
            "prompt",
            "model",
            "stream",
            "stream_options",
            "max_tokens",
            "max_completion_tokens",
            "temperature",
        ),
        *("top_p", "top_k", "min_p", "seed", "frequency_penalty", "logit_bias", "stop", "stop_token_ids", "logprobs"),
        *("top_logprobs", "n", "tools", "user", "response_format", "cache_salt", "role", "content", "nonsense"),
    ]
)


@given(st.sampled_from([ChatRequest, CompletionRequest]), st.dictionaries(names, values, max_size=5), st.booleans())
def test_any_json_object_is_understood_or_refused(shape, fields, sensible):
    if sensible:
        fields = {**CHAT, **fields} if shape is ChatRequest else {"prompt": "hi", **fields}
    try:
        request = read(json.dumps(fields).encode(), shape)
        if isinstance(request, ChatRequest):
            messages_of(request)
        else:
            prompt_of(request)
        sampling_of(request, prompt_tokens=10, max_model_len=100, vocab_size=50, seed=1)
    except PenstockError as error:
        assert 400 <= error.status < 500  # noqa: PT017  either outcome is right


@given(st.binary(max_size=60))
@example(b'{"messages": "\xff"}')
def test_any_bytes_are_understood_or_refused(body):
    with pytest.raises(BadRequest):
        read(body, ChatRequest)
