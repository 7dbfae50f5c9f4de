"""Every path that reaches a model: what the upstream is sent, and what the caller is told."""

import asyncio
import hashlib

import msgspec
import pytest
from msgspec import structs

from penstock.config.providers import COMPATIBLE, OF_ANTHROPIC
from penstock.config.spec import GrantSpec, KeySpec
from penstock.core.request import Endpoint
from penstock.gateway.operations import OPERATIONS
from penstock.gateway.stored_responses import StoredResponses
from penstock.stores.base import StoreFailed
from penstock.stores.memory import MemoryResponses
from penstock.testing import virtual_loop
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import Script
from tests.worlds import PLAIN, PLAN, STREAM, World, spec

decode = msgspec.json.decode
URL = "http://169.254.169.254/latest"
ANTHROPIC = {"dialect": "anthropic", "native": OF_ANTHROPIC, "beta": ("known-1",)}
MESSAGES = b'{"model":"chat","max_tokens":9,"messages":[{"role":"user","content":"hello there"}]}'
MESSAGE = msgspec.json.encode(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "served",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 4},
    }
)


def serve(body, path, *, script=None, method=b"POST", headers=(), query=b"", **world):
    """One request on virtual time: (exchange, outcome or None, head and body that the replica was sent or None)."""

    async def main(loop):
        w = World(loop, {"a": script or Script()}, **world)
        exchange = FakeExchange(body, method=method, path=path, headers=tuple(headers), query=query)
        await exchange.carry(w.gateway.handle)
        w.check_nothing_is_held()
        sent = w.transports["a"]
        return exchange, (w.outcomes or [None])[-1], (sent.heads[0], sent.bodies[0]) if sent.bodies else None

    return virtual_loop.run(main)


@pytest.mark.parametrize("prefix", [b"", b"/openai", b"/anthropic"])
def test_a_drop_in_prefix_changes_nothing(prefix):
    path, body = (b"/v1/messages", MESSAGES) if prefix == b"/anthropic" else (b"/v1/chat/completions", PLAIN)
    exchange, outcome, _ = serve(body, prefix + path)
    assert exchange.status == 200
    assert outcome.error is None


@pytest.mark.parametrize("body", [PLAIN, PLAIN.replace(b'"model":"chat",', b"")])
def test_azures_path_names_the_model(body):
    path = b"/openai/deployments/chat/chat/completions"
    exchange, outcome, (_, sent) = serve(body, path, query=b"api-version=2024-10-21")
    assert (exchange.status, outcome.model) == (200, "chat")
    assert decode(sent)["model"] == "served"


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (b"chat/completions", PLAIN.replace(b'"chat"', b'"secret"'), ()),
        (b"embeddings", b'{"model":"secret","input":"x"}', ()),
        (b"embeddings", b'{"input":"x"}', ()),
        (b"audio/transcriptions", None, [(b"content-type", b"multipart/form-data; boundary=X")]),
    ],
)
def test_the_model_that_was_allowed_is_the_model_that_is_sent(path, body, headers):
    body = FORM.replace(b"\r\nchat\r\n", b"\r\nsecret\r\n") if body is None else body
    answer = Script(answer=b"{}") if path != b"chat/completions" else None
    _, outcome, (_, sent) = serve(
        body, b"/openai/deployments/chat/" + path, headers=headers, script=answer, served=None
    )
    assert outcome.model == "chat"
    assert b"secret" not in sent
    assert b"chat" in sent


def test_a_form_that_names_two_models_is_refused():
    twice = FORM[:-7] + b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n--X--\r\n'
    headers = [(b"content-type", b"multipart/form-data; boundary=X")]
    exchange, _, sent = serve(twice, b"/v1/audio/transcriptions", headers=headers)
    assert (exchange.status, sent) == (400, None)


