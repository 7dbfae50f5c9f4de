"""Claude's answers into deltas, and deltas into answers for Claude's clients."""

from itertools import pairwise
from pathlib import Path

import anthropic
import httpx2
import msgspec
import pytest
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.request import Usage
from penstock.wire.anthropic import PING, MessagesReader, MessagesWriter, read_request, tool_names
from penstock.wire.canonical import (
    Ask,
    Asked,
    Begin,
    Citation,
    Counted,
    Finish,
    FinishReason,
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
from penstock.wire.sse import EventCutter, data_of

FRAMES = Path(__file__).parent / "frames" / "anthropic"
ASKED = Asked(id="req_01a1f99a2fef29c6837feb000001", model="my-model", created=0, include_usage=True, prompt_tokens=42)
SDK_EVENT = TypeAdapter(RawMessageStreamEvent)


def payloads(stream):
    return [data_of(event) for event in stream[:-2].split(b"\n\n")]


def read(stream, reader=None):
    """The deltas of a stream, one list for all its events."""
    reader = reader or MessagesReader()
    return [delta for data in payloads(stream) for delta in reader.event(data)]


def frame(name):
    return read((FRAMES / name).read_bytes())


def write(*deltas, asked=ASKED):
    """The events of a stream, checked by the official client's types."""
    writer = MessagesWriter(asked)
    stream = writer.events([Begin(), *deltas]) + writer.end()
    events = [msgspec.json.decode(data) for data in payloads(stream)]
    for event in events:
        SDK_EVENT.validate_python(event)
    return events


def plain(*deltas, asked=ASKED):
    return msgspec.json.decode(MessagesWriter(asked).whole([Begin(), *deltas]))


def by_the_sdk(stream):
    """What the official client makes of a stream."""
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    transport = httpx2.MockTransport(lambda request: answer)
    client = anthropic.Anthropic(
        api_key="k", base_url="http://penstock", http_client=httpx2.Client(transport=transport), max_retries=0
    )
    with client, client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as seen:
        return seen.get_final_message()


# --- reading ---------------------------------------------------------------------------------------------------------


def test_text_is_read_with_its_usage_and_its_end():
    assert frame("text.sse") == [
        Begin(id="msg_01XFDUDYJgAACzvnptvVoYEL", model="claude-opus-4-8", usage=Usage(25, 1)),
        TextDelta("Hello"),
        TextDelta("! Grüße"),
        Finish(FinishReason.STOP),
        Counted(Usage(25, 15)),
    ]


def test_parallel_calls_are_counted_and_one_without_arguments_has_an_empty_object():
    assert frame("tools.sse")[2:] == [
        ToolCallBegin(0, "toolu_01T1x1fJ34qAmk2tNTrN7Up6", "get_weather"),
        ToolCallDelta(0, '{"location": "San Fra'),
        ToolCallDelta(0, 'ncisco"}'),
        ToolCallBegin(1, "toolu_01T1x1fJ34qAmk2tNTrN7Up7", "now"),
        ToolCallDelta(1, "{}"),
        Finish(FinishReason.TOOL_CALLS),
        Counted(Usage(25, 89)),
    ]


def test_a_signature_is_read_byte_for_byte_and_redacted_thinking_too():
    deltas = frame("thinking.sse")
    assert ThinkingEnd("EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk=/+", Origin.ANTHROPIC) in deltas
    assert [type(delta) for delta in deltas[1:5]] == [ThinkingDelta, ThinkingDelta, ThinkingEnd, Redacted]
    assert deltas[4].data.startswith("EmwKAhgBEgy3va3pzix/LafPsn4aDFIT2Xlxh0L5L8rLVyIw")
    assert deltas[-1] == Counted(Usage(25, 64, reasoning_tokens=41))


def test_thinking_that_is_not_shown_still_has_its_signature():
    assert frame("thinking_omitted.sse")[1:3] == [
        ThinkingEnd("EosnCkYICxIMMb3LzNrMu", Origin.ANTHROPIC),
        TextDelta("Yes."),
    ]


def test_the_total_of_the_prompt_includes_cache_reads_and_writes():
    deltas = frame("cached.sse")
    assert deltas[-1] == Counted(Usage(2403, 7, 2000, 400, 300))
    assert deltas[-1].usage.input_tokens == 3
    assert deltas[-2] == Finish(FinishReason.STOP_SEQUENCE, "END")


def test_a_citation_follows_the_text_it_is_about():
    text, citation = frame("citations.sse")[1:3]
    assert isinstance(text, TextDelta)
    assert msgspec.json.decode(citation.raw)["cited_text"] == "The grass is green."


def test_server_tools_say_nothing_to_others_and_a_pause_is_told():
    assert frame("server_tool.sse")[1:3] == [TextDelta("Sunny"), Finish(FinishReason.PAUSE)]


def test_a_refusal_comes_with_its_explanation():
    assert frame("refusal.sse")[2:4] == [RefusalDelta("This request was declined."), Finish(FinishReason.REFUSAL)]


def test_an_answer_is_complete_only_after_its_last_event():
    reader = MessagesReader()
    *before, last = payloads((FRAMES / "text.sse").read_bytes())
    for data in before:
        reader.event(data)
        assert not reader.complete
    reader.event(last)
    assert reader.complete


def test_a_plain_answer_is_the_same_deltas_at_once():
    reader = MessagesReader()
    assert reader.whole((FRAMES / "tool_use.json").read_bytes()) == [
        Begin(id="msg_01Aq9w938a90dw8q", model="claude-opus-4-8"),
        ThinkingDelta("Look it up."),
        ThinkingEnd("EqQBCgIYAhIM1gbcDa9", Origin.ANTHROPIC),
        TextDelta("Let me check."),
        ToolCallBegin(0, "toolu_01A09q90qw90lq917835lq9", "get_weather"),
        ToolCallDelta(0, '{"location": "San Francisco, CA", "unit": "celsius"}'),
        Finish(FinishReason.TOOL_CALLS),
        Counted(Usage(2146, 503, 51, reasoning_tokens=12)),
    ]
    assert reader.complete


def test_a_call_comes_home_under_the_callers_own_name():
    names = tool_names(Ask(model="m", messages=(Message("user", (Text("x"),)),), tools=(Tool("files/read"),)))
    block = {"type": "tool_use", "id": "t", "name": names.outward("files/read"), "input": {}}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    assert MessagesReader(names).event(msgspec.json.encode(start)) == [ToolCallBegin(0, "t", "files/read")]


@pytest.mark.parametrize(
    ("reason", "means"),
    [("max_tokens", "length"), ("model_context_window_exceeded", "context"), ("something_new", "stop")],
)
def test_every_reason_to_stop_has_a_meaning(reason, means):
    data = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 1}}
    assert MessagesReader().event(msgspec.json.encode(data))[0] == Finish(FinishReason(means))


