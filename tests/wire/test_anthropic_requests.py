"""Messages requests into the canonical form and out of it, with the rules that each Claude has."""

from collections.abc import Iterable

import msgspec
import pytest
from anthropic.types import MessageCreateParams
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from penstock.core.errors import BadRequest, Untranslatable
from penstock.wire.anthropic import NAMES, read_request, tool_names, write_request
from penstock.wire.anthropic.turns_out import OPENING
from penstock.wire.canonical import (
    HINTS,
    Ask,
    Audio,
    Document,
    Format,
    Image,
    Losses,
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
)

SDK_REQUEST = TypeAdapter(MessageCreateParams)
PLAIN = "some-model"  # speaks the dialect and is no Claude
SONNET_4_5, OPUS_4_6, OPUS_4_8, OPUS_5 = (
    "claude-sonnet-4-5-20250929",
    "claude-opus-4-6",
    "claude-opus-4-8",
    "claude-opus-5",
)
HI = Message("user", (Text("hi"),))
RED = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def sdk_takes(body):
    """Checked by the official client's types, which look into lists only as somebody walks through them."""

    def walk(value):
        if isinstance(value, dict):
            value = value.values()
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            for each in value:
                walk(each)

    walk(SDK_REQUEST.validate_python(body))


def raw(value):
    return msgspec.Raw(msgspec.json.encode(value))


def read(**fields):
    fields = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}], **fields}
    return read_request({name: raw(value) for name, value in fields.items()})


def told(*content, role="user", **fields):
    """The parts of a message with this content."""
    return read(messages=[{"role": role, "content": list(content)}], **fields).messages[-1].parts


def write(*messages, served=SONNET_4_5, lose=(), **fields):
    """The body for Claude, checked by the official client's types, and what was lost."""
    losses = Losses(lose)
    ask = Ask(model="m", messages=messages or (HI,), **fields)
    body = msgspec.json.decode(write_request(ask, served=served, losses=losses))
    sdk_takes(body)
    return body, losses.lost


def refused(field, *messages, **fields):
    """The body without `field`, which is refused unless it may be lost; a hint is lost without leave."""
    if field in HINTS:
        body, lost = write(*messages, **fields)
        assert lost == [field]
        return body
    with pytest.raises(Untranslatable) as caught:
        write(*messages, **fields)
    assert caught.value.field == field
    body, lost = write(*messages, lose=(field,), **fields)
    assert lost == [field]
    return body


# --- reading ---------------------------------------------------------------------------------------------------------


def test_plain_fields_are_read_under_their_canonical_names():
    ask = read(
        system="Be brief.", temperature=0.5, top_p=0.9, top_k=7, stop_sequences=["END"], stream=True,
        metadata={"user_id": "u1"}, service_tier="standard_only",
    )  # fmt: skip
    assert ask == Ask(
        model="m", max_tokens=99, stream=True, temperature=0.5, top_p=0.9, top_k=7, stop=("END",), user="u1",
        service_tier="default", messages=(Message("system", (Text("Be brief."),)), HI),
    )  # fmt: skip


def test_pitfall_1_system_blocks_keep_their_marks_and_a_later_one_its_place():
    system = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    messages = [{"role": "user", "content": "b"}, {"role": "system", "content": "c"}]
    assert read(system=system, messages=messages).messages == (
        Message("system", (Text("a", cache="1h"),)),
        Message("user", (Text("b"),)),
        Message("system", (Text("c"),)),
    )


def test_pitfall_3_text_images_and_results_keep_their_order():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": RED}}
    result = {
        "type": "tool_result", "tool_use_id": "t1", "is_error": True, "cache_control": {"type": "ephemeral"},
        "content": [{"type": "text", "text": "broken"}, image],
    }  # fmt: skip
    picture = Image("image/png", data=RED)
    assert told({"type": "text", "text": "see"}, result, image) == (
        Text("see"),
        ToolResult("t1", (Text("broken"), picture), is_error=True, cache="5m"),
        picture,
    )
    assert told({"type": "tool_result", "tool_use_id": "t", "content": "ok"}) == (ToolResult("t", (Text("ok"),)),)
    assert told({"type": "tool_result", "tool_use_id": "t"}) == (ToolResult("t", ()),)


