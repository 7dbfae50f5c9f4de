"""Bedrock's Converse: what we send is valid by Amazon's own model, and what comes back is told in full."""

import json
from base64 import b64encode
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, FailureKind, Untranslatable, UpstreamError
from penstock.core.request import Usage
from penstock.wire import eventstream
from penstock.wire.canonical import (
    HINTS,
    Ask,
    Audio,
    Begin,
    Citation,
    Counted,
    Document,
    Finish,
    FinishReason,
    Format,
    Image,
    Losses,
    Message,
    Origin,
    Reasoning,
    Redacted,
    Refusal,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ThinkingEnd,
    Tool,
    ToolCall,
    ToolCallBegin,
    ToolCallDelta,
    ToolChoice,
    ToolResult,
)
from penstock.wire.converse import path, write_request
from penstock.wire.converse_answer import ConverseReader, failure_of
from penstock.wire.converse_turns import Family, family_of
from penstock.wire.eventstream import MessageCutter
from tests.wire.bedrock_model import faults, service

FRAMES = Path(__file__).parent / "frames" / "bedrock"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
ADAPTIVE = "global.anthropic.claude-opus-4-6-v1"
NOVA, LLAMA, GPT = "us.amazon.nova-2-lite-v1:0", "meta.llama3-3-70b-instruct-v1:0", "openai.gpt-oss-120b-1:0"
PNG = b64encode(b"\x89PNG").decode()
RAW = msgspec.Raw


def user(*parts):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(*parts):
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def ask(*messages, **fields):
    return Ask(model="m", messages=messages or (user("hi"),), **fields)


def write(asked, served=CLAUDE, lose=()):
    body = json.loads(write_request(asked, served=served, losses=Losses(lose)))
    assert faults(service().operation_model("Converse").input_shape, {"modelId": served, **body}) == []
    return body


def refused(asked, served=CLAUDE):
    """The field that is refused unless it may be lost; a hint is lost without leave."""
    losses = Losses("*")
    write_request(asked, served=served, losses=losses)
    (field,) = losses.lost
    unasked = Losses()
    if field in HINTS:
        write_request(asked, served=served, losses=unasked)
        assert unasked.lost == [field]
        return field
    with pytest.raises(Untranslatable) as failed:
        write_request(asked, served=served, losses=unasked)
    assert failed.value.field == field
    return field


def hinted(asked, served=CLAUDE):
    """The hints that were left out; nobody is refused for one."""
    losses = Losses()
    write_request(asked, served=served, losses=losses)
    return losses.lost


# --- requests


def test_the_parameters_that_converse_knows_are_said_in_its_words():
    body = write(ask(max_tokens=9, temperature=0.5, top_p=0.9, stop=("END",)), served=LLAMA)
    assert body == {
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
    }


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 2}, "n"),
        ({"seed": 1}, "seed"),
        ({"min_p": 0.1}, "min_p"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"logit_bias": RAW(b'{"1":5}')}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        ({"verbosity": "low"}, "verbosity"),
        ({"temperature": 1.5}, "temperature"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"response_format": Format("json_object")}, "response_format"),
        ({"metadata": RAW(b'{"a":"caf\\u00e9"}')}, "metadata"),
        ({"metadata": RAW(b'{"a":1}')}, "metadata"),
        ({"metadata": RAW(json.dumps({str(n): "x" for n in range(17)}).encode())}, "metadata"),
        ({"extra": {"prediction": RAW(b"{}")}}, "prediction"),
    ],
)
def test_what_converse_cannot_say_is_refused_by_name_or_lost_by_name(fields, named):
    assert refused(ask(**fields)) == named


def test_neutral_values_are_nothing_to_lose():
    body = write(ask(n=1, min_p=0, presence_penalty=0, frequency_penalty=0.0, logprobs=False, verbosity="medium"))
    assert set(body) == {"messages"}


def test_what_is_lost_leaves_a_body_that_is_valid():
    everything = ask(
        user(Image(url="https://example.com/a.png"), Document(file_id="file-1"), "see"),
        temperature=2.0,
        top_k=3,
        seed=1,
        response_format=Format("json_object"),
        reasoning=Reasoning("low"),
        parallel_tool_calls=False,
        tools=(Tool("t"),),
    )
    body = write(everything, served=LLAMA, lose=("*",))
    assert body["messages"] == [{"role": "user", "content": [{"text": "see"}]}]
    assert "inferenceConfig" not in body


def test_system_text_before_the_conversation_is_apart_and_within_it_stays_where_it_is():
    body = write(
        ask(
            Message("system", (Text("a", cache="5m"), Text(" "))),
            Message("system", (Text("b"),)),
            user("hi"),
            Message("system", (Text("c"),)),
            assistant("ho"),
            user("there"),
        )
    )
    assert body["system"] == [{"text": "a"}, {"cachePoint": {"type": "default"}}, {"text": "b"}]
    assert body["messages"][0] == {"role": "user", "content": [{"text": "hi"}, {"text": "c"}]}


def test_instructions_alone_are_what_the_user_says():
    assert write(ask(Message("system", (Text("a"),)))) == {"messages": [{"role": "user", "content": [{"text": "a"}]}]}
    with pytest.raises(BadRequest, match="white space"):
        write_request(ask(user(" ")), served=CLAUDE, losses=Losses())