def test_an_endpoint_that_a_server_lacks_does_not_take_its_model_away():
    async def main(loop):
        world = World(loop, {"a": Script(status=404)})
        for _ in range(20):
            exchange = FakeExchange(b'{"model":"chat","input":"x"}', path=b"/v1/embeddings")
            await exchange.carry(world.gateway.handle)
            assert exchange.status == 502
        world.transports["a"].script = Script()
        assert (await world.ask()).status == 200

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        (b"GET", b"/v1/chat/completions", b"POST"),
        (b"POST", b"/v1/models", b"GET, HEAD"),
        (b"PUT", b"/v1/responses/resp_1", b"GET, HEAD, DELETE"),
        (b"GET", b"/v1/responses/resp_1/cancel", b"POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method, path, allow):
    exchange, _, _ = serve(b"", path, method=method)
    assert exchange.status == 405
    assert b"allow: " + allow + b"\r\n" in exchange.headers


@pytest.mark.parametrize("path", [b"/v1/responses/compact", b"/v1/responses/compact/cancel", b"/v1/responses/a/b"])
def test_a_path_that_is_no_response_is_404(path):
    exchange, _, _ = serve(b"{}", path)
    assert exchange.status == 404


def test_an_azure_path_that_leads_nowhere_is_404():
    exchange, _, _ = serve(PLAIN, b"/openai/deployments/chat/nothing")
    assert exchange.status == 404


@pytest.mark.parametrize("header", [b"authorization", b"x-api-key", b"api-key"])
def test_a_key_is_taken_from_whichever_header_a_client_uses(header):
    secret = b"sk-pen-12345678-abc"
    key = KeySpec("k", hashlib.sha256(secret).hexdigest())
    value = b"Bearer " + secret if header == b"authorization" else secret
    options = {"keys": (key,), "insecure_dev": False}
    exchange, outcome, (head, _) = serve(PLAIN, b"/v1/chat/completions", headers=[(header, value)], **options)
    assert (exchange.status, outcome.key_id) == (200, "k")
    assert secret not in head
    exchange, _, _ = serve(PLAIN, b"/v1/chat/completions", headers=[(header, value + b"x")], **options)
    assert exchange.status == 401


@pytest.mark.parametrize("path", sorted(OPERATIONS))
def test_nothing_that_reaches_a_model_is_open_without_a_key(path):
    key = KeySpec("k", "0" * 64)
    exchange, _, sent = serve(PLAIN, path, keys=(key,), insecure_dev=False)
    assert (exchange.status, sent) == (401, None)


def test_messages_pass_to_an_upstream_of_the_same_dialect_with_the_flags_it_may_know():
    body = MESSAGES[:-1] + b',"unheard_of":[1.50]}'
    headers = [(b"anthropic-version", b"2024-01-01"), (b"anthropic-beta", b"known-1, other-2")]
    exchange, outcome, (head, sent) = serve(
        body, b"/v1/messages", script=Script(answer=MESSAGE), headers=headers, deployment=ANTHROPIC
    )
    assert exchange.text == MESSAGE
    assert sent == body.replace(b'"model":"chat"', b'"model":"served"')
    assert head.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert b"anthropic-version: 2024-01-01\r\n" in head
    assert b"anthropic-beta: known-1\r\n" in head
    assert b"x-penstock-lost: anthropic-beta.other-2\r\n" in exchange.headers
    assert (outcome.usage.prompt_tokens, outcome.usage.cached_tokens, outcome.usage.input_tokens) == (7, 4, 3)


def test_messages_are_translated_for_an_upstream_that_has_only_chat():
    exchange, outcome, (head, sent) = serve(MESSAGES, b"/v1/messages")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert decode(sent)["messages"] == [{"role": "user", "content": "hello there"}]
    answer = decode(exchange.text)
    assert (answer["type"], answer["content"][0]["text"], answer["stop_reason"]) == ("message", "hi", "end_turn")
    assert (answer["model"], answer["usage"]["input_tokens"]) == ("chat", 9)
    assert (outcome.endpoint, outcome.usage.prompt_tokens) == ("messages", 9)


def test_chat_is_translated_for_an_upstream_that_has_only_messages():
    exchange, outcome, (head, sent) = serve(
        PLAIN, b"/v1/chat/completions", script=Script(answer=MESSAGE), deployment=ANTHROPIC
    )
    assert head.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert decode(sent)["max_tokens"] == 64
    answer = decode(exchange.text)
    assert answer["choices"][0]["message"]["content"] == "hi"
    assert answer["usage"]["prompt_tokens"] == 7
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert outcome.error is None


def test_what_cannot_be_said_across_dialects_is_refused_by_name_and_nothing_is_sent():
    body = PLAIN[:-1] + b',"logit_bias":{"5":1}}'
    exchange, outcome, sent = serve(body, b"/v1/chat/completions", deployment=ANTHROPIC)
    assert exchange.status == 400
    error = decode(exchange.text)["error"]
    assert (error["code"], error["param"]) == ("unsupported_across_dialects", "logit_bias")
    assert sent is None
    assert outcome.error == "unsupported_across_dialects"


@pytest.mark.parametrize("allowed", [("logit_bias",), ("*",)])
def test_what_may_be_lost_is_named_in_a_header(allowed):
    body = PLAIN[:-1] + b',"logit_bias":{"5":1}}'
    exchange, _, (_, sent) = serve(
        body, b"/v1/chat/completions", script=Script(answer=MESSAGE), deployment=ANTHROPIC | {"lose": allowed}
    )
    assert exchange.status == 200
    assert b"logit_bias" not in sent
    assert b"x-penstock-lost: logit_bias\r\n" in exchange.headers


def test_an_error_is_told_in_the_callers_own_dialect():
    for path, body, read in (
        (b"/v1/messages", MESSAGES, lambda e: (e["type"], e["error"]["type"], bool(e["request_id"]))),
        (b"/v1/chat/completions", PLAIN, lambda e: (e["error"]["type"], e["error"]["code"])),
    ):
        exchange, _, _ = serve(body.replace(b'"chat"', b'"other"'), path)
        said = read(decode(exchange.text))
        assert exchange.status == 404
        assert said in (("error", "not_found_error", True), ("invalid_request_error", "model_not_found"))


def test_a_stream_that_breaks_ends_with_an_error_event_of_the_callers_dialect():
    cut = Script(tokens=9, cut_after=4)
    exchange, outcome, _ = serve(MESSAGES[:-1] + b',"stream":true}', b"/v1/messages", script=cut)
    assert exchange.text.count(b"event: error\n") == 1
    assert b"message_stop" not in exchange.text
    assert outcome.error == "upstream_truncated"
    body = b'{"model":"chat","input":"hello","stream":true}'
    exchange, outcome, _ = serve(body, b"/v1/responses", script=cut)
    last = exchange.text.strip().rpartition(b"\n\n")[2]
    assert last.startswith(b"event: response.failed\n")
    assert outcome.error == "upstream_truncated"


@pytest.mark.parametrize(
    ("path", "body", "endpoint"),
    [
        (b"/v1/embeddings", b'{"model":"chat","input":"x"}', Endpoint.EMBEDDING),
        (b"/v1/rerank", b'{"model":"chat","query":"x","documents":["y"]}', Endpoint.RERANK),
        (b"/v1/images/generations", b'{"model":"chat","prompt":"x"}', Endpoint.IMAGE),
        (b"/tokenize", b'{"model":"chat","prompt":"x"}', Endpoint.TOKENIZE),
    ],
)
def test_endpoints_of_one_dialect_are_passed_on_and_counted(path, body, endpoint):
    answer = b'{"object":"x","usage":{"prompt_tokens":5,"total_tokens":5}}'
    exchange, outcome, (head, sent) = serve(body, path, script=Script(answer=answer))
    assert exchange.text == answer
    assert head.startswith(b"POST " + path + b" HTTP/1.1\r\n")
    assert decode(sent) == decode(body) | {"model": "served"}
    assert (outcome.endpoint, outcome.usage.prompt_tokens) == (endpoint, 5)


def test_a_model_that_has_no_such_endpoint_says_so():
    exchange, outcome, sent = serve(b'{"model":"chat","input":"x"}', b"/v1/embeddings", deployment=ANTHROPIC)
    assert (exchange.status, sent) == (400, None)
    assert outcome.error == "unsupported_endpoint"


def test_only_deployments_that_have_the_endpoint_are_asked():
    async def main(loop):
        world = World(loop, {"a": Script(), "b": Script(answer=b"{}")})
        both = spec({"one": ["a"], "two": ["b"]}, structs.replace(PLAN, deployments=("one", "two")))
        first = structs.replace(both.deployments[0], native=(Endpoint.CHAT,))
        plane, swapped = world.preparer.prepare(
            structs.replace(both, deployments=(first, both.deployments[1])), world.gateway.plane
        )
        world.gateway.plane = plane
        swapped()
        for _ in range(4):
            exchange = FakeExchange(b'{"model":"chat","input":"x"}', path=b"/v1/embeddings")
            await exchange.carry(world.gateway.handle)
            assert exchange.status == 200
        assert world.opened == ["b"] * 4
        exchange = await world.ask()
        assert world.opened[-1] == "a"

    virtual_loop.run(main)


FORM = (
    b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nchat\r\n'
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n\x00\xffRIFF--X not it\r\n'
    b'--X\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--X--\r\n'
)


def test_a_form_is_passed_on_with_the_upstreams_name_for_the_model():
    headers = [(b"content-type", b"multipart/form-data; boundary=X")]
    exchange, outcome, (head, sent) = serve(
        FORM,
        b"/v1/audio/transcriptions",
        script=Script(answer=b"hello", headers=((b"content-type", b"text/plain"),)),
        headers=headers,
    )
    assert (exchange.text, exchange.content_type) == (b"hello", b"text/plain")
    assert head.count(b"content-type: multipart/form-data; boundary=X\r\n") == 1
    assert b"application/json" not in head
    model = b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
    assert sent == model + b"served\r\n" + FORM.removeprefix(model + b"chat\r\n")
    assert outcome.model == "chat"


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (FORM, b"application/json", "multipart"),
        (FORM, b"multipart/form-data", "boundary"),
        (FORM[:-8], b"multipart/form-data; boundary=X", "closing boundary"),
        (b"junk", b"multipart/form-data; boundary=X", "malformed"),
        (FORM.replace(b'name="model"', b'name="other"'), b"multipart/form-data; boundary=X", "model"),
    ],
)
def test_a_form_that_is_none_is_refused(body, kind, says):
    exchange, _, sent = serve(body, b"/v1/audio/transcriptions", headers=[(b"content-type", kind)])
    assert (exchange.status, sent) == (400, None)
    assert says in decode(exchange.text)["error"]["message"]