@pytest.mark.parametrize(
    ("type", "kind"),
    [
        ("overloaded_error", FailureKind.OVERLOADED),
        ("rate_limit_error", FailureKind.RATE_LIMITED),
        ("api_error", FailureKind.SERVER_ERROR),
        ("timeout_error", FailureKind.SERVER_ERROR),
        ("invalid_request_error", FailureKind.REJECTED),
        ("authentication_error", FailureKind.AUTH),
        ("permission_error", FailureKind.AUTH),
        ("billing_error", FailureKind.QUOTA),
        ("not_found_error", FailureKind.MISCONFIGURED),
        ("request_too_large", FailureKind.REJECTED),
        ("news_error", FailureKind.SERVER_ERROR),
    ],
)
def test_an_error_inside_a_200_is_an_error_of_its_own_kind(type, kind):
    error = msgspec.json.encode({"type": "error", "error": {"type": type, "message": "on host-7"}})
    for ask in (MessagesReader().event, MessagesReader().whole):
        with pytest.raises(UpstreamError) as caught:
            ask(error)
        assert caught.value.kind is kind
        assert (caught.value.said is not None) == (kind is FailureKind.REJECTED)


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"type":7}', b'{"type":"message_delta","delta":3}', b"\xff"])
def test_what_is_not_the_dialect_is_a_bad_payload(data):
    for ask in (MessagesReader().event, MessagesReader().whole):
        with pytest.raises(UpstreamError) as caught:
            ask(data)
        assert caught.value.kind is FailureKind.BAD_PAYLOAD