def test_a_picture_in_the_instructions_is_refused_by_name():
    assert refused(ask(Message("system", (Image("image/png", PNG),)), user("q"))) == "messages"


def test_names_of_speakers_are_refused_by_name():
    assert refused(ask(Message("user", (Text("q"),), name="bob"))) == "name"


def test_roles_take_turns_and_empty_text_is_left_out():
    body = write(ask(user("a"), user("", "b"), assistant(""), user(" \n"), assistant("c"), user("d")))
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in body["messages"]] == [
        ("user", ["a", "b"]),
        ("assistant", ["c"]),
        ("user", ["d"]),
    ]


def test_a_conversation_begins_with_the_user():
    first, second = write(ask(assistant("Welcome."), user("q")))["messages"][:2]
    assert first["role"] == "user" and first["content"][0]["text"].strip()
    assert second == {"role": "assistant", "content": [{"text": "Welcome."}]}


def test_a_prefill_stays_last_without_its_white_space_or_is_refused_where_the_model_would():
    asked = ask(user("a"), assistant("The answer is "))
    assert write(asked)["messages"][-1] == {"role": "assistant", "content": [{"text": "The answer is"}]}
    assert refused(asked, served=ADAPTIVE) == "prefill"
    assert write(asked, served=ADAPTIVE, lose=("prefill",))["messages"][-1]["role"] == "user"
    assert write(asked, served=LLAMA)["messages"][-1]["content"] == [{"text": "The answer is "}]


def test_of_too_many_breakpoints_the_last_four_stay():
    asked = ask(
        Message("system", (Text("s", cache="5m"),)),
        *(turn(Text(f"{n}", cache="5m")) for n, turn in enumerate([user, assistant, user])),
        tools=(Tool("t", cache="5m"),),
    )
    assert hinted(asked) == ["cache_control"]
    body = write(asked)
    assert json.dumps(body).count("cachePoint") == 4
    assert [set(block) for block in body["toolConfig"]["tools"]] == [{"toolSpec"}]


def test_cache_breakpoints_are_blocks_behind_what_they_close_and_only_where_a_cache_is():
    asked = ask(
        user(Text("long", cache="1h"), Image("image/png", PNG)),
        assistant(ToolCall("1", "t", "{}", cache="5m")),
        user(ToolResult("1", (Text("r", cache="5m"),))),
        tools=(Tool("t", cache="1h"),),
    )
    body = write(asked)
    point, hour = {"cachePoint": {"type": "default"}}, {"cachePoint": {"type": "default", "ttl": "1h"}}
    first, second, third = (turn["content"] for turn in body["messages"])
    assert first == [{"text": "long"}, hour, {"image": {"format": "png", "source": {"bytes": PNG}}}]
    assert (second[-1], third[-1], body["toolConfig"]["tools"][-1]) == (point, point, hour)
    assert b"cachePoint" not in write_request(asked, served=LLAMA, losses=Losses())
    assert (hinted(asked, LLAMA), hinted(asked)) == (["cache_control"], [])
    assert b"cachePoint" in write_request(asked, served=NOVA, losses=Losses())


def test_results_come_before_the_rest_of_the_users_turn_and_errors_are_marked():
    asked = ask(
        user("q"),
        assistant("look", ToolCall("a", "x", '{"k": 1}'), ToolCall("b", "x", "")),
        user(
            "and now?",
            ToolResult("a", (Text("ok"), Image("image/webp", PNG))),
            ToolResult("b", (Text("no"),), is_error=True),
        ),
        tools=(Tool("x"),),
    )
    calls, results = (turn["content"] for turn in write(asked)["messages"][1:])
    assert [block["toolUse"]["input"] for block in calls[1:]] == [{"k": 1}, {}]
    assert results == [
        {
            "toolResult": {
                "toolUseId": "a",
                "content": [{"text": "ok"}, {"image": {"format": "webp", "source": {"bytes": PNG}}}],
            }
        },
        {"toolResult": {"toolUseId": "b", "content": [{"text": "no"}], "status": "error"}},
        {"text": "and now?"},
    ]
    assert "status" not in json.dumps(write(asked, served=LLAMA))


