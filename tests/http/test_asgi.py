"""Both directions of the ASGI bridge: our handler as an application, and an application as our handler."""

import asyncio
import contextlib
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from penstock.http.asgi import AsgiBridge, asgi_app
from penstock.http.options import ServerOptions
from penstock.http.server import Exchange
from penstock.http.uvicorn_http import PenstockHttp, find_app
from tests.http.raw import HOST, Caller, serving, until

GET = b"GET %b HTTP/1.1\r\n" + HOST + b"\r\n"


def post(path: bytes, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (path, HOST, len(body), body)


class Handler:
    """A handler with one path per thing that can happen."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.started = 0
        self.flow_calls: list[str] = []
        self.go = asyncio.Event()

    def __call__(self, exchange: Exchange):
        self.started += 1
        if exchange.path == b"/now":
            exchange.respond(200, exchange.body, b"x-peer: %b\r\n" % exchange.peer.encode())
            return None
        return getattr(self, exchange.path.strip(b"/").decode())(exchange)

    async def echo(self, exchange: Exchange) -> None:
        await asyncio.sleep(0)
        exchange.respond(201, exchange.body + exchange.query, b"x-a: b\r\n", b"text/plain")

    async def stream(self, exchange: Exchange) -> None:
        exchange.start(200, b"x-a: b\r\n")
        for _ in range(3):
            exchange.write(b"tick ")
            await asyncio.sleep(0)
        exchange.finish(b"end")

    async def crash(self, exchange: Exchange) -> None:
        raise ValueError("secret")

    async def cut(self, exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"part")
        await asyncio.sleep(0.01)
        exchange.abort()

    async def wait(self, exchange: Exchange) -> None:
        try:
            await self.go.wait()
            exchange.respond(200, b"waited")
        except asyncio.CancelledError:
            assert exchange.gone
            self.cancelled += 1
            raise

    async def flood(self, exchange: Exchange) -> None:
        exchange.flow = self
        exchange.start(200)
        for _ in range(200):
            exchange.write(b"x" * 50_000)
            await exchange.drain()
        exchange.finish()

    async def flow(self, exchange: Exchange) -> None:
        """An answer that goes on by itself."""
        exchange.start(200)
        exchange.write(b"one ")
        exchange.flow = self
        asyncio.get_running_loop().create_task(self._go_on(exchange))

    async def _go_on(self, exchange: Exchange) -> None:
        await self.go.wait()
        exchange.finish(b"two")

    def left(self) -> None:
        self.flow_calls.append("left")

    def pause(self) -> None:
        self.flow_calls.append("pause")

    def resume(self) -> None:
        self.flow_calls.append("resume")


class Quiet(uvicorn.Server):
    """uvicorn without its hands on the signals."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


class Hosted:
    def __init__(self, server: uvicorn.Server, crashes: list[Exception]) -> None:
        self.server = server
        self.crashes = crashes
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self.callers: list[Caller] = []

    async def call(self, data: bytes) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port))
        self.callers.append(caller)
        caller.send(data)
        return caller


@contextlib.asynccontextmanager
async def hosted(handler: Any, options: ServerOptions | None = None, **settings: Any):
    """Our handler under a real uvicorn."""
    crashes: list[Exception] = []
    app = asgi_app(handler, options, on_crash=crashes.append)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, **settings)
    server = Quiet(config)
    serving_ = asyncio.get_running_loop().create_task(server.serve())
    await until(lambda: server.started or serving_.done())
    host = Hosted(server, crashes)
    try:
        yield host
    finally:
        for caller in host.callers:
            caller.leave()
        server.should_exit = True
        await serving_


KINDS = [{"http": "httptools"}, {"http": "h11"}, {"http": PenstockHttp}]


@pytest.fixture(params=KINDS, ids=["asgi on httptools", "asgi on h11", "our protocol"])
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def test_the_same_handler_answers_under_uvicorn(run, kind):
    async def main() -> None:
        handler = Handler()
        async with hosted(handler, **kind) as host:
            caller = await host.call(post(b"/now", b"body"))
            status, headers, body = await caller.answer()
            assert (status, body) == (200, b"body")
            assert headers[b"x-peer"] == b"127.0.0.1"
            caller.send(post(b"/echo?q", b"body"))
            status, headers, body = await caller.answer()
            assert (status, body) == (201, b"bodyq")
            assert headers[b"content-type"] == b"text/plain"
            assert headers[b"x-a"] == b"b"
            caller.send(GET % b"/stream")
            status, headers, body = await caller.answer()
            assert (status, body) == (200, b"tick tick tick end")
            assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
            assert not host.crashes

    run(main())


