"""Responses answers: written from the hub, and metered as they go by."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from penstock.core.errors import FailureKind, Overloaded, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import ANYONE, Endpoint, Usage
from penstock.wire.canonical import (
    Asked,
    Begin,
    Citation,
    Counted,
    Finish,
    FinishReason,
    Message,
    Origin,
    Redacted,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ThinkingEnd,
    ToolCall,
    ToolCallBegin,
    ToolCallDelta,
)
from penstock.wire.responses import ResponsesMeter, ResponsesWriter, in_progress, parse, read_request
from penstock.wire.sse import EventCutter, data_of

ASKED = Asked("01REQ", "public", 1753000001, include_usage=True, prompt_tokens=9)
BEGIN = Begin("up", "up-model", 5)
STOP = Finish(FinishReason.STOP)
EVENT = TypeAdapter(ResponseStreamEvent)


def write_stream(deltas, asked=ASKED):
    writer = ResponsesWriter(asked)
    return writer.events(deltas) + writer.end()


def events_of(stream):
    """The events, each checked as OpenAI's own client understands it."""
    events = []
    for number, event in enumerate(stream[:-2].split(b"\n\n")):
        name, data = event.split(b"\n")
        seen = EVENT.validate_json(data_of(data), strict=True)
        assert name == b"event: " + seen.type.encode()
        assert seen.sequence_number == number
        events.append(seen)
    return events


def types(events):
    return [event.type.removeprefix("response.") for event in events]


def whole(deltas, asked=ASKED):
    return Response.model_validate_json(ResponsesWriter(asked).whole(deltas), strict=True)


# --- written ---


def test_text_comes_as_the_full_sequence_of_events():
    events = events_of(write_stream([BEGIN, TextDelta("Hel"), TextDelta("lo"), STOP, Counted(Usage(9, 2, 4, 3))]))
    assert types(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert (events[0].response.id, events[0].response.status, events[0].response.output) == (
        "resp_01REQ",
        "in_progress",
        [],
    )
    response = events[-1].response
    assert (response.status, response.output_text, response.model) == ("completed", "Hello", "public")
    assert response.output[0].id == events[2].item.id == "msg_01REQ0"
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (9, 2, 11)
    assert (usage.input_tokens_details.cached_tokens, usage.input_tokens_details.cache_write_tokens) == (4, 3)


def test_reasoning_is_a_summary_whose_seal_names_its_origin():
    events = events_of(
        write_stream([BEGIN, ThinkingDelta("hm"), ThinkingDelta("m"), ThinkingEnd("sig", Origin.ANTHROPIC), STOP])
    )
    assert types(events)[2:-1] == [
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_summary_part.done",
        "output_item.done",
    ]  # fmt: skip
    (item,) = events[-1].response.output
    assert (item.summary[0].text, item.encrypted_content) == ("hmm", "penstock.anthropic.sig")
    assert item == events[-2].item


def test_calls_that_interleave_stay_open_side_by_side():
    events = events_of(
        write_stream([
            BEGIN, TextDelta("both"), ToolCallBegin(0, "call_a", "f"), ToolCallDelta(0, "{"),
            ToolCallBegin(1, "call_b", "g"), ToolCallDelta(1, "["), ToolCallDelta(0, "}"), ToolCallDelta(1, "]"),
            Finish(FinishReason.TOOL_CALLS),
        ])
    )  # fmt: skip
    deltas = [(event.output_index, event.delta) for event in events if event.type.endswith("arguments.delta")]
    assert deltas == [(1, "{"), (2, "["), (1, "}"), (2, "]")]
    message, first, second = events[-1].response.output
    assert message.content[0].text == "both"
    assert (first.call_id, first.name, first.arguments, first.status) == ("call_a", "f", "{}", "completed")
    assert (second.call_id, second.name, second.arguments) == ("call_b", "g", "[]")
    done = types(events).index("output_item.done")
    assert events[done].item.type == "message"
    assert done < types(events).index("function_call_arguments.delta")


def test_a_refusal_after_text_is_a_second_part_of_the_message():
    events = events_of(write_stream([BEGIN, TextDelta("well"), RefusalDelta("no"), Finish(FinishReason.REFUSAL)]))
    (message,) = events[-1].response.output
    assert [part.type for part in message.content] == ["output_text", "refusal"]
    assert [event.content_index for event in events if event.type.endswith(".delta")] == [0, 1]
    assert events[-1].type == "response.completed"


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        (FinishReason.LENGTH, "max_output_tokens"),
        (FinishReason.CONTEXT, "max_output_tokens"),
        (FinishReason.CONTENT_FILTER, "content_filter"),
        (FinishReason.REFUSAL, "content_filter"),
    ],
)
def test_an_answer_that_was_cut_off_is_incomplete_and_says_why(reason, why):
    deltas = [BEGIN, ToolCallBegin(0, "a", "f"), ToolCallBegin(1, "b", "f"), ToolCallDelta(1, "{"), Finish(reason)]
    last = events_of(write_stream(deltas))[-1]
    assert last.type == "response.incomplete"
    for response in (last.response, whole(deltas)):
        assert (response.status, response.incomplete_details.reason) == ("incomplete", why)
        assert [item.status for item in response.output] == ["completed", "incomplete"]