def test_ids_and_names_of_other_dialects_are_made_to_fit_on_both_sides_of_a_call():
    id, name = "call|" + "x" * 100, "mcp.server/" + "tool" * 30
    asked = ask(
        user("q"),
        assistant(ToolCall(id, name, "{}")),
        user(ToolResult(id, (Text("r"),))),
        tools=(Tool(name),),
        tool_choice=ToolChoice("tool", (name,)),
    )
    body = write(asked)
    call, result = body["messages"][1]["content"][0]["toolUse"], body["messages"][2]["content"][0]["toolResult"]
    assert call["toolUseId"] == result["toolUseId"]
    spec = body["toolConfig"]["tools"][0]["toolSpec"]
    assert spec["name"] == call["name"] == body["toolConfig"]["toolChoice"]["tool"]["name"]
    reader = ConverseReader(asked, served=CLAUDE)
    start = {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": spec["name"]}}}
    assert reader.message(event("contentBlockStart", start)) == [ToolCallBegin(0, "t", name)]


def test_arguments_that_are_no_object_are_a_bad_request():
    for arguments in ("[1]", '{"a":', "nonsense"):
        with pytest.raises(BadRequest, match="'c-1'") as failed:
            write_request(ask(user("q"), assistant(ToolCall("c-1", "t", arguments))), served=CLAUDE, losses=Losses("*"))
        assert failed.value.param == "messages"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image("image/jpg", PNG), {"format": "jpeg", "source": {"bytes": PNG}}),
        (Image("IMAGE/PNG; q=1", PNG), {"format": "png", "source": {"bytes": PNG}}),
        (
            Image(url="s3://bucket-1/a.JPG"),
            {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket-1/a.JPG"}}},
        ),
    ],
)
def test_images_go_as_bytes_or_from_amazons_own_storage(image, expected):
    assert write(ask(user("see", image)))["messages"][0]["content"][1] == {"image": expected}


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (Image(url="https://example.com/a.png"), "image.url"),
        (Image("image/bmp", PNG), "image"),
        (Image("image/png"), "image"),
        (Image(url="s3://bucket/a.tiff"), "image"),
        (Image(file_id="f"), "image.file_id"),
        (Document("application/zip", PNG), "document"),
        (Document(url="https://example.com/a.pdf"), "document.url"),
        (Document(file_id="f"), "document.file_id"),
    ],
)
def test_media_that_bedrock_cannot_take_are_refused_by_name(part, named):
    assert refused(ask(user("see", part))) == named


def test_the_detail_of_an_image_is_a_hint():
    assert hinted(ask(user(Image("image/png", PNG, detail="high")))) == ["detail"]
    assert hinted(ask(user(Image("image/png", PNG, detail="auto")))) == []


def test_documents_have_a_legal_name_that_no_other_has():
    asked = ask(
        user(
            "read",
            Document("application/pdf", PNG, name="q3_report (final)!.pdf"),
            Document("application/pdf", PNG, name="q3_report (final)!.pdf"),
            Document(text="plain", name="Ü.md"),
            Document(data=PNG, name="table.xlsx"),
        )
    )
    blocks = [block["document"] for block in write(asked)["messages"][0]["content"][1:]]
    assert [block["name"] for block in blocks] == ["q3 report (final)", "q3 report (final) 2", "document", "table"]
    assert [block["format"] for block in blocks] == ["pdf", "pdf", "txt", "xlsx"]
    assert blocks[2]["source"] == {"bytes": b64encode(b"plain").decode()}


def test_sound_goes_as_bytes():
    assert write(ask(user("hear", Audio(PNG, "wav"))))["messages"][0]["content"][1] == {
        "audio": {"format": "wav", "source": {"bytes": PNG}}
    }


def test_reasoning_returns_to_its_origin_byte_for_byte_and_to_nobody_else():
    own = (Thinking("thought", "Sig+/=", origin=Origin.ANTHROPIC), Thinking(redacted="c2Vh", origin=Origin.ANTHROPIC))
    foreign = (
        Thinking("g", "gem", origin=Origin.GEMINI),
        Thinking("unsigned"),
        Thinking(redacted="b", origin=Origin.OPENAI),
    )
    asked = ask(user("q"), assistant(*own, *foreign, "a"), user("on"))
    assert write(asked)["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "thought", "signature": "Sig+/="}}},
        {"reasoningContent": {"redactedContent": "c2Vh"}},
        {"text": "a"},
    ]
    assert write(asked, served=LLAMA)["messages"][1]["content"] == [{"text": "a"}]
    assert write(asked, served=GPT)["messages"][1]["content"] == [
        {"reasoningContent": {"redactedContent": "b"}},
        {"text": "a"},
    ]


@pytest.mark.parametrize(
    ("served", "reasoning", "extra", "effort"),
    [
        (CLAUDE, Reasoning("medium"), {"thinking": {"type": "enabled", "budget_tokens": 8192}}, None),
        (CLAUDE, Reasoning(budget=2000), {"thinking": {"type": "enabled", "budget_tokens": 2000}}, None),
        (CLAUDE, Reasoning(off=True), {"thinking": {"type": "disabled"}}, None),
        (ADAPTIVE, Reasoning("max"), {"thinking": {"type": "adaptive"}}, "max"),
        (ADAPTIVE, Reasoning("low", show=True), {"thinking": {"type": "adaptive", "display": "summarized"}}, "low"),
        (ADAPTIVE, Reasoning("none"), {"thinking": {"type": "disabled"}}, None),
        (NOVA, Reasoning("minimal"), {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}, None),
        (NOVA, Reasoning(off=True), None, None),
        (GPT, Reasoning("high"), {"reasoning_effort": "high"}, None),
    ],
)
def test_how_hard_to_think_is_said_in_the_words_of_the_family(served, reasoning, extra, effort):
    body = write(ask(reasoning=reasoning, max_tokens=20_000), served=served)
    assert body.get("additionalModelRequestFields") == extra
    assert body.get("outputConfig", {}).get("effort") == effort


