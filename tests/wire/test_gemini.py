"""Gemini: what we send is what Google's own client would send, and what comes back is told in full."""

import json
from base64 import b64encode
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, FailureKind, Untranslatable, UpstreamError
from penstock.core.request import Usage
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
from penstock.wire.gemini import write_request
from penstock.wire.gemini_answer import ArrayCutter, GeminiReader, failure_of
from penstock.wire.sse import EventCutter, data_of

FRAMES = Path(__file__).parent / "frames" / "gemini"
NEW, OLD = "gemini-3-pro-preview", "gemini-2.5-flash"
PNG = b64encode(b"\x89PNG").decode()
RAW = msgspec.Raw
K = FailureKind


def user(*parts):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(*parts):
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def ask(*messages, **fields):
    return Ask(model="m", messages=messages or (user("hi"),), **fields)


_PARTS_OF_A_BODY = {
    "contents": list[types.Content],
    "systemInstruction": types.Content,
    "generationConfig": types.GenerationConfig,
    "tools": list[types.Tool],
    "toolConfig": types.ToolConfig,
    "serviceTier": types.ServiceTier,
}


def write(asked, served=NEW, lose=()):
    """The body, after Google's client, which knows every field there is, has read it."""
    body = json.loads(write_request(asked, served=served, losses=Losses(lose)))
    for name, value in body.items():
        kind = _PARTS_OF_A_BODY[name]
        if name in ("contents", "tools"):
            for item in value:
                kind.__args__[0].model_validate(item)
        elif name == "serviceTier":
            assert kind(value).value == value
        else:
            kind.model_validate(value)
    for content in body["contents"]:
        assert content["parts"]
    return body


def refused(asked, served=NEW):
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


# --- requests


def test_parameters_are_said_in_geminis_words():
    fields = {"max_tokens": 9, "temperature": 1.5, "top_p": 0.9, "top_k": 40, "seed": 7}
    body = write(
        ask(**fields, presence_penalty=0.5, frequency_penalty=-0.5, stop=("A", ""), logprobs=True, top_logprobs=3)
    )
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "generationConfig": {
            "maxOutputTokens": 9,
            "temperature": 1.5,
            "topP": 0.9,
            "topK": 40,
            "seed": 7,
            "presencePenalty": 0.5,
            "frequencyPenalty": -0.5,
            "stopSequences": ["A"],
            "responseLogprobs": True,
            "logprobs": 3,
        },
    }
    assert set(write(ask())) == {"contents"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 2}, "n"),
        ({"min_p": 0.1}, "min_p"),
        ({"logit_bias": RAW(b'{"1":5}')}, "logit_bias"),
        ({"metadata": RAW(b'{"a":"b"}')}, "metadata"),
        ({"user": "u"}, "user"),
        ({"verbosity": "high"}, "verbosity"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"stop": tuple("abcdef")}, "stop"),
        ({"parallel_tool_calls": False, "tools": (Tool("t"),)}, "parallel_tool_calls"),
        ({"reasoning": Reasoning(off=True)}, "reasoning"),
        ({"reasoning": Reasoning("extreme")}, "reasoning"),
        ({"extra": {"prediction": RAW(b"{}")}}, "prediction"),
        ({"messages": (user("q"), assistant("The answer is"))}, "prefill"),
        ({"messages": (Message("user", (Text("q"),), name="bob"),)}, "name"),
        ({"messages": (user("q", Image(url="https://example.com/a.png")),)}, "image.url"),
        ({"messages": (user("q", Image(data=PNG)),)}, "image"),
        ({"messages": (user("q", Document(file_id="f")),)}, "document.file_id"),
        ({"messages": (Message("system", (Image("image/png", PNG),)), user("q"))}, "messages"),
    ],
)
def test_what_gemini_cannot_say_is_refused_by_name_or_lost_by_name(fields, named):
    assert refused(Ask(**{"model": "m", "messages": (user("q"),), **fields})) == named


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"messages": (user(Image("image/png", PNG, detail="low")),)}, ["detail"]),
        ({"messages": (user(Text("q", cache="5m")),)}, ["cache_control"]),
        ({"messages": (user("q"),), "tools": (Tool("t", cache="1h"),)}, ["cache_control"]),
        ({"messages": (user("q"),), "tools": (Tool("t"),)}, []),
    ],
)
def test_hints_are_left_out_and_told_and_nobody_is_refused_for_one(fields, hint):
    losses = Losses()
    write_request(Ask(model="m", **fields), served=NEW, losses=losses)
    assert losses.lost == hint


