"""Messages that pass as they came, what the meter makes of them, errors in Anthropic's words, and the model pages."""

from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import anthropic
import httpx2
import msgspec
import pytest
from anthropic.types import MessageTokensCount, ModelInfo
from anthropic.types.shared import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import (
    BadRequest,
    FailureKind,
    Forbidden,
    NotFound,
    Overloaded,
    PenstockError,
    Rejected,
    Said,
    Unauthorized,
    Untranslatable,
    UpstreamError,
    UpstreamFailed,
)
from penstock.core.outcome import UsageSource
from penstock.core.request import ANYONE, Endpoint, Usage
from penstock.wire.anthropic import (
    MessagesMeter,
    count_tokens_body,
    error_body,
    error_event,
    failure_of,
    model_list,
    model_row,
    parse,
    status_of,
    upstream_body,
)
from penstock.wire.anthropic.answer_shapes import Tokens
from penstock.wire.anthropic.claude import claude, effort_of_budget, nearest_effort
from penstock.wire.anthropic.usage import fields, latest, usage_of
from penstock.wire.prompts import PREFIX_BYTES
from penstock.wire.sse import EventCutter

BLOCK = PREFIX_BYTES[0]

FRAMES = Path(__file__).parent / "frames" / "anthropic"


def read(body, endpoint=Endpoint.MESSAGES):
    return parse(body, id="r", endpoint=endpoint, caller=ANYONE, now=1.0)


def body(**fields):
    fields = {"model": "m", "max_tokens": 7, "messages": [{"role": "user", "content": "hi"}], **fields}
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_request_is_read_as_far_as_the_gateway_must():
    request = read(body(stream=True))
    assert (request.model, request.stream, request.max_tokens, request.include_usage) == ("m", True, 7, True)
    assert read(body(max_tokens=None), Endpoint.COUNT_TOKENS).max_tokens > 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "x"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields, param):
    with pytest.raises(BadRequest) as caught:
        read(body(**fields))
    assert caught.value.param == param


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data):
    with suppress(BadRequest):  # and nothing else may be raised
        assert read(data).model


def test_system_and_tools_count_as_prompt():
    bare, tools = read(body()).prompt_tokens, [{"name": "f", "input_schema": {"type": "object"}}]
    assert read(body(system="x" * 400)).prompt_tokens >= bare + 100
    assert read(body(tools=tools)).prompt_tokens > bare


def test_requests_that_begin_alike_share_their_first_hashes_tools_first():
    tools = [{"name": "f", "description": "x" * 2 * BLOCK}]
    one, two = read(body(tools=tools, system="a" * BLOCK)), read(body(tools=tools, system="b" * BLOCK))
    assert one.prefix_hashes[:2] == two.prefix_hashes[:2]
    assert one.prefix_hashes[2:] != two.prefix_hashes[2:]


@given(st.dictionaries(st.text(min_size=1), st.none() | st.integers(-(2**53), 2**53) | st.text(), max_size=5))
def test_only_the_model_is_changed_on_the_way_to_the_upstream(extra):
    known = {"model", "messages", "max_tokens", "stream", "system", "tools"}
    sent = {name: value for name, value in extra.items() if name not in known and value is not None}
    request = read(body(**sent))
    assert msgspec.json.decode(upstream_body(request, msgspec.Raw(b'"served"'))) == {
        "model": "served", "max_tokens": 7, "messages": [{"role": "user", "content": "hi"}], **sent,
    }  # fmt: skip
    assert msgspec.json.decode(upstream_body(request, None))["model"] == "m"


# --- the meter -------------------------------------------------------------------------------------------------------


def event(type, **members):
    return b"event: %b\ndata: %b\n\n" % (type.encode(), msgspec.json.encode({"type": type, **members}))


def block_delta(**delta):
    return event("content_block_delta", index=0, delta=delta)


def begun(**block):
    return event("content_block_start", index=0, content_block=block)