def test_speech_is_passed_on_as_bytes_and_cut_off_when_it_breaks():
    body = b'{"model":"chat","input":"hello","voice":"alloy"}'
    audio = Script(answer=b"\xff\xfbMP3", headers=((b"content-type", b"audio/mpeg"),))
    exchange, _, _ = serve(body, b"/v1/audio/speech", script=audio)
    assert (exchange.text, exchange.content_type, exchange.aborted) == (b"\xff\xfbMP3", b"audio/mpeg", False)


def test_tokens_are_counted_by_an_engine_that_can_and_estimated_aloud_by_us_otherwise():
    native = {"native": (*COMPATIBLE,), "quirks": ("counts_messages",)}
    for path, body, field in (
        (b"/v1/messages/count_tokens", MESSAGES, {"input_tokens": 12}),
        (b"/v1/responses/input_tokens", b'{"model":"chat","input":"hello"}', {"object": "response.input_tokens"}),
    ):
        exchange, _, (head, sent) = serve(body, path, script=Script(answer=b'{"count":12}'), deployment=native)
        assert head.startswith(b"POST /tokenize HTTP/1.1\r\n")
        assert decode(sent)["messages"][0]["role"] == "user"
        assert decode(exchange.text).items() >= field.items()
        assert decode(exchange.text)["input_tokens"] == 12
        assert b"x-penstock-estimate" not in exchange.headers
        exchange, outcome, sent = serve(body, path)
        assert sent is None
        assert decode(exchange.text)["input_tokens"] > 0
        assert b"x-penstock-estimate: input_tokens\r\n" in exchange.headers
        assert (outcome.status, outcome.error) == (200, None)


