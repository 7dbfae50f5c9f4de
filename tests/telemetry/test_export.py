"""Traces are sent in batches, again when a place is away, and what cannot be sent is counted."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from penstock.telemetry.content import Content, Reader
from penstock.telemetry.conventions import Convention
from penstock.telemetry.export import BATCH, MOST_WAITING, TRIES, Answer, Kept, SpanExporter
from penstock.telemetry.metrics import Registry
from penstock.telemetry.options import Capture
from penstock.telemetry.otlp import Encoder
from penstock.telemetry.spans import Role
from penstock.testing.virtual_loop import VirtualLoop, run
from tests.telemetry.outcomes import STREAMED, like

READER = Reader(Capture())


class Place:
    """Answers as it is told to, one after the other; the last answer stays."""

    def __init__(self, *answers: Answer, takes: float = 0.0) -> None:
        self.answers = list(answers) or [Answer(200)]
        self.takes = takes
        self.bodies: list[bytes] = []
        self.at: list[float] = []

    async def __call__(self, body: bytes) -> Answer:
        self.bodies.append(body)
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def ids(self) -> list[str]:
        """Of requests, in the order in which they arrived."""
        found = []
        for body in self.bodies:
            request = ExportTraceServiceRequest()
            request.ParseFromString(zlib.decompress(body, 31))
            for span in request.resource_spans[0].scope_spans[0].spans:
                found += [pair.value.string_value for pair in span.attributes if pair.key == "penstock.request.id"]
        return found


class World:
    def __init__(self, place: Place) -> None:
        self.registry, self.told = Registry(), list[str]()
        self.place = place
        self.exporter = SpanExporter(
            "here",
            Encoder(Convention(), {"service.name": "penstock"}),
            place,
            rng=Random(1),
            served=dict,
            sent=self.registry.counter("penstock_telemetry_sent_total"),
            dropped=self.registry.counter("penstock_telemetry_dropped_total"),
            tell=self.told.append,
        )

    def offer(self, n: int, first: int = 0) -> None:
        for i in range(first, first + n):
            self.exporter.offer(Kept(like(STREAMED, request_id=f"req_{i}"), "ratio", {}, None, READER))

    def counted(self) -> dict[str, float]:
        series = self.registry.snapshot().series
        dropped = {row.labels[1]: row.value for row in series["penstock_telemetry_dropped_total"] if row.value}
        sent = series["penstock_telemetry_sent_total"][0].value
        return {"sent": sent} | dropped


def story(place: Place, tell: Callable[[World], Awaitable[Any]]) -> World:
    async def main(loop: VirtualLoop) -> World:
        world = World(place)
        task = loop.create_task(world.exporter.run())
        await tell(world)
        world.exporter.close()
        await task
        return world

    return run(main)


def test_a_trace_waits_a_second_for_others_and_a_full_batch_does_not() -> None:
    async def tell(world: World) -> None:
        world.offer(3)
        await asyncio.sleep(0.9)
        assert not world.place.bodies
        await asyncio.sleep(0.2)
        assert world.place.ids() == ["req_0", "req_1", "req_2"]
        world.offer(BATCH, 3)
        await asyncio.sleep(0.01)
        assert len(world.place.bodies) == 2

    world = story(Place(), tell)
    assert world.place.ids() == [f"req_{i}" for i in range(BATCH + 3)]
    assert world.counted() == {"sent": BATCH + 3}


def test_nothing_is_sent_where_nothing_is_kept() -> None:
    assert not story(Place(), lambda world: asyncio.sleep(10)).place.bodies


def test_a_place_that_is_away_is_asked_again_ever_later_and_gets_everything_once() -> None:
    async def tell(world: World) -> None:
        world.offer(1)
        await asyncio.sleep(30)

    world = story(Place(Answer(0, why="refused"), Answer(503), Answer(429), Answer(200)), tell)
    waits = [later - sooner for sooner, later in zip(world.place.at, world.place.at[1:], strict=False)]
    assert [round(wait) for wait in waits] == sorted(round(wait) for wait in waits)
    assert 0.5 <= waits[0] <= 1 <= waits[2] <= 4
    assert len(set(world.place.bodies)) == 1
    assert world.counted() == {"sent": 1}
    assert world.told == []


def test_a_place_that_says_when_to_come_back_is_not_asked_before() -> None:
    async def tell(world: World) -> None:
        world.offer(1)
        await asyncio.sleep(100)

    world = story(Place(Answer(429, retry_after=20.0), Answer(200)), tell)
    assert world.place.at[1] - world.place.at[0] == 20.0


def test_a_place_that_stays_away_loses_its_traces_which_is_counted_and_told_once_as_is_its_return() -> None:
    async def tell(world: World) -> None:
        world.offer(2)
        await asyncio.sleep(200)
        assert len(world.place.bodies) == TRIES
        world.offer(1)
        await asyncio.sleep(200)
        world.place.answers = [Answer(200)]
        world.offer(1)
        await asyncio.sleep(5)

    world = story(Place(Answer(503)), tell)
    assert world.counted() == {"sent": 1, "failed": 3}
    assert len(world.told) == 2
    assert "telemetry.traces.here does not take traces (it answered with status 503)" in world.told[0]
    assert "takes traces again" in world.told[1]


def test_what_a_place_says_is_wrong_is_not_sent_again() -> None:
    async def tell(world: World) -> None:
        world.offer(2)
        await asyncio.sleep(10)

    world = story(Place(Answer(400)), tell)
    assert len(world.place.bodies) == 1
    assert world.counted() == {"sent": 0, "refused": 2}


def test_what_comes_faster_than_it_can_be_sent_is_dropped_and_counted_and_nothing_grows() -> None:
    async def tell(world: World) -> None:
        world.offer(MOST_WAITING + 10)
        assert world.exporter.waiting == MOST_WAITING

    world = story(Place(takes=0.01), tell)
    assert world.counted() == {"sent": MOST_WAITING, "full": 10}


def test_closing_sends_what_waits_trying_once() -> None:
    async def tell(world: World) -> None:
        world.offer(BATCH + 1)

    assert story(Place(), tell).counted() == {"sent": BATCH + 1}
    away = story(Place(Answer(0)), tell)
    assert away.counted() == {"sent": 0, "failed": BATCH + 1}
    assert len(away.place.bodies) == 2


def test_closing_does_not_wait_for_a_place_that_is_away() -> None:
    async def tell(world: World) -> None:
        world.offer(1)
        await asyncio.sleep(1.1)

    world = story(Place(Answer(503, retry_after=60.0)), tell)
    assert world.place.at[-1] < 2.0
    assert world.counted() == {"sent": 0, "failed": 1}


def test_traces_that_were_being_sent_when_everything_ends_are_counted_as_lost() -> None:
    async def main(loop: VirtualLoop) -> World:
        world = World(Place(takes=1_000.0))
        task = loop.create_task(world.exporter.run())
        world.offer(BATCH + 5)
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.wait([task])
        world.exporter.give_up()
        return world

    assert run(main).counted() == {"sent": 0, "failed": BATCH + 5}


def test_a_trace_for_two_places_is_made_once_with_its_texts() -> None:
    content = Content(b'{"messages":[{"role":"user","content":"hi"}]}')
    kept = Kept(STREAMED, "ratio", {}, content, Reader(Capture(content=True)))
    assert kept.is_long
    trace = kept.trace({})
    assert kept.trace({}) is trace
    assert not kept.is_long
    (answered,) = [span for span in trace.spans if span.role is Role.ATTEMPT]
    assert answered.attributes["input"] == '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]'