@pytest.mark.parametrize(
    ("data", "meaningful"),
    [
        (event("message_start", message={"usage": {"input_tokens": 9, "output_tokens": 1}}), False),
        (event("ping"), False),
        (b": comment\n\n", False),
        (begun(type="text", text=""), False),
        (begun(type="thinking", thinking="", signature=""), False),
        (block_delta(type="text_delta", text=""), False),
        (block_delta(type="input_json_delta", partial_json=""), False),
        (block_delta(type="signature_delta", signature="s"), False),
        (event("content_block_stop", index=0), False),
        (event("message_delta", delta={}, usage={"output_tokens": 3}), False),
        (event("message_stop"), False),
        (block_delta(type="text_delta", text="a"), True),
        (block_delta(type="thinking_delta", thinking="a"), True),
        (block_delta(type="input_json_delta", partial_json="{"), True),
        (block_delta(type="compaction_delta", content="a"), True),
        (begun(type="tool_use", id="t", name="f", input={}), True),
        (begun(type="redacted_thinking", data="r"), True),
        (begun(type="server_tool_use", id="t", name="web_search", input={}), True),
        (event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}), True),
    ],
)
def test_pitfall_28_only_what_says_something_is_a_token(data, meaningful):
    assert MessagesMeter().events(data, True) == (data, meaningful)


@pytest.mark.parametrize("path", sorted(FRAMES.glob("*.sse")), ids=lambda path: path.stem)
def test_every_stream_passes_as_it_came_up_to_its_error(path):
    stream, meter = path.read_bytes(), MessagesMeter()
    if path.stem == "overloaded":
        with pytest.raises(UpstreamError) as caught:
            meter.events(stream, False)
        assert caught.value.kind is FailureKind.OVERLOADED
        assert not meter.complete
        return
    assert meter.events(stream, False) == (stream, True)
    assert meter.complete


def test_usage_is_the_last_that_came_and_classes_that_were_not_repeated_stay():
    meter = MessagesMeter()
    meter.events((FRAMES / "cached.sse").read_bytes(), False)
    assert meter.usage == Usage(2403, 7, 2000, 400, 300)
    assert meter.billed(read(body())) == (Usage(2403, 7, 2000, 400, 300), UsageSource.PROVIDER)
    assert meter.finish_reason == "stop_sequence"


def test_a_cut_stream_is_billed_by_the_start_and_by_what_came_by():
    events = (FRAMES / "tools.sse").read_bytes().split(b"\n\n")
    meter = MessagesMeter()
    meter.events(b"\n\n".join(events[:9]) + b"\n\n", False)
    assert not meter.complete
    assert meter.billed(read(body())) == (Usage(25, 3), UsageSource.PROVIDER_PARTIAL)


def test_what_nobody_counted_is_an_estimate_that_says_so():
    meter, request = MessagesMeter(), read(body())
    assert meter.billed(request) == (Usage(), UsageSource.NONE)
    meter.events(block_delta(type="text_delta", text="a"), False)
    assert meter.billed(request) == (Usage(request.prompt_tokens, 1), UsageSource.ESTIMATE)


def test_a_plain_answer_is_read_for_its_receipt():
    meter = MessagesMeter()
    meter.answer((FRAMES / "tool_use.json").read_bytes())
    assert (meter.complete, meter.finish_reason, meter.usage) == (
        True, "tool_use", Usage(2146, 503, 51, reasoning_tokens=12),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"type":"error","error":{"type":"api_error","message":"boom"}}', FailureKind.SERVER_ERROR),
        (b"<html>", FailureKind.BAD_PAYLOAD),
        (b"{}", FailureKind.BAD_PAYLOAD),
    ],
)
def test_an_error_with_status_200_is_an_error(data, kind):
    for ask in (MessagesMeter().answer, lambda data: MessagesMeter().events(b"data: %b\n\n" % data, False)):
        with pytest.raises(UpstreamError) as caught:
            ask(data)
        assert caught.value.kind is kind