def test_a_stream_that_broke_fails_with_what_had_been_said():
    writer = ResponsesWriter(ASKED)
    stream = writer.events([BEGIN, TextDelta("Hel")]) + writer.failed_event(Overloaded("try again"))
    last = events_of(stream)[-1]
    assert last.type == "response.failed"
    assert (last.response.status, last.response.error.code, last.response.error.message) == (
        "failed", "server_error", "try again"
    )  # fmt: skip
    assert last.response.output[0].content[0].text == "Hel"
    assert last.response.output[0].status == "incomplete"


def test_a_stream_that_broke_before_it_began_is_still_a_stream():
    assert types(events_of(ResponsesWriter(ASKED).failed_event(Overloaded("x")))) == [
        "created",
        "in_progress",
        "failed",
    ]


def test_settings_are_echoed_as_they_were_asked():
    fields = {
        "instructions": "be kind", "temperature": 0.5, "max_output_tokens": 7, "metadata": {"a": "b"}, "store": False,
        "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}], "tool_choice": "required",
        "text": {"verbosity": "low"}, "reasoning": {"effort": "low"}, "parallel_tool_calls": False, "top_p": None,
        "truncation": None, "user": "u", "previous_response_id": "resp_0", "input": "hi",
    }  # fmt: skip
    raws = msgspec.json.decode(msgspec.json.encode(fields), type=dict[str, msgspec.Raw])
    response = whole([BEGIN, STOP], msgspec.structs.replace(ASKED, fields=raws))
    for name in ("instructions", "temperature", "max_output_tokens", "metadata", "tool_choice", "user", "top_p",
                 "parallel_tool_calls", "previous_response_id"):  # fmt: skip
        assert getattr(response, name) == fields[name]
    assert (response.text.format.type, response.text.verbosity) == ("text", "low")
    assert response.reasoning.effort == "low"
    assert response.truncation == "disabled"
    assert [tool.type for tool in response.tools] == ["function", "web_search"]


def test_logprobs_are_told_in_this_dialect():
    token = {"token": "é", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "e", "logprob": -1.0}]}
    raw = msgspec.Raw(msgspec.json.encode({"content": [token]}))
    events = events_of(write_stream([BEGIN, TextDelta("é", raw), TextDelta("!"), STOP]))
    (told,) = events[-1].response.output[0].content[0].logprobs
    assert (told.token, told.bytes, told.top_logprobs[0].bytes) == ("é", [195, 169], [101])
    assert [len(event.logprobs) for event in events if event.type.endswith("text.delta")] == [1, 0]


def test_logprobs_of_another_form_are_left_out_and_the_text_stands():
    events = ResponsesWriter(ASKED).events([TextDelta("x", msgspec.Raw(b'{"content":5}'))])
    assert b'"delta":"x"' in events
    assert b'"logprobs":[]' in events


def test_the_whole_response_is_there_to_keep_once_it_is_whole():
    writer = ResponsesWriter(ASKED)
    stream = writer.events([BEGIN, TextDelta("x"), STOP])
    assert writer.final_response() is None
    stream += writer.end()
    last = msgspec.json.decode(data_of(stream[:-2].split(b"\n\n")[-1]))
    assert msgspec.json.decode(writer.final_response()) == last["response"]
    writer = ResponsesWriter(ASKED)
    assert writer.whole([BEGIN, TextDelta("x"), STOP]) == writer.final_response()


def test_a_response_in_the_background_says_that_nothing_has_come_of_it_yet():
    response = Response.model_validate_json(in_progress(ASKED), strict=True)
    assert (response.status, response.background, response.output) == ("in_progress", True, [])


# --- properties ---

words = st.text(min_size=1, max_size=8)
origins = st.sampled_from(Origin)


