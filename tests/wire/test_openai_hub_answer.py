"""Chat completion answers, into the hub and out of it."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.request import Usage
from penstock.wire.canonical import (
    Ask,
    Asked,
    Begin,
    Counted,
    Finish,
    FinishReason,
    Losses,
    Message,
    Origin,
    Redacted,
    RefusalDelta,
    Text,
    TextDelta,
    ThinkingDelta,
    ThinkingEnd,
    Tool,
    ToolCallBegin,
    ToolCallDelta,
)
from penstock.wire.openai_hub import ChatReader, ChatWriter, read_request, write_request
from penstock.wire.sse import EventCutter, data_of
from penstock.wire.tool_names import ToolNames

FRAMES = Path(__file__).parent / "frames" / "openai"
BEGIN = Begin("chatcmpl-up1", "up-model", 1753000000)
ASKED = Asked("01REQ", "public", 1753000001, include_usage=True, prompt_tokens=9)


def events_of(stream):
    return [data for event in EventCutter().feed(stream).split(b"\n\n") if (data := data_of(event))]


def read_stream(stream, reader=None):
    reader = reader or ChatReader()
    return [delta for data in events_of(stream) for delta in reader.event(data)]


def frame(name):
    return read_stream((FRAMES / f"{name}.sse").read_bytes())


def chunks(*choices, reader=None):
    """Chunks with one choice each, the keyword being its delta and the rest of the choice beside it."""
    reader = reader or ChatReader(id="R")
    deltas = []
    for delta, rest in choices:
        data = {"id": "c", "model": "m", "created": 1, "choices": [{"index": 0, "delta": delta, **rest}]}
        deltas += reader.event(msgspec.json.encode(data))
    assert deltas.pop(0) == Begin("c", "m", 1)
    return deltas


def call(delta, **rest):
    return {"tool_calls": [delta]}, rest


def function(name=None, arguments=None, **rest):
    said = {"name": name, "arguments": arguments}
    return {**rest, "function": {key: value for key, value in said.items() if value is not None}}


def calls_in(deltas):
    """Names and arguments by index."""
    calls = {}
    for delta in deltas:
        if isinstance(delta, ToolCallBegin):
            calls[delta.index] = [delta.name, ""]
        elif isinstance(delta, ToolCallDelta):
            calls[delta.index][1] += delta.arguments
    return calls


# --- what servers send ---


def test_parallel_calls_interleave_by_index_and_usage_comes_last():
    assert frame("openai_parallel_calls") == [
        BEGIN,
        ToolCallBegin(0, "call_a", "weather"),
        ToolCallDelta(0, '{"city":'),
        ToolCallBegin(1, "call_b", "time"),
        ToolCallDelta(1, '{"zone":'),
        ToolCallDelta(0, '"Paris"}'),
        ToolCallDelta(1, '"CET"}'),
        Finish(FinishReason.TOOL_CALLS),
        Counted(Usage(90, 30, cached_tokens=64, reasoning_tokens=12)),
    ]


def test_azures_first_chunk_without_an_id_does_not_begin_the_answer():
    assert frame("azure_text") == [
        BEGIN, TextDelta("Hel"), TextDelta("lo"), Finish(FinishReason.STOP), Counted(Usage(9, 2))
    ]  # fmt: skip


def test_vllm_says_which_stop_text_it_met_and_counts_in_every_chunk():
    deltas = frame("vllm_reasoning_stop")
    assert [delta for delta in deltas if not isinstance(delta, Counted)] == [
        BEGIN, ThinkingDelta("Think"), ThinkingDelta("ing."), TextDelta("One, two"), TextDelta(","),
        Finish(FinishReason.STOP_SEQUENCE, "three"),
    ]  # fmt: skip
    counts = [delta.usage.completion_tokens for delta in deltas if isinstance(delta, Counted)]
    assert counts == [0, 1, 2, 4, 5]  # the same count is not told twice


def test_whole_calls_that_share_an_index_are_two_and_a_stop_after_calls_means_calls():
    assert frame("gemini_calls") == [
        BEGIN,
        ToolCallBegin(0, "function-call-1", "weather", "Ep8B+g=="),
        ToolCallDelta(0, '{"city":"Paris"}'),
        ToolCallBegin(1, "function-call-2", "weather"),
        ToolCallDelta(1, '{"city":"Oslo"}'),
        Finish(FinishReason.TOOL_CALLS),
        Counted(Usage(20, 9)),
    ]


def test_the_last_words_may_come_with_the_end_and_with_usage():
    assert frame("deepseek_last_words") == [
        BEGIN, ThinkingDelta("Hm"), TextDelta("Yes"), TextDelta("."), Finish(FinishReason.LENGTH),
        Counted(Usage(30, 3, cached_tokens=16)),
    ]  # fmt: skip


def test_reasoning_under_two_names_is_told_once_and_its_signature_kept():
    assert frame("openrouter_claude") == [
        BEGIN, ThinkingDelta("Let me"), ThinkingDelta(" see"), ThinkingEnd("EqQBCkYI/sig==", Origin.ANTHROPIC),
        TextDelta("42"), Finish(FinishReason.STOP), Counted(Usage(8, 7)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pieces",
    [
        # one call: the name in every chunk
        [function("f", "{", index=0, id="a"), function("f", '"x"', index=0, id="a"), function("f", ":1}", index=0)],
        # a new id in every chunk
        [function("f", "", index=0, id="a"), function(None, '{"x"', index=0, id="b"),
         function("f", ":1}", index=0, id="c")],
        # no index
        [function("f", '{"x"', id="a"), function(None, ":1}")],
        [function("f", '{"x"', id="a"), function(None, ":1}", id="a")],
        # neither index nor id
        [function("f", '{"x"'), function("f", ":1}")],
        # a last chunk that repeats the name and says nothing
        [function("f", '{"x":1}', index=0, id="a"), function("f", "", index=0)],
        # the name after the first arguments
        [function(None, '{"x"', index=0, id="a"), function("f", ":1}", index=0)],
        # an index that does not begin at 0
        [function("f", '{"x":1}', index=1, id="a")],
        # arguments as an object
        [function("f", {"x": 1}, index=0, id="a")],
    ],
)  # fmt: skip
def test_one_call_is_one_call_however_it_is_cut(pieces):
    deltas = chunks(*map(call, pieces), ({}, {"finish_reason": "tool_calls"}))
    ((name, arguments),) = calls_in(deltas).values()
    assert (name, msgspec.json.decode(arguments)) == ("f", {"x": 1})
    assert deltas[-1] == Finish(FinishReason.TOOL_CALLS)


@pytest.mark.parametrize(
    "pieces",
    [
        [function("f", '{"x":1}', index=0), function("f", '{"x":2}', index=0)],
        [function("f", '{"x":1}'), function("f", '{"x":2}')],
        [function("f", '{"x":1}', id="a"), function("f", '{"x":2}', id="b")],
        [function("f", '{"x":', id="a"), function("f", '{"x":', id="b", index=1), function(None, "1}", id="a"),
         function(None, "2}", id="b")],
    ],
)  # fmt: skip
def test_two_calls_are_two_calls_however_badly_they_are_told_apart(pieces):
    deltas = chunks(*map(call, pieces), ({}, {"finish_reason": "stop"}))
    assert [msgspec.json.decode(text) for _, text in calls_in(deltas).values()] == [{"x": 1}, {"x": 2}]
    ids = [delta.id for delta in deltas if isinstance(delta, ToolCallBegin)]
    assert len(set(ids)) == 2 and all(ids)


def test_several_calls_may_come_in_one_chunk_with_the_same_id():
    both = {"tool_calls": [function("f", "{}", index=0, id="x"), function("g", "{}", index=1, id="x")]}
    begins = [delta for delta in chunks((both, {})) if isinstance(delta, ToolCallBegin)]
    assert [(begin.name, begin.id) for begin in begins] == [("f", "x"), ("g", "x_1")]


def test_calls_without_an_id_get_one_that_no_other_request_gives():
    ids = set()
    for request in ("R1", "R2"):
        deltas = chunks(call(function("f", "{}", index=0)), reader=ChatReader(id=request))
        ids.add(deltas[0].id)
    assert len(ids) == 2


def test_a_call_in_the_old_style_is_a_call():
    deltas = chunks(
        ({"function_call": {"name": "f", "arguments": ""}}, {}),
        ({"function_call": {"arguments": "{}"}}, {}),
        ({}, {"finish_reason": "function_call"}),
    )
    assert calls_in(deltas) == {0: ["f", "{}"]}
    assert deltas[-1] == Finish(FinishReason.TOOL_CALLS)


def test_tools_come_home_under_the_names_of_the_caller():
    ask = Ask(model="m", messages=(), tools=(Tool("mcp/files.read"),))
    out = ToolNames.of(ask).outward("mcp/files.read")
    deltas = chunks(call(function(out, "{}", index=0, id="a")), reader=ChatReader(ask))
    assert deltas[0].name == "mcp/files.read"


@pytest.mark.parametrize(
    ("deltas", "word", "reason"),
    [
        ({"content": "x"}, "stop", FinishReason.STOP),
        ({"content": "x"}, "eos_token", FinishReason.STOP),
        ({"content": "x"}, "tool_calls", FinishReason.STOP),
        ({"content": "x"}, "length", FinishReason.LENGTH),
        ({"content": "x"}, "model_length", FinishReason.CONTEXT),
        ({"content": "x"}, "content_filter", FinishReason.CONTENT_FILTER),
        ({"refusal": "no"}, "stop", FinishReason.REFUSAL),
        ({"tool_calls": [function("f", "{", index=0, id="a")]}, "length", FinishReason.LENGTH),
    ],
)
def test_the_reason_for_the_end_is_the_true_one(deltas, word, reason):
    assert chunks((deltas, {"finish_reason": word}))[-1] == Finish(reason)


@pytest.mark.parametrize(
    ("content", "reads_as"),
    [
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}], ThinkingDelta("hm")),
        ([{"type": "text", "text": "x"}], TextDelta("x")),
    ],
)
def test_mistral_sends_its_content_in_parts(content, reads_as):
    assert chunks(({"content": content}, {})) == [reads_as]


def test_both_names_of_reasoning_in_one_chunk_are_one_reasoning():
    assert chunks(({"reasoning": "a", "reasoning_content": "a"}, {})) == [ThinkingDelta("a")]


def test_what_an_unknown_provider_sealed_is_dropped_but_what_it_says_is_not():
    details = [{"type": "reasoning.encrypted", "data": "zzz", "format": "newcorp-v1"}]
    assert chunks(({"reasoning": "a", "reasoning_details": details}, {})) == [ThinkingDelta("a")]


def test_logprobs_go_with_their_text_and_come_out_with_it():
    told = {"content": [{"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    (delta,) = chunks(({"content": "x"}, {"logprobs": told}))
    assert msgspec.json.decode(delta.logprobs) == told
    written = [BEGIN, delta, Finish(FinishReason.STOP)]
    assert strict(write_stream(written))[1].choices[0].logprobs.content[0].logprob == -0.5
    body = ChatCompletion.model_validate_json(ChatWriter(ASKED).whole(written), strict=True)
    assert body.choices[0].logprobs.content[0].logprob == -0.5


def test_what_a_provider_sealed_without_a_word_is_kept_for_it():
    details = [{"type": "reasoning.encrypted", "data": "zzz", "format": "openai-responses-v1"}]
    assert chunks(({"reasoning_details": details}, {})) == [Redacted("zzz", Origin.OPENAI)]


def test_empty_gestures_are_no_deltas():
    assert chunks(({"role": "assistant", "content": ""}, {}), ({"content": None, "tool_calls": []}, {})) == []


def test_done_is_the_end_of_an_answer_that_gave_no_reason_but_of_no_answer_at_all():
    reader = ChatReader()
    assert reader.event(b"[DONE]") == []
    assert not reader.complete
    assert read_stream(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n', reader)[-1] == Finish(
        FinishReason.STOP
    )
    assert reader.complete


def test_an_answer_is_complete_at_its_finish_reason_and_not_before():
    reader = ChatReader()
    reader.event(b'{"choices":[{"delta":{"content":"x"}}]}')
    assert not reader.complete
    reader.event(b'{"choices":[{"delta":{},"finish_reason":"stop"}]}')
    assert reader.complete


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"error":{"message":"boom"}}', FailureKind.SERVER_ERROR),
        (b'{"error":"boom"}', FailureKind.SERVER_ERROR),
        (b'{"error":{"message":"slow down","code":429}}', FailureKind.RATE_LIMITED),
        (b'{"error":{"message":"slow down","code":"429"}}', FailureKind.RATE_LIMITED),
        (b'{"error":{"message":"x","type":"insufficient_quota"}}', FailureKind.QUOTA),
        (b'{"error":{"message":"no","code":"content_policy_violation"}}', FailureKind.CONTENT_POLICY),
        (b'{"error":{"message":"maximum context length is 8","code":400}}', FailureKind.CONTEXT_LENGTH),
        (b'{"object":"error","message":"maximum context length is 8","code":400}', FailureKind.CONTEXT_LENGTH),
        (b'{"choices":[{"delta":{},"finish_reason":"error"}]}', FailureKind.SERVER_ERROR),
        (b'{"choices":[{"delta":{},"finish_reason":"insufficient_system_resource"}]}', FailureKind.OVERLOADED),
        (b'{"choices":[{"index":1,"delta":{"content":"x"}}]}', FailureKind.BAD_PAYLOAD),
        (b'{"choices":[{"delta":{}},{"index":1,"delta":{}}]}', FailureKind.BAD_PAYLOAD),
        (b'{"choices":[{"delta":{"content":5}}]}', FailureKind.BAD_PAYLOAD),
        (b"oops", FailureKind.BAD_PAYLOAD),
        (b"\xff", FailureKind.BAD_PAYLOAD),
    ],
)
def test_what_is_no_answer_is_a_failure_of_its_kind(data, kind):
    for read in (ChatReader().event, ChatReader().whole):
        with pytest.raises(UpstreamError) as caught:
            read(data)
        if b'"delta"' not in data or read.__name__ == "event":
            assert caught.value.kind is kind


def test_words_about_the_request_are_kept_and_others_are_not():
    for data, kept in (
        (b'{"error":{"message":"too long","code":400}}', "too long"),
        (b'{"error":{"message":"at 10.0.0.1"}}', None),
    ):
        with pytest.raises(UpstreamError) as caught:
            ChatReader().event(data)
        assert (caught.value.said and caught.value.said.message) == kept


@pytest.mark.parametrize("late", [{"content": "x"}, {"tool_calls": [function("f", "{}", index=0)]}])
def test_more_of_the_answer_after_its_end_is_refused(late):
    with pytest.raises(UpstreamError, match="after its end"):
        chunks(({"content": "x"}, {"finish_reason": "stop"}), (late, {}))


def test_a_call_that_never_gets_a_name_is_refused():
    with pytest.raises(UpstreamError, match="without a name"):
        chunks(call(function(None, "{}", index=0, id="a")), ({}, {"finish_reason": "tool_calls"}))


@pytest.mark.parametrize("body", [b'{"choices":[]}', b"{}", b'{"choices":[{"index":0,"finish_reason":"stop"}]}'])
def test_a_plain_answer_without_a_message_is_refused(body):
    with pytest.raises(UpstreamError, match="without"):
        ChatReader().whole(body)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_fail_as_an_upstream(data):
    for read in (ChatReader().event, ChatReader().whole):
        try:
            assert isinstance(read(data), list)
        except UpstreamError as failure:
            assert failure.kind in (FailureKind.BAD_PAYLOAD, FailureKind.SERVER_ERROR)  # noqa: PT017 - either is right


# --- what callers get ---


def write_stream(deltas, asked=ASKED):
    writer = ChatWriter(asked)
    return writer.events(deltas) + writer.end()


def strict(stream):
    """The chunks, as OpenAI's own client understands them."""
    *told, end = events_of(stream)
    assert end == b"[DONE]"
    return [ChatCompletionChunk.model_validate_json(data, strict=True) for data in told]