def test_nothing_after_the_last_event_can_spoil_an_answer():
    meter = MessagesMeter()
    assert meter.events(event("message_stop") + b"data: [DONE]\n\n", False)[1] is False
    assert meter.done


@given(st.sampled_from(sorted(FRAMES.glob("*.sse"))), st.lists(st.integers(1, 5000), max_size=30), st.booleans())
def test_the_meter_sees_the_same_stream_however_it_is_cut(path, places, crlf):
    def seen(cuts):
        cutter, meter, out = EventCutter(), MessagesMeter(), b""
        with suppress(UpstreamError):
            for a, b in pairwise(cuts):
                block = cutter.feed(whole[a:b]) if a != b else b""
                out += meter.events(block, False)[0] if block else b""
        return meter.usage, meter.finish_reason, meter.done, meter.tokens_seen, out if meter.done else None

    whole = path.read_bytes().replace(b"\n", b"\r\n") if crlf else path.read_bytes()
    assert seen([0, *sorted(p % len(whole) for p in places), len(whole)]) == seen([0, len(whole)])


@given(
    st.tuples(*[st.integers(0, 999)] * 3), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999)
)  # fmt: skip
def test_usage_keeps_its_classes_on_the_way_out_and_back(parts, output, reasoning, hour):
    usage = Usage(sum(parts), output + reasoning, parts[1], parts[2], min(hour, parts[2]), reasoning)
    told = fields(usage)
    assert told["input_tokens"] + told["cache_read_input_tokens"] + told["cache_creation_input_tokens"] == sum(parts)
    assert usage_of(msgspec.convert(told, Tokens)) == usage
    assert usage_of(latest(Tokens(input_tokens=5), msgspec.convert(told, Tokens))) == usage


# --- errors ----------------------------------------------------------------------------------------------------------


def failure(status, type, message):
    error = {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}
    return failure_of(status, msgspec.json.encode(error))


@pytest.mark.parametrize(
    ("status", "type", "message", "kind"),
    [
        (400, "invalid_request_error", "messages.0: bad", FailureKind.REJECTED),
        (400, "invalid_request_error", "prompt is too long: 7 tokens > 5 maximum", FailureKind.CONTEXT_LENGTH),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit",
            FailureKind.CONTEXT_LENGTH,
        ),
        (400, "invalid_request_error", "Output blocked by content filtering policy", FailureKind.CONTENT_POLICY),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", FailureKind.QUOTA),
        (429, "rate_limit_error", "This organization has reached its spend limit", FailureKind.QUOTA),
        (429, "rate_limit_error", "Number of requests exceeded", FailureKind.RATE_LIMITED),
        (401, "authentication_error", "invalid x-api-key", FailureKind.AUTH),
        (403, "permission_error", "no", FailureKind.AUTH),
        (402, "billing_error", "no", FailureKind.QUOTA),
        (404, "not_found_error", "model: claude-9", FailureKind.MISCONFIGURED),
        (413, "request_too_large", "too large", FailureKind.REJECTED),
        (500, "api_error", "host-7 fell over", FailureKind.SERVER_ERROR),
        (504, "timeout_error", "slow", FailureKind.SERVER_ERROR),
        (529, "overloaded_error", "Overloaded", FailureKind.OVERLOADED),
    ],
)
def test_pitfall_19_an_error_has_its_kind_and_its_words_only_where_they_are_about_the_request(
    status, type, message, kind
):
    error = failure(status, type, message)
    assert (error.kind, error.status) == (kind, status)
    ours = kind in (FailureKind.REJECTED, FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_POLICY)
    assert (error.said.message if error.said else None) == (message if ours else None)
    assert "host-7" not in str(error)


def test_an_error_page_of_a_proxy_has_the_kind_of_its_status():
    assert failure_of(529, b"<html>").kind is FailureKind.OVERLOADED
    assert failure_of(400, b'{"error":"flat"}').kind is FailureKind.REJECTED


