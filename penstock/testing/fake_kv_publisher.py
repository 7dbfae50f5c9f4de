"""An engine's publisher of KV events, as far as a subscriber can tell: for tests and for trying things out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.wire.kv_events import Batch, Event, encode

if TYPE_CHECKING:
    import zmq.asyncio


class FakeKvPublisher:
    """Publishes what it is told, keeps the last `keeps` batches, and repeats when `repeat` is called. `asked`: the
    numbers from which a repeat was wanted.
    """

    def __init__(
        self, context: zmq.asyncio.Context, endpoint: str = "tcp://127.0.0.1:*", replay: str = "", keeps: int = 100
    ) -> None:
        import zmq

        self._keeps = keeps
        self._live = context.socket(zmq.XPUB)  # hears who subscribes, and publishes like any PUB
        self._live.bind(endpoint)
        self._repeats = context.socket(zmq.ROUTER)
        self._repeats.bind(replay or "tcp://127.0.0.1:*")
        self.endpoint = self._live.getsockopt_string(zmq.LAST_ENDPOINT)
        self.replay = self._repeats.getsockopt_string(zmq.LAST_ENDPOINT)
        self.kept: list[tuple[int, bytes]] = []
        self.next = 0
        self.asked: list[int] = []

    async def subscribed(self) -> None:
        """Somebody listens from now on."""
        await self._live.recv()

    async def publish(self, *events: Event, lost: bool = False, rank: int = 0) -> None:
        """One batch; `lost`: it does not arrive, but is kept."""
        await self.publish_bytes(encode(Batch(1_800_000_000.0 + self.next, list(events), rank)), lost=lost)

    async def publish_bytes(self, payload: bytes, *, lost: bool = False) -> None:
        number, self.next = self.next, self.next + 1
        self.kept = [*self.kept, (number, payload)][-self._keeps :]
        if not lost:
            await self.send([b"", number.to_bytes(8, "big"), payload])

    async def send(self, frames: Sequence[bytes]) -> None:
        """Whatever it is."""
        await self._live.send_multipart(frames)

    async def repeat(self) -> None:
        """Wait for somebody to ask, and answer."""
        caller, empty, first = await self._repeats.recv_multipart()
        self.asked.append(int.from_bytes(first, "big"))
        for number, payload in self.kept:
            if number >= self.asked[-1]:
                await self._repeats.send_multipart([caller, empty, number.to_bytes(8, "big"), payload])
        await self._repeats.send_multipart([caller, empty, b"\xff" * 8, b""])

    def close(self) -> None:
        self._live.close(linger=0)
        self._repeats.close(linger=0)