def test_crashes_and_cuts_look_the_same_under_uvicorn(run, kind):
    async def main() -> None:
        async with hosted(Handler(), **kind) as host:
            caller = await host.call(GET % b"/crash")
            status, _, body = await caller.answer()
            assert status == 500
            assert b"secret" not in body
            assert [str(crash) for crash in host.crashes] == ["secret"]
            caller = await host.call(GET % b"/cut")
            answer = await caller.rest()
            assert b"part" in answer
            assert not answer.endswith(b"0\r\n\r\n")

    run(main())


def test_a_caller_that_leaves_cancels_its_request_under_uvicorn(run, kind):
    async def main() -> None:
        handler = Handler()
        async with hosted(handler, **kind) as host:
            caller = await host.call(GET % b"/wait")
            await until(lambda: handler.started)
            caller.leave()
            await until(lambda: handler.cancelled)

    run(main())


def test_an_answer_goes_on_by_itself_after_its_handler_has_returned_under_uvicorn(run, kind):
    async def main() -> None:
        handler = Handler()
        async with hosted(handler, **kind) as host:
            caller = await host.call(GET % b"/flow")
            await caller.head()
            assert await caller.chunk() == b"one "
            handler.go.set()
            assert await caller.chunk() == b"two"
            assert await caller.chunk() == b""
            assert handler.flow_calls == []

    run(main())


def test_an_answer_that_goes_on_by_itself_is_told_that_its_caller_left_under_uvicorn(run, kind):
    async def main() -> None:
        handler = Handler()
        async with hosted(handler, **kind) as host:
            caller = await host.call(GET % b"/flow")
            await caller.head()
            caller.leave()
            await until(lambda: handler.flow_calls)
            assert handler.flow_calls == ["left"]
            handler.go.set()

    run(main())


def test_a_body_too_large_is_refused_under_uvicorn(run, kind):
    async def main() -> None:
        handler = Handler()
        async with hosted(handler, ServerOptions(max_body_bytes=1_000), **kind) as host:
            caller = await host.call(post(b"/echo", b"x" * 1_001))
            assert (await caller.answer())[0] == 413
            assert not handler.started

    run(main())


def test_a_slow_reader_pauses_the_source_under_uvicorn(run, kind):
    async def main() -> None:
        handler = Handler()
        async with hosted(handler, **kind) as host:
            caller = await host.call(GET % b"/flood")
            await until(lambda: handler.flow_calls)
            assert len((await caller.answer())[2]) == 10_000_000
            assert handler.flow_calls[:2] == ["pause", "resume"]

    run(main())


def test_uvicorn_drains_our_protocol_before_it_stops(run):
    async def main() -> None:
        handler = Handler()
        async with hosted(handler, http=PenstockHttp, timeout_graceful_shutdown=10) as host:
            caller = await host.call(GET % b"/wait")
            idle = await host.call(GET % b"/now")
            await idle.answer()
            await until(lambda: handler.started == 2)
            assert len(host.server.server_state.connections) == 2
            assert host.server.server_state.total_requests == 2
            host.server.should_exit = True
            assert await idle.rest() == b""
            handler.go.set()
            assert (await caller.rest()).endswith(b"connection: close\r\n\r\nwaited")
            await until(lambda: not host.server.server_state.connections)

    run(main())


def test_uvicorns_limit_on_concurrency_holds_for_our_protocol(run):
    async def main() -> None:
        handler = Handler()
        async with hosted(handler, http=PenstockHttp, limit_concurrency=1) as host:
            first = await host.call(GET % b"/wait")
            await until(lambda: handler.started)
            second = await host.call(GET % b"/now")
            assert (await second.answer())[0] == 503
            handler.go.set()
            assert (await first.answer())[0] == 200

    run(main())


def test_our_protocol_refuses_applications_that_are_not_ours():
    class Config:
        app = staticmethod(lambda scope, receive, send: None)

    with pytest.raises(TypeError, match="asgi_app"):
        find_app(Config())


def test_a_websocket_to_the_application_is_closed():
    async def main() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await asgi_app(Handler())({"type": "websocket"}, receive, send)
        return sent

    assert asyncio.run(main()) == [{"type": "websocket.close", "code": 1000}]


# The other way: an application behind our server