@st.composite
def answers(draw):
    """Deltas in an order in which some upstream may send them: reasoning and calls between texts, too."""
    deltas, n_calls = [BEGIN], 0
    for _ in range(draw(st.integers(0, 8))):
        kinds = ["text", "think", "sign", "redact", "refuse", "begin", "cite", *(["argue"] * 3 if n_calls else [])]
        match draw(st.sampled_from(kinds)):
            case "text":
                deltas.append(TextDelta(draw(words)))
            case "think":
                deltas.append(ThinkingDelta(draw(words)))
            case "sign":
                deltas.append(ThinkingEnd(draw(words), draw(origins)))
            case "redact":
                deltas.append(Redacted(draw(words), draw(origins.filter(lambda origin: origin is not Origin.OPENAI))))
            case "refuse":
                deltas.append(RefusalDelta(draw(words)))
            case "cite":
                deltas.append(Citation(msgspec.Raw(b"{}")))
            case "begin":
                deltas.append(ToolCallBegin(n_calls, f"call_{n_calls}", draw(words)))
                n_calls += 1
            case "argue":
                deltas.append(ToolCallDelta(draw(st.integers(0, n_calls - 1)), draw(words)))
    deltas.append(Finish(draw(st.sampled_from(FinishReason))))
    if draw(st.booleans()):
        deltas.append(Counted(Usage(5, 3, 2, 1, reasoning_tokens=1)))
    return deltas


@given(answers())
def test_openais_client_puts_the_events_together_to_what_the_last_one_says(deltas):
    events = events_of(write_stream(deltas))
    state = ResponseStreamState(input_tools=[], text_format=omit)
    for event in events:
        state.handle_event(event)
    last = events[-1].response
    items = {event.output_index: event.item for event in events if event.type == "response.output_item.done"}
    assert [items[index] for index in sorted(items)] == last.output
    assert len(items) == sum(event.type == "response.output_item.added" for event in events)
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert told == last.output_text


@given(answers())
def test_a_plain_answer_is_the_last_word_of_the_stream(deltas):
    stream = write_stream(deltas)
    last = msgspec.json.decode(data_of(stream[:-2].split(b"\n\n")[-1]))["response"]
    assert msgspec.json.decode(ResponsesWriter(ASKED).whole(deltas)) == last
    whole(deltas)


@given(answers(), st.lists(st.integers(0, 12)))
def test_however_deltas_are_bundled_the_bytes_are_the_same(deltas, cuts):
    writer, edges = ResponsesWriter(ASKED), [0, *sorted(cuts), len(deltas)]
    got = b"".join(writer.events(deltas[start:end]) for start, end in pairwise(edges))
    assert got + writer.end() == write_stream(deltas)


@given(answers())
def test_an_answer_sent_back_as_input_is_read_as_what_was_said(deltas):
    output = msgspec.json.decode(ResponsesWriter(ASKED).whole(deltas), type=dict[str, msgspec.Raw])["output"]
    messages = read_request({"model": msgspec.Raw(b'"m"'), "input": output}).messages
    parts = messages[0].parts if messages else ()
    assert messages in ((), (Message("assistant", parts),))

    def joined(kind, *names):
        return "".join(getattr(thing, name) or "" for thing in kind for name in names)

    def of(things, kind):
        return [thing for thing in things if isinstance(thing, kind)]

    assert joined(of(parts, Text), "text") == joined(of(deltas, TextDelta), "text")
    assert joined(of(parts, Refusal), "text") == joined(of(deltas, RefusalDelta), "text")
    assert joined(of(parts, Thinking), "text") == joined(of(deltas, ThinkingDelta), "text")
    assert [(p.signature, p.origin) for p in of(parts, Thinking) if p.signature] == [
        (d.signature, d.origin) for d in of(deltas, ThinkingEnd)
    ]
    assert [(p.redacted, p.origin) for p in of(parts, Thinking) if p.redacted] == [
        (d.data, d.origin) for d in of(deltas, Redacted)
    ]
    assert [(p.id, p.name) for p in of(parts, ToolCall)] == [(d.id, d.name) for d in of(deltas, ToolCallBegin)]


# --- metered ---

REQUEST = parse(b'{"model":"m","input":"hi"}', id="r", endpoint=Endpoint.RESPONSES, caller=ANYONE, now=1.0)


def event(type, **fields):
    return b"event: %b\ndata: %b\n\n" % (type.encode(), msgspec.json.encode({"type": type, **fields}))


def response(status="completed", **fields):
    return {"id": "resp_up", "object": "response", "status": status, "output": [], **fields}


USAGE = {
    "input_tokens": 9, "output_tokens": 4, "total_tokens": 13, "input_tokens_details": {"cached_tokens": 2},
    "output_tokens_details": {"reasoning_tokens": 3},
}  # fmt: skip