def test_pitfall_4_tool_choice_and_parallel_calls_are_read():
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    seen = {
        kind: (ask.tool_choice, ask.parallel_tool_calls)
        for kind, ask in {
            "auto": read(tools=tools, tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
            "any": read(tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": False}),
            "tool": read(tools=tools, tool_choice={"type": "tool", "name": "f"}),
            "none": read(tools=tools, tool_choice={"type": "none"}),
        }.items()
    }
    assert seen == {
        "auto": (ToolChoice("auto"), False),
        "any": (ToolChoice("required"), True),
        "tool": (ToolChoice("tool", ("f",)), None),
        "none": (ToolChoice("none"), None),
    }


def test_pitfall_9_signatures_are_read_byte_for_byte_and_foreign_ones_go_home():
    signature = "Eq/+==\u00e9"
    assert told(
        {"type": "thinking", "thinking": "hm", "signature": signature},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "thinking", "thinking": "o", "signature": "penstock.openai.x.y"},
        {"type": "thinking", "thinking": "unsigned", "signature": ""},
        role="assistant",
    ) == (
        Thinking("hm", signature=signature, origin=Origin.ANTHROPIC),
        Thinking(redacted="secret", origin=Origin.ANTHROPIC),
        Thinking("o", signature="x.y", origin=Origin.OPENAI),
        Thinking("unsigned"),
    )


def test_geminis_signature_of_a_call_comes_back_on_its_call():
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    sealed = {"type": "redacted_thinking", "data": "penstock.gemini.call.abc"}
    assert told(sealed, call, call, role="assistant") == (
        ToolCall("t", "f", '{"a":1}', signature="abc"),
        ToolCall("t", "f", '{"a":1}'),
    )


def test_what_a_block_says_beyond_its_content_is_kept_by_name():
    chunks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    document = {
        "type": "document", "source": {"type": "content", "content": chunks}, "context": "c",
        "citations": {"enabled": True},
    }  # fmt: skip
    ask = read(messages=[{"role": "user", "content": [document, {"type": "search_result", "source": "s"}]}])
    assert ask.messages[0].parts == (Document(text="a\nb"),)
    assert set(ask.extra) == {"document", "context", "citations", "search_result"}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    for caller, kept in (
        ({"type": "direct"}, set()),
        ({"type": "code_execution_20260120", "tool_id": "x"}, {"caller"}),
    ):
        content = [{**call, "caller": caller}]
        assert set(read(messages=[{"role": "assistant", "content": content}]).extra) == kept


def test_pitfall_10_images_and_documents_come_from_four_kinds_of_sources():
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}}
    text = {"type": "text", "media_type": "text/plain", "data": "hello"}
    assert told(
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {**pdf, "title": "T", "cache_control": {"type": "ephemeral"}},
        {"type": "document", "source": text},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "source": {"type": "content", "content": "inline"}},
    ) == (
        Image(url="https://example.com/a.png"),
        Image(file_id="file_1"),
        Document("application/pdf", data="JVBERg==", name="T", cache="5m"),
        Document(text="hello"),
        Document(url="https://example.com/a.pdf"),
        Document(text="inline"),
    )


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Reasoning(budget=2048)),
        ({"thinking": {"type": "disabled"}}, Reasoning(off=True)),
        ({"thinking": {"type": "between_tools"}}, Reasoning(off=True)),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, Reasoning(show=True)),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "xhigh"}},
            Reasoning(effort="xhigh", show=False),
        ),
        ({"output_config": {"effort": "low"}}, Reasoning(effort="low")),
        ({}, None),
    ],
)
def test_pitfall_8_thinking_is_an_effort_or_a_budget(fields, reasoning):
    assert read(**fields).reasoning == reasoning


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_a_schema_for_the_answer_is_read_from_where_it_is_and_from_where_it_was(name):
    shape = {"type": "json_schema", "schema": {"type": "object"}}
    ask = read(**{name: {"format": shape} if name == "output_config" else shape})
    assert ask.response_format == Format("json_schema", schema=raw({"type": "object"}))


