"""Requests in, and what the meter makes of answers."""

from contextlib import suppress
from itertools import pairwise
from json import dumps

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, FailureKind, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import ANYONE, Endpoint, Usage
from penstock.wire.openai_chat import Meter, has_parts, parse, upstream_body
from penstock.wire.prompts import LONG_BODY, PREFIX_BYTES, prefix_hashes
from penstock.wire.sse import EventCutter

BLOCK = PREFIX_BYTES[0]


def read(body, endpoint=Endpoint.CHAT):
    return parse(body, id="r", endpoint=endpoint, caller=ANYONE, now=1.0)


def chat(**fields):
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields})


def test_the_callers_maximum_counts_and_the_newer_field_wins():
    assert read(chat(max_tokens=7)).max_tokens == 7
    assert read(chat(max_tokens=7, max_completion_tokens=9)).max_tokens == 9
    assert read(chat()).max_tokens > 0


def test_a_completion_takes_a_prompt_of_any_kind():
    for prompt in (b'"once"', b"[1,2,3]", b'["a","b"]'):
        assert read(b'{"model":"m","prompt":%b}' % prompt, Endpoint.COMPLETION).prompt_tokens > 0
    with pytest.raises(BadRequest, match="prompt"):
        read(b'{"model":"m"}', Endpoint.COMPLETION)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), json, max_size=5), st.booleans(), st.booleans())
def test_every_field_we_do_not_know_reaches_the_upstream(extra, stream, usage):
    known = {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
    extra = {name: value for name, value in extra.items() if name not in known}
    body = chat(stream=stream, **({"stream_options": {"include_usage": usage}} if usage else {}), **extra)
    sent = msgspec.json.decode(upstream_body(read(body), msgspec.Raw(b'"served"')))
    assert {name: sent[name] for name in extra} == extra
    assert sent["model"] == "served"
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    if stream:
        assert sent["stream_options"]["include_usage"] is True


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_by_name(body):
    with suppress(BadRequest):  # and nothing else may be raised
        assert read(body).model


def test_prompts_that_begin_alike_share_their_first_hashes():
    long = "x" * (3 * BLOCK)
    one = read(chat(messages=[{"role": "system", "content": long}, {"role": "user", "content": "a" * BLOCK}]))
    two = read(chat(messages=[{"role": "system", "content": long}, {"role": "user", "content": "b" * BLOCK}]))
    assert one.prefix_hashes[:3] == two.prefix_hashes[:3]
    assert one.prefix_hashes[3:] != two.prefix_hashes[3:]


LONG = "x" * LONG_BODY


@given(
    st.dictionaries(st.text(max_size=6), json, max_size=5), st.booleans(), st.sampled_from([None, b'"m"', b'"served"'])
)
def test_a_long_body_is_sent_on_as_it_came_where_it_is_what_would_have_been_written(extra, compact, served):
    fields = {**extra, "model": "m", "messages": [{"role": "user", "content": LONG}], "stream": False}
    body = msgspec.json.encode(fields) if compact else dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
    seen, name = read(body), None if served is None else msgspec.Raw(served)
    sent = upstream_body(seen, name)
    anew = upstream_body(msgspec.structs.replace(seen, received=None), name)
    assert sent == anew
    if compact and served != b'"served"' and all(each.isascii() and each.isalnum() for each in fields):
        assert sent is body


def long_body(rest=b"", opening=b'{"model":"m",'):
    return opening + b'"messages":[{"role":"user","content":"%b"}]%b}' % (LONG.encode(), rest)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (long_body(), True),
        (long_body(b',"tools":[]'), True),
        (long_body(b',"model":"m"'), False),
        (long_body(opening=b'{"model":"evil","model":"m",'), False),
        (long_body(opening=b'{"mod\\u0065l":"m",'), False),
        (long_body(opening=b'{"model": "m",'), False),
        (long_body() + b" ", False),
    ],
)
def test_what_says_a_name_twice_or_in_another_way_is_written_anew(body, sent):
    assert (upstream_body(read(body), msgspec.Raw(b'"m"')) is body) == sent
    assert msgspec.json.decode(upstream_body(read(body), None))["model"] == "m"


