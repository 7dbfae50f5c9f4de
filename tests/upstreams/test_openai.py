"""The adapter against a hand-held transport: what each ending means."""

import gzip

import msgspec
import pytest

from penstock.config.providers import COMPATIBLE
from penstock.core.clock import ManualClock
from penstock.core.errors import FailureKind, Said
from penstock.core.outcome import UsageSource
from penstock.testing.fake_upstream import ANSWER, DONE, ROLE, STOP, TOKEN, USAGE, Fault
from penstock.upstreams import answer, openai
from penstock.upstreams.credentials import bearer, nobody
from penstock.upstreams.http_upstream import HttpUpstream
from penstock.upstreams.way import Terms
from tests.worlds import PLAIN, STREAM, request


class Transport:
    """Keeps the receiver, so that the test can be the network."""

    host = b"up:1"

    def __init__(self):
        self.closed = 0

    def send(self, prefix, extra, body, receiver):
        self.prefix, self.body, self.receiver = prefix, body, receiver
        return self

    def close(self):
        self.closed += 1


class Caller:
    """Listener and sink at once."""

    def __init__(self):
        self.heard, self.got, self.end = [], b"", "not yet"

    def traceparent(self):
        return b""

    def on_first_token(self):
        self.heard.append("first token")

    def on_failed(self, failure):
        self.heard.append(failure)

    def on_events(self, block):
        self.got += block

    def on_end(self, failure):
        assert self.end == "not yet"
        self.end = failure


def opened(body=STREAM, **more):
    transport, caller = Transport(), Caller()
    options = {"base_path": "/v1", "served": "served", "secret": "sk-1"} | more
    clock = ManualClock()
    secret = options.pop("secret")
    authorization = nobody() if secret is None else bearer(secret)
    ways = openai.ways(Terms(clock, native=COMPATIBLE, **options))
    stream = HttpUpstream(transport, clock, ways, authorization).open(request(body), caller, 0.0)
    return transport, caller, stream


def feed(transport, *blocks, status=200, headers=(), ended=True):
    transport.receiver.on_head(status, list(headers))
    for block in blocks:
        transport.receiver.on_data(block, False)
    if ended:
        transport.receiver.on_data(b"", True)


def test_the_request_goes_out_under_our_credential_and_the_upstreams_name():
    transport, _, _ = opened()
    assert transport.prefix.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: up:1\r\n")
    assert b"authorization: Bearer sk-1\r\n" in transport.prefix
    assert msgspec.json.decode(transport.body)["model"] == "served"


def test_without_a_served_name_the_callers_own_goes_out():
    transport, _, _ = opened(served=None, secret=None)
    assert msgspec.json.decode(transport.body)["model"] == "chat"
    assert b"authorization" not in transport.prefix


def test_nothing_is_heard_before_the_first_token_and_then_all_of_it():
    transport, caller, stream = opened()
    feed(transport, b": ping\n\n", ROLE, ended=False)
    assert caller.heard == []
    transport.receiver.on_data(TOKEN, False)
    assert caller.heard == ["first token"]
    transport.receiver.on_data(TOKEN, False)
    stream.relay(caller)
    assert caller.got == b": ping\n\n" + ROLE + TOKEN + TOKEN
    transport.receiver.on_data(STOP + USAGE % (2, 11) + DONE, True)
    assert caller.got.endswith(TOKEN + STOP + DONE)
    assert caller.end is None
    assert stream.usage()[0].completion_tokens == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REJECTED),
        (401, FailureKind.AUTH),
        (403, FailureKind.AUTH),
        (404, FailureKind.MISCONFIGURED),
        (422, FailureKind.REJECTED),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.SERVER_ERROR),
        (503, FailureKind.OVERLOADED),
        (529, FailureKind.OVERLOADED),
        (302, FailureKind.BAD_PAYLOAD),
    ],
)
def test_every_status_has_its_meaning(status, kind):
    transport, caller, _ = opened()
    feed(transport, b'{"error":{"message":"why"}}', status=status)
    (failure,) = caller.heard
    assert failure.kind is kind