def test_what_only_anthropic_can_do_is_kept_to_be_refused_by_name():
    ask = read(
        tools=[
            {"type": "web_search_20260318", "name": "web_search"},
            {"name": "f", "input_schema": {}, "defer_loading": True, "eager_input_streaming": False},
        ],
        mcp_servers=[{"type": "url", "url": "https://example.com", "name": "n"}],
        container="c",
        context_management={"edits": []},
        speed=None,
        metadata={"user_id": None, "team": "t"},
        output_config={"task_budget": {"type": "tokens", "total": 1}},
        messages=[{"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "w", "input": {}}]}],
    )
    assert set(ask.extra) == {
        "web_search_20260318", "defer_loading", "mcp_servers", "container", "context_management", "metadata.team",
        "output_config.task_budget", "server_tool_use",
    }  # fmt: skip
    assert [tool.name for tool in ask.tools] == ["f"]


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"messages": []}, "messages"),
        ({"messages": 3}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, "messages.0.content.0.id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "gopher"}}]}]},
            "messages.0.content.0.source.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": "here"}]}]},
            "messages.0.content.0.source",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
            "messages.0.content.0.tool_use_id",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "", "cache_control": {"ttl": "9m"}}]}]},
            "messages.0.content.0.cache_control.ttl",
        ),
        ({"tools": [{"input_schema": {}}]}, "tools.0"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(fields, at):
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.param == at


@given(st.dictionaries(st.sampled_from(["messages", "system", "tools", "thinking", "output_config"]), st.binary()))
def test_any_bytes_are_read_or_refused(fields):
    with pytest.raises(BadRequest):
        read_request({name: msgspec.Raw(value) for name, value in fields.items()})


# --- writing: messages -----------------------------------------------------------------------------------------------


def test_pitfall_1_leading_system_text_is_hoisted_and_a_later_one_is_promoted_in_place():
    messages = (
        Message("system", (Text("a"),)),
        HI,
        Message("system", (Text("b"),)),
        Message("assistant", (Text("c"),)),
    )
    ask = Ask(model="m", messages=(*messages, HI))
    for _again in range(2):  # every attempt writes it anew, so nothing of it may change
        body = msgspec.json.decode(write_request(ask, served=SONNET_4_5, losses=Losses()))
        assert body["system"] == [{"type": "text", "text": "a"}]
        assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in body["messages"]] == [
            ("user", ["hi", "b"]),
            ("assistant", ["c"]),
            ("user", ["hi"]),
        ]


def test_a_model_with_system_turns_gets_one_only_behind_the_user_and_before_the_assistant():
    note = Message("system", (Text("note"),))
    answer = Message("assistant", (Text("ok"),))
    assert [turn["role"] for turn in write(HI, note, served=OPUS_4_8)[0]["messages"]] == ["user", "system"]
    assert [turn["role"] for turn in write(HI, note, answer, HI, served=OPUS_4_8)[0]["messages"]] == [
        "user", "system", "assistant", "user",
    ]  # fmt: skip
    assert [turn["role"] for turn in write(HI, note, HI, served=OPUS_4_8)[0]["messages"]] == ["user"]
    assert [turn["role"] for turn in write(HI, answer, note, HI, served=OPUS_4_8)[0]["messages"]] == [
        "user", "assistant", "user",
    ]  # fmt: skip


def test_instructions_alone_are_what_the_user_says():
    body, _ = write(Message("system", (Text("Tell a joke."),)))
    assert "system" not in body
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Tell a joke."}]}]


def test_pitfall_3_results_are_gathered_and_come_first_in_their_turn():
    calls = Message("assistant", (ToolCall("a", "f", ""), ToolCall("b", "f", "{}")))
    results = (
        Message("system", (Text("careful"),)),
        Message("user", (ToolResult("a", (Text("1"),)),)),
        Message("user", (Text("and"), ToolResult("b", (), is_error=True))),
    )
    *_, turn = write(HI, calls, *results)[0]["messages"]
    assert turn["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "1"}]},
        {"type": "tool_result", "tool_use_id": "b", "is_error": True},
        {"type": "text", "text": "careful"},
        {"type": "text", "text": "and"},
    ]