@pytest.mark.parametrize(
    "data", [b'{"type":"ping"}', b'{"type":"news"}', b'{"type":"content_block_delta","delta":{"type":"news_delta"}}']
)
def test_events_that_have_come_after_us_are_let_pass(data):
    assert MessagesReader().event(data) == []


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_stream_has_anthropics_order_of_events():
    events = write(TextDelta("Hi"), Finish(FinishReason.STOP), Counted(Usage(9, 2)))
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"] == {
        "id": "msg_01a1f99a2fef29c6837feb000001",
        "type": "message",
        "role": "assistant",
        "model": "my-model",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 42,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        },
    }


def test_the_start_tells_the_upstreams_count_where_it_is_known():
    writer = MessagesWriter(ASKED)
    start = msgspec.json.decode(payloads(writer.events([Begin(usage=Usage(9, 1, 4))]))[0])
    assert (start["message"]["usage"]["input_tokens"], start["message"]["usage"]["cache_read_input_tokens"]) == (5, 4)


def test_one_list_may_hold_text_and_a_call_and_the_end_and_the_first_delta_of_a_block_is_not_lost():
    events = write(
        TextDelta("a"), ToolCallBegin(0, "c", "f"), ToolCallDelta(0, "{"), ToolCallDelta(0, "}"),
        Finish(FinishReason.TOOL_CALLS),
    )  # fmt: skip
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert deltas == [
        {"type": "text_delta", "text": "a"},
        {"type": "input_json_delta", "partial_json": "{"},
        {"type": "input_json_delta", "partial_json": "}"},
    ]


def test_interleaved_calls_are_told_one_after_another_and_the_first_without_delay():
    writer = MessagesWriter(ASKED)
    writer.events([Begin(), ToolCallBegin(0, "a", "f"), ToolCallBegin(1, "b", "g")])
    assert b'"partial_json":"{\\"x\\":"' in writer.events([ToolCallDelta(0, '{"x":')])
    assert writer.events([ToolCallDelta(1, '{"y":'), TextDelta("done")]) == b""
    assert b'"1}"' in writer.events([ToolCallDelta(0, "1}")])
    assert writer.events([ToolCallDelta(1, "2}")]) == b""
    rest = [msgspec.json.decode(data) for data in payloads(writer.events([Finish(FinishReason.TOOL_CALLS)]))]
    assert [(event["type"], event["index"]) for event in rest] == [
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
    ]
    assert rest[2]["delta"]["partial_json"] == '{"y":2}'
    assert rest[5]["delta"]["text"] == "done"


def test_empty_deltas_are_not_told():
    writer = MessagesWriter(ASKED)
    writer.events([Begin()])
    assert writer.events([TextDelta(""), ThinkingDelta(""), RefusalDelta("")]) == b""
    writer.events([ToolCallBegin(0, "a", "f")])
    assert writer.events([ToolCallDelta(0, "")]) == b""


