"""`GET /metrics`: this process's numbers, or those of all workers added up, whichever of them is asked.

Each worker offers its raw numbers on a Unix socket in a directory that only this user can open; the one that is scraped
reads the others'. What ended workers had counted is offered by their parent in the same way, so no counter falls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from penstock.gateway.exchange import Exchange
from penstock.telemetry.catalogue import CATALOGUE, Metric
from penstock.telemetry.metrics import Series, Snapshot, merge
from penstock.telemetry.prometheus import Exposition, negotiate

SUFFIX: Final = ".metrics"
READ_WITHIN: Final = 1.0  # seconds, for all other workers together
MAX_SNAPSHOT: Final = 64 * 1024 * 1024  # bytes

UNREADABLE: Final = "penstock_workers_unreadable"

ReadSnapshot = Callable[[], Snapshot]


class MetricsPage:
    """Answers scrapes. With `directory`, there are other workers, and `answer_for_all` is the one to use."""

    def __init__(
        self,
        read: ReadSnapshot,
        *,
        directory: Path | None = None,
        own: str = "",
        catalogue: Iterable[Metric] = CATALOGUE,
    ) -> None:
        """`catalogue` is that of the registries, which have the same."""
        self._read, self._directory, self._own = read, directory, own
        self._exposition = Exposition(catalogue)

    def answer(self, exchange: Exchange) -> None:
        self._respond(exchange, self._read())

    async def answer_for_all(self, exchange: Exchange) -> None:
        assert self._directory is not None, "there are no others"
        snapshots, unreadable = await read_all(self._directory, skip=self._own)
        merged = merge([self._read(), *snapshots])
        merged.series[UNREADABLE] = (Series((), unreadable),)
        self._respond(exchange, merged)

    def _respond(self, exchange: Exchange, snapshot: Snapshot) -> None:
        form = negotiate((exchange.header(b"accept") or b"").decode("latin-1"))
        exchange.respond(200, self._exposition.render(snapshot, form), content_type=form.value.encode())


async def offer(path: Path, read: ReadSnapshot) -> asyncio.Server:
    """Give a snapshot to everybody who connects to the socket at `path`."""

    async def give(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(msgspec.msgpack.encode(read()))
            await writer.drain()
        except OSError:
            return  # whoever asked is gone
        finally:
            writer.close()

    _remove(path)  # left by the worker that had this name before
    return await asyncio.start_unix_server(give, path)


async def read_all(directory: Path, *, skip: str) -> tuple[list[Snapshot], int]:
    """The snapshots offered in `directory` but for `skip`, and how many could not be read in time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_read_one(path)) for path in _sockets(directory) if path.name != skip + SUFFIX]
    results = [task.result() for task in tasks]
    found = [snapshot for snapshot in results if snapshot is not None]
    return found, len(results) - len(found)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sockets(directory: Path) -> Iterator[Path]:
    return directory.glob("*" + SUFFIX)


async def _read_one(path: Path) -> Snapshot | None:
    try:
        async with asyncio.timeout(READ_WITHIN):
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_SNAPSHOT)
            try:
                return msgspec.msgpack.decode(await reader.read(-1), type=Snapshot)
            finally:
                writer.close()
    except (OSError, msgspec.DecodeError):  # TimeoutError is an OSError
        return None