def test_pitfall_9_only_claudes_own_thinking_goes_back_and_it_comes_first():
    parts = (
        Text("t"),
        Thinking("a", signature="s/+=", origin=Origin.ANTHROPIC),
        Thinking(redacted="r", origin=Origin.ANTHROPIC),
        Thinking("b", signature="s", origin=Origin.OPENAI),
        Thinking("c"),
    )
    body, lost = write(HI, Message("assistant", parts), HI)
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "a", "signature": "s/+="},
        {"type": "redacted_thinking", "data": "r"},
        {"type": "text", "text": "t"},
    ]
    assert lost == []


def test_pitfall_9_a_model_with_a_budget_does_not_think_on_behind_calls_whose_thoughts_are_not_its_own():
    result = Message("user", (ToolResult("a", ()),))
    call, thought = ToolCall("a", "f", "{}"), Thinking("t", signature="s", origin=Origin.ANTHROPIC)
    hard = Reasoning(effort="high")
    assert "thinking" not in refused("reasoning", HI, Message("assistant", (call,)), result, reasoning=hard)
    for messages in ((Message("assistant", (thought, call)), result), (Message("assistant", (call,)), result, HI)):
        body, _ = write(HI, *messages, reasoning=hard, lose=("reasoning",))
        assert ("thinking" in body) == (messages[0].parts[0] is thought)
    assert write(HI, Message("assistant", (call,)), result, reasoning=hard, served=OPUS_5)[0]["thinking"]


def test_pitfall_13_a_prefill_loses_the_white_space_that_claude_refuses():
    body, _ = write(HI, Message("assistant", (Text("The answer is \n"),)))
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "The answer is"}]
    body = refused("prefill", HI, Message("assistant", (Text("The"),)), served=OPUS_4_6)
    assert [turn["role"] for turn in body["messages"]] == ["user"]


def test_pitfall_15_empty_text_and_empty_answers_are_left_out_and_the_user_comes_first():
    body, _ = write(
        Message("assistant", (Text("Hello!"),)), HI, Message("assistant", ()), Message("user", (Text(" "), Text("x")))
    )
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in body["messages"]] == [
        ("user", [OPENING]),
        ("assistant", ["Hello!"]),
        ("user", ["hi", "x"]),
    ]
    with pytest.raises(BadRequest, match="white space"):
        write(Message("user", (Text(" "),)))


def test_pitfall_18_arguments_become_an_object_and_keep_their_bytes():
    ask = Ask(
        model="m", messages=(HI, Message("assistant", (ToolCall("a", "f", '{"x": 1e2}'), ToolCall("b", "f", ""))))
    )
    body = write_request(ask, served=PLAIN, losses=Losses())
    assert b'"input":{"x": 1e2}' in body
    assert b'"input":{}' in body
    for broken in ('{"x"', "[1]", "3"):
        with pytest.raises(BadRequest, match="tool call 'a'"):
            write(HI, Message("assistant", (ToolCall("a", "f", broken),)), HI)


def test_pitfall_20_ids_that_claude_would_refuse_are_changed_alike_in_call_and_result():
    call = Message("assistant", (ToolCall("functions.f:0", "f", "{}"), ToolCall("call_ok", "f", "{}")))
    result = Message("user", (ToolResult("functions.f:0", ()), ToolResult("call_ok", ())))
    _, calls, results = write(HI, call, result)[0]["messages"]
    ids = [block["id"] for block in calls["content"]]
    assert ids == [block["tool_use_id"] for block in results["content"]]
    assert ids[1] == "call_ok"
    assert ids[0].startswith("toolu_")


def test_pitfall_10_media_keep_their_source():
    parts = (
        Image("image/png", data=RED, cache="1h"),
        Image(url="https://example.com/a.png"),
        Document("application/pdf", data="JVBERg==", name="T"),
        Document("text/plain", data="aGVsbG8="),
        Document(text="inline"),
        Document(file_id="file_011"),
    )
    assert write(Message("user", parts))[0]["messages"][0]["content"] == [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": RED},
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        },
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            "title": "T",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "inline"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_011"}},
    ]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (Audio("UklGRg==", "wav"), "audio"),
        (Image(file_id="file-of-openai"), "image.file_id"),
        (Document(file_id="file-of-openai"), "document.file_id"),
        (Document("application/msword", data="AAAA"), "document"),
    ],
)
def test_parts_that_claude_cannot_take_are_refused_by_name(part, field):
    refused(field, Message("user", (Text("x"), part)))