def test_system_text_before_the_conversation_is_apart_and_roles_are_googles():
    system = [Message("system", (Text(text),)) for text in "ace"]
    body = write(ask(system[0], system[1], user("b"), user("c"), assistant("d"), system[2], user("f")))
    assert body["systemInstruction"] == {"parts": [{"text": "a"}, {"text": "c"}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "b"}, {"text": "c"}]},
        {"role": "model", "parts": [{"text": "d"}]},
        {"role": "user", "parts": [{"text": "e"}, {"text": "f"}]},
    ]


def test_instructions_alone_are_what_the_user_says():
    assert write(ask(Message("system", (Text("a"),)))) == {"contents": [{"role": "user", "parts": [{"text": "a"}]}]}
    with pytest.raises(BadRequest, match="nothing for the user"):
        write_request(ask(user("")), served=NEW, losses=Losses())
    with pytest.raises(BadRequest, match="nothing for the user"):
        write_request(ask(assistant("Well,")), served=NEW, losses=Losses("prefill"))


def test_media_go_inline_or_from_googles_own_storage():
    parts = (
        Image("image/png", PNG),
        Image("image/png", url="gs://bucket/a.png"),
        Document("application/pdf", url="https://generativelanguage.googleapis.com/v1beta/files/x"),
        Document("application/pdf", PNG),
        Document(text="plain"),
        Audio(PNG, "wav"),
    )
    assert write(ask(user(*parts)))["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"fileData": {"fileUri": "gs://bucket/a.png", "mimeType": "image/png"}},
        {
            "fileData": {
                "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x",
                "mimeType": "application/pdf",
            }
        },
        {"inlineData": {"mimeType": "application/pdf", "data": PNG}},
        {"inlineData": {"mimeType": "text/plain", "data": b64encode(b"plain").decode()}},
        {"inlineData": {"mimeType": "audio/wav", "data": PNG}},
    ]


def test_a_result_finds_the_name_of_its_call_and_says_whether_it_failed():
    asked = ask(
        user("q"),
        assistant(ToolCall("1", "weather", '{"city": "Paris"}', signature="Sw+/"), ToolCall("2", "now", "")),
        user("and?", ToolResult("2", (Text("a"), Text("b"))), ToolResult("1", (Text("no"),), is_error=True)),
    )
    assert write(asked)["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {
                    "functionCall": {"id": "1", "name": "weather", "args": {"city": "Paris"}},
                    "thoughtSignature": "Sw+/",
                },
                {"functionCall": {"id": "2", "name": "now", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "2", "name": "now", "response": {"output": "a\nb"}}},
                {"functionResponse": {"id": "1", "name": "weather", "response": {"error": "no"}}},
                {"text": "and?"},
            ],
        },
    ]


def test_a_result_without_a_call_is_a_bad_request():
    with pytest.raises(BadRequest, match='"9"') as refused:
        write_request(ask(user(ToolResult("9", (Text("r"),)))), served=NEW, losses=Losses("*"))
    assert refused.value.param == "messages"


def test_pictures_in_a_result_stand_inside_it_or_before_the_third_generation_behind_it():
    asked = ask(
        user("q"), assistant(ToolCall("1", "t", "{}")), user(ToolResult("1", (Text("r"), Image("image/png", PNG))))
    )
    picture = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    [new] = write(asked)["contents"][-1]["parts"]
    assert new["functionResponse"]["parts"] == [picture]
    old = write(asked, served=OLD)["contents"][-1]["parts"]
    assert old[1] == picture and "parts" not in old[0]["functionResponse"]


