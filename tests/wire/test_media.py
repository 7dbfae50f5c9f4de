"""Every place where a request can point at media is found, nothing else is, and only those places are replaced."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.request import Endpoint
from penstock.wire.media import MAX_DEPTH, MAX_REFERENCES, Reference, remote_media, with_inlined

CHAT = Endpoint.CHAT
URL = "https://pictures.example/cat.png"
PNG = ("image/png", b"\x89PNG")
DATA_URL = "data:image/png;base64,iVBORw=="


def fields_of(body: Any) -> dict[str, msgspec.Raw]:
    text = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return msgspec.json.decode(text, type=dict[str, msgspec.Raw])


def chat(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(parts)}]}


def found(body: Any, endpoint: Endpoint = CHAT) -> list[tuple[str, str, str]]:
    return [(seen.param, seen.url, seen.kind) for seen in remote_media(fields_of(body), endpoint)]


def plain(fields: dict[str, msgspec.Raw]) -> Any:
    return msgspec.json.decode(msgspec.json.encode(fields))


PLACES: list[tuple[Any, str, str]] = [
    ({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}, "image_url.url", "image"),
    ({"type": "image_url", "image_url": URL}, "image_url", "image"),
    ({"image_url": {"url": URL}}, "image_url.url", "image"),
    ({"type": "input_image", "image_url": URL, "file_id": None}, "image_url", "image"),
    ({"type": "input_image", "input_image": {"url": URL}}, "input_image.url", "image"),
    ({"type": "video_url", "video_url": {"url": URL}}, "video_url.url", "video"),
    ({"type": "audio_url", "audio_url": {"url": URL}}, "audio_url.url", "audio"),
    ({"type": "anything", "thumbnail_url": URL}, "thumbnail_url", "image"),
    ({"type": "file", "file": {"url": URL}}, "file.url", "document"),
    ({"type": "file", "file": {"file_data": URL}}, "file.file_data", "document"),
    ({"type": "input_file", "file_url": URL}, "file_url", "document"),
    ({"type": "input_audio", "input_audio": {"data": URL, "format": "wav"}}, "input_audio.data", "audio"),
    ({"type": "image", "url": URL}, "url", "image"),
    ({"type": "image", "image": URL}, "image", "image"),
    ({"type": "image", "source": {"type": "url", "url": URL}}, "source.url", "image"),
    ({"type": "document", "source": {"type": "url", "url": URL}}, "source.url", "document"),
    ({"type": "IMAGE_URL", "Image_URL": {"URL": URL}}, "Image_URL.URL", "image"),
]


@pytest.mark.parametrize(("part", "param", "kind"), PLACES)
def test_a_reference_is_found_and_named_wherever_a_dialect_puts_it(part, param, kind):
    assert found(chat({"type": "text", "text": "see"}, part)) == [(f"messages[0].content[1].{param}", URL, kind)]


@pytest.mark.parametrize(
    "url",
    [
        *("http://a/b", "HTTP://a/b", "ftp://a/b", "file:///etc/passwd", "/etc/passwd", "../secret.png", " http://a/b"),
        *("javascript:1", "gopher://a", "s3://bucket/key", "//a/b", "", "DATA:image/png;base64,AA==", "\u0000data:x"),
    ],
)
def test_whatever_is_not_a_data_url_is_a_reference(url):
    assert [seen[1] for seen in found(chat({"type": "image_url", "image_url": {"url": url}}))] == [url]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "//////////////////////////////////////etc/passwd", "file:x", "https:x", "../x", "a.png"]
)
def test_a_member_that_holds_base64_may_not_hold_a_path(path):
    assert [seen[1] for seen in found(chat({"type": "image", "image": path}))] == [path]


def test_what_is_in_the_request_itself_is_no_reference():
    picture = base64.b64encode(bytes(range(256)) * 9).decode()
    assert not found(
        chat(
            {"type": "image_url", "image_url": {"url": DATA_URL}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}},
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "https://a.example: b"},
            },
            {"type": "image", "image": picture},
            {"type": "image", "image": "/9j/" + picture},
            {"type": "input_audio", "input_audio": {"data": picture, "format": "wav"}},
            {"type": "file", "file": {"file_id": "file-1"}},
            {"type": "input_image", "image_url": None, "file_id": "file-1"},
        )
    )


def test_urls_that_only_say_where_a_text_is_from_or_what_a_tool_was_given_are_no_references():
    page = {"type": "web_search_result", "url": URL, "title": "t", "encrypted_content": "x"}
    body = chat(
        {"type": "text", "text": f'"image_url": "{URL}"', "citations": [{"type": "x", "url": URL}]},
        {"type": "web_search_tool_result", "tool_use_id": "1", "content": [page]},
        {"type": "search_result", "source": URL, "title": "t", "content": [{"type": "text", "text": "x"}]},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"image_url": URL, "source": {"url": URL}}},
        role="assistant",
    )
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"image_url": URL})}}
    body["messages"].append({"role": "assistant", "content": None, "tool_calls": [call]})
    body["tools"] = [{"type": "mcp", "server_url": URL}]
    assert not found(body)


def test_references_inside_tool_results_and_documents_are_found():
    picture = {"type": "image", "source": {"type": "url", "url": URL}}
    document = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}, picture]}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [document, picture]}
    assert [seen[0] for seen in found(chat(result), Endpoint.MESSAGES)] == [
        "messages[0].content[0].content[0].source.content[1].source.url",
        "messages[0].content[0].content[1].source.url",
    ]
    tool = {"messages": [{"role": "tool", "tool_call_id": "1", "content": [{"image_url": {"url": URL}}]}]}
    assert [seen[0] for seen in found(tool)] == ["messages[0].content[0].image_url.url"]


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        (Endpoint.RESPONSES, {"input": [{"content": [{"type": "input_image", "image_url": URL}]}]}, None),
        (Endpoint.RESPONSES, {"input": [{"output": [{"type": "input_image", "image_url": URL}]}]}, None),
        (Endpoint.INPUT_TOKENS, {"input": [{"output": {"type": "screenshot", "image_url": URL}}]}, None),
        (Endpoint.MODERATION, {"input": [{"type": "image_url", "image_url": {"url": URL}}]}, "input[0].image_url.url"),
        (Endpoint.EMBEDDING, {"input": [{"image": URL}]}, "input[0].image"),
        (Endpoint.EMBEDDING, chat({"image_url": {"url": URL}}), None),
        (Endpoint.RERANK, {"query": "q", "documents": ["a", {"image": URL}]}, "documents[1].image"),
        (Endpoint.RERANK, {"query": {"content": [{"image_url": URL}]}}, "query.content[0].image_url"),
        (Endpoint.TOKENIZE, chat({"image_url": {"url": URL}}), None),
        (Endpoint.COUNT_TOKENS, chat({"source": {"type": "url", "url": URL}}), None),
    ],
)
def test_every_endpoint_that_takes_media_is_looked_through(endpoint, body, param):
    [seen] = found(body, endpoint)
    assert seen[1] == URL
    assert param is None or seen[0] == param


@pytest.mark.parametrize(
    "part",
    [
        '{"type":"image_url","image_\\u0075rl":{"url":"https://a/b"}}',
        '{"type":"image_url","image_url":{"\\u0075\\u0072\\u006c":"https://a/b"}}',
        '{"type":"image_url","image_url":{"url":"\\u0068ttps:\\/\\/a\\/b"}}',
        '{"type":"image","s\\u006Furce":{"type":"url","url":"https://a/b"}}',
        '{ "type" : "image_url" ,\n "image_url" : { "url" : "https:\\u002f/a/b" } }',
    ],
)
def test_escapes_and_white_space_hide_nothing(part):
    for body in (f'{{"messages":[{{"content":[{part}]}}]}}', f'{{"messages": [ {{ "content" :\t[ {part} ] }} ]}}'):
        assert [seen[1] for seen in found(body)] == ["https://a/b"]
        assert [seen[1] for seen in found(body.replace('"content"', '"cont\\u0065nt"'))] == ["https://a/b"]


@pytest.mark.parametrize(
    "messages",
    [
        '[{"content":[{"type":"image_url","image_url":{"url":"http://a/b","url":"data:,"}}]}]',
        '[{"content":[{"type":"image_url","image_url":{"url":"http://a/b"},"image_url":{"url":"data:,"}}]}]',
        '[{"content":[{"type":"image_url","image_url":{"url":"http://a/b"},"image_\\u0075rl":"data:,"}]}]',
        '[{"content":[{"type":"image_url","image_url":"http://a/b"}],"content":[{"image_url":"data:,"}]}]',
        '[{"content":[{"type":"image_url","image_url":"http://a/b"}],"content":[],"x":1}]',
    ],
)
def test_an_object_that_says_a_name_twice_is_refused_since_an_engine_might_believe_the_other(messages):
    for text in (messages, messages.replace(',"', ',  "').replace('":', '":\n  ')):
        with pytest.raises(BadRequest, match="twice") as refusal:
            found(f'{{"messages":{text}}}')
        assert refusal.value.param == "messages"


def test_a_repeated_name_beside_text_alone_is_nobodys_business():
    assert not found('{"messages":[{"content":"a","content":[{"type":"text","text":"b"}]}]}')
    with pytest.raises(BadRequest, match="twice"):
        found('{"messages":[{"content":[{"image_url":"http://a/b"}],"content":"b"}]}')


@pytest.mark.parametrize("indent", [None, 1, 8])
def test_white_space_is_not_taken_for_a_repeated_name(indent):
    body = chat({"type": "image_url", "image_url": {"url": URL}, "größe": 1, "\n": 2})
    assert len(found(json.dumps(body, indent=indent))) == 1


def test_a_list_of_urls_is_refused_by_its_place():
    with pytest.raises(BadRequest) as refusal:
        found(chat({"type": "image_url", "image_url": [URL]}))
    assert refusal.value.param == "messages[0].content[0].image_url"


def test_too_many_references_and_too_deep_nesting_are_refused():
    part = {"image_url": URL}
    assert len(found(chat(*[part] * MAX_REFERENCES))) == MAX_REFERENCES
    with pytest.raises(BadRequest, match=str(MAX_REFERENCES)):
        found(chat(*[part] * (MAX_REFERENCES + 1)))
    for _ in range(MAX_DEPTH):
        part = {"content": [part]}
    with pytest.raises(BadRequest, match="deep"):
        found(chat(part))


@pytest.mark.parametrize("messages", ["null", "5", '"x"', "{}", "[]", "[null,1]", '[{"content":5}]', '[[["x"]]]'])
def test_what_is_no_conversation_is_left_for_others_to_refuse(messages):
    assert not found(f'{{"messages":{messages}}}')


@pytest.mark.parametrize(("part", "param", "kind"), PLACES)
def test_the_bytes_take_the_place_of_their_reference(part, param, kind):
    fields = fields_of(chat({"type": "text", "text": "see"}, part))
    [reference] = remote_media(fields, CHAT)
    new = with_inlined(fields, CHAT, {reference: PNG})
    assert not remote_media(new, CHAT)
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}
    before, after = plain(fields)["messages"][0]["content"], plain(new)["messages"][0]["content"]
    if "source" in part:
        assert after == [before[0], {**part, "source": source}]
    else:
        assert after == json.loads(json.dumps(before).replace(URL, DATA_URL))


def test_what_is_not_replaced_stays_byte_for_byte():
    odd = r'{"type":"text","text":"\u00e9\/ \ud83d\ude00","n":1.0e+02}'
    other = '{"type":"image_url","image_url":{"url":"http://other/"}}'
    body = (
        f'{{"messages":[{odd},{{"role":"user","content":[{odd},{{"image_url":{{"url":"{URL}","d":1.50}}}},{other}]}}]}}'
    )
    fields = fields_of(body)
    first, second = remote_media(fields, CHAT)
    new = with_inlined(fields, CHAT, {first: PNG})
    assert bytes(new["messages"]).decode() == body[len('{"messages":') : -1].replace(URL, DATA_URL)
    assert remote_media(new, CHAT) == [second]
    assert bytes(with_inlined(fields, CHAT, {})["messages"]) == bytes(fields["messages"])


strings = st.text(max_size=8) | st.sampled_from([URL, DATA_URL, "data:", "aGk="])
names = st.sampled_from(
    [*("url", "image_url", "source", "content", "type", "image", "file", "data", "format", "input", "text", "output")]
)
values = st.recursive(
    strings | st.none() | st.integers(-5, 5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def every_url(value: Any) -> list[str]:
    """All strings under a name that ends in url, wherever: what the walk may find at most."""
    if isinstance(value, list):
        return [url for item in value for url in every_url(item)]
    if not isinstance(value, dict):
        return []
    own = [v for k, v in value.items() if isinstance(v, str) and (k.endswith("url") or k in ("image", "data"))]
    return own + [url for item in value.values() for url in every_url(item)]


@given(st.lists(st.dictionaries(names, values, max_size=4), max_size=3), st.sampled_from([None, 3]), st.booleans())
def test_finding_and_replacing_mean_the_same_places_however_it_is_written(messages, indent, ascii):
    fields = fields_of(json.dumps({"messages": messages, "model": "m"}, indent=indent, ensure_ascii=ascii))
    try:
        references = remote_media(fields, CHAT)
    except BadRequest as refusal:
        assert "must be one URL" in refusal.message  # noqa: PT017  either outcome is right
        return
    assert all(isinstance(reference, Reference) for reference in references)
    assert len({reference.param for reference in references}) == len(references)
    assert set(every_url(messages)) >= {reference.url for reference in references}
    new = with_inlined(fields, CHAT, dict.fromkeys(references, PNG))
    assert not remote_media(new, CHAT)
    assert new["model"] == fields["model"]
    if not references:
        assert new == fields
