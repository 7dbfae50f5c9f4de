"""Hears what engines say about their KV caches, over ZeroMQ, and tells the exact index.

One subscriber for each engine. What it missed it asks for again, where the engine repeats; otherwise it forgets what it
knew of that engine, as it does when the connection breaks or the engine was restarted: the index may know too little,
never what is not so. Nothing that an engine sends can end a subscriber. After vllm/distributed/kv_events.py, which
publishes `topic, number, batch` on a PUB socket and repeats on a ROUTER socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from penstock.balancing.exact_index import EngineCache, ExactIndex
from penstock.core.clock import Clock
from penstock.wire.kv_events import (
    MAX_FRAME,
    AllBlocksCleared,
    BadFrame,
    Batch,
    BlockRemoved,
    BlockStored,
    decode,
    short,
)
from penstock.wire.kv_feed import MAX_HELD, Do, Feed

if TYPE_CHECKING:
    import zmq.asyncio

REPEAT_WITHIN: Final = 5.0  # seconds for the last batch of a repeat, counted anew from each one
BURST: Final = 32  # batches that one engine may have applied before others get their turn
RECONNECT: Final = (100, 5_000)  # milliseconds: the first wait, and the longest as it doubles
MAX_WAITING: Final = 20_000  # batches in a socket's own queue; then the newest are lost, which shows as a gap


class Source(msgspec.Struct, frozen=True):
    """Where one engine publishes, and whose cache it is. `replay`: where it repeats; "": nowhere."""

    replica: str
    deployment: str
    endpoint: str
    replay: str = ""
    topic: str = ""
    rank: int = 0
    ranks: int = 1


class Heard(msgspec.Struct):
    """What came of one subscription. Numbers are since it was made."""

    connected: bool = False
    batches: int = 0
    refused: int = 0  # frames that are no batch of events; the cache counts as empty then
    unknown: int = 0  # events of an unknown kind, which were passed over
    gaps: int = 0  # times that batches were missing
    restarts: int = 0  # connections after the first, and publishers that were started anew behind one
    unanswered: int = 0  # repeats that did not come to their end in time
    failure: str = ""  # why it was given up: an address that is none


def sources_of(
    replica: str, deployment: str, origin: str, events: str, replay: str = "", topic: str = "", ranks: int = 1
) -> tuple[Source, ...]:
    """`events` and `replay` are as the engine was told to bind, such as `tcp://*:5557`: the host of `origin` takes the
    place of the star, and each further rank has the next port, as with vLLM. Raises ValueError.
    """
    host = urlsplit(origin).hostname or ""
    return tuple(
        Source(
            replica, deployment, _at(events, host, rank), _at(replay, host, rank) if replay else "", topic, rank, ranks
        )
        for rank in range(ranks)
    )


class KvEvents:
    """Owns the subscribers. `run` them in a task of their own; `follow` says whom to hear, again after each change."""

    def __init__(self, index: ExactIndex, clock: Clock) -> None:
        self._index, self._clock = index, clock
        self._wanted: frozenset[Source] = frozenset()
        self._running: dict[Source, tuple[Subscriber, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()
        self._stopping = False

    @property
    def heard(self) -> dict[Source, Heard]:
        return {source: subscriber.heard for source, (subscriber, _) in self._running.items()}

    def follow(self, wanted: Collection[Source]) -> None:
        """Hear these and nobody else."""
        self._wanted = frozenset(wanted)
        self._changed.set()

    def stop(self) -> None:
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Until `stop`. Raises ImportError without pyzmq, which is loaded when there is somebody to hear."""
        while not (self._wanted or self._stopping):
            self._changed.clear()
            await self._changed.wait()
        import zmq.asyncio

        context = zmq.asyncio.Context()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    keep = frozenset() if self._stopping else self._wanted
                    for source in [source for source in self._running if source not in keep]:
                        subscriber, task = self._running.pop(source)
                        subscriber.leave()
                        task.cancel()
                    if self._stopping:
                        return
                    for source in sorted(keep - self._running.keys(), key=lambda one: (one.replica, one.rank)):
                        subscriber = Subscriber(source, self._index, self._clock)
                        self._running[source] = subscriber, group.create_task(subscriber.run(context))
                    await self._changed.wait()
        finally:
            for subscriber, _ in self._running.values():
                subscriber.leave()
            self._running.clear()
            context.destroy(linger=0)


