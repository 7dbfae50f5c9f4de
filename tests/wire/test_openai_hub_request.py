"""Chat completion requests, into the hub and out of it."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, Untranslatable
from penstock.wire.canonical import (
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
    seal,
)
from penstock.wire.openai_hub import read_request, write_request

Raw = msgspec.Raw
HI = [{"role": "user", "content": "hi"}]


def read(**fields):
    return read_request(
        msgspec.json.decode(msgspec.json.encode({"model": "m", "messages": HI, **fields}), type=dict[str, Raw])
    )


def write(ask, lose=(), **options):
    losses = Losses(lose)
    body = write_request(ask, served="up", losses=losses, **options)
    return msgspec.json.decode(body), losses.lost


def again(ask, **options):
    """Written, and read by whoever takes the same dialect."""
    body = write_request(ask, served=ask.model, losses=Losses(), **options)
    return read_request(msgspec.json.decode(body, type=dict[str, Raw]))


def said(*messages):
    return read(messages=list(messages)).messages


def user(*parts):
    return Message("user", parts)


# --- in ---


def test_every_role_has_its_place():
    assert said(
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
        {"role": "user", "content": "c", "name": "ann"},
        {"role": "assistant", "content": "d"},
    ) == (
        Message("system", (Text("a"),)),
        Message("system", (Text("b"),)),
        Message("user", (Text("c"),), "ann"),
        Message("assistant", (Text("d"),)),
    )


def test_parts_of_every_kind_are_read():
    parts = [
        {"type": "text", "text": "look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,CCCC", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}, "cache_control": {"type": "ephemeral"}},
    ]
    assert said({"role": "user", "content": parts}) == (
        user(
            Text("look", "1h"),
            Image(media_type="image/png", data="AAAA", detail="low"),
            Image(url="https://x.example/a.png"),
            Audio("BBBB", "wav"),
            Document(media_type="application/pdf", data="CCCC", name="a.pdf"),
            Document(file_id="file-1", cache="5m"),
        ),
    )


def test_an_image_may_be_named_by_its_url_alone():
    (message,) = said({"role": "user", "content": [{"type": "image_url", "image_url": "https://x.example/a.png"}]})
    assert message.parts == (Image(url="https://x.example/a.png"),)


def test_a_refusal_may_be_a_field_or_a_part():
    for message in ({"refusal": "no"}, {"content": [{"type": "refusal", "refusal": "no"}]}):
        assert said({"role": "assistant", **message})[0].parts == (Refusal("no"),)


def test_a_message_to_be_continued_is_a_prefill_and_no_loss():
    messages = [*HI, {"role": "assistant", "content": "So"}]
    assert not read(messages=messages, continue_final_message=True, add_generation_prompt=False).extra
    assert "continue_final_message" in read(continue_final_message=True, add_generation_prompt=False).extra


def test_a_block_of_thinking_that_nobody_signed_has_no_origin():
    (message,) = said({"role": "assistant", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]})
    assert message.parts == (Thinking("hm"),)


def test_results_of_tools_and_what_the_user_says_after_them_are_one_turn():
    messages = said(
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}},
            {"id": "2", "type": "function", "function": {"name": "g", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "two"}],
         "cache_control": {"type": "ephemeral"}},
        {"role": "user", "content": "and?"},
    )  # fmt: skip
    assert messages == (
        Message("assistant", (ToolCall("1", "f", "{"), ToolCall("2", "g", ""))),
        user(ToolResult("1", (Text("one"),)), ToolResult("2", (Text("two"),), cache="5m"), Text("and?")),
    )


def test_a_call_in_the_old_style_and_its_result_find_each_other():
    ask = read(
        messages=[
            *HI,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    call, result = ask.messages[1].parts[0], ask.messages[2].parts[0]
    assert (call.name, result.parts) == ("f", (Text("42"),))
    assert call.id == result.call_id
    assert ask.tools == (Tool("f", schema=Raw(b'{"type":"object"}')),)
    assert ask.tool_choice == ToolChoice("tool", ("f",))
    assert ask.parallel_tool_calls is False


def test_a_result_of_a_function_nobody_called_is_refused():
    with pytest.raises(BadRequest, match=r"messages\[0\].name"):
        said({"role": "function", "name": "f", "content": "42"})


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(Origin))
def test_signatures_of_whatever_origin_come_back_byte_for_byte(signature, data, origin):
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": seal(signature, origin, Origin.ANTHROPIC)},
        {"type": "redacted_thinking", "data": seal(data, origin, Origin.ANTHROPIC)},
    ]
    (message,) = said({"role": "assistant", "content": "x", "reasoning_content": "hm", "thinking_blocks": blocks})
    assert message.parts[:2] == (
        Thinking("hm", signature, origin=origin),
        Thinking(redacted=data, origin=origin),
    )


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_that_nobody_signed_is_reasoning_of_no_origin(name):
    (message,) = said({"role": "assistant", "content": "x", name: "hm"})
    assert message.parts == (Thinking("hm"), Text("x"))


def test_a_mark_on_a_message_is_behind_its_last_part():
    (message,) = said(
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
         "cache_control": {"type": "ephemeral"}}
    )  # fmt: skip
    assert message.parts == (Text("a"), Text("b", "5m"))


def test_a_mark_on_a_tool_may_be_inside_or_outside_its_function():
    mark = {"type": "ephemeral"}
    inside, outside = read(
        tools=[
            {"type": "function", "function": {"name": "a", "cache_control": mark}},
            {"type": "function", "function": {"name": "b", "strict": True}, "cache_control": mark},
        ]
    ).tools
    assert (inside, outside) == (Tool("a", cache="5m"), Tool("b", strict=True, cache="5m"))


def test_settings_are_read_under_their_names():
    ask = read(
        stream=True, max_tokens=5, max_completion_tokens=7, temperature=1, top_p=0.5, top_k=3, min_p=0.1, seed=4, n=1,
        presence_penalty=0.1, frequency_penalty=0.2, logit_bias={"5": 1}, logprobs=True, top_logprobs=2,
        parallel_tool_calls=False, stop="x", user="u", metadata={"a": "b"}, service_tier="flex", verbosity="low",
        reasoning_effort="high", stream_options={"include_usage": True},
    )  # fmt: skip
    assert ask == Ask(
        model="m", messages=(user(Text("hi")),), stream=True, max_tokens=7, temperature=1.0, top_p=0.5, top_k=3,
        min_p=0.1, seed=4, n=1, presence_penalty=0.1, frequency_penalty=0.2, logit_bias=Raw(b'{"5":1}'), logprobs=True,
        top_logprobs=2, parallel_tool_calls=False, stop=("x",), user="u", metadata=Raw(b'{"a":"b"}'),
        service_tier="flex", verbosity="low", reasoning=Reasoning(effort="high"),
    )  # fmt: skip


def test_null_is_what_was_not_said():
    names = ("temperature", "stop", "tools", "tool_choice", "response_format", "reasoning_effort", "foo", "metadata")
    assert read(**dict.fromkeys(names)) == read()


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({"reasoning_effort": "none"}, Reasoning(off=True)),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Reasoning(budget=2048)),
        ({"thinking": {"type": "disabled"}}, Reasoning(off=True)),
        ({"thinking": {"type": "adaptive"}, "reasoning_effort": "low"}, Reasoning(effort="low")),
    ],
)
def test_reasoning_may_be_asked_for_in_openais_words_and_in_anthropics(fields, reasoning):
    assert read(**fields).reasoning == reasoning


@pytest.mark.parametrize(
    ("choice", "read_as"),
    [
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("tool", ("f",))),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
                {"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}]}},
            ToolChoice("allowed_required", ("f", "g")),
        ),
    ],
)  # fmt: skip
def test_tool_choices_are_read(choice, read_as):
    assert read(tool_choice=choice).tool_choice == read_as


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"store": True}, "store"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.custom"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        ({"response_format": {"type": "grammar", "grammar": "x"}}, "response_format"),
        ({"stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
        ({"tools": [{"type": "function", "function": {"name": "f"}, "x": 1}]}, "tools.x"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp"}]}}},
            "tool_choice",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"type": "custom", "id": "1", "custom": {}}]}]},
            "messages.tool_calls.custom",
        ),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages.audio"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages.content.video_url"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]}, "messages.content.x"),
    ],
)
def test_what_has_no_place_in_the_hub_is_kept_by_name_and_refused_by_it(fields, name):
    ask = read(**fields)
    assert list(ask.extra) == [name]
    with pytest.raises(Untranslatable, match=name):
        write(ask, ["prefill"])
    assert write(ask, [name, "prefill"])[1][0] == name


def test_defaults_that_clients_spell_out_are_no_loss():
    assert not read(store=False, modalities=["text"], stream_options={"include_obfuscation": False}).extra


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"stop": [1]}, "stop"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": [
            {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0].file"),
        ({"model": None}, "model"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]},
         "messages[0].content[0].image_url.url"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}]},
         "messages[0].content[0].image_url.url"),
        ({"messages": [{"role": "user", "content": "x", "cache_control": {"type": "forever"}}]},
         "messages[0].cache_control"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]}]},
         "messages[0].tool_calls[0].function.arguments"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields, param):
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.param == param


json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "type", "text", "tool_calls", "function", "name", "id", "image_url", "url",
                         "arguments", "cache_control", "thinking_blocks", "refusal", "function_call", "file"]), inner,
        max_size=5),
    max_leaves=15,
)  # fmt: skip
NAMES = [
    "model", "messages", "tools", "functions", "tool_choice", "function_call", "response_format", "thinking", "stop",
    "reasoning_effort", "stream_options", "metadata", "logit_bias", "store", "user",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), json, max_size=6))
def test_any_json_is_read_or_refused(fields):
    with suppress(BadRequest):
        assert read(**fields).model


# --- out ---


def asked(*messages, **fields):
    return Ask(model="m", messages=messages or (user(Text("hi")),), **fields)


def test_results_of_tools_come_before_all_else_and_keep_the_text_beside_them():
    ask = asked(
        Message("assistant", (ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}"))),
        user(Text("by the way"), ToolResult("1", (Text("one"),))),
        user(ToolResult("2", (Text("broken"),), is_error=True)),
    )
    assert write(ask)[0]["messages"][1:] == [
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": "Error: broken"},
        {"role": "user", "content": "by the way"},
    ]


def test_images_in_a_result_move_to_the_user_and_say_where_they_are_from():
    ask = asked(
        Message("assistant", (ToolCall("1", "shot", "{}"),)),
        user(ToolResult("1", (Image(media_type="image/png", data="AA"),)), Text("well?")),
    )
    result, moved = write(ask)[0]["messages"][1:]
    assert result["role"] == "tool" and result["content"]
    assert moved == {
        "role": "user",
        "content": [
            {"type": "text", "text": "From the result of tool call 1:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
            {"type": "text", "text": "well?"},
        ],
    }


def test_foreign_reasoning_is_dropped_and_only_the_unsigned_goes_to_servers_with_extensions():
    parts = (Thinking("mine", "sig", origin=Origin.ANTHROPIC), Thinking("free"), Text("x"))
    ask = asked(Message("assistant", parts), user(Text("go on")))
    assert write(ask)[0]["messages"][0] == {"role": "assistant", "content": "x"}
    assert write(ask, extensions=True)[0]["messages"][0] == {
        "role": "assistant", "content": "x", "reasoning_content": "free"
    }  # fmt: skip


def test_cache_marks_are_dropped_in_silence_or_kept_for_claude():
    ask = asked(
        Message("system", (Text("s", "1h"),)),
        Message("assistant", (ToolCall("1", "f", "{}"),)),
        user(ToolResult("1", (Text("r"),), cache="5m"), Text("hi")),
        tools=(Tool("f", cache="5m"),),
    )
    plain, lost = write(ask)
    assert b"cache_control" not in msgspec.json.encode(plain) and lost == []
    kept = write(ask, keep_cache_control=True)[0]
    assert kept["messages"][0]["content"] == [
        {"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    assert kept["messages"][2]["cache_control"] == kept["tools"][0]["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("budget", "effort"),
    [(1024, "low"), (4096, "low"), (4097, "medium"), (16384, "medium"), (16385, "high"), (100_000, "high")],
)
def test_a_budget_becomes_an_effort(budget, effort):
    assert write(asked(reasoning=Reasoning(budget=budget)))[0]["reasoning_effort"] == effort


def test_an_explicit_no_to_thinking_is_said_only_where_it_is_understood():
    ask = asked(reasoning=Reasoning(off=True))
    assert "reasoning_effort" not in write(ask)[0]
    assert write(ask, reasoning_models=True)[0]["reasoning_effort"] == "none"
    assert write(ask, extensions=True)[0]["reasoning_effort"] == "none"


def test_an_effort_is_passed_on_in_its_own_word():
    assert write(asked(reasoning=Reasoning(effort="minimal", budget=9)))[0]["reasoning_effort"] == "minimal"
    assert "reasoning_effort" not in write(asked(reasoning=Reasoning()))[0]


def test_the_maximum_has_another_name_for_reasoning_models():
    assert write(asked(max_tokens=5))[0]["max_tokens"] == 5
    assert write(asked(max_tokens=5), reasoning_models=True)[0]["max_completion_tokens"] == 5


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (asked(top_k=5), "top_k"),
        (asked(min_p=0.5), "min_p"),
        (asked(stop=("a", "b", "c", "d", "e")), "stop"),
        (asked(user(Text("hi")), Message("assistant", (Text("So"),))), "prefill"),
    ],
)
def test_what_only_engines_understand_is_refused_by_name_elsewhere(ask, name):
    with pytest.raises(Untranslatable, match=name):
        write(ask)
    assert write(ask, [name])[1] == [name]
    assert write(ask, extensions=True)[1] == []


def test_no_more_stop_texts_than_openai_takes_are_sent_and_any_number_to_engines():
    ask = asked(stop=tuple("abcde"))
    assert write(ask, ["stop"])[0]["stop"] == list("abcd")
    assert write(ask, extensions=True)[0]["stop"] == list("abcde")


def test_a_prefill_is_continued_by_engines_and_left_out_where_it_is_lost():
    ask = asked(user(Text("hi")), Message("assistant", (Text("So"),)))
    engine = write(ask, extensions=True)[0]
    assert engine["messages"][-1] == {"role": "assistant", "content": "So"}
    assert (engine["continue_final_message"], engine["add_generation_prompt"]) == (True, False)
    assert [message["role"] for message in write(ask, ["prefill"])[0]["messages"]] == ["user"]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (Document(url="https://x.example/a.pdf"), "document.url"),
        (Image(file_id="file-1"), "image.file_id"),
    ],
)
def test_media_that_cannot_be_sent_is_refused_by_name(part, name):
    with pytest.raises(Untranslatable, match=name):
        write(asked(user(part)))
    assert write(asked(user(part, Text("?"))), [name])[0]["messages"][0]["content"] == [{"type": "text", "text": "?"}]


def test_images_where_only_text_may_stand_are_refused_by_name():
    ask = asked(Message("system", (Image(url="https://x.example/a.png"), Text("s"))), user(Text("hi")))
    with pytest.raises(Untranslatable, match=r"messages\.system\.image"):
        write(ask)
    assert write(ask, ["*"])[0]["messages"][0]["content"] == [{"type": "text", "text": "s"}]


def test_a_document_of_plain_text_is_text():
    ask = asked(user(Document(text="body", name="notes.txt", media_type="text/plain"), Text("sum it up")))
    assert write(ask)[0]["messages"][0]["content"][0] == {"type": "text", "text": "notes.txt\n\nbody"}


def test_usage_is_always_asked_for_in_a_stream():
    assert write(asked(stream=True))[0]["stream_options"] == {"include_usage": True}
    assert "stream" not in write(asked())[0]


def test_usage_is_not_asked_of_servers_that_refuse_the_question():
    assert write(asked(stream=True), ask_usage=False)[0] == {
        "model": "up", "messages": [{"role": "user", "content": "hi"}], "stream": True
    }  # fmt: skip


def test_tool_names_that_are_illegal_here_go_out_under_others_everywhere():
    long = "mcp://files/" + "x" * 70
    ask = asked(
        user(Text("hi")), Message("assistant", (ToolCall("1", long, "{}"),)), user(ToolResult("1", ())),
        tools=(Tool(long), Tool("fine")), tool_choice=ToolChoice("tool", (long,)),
    )  # fmt: skip
    body = write(ask)[0]
    name = body["tools"][0]["function"]["name"]
    assert len(name) <= 64 and name != long
    assert body["messages"][1]["tool_calls"][0]["function"]["name"] == name
    assert body["tool_choice"]["function"]["name"] == name
    assert body["tools"][1]["function"]["name"] == "fine"


def test_ids_of_calls_that_are_too_long_are_shortened_alike_in_call_and_result():
    id = "toolu_" + "x" * 60
    body = write(asked(Message("assistant", (ToolCall(id, "f", "{}"),)), user(ToolResult(id, ()))))[0]
    short = body["messages"][0]["tool_calls"][0]["id"]
    assert len(short) <= 40
    assert body["messages"][1]["tool_call_id"] == short


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        (b"{}", {"type": "object", "properties": {}}),
        (b'{"type":"object"}', {"type": "object", "properties": {}}),
        (b'{"properties":{"a":{}}}', {"type": "object", "properties": {"a": {}}}),
        (b'{"anyOf":[]}', {"anyOf": []}),
    ],
)
def test_a_schema_gets_what_openai_insists_on(schema, sent):
    assert write(asked(tools=(Tool("f", schema=Raw(schema)),)))[0]["tools"][0]["function"]["parameters"] == sent


def test_choices_between_no_tools_are_not_sent():
    body = write(asked(tool_choice=ToolChoice("auto"), parallel_tool_calls=False))[0]
    assert "tool_choice" not in body and "parallel_tool_calls" not in body


def test_a_service_tier_is_said_in_openais_words():
    assert write(asked(service_tier="standard_only"))[0]["service_tier"] == "default"
    with pytest.raises(Untranslatable, match="service_tier"):
        write(asked(service_tier="gold"))


# --- there and back ---

words = st.text(min_size=1, max_size=8)
marks = st.sampled_from([None, "5m", "1h"])
texts = st.builds(Text, words, marks)
media = (
    st.builds(Image, media_type=st.just("image/png"), data=words, detail=st.sampled_from([None, "low"]), cache=marks)
    | st.builds(Image, url=st.just("https://x.example/a.png"), cache=marks)
    | st.builds(Document, media_type=st.just("application/pdf"), data=words, name=words, cache=marks)
    | st.builds(Document, file_id=words, cache=marks)
)
tool_names = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
schemas = st.sampled_from([None, Raw(b'{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}')])


@st.composite
def conversations(draw):
    """Turns as callers of this dialect can write them."""
    messages = [Message("system", (part,)) for part in draw(st.lists(texts, max_size=2))]
    for turn in range(draw(st.integers(1, 3))):
        parts = draw(st.lists(texts | media | st.builds(Audio, words, st.just("wav")), min_size=1, max_size=3))
        messages.append(Message("user", tuple(parts), draw(st.none() | words)))
        ids = [f"call_{turn}_{number}" for number in range(draw(st.integers(0, 2)))]
        calls = tuple(ToolCall(id, draw(tool_names), draw(words), draw(marks)) for id in ids)
        said = tuple(draw(st.lists(texts, max_size=2)))
        refused = tuple(draw(st.lists(st.builds(Refusal, words), max_size=1)))
        if calls or said or refused:
            messages.append(Message("assistant", said + refused + calls))
        if calls:
            results = tuple(ToolResult(id, tuple(draw(st.lists(texts, max_size=2))), cache=draw(marks)) for id in ids)
            more = tuple(draw(st.lists(texts, max_size=1)))
            messages.append(Message("user", results + more))
            if not more:  # else the next turn of the user's would be the same turn
                messages.append(Message("assistant", (draw(texts),)))
    if messages[-1].role == "assistant":
        messages.append(Message("user", (Text("go on"),)))
    return tuple(messages)


asks = st.builds(
    Ask,
    model=words,
    messages=conversations(),
    stream=st.booleans(),
    max_tokens=st.none() | st.integers(1, 9),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(0, 9),
    min_p=st.none() | st.floats(0, 1),
    stop=st.lists(words, max_size=6).map(tuple),
    seed=st.none() | st.integers(-5, 5),
    n=st.none() | st.just(1),
    presence_penalty=st.none() | st.floats(-2, 2),
    frequency_penalty=st.none() | st.floats(-2, 2),
    logit_bias=st.sampled_from([None, Raw(b'{"5":-100}')]),
    logprobs=st.none() | st.booleans(),
    top_logprobs=st.none() | st.integers(0, 5),
    tools=st.lists(
        st.builds(Tool, tool_names, st.none() | words, schemas, st.none() | st.booleans(), marks), max_size=3,
        unique_by=lambda tool: tool.name,
    ).map(tuple),
    response_format=st.none()
    | st.just(Format("json_object"))
    | st.builds(Format, st.just("json_schema"), words, st.just(Raw(b"{}")), st.sampled_from([None, True]), words),
    reasoning=st.none() | st.just(Reasoning(off=True)) | st.builds(Reasoning, effort=st.sampled_from(["low", "max"])),
    user=st.none() | words,
    metadata=st.sampled_from([None, Raw(b'{"a":"b"}')]),
    service_tier=st.sampled_from([None, "auto", "flex"]),
    verbosity=st.sampled_from([None, "low"]),
)  # fmt: skip


@given(asks, st.data())
def test_what_this_dialect_can_say_comes_back_as_it_was(ask, data):
    if ask.tools:
        names = st.lists(st.sampled_from([tool.name for tool in ask.tools]), min_size=1, max_size=2).map(tuple)
        choices = (
            st.none()
            | st.builds(ToolChoice, st.sampled_from(["auto", "none", "required"]))
            | st.builds(ToolChoice, st.sampled_from(["allowed_auto", "allowed_required"]), names)
            | st.builds(ToolChoice, st.just("tool"), names.map(lambda some: some[:1]))
        )
        ask = msgspec.structs.replace(
            ask, tool_choice=data.draw(choices), parallel_tool_calls=data.draw(st.none() | st.booleans())
        )
    assert again(ask, reasoning_models=True, extensions=True, keep_cache_control=True) == ask