def test_a_model_that_cannot_be_told_how_hard_to_think_says_so():
    assert refused(ask(reasoning=Reasoning("low")), served=LLAMA) == "reasoning"
    assert refused(ask(reasoning=Reasoning(off=True)), served=GPT) == "reasoning"
    assert refused(ask(reasoning=Reasoning(budget=99)), served=NOVA) == "reasoning"


def test_claude_is_not_made_to_think_behind_calls_whose_thoughts_are_lost():
    def history(*parts):
        call = assistant(*parts, ToolCall("1", "t", "{}"))
        results = user(ToolResult("1", (Text("r"),)))
        return ask(user("q"), call, results, tools=(Tool("t"),), reasoning=Reasoning("low"))

    own = history("x", Thinking("t", "s", origin=Origin.ANTHROPIC))
    assert "thinking" in write(own)["additionalModelRequestFields"]
    assert refused(history()) == "reasoning"
    assert refused(history(Thinking("t", "s", origin=Origin.GEMINI))) == "reasoning"
    assert "additionalModelRequestFields" not in write(history(), lose=("reasoning",))


def test_a_model_that_thinks_is_not_forced_to_call_a_tool():
    asked = ask(tools=TOOLS, tool_choice=ToolChoice("required"), reasoning=Reasoning("low"))
    assert refused(asked) == "tool_choice"
    assert write(asked, lose=("tool_choice",))["toolConfig"]["toolChoice"] == {"auto": {}}


def test_an_old_claude_is_not_held_to_a_schema():
    old = "anthropic.claude-3-haiku-20240307-v1:0"
    assert refused(ask(response_format=Format("json_schema", "x", RAW(b"{}"))), served=old) == "response_format"
    assert refused(ask(tools=(Tool("t", strict=True),)), served=old) == "strict"


def test_while_claude_thinks_its_sampling_is_its_own():
    assert refused(ask(temperature=0.2, reasoning=Reasoning("low"))) == "temperature"
    assert refused(ask(top_k=5, reasoning=Reasoning("low"))) == "top_k"
    assert "temperature" not in write(ask(temperature=1, reasoning=Reasoning("low"))).get("inferenceConfig", {})


def test_top_k_has_its_place_in_each_family():
    assert write(ask(top_k=5))["additionalModelRequestFields"] == {"top_k": 5}
    assert write(ask(top_k=5), served=NOVA)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 5}}
    assert refused(ask(top_k=5), served=LLAMA) == "top_k"


TOOLS = (
    Tool("a", "does a", RAW(b'{"type":"object","properties":{"x":{"type":"string"}}}'), strict=True),
    Tool("b", ""),
)


@pytest.mark.parametrize(
    ("choice", "names", "said", "own"),
    [
        (None, ["a", "b"], None, None),
        (ToolChoice("auto"), ["a", "b"], {"auto": {}}, None),
        (ToolChoice("required"), ["a", "b"], {"any": {}}, None),
        (ToolChoice("tool", ("b",)), ["a", "b"], {"tool": {"name": "b"}}, None),
        (ToolChoice("allowed_auto", ("b",)), ["b"], {"auto": {}}, None),
        (ToolChoice("allowed_required", ("a",)), ["a"], {"any": {}}, None),
    ],
)
def test_a_tool_choice_is_said(choice, names, said, own):
    body = write(ask(tools=TOOLS, tool_choice=choice))
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == names
    assert body["toolConfig"].get("toolChoice") == said
    assert body.get("additionalModelRequestFields") == own


def test_a_tool_is_told_with_a_schema_of_an_object():
    first, second = write(ask(tools=(*TOOLS, Tool("c", schema=RAW(b'{"properties":{}}')))))["toolConfig"]["tools"][:2]
    assert first["toolSpec"] == {
        "name": "a",
        "description": "does a",
        "inputSchema": {
            "json": {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False}
        },
        "strict": True,
    }
    [open_one] = write(ask(tools=TOOLS[:1]), served=LLAMA)["toolConfig"]["tools"]
    assert open_one["toolSpec"]["inputSchema"] == {"json": json.loads(bytes(TOOLS[0].schema))}
    assert second["toolSpec"] == {"name": "b", "inputSchema": {"json": {"type": "object", "properties": {}}}}
    untyped = write(ask(tools=(Tool("c", schema=RAW(b'{"properties":{}}')),)))["toolConfig"]["tools"][0]
    assert untyped["toolSpec"]["inputSchema"]["json"] == {"type": "object", "properties": {}}


def test_a_schema_that_is_no_object_is_left_for_the_upstream_to_judge():
    body = json.loads(write_request(ask(tools=(Tool("t", schema=RAW(b"true")),)), served=CLAUDE, losses=Losses()))
    assert body["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"] == {"json": True}


def test_no_tools_may_be_used_means_none_are_sent_until_the_history_has_some():
    none = ToolChoice("none")
    assert "toolConfig" not in write(ask(tools=TOOLS, tool_choice=none))
    assert refused(ask(tool_choice=ToolChoice("required"))) == "tool_choice"
    history = (user("q"), assistant(ToolCall("1", "a", "{}")), user(ToolResult("1", (Text("r"),))))
    body = write(ask(*history, tools=TOOLS, tool_choice=none))
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}
    assert "toolChoice" not in body["toolConfig"]
    assert refused(ask(*history, tools=TOOLS, tool_choice=none), served=LLAMA) == "tool_choice"


