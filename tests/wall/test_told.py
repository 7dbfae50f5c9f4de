"""What a caller was told is read as strictly as the best client libraries read it."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.testing.faults.told import READERS, Events, Told
from penstock.testing.faults.voices import COST, TEXT, TOKENS, AnthropicVoice, OpenAIVoice


def whole(voice):
    return [*voice.opening(), *map(voice.token, TOKENS), *voice.finish("stop"), *voice.usage(COST), voice.end()]


def read(dialect, stream):
    told = Told(asked_at=0.0, status=200)
    reader = READERS[dialect](told)
    for name, data in Events().feed(stream):
        reader.event(name, data, 1.0)
    return told


@pytest.mark.parametrize("voice", [OpenAIVoice(), AnthropicVoice()], ids=lambda voice: voice.dialect)
def test_what_a_healthy_upstream_says_is_read_back_whole(voice):
    told = read(voice.dialect, b"".join(whole(voice)))
    assert (told.text, told.finish, told.cost, told.terminal) == (TEXT, "stop", COST, True)
    assert told.complaints == []


@given(st.lists(st.integers(0, 4000), max_size=8))
def test_events_are_the_same_wherever_the_network_cuts_them(cuts):
    stream = b"\xef\xbb\xbf" + b"".join(whole(AnthropicVoice())).replace(b"\n", b"\r\n")
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = Events()
    pieces = [event for a, b in pairwise(edges) for event in events.feed(stream[a:b])]
    assert pieces == Events().feed(stream)


def anthropic(*values):
    return b"".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values)


START = {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
TEXT_DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
STOP = {"type": "message_stop"}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([BLOCK], "content_block_start before message_start"),
        ([START, START], "a second message_start"),
        ([START, TEXT_DELTA], "a delta for a block that is not open"),
        ([START, BLOCK, {**BLOCK, "index": 1}], "two blocks open at a time"),
        ([START, {**BLOCK, "index": 1}], "block indexes that are not 0, 1, 2, ..."),
        ([START, BLOCK, END], "message_delta while a block is open"),
        ([START, STOP], "message_stop without message_delta"),
        ([START, END, STOP, BLOCK], "events after message_stop"),
        ([START, {"type": "surprise"}], "an event of unknown type 'surprise'"),
        ([START, {"type": "error", "error": {"type": "server_error", "message": "x"}}], "an error type that Anthropic"),
    ],
)
def test_what_would_break_a_strict_client_of_anthropics_dialect_is_a_complaint(events, complaint):
    assert any(told.startswith(complaint) for told in read("anthropic", anthropic(*events)).complaints)


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (b"data: [DONE]\n\n" + OpenAIVoice().token("x"), "events after [DONE]"),
        (OpenAIVoice().finish("stop")[0] + OpenAIVoice().token("x"), "text after the finish reason"),
        (OpenAIVoice().error_event("x") + b"data: [DONE]\n\n", "[DONE] after an error"),
        (b'data: {"error": "x"}\n\n', "an error that is not OpenAI's {error: {message, type, param, code}}"),
        (b"data: {oops\n\n", "an event that is not JSON"),
        (b"data: 1\n\n", "an event that is not an object"),
    ],
)
def test_what_would_break_a_client_of_openais_dialect_is_a_complaint(stream, complaint):
    assert read("openai", stream).complaints == [complaint]
