"""Responses requests: parsed, read into the hub, sent on, and built on what was kept."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseItem
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from pydantic import TypeAdapter

from penstock.core.errors import BadRequest
from penstock.core.request import ANYONE, Endpoint
from penstock.wire.canonical import (
    Ask,
    Audio,
    Document,
    Format,
    Image,
    Message,
    Origin,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    seal,
)
from penstock.wire.prompts import EXPECTED_TOKENS, PREFIX_BYTES
from penstock.wire.responses import (
    cancelled,
    deleted_body,
    input_items_list,
    input_tokens_body,
    keep,
    parse,
    read_request,
    resolved,
    upstream_body,
    with_history,
)

BLOCK = PREFIX_BYTES[0]

Raw = msgspec.Raw


def raws(**fields):
    return msgspec.json.decode(msgspec.json.encode({"model": "m", **fields}), type=dict[str, Raw])


def parsed(endpoint=Endpoint.RESPONSES, **fields):
    return parse(msgspec.json.encode({"model": "m", **fields}), id="r", endpoint=endpoint, caller=ANYONE, now=1.0)


def read(**fields):
    return read_request(raws(**{"input": "hi", **fields}))


def said(*items):
    return read(input=list(items)).messages


# --- parse ---


def test_a_request_is_parsed_without_a_look_inside_its_input():
    request = parsed(input="hi", stream=True, max_output_tokens=7)
    assert (request.model, request.stream, request.max_tokens, request.include_usage) == ("m", True, 7, True)
    assert parsed(input=[{"anything": 1}]).max_tokens == EXPECTED_TOKENS


def test_counting_tokens_is_never_a_stream():
    assert not parsed(Endpoint.INPUT_TOKENS, input="hi", stream=True).stream


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[]", None),
        (b'{"input":"hi"}', "model"),
        (b'{"model":5,"input":"hi"}', "model"),
        (b'{"model":"m"}', "input"),
        (b'{"model":"m","input":null}', "input"),
        (b'{"model":"m","input":5}', "input"),
        (b'{"model":"m","input":"hi","stream":"yes"}', "stream"),
        (b'{"model":"m","input":"hi","max_output_tokens":-1}', "max_output_tokens"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(body, param):
    with pytest.raises(BadRequest) as caught:
        parse(body, id="r", endpoint=Endpoint.RESPONSES, caller=ANYONE, now=1.0)
    assert caught.value.param == param


@pytest.mark.parametrize("name", ["previous_response_id", "prompt", "conversation"])
def test_input_may_be_missing_where_something_stands_in_for_it(name):
    assert parsed(**{name: "x"}).prompt_tokens > 0


def test_requests_with_the_same_instructions_begin_with_the_same_prefix():
    one, other = (parsed(instructions="x" * BLOCK, input=word * BLOCK) for word in "ab")
    assert one.prefix_hashes[0] == other.prefix_hashes[0]
    assert one.prefix_hashes[1] != other.prefix_hashes[1]


# --- read ---


def test_a_string_is_what_the_user_says_after_the_instructions():
    assert read(instructions="be kind").messages == (
        Message("system", (Text("be kind"),)), Message("user", (Text("hi"),))
    )  # fmt: skip


def test_items_of_one_turn_are_one_message():
    assert said(
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
         "encrypted_content": "enc"},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "wait", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "f", "arguments": "{", "status": "completed"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": ""},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
        {"role": "user", "content": "and?"},
    ) == (
        Message("system", (Text("rules"),)),
        Message("user", (Text("hi"),)),
        Message("assistant", (
            Thinking("hm", "enc", origin=Origin.OPENAI), Text("wait"), ToolCall("1", "f", "{"),
            ToolCall("2", "g", ""))),
        Message("user", (ToolResult("1", (Text("one"),)), ToolResult("2", (Text("two"),)), Text("and?"))),
    )  # fmt: skip


def test_parts_of_every_kind_are_read():
    parts = [
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_url": "https://x.example/a.pdf"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,BB", "filename": "a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "CC", "format": "mp3"}},
    ]
    assert said({"role": "user", "content": parts})[0].parts == (
        Image(media_type="image/png", data="AA", detail="low"),
        Image(file_id="file-1"),
        Document(url="https://x.example/a.pdf"),
        Document(media_type="application/pdf", data="BB", name="a.pdf"),
        Audio("CC", "mp3"),
    )
    assert said({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]})[0].parts == (Refusal("no"),)


@given(st.text(min_size=1).filter(lambda text: not text.startswith("redacted.")), st.sampled_from(Origin))
def test_signatures_of_whatever_origin_come_back_byte_for_byte(signature, origin):
    sealed = seal(signature, origin, Origin.OPENAI)
    (message,) = said({"type": "reasoning", "summary": [], "encrypted_content": sealed})
    assert message.parts == (Thinking("", signature, origin=origin),)


def test_reasoning_that_was_shown_as_it_is_and_sealed_by_nobody_has_no_origin():
    item = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert said(item)[0].parts == (Thinking("hm"),)


def test_settings_are_read_under_their_names():
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    ask = read(
        stream=True, max_output_tokens=5, temperature=1, top_p=0.5, top_logprobs=3, parallel_tool_calls=False,
        text={"format": schema, "verbosity": "low"}, reasoning={"effort": "high", "summary": "auto"}, user="u",
        include=["reasoning.encrypted_content", "message.output_text.logprobs"], service_tier="flex",
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}],
        tool_choice={"type": "function", "name": "f"},
    )  # fmt: skip
    assert ask == Ask(
        model="m", messages=(Message("user", (Text("hi"),)),), stream=True, max_tokens=5, temperature=1.0, top_p=0.5,
        logprobs=True, top_logprobs=3, parallel_tool_calls=False, verbosity="low", user="u", service_tier="flex",
        response_format=Format("json_schema", "n", Raw(b'{"type":"object"}'), True),
        reasoning=Reasoning(effort="high", show=True),
        tools=(Tool("f", schema=Raw(b'{"type":"object"}'), strict=False),), tool_choice=ToolChoice("tool", ("f",)),
    )  # fmt: skip


def test_any_json_object_may_be_asked_for():
    assert read(text={"format": {"type": "json_object"}}).response_format == Format("json_object")


def test_what_only_concerns_the_answer_as_an_object_is_no_loss():
    ask = read(
        store=True, metadata={"a": "b"}, background=False, truncation="disabled", stream_options={}, conversation=None
    )
    assert ask == read()


@pytest.mark.parametrize(
    ("choice", "read_as"),
    [
        ("required", ToolChoice("required")),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            ToolChoice("allowed_auto", ("f",)),
        ),
    ],
)
def test_tool_choices_are_read(choice, read_as):
    assert read(tool_choice=choice).tool_choice == read_as


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["web_search_call.results"]}, "include.web_search_call.results"),
        ({"tools": [{"type": "web_search"}]}, "tools.web_search"),
        ({"tools": [{"type": "function", "name": "f", "defer_loading": True}]}, "tools.defer_loading"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": {"format": {"type": "text"}, "x": 1}}, "text.x"),
        ({"reasoning": {"effort": "low", "mode": "pro"}}, "reasoning.mode"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input.web_search_call"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input.content.input_video"),
    ],
)
def test_what_has_no_place_in_the_hub_is_kept_by_name(fields, name):
    assert list(read(**fields).extra) == [name]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "1"}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": ["x"]}]}, "input[0].summary[0]"),
        ({"input": [5]}, "input"),
        ({"input": None}, "input"),
        (
            {
                "input": [
                    {"type": "function_call_output", "call_id": "1", "output": [{"type": "refusal", "refusal": "x"}]}
                ]
            },
            "input[0].output",
        ),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"temperature": "hot"}, "temperature"),
        ({"text": {"verbosity": 5}}, "text.verbosity"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(fields, param):
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.param == param


# --- sent on ---


def test_the_upstream_is_sent_the_request_with_its_own_name_for_the_model():
    body = upstream_body(parsed(input="hi", anything={"a": 1}), Raw(b'"served"'))
    assert msgspec.json.decode(body) == {"model": "served", "input": "hi", "anything": {"a": 1}}


def test_reasoning_that_another_provider_sealed_is_not_sent_on_and_all_else_is():
    def reasoning(sealed):
        return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed}

    items = [
        {"role": "user", "content": 'what is "penstock.anthropic.x"?'},
        reasoning("gAAAA"),
        reasoning(seal("sig", Origin.ANTHROPIC, Origin.OPENAI)),
        reasoning(None),
    ]
    sent = msgspec.json.decode(upstream_body(parsed(input=items), None))["input"]
    assert sent == [items[0], items[1], items[3]]


# --- kept ---

ANSWER = {
    "id": "resp_1", "object": "response", "status": "completed", "model": "m",
    "output": [{"id": "msg_9", "type": "message", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "hello", "annotations": []}]}],
}  # fmt: skip


def kept(**fields):
    return keep(raws(**fields), msgspec.json.encode(ANSWER))


def test_a_request_goes_on_from_a_kept_response_with_its_own_instructions_only():
    before = kept(instructions="be kind", input="hi")
    fields = with_history(raws(previous_response_id="resp_1", input="more"), before)
    assert read_request(fields).messages == (
        Message("user", (Text("hi"),)), Message("assistant", (Text("hello"),)), Message("user", (Text("more"),))
    )  # fmt: skip


def test_a_chain_of_responses_holds_every_turn_once():
    fields = raws(input="1")
    for turn in "23":
        fields = with_history(raws(input=turn), keep(fields, msgspec.json.encode(ANSWER)))
    assert [part.text for message in read_request(fields).messages for part in message.parts] == [
        "1", "hello", "2", "hello", "3"
    ]  # fmt: skip


def test_references_to_the_history_are_resolved_and_others_refused():
    before = kept(input="hi")
    reference = {"type": "item_reference", "id": "msg_9"}
    fields = with_history(raws(input=[reference, {"role": "user", "content": "more"}]), before)
    assert len(read_request(fields).messages) == 3
    with pytest.raises(BadRequest, match="msg_7"):
        with_history(raws(input=[{"type": "item_reference", "id": "msg_7"}]), before)


def test_a_request_with_its_history_is_as_long_as_both():
    request = parsed(previous_response_id="resp_1", input="more")
    long = resolved(request, kept(input="x" * 5000))
    assert long.prompt_tokens > 1000 > request.prompt_tokens
    assert long.prefix_hashes
    assert "previous_response_id" not in long.fields


ITEMS = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": [{"type": "input_image", "image_url": "https://x.example/a.png"}]},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "42"},
    {"type": "reasoning", "id": "rs_0", "summary": []},
]


def test_items_are_shown_as_openais_client_expects_them():
    page = msgspec.json.decode(input_items_list(kept(input=ITEMS), order="asc"))
    for item in page["data"]:
        TypeAdapter(ResponseItem).validate_json(msgspec.json.encode(item), strict=True)
    ids = [item["id"] for item in page["data"]]
    assert len(set(ids)) == len(ITEMS)
    assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[0], ids[-1])


@given(st.integers(1, 7), st.sampled_from(["asc", "desc"]))
def test_pages_follow_each_other_without_gap_or_overlap(limit, order):
    stored, seen, after, more = kept(input=ITEMS), [], None, True
    while more:
        page = msgspec.json.decode(input_items_list(stored, after=after, limit=limit, order=order))
        assert 0 < len(page["data"]) <= limit
        seen += [item["id"] for item in page["data"]]
        after, more = page["last_id"], page["has_more"]
    whole = [msgspec.json.decode(item)["id"] for item in stored.input]
    assert seen == (whole if order == "asc" else whole[::-1])


def test_a_page_after_an_unknown_item_is_refused():
    with pytest.raises(BadRequest, match="after"):
        input_items_list(kept(input="hi"), after="msg_x")


def test_the_small_bodies_are_what_openais_client_expects():
    assert msgspec.json.decode(deleted_body("resp_1")) == {"id": "resp_1", "object": "response", "deleted": True}
    InputTokenCountResponse.model_validate_json(input_tokens_body(7), strict=True)
    stopped = msgspec.json.decode(cancelled(msgspec.json.encode(ANSWER)))
    assert stopped == {**ANSWER, "status": "cancelled"}