def test_a_history_with_calls_brings_their_tools_though_none_are_offered_any_more():
    body = write(ask(user("q"), assistant(ToolCall("1", "gone", "{}")), user(ToolResult("1", (Text("r"),)))))
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["gone"]
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}


@pytest.mark.parametrize(
    ("choice", "own"),
    [
        (None, {"type": "auto"}),
        (ToolChoice("required"), {"type": "any"}),
        (ToolChoice("tool", ("a",)), {"type": "tool", "name": "a"}),
    ],
)
def test_one_call_at_a_time_is_claudes_own_word_and_is_said_once(choice, own):
    """Both `toolConfig.toolChoice` and Claude's `tool_choice` in one request are refused as a contradiction."""
    body = write(ask(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False))
    assert body["additionalModelRequestFields"] == {"tool_choice": {**own, "disable_parallel_tool_use": True}}
    assert "toolChoice" not in body["toolConfig"]
    assert refused(ask(tools=TOOLS, parallel_tool_calls=False), served=NOVA) == "parallel_tool_calls"
    assert "additionalModelRequestFields" not in write(ask(tools=TOOLS, parallel_tool_calls=True))


def test_a_schema_for_the_text_goes_as_a_string():
    schema = RAW(b'{"type":"object"}')
    body = write(
        ask(response_format=Format("json_schema", "city", schema, True, "a city"), reasoning=Reasoning("low")), ADAPTIVE
    )
    assert body["outputConfig"] == {
        "effort": "low",
        "textFormat": {
            "type": "json_schema",
            "structure": {
                "jsonSchema": {
                    "schema": '{"type":"object","additionalProperties":false}',
                    "name": "city",
                    "description": "a city",
                }
            },
        },
    }


def test_what_is_for_the_records_goes_into_the_request_metadata():
    body = write(ask(user="u-1", metadata=RAW(b'{"team":"search"}'), service_tier="flex"))
    assert body["requestMetadata"] == {"team": "search", "user": "u-1"}
    assert body["serviceTier"] == {"type": "flex"}
    odd = write(ask(user='{"device_id": "x"}' * 30))["requestMetadata"]["user"]
    assert odd == write(ask(user='{"device_id": "x"}' * 30))["requestMetadata"]["user"] and len(odd) == 64


def test_stop_texts_that_stop_nothing_are_left_out_and_white_space_is_refused_where_claude_would():
    assert "inferenceConfig" not in write(ask(stop=("",)))
    assert refused(ask(stop=("\n\n", "END"))) == "stop"
    assert write(ask(stop=("\n\n", "END")), lose=("stop",))["inferenceConfig"] == {"stopSequences": ["END"]}
    assert write(ask(stop=("\n\n",)), served=LLAMA)["inferenceConfig"] == {"stopSequences": ["\n\n"]}


def test_claude_is_asked_which_stop_text_it_was():
    assert write(ask(stop=("END",)))["additionalModelResponseFieldPaths"] == ["/stop_sequence"]
    assert "additionalModelResponseFieldPaths" not in write(ask(stop=("END",)), served=LLAMA)


@pytest.mark.parametrize(
    ("served", "family"),
    [
        ("anthropic.claude-v2", Family.CLAUDE),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-6", Family.CLAUDE),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/x1y2z3", Family.CLAUDE),
        ("us.amazon.nova-pro-v1:0", Family.NOVA),
        ("arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b-instruct-v1:0", Family.OTHER),
        ("openai.gpt-oss-20b-1:0", Family.OPENAI),
        ("deepseek.r1-v1:0", Family.OTHER),
    ],
)
def test_the_family_is_read_from_the_id(served, family):
    assert family_of(served) is family


def test_a_model_id_is_one_segment_of_the_path():
    assert path("anthropic.claude-3-haiku-20240307-v1:0", stream=False) == (
        "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"
    )
    assert path("arn:aws:bedrock:us-east-1:1:inference-profile/a.b", stream=True) == (
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fa.b/converse-stream"
    )