def failed(kind, status):
    return UpstreamFailed(kind, status, "upstream_x", "The model server failed.")


@pytest.mark.parametrize(
    ("error", "status", "type", "raised"),
    [
        (BadRequest("x"), 400, "invalid_request_error", anthropic.BadRequestError),
        (Untranslatable("logit_bias"), 400, "invalid_request_error", anthropic.BadRequestError),
        (Unauthorized("x"), 401, "authentication_error", anthropic.AuthenticationError),
        (Forbidden("x"), 403, "permission_error", anthropic.PermissionDeniedError),
        (NotFound("x"), 404, "not_found_error", anthropic.NotFoundError),
        (Rejected(413, Said("x")), 413, "request_too_large", anthropic.APIStatusError),
        (Rejected(422, Said("x")), 422, "invalid_request_error", anthropic.UnprocessableEntityError),
        (failed(FailureKind.RATE_LIMITED, 429), 429, "rate_limit_error", anthropic.RateLimitError),
        (failed(FailureKind.AUTH, 502), 502, "api_error", anthropic.InternalServerError),
        (failed(FailureKind.FIRST_TOKEN_TIMEOUT, 504), 504, "timeout_error", anthropic.InternalServerError),
        (failed(FailureKind.OVERLOADED, 503), 529, "overloaded_error", anthropic.InternalServerError),
        (Overloaded("x"), 529, "overloaded_error", anthropic.InternalServerError),
        (PenstockError("x"), 500, "api_error", anthropic.InternalServerError),
    ],
)
def test_pitfall_19_errors_are_told_in_anthropics_words(error, status, type, raised):
    assert status_of(error) == status
    told = msgspec.json.decode(error_body(error, "req_1"))
    assert (told["type"], told["error"]["type"], told["request_id"]) == ("error", type, "req_1")
    if type != "request_too_large":  # documented, and missing among the client's types
        ErrorResponse.model_validate(told)
    answer = httpx2.Response(status, json=told)
    transport = httpx2.MockTransport(lambda request: answer)
    client = anthropic.Anthropic(
        api_key="k", base_url="http://penstock", http_client=httpx2.Client(transport=transport), max_retries=0
    )
    with client, pytest.raises(raised) as caught:
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    assert (caught.value.type, caught.value.error_code) == (type, error.code)


def test_pitfall_29_an_error_inside_a_stream_reaches_the_official_client_as_one():
    stream = (FRAMES / "text.sse").read_bytes().split(b"event: content_block_stop")[0]
    stream += error_event(failed(FailureKind.TRUNCATED, 502), "req_1")
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    transport = httpx2.MockTransport(lambda request: answer)
    client = anthropic.Anthropic(
        api_key="k", base_url="http://penstock", http_client=httpx2.Client(transport=transport), max_retries=0
    )
    with client, client.messages.stream(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}]) as seen:
        text = []
        with pytest.raises(anthropic.APIStatusError, match="The model server failed"):
            text += seen.text_stream
    assert text == ["Hello", "! Grüße"]


def test_clients_that_shorten_a_conversation_know_when_by_anthropics_own_words():
    long = Rejected(400, Said("This model's maximum context length is 5."), code="context_length_exceeded")
    message = msgspec.json.decode(error_body(long))["error"]["message"]
    assert message == "prompt is too long: This model's maximum context length is 5."
    own = Rejected(400, Said("prompt is too long: 7 tokens > 5 maximum"), code="context_length_exceeded")
    assert msgspec.json.decode(error_body(own))["error"]["message"] == "prompt is too long: 7 tokens > 5 maximum"


# --- pages, and the table of models ----------------------------------------------------------------------------------