def test_a_stream_is_what_openais_client_expects():
    seen = strict(
        write_stream([BEGIN, TextDelta("Hel"), TextDelta("lo"), Finish(FinishReason.STOP), Counted(Usage(9, 2, 4))])
    )
    assert {(chunk.id, chunk.model, chunk.created) for chunk in seen} == {("chatcmpl-01REQ", "public", 1753000001)}
    assert seen[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in seen[:-1]) == "Hello"
    assert [chunk.choices[0].finish_reason for chunk in seen[:-1]] == [None, None, None, "stop"]
    assert [chunk.usage for chunk in seen[:-1]] == [None] * 4
    assert seen[-1].choices == []
    assert seen[-1].usage.total_tokens == 11
    assert seen[-1].usage.prompt_tokens_details.cached_tokens == 4


def test_usage_is_told_only_to_those_who_asked_and_only_if_it_is_known():
    for asked, deltas in (
        (msgspec.structs.replace(ASKED, include_usage=False), [BEGIN, Finish(FinishReason.STOP), Counted(Usage(1, 1))]),
        (ASKED, [BEGIN, Finish(FinishReason.STOP)]),
    ):
        assert all(chunk.choices and chunk.usage is None for chunk in strict(write_stream(deltas, asked)))


def test_tokens_written_to_a_cache_are_told_under_both_names():
    (*_, last) = strict(write_stream([BEGIN, Finish(FinishReason.STOP), Counted(Usage(9, 1, cache_write_tokens=5))]))
    assert last.usage.prompt_tokens_details.cache_write_tokens == 5
    assert last.usage.cache_creation_input_tokens == 5


