"""The life of a server: take the port, start the engines, serve, follow the file, drain, stop. Read this file first."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from penstock.app.console import ConfigShown, ConsoleDesk, gateway_address
from penstock.app.discover import discover
from penstock.app.engines import Engines
from penstock.app.errors import StartError
from penstock.app.kv_caches import need_kv_events
from penstock.app.listen import bind, development_mode
from penstock.app.options import ServeOptions
from penstock.app.register import Register, books_options, traces_file
from penstock.app.reload import PublishRefused, Reloader
from penstock.app.secrets import Secrets
from penstock.app.service_levels import ServiceLevels
from penstock.app.source import ConfigSource
from penstock.app.system import random_generator, settle_memory
from penstock.app.worker import Worker, WorkerOptions
from penstock.app.workers import Workers
from penstock.config.compile import compile_plane, embedded
from penstock.config.schema import Config
from penstock.config.slos import rules_of, slos_of, thresholds_of
from penstock.config.spec import PlaneSpec
from penstock.config.units import n_bytes, seconds
from penstock.config.zero import TargetError, config_for
from penstock.core.clock import Clock, SystemClock
from penstock.gateway.prepare import PrepareError
from penstock.stores.base import Counters
from penstock.telemetry.catalogue import with_bounds
from penstock.telemetry.metrics import Registry, Snapshot

if TYPE_CHECKING:  # most servers have no admin API, and it is long
    from penstock.app.admin import AdminListener

__all__ = ["ServeOptions", "serve"]

BROKEN: Final = 1  # the exit code when a second signal cut requests off, or when no worker could be kept alive

Tell = Callable[[str], None]


async def serve(options: ServeOptions, tell: Tell) -> int:
    """Serves until SIGTERM or SIGINT, drains, and answers the exit code; a second signal ends everything at once.

    `tell` gets lines for the person at the terminal. Raises `StartError` and `ConfigError` for what they can mend.
    """
    source = await _source(options)
    config = source.read()
    need_kv_events(config)
    clock, secret = SystemClock(), Secrets(os.environ).read
    register = await Register.open(
        books_options(config, source, secret),
        asked=config.store.database is not None,
        clock=clock,
        secret=secret,
        tell=tell,
    )
    try:
        return await _serve(options, source, config, register, clock=clock, secret=secret, tell=tell)
    finally:
        await register.close()


async def _serve(
    options: ServeOptions,
    source: ConfigSource,
    config: Config,
    register: Register,
    *,
    clock: Clock,
    secret: Callable[[str], str],
    tell: Tell,
) -> int:
    host = options.host or config.server.host
    port = config.server.port if options.port is None else options.port
    zero = not source.is_file

    def allowed(config: Config) -> bool:
        return development_mode(
            host,
            n_keys=(len(config.keys) if isinstance(config.keys, tuple) else 1) + register.n_keys,
            insecure_dev=options.insecure_dev,
            asked_without_file=zero,
        )

    insecure_dev = allowed(config)
    sockets = bind(host, port, shared=options.workers > 1)
    house: House | None = None
    try:
        async with asyncio.TaskGroup() as group:
            house = House(
                options, source, register, group=group, clock=clock, rng=random_generator(), secret=secret, tell=tell
            )
            code = await house.live(config, sockets, allowed=allowed, insecure_dev=insecure_dev)
    finally:
        for bound in sockets:
            bound.close()
    if house.failure is not None:
        raise house.failure
    return code


async def _source(options: ServeOptions) -> ConfigSource:
    """Raises `StartError` when the options name nothing to serve, or a target that means nothing."""
    given = [one for one in (options.config_path, options.config_text, options.targets or None) if one is not None]
    if len(given) != 1:
        raise StartError(
            "Name what to serve, in one way: targets (`penstock serve tiny`) or a file (`--config penstock.yaml`)."
        )
    text = options.config_text
    if options.targets:
        try:
            config_for(options.targets)  # a typing error is told before any engine is asked
            text = config_for(options.targets, await discover(options.targets))
        except TargetError as error:
            raise StartError(str(error)) from None
    return ConfigSource(path=options.config_path, text=text, engine_replicas=options.engine_replicas)


class House:
    """What runs between the first moment and the last. All its tasks are in `group`."""

    def __init__(
        self,
        options: ServeOptions,
        source: ConfigSource,
        register: Register,
        *,
        group: asyncio.TaskGroup,
        clock: Clock,
        rng: Random,
        secret: Callable[[str], str],
        tell: Tell,
    ) -> None:
        self.failure: Exception | None = None  # told after everything has been stopped
        self._options, self._source, self._register = options, source, register
        self._group, self._clock, self._rng, self._secret, self._tell = group, clock, rng, secret, tell
        self._stop_asked = asyncio.Event()
        self._broken = False
        self._reloader: Reloader | None = None
        self._engines = Engines(group, clock=clock, rng=rng, tell=tell, on_move=self._engine_moved)
        self._alone: Worker | None = None
        self._workers: Workers | None = None
        self._admin: AdminListener | None = None
        self._levels: ServiceLevels | None = None
        self._watching: asyncio.Task[None] | None = None
        self._of_workers: Counters | None = None  # their counters, for the admin API
        self._desk: ConsoleDesk | None = None
        self._shown = ConfigShown(source, lambda: 1 if self._reloader is None else self._reloader.spec.version, clock)

    async def live(
        self, config: Config, sockets: list[socket.socket], *, allowed: Callable[[Config], bool], insecure_dev: bool
    ) -> int:
        """From nothing to nothing; the exit code."""
        self._listen_to_signals()
        try:
            starting = self._group.create_task(self._start(config, sockets, insecure_dev))
            if not await self._unless_stopped(starting):
                return self._code()
            spec = starting.result()
            if spec is None:
                return self._code()
            self._reloader = Reloader(
                self._source,
                self._engines,
                config=config,
                spec=spec,
                allowed=allowed,
                publish=self._publish,
                tell=self._tell,
                tenants=lambda: self._register.tenants,
                noted=self._shown.changed,
                followed=lambda now: None if self._levels is None else self._levels.follow(now),
            )
            following = [
                self._group.create_task(self._reloader.run()),
                self._group.create_task(self._register.run(self._reloader.moved)),
            ]
            self._announce(config, sockets, insecure_dev)
            await self._stop_asked.wait()
            for task in following:
                task.cancel()
            await self._drain(seconds(config.server.drain))
            return self._code()
        finally:
            self._engines.stop()
            if self._watching is not None and self._levels is not None:
                self._watching.cancel()
                self._levels.keep()
            closing: list[Coroutine[Any, Any, None]] = []
            if self._workers is not None:
                self._workers.stop()
                closing.append(_close(self._workers))
            if self._alone is not None:
                self._alone.close()
            if self._admin is not None:
                closing.append(self._admin.stop())
            if self._of_workers is not None:
                closing.append(self._of_workers.close())
            if self._desk is not None:
                closing.append(_close_desk(self._desk, self._workers))
            await asyncio.gather(*closing)  # not by the group, whose tasks are ended when one of them has failed

    async def _start(self, config: Config, sockets: list[socket.socket], insecure_dev: bool) -> PlaneSpec | None:
        """The plane that is served then; None when that failed, and `failure` says why."""
        try:
            n_processes = sum(deployment.replicas or 1 for deployment in embedded(config).values())
            if n_processes:
                self._tell(f"Starting {n_processes} engine {'process' if n_processes == 1 else 'processes'}...")
            wanted = await self._engines.prepare(config)
            self._engines.adopt(wanted)
            spec = compile_plane(
                config,
                1,
                self._engines.origins(),
                insecure_dev=insecure_dev,
                tenants=self._register.tenants,
                published=self._engines.published(),
            )
            tls, kept = config.server.tls, config.responses.file
            traces = traces_file(config, self._source, self._register.options)
            worker_options = WorkerOptions(
                max_body_bytes=n_bytes(config.server.max_body),
                drain_seconds=seconds(config.server.drain),
                access_log=config.server.access_log,
                certificate="" if tls is None else str(self._source.beside(tls.certificate)),
                private_key="" if tls is None else str(self._source.beside(tls.key)),
                responses_file="" if kept is None else str(self._source.beside(kept)),
                books=self._register.options,
                reports=config.admin is not None or traces is not None,
                bounds=thresholds_of(slos_of(config), rules_of(config)),
            )
            registry = Registry(with_bounds(worker_options.bounds))  # what this process counts itself
            if self._options.workers > 1:
                self._workers = Workers(
                    self._options.workers,
                    sockets,
                    worker_options,
                    group=self._group,
                    clock=self._clock,
                    rng=self._rng,
                    tell=self._tell,
                    on_dead=self._none_left,
                    own=registry.snapshot,
                )
                await self._workers.start(spec)
            else:
                self._alone = Worker(
                    spec,
                    worker_options,
                    group=self._group,
                    clock=self._clock,
                    rng=self._rng,
                    entropy=os.urandom(8),
                    secret=self._secret,
                    tell=self._tell,
                )
                await self._alone.listen(sockets)
                for line in await self._alone.first_checks():
                    self._tell(line)
                settle_memory()
                registry = self._alone.registry
            self._levels = levels = ServiceLevels(
                config,
                read=self._numbers,
                registry=registry,
                clock=self._clock,
                rng=self._rng,
                secret=self._secret,
                tell=self._tell,
                directory=Path(self._register.options.spool) if self._register.options.spool else None,
            )
            self._watching = self._group.create_task(levels.run())
            if worker_options.reports:
                self._desk = await self._open_desk(config, spec, worker_options, registry)
            if config.admin is not None:
                from penstock.app.admin import serve_admin
                from penstock.app.limits_used import counters_of_workers

                if self._alone is not None:
                    counters = self._alone.books.counters
                else:
                    assert self._workers is not None
                    counters = self._of_workers = counters_of_workers(
                        self._register.options, self._workers.directory, self._clock, self._secret
                    )
                self._admin = await serve_admin(
                    lambda: config if self._reloader is None else self._reloader.config,
                    self._register.options,
                    self._source,
                    clock=self._clock,
                    secret=self._secret,
                    tell=self._tell,
                    counters=counters,
                    desk=None if self._desk is None else self._desk.desk,
                    gateway=gateway_address(sockets[0], worker_options.certificate),
                    shown=self._shown,
                    watch=levels,
                    on_login=lambda result: registry.counter("penstock_console_logins_total").labels(result).inc(),
                )
        except (StartError, PrepareError) as error:
            self.failure = error if isinstance(error, StartError) else StartError(str(error))
            return None
        return spec

    async def _open_desk(
        self, config: Config, spec: PlaneSpec, options: WorkerOptions, registry: Registry
    ) -> ConsoleDesk:
        desk = await ConsoleDesk.open(
            config,
            self._source,
            self._register.options,
            catalogue=with_bounds(options.bounds),
            group=self._group,
            clock=self._clock,
            tell=self._tell,
        )
        desk.metrics(registry)
        desk.serves(spec)
        if self._workers is not None:
            desk.follow_many(self._workers)
        elif self._alone is not None:
            desk.follow_one(self._alone)
        return desk

    async def _numbers(self) -> Snapshot:
        if self._alone is not None:
            return self._alone.snapshot()
        assert self._workers is not None
        return self._workers.numbers()

    async def _publish(self, spec: PlaneSpec) -> None:
        if self._workers is not None:
            await self._workers.publish(spec)
        elif self._alone is not None:
            try:
                self._alone.prepare(spec)
            except PrepareError as error:
                raise PublishRefused(str(error)) from None
            self._alone.swap()
        if self._desk is not None:
            self._desk.serves(spec)

    async def _drain(self, limit: float) -> None:
        if self._workers is not None:
            self._tell(f"Stopping: requests in flight may take up to {limit:g} s. Once more to stop at once.")
            self._workers.stop()
            await self._workers.ended()
        elif self._alone is not None:
            n_requests = self._alone.gateway.in_flight
            if n_requests:
                self._tell(f"Stopping: {n_requests} in flight may take up to {limit:g} s. Once more to stop at once.")
            await self._alone.drain()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)

    def _asked_to_stop(self) -> None:
        if not self._stop_asked.is_set():
            self._tell("Stopping; requests in flight may finish. Asked again, it stops at once.")
            self._stop_asked.set()
            return
        self._broken = True
        if self._alone is not None:
            self._alone.close()
        if self._workers is not None:
            self._workers.kill()
        self._engines.kill()

    def _none_left(self) -> None:
        """Whoever supervises us may do better with a new process."""
        self._tell("No gateway worker is left. Stopping.")
        self._broken = True
        self._stop_asked.set()

    def _asked_to_reload(self) -> None:
        if self._alone is not None:
            self._alone.reopen_log()
        if self._workers is not None:
            self._workers.reopen_log()
        if self._reloader is not None:
            self._reloader.ask()

    def _engine_moved(self) -> None:
        if self._reloader is not None:
            self._reloader.moved()

    async def _unless_stopped(self, task: asyncio.Task[Any]) -> bool:
        """Whether `task` ended before we were asked to stop; it is cancelled otherwise."""
        stop = self._group.create_task(self._stop_asked.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            return False
        return True

    def _announce(self, config: Config, sockets: list[socket.socket], insecure_dev: bool) -> None:
        address = sockets[0].getsockname()
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        models = ", ".join(config.models)
        scheme = "http" if config.server.tls is None else "https"
        self._tell(f"Penstock serves {models} at {scheme}://{host}:{address[1]}/v1")
        if insecure_dev:
            self._tell("Development mode: nobody is asked for a key, and only this machine can reach it.")
        if not self._source.is_file:
            self._tell("No ledger is kept: what requests cost is in /metrics. With a configuration file there is one.")
        if self._options.announce_fd is not None:
            line = msgspec.json.encode({"port": address[1], "pid": os.getpid()}) + b"\n"
            os.write(self._options.announce_fd, line)
            os.close(self._options.announce_fd)

    def _code(self) -> int:
        return BROKEN if self._broken else 0


async def _close(workers: Workers) -> None:
    await workers.ended()
    workers.close()


async def _close_desk(desk: ConsoleDesk, workers: Workers | None) -> None:
    """After the last words of the last worker."""
    if workers is not None:
        await workers.ended()
    await desk.close()