def test_a_signature_is_told_once_at_the_end_of_its_block():
    events = write(ThinkingDelta("a"), ThinkingDelta("b"), ThinkingEnd("s", Origin.ANTHROPIC), TextDelta("c"))
    types = [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"]
    assert types == ["thinking_delta", "thinking_delta", "signature_delta", "text_delta"]
    assert events[5]["type"] == "content_block_stop"


def test_a_foreign_signature_names_its_origin_and_comes_back_as_it_was():
    events = write(ThinkingDelta("a"), ThinkingEnd("s", Origin.OPENAI), Redacted("r", Origin.OPENAI))
    assert events[3]["delta"]["signature"] == "penstock.openai.s"
    assert events[5]["content_block"]["data"] == "penstock.openai.r"


def test_geminis_signature_of_a_call_travels_in_front_of_it_and_comes_back_on_it():
    deltas = [ToolCallBegin(0, "a", "f"), ToolCallBegin(1, "b", "g", signature="sig"), ToolCallDelta(1, "{}")]
    stream = [event["content_block"] for event in write(*deltas) if event["type"] == "content_block_start"]
    content = plain(*deltas)["content"]
    assert [block["type"] for block in content] == ["tool_use", "redacted_thinking", "tool_use"]
    assert stream == content
    history = {"model": "m", "messages": [{"role": "assistant", "content": content}]}
    ask = read_request({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in history.items()})
    assert [part.signature for part in ask.messages[0].parts] == [None, "sig"]


def test_arguments_of_a_call_that_never_began_are_not_an_answer():
    with pytest.raises(UpstreamError, match="not begun"):
        write(ToolCallDelta(3, "{}"))


def test_the_end_waits_for_the_usage_and_nothing_follows_it_but_the_last_event():
    writer = MessagesWriter(ASKED)
    assert b"message_delta" not in writer.events([Begin(), TextDelta("a"), Finish(FinishReason.STOP)])
    told = writer.events([Counted(Usage(10, 5, 4, 2, 1)), Counted(Usage(99, 99)), TextDelta("late")])
    (delta,) = [msgspec.json.decode(data) for data in payloads(told)]
    assert delta["usage"] == {
        "input_tokens": 4,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1},
    }
    assert [msgspec.json.decode(data)["type"] for data in payloads(writer.end())] == ["message_stop"]


def test_an_upstream_that_never_counts_is_estimated():
    *_, delta, _stop = write(TextDelta("x" * 41), Finish(FinishReason.STOP))
    assert (delta["usage"]["input_tokens"], delta["usage"]["output_tokens"]) == (42, 11)


def test_usage_that_came_before_the_end_is_told_with_it():
    *_, delta, _stop = write(TextDelta("x"), Counted(Usage(1, 2)), Finish(FinishReason.STOP))
    assert (delta["usage"]["input_tokens"], delta["usage"]["output_tokens"]) == (1, 2)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (FinishReason.STOP, "end_turn"),
        (FinishReason.LENGTH, "max_tokens"),
        (FinishReason.CONTEXT, "model_context_window_exceeded"),
        (FinishReason.CONTENT_FILTER, "refusal"),
        (FinishReason.REFUSAL, "refusal"),
        (FinishReason.PAUSE, "pause_turn"),
        (FinishReason.STOP_SEQUENCE, "stop_sequence"),
        (FinishReason.TOOL_CALLS, "end_turn"),  # says so, and there is no call
    ],
)
def test_every_reason_to_finish_is_told_in_anthropics_words(reason, told):
    assert write(TextDelta("x"), Finish(reason))[-2]["delta"]["stop_reason"] == told
    assert plain(TextDelta("x"), Finish(reason))["stop_reason"] == told


def test_an_upstream_that_says_stop_after_its_calls_means_the_calls():
    assert plain(ToolCallBegin(0, "c", "f"), Finish(FinishReason.STOP))["stop_reason"] == "tool_use"


def test_the_text_that_stopped_it_is_told_where_there_was_only_one():
    asks = [Ask(model="m", messages=(), stop=stop) for stop in (("END",), ("END", "FIN"))]
    told = [
        plain(Finish(FinishReason.STOP_SEQUENCE), asked=msgspec.structs.replace(ASKED, ask=ask))["stop_sequence"]
        for ask in asks
    ]
    assert told == ["END", None]
    assert plain(Finish(FinishReason.STOP_SEQUENCE, "FIN"))["stop_sequence"] == "FIN"


