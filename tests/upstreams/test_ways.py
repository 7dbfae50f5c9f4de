"""Tables of ways: what each of them sends, under whose authorization, and what is loaded for it."""

import subprocess
import sys

import msgspec
import pytest
from msgspec import structs

from penstock.config.providers import COMPATIBLE, OF_ANTHROPIC
from penstock.core.clock import ManualClock
from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.request import ANYONE, Endpoint
from penstock.upstreams import anthropic, bedrock, gemini, openai
from penstock.upstreams.credentials import bearer
from penstock.upstreams.http_upstream import HttpUpstream
from penstock.upstreams.way import Terms
from penstock.wire import anthropic as messages
from penstock.wire import openai_chat, openai_more, responses

CLOCK = ManualClock()
NATIVE = (*COMPATIBLE, *OF_ANTHROPIC, Endpoint.RESPONSES, Endpoint.INPUT_TOKENS)
TERMS = Terms(CLOCK, "/v1", "us.a/b:c", native=NATIVE, betas=("known-1",))
TABLES = {
    "openai": openai.ways(structs.replace(TERMS, query="?api-version=1")),
    "openai, translated": openai.ways(structs.replace(TERMS, native=(Endpoint.CHAT,), quirks=("counts_messages",))),
    "anthropic": anthropic.ways(TERMS),
    "converse": bedrock.converse_ways(TERMS),
    "invoke": bedrock.invoke_ways(TERMS),
    "gemini": gemini.gemini_ways(TERMS),
    "vertex-anthropic": gemini.claude_ways(TERMS),
}
EVERY_WAY = [
    pytest.param(table, endpoint, stream, id=f"{name}-{endpoint}-{'stream' if stream else 'plain'}")
    for name, table in TABLES.items()
    for endpoint in table
    for stream in (False, True)
]
FORM = b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nchat\r\n--X--\r\n'
CHAT = {"model": "chat", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
BODIES = {
    Endpoint.COMPLETION: {"model": "chat", "prompt": "x"},
    Endpoint.RERANK: {"model": "chat", "query": "x", "documents": ["y"]},
    Endpoint.DETOKENIZE: {"model": "chat", "tokens": [1]},
    Endpoint.IMAGE: {"model": "chat", "prompt": "x"},
    Endpoint.TOKENIZE: {"model": "chat", "prompt": "x"},
}


class Untraced:
    """A listener that is never told anything."""

    def traceparent(self) -> bytes:
        return b""


def asked(endpoint, stream=False, betas=()):
    """A request as its caller's dialect parses it."""
    known = {"id": "req_1", "endpoint": endpoint, "caller": ANYONE, "now": 0.0}
    if endpoint in openai_more.MULTIPART:
        form = openai_more.parse_form(FORM, b"multipart/form-data; boundary=X", **known)
        return structs.replace(form, stream=stream)
    if endpoint in (Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.COUNT_TOKENS):
        fields, parse = CHAT, openai_chat.parse if endpoint is Endpoint.CHAT else messages.parse
    elif endpoint is Endpoint.COMPLETION:
        fields, parse = BODIES[endpoint], openai_chat.parse
    elif endpoint in (Endpoint.RESPONSES, Endpoint.INPUT_TOKENS):
        fields, parse = {"model": "chat", "input": "x"}, responses.parse
    else:
        fields, parse = BODIES.get(endpoint, {"model": "chat", "input": "x", "voice": "alloy"}), openai_more.parse
    request = parse(msgspec.json.encode(fields | ({"stream": True} if stream else {})), **known)
    return structs.replace(request, betas=betas)


class Transport:
    """Keeps what it was to send."""

    host = b"up:1"
    sent = None

    def send(self, prefix, extra, body, receiver):
        self.sent = prefix, extra, body
        return self

    def close(self):
        """Nothing was opened."""


class Signs:
    """A signature over the path and the body."""

    constant = None

    async def prepare(self):
        """There is nothing to fetch."""

    def headers(self, path, body):
        return b"signature: %s %d\r\n" % (path.encode(), hash(body))

    def close(self):
        """There is nothing to stop."""


class Expired(Signs):
    def headers(self, path, body):
        raise UpstreamError(FailureKind.AUTH, "our credential has expired")


def sent(table, request, authorization):
    transport = Transport()
    stream = HttpUpstream(transport, CLOCK, table, authorization).open(request, Untraced(), 0.0)
    prefix, extra, body = transport.sent
    return prefix, extra, body, stream


@pytest.mark.parametrize(("table", "endpoint", "stream"), EVERY_WAY)
def test_whatever_is_asked_is_signed_as_it_goes_out(table, endpoint, stream):
    prefix, extra, body, _ = sent(table, asked(endpoint, stream), Signs())
    path = prefix.split(b" ")[1]
    assert extra.count(b"signature: ") == 1
    assert b"signature: %s %d\r\n" % (path, hash(body)) in extra


@pytest.mark.parametrize(("table", "endpoint", "stream"), EVERY_WAY)
def test_lines_that_never_change_stand_in_the_prefix_and_each_header_goes_out_once(table, endpoint, stream):
    prefix, extra, _, _ = sent(table, asked(endpoint, stream), bearer("sk-1"))
    assert b"authorization: Bearer sk-1\r\n" in prefix
    request_line, *lines, end = (prefix + extra).split(b"\r\n")
    assert request_line.startswith(b"POST /")
    assert end == b""
    names = [line.partition(b": ")[0] for line in lines]
    assert len(set(names)) == len(names)
    assert {b"host", b"user-agent", b"content-type", b"authorization"} <= {*names}


def test_without_a_valid_credential_nothing_is_sent():
    transport = Transport()
    upstream = HttpUpstream(transport, CLOCK, TABLES["anthropic"], Expired())
    with pytest.raises(UpstreamError, match="expired"):
        upstream.open(asked(Endpoint.MESSAGES), Untraced(), 0.0)
    assert transport.sent is None


@pytest.mark.parametrize(
    ("name", "path", "stream_path"),
    [
        ("openai", b"/v1/chat/completions?api-version=1", b"/v1/chat/completions?api-version=1"),
        ("converse", b"/v1/model/us.a%2Fb%3Ac/converse", b"/v1/model/us.a%2Fb%3Ac/converse-stream"),
        ("invoke", b"/v1/model/us.a%2Fb%3Ac/invoke", b"/v1/model/us.a%2Fb%3Ac/invoke-with-response-stream"),
        ("gemini", b"/v1/us.a/b%3Ac:generateContent", b"/v1/us.a/b%3Ac:streamGenerateContent?alt=sse"),
        ("vertex-anthropic", b"/v1/models/us.a%2Fb%3Ac:rawPredict", b"/v1/models/us.a%2Fb%3Ac:streamRawPredict"),
    ],
)
def test_a_stream_is_asked_for_where_the_provider_has_it(name, path, stream_path):
    for stream, expected in ((False, path), (True, stream_path)):
        prefix, _, _, _ = sent(TABLES[name], asked(Endpoint.CHAT, stream), bearer("sk-1"))
        assert prefix.startswith(b"POST " + expected + b" HTTP/1.1\r\n")


@pytest.mark.parametrize("name", ["openai", "anthropic", "invoke", "vertex-anthropic"])
def test_a_flag_that_is_not_listed_stays_here_and_is_told_as_lost(name):
    request = asked(Endpoint.MESSAGES, betas=("known-1", "other-2"))
    _, extra, body, stream = sent(TABLES[name], request, bearer("sk-1"))
    assert stream.lost == ("anthropic-beta.other-2",)
    assert b"other-2" not in extra + body
    if name == "invoke":
        assert msgspec.json.decode(body)["anthropic_beta"] == ["known-1"]
    else:
        assert b"anthropic-beta: known-1\r\n" in extra


@pytest.mark.parametrize("build", [bedrock.converse_ways, bedrock.invoke_ways, gemini.gemini_ways, gemini.claude_ways])
def test_a_path_that_names_the_model_needs_its_name(build):
    with pytest.raises(ValueError, match="served"):
        build(structs.replace(TERMS, served=None))


def test_a_gateway_loads_no_dialect_that_none_of_its_deployments_speaks():
    code = """
import sys
import penstock.app.serve
from penstock.config.spec import DeploymentSpec, ReplicaSpec
from penstock.core.clock import SystemClock
from penstock.gateway.ways import ways_of

def loaded():
    return " ".join(sorted(name for name in ("bedrock", "gemini") if f"penstock.upstreams.{name}" in sys.modules))

spec = DeploymentSpec("main", "m", (ReplicaSpec("a", "http://a"),))
ways_of(spec, spec.replicas[0], SystemClock())
print(f"[{loaded()}]", [name for name in sys.modules if name in (
    "penstock.wire.converse", "penstock.wire.gemini", "penstock.wire.hosted_claude", "penstock.wire.openapi")])
spec = DeploymentSpec("main", "m", (ReplicaSpec("a", "http://a"),), dialect="converse")
ways_of(spec, spec.replicas[0], SystemClock())
print(f"[{loaded()}]")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["[] []", "[bedrock]"]