@pytest.mark.parametrize(
    ("headers", "path", "member"),
    [
        ((), b"/v1/models", "object"),
        (((b"anthropic-version", b"2023-06-01"),), b"/v1/models", "first_id"),
        ((), b"/anthropic/v1/models", "first_id"),
    ],
)
def test_models_are_listed_in_the_callers_dialect(headers, path, member):
    exchange, _, _ = serve(b"", path, method=b"GET", headers=headers)
    assert member in decode(exchange.text)
    exchange, _, _ = serve(b"", path + b"/chat", method=b"GET", headers=headers)
    assert decode(exchange.text)["id"] == "chat"
    exchange, _, _ = serve(b"", path + b"/none", method=b"GET", headers=headers)
    assert exchange.status == 404


IMAGE = PLAIN.replace(b'"hello there"', b'[{"type":"image_url","image_url":{"url":"http://169.254.169.254/latest"}}]')


def test_a_picture_by_url_never_reaches_an_engine():
    exchange, outcome, sent = serve(IMAGE, b"/v1/chat/completions", deployment={"inline_media": True})
    assert (exchange.status, sent) == (400, None)
    assert outcome.error == "remote_media_refused"
    assert decode(exchange.text)["error"]["param"] == "messages[0].content[0].image_url.url"


def test_a_picture_by_url_is_fetched_where_that_is_allowed():
    class Fetcher:
        async def fetch(self, url, *, param=None):
            assert url == "http://169.254.169.254/latest"
            return type("Picture", (), {"media_type": "image/png", "data": b"PNG"})

    async def main(loop):
        world = World(loop, {"a": Script()}, deployment={"inline_media": True})
        plane = msgspec.structs.replace(world.gateway.plane, fetcher=Fetcher())
        world.gateway.plane = plane
        exchange = await world.ask(IMAGE)
        assert exchange.status == 200
        (sent,) = world.transports["a"].bodies
        assert b'"url":"data:image/png;base64,UE5H"' in sent

    virtual_loop.run(main)