def test_signed_reasoning_ends_in_a_block_that_can_go_into_the_history_as_it_is():
    stream = write_stream(
        [BEGIN, ThinkingDelta("Let "), ThinkingDelta("me"), ThinkingEnd("sig", Origin.ANTHROPIC),
         Redacted("zz", Origin.GEMINI), TextDelta("x"), Finish(FinishReason.STOP)]
    )  # fmt: skip
    blocks = []
    for chunk in strict(stream):
        if chunk.choices:
            blocks += getattr(chunk.choices[0].delta, "thinking_blocks", [])
    assert blocks[0] == {"type": "thinking", "thinking": "Let me", "signature": "sig"}
    fields = {"model": "m", "messages": [{"role": "assistant", "content": "x", "thinking_blocks": blocks}]}
    thinking, redacted, _ = read_request(
        msgspec.json.decode(msgspec.json.encode(fields), type=dict[str, msgspec.Raw])
    ).messages[0].parts  # fmt: skip
    assert (thinking.text, thinking.signature, thinking.origin) == ("Let me", "sig", Origin.ANTHROPIC)
    assert (redacted.redacted, redacted.origin) == ("zz", Origin.GEMINI)


def test_a_request_with_functions_is_answered_in_the_old_style():
    asked = msgspec.structs.replace(ASKED, fields={"functions": msgspec.Raw(b"[]")})
    deltas = [BEGIN, ToolCallBegin(0, "a", "f"), ToolCallDelta(0, "{}"), Finish(FinishReason.TOOL_CALLS)]
    seen = [chunk.choices[0] for chunk in strict(write_stream(deltas, asked))]
    assert [choice.delta.function_call.name for choice in seen if choice.delta.function_call] == ["f", None]
    assert seen[-1].finish_reason == "function_call"
    message = ChatCompletion.model_validate_json(ChatWriter(asked).whole(deltas), strict=True).choices[0].message
    assert (message.function_call.name, message.function_call.arguments) == ("f", "{}")
    assert message.tool_calls is None


