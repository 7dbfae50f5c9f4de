"""The console's way to the gateway: bytes as they are, a key that is kept nowhere, and nothing left open."""

import asyncio
import json

import msgspec
import pytest

from penstock.console.acts import Asked, House
from penstock.console.refusals import Denied
from penstock.console.roles import Principal
from penstock.console.through import MOST_AT_ONCE, GatewayAddress, Through
from penstock.console.views import VIEWS
from penstock.http.server import Server
from penstock.routing.decision import Candidate, Decision, Explanation, ReplicaChoice
from penstock.testing.exchange import FakeExchange

CHUNKS = [b'data: {"a": 1}\n\n', b"data: [DONE]\n\n"]


class Gateway:
    """Answers what it is told to; `asked` is what it saw."""

    def __init__(self):
        self.asked, self.status, self.stay, self.n_open = [], 200, False, 0
        self.left = asyncio.Event()
        self.began = asyncio.Event()

    async def handle(self, exchange):
        self.asked.append((exchange.path, exchange.query, exchange.header(b"authorization"), exchange.body))
        if self.status != 200:
            exchange.respond(self.status, b'{"error": {"code": "no", "message": "not you"}}', b"retry-after: 3\r\n")
            return
        exchange.start(200, b"x-request-id: req_1\r\nset-cookie: theirs=1\r\nx-penstock-replica: local/0\r\n")
        exchange.write(CHUNKS[0])
        self.began.set()
        if self.stay:
            self.n_open += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.n_open -= 1
                self.left.set()
        exchange.finish(CHUNKS[1])


def with_gateway(work):
    async def main():
        gateway = Gateway()

        def crashed(error):
            raise error

        server = Server(gateway.handle, on_crash=crashed)
        await server.start()
        through = Through(GatewayAddress(f"http://127.0.0.1:{server.port}"))
        try:
            async with asyncio.timeout(20.0):
                return await work(gateway, through)
        finally:
            through.close()
            await server.drain(2.0)

    return asyncio.run(main())


async def relayed(through, body=b"{}", key=b"sk-canary-web"):
    exchange = FakeExchange(body)

    async def handle(exchange):
        through.relay(exchange, "/v1/chat/completions", body, key)

    await exchange.carry(handle)
    return exchange


def test_an_answer_comes_back_as_it_is():
    async def work(gateway, through):
        return gateway.asked, await relayed(through, b'{"model": "chat"}')

    asked, exchange = with_gateway(work)
    assert asked == [(b"/v1/chat/completions", b"", b"Bearer sk-canary-web", b'{"model": "chat"}')]
    assert exchange.status == 200 and exchange.text == b"".join(CHUNKS)
    assert b"text/event-stream" in exchange.content_type
    assert b"x-request-id: req_1" in exchange.headers and b"x-penstock-replica: local/0" in exchange.headers
    assert b"cookie" not in exchange.headers


def test_a_refusal_comes_back_as_it_is():
    async def work(gateway, through):
        gateway.status = 429
        return await relayed(through)

    exchange = with_gateway(work)
    assert exchange.status == 429 and b"not you" in exchange.text and b"retry-after: 3" in exchange.headers


def test_without_a_key_none_is_shown():
    async def work(gateway, through):
        await relayed(through, key=b"")
        return gateway.asked[0][2]

    assert with_gateway(work) is None


def test_when_the_page_leaves_the_gateway_is_told():
    async def work(gateway, through):
        gateway.stay = True
        task = asyncio.get_running_loop().create_task(relayed(through))
        await gateway.began.wait()
        task.cancel()
        await gateway.left.wait()
        return through._open

    assert with_gateway(work) == 0


def test_there_are_so_many_at_once_and_each_that_ends_makes_room():
    async def work(gateway, through):
        gateway.stay = True
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(relayed(through)) for _ in range(MOST_AT_ONCE)]
        while len(gateway.asked) < MOST_AT_ONCE:  # noqa: ASYNC110 - they arrive in some turn of the loop
            await asyncio.sleep(0)
        with pytest.raises(Denied, match="on their way"):
            through.relay(FakeExchange(b""), "/", b"", b"")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        while gateway.n_open:  # noqa: ASYNC110 - it hears of each in some turn of the loop
            await asyncio.sleep(0)
        return through._open

    assert with_gateway(work) == 0


def test_a_gateway_that_is_away_is_said_to_be():
    async def main():
        through = Through(GatewayAddress("http://127.0.0.1:1"))
        exchange = await relayed(through)
        with pytest.raises(Denied, match="does not answer"):
            await through.ask("/", b"", b"")
        through.close()
        return exchange, through._open

    exchange, n_open = asyncio.run(main())
    assert exchange.status == 502 and json.loads(exchange.text)["error"]["code"] == "gateway_away" and n_open == 0


def explained(gateway_says, status=200):
    """What the view answers when the gateway says that."""

    class Said:
        async def ask(self, path, body, key):
            self.asked = path, body, key
            return status, gateway_says

    said = Said()
    values = dict.fromkeys(House.__struct_fields__) | {"gateway": said}
    house = House(**values)
    view = next(one for one in VIEWS if one.path == "/explain")
    asked = Asked(Principal("key:x", "owner"), {}, {}, {"body": {"model": "chat"}}, None, b"sk-canary-web")
    return asyncio.run(view.run(house, asked)).value, said.asked


def test_where_a_request_would_go_is_asked_of_the_gateway_with_the_callers_own_key():
    explanation = Explanation(
        Decision(("local", "cloud"), "chat", why=("rule 1 holds",)),
        (Candidate("local", 1, "", True, True, "eu", 2_048, 12_000, 0.25),),
        (),
        {"prompt_tokens": 9},
        (
            ReplicaChoice("local/0", "local", True, 0.1, 0.2, 9, ""),
            ReplicaChoice("local/1", "local", False, 0.3, 0.2, 9, "costlier"),
        ),
    )
    value, (path, body, key) = explained(msgspec.json.encode(explanation))
    assert (path, json.loads(body), key) == (
        "/v1/route/explain?endpoint=chat.completions",
        {"model": "chat"},
        b"sk-canary-web",
    )
    assert (value["chosen"], value["plan"], value["prompt_tokens"]) == ("local/0", ("local", "cloud"), 9)
    assert [one["verdict"] for one in value["candidates"]] == ["chosen", "costlier"] and value["refused"] is None


@pytest.mark.parametrize("said", [b'{"error": {"message": "no such model", "code": "gone"}}', b"<html>", b"[]", b""])
def test_what_the_gateway_refuses_is_told(said):
    value, _ = explained(said, 404)
    assert value["refused"]["message"] and value["chosen"] is None and value["candidates"] == []