@pytest.mark.parametrize(
    ("kind", "means"),
    [
        ("connect", FailureKind.CONNECT),
        ("dns", FailureKind.CONNECT),
        ("tls", FailureKind.CONNECT),
        ("connect_timeout", FailureKind.CONNECT_TIMEOUT),
        ("reset", FailureKind.NETWORK),
        ("eof", FailureKind.NETWORK),
        ("protocol", FailureKind.BAD_PAYLOAD),
    ],
)
def test_every_fault_of_the_transport_has_its_meaning(kind, means):
    transport, caller, _ = opened()
    transport.receiver.on_failure(Fault(kind))
    (failure,) = caller.heard
    assert failure.kind is means


@pytest.mark.parametrize("last", [STOP + DONE[:-1], STOP + DONE[:-2], STOP[:-1], STOP + DONE[:-2] + b"\r"])
def test_a_last_blank_line_that_is_missing_is_forgiven(last):
    transport, caller, stream = opened()
    feed(transport, ROLE + TOKEN + last)
    stream.relay(caller)
    assert (caller.got, caller.end) == (ROLE + TOKEN + STOP + DONE, None)


def test_a_first_token_may_be_large_though_what_comes_before_it_may_not(monkeypatch):
    monkeypatch.setattr(answer, "MAX_HELD_BYTES", 1000)
    large = TOKEN.replace(b" hi", b"x" * 5000)
    transport, caller, stream = opened()
    feed(transport, large + STOP + DONE)
    stream.relay(caller)
    assert (caller.got, caller.end) == (large + STOP + DONE, None)


@pytest.mark.parametrize(
    "blocks",
    [
        (),
        (b": ping\n\n",),
        (ROLE,),
        (TOKEN,),
        (TOKEN, b'data: {"choices":[{"in'),
        (TOKEN + TOKEN,),
        (STOP[:-8],),
        (TOKEN.replace(b'"index":0', b'"index":1') + STOP,),
    ],
)
def test_a_clean_end_without_the_terminal_event_is_truncated(blocks):
    transport, caller, stream = opened()
    feed(transport, *blocks)
    stream.relay(caller)
    failure = caller.end if caller.heard == ["first token"] else caller.heard[0]
    assert failure.kind is FailureKind.TRUNCATED


def test_servers_that_never_say_done_are_completed_with_it():
    transport, caller, stream = opened()
    feed(transport, TOKEN, STOP)
    stream.relay(caller)
    assert caller.got == TOKEN + STOP + DONE
    assert caller.end is None


def test_how_the_connection_ends_after_the_whole_answer_does_not_matter():
    transport, caller, stream = opened()
    feed(transport, TOKEN, STOP + DONE, ended=False)
    transport.receiver.on_failure(Fault("reset"))
    stream.relay(caller)
    assert caller.end is None


@pytest.mark.parametrize("kind", [b"text/html", b"application/json"])
def test_a_page_is_not_a_stream(kind):
    transport, caller, _ = opened()
    feed(transport, b"<html>", headers=((b"content-type", kind),))
    (failure,) = caller.heard
    assert failure.kind is FailureKind.BAD_PAYLOAD


def test_an_error_event_before_the_first_token_can_be_retried_and_after_it_is_told():
    error = b'data: {"error":{"message":"out of memory on gpu-7"}}\n\n'
    transport, caller, _ = opened()
    feed(transport, ROLE, error, ended=False)
    assert caller.heard[0].kind is FailureKind.SERVER_ERROR
    transport, caller, stream = opened()
    feed(transport, TOKEN, ended=False)
    stream.relay(caller)
    transport.receiver.on_data(error, False)
    assert caller.end.kind is FailureKind.SERVER_ERROR
    assert caller.got == TOKEN, "what the upstream said of its insides stays with us"


def test_who_talks_without_saying_anything_is_given_up(monkeypatch):
    monkeypatch.setattr(answer, "MAX_HELD_BYTES", 1000)
    transport, caller, _ = opened()
    feed(transport, *[ROLE] * 20, ended=False)
    assert caller.heard[0].kind is FailureKind.BAD_PAYLOAD