class Subscriber:
    """One engine's events. `leave` ends what it does to the index at once, before its task has ended."""

    def __init__(self, source: Source, index: ExactIndex, clock: Clock) -> None:
        self.heard = Heard()
        self._source, self._index, self._clock = source, index, clock
        self._cache: EngineCache = index.join(source.replica, source.deployment, source.ranks, source.rank)
        self._feed = Feed(replays=bool(source.replay))
        self._held: list[tuple[int, Batch]] = []  # what came while a repeat was awaited
        self._group: int | None = None  # of a hybrid model's KV cache groups, the one whose blocks make up prefixes
        self._wants_from: int | None = None  # a repeat is to be asked for
        self._left = False

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._index.leave(self._cache)

    async def run(self, context: zmq.asyncio.Context) -> None:
        """Until it is cancelled, or there is nothing to connect to."""
        import zmq

        try:
            await self._listen(context)
        except zmq.ZMQError as error:
            self.heard.failure = str(error)
            self._on_monitor(False)

    async def _listen(self, context: zmq.asyncio.Context) -> None:
        import zmq

        live = context.socket(zmq.SUB)
        monitor: zmq.asyncio.Socket = live.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        repeats: zmq.asyncio.Socket | None = None
        poller = zmq.asyncio.Poller()
        try:
            _prepare(live)
            live.setsockopt(zmq.SUBSCRIBE, self._source.topic.encode())
            live.connect(self._source.endpoint)
            poller.register(monitor, zmq.POLLIN)
            poller.register(live, zmq.POLLIN)
            until = 0.0
            while True:
                if self._wants_from is not None:
                    if repeats is not None:
                        poller.unregister(repeats)
                        repeats.close(linger=0)
                    repeats = context.socket(zmq.DEALER)
                    _prepare(repeats)
                    repeats.connect(self._source.replay)
                    await repeats.send_multipart([b"", self._wants_from.to_bytes(8, "big")], zmq.NOBLOCK)
                    poller.register(repeats, zmq.POLLIN)
                    self._wants_from, until = None, self._clock.now() + REPEAT_WITHIN
                wait = None if repeats is None else max(0, int((until - self._clock.now()) * 1_000))
                ready = dict(await poller.poll(wait))
                for frames in await _burst(monitor):  # always: a connection is told of before what comes over it
                    self._on_monitor(int.from_bytes(frames[0][:2], "little") == zmq.EVENT_HANDSHAKE_SUCCEEDED)
                if repeats is not None and self._wants_from is None:
                    ended = False
                    if repeats in ready:
                        until = self._clock.now() + REPEAT_WITHIN
                        for frames in await _burst(repeats):
                            ended = self._on_repeat(frames)
                    elif until <= self._clock.now():
                        self.heard.unanswered += 1
                        ended = True
                    if ended or not self.heard.connected:
                        poller.unregister(repeats)
                        repeats.close(linger=0)
                        repeats = None
                        self._on_repeated()
                if live in ready:
                    for frames in await _burst(live):
                        self._on_live(frames)
                await asyncio.sleep(0)  # sockets with more to read do not wait
        finally:
            live.disable_monitor()
            for socket in (monitor, live, repeats):
                if socket is not None:
                    socket.close(linger=0)

    def _on_monitor(self, connected: bool) -> None:
        self._index.lost(self._cache)
        self._held.clear()
        self.heard.connected = connected
        if not connected:
            return
        self.heard.restarts += self.heard.batches > 0
        if self._feed.connected():
            self._wants_from = 0
        else:
            self._index.hears(self._cache)

    def _on_live(self, frames: list[bytes]) -> None:
        if not self.heard.connected:  # the rest of a connection that has ended
            return
        if len(frames) != 3 or len(frames[1]) != 8:
            self._refuse()
            return
        number = int.from_bytes(frames[1], "big")
        batch = self._read(frames[2])
        what = self._feed.live(number, batch.ts)
        if what is Do.RESTART:
            self.heard.restarts += 1
            self._index.lost(self._cache)
            self._held.clear()
            self._wants_from = 0
        elif what is Do.REPEAT:
            self.heard.gaps += 1
            self._wants_from = self._feed.next
        if what in (Do.HOLD, Do.REPEAT, Do.RESTART):
            if len(self._held) < MAX_HELD:
                self._held.append((number, batch))
            # one that has no room is missing later, and then the cache is forgotten
            return
        self._do(what, batch)

    def _on_repeat(self, frames: list[bytes]) -> bool:
        """True: that was the last."""
        if len(frames) < 3 or len(frames[-2]) != 8:  # an empty one, of some a topic, the number, the batch
            self._refuse()
            return False
        number = int.from_bytes(frames[-2], "big", signed=True)
        if number < 0:
            return True
        batch = self._read(frames[-1])
        self._do(self._feed.repeat(number, batch.ts), batch)
        return False

    def _on_repeated(self) -> None:
        self._feed.repeated()
        held, self._held = self._held, []
        for number, batch in held:
            self._do(self._feed.live_again(number, batch.ts), batch)
        if self.heard.connected:
            self._index.hears(self._cache)

    def _do(self, what: Do, batch: Batch) -> None:
        if what is Do.FORGET:
            self.heard.gaps += 1
            self._index.clear(self._cache)
        if what in (Do.APPLY, Do.FORGET):
            self.heard.batches += 1
            self._apply(batch)

    def _read(self, payload: bytes) -> Batch:
        """One that cannot be read may have said anything: as if the cache had been cleared."""
        try:
            batch = decode(payload)
        except BadFrame:
            self.heard.refused += 1
            return Batch(self._feed.last_ts, [AllBlocksCleared()])
        self.heard.unknown += batch.unknown
        return batch

    def _refuse(self) -> None:
        self.heard.refused += 1
        self._index.clear(self._cache)

    def _apply(self, batch: Batch) -> None:
        if self._left:
            return
        index, cache = self._index, self._cache
        for event in batch.events:
            if isinstance(event, BlockStored):
                if not event.usable:
                    continue
                if self._group is None:
                    self._group = event.group_idx
                if event.group_idx == self._group:
                    blocks = [short(block) for block in event.block_hashes]
                    parent = None if event.parent_block_hash is None else short(event.parent_block_hash)
                    extras = [event.extra(place) for place in range(len(blocks))]
                    index.stored(
                        cache, blocks, parent, event.token_ids, event.block_size, extras if any(extras) else ()
                    )
            elif isinstance(event, BlockRemoved):
                if event.usable and (event.group_idx is None or event.group_idx == self._group):
                    index.removed(cache, [short(block) for block in event.block_hashes])
            else:
                index.clear(cache)


def _prepare(socket: zmq.asyncio.Socket) -> None:
    import zmq

    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.RCVHWM, MAX_WAITING)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT[0])
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT[1])
    # a host that vanished without a word is noticed: its connection counts as broken
    socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15_000)


async def _burst(socket: zmq.asyncio.Socket) -> list[list[bytes]]:
    """What is there, at most `BURST` messages."""
    import zmq

    found: list[list[bytes]] = []
    while len(found) < BURST:
        try:
            frames: Any = await socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            break
        found.append(frames)
    return found


def _at(template: str, host: str, rank: int) -> str:
    scheme, _, rest = template.partition("://")
    where, colon, port = rest.rpartition(":")
    if scheme != "tcp" or not colon or not port.isdecimal() or not 1 <= int(port) + rank <= 65_535:
        raise ValueError(f"`{template}` is not an endpoint such as tcp://*:5557")
    if where == "*":
        if not host:
            raise ValueError(f"`{template}` needs a host in the place of its star, and the engine's address has none")
        where = f"[{host}]" if ":" in host else host
    return f"tcp://{where}:{int(port) + rank}"