texts = st.text(max_size=12)
caches = st.sampled_from([None, "5m", "1h"])
raws = st.sampled_from([None, RAW(b"{}"), RAW(b'{"type":"object","properties":{"x":{}}}')])
media = st.sampled_from([None, "image/png", "image/tiff", "application/pdf", "text/csv"])
inner = (
    st.builds(Text, texts, caches)
    | st.builds(Image, media, st.just(PNG), cache=caches)
    | st.builds(Document, media, st.just(PNG), name=st.none() | texts, cache=caches)
)
parts_of_user = inner | st.builds(ToolResult, texts, st.lists(inner, max_size=2).map(tuple), st.booleans(), caches)
parts_of_assistant = (
    st.builds(Text, texts, caches)
    | st.builds(Refusal, texts)
    | st.builds(Thinking, texts, st.none() | texts, st.none(), st.none() | st.sampled_from(Origin))
    | st.builds(ToolCall, texts, texts, st.sampled_from(["", "{}", '{"a": [1, {}]}']), caches)
)
turns = (
    st.builds(Message, st.just("user"), st.lists(parts_of_user, max_size=3).map(tuple))
    | st.builds(Message, st.just("assistant"), st.lists(parts_of_assistant, max_size=3).map(tuple))
    | st.builds(Message, st.just("system"), st.tuples(st.builds(Text, texts, caches)))
)
words = st.none() | texts
choices = st.builds(ToolChoice, st.sampled_from(["auto", "none", "required"])) | st.builds(
    ToolChoice, st.sampled_from(["tool", "allowed_auto", "allowed_required"]), st.tuples(texts)
)
efforts = st.sampled_from([None, "none", "minimal", "low", "high", "max"])
asks = st.builds(
    Ask,
    model=st.just("m"),
    messages=st.lists(turns, max_size=5).map(lambda said: (*said, user("q"))),
    max_tokens=st.none() | st.integers(1, 9999),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(1, 99),
    stop=st.lists(texts, max_size=2).map(tuple),
    tools=st.lists(st.builds(Tool, texts, words, raws, st.none() | st.booleans(), caches), max_size=3).map(tuple),
    tool_choice=st.none() | choices,
    parallel_tool_calls=st.none() | st.booleans(),
    response_format=st.none() | st.builds(Format, st.sampled_from(["json_object", "json_schema"]), words, raws),
    reasoning=st.none() | st.builds(Reasoning, efforts, st.none() | st.integers(1, 9999), st.booleans()),
    user=words,
    metadata=st.none() | st.dictionaries(texts, texts, max_size=20).map(lambda map: RAW(json.dumps(map).encode())),
    service_tier=st.sampled_from([None, "auto", "default", "flex", "priority", "scale"]),
)


@given(asks, st.sampled_from([CLAUDE, ADAPTIVE, NOVA, LLAMA, GPT]))
def test_whatever_is_asked_is_valid_by_amazons_model(asked, served):
    write(asked, served=served, lose=("*",))


# --- answers


def event(name, payload):
    kind = "exception" if name.endswith("Exception") else "event"
    headers = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
    return eventstream.Message(headers, json.dumps(payload).encode())


def frames(name):
    return [event(*frame) for frame in json.loads((FRAMES / name).read_text())]


def read(messages, asked=None, served=CLAUDE):
    reader = ConverseReader(asked or ask(), served=served)
    return [delta for message in messages for delta in reader.message(message)], reader


@pytest.mark.parametrize("file", sorted(path.name for path in FRAMES.glob("converse_*.json")))
def test_the_frames_are_what_amazons_model_says(file):
    """So that the tests below read what Bedrock sends. The member `p` is padding, which no model mentions."""
    if file == "converse_whole.json":
        shape = service().operation_model("Converse").output_shape
        assert faults(shape, json.loads((FRAMES / file).read_text())) == []
        return
    stream = service().operation_model("ConverseStream").output_shape.members["stream"]
    for name, payload in json.loads((FRAMES / file).read_text()):
        payload.pop("p", None)
        assert faults(stream.members[name], payload) == []


def test_text_is_read_and_usage_after_the_end():
    deltas, reader = read(frames("converse_text.json"))
    assert deltas == [
        Begin(),
        TextDelta("The capital"),
        TextDelta(" is Paris – naïve."),
        Finish(FinishReason.STOP_SEQUENCE, "\n\nHuman:"),
        Counted(Usage(1569, 9, cached_tokens=1024, cache_write_tokens=524, cache_write_1h_tokens=512)),
    ]
    assert deltas[-1].usage.input_tokens == 21
    assert reader.complete


def test_an_answer_is_whole_with_its_stop_and_not_before():
    *before, stop, metadata = frames("converse_text.json")
    reader = read(before)[1]
    assert not reader.complete
    assert reader.message(stop) == [Finish(FinishReason.STOP_SEQUENCE, "\n\nHuman:")] and reader.complete
    assert [type(delta) for delta in reader.message(metadata)] == [Counted]


TOLD = [
    ThinkingEnd("EqQBCkYIARgCKkDd+/sig==", Origin.ANTHROPIC),
    Redacted(b64encode(b"sealed in two pieces").decode(), Origin.ANTHROPIC),
    TextDelta("Let me look."),
    ToolCallBegin(0, "tooluse_a", "weather"),
]


def test_reasoning_and_calls_are_read_piece_by_piece():
    deltas, _ = read(frames("converse_tools.json"))
    assert deltas == [
        Begin(),
        ThinkingDelta("Two cities, "),
        ThinkingDelta("two calls."),
        *TOLD,
        ToolCallDelta(0, '{"city": "Pa'),
        ToolCallDelta(0, 'ris"}'),
        ToolCallBegin(1, "tooluse_b", "now"),
        Finish(FinishReason.TOOL_CALLS),
        Counted(Usage(480 - 80, 80)),
    ]