@pytest.mark.parametrize(("value", "status"), [(b"1.5", 504), (b"0", 504), (b"30", 200), (b"soon", 400), (b"-1", 400)])
def test_a_deadline_is_kept(value, status):
    started = []

    async def main(loop):
        world = World(loop, {"a": Script(ttft=1.9)})
        exchange = FakeExchange(STREAM, headers=((b"x-request-timeout", value),))
        started.append(loop.time())
        await exchange.carry(world.gateway.handle)
        world.check_nothing_is_held()
        heads = world.transports["a"].heads
        return exchange, loop.time() - started[0], heads

    exchange, took, heads = virtual_loop.run(main)
    assert exchange.status == status
    if status == 504:
        assert took == pytest.approx(float(value), abs=0.01)
    if value == b"0":
        assert heads == []
    if value == b"30":
        assert b"x-request-timeout: 30.000\r\n" in heads[0]


def test_a_retry_is_told_what_is_left_of_the_deadline():
    async def main(loop):
        world = World(loop, {"a": Script(status=500, fail_after=1.0), "b": Script(status=500, fail_after=1.0)})
        exchange = FakeExchange(STREAM, headers=((b"x-request-timeout", b"30"),))
        await exchange.carry(world.gateway.handle)
        heads = [head for transport in world.transports.values() for head in transport.heads]
        left = sorted(float(head.partition(b"x-request-timeout: ")[2].split(b"\r\n")[0]) for head in heads)
        assert left[-1] == 30.0
        assert left[-2] == pytest.approx(29.0, abs=0.2)

    virtual_loop.run(main)


def test_responses_are_kept_continued_listed_and_deleted():
    async def main(loop):
        world = World(loop, {"a": Script()})

        async def ask(body=b"", *, method=b"POST", path=b"/v1/responses", query=b""):
            exchange = FakeExchange(body, method=method, path=path, query=query)
            await exchange.carry(world.gateway.handle)
            return exchange.status, decode(exchange.text)

        status, first = await ask(b'{"model":"chat","input":"my name is Ada"}')
        assert (status, first["status"], first["output"][0]["content"][0]["text"]) == (200, "completed", "hi")
        path = b"/v1/responses/" + first["id"].encode()
        assert await ask(method=b"GET", path=path) == (200, first)
        _, items = await ask(method=b"GET", path=path + b"/input_items")
        assert items["data"][0]["content"][0]["text"] == "my name is Ada"
        continued = msgspec.json.encode({"model": "chat", "input": "who am I?", "previous_response_id": first["id"]})
        assert (await ask(continued))[0] == 200
        sent = decode(world.transports["a"].bodies[-1])["messages"]
        assert [(message["role"], message["content"]) for message in sent] == [
            ("user", "my name is Ada"),
            ("assistant", "hi"),
            ("user", "who am I?"),
        ]
        assert (await ask(path=path + b"/cancel"))[0] == 400
        assert await ask(method=b"DELETE", path=path) == (
            200,
            {"id": first["id"], "object": "response", "deleted": True},
        )
        assert (await ask(method=b"GET", path=path))[0] == 404
        assert (await ask(continued))[0] == 400
        assert (await ask(method=b"PUT", path=path))[0] == 405

    virtual_loop.run(main)