@pytest.mark.parametrize(
    ("deltas", "reason", "word"),
    [
        ([TextDelta("x")], FinishReason.STOP_SEQUENCE, "stop"),
        ([TextDelta("x")], FinishReason.CONTEXT, "length"),
        ([TextDelta("x")], FinishReason.PAUSE, "length"),
        ([RefusalDelta("no")], FinishReason.REFUSAL, "stop"),
        ([], FinishReason.REFUSAL, "content_filter"),
    ],
)
def test_reasons_are_told_in_openais_words(deltas, reason, word):
    told = [BEGIN, *deltas, Finish(reason)]
    assert strict(write_stream(told))[-1].choices[0].finish_reason == word
    assert ChatCompletion.model_validate_json(ChatWriter(ASKED).whole(told)).choices[0].finish_reason == word


def test_a_plain_answer_with_calls_alone_has_no_content():
    body = ChatWriter(ASKED).whole([BEGIN, ToolCallBegin(0, "a", "f"), Finish(FinishReason.TOOL_CALLS)])
    message = ChatCompletion.model_validate_json(body, strict=True).choices[0].message
    assert message.content is None
    assert message.tool_calls[0].function.arguments == ""


# --- there and back ---

words = st.text(min_size=1, max_size=8)
origins = st.sampled_from(Origin)
thoughts = st.one_of(
    st.tuples(st.builds(ThinkingDelta, words)),
    st.tuples(st.builds(ThinkingDelta, words), st.builds(ThinkingEnd, words, origins)),
    st.tuples(st.builds(ThinkingEnd, words, origins)),
    st.tuples(st.builds(Redacted, words, origins)),
)
usages = st.builds(
    Usage, *(st.integers(0, 99) for _ in range(4)), cache_write_1h_tokens=st.just(0), reasoning_tokens=st.integers(0, 9)
)


