"""A real server, a receiver of OTLP behind a real HTTP server, and secrets planted wherever somebody could put one."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from penstock.app.otlp_post import OtlpPost
from penstock.app.serve import ServeOptions
from penstock.core.keys import digest
from penstock.telemetry.options import Exporter
from tests.app.driver import Running, chat_bytes, request, serving
from tests.app.fake_engine import FakeEngine
from tests.app.test_serve import reload
from tests.canaries import HEADER, KEY, PROMPT, SECRET


class Receiver:
    """What an OTLP collector is: POST /v1/traces, gzip, protobuf. Answers with `statuses`, then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.bytes = b""
        self.port = 0

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @contextmanager
    def listening(self) -> Iterator[str]:
        place = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
                status = place.statuses.pop(0) if place.statuses else 200
                if status == 200:
                    said = ExportTraceServiceRequest()
                    said.ParseFromString(body)
                    place.requests.append(said)
                    place.headers.append({name.lower(): value for name, value in self.headers.items()})
                    place.bytes += body
                assert self.path == "/v1/traces"
                self.send_response(status)
                self.send_header("content-length", "2")
                self.send_header("retry-after", "0")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *about: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.port = server.server_address[1]
        try:
            yield f"http://127.0.0.1:{self.port}/v1/traces"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def run(story: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


def config(engine: FakeEngine, telemetry: str, *, log: Path | str = "off", more: str = "", key: str = "") -> str:
    credential = f", key: {key}" if key else ""
    return (
        "models: { chat: { deployments: [local] } }\n"
        f"deployments: {{ local: {{ engine: [{engine.address}], served: small{credential} }} }}\n"
        f"server: {{ port: 0, drain: 20s, access_log: {log} }}\n{telemetry}\n{more}"
    )


def test_every_request_is_a_tree_at_a_real_receiver_in_the_names_of_its_dialect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTLP_AUTH", "Basic cGstbGY6c2stbGY=")
    receiver = Receiver()

    async def story() -> None:
        async with FakeEngine("one") as engine:
            with receiver.listening() as endpoint:
                telemetry = (
                    f"telemetry:\n  traces:\n    here:\n      endpoint: {endpoint}\n      dialect: langfuse\n"
                    "      headers: { Authorization: env:OTLP_AUTH, x-project: mine }\n"
                    "  sampling: { ratio: 100% }\n  service: gateway\n  environment: test\n"
                )

                async def use(server: Running) -> None:
                    assert (await request(server.port, chat_bytes(stream=True)))[0] == 200
                    assert (await server.chat())[0] == 200
                    assert (await server.chat(model="nobody"))[0] == 404

                code, _ = await serving(ServeOptions(config_text=config(engine, telemetry)), use)
                assert code == 0

    run(story)
    assert receiver.headers[0]["authorization"] == "Basic cGstbGY6c2stbGY="
    assert receiver.headers[0]["x-project"] == "mine"
    assert receiver.headers[0]["content-type"] == "application/x-protobuf"
    resource = {
        pair.key: pair.value.string_value for pair in receiver.requests[0].resource_spans[0].resource.attributes
    }
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("gateway", "test")
    traces: dict[bytes, list[Any]] = {}
    for span in receiver.spans():
        traces.setdefault(span.trace_id, []).append(span)
    roots = [spans[0] for spans in traces.values()]
    assert sorted(attributes(root)["http.response.status_code"] for root in roots) == [200, 200, 404]
    assert all(not root.parent_span_id for root in roots)
    calls = [span for span in receiver.spans() if "gen_ai.operation.name" in attributes(span)]
    assert len(calls) == 2
    for call in calls:
        said = attributes(call)
        assert (said["gen_ai.request.model"], said["penstock.replica"]) == ("small", "local/0")
        assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (2, 2)
        assert json.loads(said["langfuse.observation.usage_details"]) == {"input": 2, "output": 2, "total": 4}


def test_exporters_come_and_go_with_a_reload_and_nothing_that_waited_is_lost(tmp_path: Path) -> None:
    receiver = Receiver()

    async def story() -> None:
        async with FakeEngine("one") as engine:
            with receiver.listening() as endpoint:
                with_one = (
                    f"telemetry: {{ traces: {{ here: {{ endpoint: '{endpoint}' }} }}, sampling: {{ ratio: 100% }} }}\n"
                )
                path = tmp_path / "penstock.yaml"
                path.write_text(config(engine, with_one))

                async def use(server: Running) -> None:
                    await server.chat()
                    reload(path, config(engine, ""))
                    await server.until_told("(plane 2)")
                    await server.chat()
                    reload(path, config(engine, with_one))
                    await server.until_told("(plane 3)")
                    await server.chat()

                await serving(ServeOptions(config_path=str(path), insecure_dev=True), use)

    run(story)
    assert len({span.trace_id for span in receiver.spans()}) == 2


def test_the_callers_trace_goes_on_at_the_upstream_beneath_the_attempt_and_ends_at_the_receiver() -> None:
    trace_id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    receiver, heads = Receiver(), list[bytes]()

    class Listening(FakeEngine):
        async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
            heads.append(head)
            await super()._answer(head, body, writer)

    async def story() -> None:
        async with Listening("one") as engine:
            with receiver.listening() as endpoint:
                telemetry = (
                    f"telemetry: {{ traces: {{ here: {{ endpoint: '{endpoint}' }} }}, sampling: {{ ratio: 0% }} }}\n"
                )

                async def use(server: Running) -> None:
                    said = (
                        f"traceparent: 00-{trace_id}-{caller}-01\r\nx-penstock-prompt-version: v12\r\n"
                        "x-penstock-context: doc-1, doc-2\r\n"
                    )
                    whole = chat_bytes(stream=True).replace(b"host: x\r\n", b"host: x\r\n" + said.encode())
                    assert (await request(server.port, whole))[0] == 200
                    assert (await server.chat())[0] == 200

                await serving(ServeOptions(config_text=config(engine, telemetry)), use)

    run(story)
    root, *rest = receiver.spans()  # of the request whose caller records it, and of no other
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (trace_id, caller)
    said = attributes(root)
    assert (said["penstock.trace.kept"], said["penstock.prompt.version"]) == ("caller", "v12")
    assert [one.string_value for one in said["penstock.prompt.context"].values] == ["doc-1", "doc-2"]
    (attempt,) = [span for span in rest if span.parent_span_id == root.span_id and span.events]
    told = [line for head in heads for line in head.split(b"\r\n") if line.startswith(b"traceparent: ")]
    assert told[0] == f"traceparent: 00-{trace_id}-{attempt.span_id.hex()}-01".encode()
    assert told[1].endswith(b"-00")
    assert trace_id.encode() not in told[1]


def test_a_receiver_that_is_busy_is_asked_again_over_the_same_connection() -> None:
    receiver = Receiver(503, 429)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        with receiver.listening() as endpoint:
            post = OtlpPost(Exporter("x", endpoint), str, loop)
            body = gzip.compress(b"")
            answers = [await post(body) for _ in range(3)]
            post.close()
        assert [answer.status for answer in answers] == [503, 429, 200]
        assert answers[0].retry_after == 0.0

    run(story)


def test_a_place_that_is_not_there_or_a_secret_that_is_missing_is_told_without_secrets() -> None:
    def missing(reference: str) -> str:
        raise LookupError("the environment variable TOKEN is not set.")

    async def story() -> None:
        loop = asyncio.get_running_loop()
        gone = OtlpPost(Exporter("x", "http://127.0.0.1:1/v1/traces"), str, loop)
        answer = await gone(b"")
        assert (answer.status, answer.why.partition(":")[0]) == (0, "connect")
        unset = OtlpPost(Exporter("x", "http://127.0.0.1:1", (("x-key", "env:TOKEN"),)), missing, loop)
        assert await unset(b"") == type(answer)(0, None, "the environment variable TOKEN is not set.")
        split = OtlpPost(Exporter("x", "http://127.0.0.1:1", (("x-key", "env:TOKEN"),)), lambda _: "a\r\nb: c", loop)
        assert "cannot be sent as a header" in (await split(b"")).why

    run(story)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("refusals", [True, False], ids=["looked at", "not looked at"])
def test_a_refusal_that_is_only_said_is_counted_unless_nobody_may_look(stream: bool, refusals: bool) -> None:
    async def story() -> None:
        async with FakeEngine("I cannot help with that.") as engine:
            whole = config(engine, f"telemetry: {{ content: {{ refusals: {str(refusals).lower()} }} }}")

            async def use(server: Running) -> None:
                assert (await request(server.port, chat_bytes(stream=stream)))[0] == 200
                _, page = await request(server.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                counted = b'penstock_answers_looked_at_total{model="chat",signal="words"} 1'
                assert (counted in page) == refusals

            await serving(ServeOptions(config_text=whole), use)

    run(story)


def test_a_line_of_the_log_has_ids_hashes_versions_latencies_tokens_cost_and_how_it_ended(tmp_path: Path) -> None:
    log = tmp_path / "access.log"

    async def story() -> None:
        async with FakeEngine("one") as engine:
            whole = config(engine, "telemetry: { content: { hashes: true } }", log=log)
            whole = whole.replace("served: small", "served: small, price: { input: $1/M, output: $2/M }")

            async def use(server: Running) -> None:
                for stream in (True, False):
                    assert (await request(server.port, chat_bytes(stream=stream)))[0] == 200

            await serving(ServeOptions(config_text=whole), use)

    run(story)
    for line in map(json.loads, log.read_bytes().splitlines()):
        said = {name for name, value in line.items() if value not in ("", None, [], {})}
        assert said >= {"time", "level", "request_id", "trace_id", "model", "served", "deployment", "plane_version"}
        assert said >= {"prompt_hash", "output_hash", "user_hash", "duration", "usage", "cost_nanos", "finish_reason"}
        assert line["served"] == "small"


# --- planted secrets ---

CALLERS = f"{KEY}-caller-0000000000"
WRONG = f"{KEY}-wrong-11111111111"
PROVIDERS = f"{SECRET}-provider-2222222222"
IN_PROMPT = f"{PROMPT}-text-3333333333"
IN_HEADER = f"{HEADER}-4444444444"
IN_URL = f"{HEADER}-url-5555555555"
OTLP = f"{SECRET}-otlp-6666666666"
AS_MODEL = "sk-parrot-model-77777777777"
IN_ANSWER = f"{PROMPT}-answer-8888888888"
PLANTED = (CALLERS, WRONG, PROVIDERS, IN_PROMPT, IN_HEADER, IN_URL, OTLP, AS_MODEL, IN_ANSWER)


class EchoingEngine(FakeEngine):
    """Says back whatever it was sent, in its answers, and in its errors, of which it makes several kinds."""

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if not head.startswith(b"POST"):
            await super()._answer(head, body, writer)
            return
        status = next((n for n in (b"400", b"401", b"429", b"500") if b"please " + n in body), b"")
        echo = json.dumps((head + body).decode("latin-1"))
        if status:
            data = f'{{"error":{{"message":{echo},"type":"x","code":{echo}}}}}'.encode()
            writer.write(b"HTTP/1.1 %b X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data))
        elif b"please junk" in body:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(echo), echo.encode()))
        else:
            data = (
                b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":'
                b'"%b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4}}'
            ) % IN_ANSWER.encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)
            )
        await writer.drain()