def test_the_same_answer_whole_says_the_same():
    reader = ConverseReader(ask(), served=CLAUDE)
    assert reader.whole((FRAMES / "converse_whole.json").read_bytes()) == [
        Begin(),
        ThinkingDelta("Two cities, two calls."),
        *TOLD,
        ToolCallDelta(0, '{"city":"Paris"}'),
        ToolCallBegin(1, "tooluse_b", "now"),
        ToolCallDelta(1, "{}"),
        Finish(FinishReason.TOOL_CALLS),
        Counted(Usage(400, 80)),
    ]
    assert reader.complete


@given(st.lists(st.integers(0, 6000), max_size=20))
def test_any_chunking_of_the_bytes_gives_the_same_deltas(cuts):
    messages = frames("converse_tools.json")
    stream = b"".join(eventstream.encode(message.headers, message.payload) for message in messages)
    cutter, found = MessageCutter(), []
    for start, end in pairwise([0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]):
        found += cutter.feed(stream[start:end])
    assert read(found)[0] == read(messages)[0]


def test_seals_of_families_that_nobody_can_check_are_not_passed_on():
    deltas, _ = read(frames("converse_tools.json"), served=LLAMA)
    assert not [delta for delta in deltas if isinstance(delta, ThinkingEnd | Redacted)]
    assert read(frames("converse_tools.json"), served=GPT)[0][4] == Redacted(TOLD[1].data, Origin.OPENAI)


def test_sealed_reasoning_survives_a_block_that_is_never_closed():
    messages = [message for message in frames("converse_tools.json") if message.name != "contentBlockStop"]
    assert TOLD[1] in read(messages)[0]


def test_a_block_of_text_may_be_opened_too_though_it_need_not():
    assert read([event("contentBlockStart", {"contentBlockIndex": 0, "start": {}})])[0] == []


def test_a_picture_in_a_whole_answer_is_not_left_out_in_silence():
    content = [{"text": "see"}, {"image": {"format": "png", "source": {"bytes": PNG}}}]
    body = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn"}
    with pytest.raises(UpstreamError, match="image"):
        ConverseReader(ask(), served=CLAUDE).whole(json.dumps(body).encode())


def test_calls_whose_pieces_interleave_are_told_apart():
    start = [
        event("contentBlockStart", {"contentBlockIndex": n, "start": {"toolUse": {"toolUseId": f"t{n}", "name": "x"}}})
        for n in (4, 7)
    ]
    piece = [
        event("contentBlockDelta", {"contentBlockIndex": n, "delta": {"toolUse": {"input": f"{n}"}}}) for n in (7, 4, 7)
    ]
    deltas, _ = read(start + piece)
    assert deltas[2:] == [ToolCallDelta(1, "7"), ToolCallDelta(0, "4"), ToolCallDelta(1, "7")]


def test_sources_are_passed_on_as_they_came():
    source = {"title": "t", "location": {"web": {"url": "https://example.com"}}}
    [delta], _ = read([event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"citation": source}})])
    assert isinstance(delta, Citation) and json.loads(bytes(delta.raw)) == source
    block = {"citationsContent": {"content": [{"text": "x"}], "citations": [source]}}
    body = {"output": {"message": {"role": "assistant", "content": [block]}}, "stopReason": "end_turn"}
    deltas = ConverseReader(ask(), served=CLAUDE).whole(json.dumps(body).encode())
    assert deltas[1] == TextDelta("x") and json.loads(bytes(deltas[2].raw)) == source


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.CONTEXT),
        ("content_filtered", FinishReason.CONTENT_FILTER),
        ("guardrail_intervened", FinishReason.CONTENT_FILTER),
        ("refusal", FinishReason.REFUSAL),
        ("something_new", FinishReason.STOP),
    ],
)
def test_every_stop_reason_is_told(said, reason):
    assert read([event("messageStop", {"stopReason": said})])[0] == [Finish(reason)]


def test_no_stop_reason_of_amazons_model_is_forgotten():
    for reason in service().shape_for("StopReason").enum:
        reader = ConverseReader(ask(), served=CLAUDE)
        if reason.startswith("malformed"):
            with pytest.raises(UpstreamError, match=reason):
                reader.message(event("messageStop", {"stopReason": reason}))
            assert not reader.complete
        else:
            [finish] = reader.message(event("messageStop", {"stopReason": reason}))
            assert (finish.reason is FinishReason.STOP) is (reason == "end_turn")


def test_an_exception_in_the_stream_is_the_failure_it_names():
    with pytest.raises(UpstreamError) as failed:
        read(frames("converse_throttled.json"))
    assert failed.value.kind is FailureKind.RATE_LIMITED


@pytest.mark.parametrize(
    ("name", "payload", "kind"),
    [
        ("internalServerException", {"message": "x"}, FailureKind.SERVER_ERROR),
        ("serviceUnavailableException", {"message": "x"}, FailureKind.OVERLOADED),
        ("modelStreamErrorException", {"message": "x", "originalStatusCode": 500}, FailureKind.SERVER_ERROR),
        ("modelStreamErrorException", {"message": "x", "originalStatusCode": 529}, FailureKind.OVERLOADED),
        ("modelTimeoutException", {"message": "x"}, FailureKind.SERVER_ERROR),
        ("validationException", {"message": "Input is too long for requested model."}, FailureKind.CONTEXT_LENGTH),
        ("validationException", {"message": "text is blank"}, FailureKind.REJECTED),
        ("somethingNewException", {}, FailureKind.SERVER_ERROR),
    ],
)
def test_every_exception_has_its_kind(name, payload, kind):
    with pytest.raises(UpstreamError) as failed:
        read([event(name, payload)])
    assert failed.value.kind is kind