def test_the_official_client_reads_the_model_pages_and_the_count():
    row = ModelInfo.model_validate_json(model_row("gpt-oss"))
    assert (row.id, row.display_name, row.created_at) == ("gpt-oss", "gpt-oss", datetime.fromtimestamp(0, UTC))
    page = msgspec.json.decode(model_list(["a", "b"]))
    assert [ModelInfo.model_validate(each).id for each in page["data"]] == ["a", "b"]
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("a", "b", False)
    assert msgspec.json.decode(model_list([])) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert MessageTokensCount.model_validate_json(count_tokens_body(14)).input_tokens == 14


@pytest.mark.parametrize(
    ("served", "like"),
    [
        ("claude-opus-4-20250514", "claude-opus-4-0"),
        ("anthropic.claude-opus-4-1-20250805-v1:0", "claude-opus-4-1"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("anthropic/claude-opus-4.7", "claude-opus-4-7"),
        ("claude-3-5-haiku-20241022", "claude-3-5-haiku-latest"),
        ("claude-opus-9", "claude-opus-5-5"),
        ("claude-sonnet-latest", "claude-sonnet-5-5"),
        ("claude-mythos-5-2", "claude-mythos-5-1"),
    ],
)
def test_a_models_rules_are_known_by_its_name_on_every_platform(served, like):
    assert claude(served) is claude(like)


def test_models_differ_where_their_documentation_says_so():
    assert claude("claude-3-7-sonnet-20250219").budget and not claude("claude-3-5-sonnet-20241022").budget
    assert not claude("claude-opus-4-5").adaptive and claude("claude-opus-4-6").adaptive
    assert claude("claude-opus-4-6").sampling and not claude("claude-opus-4-7").sampling
    assert not claude("claude-opus-4-7").system_turns and claude("claude-opus-4-8").system_turns
    assert not claude("claude-sonnet-5").system_turns
    assert claude("claude-opus-5").off and not claude("claude-opus-5-5").off
    assert claude("minimax-m2").prefill


@given(st.sampled_from(["minimal", "low", "medium", "high", "xhigh", "max"]), st.sampled_from(["opus", "sonnet"]))
def test_an_effort_is_never_raised_but_to_the_lowest(effort, line):
    known = claude(f"claude-{line}-4-6").efforts
    order = ["minimal", "low", "medium", "high", "xhigh", "max"]
    nearest = nearest_effort(effort, known)
    assert nearest in known
    assert order.index(nearest) <= order.index(effort) or nearest == known[0]


def test_an_effort_that_nobody_knows_is_for_the_upstream_to_judge():
    assert nearest_effort("utmost", ("low", "high")) == "utmost"


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_larger_budget_is_no_smaller_effort(one, other):
    order = ["low", "medium", "high", "xhigh", "max"]
    less, more = sorted((one, other))
    assert order.index(effort_of_budget(less)) <= order.index(effort_of_budget(more))


def test_reasoning_that_somebody_else_has_sealed_does_not_go_to_claude():
    ours = {"type": "thinking", "thinking": "hm", "signature": "EqQB"}
    foreign = [
        {"type": "thinking", "thinking": "hm", "signature": "penstock.gemini.CiQB"},
        {"type": "redacted_thinking", "data": "penstock.openai.gAAA"},
    ]
    said = {"type": "text", "text": '"penstock. is a word'}
    turns = [{"role": "assistant", "content": [ours, *foreign, said]}, {"role": "user", "content": "go on"}]
    body = msgspec.json.encode({"model": "m", "max_tokens": 9, "messages": turns})
    request = parse(body, id="r", endpoint=Endpoint.MESSAGES, caller=ANYONE, now=0.0)
    sent = msgspec.json.decode(upstream_body(request, None))
    assert sent["messages"] == [{"role": "assistant", "content": [ours, said]}, turns[1]]


def test_data_in_several_lines_is_one_payload_also_without_a_name_before_it():
    meter = MessagesMeter()
    with pytest.raises(UpstreamError):
        meter.events(b'data: {}\ndata: {"type":"ping"}\n\n', False)
    meter = MessagesMeter()
    meter.events(b'data: {"type":\ndata: "message_stop"}\n\n', False)
    assert meter.done