def asking(words: str, *, model: str = "chat", key: str = CALLERS, path: str = "/v1/chat/completions") -> bytes:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": f"{IN_PROMPT} {words}"}],
            "user": "somebody",
            "metadata": {"note": IN_PROMPT},
        }
    ).encode()
    head = (
        f"POST {path}?key={IN_URL} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
        f"cookie: session={IN_HEADER}\r\nx-secret: {IN_HEADER}\r\ntracestate: a={IN_HEADER}\r\n"
        f"user-agent: {IN_HEADER}\r\nx-request-id: {IN_HEADER}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize(
    "content",
    [pytest.param(False, id="content off"), pytest.param(True, id="content on", marks=pytest.mark.tells_prompts)],
)
@pytest.mark.parametrize("keys", ["penstock", "ecs"])
def test_no_secret_that_is_planted_anywhere_comes_out_of_logs_traces_metrics_or_errors(
    content: bool, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", PROVIDERS)
    monkeypatch.setenv("OTLP_KEY", OTLP)
    receiver, log = Receiver(), tmp_path / "access.log"
    told: list[str] = []
    outputs: dict[str, bytes] = {}

    async def story() -> None:
        async with EchoingEngine("one") as engine:
            with receiver.listening() as endpoint:
                telemetry = (
                    f"telemetry:\n  traces: {{ here: {{ endpoint: '{endpoint}', headers: {{ x-key: env:OTLP_KEY }} }},"
                    f" gone: {{ endpoint: 'http://127.0.0.1:1', headers: {{ x-api-key: env:OTLP_KEY }} }} }}\n"
                    f"  sampling: {{ ratio: 100% }}\n  log_keys: {keys}\n"
                    f"  content: {{ capture: {str(content).lower()}, hashes: {str(content).lower()} }}\n"
                )
                caller = f"keys: [{{ id: web, sha256: {digest(CALLERS)} }}]\n"
                whole = config(engine, telemetry, log=log, more=caller, key="env:PROVIDER_KEY")

                async def use(server: Running) -> None:
                    refusals = b""
                    for words in ("", "please 401", "please 429", "please 500", "please junk"):
                        _, answer = await request(server.port, asking(words))
                        refusals += answer if words else b""
                    # what a provider says of the caller's own request they are told, but no key of ours
                    _, theirs = await request(server.port, asking("please 400"))
                    outputs["said of the request itself"] = theirs.replace(IN_PROMPT.encode(), b"")
                    for odd in (
                        asking("", key=WRONG),
                        asking("", model=AS_MODEL),
                        asking("", path=f"/{IN_URL}"),
                        asking("").replace(b'"messages"', b'"massages"'),
                        asking("")[:-4] + b"}}}}",
                    ):
                        refusals += (await request(server.port, odd))[1]
                    outputs["errors"] = refusals.replace(AS_MODEL.encode(), b"")  # their own words, in quotes
                    for accept in (b"", b"accept: application/openmetrics-text\r\n"):
                        page = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%b\r\n" % accept
                        outputs[f"metrics {accept!r}"] = (await request(server.port, page))[1]

                _, lines = await serving(ServeOptions(config_text=whole), use)
                told.extend(lines)

    run(story)
    captured = capfd.readouterr()
    outputs |= {
        "log": log.read_bytes(),
        "traces": receiver.bytes,
        "terminal": "\n".join(told).encode(),
        "stdout": captured.out.encode(),
        "stderr": captured.err.encode(),
    }
    assert len(outputs["log"].splitlines()) == 11 - 1  # a path that is not there is no request
    assert len({span.trace_id for span in receiver.spans()}) == 10
    assert b"penstock_requests_total{" in outputs["metrics b''"]
    found = {
        (name, secret)
        for name, output in outputs.items()
        for secret in PLANTED
        if secret.encode() in output and not (content and name == "traces" and secret in (IN_PROMPT, IN_ANSWER))
    }
    assert found == set()
    # the net has no hole where it matters: what may be told with content on is there, and only then
    assert (IN_PROMPT.encode() in receiver.bytes) == content
