"""Our protocol class in uvicorn's place: `uvicorn.run(asgi_app(handler), http=PenstockHttp)`. uvicorn keeps what it is
good at (sockets, TLS flags, workers, reload, signals, lifespan); requests never become ASGI messages.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from penstock.http.asgi import AsgiApp
from penstock.http.server import Connection, Exchange, Server, error_body


class PenstockHttp(Connection):
    """For uvicorn's `http=`. The application must be `asgi_app(handler, options)`; its `options` hold the limits, but
    uvicorn's `limit_concurrency`, `limit_max_requests` and time-out at shutdown are honoured.
    """

    __slots__ = ()

    def __init__(self, config: Any, server_state: Any, app_state: Any = None, _loop: Any = None) -> None:
        app = find_app(config)
        server = app.uvicorn_server
        if server is None or server.state is not server_state:
            server = app.uvicorn_server = UvicornServer(app, config, server_state)
        super().__init__(server)

    def shutdown(self) -> None:
        """uvicorn is shutting down: the answer in progress is the last."""
        self.end()


class UvicornServer(Server):
    """What our connections need of a server, kept in uvicorn's own sets: it counts and awaits them at shutdown."""

    def __init__(self, app: AsgiApp, config: Any, server_state: Any) -> None:
        super().__init__(self._admit, app.options, on_crash=app.on_crash, loop=asyncio.get_running_loop())
        self.state = server_state
        self.open_connections = server_state.connections
        self.tasks = server_state.tasks
        self._handler = app.handler
        self._concurrency: int | None = config.limit_concurrency

    def _admit(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        state = self.state
        state.total_requests += 1
        limit = self._concurrency
        if limit is not None and (len(self.open_connections) > limit or len(self.tasks) >= limit):
            exchange.respond(503, error_body(503, "too many requests at once; try again later"))
            return None
        return self._handler(exchange)


def find_app(config: Any) -> AsgiApp:
    """Our application inside uvicorn's configuration, behind whatever middleware uvicorn wrapped it in."""
    app = config.loaded_app if getattr(config, "loaded", False) else config.app
    seen = 0
    while not isinstance(app, AsgiApp):
        app = getattr(app, "app", None)
        seen += 1
        if app is None or seen > 16:
            raise TypeError("http=PenstockHttp serves only applications made by penstock.http.asgi.asgi_app(handler)")
    return app