def test_a_refusal_is_text_and_a_reason():
    answer = plain(RefusalDelta("No."), Finish(FinishReason.STOP))
    assert (answer["content"], answer["stop_reason"]) == ([{"type": "text", "text": "No."}], "refusal")


def test_ids_that_are_missing_or_repeated_become_unique():
    answer = plain(ToolCallBegin(0, "c", "f"), ToolCallBegin(1, "c", "f"), ToolCallBegin(2, "", "f"))
    ids = [block["id"] for block in answer["content"]]
    assert ids[0] == "c"
    assert len(set(ids)) == 3
    assert all(id.startswith("toolu_") for id in ids[1:])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [("", {}), (' {"a": 1}', {"a": 1}), ('{"a":', {"INVALID_JSON": '{"a":'}), ("[1]", {"INVALID_JSON": "[1]"})],
)
def test_arguments_are_an_object_whatever_the_model_has_written(arguments, told):
    (block,) = plain(ToolCallBegin(0, "c", "f"), ToolCallDelta(0, arguments))["content"]
    assert block["input"] == told


def test_a_citation_of_another_origin_is_left_out_and_claudes_own_is_told():
    foreign = Citation(msgspec.Raw(b'{"type":"url_citation","url":"https://example.com"}'))
    own = frame("citations.sse")[2]
    (block,) = plain(TextDelta("x"), foreign, own)["content"]
    assert block["citations"] == [msgspec.json.decode(own.raw)]
    told = [event for event in write(TextDelta("x"), foreign, own) if event["type"] == "content_block_delta"]
    assert [event["delta"]["type"] for event in told] == ["text_delta", "citations_delta"]


def test_a_ping_is_an_event_that_the_official_client_passes_over():
    writer = MessagesWriter(ASKED)
    stream = writer.events([Begin()]) + PING + writer.events([TextDelta("a")]) + PING + writer.end()
    assert by_the_sdk(stream).content[0].text == "a"


# --- both ways -------------------------------------------------------------------------------------------------------

some_text = st.text(min_size=1, max_size=6)
json_object = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=2)
text_block = st.lists(some_text.map(TextDelta), min_size=1, max_size=3)
thinking_block = st.tuples(
    st.lists(some_text.map(ThinkingDelta), max_size=2), st.builds(ThinkingEnd, some_text, st.sampled_from(Origin))
).map(lambda block: [*block[0], block[1]])
redacted_block = st.builds(Redacted, some_text, st.sampled_from(Origin)).map(lambda delta: [delta])
call_block = st.tuples(some_text, json_object, st.integers(0, 9))
usages = st.builds(
    lambda parts, output, reasoning, hour: Usage(
        sum(parts), output + reasoning, parts[1], parts[2], min(hour, parts[2]), reasoning
    ),
    st.tuples(*[st.integers(0, 999)] * 3), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999),
)  # fmt: skip
finishes = st.sampled_from([reason for reason in FinishReason if reason is not FinishReason.TOOL_CALLS]).map(Finish)


@st.composite
def answers(draw):
    """Deltas of one answer: blocks in turn, only the arguments of calls come when they come."""
    deltas, late, n_calls = [], [], 0
    for block in draw(st.lists(text_block | thinking_block | redacted_block | call_block, max_size=6)):
        if isinstance(block, tuple):
            name, arguments, cut = block
            text = msgspec.json.encode(arguments).decode()
            deltas.append(ToolCallBegin(n_calls, f"toolu_{n_calls}", name))
            late += [ToolCallDelta(n_calls, piece) for piece in (text[:cut], text[cut:]) if piece]
            n_calls += 1
        else:
            deltas += block
        while late and draw(st.booleans()):  # each call's own pieces stay in order
            deltas.append(late.pop(0))
    deltas += late
    finish = Finish(FinishReason.TOOL_CALLS) if n_calls else draw(finishes)
    if finish.reason is FinishReason.CONTENT_FILTER:
        finish = Finish(FinishReason.REFUSAL)  # the dialect has one word for both
    return [*deltas, finish, Counted(draw(usages))]