def test_an_answer_without_usage_is_estimated_and_says_so():
    transport, _, stream = opened(PLAIN)
    feed(transport, (ANSWER % (5, 14)).replace(b'"usage"', b'"other"'))
    usage, source = stream.usage()
    assert source is UsageSource.ESTIMATE
    assert usage.completion_tokens > 0


def test_only_the_four_fields_of_an_upstreams_error_are_passed_on():
    transport, caller, _ = opened()
    said = b'{"error":{"message":"too long","code":"context_length_exceeded","param":"messages","host":"gpu-7"}}'
    feed(transport, said, status=400)
    assert caller.heard[0].kind is FailureKind.CONTEXT_LENGTH
    assert caller.heard[0].said == Said("too long", None, "messages", "context_length_exceeded")


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (400, {"message": "the maximum context length is 4096"}, "context_length", "context_length_exceeded"),
        (400, {"message": "no", "code": "content_policy_violation"}, "content_policy", "content_policy_violation"),
        (400, {"message": "no", "code": "content_filter"}, "content_policy", "content_filter"),
        (400, {"message": "bad tool", "code": None}, "rejected", None),
        (429, {"message": "pay", "code": "insufficient_quota"}, "quota", None),
        (429, {"message": "slow", "code": "rate_limit"}, "rate_limited", None),
        (402, {"message": "pay"}, "quota", None),
    ],
)  # fmt: skip
def test_what_a_refusal_is_about_is_read_from_its_words(status, error, kind, code):
    transport, caller, _ = opened()
    feed(transport, msgspec.json.encode({"error": error}), status=status)
    (failure,) = caller.heard
    assert failure.kind == kind
    assert (failure.said is None) == (kind in ("quota", "rate_limited"))
    assert failure.said is None or failure.said.code == code


def test_a_compressed_answer_is_read_though_nobody_asked_for_it():
    transport, caller, stream = opened()
    squeezed = gzip.compress(ROLE + TOKEN + STOP + DONE)
    halves = (squeezed[:20], squeezed[20:])
    feed(transport, *halves, headers=[(b"content-encoding", b"gzip"), (b"content-type", b"text/event-stream")])
    stream.relay(caller)
    assert (caller.got, caller.end) == (ROLE + TOKEN + STOP + DONE, None)


def test_a_compressed_answer_that_ends_too_early_or_is_a_bomb_fails(monkeypatch):
    monkeypatch.setattr(answer, "MAX_ANSWER_BYTES", 1000)
    for body, kind in (
        (gzip.compress(TOKEN)[:-4], FailureKind.TRUNCATED),
        (b"not gzip", FailureKind.BAD_PAYLOAD),
        (gzip.compress(b" " * 100_000), FailureKind.BAD_PAYLOAD),
    ):
        transport, caller, _ = opened(PLAIN)
        feed(transport, body, headers=[(b"content-encoding", b"gzip")])
        assert caller.heard[0].kind is kind


def test_what_follows_the_terminal_event_is_not_passed_on():
    transport, caller, stream = opened()
    feed(transport, ROLE + TOKEN + STOP + DONE + DONE, DONE)
    stream.relay(caller)
    assert (caller.got, caller.end) == (ROLE + TOKEN + STOP + DONE, None)


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"3", 3.0), (b"0.5", 0.5), (b"soon", None), (b"-1", None), (b"nan", None), (b"1e9", None)]
)
def test_retry_after_is_read_as_seconds_or_not_at_all(value, seconds):
    transport, caller, _ = opened()
    feed(transport, b"{}", status=429, headers=((b"retry-after", value),))
    assert caller.heard[0].retry_after == seconds


def test_closing_again_is_harmless_and_nothing_is_heard_afterwards():
    transport, caller, stream = opened()
    stream.close()
    stream.close()
    assert transport.closed == 1
    feed(transport, TOKEN)
    assert caller.heard == []


def test_a_credential_that_would_split_the_head_is_refused():
    with pytest.raises(ValueError, match="printable"):
        opened(secret="sk-1\r\nx: y")
