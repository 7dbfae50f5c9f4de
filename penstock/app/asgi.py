"""The gateway as an ASGI application, for those who must run it under uvicorn, granian or another server.

    PENSTOCK_CONFIG=penstock.yaml uvicorn --factory penstock.app.asgi:application

With `--http penstock.http.uvicorn_http:PenstockHttp` uvicorn keeps the process and our protocol class the requests,
at a fraction of the cost. Sockets, TLS, processes and signals are then that server's; embedded engines are not started,
the file is read once, and `/metrics` tells of this process alone. Of several processes each counts limits on its own,
unless `store.counters` names a Redis. `penstock serve` does all of that itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from penstock.app.errors import StartError
from penstock.app.register import Register, books_options
from penstock.app.secrets import Secrets
from penstock.app.source import ConfigSource
from penstock.app.system import random_generator
from penstock.app.worker import Worker, WorkerOptions
from penstock.config.compile import compile_plane, embedded
from penstock.config.load import ConfigError
from penstock.config.schema import Config
from penstock.config.units import n_bytes, seconds
from penstock.core.clock import SystemClock
from penstock.gateway.prepare import PrepareError
from penstock.http.asgi import AsgiApp, Receive, Scope, Send
from penstock.http.options import ServerOptions
from penstock.http.server import Exchange

CONFIG: Final = "PENSTOCK_CONFIG"


def application() -> GatewayApp:
    """For `--factory`: serves the file that the environment variable PENSTOCK_CONFIG names."""
    return GatewayApp(os.environ.get(CONFIG, "penstock.yaml"), _to_stderr)


class GatewayApp(AsgiApp):
    """Begins to serve at the server's lifespan startup, and refuses to start, saying why, when the file is not good."""

    def __init__(self, path: str, tell: Callable[[str], None]) -> None:
        super().__init__(self._answer_with_worker, on_crash=self._crashed)
        self._path, self._tell = path, tell
        self._worker: Worker | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        try:
            source = ConfigSource(path=self._path, text=None, engine_replicas=None)
            config, secret = source.read(), Secrets(os.environ).read
            register = await Register.open(
                books_options(config, source, secret),
                asked=config.store.database is not None,
                clock=SystemClock(),
                secret=secret,
                tell=self._tell,
            )
            await register.close()  # organisations and teams are those of now; keys are followed
            async with asyncio.TaskGroup() as group:
                self._worker = worker = self._start(group, config, source, register)
                await worker.listen([])
                for line in await worker.first_checks():
                    self._tell(line)
                await send({"type": "lifespan.startup.complete"})
                await receive()  # lifespan.shutdown: the server has drained
                await worker.books.close()
                worker.close()
        except* (StartError, ConfigError, PrepareError) as errors:
            await send({"type": "lifespan.startup.failed", "message": str(errors.exceptions[0])})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    def _start(self, group: asyncio.TaskGroup, config: Config, source: ConfigSource, register: Register) -> Worker:
        if not config.keys and not register.n_keys:
            raise StartError(
                f"{self._path} has no keys, and whom this server listens to is not known here. Add `keys`."
            )
        if engines := embedded(config):
            name = next(iter(engines))
            raise StartError(
                f"deployments.{name}.model: engines are not started under another server. Start one with "
                "`penstock engine` and give its address as `engine`."
            )
        server = config.server
        self.options = ServerOptions(max_body_bytes=n_bytes(server.max_body))
        return Worker(
            compile_plane(config, 1, {}, tenants=register.tenants),
            WorkerOptions(
                max_body_bytes=n_bytes(server.max_body),
                drain_seconds=seconds(server.drain),
                access_log=server.access_log,
                responses_file="" if config.responses.file is None else str(source.beside(config.responses.file)),
                books=register.options,
            ),
            group=group,
            clock=SystemClock(),
            rng=random_generator(),
            entropy=os.urandom(8),
            secret=Secrets(os.environ).read,
            tell=self._tell,
        )

    def _answer_with_worker(self, exchange: Exchange) -> Any:
        assert self._worker is not None, "a server that speaks no lifespan cannot start the gateway"
        return self._worker.gateway.handle(exchange)

    def _crashed(self, error: Exception) -> None:
        if self._worker is not None:
            self._worker.crashed(error)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