def test_a_call_of_somebody_else_says_that_it_has_no_seal_where_one_is_demanded():
    asked = ask(user("q"), assistant("x", ToolCall("1", "t", "{}"), ToolCall("2", "t", "{}")), user("on"))
    seals = [part.get("thoughtSignature") for part in write(asked)["contents"][1]["parts"]]
    assert seals == [None, "skip_thought_signature_validator", None]
    assert "thoughtSignature" not in json.dumps(write(asked, served=OLD))


def test_the_seal_of_reasoning_returns_byte_for_byte_and_foreign_ones_stay_away():
    asked = ask(
        user("q"),
        assistant(
            Thinking("mine", "Sig+/w==", origin=Origin.GEMINI),
            Thinking("", "RW1wdHk=", origin=Origin.GEMINI),
            Thinking("claude", "c", origin=Origin.ANTHROPIC),
            Thinking("nobody"),
            "a",
        ),
        user("on"),
    )
    assert write(asked)["contents"][1]["parts"] == [
        {"text": "mine", "thought": True, "thoughtSignature": "Sig+/w=="},
        {"text": "", "thoughtSignature": "RW1wdHk="},
        {"text": "a"},
    ]


def test_arguments_that_are_no_object_are_a_bad_request():
    with pytest.raises(BadRequest, match="'c-1'") as failed:
        write_request(ask(user("q"), assistant(ToolCall("c-1", "t", "[1]"))), served=NEW, losses=Losses("*"))
    assert failed.value.param == "messages"