def test_a_long_body_whose_fields_are_others_by_now_is_not_sent_as_it_came():
    request = read(long_body(b',"user":"ann"'))
    replaced = msgspec.structs.replace(request, fields={**request.fields, "user": msgspec.Raw(b'"bob"')})
    assert b'"user":"bob"' in upstream_body(replaced, None)
    request.fields["user"] = msgspec.Raw(b'"eve"')
    assert b'"user":"eve"' in upstream_body(request, None)


def test_a_long_stream_asks_for_usage_all_the_same():
    sent = msgspec.json.decode(upstream_body(read(long_body(b',"stream":true')), None))
    assert sent["stream_options"] == {"include_usage": True}
    asked = long_body(b',"stream":true,"stream_options":{"include_usage":true}')
    assert upstream_body(read(asked), None) is asked


def test_the_model_that_the_path_named_is_in_a_long_body_too():
    body = long_body()
    request = parse(body, id="r", endpoint=Endpoint.CHAT, caller=ANYONE, now=1.0, model="n")
    assert msgspec.json.decode(upstream_body(request, None))["model"] == "n"


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(
    ("content", "rest", "parts"),
    [('"hi"', b"", False), ('[{"type":"text","text":"hi"}]', b"", True), ('"hi"', b',"stop":["a"]', False)],
)
def test_parts_are_in_a_list_inside_the_messages(content, rest, parts, long):
    filler = LONG if long else ""
    body = b'{"model":"m","user":"%b","messages":[{"role":"user","content":%b}]%b}'
    request = read(body % (filler.encode(), content.encode(), rest))
    assert (request.received is not None) == long
    assert has_parts(request) == parts


def test_parts_are_looked_for_in_the_messages_that_a_request_has_by_now():
    request = read(long_body())
    parts = msgspec.Raw(b'[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x/"}}]}]')
    assert has_parts(msgspec.structs.replace(request, fields={**request.fields, "messages": parts}))


def test_a_request_that_forgets_holds_nothing_of_its_body():
    request = read(long_body())
    request.forget()
    assert (request.fields, request.received.body, request.received.fields) == ({}, b"", {})


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_prompts_share_the_hashes_of_what_they_share(length, shared):
    one, two = b"a" * length, b"a" * min(length, shared) + b"b" * (length - min(length, shared))
    same = sum(end <= (length if shared >= length else shared) for end in PREFIX_BYTES)
    hashes, others = prefix_hashes(memoryview(one)), prefix_hashes(memoryview(two))
    assert len(hashes) == sum(end <= length for end in PREFIX_BYTES)
    assert hashes[:same] == others[:same]
    assert set(hashes[same:]).isdisjoint(others[same:])


def event(delta, finish=None, **more):
    return b"data: %b\n\n" % msgspec.json.encode(
        {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    )


@pytest.mark.parametrize(
    ("delta", "meaningful"),
    [
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None, "tool_calls": []}, False),
        ({}, False),
        ({"content": "a"}, True),
        ({"content": [{"type": "text", "text": "a"}]}, True),
        ({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, True),
        ({"reasoning_content": "hm"}, True),
        ({"reasoning": "hm"}, True),
        ({"refusal": "no"}, True),
    ],
)
def test_only_what_says_something_is_a_token(delta, meaningful):
    meter = Meter()
    assert meter.events(event(delta), True) == (event(delta), meaningful)
    assert meter.tokens_seen == meaningful
    assert not meter.complete


def test_comments_are_passed_on_and_are_no_token():
    assert Meter().events(b": ping\n\n", True) == (b": ping\n\n", False)


