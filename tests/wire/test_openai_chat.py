"""Requests in, and what the meter makes of answers."""

from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, FailureKind, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import ANYONE, Endpoint, Usage
from penstock.wire.openai_chat import Meter, parse, upstream_body
from penstock.wire.prompts import BLOCK_BYTES
from penstock.wire.sse import EventCutter


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
    long = "x" * (3 * BLOCK_BYTES)
    one = read(chat(messages=[{"role": "system", "content": long}, {"role": "user", "content": "a" * BLOCK_BYTES}]))
    two = read(chat(messages=[{"role": "system", "content": long}, {"role": "user", "content": "b" * BLOCK_BYTES}]))
    assert one.prefix_hashes[:3] == two.prefix_hashes[:3]
    assert one.prefix_hashes[3:] != two.prefix_hashes[3:]


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