@pytest.mark.parametrize(
    ("served", "reasoning", "thinking"),
    [
        (OLD, Reasoning("low"), {"includeThoughts": True, "thinkingBudget": 1024}),
        (OLD, Reasoning("high", show=False), {"includeThoughts": False, "thinkingBudget": 24_576}),
        (OLD, Reasoning(budget=512), {"includeThoughts": True, "thinkingBudget": 512}),
        (OLD, Reasoning(off=True), {"thinkingBudget": 0}),
        (OLD, Reasoning("none"), {"thinkingBudget": 0}),
        (NEW, Reasoning("minimal"), {"includeThoughts": True, "thinkingLevel": "MINIMAL"}),
        (NEW, Reasoning("high"), {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        (NEW, Reasoning(show=True), {"includeThoughts": True}),
        ("projects/p/locations/l/endpoints/7", Reasoning("low"), {"includeThoughts": True, "thinkingBudget": 1024}),
    ],
)
def test_how_hard_to_think_is_a_level_or_before_the_third_generation_a_budget(served, reasoning, thinking):
    assert write(ask(reasoning=reasoning), served=served)["generationConfig"] == {"thinkingConfig": thinking}


def test_json_may_have_a_schema():
    schema = RAW(b'{"type":"object","$defs":{}}')
    json_only = write(ask(response_format=Format("json_object")))
    assert json_only["generationConfig"] == {"responseMimeType": "application/json"}
    assert write(ask(response_format=Format("json_schema", "x", schema)))["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "$defs": {}},
    }


def test_tools_are_told_with_their_json_schema_and_without_an_empty_one():
    schema = RAW(b'{"type":"object","properties":{"x":{"type":"string"}},"additionalProperties":false}')
    tools = (
        Tool("a", "does a", schema),
        Tool("b", "", RAW(b'{"type":"object","properties": { }}')),
        Tool("c.d/" + "e" * 90),
    )
    [declared] = write(ask(tools=tools))["tools"]
    first, second, third = declared["functionDeclarations"]
    assert first == {"name": "a", "description": "does a", "parametersJsonSchema": json.loads(bytes(schema))}
    assert second == {"name": "b"}
    reader = GeminiReader(ask(tools=tools), id="r")
    [_, call, _] = reader.event(answer({"functionCall": {"name": third["name"]}}))
    assert call.name == tools[2].name != third["name"]


@pytest.mark.parametrize(
    ("choice", "strict", "said"),
    [
        (None, None, None),
        (None, True, {"mode": "VALIDATED"}),
        (ToolChoice("auto"), None, {"mode": "AUTO"}),
        (ToolChoice("auto"), True, {"mode": "VALIDATED"}),
        (ToolChoice("none"), None, {"mode": "NONE"}),
        (ToolChoice("required"), None, {"mode": "ANY"}),
        (ToolChoice("tool", ("a",)), None, {"mode": "ANY", "allowedFunctionNames": ["a"]}),
        (ToolChoice("allowed_required", ("a",)), None, {"mode": "ANY", "allowedFunctionNames": ["a"]}),
        (ToolChoice("allowed_auto", ("a",)), None, {"mode": "VALIDATED", "allowedFunctionNames": ["a"]}),
    ],
)
def test_a_tool_choice_is_a_mode(choice, strict, said):
    body = write(ask(tools=(Tool("a", strict=strict), Tool("b")), tool_choice=choice))
    assert body.get("toolConfig", {}).get("functionCallingConfig") == said


def test_service_tiers_have_googles_names():
    assert write(ask(service_tier="standard_only"))["serviceTier"] == "standard"
    assert write(ask(service_tier="flex"))["serviceTier"] == "flex"
    assert "serviceTier" not in write(ask(service_tier="auto"))


texts = st.text(max_size=12)
words = st.none() | texts
inner = st.builds(Text, texts) | st.builds(Image, st.sampled_from([None, "image/png"]), st.just(PNG))
parts_of_assistant = (
    st.builds(Text, texts)
    | st.builds(Refusal, texts)
    | st.builds(Thinking, texts, st.sampled_from([None, PNG]), st.none(), st.none() | st.sampled_from(Origin))
    | st.builds(ToolCall, st.just("1"), texts, st.sampled_from(["", "{}", '{"a": [1, {}]}']), st.none())
)
turns = (
    st.builds(Message, st.just("user"), st.lists(inner, max_size=3).map(tuple))
    | st.builds(Message, st.just("assistant"), st.lists(parts_of_assistant, max_size=3).map(tuple))
    | st.builds(Message, st.just("system"), st.tuples(st.builds(Text, texts)))
)
choices = st.builds(ToolChoice, st.sampled_from(["auto", "none", "required"])) | st.builds(
    ToolChoice, st.sampled_from(["tool", "allowed_auto", "allowed_required"]), st.tuples(texts)
)
raws = st.sampled_from([None, RAW(b"{}"), RAW(b"true"), RAW(b'{"type":"object","properties":{"x":{}}}')])
asks = st.builds(
    Ask,
    model=st.just("m"),
    messages=st.lists(turns, max_size=5).map(lambda said: (*said, user("q"))),
    max_tokens=st.none() | st.integers(1, 9999),
    temperature=st.none() | st.floats(0, 2),
    top_k=st.none() | st.integers(1, 99),
    stop=st.lists(texts, max_size=7).map(tuple),
    tools=st.lists(st.builds(Tool, texts, words, raws, st.none() | st.booleans()), max_size=3).map(tuple),
    tool_choice=st.none() | choices,
    response_format=st.none() | st.builds(Format, st.sampled_from(["json_object", "json_schema"]), words, raws),
    reasoning=st.none()
    | st.builds(Reasoning, st.sampled_from([None, "none", "low", "max"]), st.none() | st.integers(0, 9), st.booleans()),
    service_tier=st.sampled_from([None, "auto", "default", "flex", "scale"]),
)


@given(asks, st.sampled_from([NEW, OLD]))
def test_whatever_is_asked_can_be_read_by_googles_client(asked, served):
    write(asked, served=served, lose=("*",))


# --- answers


def answer(*parts, finish=None, **more):
    candidate = {"content": {"parts": list(parts), "role": "model"}, **({"finishReason": finish} if finish else {})}
    return json.dumps({"candidates": [candidate], **more}).encode()


def read_sse(name, asked=None, cuts=()):
    reader, cutter, deltas = GeminiReader(asked or ask(), id="req1"), EventCutter(), []
    data = (FRAMES / name).read_bytes()
    for start, end in pairwise([0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]):
        for event in filter(None, cutter.feed(data[start:end]).split(b"\n\n")):
            deltas += reader.event(data_of(event))
    return deltas, reader


@pytest.mark.parametrize("file", sorted(FRAMES.glob("*.*")), ids=lambda path: path.name)
def test_the_frames_are_what_googles_client_reads(file):
    data = file.read_bytes()
    if file.suffix == ".sse":
        pieces = [json.loads(data_of(event)) for event in filter(None, data.split(b"\n\n"))]
    else:
        pieces = json.loads(data) if data.startswith(b"[") else [json.loads(data)]
    for piece in pieces:
        types.GenerateContentResponse.model_validate(piece)


def test_thoughts_text_and_the_seal_in_an_empty_part_are_read():
    deltas, reader = read_sse("thinking.sse")
    assert [delta for delta in deltas if not isinstance(delta, Counted)] == [
        Begin("resp-1", "gemini-3-pro-preview"),
        ThinkingDelta("**Weighing it**\n\n"),
        TextDelta("Paris"),
        ThinkingEnd("EjQKMgFyd+/Q", Origin.GEMINI),
        Finish(FinishReason.STOP),
    ]
    assert reader.complete


def test_thoughts_are_counted_beside_the_candidates_and_tools_beside_the_prompt():
    deltas, _ = read_sse("thinking.sse")
    usages = [delta.usage for delta in deltas if isinstance(delta, Counted)]
    assert usages[0] == Usage(20, 40, reasoning_tokens=40)
    assert usages[-1] == Usage(32, 43, cached_tokens=16, reasoning_tokens=40)
    assert usages[-1].prompt_tokens + usages[-1].completion_tokens == 75  # Google's own total


CALLS = [
    TextDelta("Looking."),
    ToolCallBegin(0, "call_req1_0", "weather", "Eo8BCowB+/8="),
    ToolCallDelta(0, '{"city":"Paris"}'),
    ToolCallBegin(1, "fc-7", "now"),
    ToolCallDelta(1, "{}"),
    Finish(FinishReason.TOOL_CALLS),
]


def test_calls_come_whole_and_get_ids_and_stop_means_calls():
    deltas, _ = read_sse("tools.sse")
    assert [delta for delta in deltas if not isinstance(delta, Begin | Counted)] == CALLS


def test_a_whole_answer_says_the_same():
    reader = GeminiReader(ask(), id="req1")
    deltas = reader.whole((FRAMES / "whole.json").read_bytes())
    assert deltas == [Begin("resp-2", "gemini-3-flash-preview"), *CALLS, Counted(Usage(90, 25))]
    assert reader.complete


@given(st.lists(st.integers(0, 2000), max_size=15))
def test_any_chunking_of_the_events_gives_the_same_deltas(cuts):
    assert read_sse("tools.sse", cuts=cuts)[0] == read_sse("tools.sse")[0]


ARRAY = [
    Begin("resp-3"),
    TextDelta('a } " \\ brace: {'),
    TextDelta("é]"),
    Finish(FinishReason.LENGTH),
    Counted(Usage(3, 2)),
]


@given(st.lists(st.integers(0, 900), max_size=15))
def test_an_array_is_cut_into_its_elements_wherever_the_network_cut_it(cuts):
    data = (FRAMES / "array.json").read_bytes()
    cutter, reader, deltas = ArrayCutter(), GeminiReader(ask(), id="r"), []
    for start, end in pairwise([0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]):
        for element in cutter.feed(data[start:end]):
            deltas += reader.event(element)
    assert deltas == ARRAY and not cutter.holds_data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=4), st.integers(0, 3))