def test_a_native_stream_goes_by_as_it_came_and_is_counted():
    blocks = [
        event("response.created", response=response("in_progress"), sequence_number=0),
        event("response.output_item.added", output_index=0, item={}, sequence_number=1),
        event("response.output_text.delta", delta="", sequence_number=2),
        event("response.output_text.delta", delta="x", sequence_number=3),
        event("response.completed", response=response(usage=USAGE), sequence_number=4),
    ]
    meter = ResponsesMeter()
    assert [meter.events(block, False) for block in blocks[:4]] == [
        (blocks[0], False), (blocks[1], False), (blocks[2], False), (blocks[3], True)
    ]  # fmt: skip
    assert not meter.complete and meter.final_response() is None
    assert meter.billed(REQUEST) == (Usage(REQUEST.prompt_tokens, 1), UsageSource.ESTIMATE)
    assert meter.events(blocks[4], False) == (blocks[4], True)
    assert meter.complete and meter.finish_reason == "stop" and meter.sequence_number == 4
    assert meter.billed(REQUEST) == (Usage(9, 4, 2, reasoning_tokens=3), UsageSource.PROVIDER)
    assert msgspec.json.decode(meter.final_response()) == response(usage=USAGE)


def test_nothing_is_passed_on_after_the_terminal_event():
    meter, end = ResponsesMeter(), event("response.completed", response=response())
    assert meter.events(end + b"data: [DONE]\n\n", False) == (end, True)
    assert meter.events(b"data: [DONE]\n\n", False) == (b"", False)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (response(), "stop"),
        (response(output=[{"type": "reasoning"}, {"type": "function_call"}]), "tool_calls"),
        (response("incomplete", incomplete_details={"reason": "max_output_tokens"}), "length"),
        (response("incomplete", incomplete_details={"reason": "content_filter"}), "content_filter"),
        (response("queued"), "queued"),
    ],
)
def test_the_reason_for_the_end_is_said_in_the_words_of_the_receipt(said, reason):
    meter = ResponsesMeter()
    meter.answer(msgspec.json.encode(said))
    assert (meter.finish_reason, meter.complete) == (reason, True)


FAILURES = [
    ({"code": "server_error", "message": "boom"}, FailureKind.SERVER_ERROR),
    ({"code": "rate_limit_exceeded", "message": "slow down"}, FailureKind.RATE_LIMITED),
    ({"code": "invalid_prompt", "message": "no"}, FailureKind.REJECTED),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES)
def test_a_failed_response_is_a_failure_of_its_kind_wherever_it_says_so(error, kind):
    for block in (
        event("response.failed", response=response("failed", error=error)),
        event("error", **error),
        b"data: %b\n\n" % msgspec.json.encode({"error": error}),
    ):
        meter = ResponsesMeter()
        with pytest.raises(UpstreamError) as caught:
            meter.events(block, False)
        assert caught.value.kind is kind
        assert not meter.complete
    with pytest.raises(UpstreamError) as caught:
        ResponsesMeter().answer(msgspec.json.encode(response("failed", error=error)))
    assert caught.value.kind is kind


def test_what_a_failed_response_had_cost_is_billed_as_a_part():
    meter = ResponsesMeter()
    with pytest.raises(UpstreamError):
        meter.events(event("response.failed", response=response("failed", usage=USAGE)), False)
    assert meter.billed(REQUEST)[1] is UsageSource.PROVIDER_PARTIAL


@pytest.mark.parametrize(
    "data",
    [b"oops", b"[]", b'{"type":5}', b'{"type":"response.completed"}', b'{"type":"response.completed","response":{}}'],
)
def test_what_is_not_the_dialect_is_a_bad_payload(data):
    with pytest.raises(UpstreamError) as caught:
        ResponsesMeter().events(b"data: " + data + b"\n\n", False)
    assert caught.value.kind is FailureKind.BAD_PAYLOAD


@given(answers(), st.lists(st.integers(0, 4000)))
def test_our_own_stream_passes_a_meter_whole_however_it_is_cut(deltas, cuts):
    """Penstock in front of Penstock."""
    stream = write_stream(deltas)
    meter, cutter, got = ResponsesMeter(), EventCutter(), b""
    for start, end in pairwise([0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]):
        block = cutter.feed(stream[start:end])
        got += meter.events(block, False)[0] if block else b""
    assert got == stream
    assert meter.complete
    assert meter.final_response() == ResponsesWriter(ASKED).whole(deltas)