def test_no_exception_of_amazons_stream_is_forgotten():
    stream = service().operation_model("ConverseStream").output_shape.members["stream"]
    for name, shape in stream.members.items():
        if shape.metadata.get("exception"):
            with pytest.raises(UpstreamError) as failed:
                read([event(name, {"message": "x"})])
            assert failed.value.kind is not FailureKind.BAD_PAYLOAD


def test_an_error_message_of_the_framing_is_a_failure_of_the_server():
    headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "boom"}
    with pytest.raises(UpstreamError, match=r"InternalFailure.*boom") as failed:
        read([eventstream.Message(headers, b"")])
    assert failed.value.kind is FailureKind.SERVER_ERROR


@pytest.mark.parametrize(
    "message",
    [
        event("contentBlockDelta", {"delta": {"toolUse": {"input": "x"}}, "contentBlockIndex": 9}),
        event("contentBlockDelta", {"delta": {"reasoningContent": {"redactedContent": "!"}}, "contentBlockIndex": 0}),
        event("contentBlockDelta", {"delta": {"image": {"source": {"bytes": PNG}}}, "contentBlockIndex": 0}),
        event("contentBlockDelta", {}),
        eventstream.Message({":event-type": "messageStop"}, b"{"),
        eventstream.Message({":event-type": "metadata"}, b'"\xff"'),
    ],
)
def test_what_is_not_the_dialect_or_cannot_be_told_is_a_bad_payload(message):
    with pytest.raises(UpstreamError) as failed:
        read([message])
    assert failed.value.kind is FailureKind.BAD_PAYLOAD


def test_events_that_are_new_are_passed_over():
    assert read([event("trailers", {"x": 1}), event("contentBlockDelta", {"delta": {"new": 1}})])[0] == []


def test_whole_answers_that_are_none_are_bad_payloads():
    for body in (b"", b"{}", b'{"output":{},"stopReason":"end_turn"}', b"[]", b'"\xff'):
        with pytest.raises(UpstreamError) as failed:
            ConverseReader(ask(), served=CLAUDE).whole(body)
        assert failed.value.kind is FailureKind.BAD_PAYLOAD
    with pytest.raises(UpstreamError, match="none"):
        ConverseReader(ask(), served=CLAUDE).event(b"{}")


# --- failures


K = FailureKind


@pytest.mark.parametrize(
    ("status", "error_type", "body", "kind", "code"),
    [
        (400, "ValidationException:http://internal.amazon.com/coral/", {"message": "bad field"}, K.REJECTED, None),
        (400, "", {"__type": "com.amazon.coral#ValidationException", "Message": "bad"}, K.REJECTED, None),
        (400, "", {"message": "prompt is too long: 9 > 8"}, K.CONTEXT_LENGTH, "context_length_exceeded"),
        (400, "", {"message": "blocked by content filtering policy"}, K.CONTENT_POLICY, "content_policy_violation"),
        (400, "", {"message": "The provided model identifier is invalid."}, K.MISCONFIGURED, None),
        (400, "ServiceQuotaExceededException", {"message": "x"}, K.QUOTA, None),
        (403, "AccessDeniedException", {"message": "arn:aws:iam::1:role/x may not"}, K.AUTH, None),
        (403, "ExpiredTokenException", {"message": "x"}, K.AUTH, None),
        (404, "ResourceNotFoundException", {"message": "x"}, K.MISCONFIGURED, None),
        (408, "ModelTimeoutException", {"message": "x"}, K.SERVER_ERROR, None),
        (424, "", {"message": "x", "originalStatusCode": 400}, K.SERVER_ERROR, None),
        (424, "ModelErrorException", {"message": "x", "originalStatusCode": 429}, K.RATE_LIMITED, None),
        (429, "ThrottlingException", {"message": "Too many requests"}, K.RATE_LIMITED, None),
        (429, "ThrottlingException", {"message": "Too many tokens per day, please wait"}, K.QUOTA, None),
        (429, "ModelNotReadyException", {"message": "x"}, K.OVERLOADED, None),
        (500, "InternalServerException", {"message": "x"}, K.SERVER_ERROR, None),
        (503, "ServiceUnavailableException", {"message": "x"}, K.OVERLOADED, None),
    ],
)
def test_a_status_and_its_exception_have_their_kind(status, error_type, body, kind, code):
    failure = failure_of(status, json.dumps(body).encode(), error_type)
    assert (failure.kind, failure.status) == (kind, status)
    if kind in (FailureKind.REJECTED, FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_POLICY):
        assert failure.said.message in body.values() and failure.said.code == code
    else:
        assert failure.said is None
        assert "arn:" not in str(failure)


@given(st.integers(300, 599), st.binary(max_size=40))
def test_any_error_body_is_some_failure(status, body):
    assert failure_of(status, body).status == status
