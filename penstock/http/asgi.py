"""The bridge to ASGI, both ways: our handler as an ASGI application under somebody else's server, and somebody's ASGI
application (Starlette, say) as a handler under ours. Slower than the direct way: ASGI awaits every chunk.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from penstock.http.asgi_exchange import AsgiExchange, Message
from penstock.http.options import ServerOptions
from penstock.http.server import Exchange, Handler, error_body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# What our server says itself, and an application may not say for it.
_OURS = frozenset({b"connection", b"content-length", b"content-type", b"transfer-encoding"})


class AsgiApp:
    """Our handler, as an ASGI application for uvicorn, granian or any other server. Limits on heads and times are then
    that server's business; the limit on bodies stays ours.
    """

    def __init__(
        self, handler: Handler, options: ServerOptions | None = None, *, on_crash: Callable[[Exception], None]
    ) -> None:
        self.handler = handler
        self.options = options if options is not None else ServerOptions()
        self.on_crash = on_crash
        self.uvicorn_server: Any = None  # kept here by `uvicorn_http`, one per process

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        exchange = AsgiExchange(
            scope["method"].encode("ascii"),
            [(name.lower(), value) for name, value in scope["headers"]],
            client[0] if client else "",
            self.options.high_water,
        )
        raw_path = scope.get("raw_path")
        exchange.path = raw_path if raw_path is not None else scope["path"].encode()
        exchange.query = scope["query_string"]
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body = message.get("body", b"")
            more = message.get("more_body", False)
            parts.append(body)
            size += len(body)
            if size > self.options.max_body_bytes:
                text = f"the body is too large; at most {self.options.max_body_bytes} bytes are accepted"
                exchange.respond(413, error_body(413, text), b"connection: close\r\n")
                await exchange.deliver(send)
                return
        exchange.body = parts[0] if len(parts) == 1 else b"".join(parts)
        await self._answer(exchange, receive, send)

    async def _answer(self, exchange: AsgiExchange, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        watching = loop.create_task(_disconnected(receive))
        handling = loop.create_task(self._handle(exchange))
        delivering = loop.create_task(exchange.deliver(send))
        tasks: set[asyncio.Task[Any]] = {watching, handling, delivering}
        try:
            await asyncio.wait({watching, delivering}, return_when=asyncio.FIRST_COMPLETED)
            if delivering.done() and delivering.exception() is None:
                # Delivered. What the handler still does (settling, say) is given its time.
                await asyncio.wait({handling})
        finally:
            exchange.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, exchange: AsgiExchange) -> None:
        try:
            coroutine = self.handler(exchange)
            if coroutine is not None:
                await coroutine
            if not exchange.finished and not exchange.gone and exchange.flow is None:
                raise RuntimeError("the handler returned without an answer")
        except asyncio.CancelledError:
            exchange.abort()
            raise
        except Exception as error:  # noqa: BLE001 - the broad boundary, as in the server: reported, and answered 500
            if exchange.started:
                exchange.abort()
            else:
                exchange.respond(500, error_body(500, "internal error"))
            self.on_crash(error)


def asgi_app(
    handler: Handler, options: ServerOptions | None = None, *, on_crash: Callable[[Exception], None] | None = None
) -> AsgiApp:
    """`handler` as an ASGI application. Without `on_crash`, crashes go to the event loop's exception handler."""
    return AsgiApp(handler, options, on_crash=on_crash if on_crash is not None else report_to_loop)