def test_usage_is_read_wherever_it_comes_and_only_the_extra_event_is_stripped():
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    extra = b"data: %b\n\n" % msgspec.json.encode({"choices": [], "usage": usage})
    meter = Meter()
    assert meter.events(event({"content": "a"}) + extra + b"data: [DONE]\n\n", True) == (
        event({"content": "a"}) + b"data: [DONE]\n\n",
        True,
    )
    assert meter.usage == Usage(9, 3, 4)
    on_last = event({}, "stop", usage=usage)
    assert Meter().events(on_last, True)[0] == on_last
    assert Meter().events(extra, False)[0] == extra


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3}}, Usage(9, 5, 4, 3)),
        ({"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5}, Usage(9, 5, 4)),
        ({"prompt_tokens_details": {"cached_tokens": 2}, "prompt_cache_hit_tokens": 2}, Usage(9, 5, 2)),
        ({"cache_creation_input_tokens": 6, "prompt_tokens_details": None}, Usage(9, 5, 0, 6)),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, Usage(9, 5, reasoning_tokens=2)),
    ],
)
def test_what_has_another_price_is_counted_apart_whoever_names_it(usage, counted):
    usage = {"prompt_tokens": 9, "completion_tokens": 5, **usage}
    in_events, whole = Meter(), Meter()
    in_events.events(b"data: %b\n\n" % msgspec.json.encode({"choices": [], "usage": usage}), True)
    whole.answer(msgspec.json.encode({"choices": [], "usage": usage}))
    assert in_events.usage == whole.usage == counted


def test_an_empty_usage_counts_nothing_and_takes_nothing_back():
    meter = Meter()
    meter.events(event({"content": "a"}, usage={}), True)
    assert meter.usage is None, "then the tokens that came by are the estimate"
    meter.events(event({}, "stop", usage={"prompt_tokens": 9, "completion_tokens": 1}), True)
    meter.events(event({}, None, usage={}), True)
    assert meter.usage == Usage(9, 1)


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        (b'data: {"error":{"message":"boom"}}\n\n', FailureKind.SERVER_ERROR),
        (b"data: {broken\n\n", FailureKind.BAD_PAYLOAD),
        (b'data: "text"\n\n', FailureKind.BAD_PAYLOAD),
        (b'data: {"choices":{}}\n\n', FailureKind.BAD_PAYLOAD),
    ],
)
def test_an_error_inside_a_stream_is_an_error(block, kind):
    with pytest.raises(UpstreamError) as caught:
        Meter().events(block, True)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":{"message":"boom"}}', FailureKind.SERVER_ERROR),
        (b"<html>", FailureKind.BAD_PAYLOAD),
        (b"{}", FailureKind.BAD_PAYLOAD),
    ],
)
def test_an_error_with_status_200_is_an_error(body, kind):
    with pytest.raises(UpstreamError) as caught:
        Meter().answer(body)
    assert caught.value.kind is kind


def test_what_the_upstream_did_not_count_is_an_estimate_that_says_so():
    meter = Meter()
    assert meter.billed(read(chat())) == (Usage(), UsageSource.NONE)
    meter.events(event({"content": "a"}) + event({"content": "b"}), True)
    usage, source = meter.billed(read(chat()))
    assert (usage.completion_tokens, source) == (2, UsageSource.ESTIMATE)


@given(st.lists(st.integers(1, 2000), max_size=30))
def test_the_meter_sees_the_same_stream_however_it_is_cut(places):
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    whole = (
        event({"role": "assistant", "content": ""})
        + event({"content": "é\n\n\\n"})
        + b": ping\n\n"
        + event({}, "stop")
        + b"data: %b\n\n" % msgspec.json.encode({"choices": [], "usage": usage})
        + b"data: [DONE]\n\n"
    )
    cutter, meter, out = EventCutter(), Meter(), b""
    edges = [0, *sorted(p % len(whole) for p in places), len(whole)]
    for a, b in pairwise(edges):
        block = cutter.feed(whole[a:b]) if a != b else b""
        if block:
            out += meter.events(block, True)[0]
    assert b"usage" not in out
    assert out.count(b"data: ") == 4
    assert (meter.usage, meter.finish_reason, meter.done, meter.tokens_seen) == (Usage(9, 3), "stop", True, 1)