def test_pitfall_11_of_more_than_four_breakpoints_the_last_four_stay():
    body, lost = write(
        Message("system", (Text("s", cache="5m"),)),
        Message("user", (ToolResult("t", (Text("r", cache="5m"),), cache="5m"), Text("x", cache="1h"))),
        served=PLAIN,
        tools=(Tool("f", cache="1h"), Tool("g", cache="5m")),
    )
    assert lost == ["cache_control"], "a hint: left out without leave, and told"
    assert not any("cache_control" in tool for tool in body["tools"])
    assert "cache_control" in body["system"][0]
    result, text = body["messages"][0]["content"]
    assert "cache_control" in result["content"][0]
    assert result["cache_control"] == {"type": "ephemeral"}
    assert text["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


def test_an_earlier_refusal_is_text_and_an_earlier_citation_goes_back():
    place = {"type": "char_location", "cited_text": "x", "document_index": 0, "document_title": None}
    place |= {"start_char_index": 0, "end_char_index": 1}
    cited = Text("x", citations=raw([place]))
    parts = write(HI, Message("assistant", (Refusal("No."), cited)), HI)[0]["messages"][1]["content"]
    assert parts == [
        {"type": "text", "text": "No."},
        {"type": "text", "text": "x", "citations": [place]},
    ]


# --- writing: the other fields ---------------------------------------------------------------------------------------


def test_pitfall_2_tool_names_go_out_legal_everywhere_alike():
    names = ("mcp/files.read", "mcp_files.read", "x" * 200)
    body, _ = write(
        HI, Message("assistant", (ToolCall("a", names[0], "{}"),)), HI,
        tools=tuple(Tool(name) for name in names), tool_choice=ToolChoice("tool", (names[0],)),
    )  # fmt: skip
    sent = [tool["name"] for tool in body["tools"]]
    assert len(set(sent)) == 3
    assert body["tool_choice"]["name"] == body["messages"][1]["content"][0]["name"] == sent[0]
    known = tool_names(Ask(model="m", messages=(HI,), tools=tuple(Tool(name) for name in names)))
    assert [known.home(name) for name in sent] == list(names)


@pytest.mark.parametrize(
    ("choice", "parallel", "told"),
    [
        (None, None, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("required"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice("tool", ("g",)), None, {"type": "tool", "name": "g"}),
    ],
)
def test_pitfall_4_tool_choice_is_written(choice, parallel, told):
    body, _ = write(tools=(Tool("f"), Tool("g")), tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == told
    assert len(body["tools"]) == 2


@pytest.mark.parametrize(("mode", "told"), [("allowed_auto", "auto"), ("allowed_required", "any")])
def test_pitfall_4_allowed_tools_are_the_only_ones_that_claude_sees(mode, told):
    body, _ = write(tools=(Tool("f"), Tool("g")), tool_choice=ToolChoice(mode, ("g",)))
    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == {"type": told}


def test_a_model_that_thinks_is_not_forced_to_use_a_tool():
    forced = {"tools": (Tool("f"),), "tool_choice": ToolChoice("required")}
    body = refused("tool_choice", **forced, served="claude-opus-5-5")
    assert body["tool_choice"] == {"type": "auto"}
    refused("tool_choice", **forced, served=OPUS_4_6, reasoning=Reasoning(effort="high"))
    assert write(**forced, served=OPUS_5)[0]["tool_choice"] == {"type": "any"}


def test_a_choice_without_tools_says_nothing_and_a_forced_one_is_refused():
    assert "tool_choice" not in write(tool_choice=ToolChoice("auto"), parallel_tool_calls=False)[0]
    refused("tool_choice", tool_choice=ToolChoice("required"))


def test_pitfall_5_a_schema_is_of_type_object_and_closed_where_it_is_strict():
    open_one = raw(
        {"properties": {"default": {"type": "object", "properties": {}}, "type": {"enum": [{"type": "object"}]}}}
    )
    loose, strict = write(tools=(Tool("f", schema=open_one), Tool("g", schema=open_one, strict=True)))[0]["tools"]
    assert loose["input_schema"] == {"type": "object", **msgspec.json.decode(open_one)}
    assert strict["strict"] is True
    assert strict["input_schema"] == {
        "type": "object",
        "properties": {
            "default": {"type": "object", "properties": {}, "additionalProperties": False},
            "type": {"enum": [{"type": "object"}]},
        },
        "additionalProperties": False,
    }
    (bare,) = write(tools=(Tool("f"),))[0]["tools"]
    assert bare == {"name": "f", "input_schema": {"type": "object", "properties": {}}}


def test_a_schema_of_type_object_goes_out_byte_for_byte():
    schema = msgspec.Raw(b'{ "type":"object",  "x": 1e3 }')
    ask = Ask(model="m", messages=(HI,), tools=(Tool("f", schema=schema),))
    assert bytes(schema) in write_request(ask, served=PLAIN, losses=Losses())


def test_a_schema_for_the_answer_is_written_and_any_json_is_refused():
    shape = Format("json_schema", name="n", schema=raw({"type": "object", "properties": {}}), strict=True)
    assert write(response_format=shape)[0]["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {"type": "object", "properties": {}, "additionalProperties": False},
    }
    refused("response_format", response_format=Format("json_object"))
    refused("response_format", response_format=shape, served="claude-3-7-sonnet-20250219")
    assert "strict" not in refused("strict", tools=(Tool("f", strict=True),), served="claude-sonnet-4-0")["tools"][0]
    assert "strict" not in write(tools=(Tool("f", strict=False),), served="claude-sonnet-4-0")[0]["tools"][0]


@pytest.mark.parametrize(
    ("served", "enough"),
    [(SONNET_4_5, 32_000), ("anthropic.claude-3-haiku-20240307-v1:0", 4096), ("claude-3-5-sonnet@20240620", 8192)],
)
def test_pitfall_6_a_maximum_is_always_sent(served, enough):
    assert write(served=served)[0]["max_tokens"] == enough
    assert write(served=served, max_tokens=7)[0]["max_tokens"] == 7


def test_pitfall_6_the_maximum_leaves_room_for_thinking():
    body, _ = write(reasoning=Reasoning(budget=60_000))
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 60_000}
    assert body["max_tokens"] > 60_000
    assert write(max_tokens=6000, reasoning=Reasoning(effort="high"))[0]["thinking"]["budget_tokens"] == 3000
    assert "thinking" not in refused("reasoning", max_tokens=1000, reasoning=Reasoning(effort="high"))
    assert "thinking" not in refused("reasoning", max_tokens=5000, reasoning=Reasoning(budget=5000))


@pytest.mark.parametrize(
    ("served", "reasoning", "thinking", "effort"),
    [
        (SONNET_4_5, Reasoning(effort="low"), {"type": "enabled", "budget_tokens": 4096}, None),
        (SONNET_4_5, Reasoning(budget=100), {"type": "enabled", "budget_tokens": 1024}, None),
        (SONNET_4_5, Reasoning(effort="none"), {"type": "disabled"}, None),
        (SONNET_4_5, Reasoning(show=True), None, None),
        ("claude-opus-4-5", Reasoning(effort="max"), {"type": "enabled", "budget_tokens": 32_768}, "high"),
        (OPUS_4_6, Reasoning(effort="xhigh"), {"type": "adaptive"}, "high"),
        (OPUS_4_6, Reasoning(budget=9000), {"type": "enabled", "budget_tokens": 9000}, None),
        (OPUS_4_8, Reasoning(effort="minimal"), {"type": "adaptive"}, "low"),
        (OPUS_4_8, Reasoning(budget=9000), {"type": "adaptive"}, "medium"),
        (OPUS_4_8, Reasoning(show=True), {"type": "adaptive", "display": "summarized"}, None),
        (OPUS_5, Reasoning(off=True, effort="max"), {"type": "disabled"}, "high"),
        ("us.anthropic.claude-sonnet-5-5-v1:0", Reasoning(off=True), {"type": "between_tools"}, None),
        (PLAIN, Reasoning(effort="medium"), {"type": "enabled", "budget_tokens": 8192}, None),
    ],
)
def test_pitfall_8_an_effort_and_a_budget_are_told_in_the_words_of_the_model(served, reasoning, thinking, effort):
    body, _ = write(served=served, reasoning=reasoning)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort


def test_a_model_that_always_thinks_cannot_be_told_not_to():
    body = refused("reasoning", served="claude-fable-5", reasoning=Reasoning(effort="none"))
    assert "thinking" not in body
    assert body["output_config"] == {"effort": "low"}
    refused("reasoning", served="claude-3-5-haiku-20241022", reasoning=Reasoning(effort="low"))
    assert "thinking" not in write(served="claude-3-5-haiku-20241022", reasoning=Reasoning(off=True))[0]


def test_pitfall_7_sampling_is_what_the_model_takes():
    assert write(temperature=0.3, top_k=5, served=OPUS_4_6)[0]["temperature"] == 0.3
    assert "temperature" not in refused("temperature", temperature=1.5, served=OPUS_4_6)
    for field, value in {"temperature": 0.3, "top_p": 0.5, "top_k": 5}.items():
        assert field not in refused(field, served=OPUS_4_8, **{field: value})
        assert field not in refused(field, served=SONNET_4_5, reasoning=Reasoning(budget=2048), **{field: value})
    defaults, _ = write(temperature=1, top_p=1, served=OPUS_4_8)
    assert not {"temperature", "top_p"} & set(defaults)
    assert refused("top_p", temperature=0.3, top_p=0.5)["temperature"] == 0.3
    assert write(temperature=1, top_p=0.5)[0]["top_p"] == 0.5
    both, _ = write(temperature=0.3, top_p=0.5, served=PLAIN)
    assert (both["temperature"], both["top_p"]) == (0.3, 0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("presence_penalty", 0.5), ("frequency_penalty", 0.5), ("logprobs", True), ("top_logprobs", 3), ("n", 2),
        ("seed", 0), ("min_p", 0.1), ("logit_bias", raw({"1": 1})), ("verbosity", "low"), ("metadata", raw({"a": "b"})),
        ("service_tier", "flex"), ("user", "ada@example.com"), ("user", "+44 20 7946 0958"),
        ("stop", ("\n", "END")),
    ],
)  # fmt: skip
def test_pitfall_7_what_claude_has_no_word_for_is_refused_by_name(field, value):
    body = refused(field, **{field: value})
    assert body.get("stop_sequences") == (["END"] if field == "stop" else None)


def test_a_field_that_says_no_more_than_its_absence_is_not_lost():
    body, lost = write(
        presence_penalty=0, frequency_penalty=0.0, logprobs=False, n=1, top_logprobs=0, temperature=1.0,
        service_tier="default", user="user-7f3a", stop=("END",),
    )  # fmt: skip
    assert lost == []
    assert body["service_tier"] == "standard_only"
    assert body["metadata"] == {"user_id": "user-7f3a"}
    assert body["stop_sequences"] == ["END"]


def test_fields_of_the_caller_that_have_no_place_are_refused_under_their_own_names():
    refused("modalities", extra={"modalities": raw(["text"])})
    refused("name", Message("user", (Text("x"),), name="ada"))
    with pytest.raises(Untranslatable, match="stop_sequences"):
        write_request(Ask(model="m", messages=(HI,), stop=("\n",)), served=PLAIN, losses=Losses(names=NAMES))


def test_the_request_says_whether_it_wants_a_stream():
    assert write(stream=True)[0]["stream"] is True
    assert "stream" not in write()[0]


# --- both ways -------------------------------------------------------------------------------------------------------

words = st.text(min_size=1, max_size=8).filter(str.strip)
ids = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
texts = st.builds(Text, words)
images = st.builds(lambda data: Image("image/png", data=data), st.just(RED)) | st.builds(
    lambda path: Image(url=f"https://example.com/{path}"), ids
)
documents = st.builds(lambda text, name: Document(text=text, name=name), words, st.none() | words)
results = st.builds(ToolResult, ids, st.lists(texts | images | documents, max_size=2).map(tuple), st.booleans())
arguments = st.dictionaries(words, st.integers() | words, max_size=2).map(
    lambda value: msgspec.json.encode(value).decode()
)
calls = st.builds(ToolCall, ids, ids, arguments)
thoughts = st.builds(
    lambda text, signature: Thinking(text, signature=signature, origin=Origin.ANTHROPIC), st.text(), words
) | st.builds(lambda data: Thinking(redacted=data, origin=Origin.ANTHROPIC), words)


def message(role, *groups):
    return st.tuples(*(st.lists(group, max_size=2) for group in groups)).map(
        lambda lists: Message(role, tuple(part for parts in lists for part in parts))
    ).filter(lambda message: message.parts)  # fmt: skip


@st.composite
def asks(draw, reasoning, sampling):
    turns = draw(
        st.lists(
            st.tuples(message("user", results, texts | images), message("assistant", thoughts, texts | calls)),
            max_size=2,
        )
    )
    messages = [part for turn in turns for part in turn] + [draw(message("user", texts | documents))]
    if draw(st.booleans()):
        messages.insert(0, Message("system", (draw(texts),)))
    tools = tuple(
        Tool(
            name,
            draw(st.none() | words),
            raw({"type": "object", "properties": {"a": {}}}),
            draw(st.none() | st.just(False)),
        )
        for name in draw(st.sets(ids, max_size=3))
    )
    choices = [ToolChoice("auto"), ToolChoice("none"), *(ToolChoice("tool", (tool.name,)) for tool in tools)]
    choice = draw(st.none() | st.sampled_from(choices)) if tools else None
    alone = tools and choice is not None and choice.mode != "none" and draw(st.booleans())
    shape = Format("json_schema", schema=raw({"type": "string"}))
    return Ask(
        model="served",
        messages=tuple(messages),
        stream=draw(st.booleans()),
        max_tokens=draw(st.integers(40_000, 60_000)),
        stop=tuple(draw(st.lists(words, max_size=2))),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=False if alone else None,
        response_format=draw(st.none() | st.just(shape)),
        reasoning=draw(reasoning),
        user=draw(st.none() | ids.map("u".__add__)),
        service_tier=draw(st.sampled_from([None, "auto", "default"])),
        **draw(sampling),
    )


fractions = st.none() | st.floats(0, 1)
budgets = (
    st.none() | st.integers(1024, 30_000).map(lambda budget: Reasoning(budget=budget)) | st.just(Reasoning(off=True))
)
efforts = st.none() | st.builds(
    Reasoning,
    effort=st.sampled_from([None, "low", "medium", "high", "xhigh", "max"]),
    show=st.sampled_from([None, True, False]),
)
marks = st.lists(st.sampled_from([None, "5m", "1h"]), min_size=4, max_size=4)


def there_and_back(ask, served):
    body = write_request(ask, served=served, losses=Losses())
    sdk_takes(msgspec.json.decode(body))
    again = read_request(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
    return msgspec.structs.replace(again, model=ask.model)


@given(
    asks(
        st.none(),
        st.fixed_dictionaries({"temperature": fractions, "top_p": fractions, "top_k": st.none() | st.integers(0, 99)}),
    )
)
def test_an_ask_comes_back_as_it_went_out(ask):
    assert there_and_back(ask, PLAIN) == ask


@given(asks(budgets, st.just({})))
def test_a_budget_for_thinking_comes_back_as_it_went_out(ask):
    assert there_and_back(ask, PLAIN) == ask


@given(asks(efforts, st.just({})))
def test_an_effort_comes_back_as_it_went_out(ask):
    assert there_and_back(ask, OPUS_5) == ask


@given(marks)
def test_up_to_four_breakpoints_come_back_as_they_went_out(marks):
    ask = Ask(
        model="m", max_tokens=9, tools=(Tool("f", schema=raw({"type": "object"}), cache=marks[0]),),
        messages=(
            Message("system", (Text("s", cache=marks[1]),)),
            Message("user", (ToolResult("t", (), cache=marks[2]), Image("image/png", data=RED, cache=marks[3]))),
        ),
    )  # fmt: skip
    assert there_and_back(ask, PLAIN) == ask