def report_to_loop(error: Exception) -> None:
    """The default for who hears of a crash: whoever listens to the event loop."""
    context = {"message": "a request handler crashed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)


class AsgiBridge:
    """An ordinary ASGI application as a handler, for paths that are not hot. Call `start` and `stop` when the
    application wants lifespan events.
    """

    def __init__(self, app: Application, *, root_path: str = "", scheme: str = "http") -> None:
        self.app = app
        self.root_path = root_path
        self.scheme = scheme
        self.state: dict[str, Any] = {}
        self._lifespan: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[Message] = asyncio.Queue(maxsize=2)
        self._answers: asyncio.Queue[Message] = asyncio.Queue(maxsize=2)

    async def start(self) -> None:
        """Lifespan startup. Raises `RuntimeError` when the application says that it failed; one that knows nothing of
        lifespan is left in peace."""
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._lifespan = asyncio.get_running_loop().create_task(self._live(scope))
        await self._say("lifespan.startup")

    async def stop(self) -> None:
        """Lifespan shutdown."""
        if self._lifespan is not None and not self._lifespan.done():
            await self._say("lifespan.shutdown")
        if self._lifespan is not None:
            self._lifespan.cancel()
            await asyncio.wait({self._lifespan})
            self._lifespan = None

    async def _live(self, scope: Scope) -> None:
        await self.app(scope, self._events.get, self._answers.put)

    async def _say(self, event: str) -> None:
        assert self._lifespan is not None, "started before"
        self._events.put_nowait({"type": event})
        answer = asyncio.get_running_loop().create_task(self._answers.get())
        await asyncio.wait({answer, self._lifespan}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            message = answer.result()
            if message["type"].endswith(".failed"):
                raise RuntimeError(f"the ASGI application failed at {event}: {message.get('message', '')}")
            return
        answer.cancel()
        # It ended or raised instead of answering: by the specification, it does not support lifespan.
        self._lifespan.exception()

    async def __call__(self, exchange: Exchange) -> None:
        answer = _BridgedAnswer(exchange)
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": exchange.method.decode("ascii"),
            "scheme": self.scheme,
            "path": unquote_to_bytes(exchange.path).decode("utf-8", "replace"),
            "raw_path": exchange.path,
            "query_string": exchange.query,
            "root_path": self.root_path,
            "headers": exchange.headers,
            "client": (exchange.peer, 0) if exchange.peer else None,
            "server": None,
            "state": self.state.copy(),
            "extensions": {},
        }
        await self.app(scope, answer.receive, answer.send)
        if not exchange.finished and not exchange.gone:
            raise RuntimeError("the ASGI application returned without a complete answer")


class _BridgedAnswer:
    """`receive` and `send` for one request."""

    __slots__ = ("_body_given", "_exchange", "_finished", "_head")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body_given = False
        self._head: tuple[int, bytes, bytes, bytes | None] | None = None
        self._finished = asyncio.Event()

    async def receive(self) -> Message:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": self._exchange.body, "more_body": False}
        # A caller that leaves cancels the whole task; until then there is nothing to tell but the end.
        await self._finished.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        exchange = self._exchange
        if message["type"] == "http.response.start":
            if self._head is not None:
                raise RuntimeError("the ASGI application began a second answer")
            self._head = _lines(message["status"], message.get("headers", ()))
            return
        if message["type"] != "http.response.body" or self._head is None:
            raise RuntimeError(f"the ASGI application sent {message['type']} out of order")
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if not exchange.started:
            status, lines, content_type, length = self._head
            if exchange.method == b"HEAD" and length is not None:
                # The length of what GET would send, which only the application knows.
                exchange.start(status, lines + b"content-length: %b\r\n" % length, content_type)
            elif not more:
                exchange.respond(status, body, lines, content_type)
                self._finished.set()
                return
            else:
                exchange.start(status, lines, content_type)
        if more:
            exchange.write(body)
            await exchange.drain()
        else:
            exchange.finish(body)
            self._finished.set()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _lines(status: int, headers: Any) -> tuple[int, bytes, bytes, bytes | None]:
    """An application's headers as lines, its content type, and the length it announces.

    Raises `ValueError` for what would break out of its line.
    """
    lines = content_type = b""
    length: bytes | None = None
    for name, value in headers:
        if b"\r" in value or b"\n" in value or b"\r" in name or b"\n" in name or b"\0" in value:
            raise ValueError("a header of the ASGI application contains a line break")
        lowered = name.lower()
        if lowered == b"content-type":
            content_type = value
        elif lowered == b"content-length":
            length = value
        elif lowered not in _OURS:
            lines += b"%b: %b\r\n" % (lowered, value)
    return status, lines, content_type, length