def folded(deltas):
    """What an answer says, however it was cut: its blocks in the order in which they began, its end, its usage."""
    blocks, calls, rest = [], {}, []
    for delta in deltas:
        match delta:
            case TextDelta(text=text) | ThinkingDelta(text):
                if not blocks or blocks[-1][0] is not type(delta):
                    blocks.append([type(delta), ""])
                blocks[-1][1] += text
            case ToolCallBegin(index):
                calls[index] = [ToolCallBegin, delta.id, delta.name, ""]
                blocks.append(calls[index])
            case ToolCallDelta(index, arguments):
                calls[index][3] += arguments
            case Begin():
                pass
            case Finish() | Counted():
                rest.append(delta)
            case _:
                blocks.append([delta])
    return blocks, rest


def unsealed(deltas):
    """As a reader of Messages sees signatures that are not Anthropic's: with their origin in them."""
    prefix = {Origin.ANTHROPIC: "", Origin.OPENAI: "penstock.openai.", Origin.GEMINI: "penstock.gemini."}
    told = []
    for delta in deltas:
        if isinstance(delta, ThinkingEnd):
            delta = ThinkingEnd(prefix[delta.origin] + delta.signature, Origin.ANTHROPIC)
        elif isinstance(delta, Redacted):
            delta = Redacted(prefix[delta.origin] + delta.data, Origin.ANTHROPIC)
        told.append(delta)
    return told


@given(answers(), st.data())
def test_what_is_written_as_a_stream_is_read_as_it_was(deltas, data):
    writer, stream, at = MessagesWriter(ASKED), b"", 0
    while at < len(deltas):
        step = data.draw(st.integers(1, len(deltas)))
        stream += writer.events([Begin(), *deltas[at : at + step]] if at == 0 else deltas[at : at + step])
        at += step
    stream += writer.end()
    opened = -1
    for event in (msgspec.json.decode(payload) for payload in payloads(stream)):
        SDK_EVENT.validate_python(event)
        if event["type"] == "content_block_start":
            opened += 1
        assert event.get("index", opened) == opened
    assert folded(read(stream)) == folded(unsealed(deltas))


@given(answers())
def test_what_is_written_as_a_body_is_read_as_it_was(deltas):
    body = MessagesWriter(ASKED).whole([Begin(), *deltas])
    SdkMessage.model_validate(msgspec.json.decode(body))
    assert folded(MessagesReader().whole(body)) == folded(unsealed(deltas))


@given(answers())
def test_the_official_client_makes_the_same_of_a_stream_as_of_the_body(deltas):
    writer = MessagesWriter(ASKED)
    seen = by_the_sdk(writer.events([Begin(), *deltas]) + writer.end()).model_dump(exclude_none=True)
    body = SdkMessage.model_validate_json(MessagesWriter(ASKED).whole([Begin(), *deltas])).model_dump(exclude_none=True)
    for usage in (seen["usage"], body["usage"]):
        usage.pop("cache_creation", None)  # the client takes it from the start of a stream only
    for block in seen["content"]:
        block.pop("parsed_output", None)
    assert seen == body


@given(st.sampled_from(sorted(FRAMES.glob("*.sse"))), st.lists(st.integers(1, 5000), max_size=30))
def test_any_cut_of_the_bytes_gives_the_same_bytes_to_the_caller(path, places):
    def relayed(cuts):
        cutter, reader, writer, out = EventCutter(), MessagesReader(), MessagesWriter(ASKED), b""
        try:
            for a, b in pairwise(cuts):
                block = cutter.feed(whole[a:b]) if a != b else b""
                for payload in payloads(block) if block else ():
                    out += writer.events(reader.event(payload))
        except UpstreamError as error:
            return out, error.kind
        return out + writer.end(), reader.complete

    whole = path.read_bytes()
    assert relayed([0, *sorted(p % len(whole) for p in places), len(whole)]) == relayed([0, len(whole)])