def test_a_streamed_response_is_kept_too_and_one_that_must_not_be_is_not():
    async def main(loop):
        world = World(loop, {"a": Script()})
        for store, status in ((b"true", 200), (b"false", 404)):
            exchange = FakeExchange(
                b'{"model":"chat","input":"x","stream":true,"store":%b}' % store, path=b"/v1/responses"
            )
            await exchange.carry(world.gateway.handle)
            last = decode(exchange.text.strip().rpartition(b"data: ")[2])
            path = b"/v1/responses/" + last["response"]["id"].encode()
            again = FakeExchange(b"", method=b"GET", path=path)
            await again.carry(world.gateway.handle)
            assert again.status == status
            assert status == 404 or decode(again.text) == last["response"]

    virtual_loop.run(main)


def test_nobody_can_read_another_tenants_response():
    secrets = {b"one": 0, b"two": 0, b"three": 1, b"four": None}
    keys = tuple(
        KeySpec(secret.decode(), hashlib.sha256(secret).hexdigest(), grant) for secret, grant in secrets.items()
    )
    grants = (GrantSpec("acme"), GrantSpec("rival"))

    async def main(loop):
        world = World(loop, {"a": Script()}, keys=keys, grants=grants, insecure_dev=False)

        async def ask(secret, body=b"", *, method=b"POST", path=b"/v1/responses"):
            exchange = FakeExchange(body, method=method, path=path, headers=((b"authorization", b"Bearer " + secret),))
            await exchange.carry(world.gateway.handle)
            return exchange

        made = decode((await ask(b"one", b'{"model":"chat","input":"secret"}')).text)
        path = b"/v1/responses/" + made["id"].encode()
        continued = msgspec.json.encode({"model": "chat", "input": "x", "previous_response_id": made["id"]})
        for secret, status in ((b"two", 200), (b"three", 404), (b"four", 404), (b"nobody", 401)):
            assert (await ask(secret, method=b"GET", path=path)).status == status
            assert (await ask(secret, continued)).status == (400 if status == 404 else status)
            if status != 200:
                assert (await ask(secret, method=b"DELETE", path=path)).status == status

    virtual_loop.run(main)


def test_a_response_in_the_background_is_answered_at_once_and_can_be_asked_for_when_it_is_done():
    async def main(loop):
        world = World(loop, {"a": Script(ttft=5.0)})
        exchange = FakeExchange(b'{"model":"chat","input":"x","background":true}', path=b"/v1/responses")
        running = asyncio.get_running_loop().create_task(exchange.carry(world.gateway.handle))
        await asyncio.sleep(1)
        begun = decode(exchange.text)
        assert (begun["status"], begun["background"], begun["output"]) == ("in_progress", True, [])

        async def get(method=b"GET", part=b""):
            exchange = FakeExchange(b"", method=method, path=b"/v1/responses/" + begun["id"].encode() + part)
            await exchange.carry(world.gateway.handle)
            return exchange.status, decode(exchange.text)

        assert (await get())[1]["status"] == "in_progress"
        await running
        done = (await get())[1]
        assert (done["id"], done["status"], done["background"]) == (begun["id"], "completed", True)
        assert done["output"][0]["content"][0]["text"] == "hi"
        assert (await get(b"POST", b"/cancel"))[0] == 400
        world.check_nothing_is_held()

    virtual_loop.run(main)


def test_a_response_in_the_background_can_be_cancelled_and_its_work_stops():
    async def main(loop):
        world = World(loop, {"a": Script(ttft=500.0)})
        exchange = FakeExchange(b'{"model":"chat","input":"x","background":true}', path=b"/v1/responses")
        running = asyncio.get_running_loop().create_task(exchange.carry(world.gateway.handle))
        await asyncio.sleep(1)
        id = decode(exchange.text)["id"].encode()
        for _ in range(2):
            cancel = FakeExchange(b"", path=b"/v1/responses/" + id + b"/cancel")
            await cancel.carry(world.gateway.handle)
            assert (cancel.status, decode(cancel.text)["status"]) == (200, "cancelled")
        await asyncio.gather(running, return_exceptions=True)
        assert loop.time() < 10
        world.check_nothing_is_held()

    virtual_loop.run(main)