@st.composite
def answers(draw):
    """Deltas in the order in which an upstream may send them."""
    deltas = [Begin("up", "m", 1)]
    thinking = draw(st.lists(thoughts, max_size=3))
    for piece in thinking:
        deltas += piece
    deltas += draw(st.lists(st.builds(TextDelta, words), max_size=4))
    refused = draw(st.lists(st.builds(RefusalDelta, words), max_size=2))
    deltas += refused
    n_calls = draw(st.integers(0, 3))
    deltas += [ToolCallBegin(n, f"call_{n}", draw(words), draw(st.none() | words)) for n in range(n_calls)]
    if n_calls:
        deltas += draw(st.lists(st.builds(ToolCallDelta, st.integers(0, n_calls - 1), words), max_size=6))
        reasons = [Finish(FinishReason.TOOL_CALLS)]
    elif refused:
        reasons = [Finish(FinishReason.REFUSAL)]
    else:
        reasons = [Finish(FinishReason.STOP), Finish(FinishReason.STOP_SEQUENCE, "END")]
    deltas.append(draw(st.sampled_from([*reasons, Finish(FinishReason.LENGTH), Finish(FinishReason.CONTENT_FILTER)])))
    if draw(st.booleans()):
        deltas.append(Counted(draw(usages)))
    return deltas


