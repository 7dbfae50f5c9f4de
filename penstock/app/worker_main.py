"""A gateway worker process, started by its parent: `python -m penstock.app.worker_main CONTROL_SOCKET NAME FD`.

It serves what it is told on the control socket until SIGTERM, or until its parent is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from penstock.app import frames
from penstock.app.errors import StartError
from penstock.app.listen import bind_beside
from penstock.app.metrics_page import SUFFIX, offer
from penstock.app.reports import EVERY
from penstock.app.secrets import Secrets
from penstock.app.system import loop_factory, random_generator, settle_memory
from penstock.app.worker import Worker
from penstock.core.clock import SystemClock
from penstock.gateway.prepare import PrepareError

NUMBERS_EVERY: Final = 1.0  # seconds
MOST_UNREAD: Final = 4 << 20  # bytes that the parent has not taken yet

_DOWN: Final = msgspec.msgpack.Decoder(frames.Down)


def main() -> int:
    control, name, announce = sys.argv[1:4]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(control, name, int(announce)))


async def _serve(control: str, name: str, announce: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    reader, writer = await asyncio.open_unix_connection(control)
    frames.send(writer, frames.Hello(name, os.getpid()))
    try:
        setup = await frames.receive(reader, _DOWN)
    except EOFError:
        return 0
    assert isinstance(setup, frames.Setup), setup
    async with asyncio.TaskGroup() as group:
        worker: Worker | None = None
        try:
            sockets = bind_beside(setup.addresses, setup.port)
            worker = Worker(
                setup.spec,
                setup.options,
                group=group,
                clock=SystemClock(),
                rng=random_generator(),
                entropy=os.urandom(8),
                secret=Secrets(os.environ).read,
                tell=_tell,
                directory=Path(setup.directory),
                name=name,
            )
            await worker.listen(sockets)
        except (PrepareError, StartError, OSError) as error:
            if worker is not None:
                worker.close()
            why = f"cannot listen on port {setup.port}: {error.strerror}" if isinstance(error, OSError) else str(error)
            frames.send(writer, frames.Refused(why))
            await _hang_up(writer)
            return 1
        notes = await worker.first_checks()
        if name == "worker-0":  # the others see the same
            for line in notes:
                _tell(line)
        offered = await offer(Path(setup.directory, name + SUFFIX), worker.snapshot)
        settle_memory()
        frames.send(writer, frames.Done())
        os.write(announce, msgspec.json.encode({"port": setup.port, "pid": os.getpid()}) + b"\n")
        os.close(announce)
        background = [
            group.create_task(_obey(worker, reader, writer, stop)),
            group.create_task(_count(worker, writer)),
            group.create_task(_report(worker, writer)),
        ]
        await stop.wait()
        await worker.drain()
        for task in background:
            task.cancel()
        offered.close()
        frames.send(writer, frames.Numbers(worker.snapshot()))
        if worker.reports is not None and (batch := worker.reports.take()) is not None:
            frames.send(writer, frames.Told(batch))
        await _hang_up(writer)
    return 0


async def _obey(
    worker: Worker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stop: asyncio.Event
) -> None:
    while True:
        try:
            order = await frames.receive(reader, _DOWN)
        except EOFError:
            stop.set()  # an orphan could never be told anything again
            return
        match order:
            case frames.Prepare(spec):
                try:
                    worker.prepare(spec)
                except PrepareError as error:
                    frames.send(writer, frames.Refused(str(error)))
                else:
                    frames.send(writer, frames.Done())
            case frames.Swap():
                worker.swap()
                frames.send(writer, frames.Done())
            case frames.ReopenLog():
                worker.reopen_log()
            case frames.Look(number, only, most):
                frames.send(writer, frames.Looked(number, worker.look(only, most)))
            case frames.Cancel(number, id):
                frames.send(writer, frames.Cancelled(number, worker.gateway.cancel(id)))
            case frames.Setup():
                raise AssertionError("a worker is set up once")


async def _count(worker: Worker, writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        await asyncio.sleep(NUMBERS_EVERY)
        frames.send(writer, frames.Numbers(worker.snapshot()))


async def _report(worker: Worker, writer: asyncio.StreamWriter) -> None:
    """What the console wants to know; nothing while the parent does not read."""
    turn = 0
    while worker.reports is not None and not writer.is_closing():
        await asyncio.sleep(EVERY)
        batch = worker.reports.take()
        if writer.transport.get_write_buffer_size() > MOST_UNREAD:
            continue
        if batch is not None:
            frames.send(writer, frames.Told(batch))
        if turn % max(1, round(worker.look_every / EVERY)) == 0:
            frames.send(writer, frames.Saw(worker.see()))
        turn += 1


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        return  # the parent is gone; nobody is left to tell


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