def test_a_response_in_the_background_that_fails_says_why():
    async def main(loop):
        world = World(loop, {"a": Script(status=500)})
        exchange = FakeExchange(b'{"model":"chat","input":"x","background":true}', path=b"/v1/responses")
        await exchange.carry(world.gateway.handle)
        again = FakeExchange(b"", method=b"GET", path=b"/v1/responses/" + decode(exchange.text)["id"].encode())
        await again.carry(world.gateway.handle)
        failed = decode(again.text)
        assert (failed["status"], failed["error"]["code"]) == ("failed", "upstream_error")

    virtual_loop.run(main)


def test_pictures_by_url_in_the_history_never_reach_an_engine_either():
    async def main(loop):
        world = World(loop, {"a": Script()})
        body = {"model": "chat", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]}
        exchange = FakeExchange(msgspec.json.encode(body), path=b"/v1/responses")
        await exchange.carry(world.gateway.handle)
        first = decode(exchange.text)["id"]
        deployments = (structs.replace(world.gateway.plane.spec.deployments[0], inline_media=True),)
        plane, swapped = world.preparer.prepare(
            structs.replace(world.gateway.plane.spec, deployments=deployments), world.gateway.plane
        )
        world.gateway.plane = plane
        swapped()
        follows = msgspec.json.encode({"model": "chat", "input": "and?", "previous_response_id": first})
        exchange = FakeExchange(follows, path=b"/v1/responses")
        await exchange.carry(world.gateway.handle)
        assert decode(exchange.text)["error"]["code"] == "remote_media_refused"
        assert len(world.opened) == 1

    virtual_loop.run(main)


def test_a_deployment_that_cannot_be_told_is_passed_over_for_one_that_can():
    body = PLAIN[:-1] + b',"logit_bias":{"5":1}}'

    async def main(loop):
        world = World(loop, {"a": Script(answer=MESSAGE), "b": Script(status=500)})
        both = spec({"one": ["a"], "two": ["b"]}, structs.replace(PLAN, deployments=("one", "two")))
        claude = structs.replace(both.deployments[0], dialect="anthropic", native=OF_ANTHROPIC)
        for order, status, opened in (
            (("one", "two"), 200, ["b"]),  # the first one cannot be told
            (("two", "one"), 502, ["b"]),  # the second cannot, and what is told is why the first one failed
        ):
            world.opened.clear()
            world.transports["b"].script = Script() if status == 200 else Script(status=500)
            models = (structs.replace(both.models[0], plan=structs.replace(PLAN, deployments=order)),)
            plane, swapped = world.preparer.prepare(
                structs.replace(both, models=models, deployments=(claude, both.deployments[1])), world.gateway.plane
            )
            world.gateway.plane = plane
            swapped()
            exchange = await world.ask(body)
            assert (exchange.status, set(world.opened)) == (status, set(opened))
            world.check_nothing_is_held()

    virtual_loop.run(main)


def test_a_store_that_fails_costs_nobody_their_answer():
    class Failing(MemoryResponses):
        async def put(self, response, most):
            raise StoreFailed("disk full")

        async def get(self, owner, id, now):
            raise StoreFailed("disk full")

    async def main(loop):
        told = []
        world = World(loop, {"a": Script()}, stored=StoredResponses(Failing(), loop, told.append))
        exchange = FakeExchange(b'{"model":"chat","input":"x"}', path=b"/v1/responses")
        await exchange.carry(world.gateway.handle)
        assert (exchange.status, len(told)) == (200, 1)
        follows = FakeExchange(b'{"model":"chat","input":"x","previous_response_id":"resp_1"}', path=b"/v1/responses")
        await follows.carry(world.gateway.handle)
        assert (follows.status, decode(follows.text)["error"]["code"]) == (503, "store_unavailable")
        world.check_nothing_is_held()

    virtual_loop.run(main)


@pytest.mark.parametrize("more", [b'"stream":true', b'"store":false'])
def test_what_does_not_go_with_the_background_is_refused(more):
    body = b'{"model":"chat","input":"x","background":true,%b}' % more
    exchange, _, sent = serve(body, b"/v1/responses")
    assert (exchange.status, sent) == (400, None)


def test_messages_need_max_tokens_as_they_do_at_anthropic():
    exchange, _, sent = serve(MESSAGES.replace(b'"max_tokens":9,', b""), b"/v1/messages")
    assert (exchange.status, sent) == (400, None)
    assert "max_tokens" in decode(exchange.text)["error"]["message"]
