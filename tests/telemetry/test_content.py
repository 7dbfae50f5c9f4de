"""Texts are kept only when asked for, redacted, no longer than they may be, and hashed under a key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.request import Endpoint
from penstock.telemetry.content import LOOK_EVERY, OPENING, Content, Holder, Reader, asked_in, opening_in, said_in
from penstock.telemetry.options import Capture

ASKED = (
    b'{"model":"chat","stream":true,"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}]}'
)
CHAT = b"".join(
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % word for word in (b"Hel", b"lo", b".")
)
STREAMS = {
    "chat": CHAT + b"data: [DONE]\n\n",
    "completion": b'data: {"choices":[{"text":"Hel"}]}\n\ndata: {"choices":[{"text":"lo."}]}\n\ndata: [DONE]\n\n',
    "responses": b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hello."}\n\n',
    "messages": b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"Hello."}}\n\n',
}
PLAIN = {
    "chat": b'{"choices":[{"message":{"role":"assistant","content":"Hello."}}]}',
    "completion": b'{"choices":[{"text":"Hello."}]}',
    "responses": b'{"output":[{"type":"message","content":[{"type":"output_text","text":"Hello."}]}]}',
    "messages": b'{"type":"message","content":[{"type":"text","text":"Hello."}]}',
}


def held(asked: bytes = ASKED, *parts: bytes) -> Content:
    made = Content(asked)
    for part in parts:
        made.said(part)
    return made


def texts(capture: Capture, *given: Any) -> dict[str, Any]:
    found = Reader(capture).texts(held(*given))
    return {name: json.loads(str(text)) for name, text in found.items()}


@pytest.mark.parametrize("answer", [*STREAMS.values(), *PLAIN.values()], ids=[*STREAMS, *PLAIN])
def test_the_text_of_an_answer_is_found_in_every_dialect_streamed_or_whole(answer: bytes) -> None:
    assert said_in(answer) == "Hello."


def test_by_default_nothing_is_told_of_texts() -> None:
    reader = Reader(Capture())
    assert reader.texts(held(ASKED, CHAT)) == {}
    assert reader.hashes(held(ASKED, CHAT)) == ("", "")


def test_when_asked_for_prompt_and_answer_are_messages_of_the_genai_conventions() -> None:
    assert texts(Capture(content=True), ASKED, CHAT) == {
        "input": [
            {"role": "system", "parts": [{"type": "text", "content": "Be kind."}]},
            {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
        ],
        "output": [{"role": "assistant", "parts": [{"type": "text", "content": "Hello."}]}],
    }


def test_system_prompts_beside_the_messages_come_first_and_pictures_are_only_named() -> None:
    asked = (
        b'{"system":[{"type":"text","text":"Be kind."}],'
        b'"messages":[{"role":"user","content":[{"type":"text","text":"What?"},{"type":"image","source":{}}]}]}'
    )
    found = texts(Capture(content=True), asked)["input"]
    assert [(one["role"], one["parts"][0]["content"]) for one in found] == [
        ("system", "Be kind."),
        ("user", "What?\n[image]"),
    ]


def test_secrets_in_texts_are_masked() -> None:
    asked = b'{"messages":[{"role":"user","content":"my key is sk-abcdefghijklmnop, use it"}]}'
    found = Reader(Capture(content=True)).texts(held(asked, b'data: {"choices":[{"delta":{"content":"AKIA'))
    assert "abcdefghijklmnop" not in str(found)
    assert "sk-***" in str(found["input"])


def test_a_secret_that_a_cut_goes_through_is_masked_all_the_same() -> None:
    asked = json.dumps({"messages": [{"role": "user", "content": "x" * 290 + " sk-abcdefghijklmnop"}]}).encode()
    assert "sk-abcd" not in str(Reader(Capture(content=True, max_bytes=300)).texts(held(asked)))


@given(st.lists(st.text(max_size=300), max_size=8), st.integers(256, 1_000))
def test_texts_are_never_longer_than_they_may_be_and_always_json(messages: list[str], most: int) -> None:
    asked = json.dumps({"messages": [{"role": "user", "content": text} for text in messages]}).encode()
    found = texts(Capture(content=True, max_bytes=most), asked)
    shown = [one["parts"][0]["content"] for one in found.get("input", [])]
    assert sum(len(text.removesuffix("...")) for text in shown) <= most
    if messages and len(messages[-1]) <= 20:
        assert shown[-1] == messages[-1]  # what was asked last says most


def test_the_same_text_has_the_same_hash_under_the_same_key_and_no_other() -> None:
    capture = Capture(hashes=True)
    one, other = Reader(capture, b"k" * 32), Reader(capture, b"l" * 100)
    again = Content(b'{"messages":' + ASKED.split(b'"messages":')[1].replace(b"}]}", b'}],"model":"other"}'))
    again.said(PLAIN["chat"])
    assert one.hashes(held(ASKED, CHAT)) == one.hashes(again)  # streamed or not, by whatever model
    assert not set(one.hashes(again)) & set(other.hashes(again))
    assert [len(text) for text in one.hashes(again)] == [24, 24]


def test_an_answer_that_is_too_long_to_be_held_has_no_hash_rather_than_a_wrong_one() -> None:
    made = Content(ASKED, 10)
    made.said(CHAT)
    made.said(CHAT)
    assert made.cut
    assert len(made.parts) == 1
    assert Reader(Capture(hashes=True)).hashes(made)[1] == ""


def test_a_tee_passes_everything_on_and_hears_it() -> None:
    written = list[bytes]()
    made = Content(ASKED)
    write = made.tee(written.append)
    write(b"a")
    write(b"b")
    assert written == made.parts == [b"a", b"b"]


@given(st.binary(max_size=300), st.integers(0, len(CHAT)))
def test_no_body_is_too_odd_to_be_read(junk: bytes, at: int) -> None:
    reader = Reader(Capture(content=True, hashes=True))
    for body in (junk, CHAT[:at] + junk + CHAT[at:], b"{" + junk, b"data:" + junk):
        reader.texts(held(body, body))
        reader.hashes(held(body, body))
        asked_in(body)
        opening_in(held(body, body))


@pytest.mark.parametrize("answer", [*STREAMS.values(), *PLAIN.values()], ids=[*STREAMS, *PLAIN])
def test_the_first_words_of_a_long_answer_are_found_without_reading_all_of_it(answer: bytes) -> None:
    longer = answer + b" " * OPENING if answer in PLAIN.values() else answer * (OPENING // len(answer) + 2)
    assert opening_in(held(b"", longer)).startswith("Hello.")
    assert len(opening_in(held(b"", longer))) <= OPENING


def test_a_few_answers_a_second_are_looked_at_and_of_them_no_more_is_held_than_their_beginning() -> None:
    holder, capture = Holder(), Capture()

    def hold(now: float, endpoint: Endpoint = Endpoint.CHAT, capture: Capture = capture) -> Content | None:
        return holder.hold(capture, endpoint, ASKED, now)

    assert hold(0.0, Endpoint.EMBEDDING) is None  # it says nothing
    first = hold(0.0)
    assert first is not None
    assert first.asked == b""
    for _ in range(3):
        first.said(b"x" * (OPENING - 1))
    assert len(first.parts) == 2
    assert hold(LOOK_EVERY / 2) is None
    assert hold(LOOK_EVERY) is not None
    assert hold(9.0, capture=Capture(refusals=False)) is None


def test_where_texts_are_wanted_all_of_them_are_held() -> None:
    holder = Holder()
    for _ in range(3):
        found = holder.hold(Capture(hashes=True), Endpoint.EMBEDDING, ASKED, 0.0)
        assert found is not None
        assert found.asked is ASKED