def test_any_array_of_objects_in_single_bytes_is_cut_as_json_has_it(objects, indent):
    cutter = ArrayCutter()
    data = json.dumps(objects, indent=indent or None, ensure_ascii=False).encode("utf-8", "replace")
    found = [json.loads(element) for byte in data for element in cutter.feed(bytes([byte]))]
    assert found == json.loads(data) and not cutter.holds_data


def test_an_array_that_stops_inside_an_element_is_seen():
    cutter = ArrayCutter()
    assert cutter.feed(b'[{"a": 1}, {"b": "') == [b'{"a": 1}']
    assert cutter.holds_data


def test_an_element_without_end_is_a_bad_payload(monkeypatch):
    monkeypatch.setattr("penstock.wire.gemini_answer.MAX_EVENT_BYTES", 100)
    cutter = ArrayCutter()
    assert cutter.feed(b'[{"a": "' + b"x" * 92) == []
    with pytest.raises(UpstreamError, match="100 bytes"):
        cutter.feed(b"xx")


def test_the_array_whole_says_the_same():
    assert GeminiReader(ask(), id="r").whole((FRAMES / "array.json").read_bytes()) == ARRAY


def test_no_finish_reason_of_googles_client_is_taken_for_a_good_end():
    for reason in types.FinishReason:
        if reason.value in ("FINISH_REASON_UNSPECIFIED", "STOP"):
            continue
        reader = GeminiReader(ask(), id="r")
        try:
            [*_, finish] = reader.event(answer({"text": "x"}, finish=reason.value))
        except UpstreamError:
            assert not reader.complete
        else:
            assert finish.reason in (FinishReason.CONTENT_FILTER, FinishReason.LENGTH), reason


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("RECITATION", FinishReason.CONTENT_FILTER),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("A_NEW_ONE", FinishReason.STOP),
        ("MALFORMED_FUNCTION_CALL", K.SERVER_ERROR),
        ("OTHER", K.SERVER_ERROR),
        ("MISSING_THOUGHT_SIGNATURE", K.REJECTED),
        ("PUP_LIMITED_DISABLED", K.AUTH),
    ],
)
def test_a_finish_reason_is_told_or_is_a_failure(said, expected):
    reader = GeminiReader(ask(), id="r")
    if isinstance(expected, FinishReason):
        assert reader.event(answer(finish=said))[-1] == Finish(expected)
        assert reader.complete
    else:
        with pytest.raises(UpstreamError, match=said) as failed:
            reader.event(answer(finish=said))
        assert failed.value.kind is expected
        assert (failed.value.said is not None) is (expected is K.REJECTED)