def merged(deltas):
    """What was said, however it was cut."""
    told = []
    for delta in deltas:
        last = told[-1] if told else None
        if isinstance(delta, Begin):
            continue
        if isinstance(delta, TextDelta | ThinkingDelta | RefusalDelta) and type(last) is type(delta):
            told[-1] = type(delta)(last.text + delta.text)
        else:
            told.append(delta)
    return told


@given(answers())
def test_every_delta_that_is_written_in_a_stream_is_read_again(deltas):
    reader = ChatReader()
    again = read_stream(write_stream(deltas), reader)
    assert again[1:] == deltas[1:]
    assert reader.complete


@given(answers())
def test_a_plain_answer_says_what_the_stream_says(deltas):
    again = ChatReader().whole(ChatWriter(ASKED).whole(deltas))
    assert calls_in(again) == calls_in(deltas)
    rest = (ToolCallBegin, ToolCallDelta, Counted)
    assert merged(d for d in again if not isinstance(d, rest)) == merged(d for d in deltas if not isinstance(d, rest))
    assert [d for d in again if isinstance(d, Counted)] == [d for d in deltas if isinstance(d, Counted)]


@given(answers())
def test_openais_client_takes_every_answer(deltas):
    strict(write_stream(deltas))
    ChatCompletion.model_validate_json(ChatWriter(ASKED).whole(deltas), strict=True)


@given(
    st.sampled_from(sorted(FRAMES.glob("*.sse"))),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 3000)),
)
def test_however_the_network_cuts_a_stream_the_caller_gets_the_same_bytes(path, line_end, cuts):
    stream = path.read_bytes()
    reader, writer, cutter = ChatReader(), ChatWriter(ASKED), EventCutter()
    expected = write_stream(read_stream(stream))
    stream = stream.replace(b"\n", line_end)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    got = b""
    for start, end in pairwise(edges):
        block = cutter.feed(stream[start:end])
        deltas = [d for event in block.split(b"\n\n") if (data := data_of(event)) for d in reader.event(data)]
        got += writer.events(deltas)
    tail = b"" if line_end != b"\r" else cutter.feed(b"\n")  # a last CR may be half of a CRLF
    deltas = [d for event in tail.split(b"\n\n") if (data := data_of(event)) for d in reader.event(data)]
    assert got + writer.events(deltas) + writer.end() == expected


def test_a_conversation_through_both_sides_of_the_dialect_stays_the_same():
    """A request written for an upstream and answered by a Penstock behind it: the tool is called by its own name."""
    ask = Ask(model="m", messages=(Message("user", (Text("hi"),)),), tools=(Tool("mcp/read"),))
    behind = read_request(
        msgspec.json.decode(write_request(ask, served="up", losses=Losses()), type=dict[str, msgspec.Raw])
    )
    answer = [BEGIN, ToolCallBegin(0, "a", behind.tools[0].name), Finish(FinishReason.TOOL_CALLS)]
    assert read_stream(write_stream(answer), ChatReader(ask))[1].name == "mcp/read"
