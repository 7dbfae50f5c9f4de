"""What the parent and its gateway workers say to each other, over one Unix socket each: length, then MessagePack.

A change of plane takes two steps, so that either all workers take it or none: everyone prepares, then everyone swaps.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec

from penstock.app.worker import WorkerOptions
from penstock.config.spec import PlaneSpec
from penstock.console.reports import Ended, FleetSeen, OpenSeen
from penstock.telemetry.metrics import Snapshot

MAX_FRAME: Final = 256 * 1024 * 1024  # bytes; a plane of 1,000 replicas and 100 models has 45 kB

# --- down, from the parent ---


class Setup(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Hello`: serve this, there. `addresses` are (family, address); the port is the same for all."""

    spec: PlaneSpec
    options: WorkerOptions
    addresses: tuple[tuple[int, str], ...]
    port: int
    directory: str


class Prepare(msgspec.Struct, frozen=True, tag=True):
    spec: PlaneSpec


class Swap(msgspec.Struct, frozen=True, tag=True):
    """To what was prepared last."""


class ReopenLog(msgspec.Struct, frozen=True, tag=True):
    pass


class Look(msgspec.Struct, frozen=True, tag=True):
    """At what is in flight: see `console.open_requests`. `number` comes back with the answer."""

    number: int
    only: dict[str, str]
    most: int


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """The request with this id, likewise."""

    number: int
    id: str


Down = Setup | Prepare | Swap | ReopenLog | Look | Cancel

# --- up, from a worker ---


class Hello(msgspec.Struct, frozen=True, tag=True):
    name: str
    pid: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """The last `Setup`, `Prepare` or `Swap` is done."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The last `Setup` or `Prepare` cannot be done; what was served goes on."""

    why: str


class Numbers(msgspec.Struct, frozen=True, tag=True):
    """Once a second and at the end: what is to be counted when this worker is gone."""

    snapshot: Snapshot


class Told(msgspec.Struct, frozen=True, tag=True):
    """Requests that ended, a few times a second, where somebody wants to know."""

    ended: Ended


class Saw(msgspec.Struct, frozen=True, tag=True):
    """How everything behind this worker does, every second or so, likewise."""

    fleet: FleetSeen


class Looked(msgspec.Struct, frozen=True, tag=True):
    number: int
    seen: OpenSeen


class Cancelled(msgspec.Struct, frozen=True, tag=True):
    """`done`: it was there, and not answered yet."""

    number: int
    done: bool


Up = Hello | Done | Refused | Numbers | Told | Saw | Looked | Cancelled

T = TypeVar("T")


async def receive(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[T]) -> T:
    """Raises `EOFError` when the other side is gone, `msgspec.DecodeError` when it is of another version."""
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > MAX_FRAME:
            raise msgspec.DecodeError("a frame larger than there are")
        return decoder.decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, OSError):
        raise EOFError("the other side is gone") from None


def send(writer: asyncio.StreamWriter, message: Down | Up) -> None:
    """Hand it to the connection; to one that is gone, nothing is sent."""
    data = msgspec.msgpack.encode(message)
    writer.write(len(data).to_bytes(4, "big") + data)