def test_a_blocked_prompt_is_the_callers_to_know():
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 4}}
    for read in (GeminiReader(ask(), id="r").event, GeminiReader(ask(), id="r").whole):
        with pytest.raises(UpstreamError) as failed:
            read(json.dumps(blocked).encode())
        assert (failed.value.kind, failed.value.said.code) == (K.CONTENT_POLICY, "content_policy_violation")
        assert "PROHIBITED_CONTENT" in failed.value.said.message


def test_logprobs_come_in_openais_form_with_the_text():
    token = {"token": "é", "logProbability": -0.1, "tokenId": 5}
    result = {
        "chosenCandidates": [token],
        "topCandidates": [{"candidates": [token, {"token": "b", "logProbability": -3}]}],
    }
    body = json.loads(answer({"text": "é"}, finish="STOP"))
    body["candidates"][0]["logprobsResult"] = result
    text = GeminiReader(ask(), id="r").event(json.dumps(body).encode())[1]
    entry = {"token": "é", "logprob": -0.1, "bytes": [195, 169]}
    other = {"token": "b", "logprob": -3.0, "bytes": [98]}
    assert text.text == "é"
    assert json.loads(bytes(text.logprobs)) == {"content": [{**entry, "top_logprobs": [entry, other]}], "refusal": None}
    body["candidates"][0]["content"]["parts"] = []
    late = GeminiReader(ask(), id="r").event(json.dumps(body).encode())[1]
    assert late.text == "" and late.logprobs == text.logprobs


def test_sources_are_passed_on_as_they_came():
    body = json.loads(answer({"text": "x"}))
    body["candidates"][0]["citationMetadata"] = {"citationSources": [{"uri": "https://example.com", "startIndex": 0}]}
    [_, _, source] = GeminiReader(ask(), id="r").event(json.dumps(body).encode())
    assert isinstance(source, Citation) and json.loads(bytes(source.raw))["uri"] == "https://example.com"