async def page(request: Request) -> Response:
    return JSONResponse(
        {
            "path": request.url.path,
            "query": dict(request.query_params),
            "body": (await request.body()).decode(),
            "agent": request.headers.get("user-agent"),
            "client": request.client.host if request.client else None,
        },
        headers={"x-a": "b"},
    )


async def ticks(request: Request) -> Response:
    async def generate():
        for _ in range(3):
            yield b"tick "
            await asyncio.sleep(0)

    return StreamingResponse(generate(), media_type="text/plain")


async def empty(request: Request) -> Response:
    return Response(status_code=204)


async def moved(request: Request) -> Response:
    return RedirectResponse("/page")


async def broken(request: Request) -> Response:
    raise ValueError("secret")


async def injected(request: Request) -> Response:
    response = PlainTextResponse("x")
    response.raw_headers.append((b"x-evil", b"a\r\nset-cookie: b"))
    return response


def application(**settings: Any) -> Starlette:
    endpoints = [page, ticks, empty, moved, broken, injected]
    routes = [Route("/" + endpoint.__name__, endpoint, methods=["GET", "POST"]) for endpoint in endpoints]
    return Starlette(routes=routes, **settings)


def test_a_starlette_application_answers_behind_our_server(run):
    async def main() -> None:
        async with serving(AsgiBridge(application())) as world:
            caller = await world.call(post(b"/page?a=b%20c", b"body"))
            status, headers, body = await caller.answer()
            assert status == 200
            assert headers[b"content-type"] == b"application/json"
            assert headers[b"x-a"] == b"b"
            assert body == b'{"path":"/page","query":{"a":"b c"},"body":"body","agent":null,"client":"127.0.0.1"}'
            caller.send(GET % b"/ticks")
            status, headers, body = await caller.answer()
            assert (status, body) == (200, b"tick tick tick ")
            assert headers[b"content-type"] == b"text/plain; charset=utf-8"
            caller.send(GET % b"/empty")
            assert await caller.head() == (204, {})
            caller.send(GET % b"/moved")
            status, headers, body = await caller.answer()
            assert (status, headers[b"location"]) == (307, b"/page")
            assert b"content-type" not in headers
            caller.send(b"HEAD /page HTTP/1.1\r\n" + HOST + b"\r\n" + GET % b"/missing")
            status, headers = await caller.head()
            assert int(headers[b"content-length"]) > 60
            assert (await caller.answer())[0] == 404
            assert not world.crashes

    run(main())


def test_an_application_that_fails_is_a_crash_like_any_other(run):
    async def nothing(scope: Any, receive: Any, send: Any) -> None: ...

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})

    async def early(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b"part"})

    async def main() -> None:
        for app in (application(), nothing, half, early):
            async with serving(AsgiBridge(app)) as world:
                caller = await world.call(GET % b"/broken")
                answer = await caller.head()
                assert answer[0] == (200 if app is half else 500)
                await until(lambda world=world: world.crashes)
        async with serving(AsgiBridge(application())) as world:
            caller = await world.call(GET % b"/injected")
            status, headers, _ = await caller.answer()
            assert status == 500
            assert b"set-cookie" not in headers

    run(main())


def test_an_application_whose_caller_leaves_is_cancelled(run):
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        events.append("started")
        try:
            await receive()
        finally:
            events.append("ended")

    async def main() -> None:
        async with serving(AsgiBridge(app)) as world:
            caller = await world.call(GET % b"/")
            await until(lambda: events)
            caller.leave()
            await until(lambda: len(events) == 2)

    run(main())


def test_the_lifespan_of_an_application_is_kept(run):
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette):
        events.append("up")
        yield {"answer": 42}
        events.append("down")

    async def state(request: Request) -> Response:
        return PlainTextResponse(str(request.state.answer))

    async def main() -> None:
        bridge = AsgiBridge(Starlette(routes=[Route("/", state)], lifespan=lifespan))
        await bridge.start()
        async with serving(bridge) as world:
            caller = await world.call(GET % b"/")
            assert (await caller.answer())[2] == b"42"
        await bridge.stop()
        assert events == ["up", "down"]

    run(main())


def test_an_application_that_fails_to_start_says_why_and_one_without_lifespan_is_left_alone(run):
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette):
        raise ValueError("no database")
        yield

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    async def main() -> None:
        bridge = AsgiBridge(Starlette(lifespan=lifespan))
        with pytest.raises(RuntimeError, match="no database"):
            await bridge.start()
        await bridge.stop()
        bridge = AsgiBridge(plain)
        await bridge.start()
        await bridge.stop()

    run(main())
