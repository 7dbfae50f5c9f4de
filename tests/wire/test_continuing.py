"""What is remembered of an answer, what is asked of whoever goes on with it, and what of that is told."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.core.errors import UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import ANYONE, Endpoint, Usage
from penstock.wire import continuing, openai_chat, openai_more
from penstock.wire.readings import Passing
from penstock.wire.so_far import SoFar, begin, goes_on

decode, encode = msgspec.json.decode, msgspec.json.encode
TOKENS, VLLM, MISTRAL = ("resume_token_ids",), ("continue_final_message",), ("prefix",)
HEAD = {"id": msgspec.Raw(b'"first"'), "created": msgspec.Raw(b"1"), "model": msgspec.Raw(b'"m"')}


def request(endpoint=Endpoint.CHAT, **fields):
    prompt = {"prompt": "hi"} if endpoint is Endpoint.COMPLETION else {"messages": [{"role": "user", "content": "hi"}]}
    body = encode({"model": "m", "stream": True} | prompt | fields)
    return openai_chat.parse(body, id="r", endpoint=endpoint, caller=ANYONE, now=0.0)


def reading(so_far, quirks=TOKENS, asked=None):
    _, reading = continuing.ask(asked or request(), so_far, None, quirks, ask_usage=True)
    return reading


def asked_for(so_far, quirks=TOKENS, asked=None):
    body, _ = continuing.ask(asked or request(), so_far, msgspec.Raw(b'"served"'), quirks, ask_usage=True)
    return decode(body)


def event(content=None, ids=None, finish=None, id="later", role=None, usage=None, **delta):
    delta |= ({} if content is None else {"content": content}) | ({"role": role} if role else {})
    choice = {"index": 0, "delta": delta, "finish_reason": finish} | ({} if ids is None else {"token_ids": ids})
    body = {"id": id, "created": 2, "model": "m", "choices": [choice] if usage is None else []}
    return b"data: %b\n\n" % encode(body | ({} if usage is None else {"usage": usage}))


def contents(told):
    lines = [decode(line[6:]) for line in told.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(line["choices"][0]["delta"].get("content", "") for line in lines if line["choices"])


# --- which answers ---------------------------------------------------------------------------------------------------


def user(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("fields", "tokens", "text"),
    [
        ({}, True, True),
        ({"n": 1, "tools": [], "logprobs": False, "response_format": {"type": "text"}, "seed": 1}, True, True),
        ({"messages": [user([{"type": "text", "text": "hi"}])]}, True, True),
        ({"messages": [user("a"), {"role": "assistant", "content": "b"}]}, True, False),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}])]}, True, False),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}, user("x")]}, True, False),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}, user("x")]}, True, False),
        ({"messages": [7]}, True, False),
        ({"tools": [{"type": "function"}]}, True, False),
        ({"response_format": {"type": "json_object"}}, True, False),
        ({"logprobs": True}, True, False),
        ({"reasoning_effort": "low"}, True, False),
        ({"unheard_of": 1}, True, False),
        ({"n": 2}, False, False),
        ({"resume_token_ids": [1]}, False, False),
        ({"stream": False}, False, False),
    ],
)
def test_an_answer_is_gone_on_with_only_where_that_changes_nothing(fields, tokens, text):
    assert (begin(request(**fields), "continue", 7) is not None) is tokens
    assert (begin(request(**fields), "prefix", 7) is not None) is text


def test_other_endpoints_are_not_gone_on_with():
    assert begin(request(Endpoint.COMPLETION), "continue", 7) == SoFar("continue", 7)
    assert begin(request(Endpoint.COMPLETION), "prefix", 7) is None
    speech = openai_more.parse(
        b'{"model":"m","input":"x","stream":true}', id="r", endpoint=Endpoint.SPEECH, caller=ANYONE, now=0.0
    )
    assert begin(speech, "continue", 7) is None
    assert begin(speech, "prefix", 7) is None


EMPTY, DEEP, NO_TEXT = b"[" + b" " * 40 + b"]", b"[" * 5000 + b"]" * 5000, b'[{"role":"\xff","content":""}]'


@pytest.mark.parametrize("messages", [EMPTY, DEEP, NO_TEXT])
def test_any_messages_are_read_or_left_alone(messages):
    asked = request()
    asked.fields["messages"] = msgspec.Raw(messages)
    assert begin(asked, "prefix", 7) is None


def test_quirks_say_who_could_go_on():
    assert goes_on(Endpoint.CHAT, TOKENS) == {"continue"}
    assert goes_on(Endpoint.COMPLETION, TOKENS) == {"continue"}
    for quirk in ("continue_final_message", "prefix", "prefill"):
        assert goes_on(Endpoint.CHAT, (quirk,)) == {"prefix"}
        assert goes_on(Endpoint.COMPLETION, (quirk,)) == set()
    assert goes_on(Endpoint.CHAT, ("strict",)) == set()


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_tokens_are_asked_for_from_the_first_attempt_on_and_sent_to_the_next():
    known = {"model", "stream", "messages", "stream_options"}
    assert asked_for(SoFar("continue", 7)).keys() - known == {"return_token_ids", "seed"}
    later = asked_for(SoFar("continue", 7, HEAD, tokens=(3, 4)))
    assert (later["resume_token_ids"], later["seed"], later["model"]) == ([3, 4], 7, "served")
    assert asked_for(SoFar("continue", 7), asked=request(seed=0))["seed"] == 0


def test_both_limits_shrink_by_what_was_told():
    so_far = SoFar("prefix", 0, HEAD, text="one two", usage=Usage(9, 5), source=UsageSource.ESTIMATE)
    sent = asked_for(so_far, VLLM, request(max_tokens=8, max_completion_tokens=20))
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (3, 15)
    assert "max_tokens" not in asked_for(so_far, VLLM)


# --- what is told ----------------------------------------------------------------------------------------------------

anything = st.text(max_size=8) | st.sampled_from(
    ['"token_ids":[1,2],', ',"token_ids":[1]', '\\","token_ids":[3],"', "é😀", "\\"]
)


@given(st.lists(st.tuples(anything.filter(bool), st.lists(st.integers(0, 99), max_size=3)), min_size=1, max_size=6))
def test_tokens_are_kept_and_not_told_whatever_the_text_looks_like(pieces):
    whole = b"".join(event(text, id="first") for text, _ in pieces)
    this = reading(SoFar("continue"))
    told = b"".join(this.feed(event(text, ids, id="first"))[0] for text, ids in pieces)
    assert told == whole
    assert this.so_far(request()).tokens == tuple(token for _, ids in pieces for token in ids)


def test_tokens_are_told_to_whoever_asked():
    this = reading(SoFar("continue"), asked=request(return_token_ids=True))
    assert this.feed(event("a", [1])) == (event("a", [1]), True)


def test_of_a_read_with_an_error_in_it_nothing_is_told_and_nothing_is_kept():
    """Or the next attempt would go on from what the caller never got."""
    this = reading(SoFar("continue"))
    this.feed(event("a", [1]))
    with pytest.raises(UpstreamError):
        this.feed(event("b", [2]) + b'data: {"error":{"message":"no"}}\n\n')
    assert this.so_far(request()).tokens == (1,)


def test_an_event_without_its_blank_line_is_not_kept():
    this = reading(SoFar("continue"))
    this.feed(event("a", [1]) + event("b", [2])[:-1])
    with pytest.raises(UpstreamError):
        this.ended()
    assert this.so_far(request()).tokens == (1,)


def test_who_goes_on_speaks_under_the_first_ones_name_and_without_a_role():
    this = reading(SoFar("continue", 0, HEAD, tokens=(1,)))
    told, meaningful = this.feed(event("", role="assistant") + b": ping\n\n")
    assert (told, meaningful) == (b": ping\n\n", False)
    told, meaningful = this.feed(event("b", [2], role="assistant"))
    assert decode(told[6:]) == {
        "id": "first",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": None}],
    }
    assert meaningful
    assert this.so_far(request()) == SoFar("continue", 0, HEAD, tokens=(1, 2))


def test_an_answer_is_kept_only_as_far_as_its_tokens_are_known():
    this = reading(SoFar("continue"))
    this.feed(event("a", [1]) + event("b"))
    assert this.so_far(request()) is None
    other = reading(SoFar("continue"))
    other.feed(event("a", [1]).replace(b'"index":0', b'"index":1'))
    assert other.so_far(request()) is None
    odd = reading(SoFar("continue"))
    odd.feed(event("a", ["x"]))
    assert odd.so_far(request()) is None


def test_an_endless_answer_is_forgotten():
    known = tuple(range(continuing.MAX_TOKENS - 2))
    tokens, text = reading(SoFar("continue", 0, HEAD, tokens=known)), reading(SoFar("prefix"), VLLM)
    tokens.feed(event("a", [1, 2]))
    text.feed(event("a" * continuing.MAX_TEXT))
    assert tokens.so_far(request()).tokens == (*known, 1, 2)
    assert len(text.so_far(request()).text) == continuing.MAX_TEXT
    tokens.feed(event("a", [9]))
    text.feed(event("a"))
    assert tokens.so_far(request()) is text.so_far(request()) is None


def test_a_whole_answers_usage_counts_it_once_and_until_then_its_tokens_are_counted():
    this = reading(SoFar("continue", 0, HEAD, tokens=(1, 2)))
    this.feed(event("b", [3, 4]))
    assert this.billed(request()) == (Usage(request().prompt_tokens, 4), UsageSource.ESTIMATE)
    this.feed(event(usage={"prompt_tokens": 8, "completion_tokens": 4}) + b"data: [DONE]\n\n")
    assert this.billed(request()) == (Usage(8, 4), UsageSource.PROVIDER)


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30), st.data())
@example("one two ", "three", None)
def test_what_an_upstream_says_again_is_told_once_in_any_pieces(text, rest, data):
    said = text + rest
    cuts = [] if data is None else sorted(data.draw(st.sets(st.integers(1, len(said) - 1), max_size=6)))
    pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    before = SoFar("prefix", 0, HEAD, text=text, usage=Usage(1, 1), source=UsageSource.ESTIMATE)
    this = reading(before, MISTRAL)
    told = b"".join(this.feed(event(piece))[0] for piece in pieces)
    assert contents(told) == rest
    if "<think>" not in said:
        assert this.so_far(request()).text == said


@pytest.mark.parametrize(
    ("pieces", "rest"),
    [
        (["one two", "three"], "three"),  # white space at the end is not sent again
        (["one two", " three"], "three"),  # Mistral moves it to what follows
        ([" three"], " three"),  # and some say nothing again
        (["one", " more"], "one more"),  # or begin as if they did
    ],
)
def test_who_does_not_say_it_all_again_loses_nothing(pieces, rest):
    before = SoFar("prefix", 0, HEAD, text="one two ", usage=Usage(1, 1), source=UsageSource.ESTIMATE)
    this = reading(before, MISTRAL)
    assert contents(b"".join(this.feed(event(piece))[0] for piece in pieces)) == rest


def test_an_answer_that_ends_while_it_seems_to_be_said_again_loses_nothing():
    before = SoFar("prefix", 0, HEAD, text="one two", usage=Usage(1, 1), source=UsageSource.ESTIMATE)
    this = reading(before, MISTRAL)
    told = this.feed(event("one"))[0] + this.feed(event(finish="stop"))[0]
    assert contents(told) == "one"
    assert b'"stop"' in told


@pytest.mark.parametrize(
    "said",
    [
        event(finish="stop"),
        event("a", reasoning_content="hm"),
        event(tool_calls=[{"index": 0}]),
        event("<think>"),
        event("a").replace(b'"index":0', b'"index":0,"logprobs":{"content":[1]}'),
        event(content=[{"type": "text"}]),
    ],
)
def test_what_is_not_text_alone_is_not_gone_on_with(said):
    this = reading(SoFar("prefix"), VLLM)
    this.feed(event("a", role="assistant"))
    assert this.so_far(request()).text == "a"
    this.feed(said)
    assert this.so_far(request()) is None


def test_nobody_goes_on_when_no_tokens_are_left():
    this = reading(SoFar("prefix"), VLLM)
    this.feed(event("a") + event("b"))
    assert this.so_far(request(max_tokens=3)).usage.completion_tokens == 2
    assert this.so_far(request(max_tokens=2)) is None


def test_the_sum_of_two_attempts_is_as_certain_as_the_less_certain_one():
    before = SoFar("prefix", 0, HEAD, text="a", usage=Usage(9, 2), source=UsageSource.PROVIDER_PARTIAL)
    this = reading(before, VLLM)
    assert this.billed(request()) == (Usage(9, 2), UsageSource.PROVIDER_PARTIAL)
    this.feed(event("b"))
    prompt = request().prompt_tokens
    assert this.billed(request()) == (Usage(9 + prompt + 2, 3), UsageSource.ESTIMATE)
    this.feed(event(finish="stop") + event(usage={"prompt_tokens": 11, "completion_tokens": 1}) + b"data: [DONE]\n\n")
    assert this.billed(request()) == (Usage(20, 3), UsageSource.PROVIDER_PARTIAL)


def test_an_upstream_that_knows_no_tokens_is_read_as_always():
    this = reading(SoFar("continue", 7), ("strict",))
    assert type(this) is Passing