def test_an_answer_is_finished_once_and_begins_once():
    reader = GeminiReader(ask(), id="r")
    deltas = [delta for _ in range(2) for delta in reader.event(answer({"text": "x"}, finish="STOP"))]
    assert [type(delta) for delta in deltas] == [Begin, TextDelta, Finish, TextDelta]


def test_an_error_inside_a_stream_is_the_failure_that_it_names():
    reader = GeminiReader(ask(), id="r")
    for error, kind in (({"code": 503, "message": "overloaded"}, K.OVERLOADED), ({"message": "?"}, K.SERVER_ERROR)):
        with pytest.raises(UpstreamError) as failed:
            reader.event(json.dumps({"error": error}).encode())
        assert failed.value.kind is kind


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'"\xff',
        b'{"candidates": {}}',
        answer({"functionCall": {}}),
        answer({"inlineData": {"mimeType": "image/png", "data": PNG}}),
    ],
)
def test_what_is_not_the_dialect_or_cannot_be_told_is_a_bad_payload(data):
    with pytest.raises(UpstreamError) as failed:
        GeminiReader(ask(), id="r").event(data)
    assert failed.value.kind is K.BAD_PAYLOAD


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", answer({"text": "half"})])
def test_a_whole_answer_without_an_end_is_a_bad_payload(body):
    with pytest.raises(UpstreamError) as failed:
        GeminiReader(ask(), id="r").whole(body)
    assert failed.value.kind is K.BAD_PAYLOAD


# --- failures

INVALID_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "x"}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
PER_DAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "250"}],
}
TOO_LONG = "The input token count (1091639) exceeds the maximum number of tokens allowed (1048576)."


@pytest.mark.parametrize(
    ("code", "status", "message", "details", "kind"),
    [
        (400, "INVALID_ARGUMENT", "API key not valid.", [INVALID_KEY], K.AUTH),
        (400, "INVALID_ARGUMENT", "Unknown name x", [], K.REJECTED),
        (400, "INVALID_ARGUMENT", TOO_LONG, [], K.CONTEXT_LENGTH),
        (400, "FAILED_PRECONDITION", "User location is not supported", [], K.MISCONFIGURED),
        (401, "UNAUTHENTICATED", "x", [], K.AUTH),
        (403, "PERMISSION_DENIED", "x", [], K.AUTH),
        (404, "NOT_FOUND", "models/x is not found", [], K.MISCONFIGURED),
        (429, "RESOURCE_EXHAUSTED", "x", [RETRY], K.RATE_LIMITED),
        (429, "RESOURCE_EXHAUSTED", "x", [PER_DAY, RETRY], K.QUOTA),
        (499, "CANCELLED", "x", [], K.SERVER_ERROR),
        (500, "INTERNAL", "x", [], K.SERVER_ERROR),
        (503, "UNAVAILABLE", "The model is overloaded.", [], K.OVERLOADED),
        (504, "DEADLINE_EXCEEDED", "x", [], K.SERVER_ERROR),
    ],
)
def test_a_status_and_its_details_have_their_kind(code, status, message, details, kind):
    error = {"error": {"code": code, "message": message, "status": status, "details": details}}
    for body in (error, [error]):  # in a list where a stream was asked for
        failure = failure_of(code, json.dumps(body).encode())
        assert (failure.kind, failure.status) == (kind, code)
        assert failure.retry_after == (34.5 if RETRY in details else None)
        if kind in (K.REJECTED, K.CONTEXT_LENGTH):
            assert failure.said.message == message
            assert failure.said.code == ("context_length_exceeded" if kind is K.CONTEXT_LENGTH else None)
        else:
            assert failure.said is None and message not in str(failure)


@given(
    st.integers(300, 599), st.binary(max_size=40) | st.sampled_from([b"[]", b"{}", b'{"error":{}}', b'[{"error":{}}]'])
)
def test_any_error_body_is_some_failure(status, body):
    assert failure_of(status, body).status == status
