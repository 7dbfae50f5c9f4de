"""Service levels of a host: looked at, told to those who asked for it, resolved, and kept for the next process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from penstock.app import alerts as sending
from penstock.app.service_levels import FILE, ServiceLevels, catalogue_for
from penstock.config.load import load
from penstock.config.slos import slos_of
from penstock.control.slo import SloWatch
from penstock.core.clock import ManualClock
from penstock.telemetry.metrics import Registry, Snapshot

BASE = """\
models: { chat: { deployments: [local] } }
deployments: { local: { model: tiny } }
slos: { available: { of: availability, objective: 99.9% } }
"""
READY = ("local", "local/0")


class Hook:
    """Takes what is posted, with a status."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.taken: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Hook:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        self.taken.put_nowait((head.split(" ")[1], msgspec.json.decode(await reader.readexactly(length))))
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)
        writer.close()

    async def next(self) -> tuple[str, Any]:
        return await asyncio.wait_for(self.taken.get(), 10)


class House:
    def __init__(self, text: str, directory: Path | None = None) -> None:
        self.clock, self.told, self.gave_up = ManualClock(), list[str](), asyncio.Event()
        self.config = load(BASE + text, "penstock.yaml")
        self.registry = Registry(catalogue_for(self.config))
        self.ready = 1.0
        self.registry.read_gauge("penstock_replica_ready", lambda: [(READY, self.ready)])
        self.whole = True
        self.levels = ServiceLevels(
            self.config,
            read=self.read,
            registry=self.registry,
            clock=self.clock,
            rng=Random(1),
            secret={"env:HOOK": "http://127.0.0.1:9/s3cret"}.__getitem__,
            tell=self.tell,
            directory=directory,
        )

    def tell(self, line: str) -> None:
        self.told.append(line)
        if "was not told" in line:
            self.gave_up.set()

    async def read(self) -> Snapshot | None:
        return self.registry.snapshot() if self.whole else None

    async def pass_by(self, seconds: float) -> None:
        for _ in range(int(seconds / 10)):
            self.clock.advance(10)
            await self.levels.look()

    def value(self, name: str, *labels: str) -> float | None:
        return next((row.value for row in self.registry.snapshot().series[name] if row.labels == labels), None)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_PAUSE", 0.001)


def story(work: Any) -> None:
    asyncio.run(work)


def test_all_who_asked_are_told_that_it_began_and_that_it_is_over():
    async def work() -> None:
        async with Hook() as webhook, Hook() as slack, Hook() as alertmanager:
            house = House(
                f"alerts: {{ notify: [{{ webhook: '{webhook.url}/x' }}, {{ slack: '{slack.url}/y' }},"
                f" {{ alertmanager: '{alertmanager.url}/' }}] }}\n"
            )
            running = asyncio.create_task(house.levels.run())  # noqa: TID251 - ended below
            await asyncio.sleep(0)
            house.ready = 0.0
            await house.pass_by(80)
            assert house.told == ["Alert NoReplicaReady (page): No replica of local is ready."]
            path, said = await webhook.next()
            assert (path, said["event"], said["alert"]) == ("/x", "alert_active", "NoReplicaReady")
            path, said = await slack.next()
            assert (path, said["text"]) == ("/y", "[PAGE] NoReplicaReady: No replica of local is ready.")
            path, (said,) = await alertmanager.next()
            assert (path, said["labels"]["alertname"]) == ("/api/v2/alerts", "NoReplicaReady")
            house.ready = 1.0
            await house.pass_by(10)
            assert (await webhook.next())[1]["event"] == "alert_resolved"
            assert (await slack.next())[1]["text"].startswith("[RESOLVED]")
            _, (said,) = await alertmanager.next()
            assert said["endsAt"] == "2027-01-15T08:01:30.000Z"
            running.cancel()
            await asyncio.wait([running])

    story(work())


def test_one_that_does_not_answer_keeps_no_other_waiting_and_is_counted_without_its_address():
    async def work() -> None:
        async with Hook(500) as broken, Hook() as well:
            house = House(f"alerts: {{ notify: [{{ slack: '{broken.url}/s3cret' }}, {{ webhook: '{well.url}' }}] }}\n")
            running = asyncio.create_task(house.levels.run())  # noqa: TID251 - ended below
            await asyncio.sleep(0)
            house.ready = 0.0
            await house.pass_by(80)
            await well.next()
            for _ in range(sending.TRIES):
                await broken.next()
            await asyncio.wait_for(house.gave_up.wait(), 10)
            assert house.value("penstock_notifications_failed_total") == 1
            assert "s3cret" not in "".join(house.told)
            assert "The webhook of alerts (slack) was not told" in house.told[-1]
            running.cancel()
            await asyncio.wait([running])

    story(work())


def test_a_look_at_which_a_worker_was_missing_is_none():
    async def work() -> None:
        house = House("")
        house.ready, house.whole = 0.0, False
        await house.pass_by(200)
        assert house.told == []

    story(work())


def test_the_budget_of_a_month_is_there_after_a_restart(tmp_path: Path):
    async def work() -> None:
        first = House("", tmp_path)
        first.registry.counter("penstock_requests_total").labels("chat", "chat.completions", "5xx", "x").inc(1000)
        first.registry.counter("penstock_failures_total").labels("chat", "request", "x", "transient", "system").inc(2)
        await first.pass_by(10)
        first.levels.keep()
        assert (tmp_path / FILE).is_file()
        second = House("", tmp_path)
        await second.pass_by(20)
        assert second.value("penstock_slo_error_budget_left_ratio", "available") == pytest.approx(-1)

    story(work())


def test_a_place_that_cannot_be_written_is_told_and_nothing_else_happens(tmp_path: Path):
    (tmp_path / "file").write_text("")
    house = House("", tmp_path / "file")
    house.levels.keep()
    assert "could not be kept" in house.told[0]


def test_a_reload_changes_who_is_told_and_what_is_watched():
    async def work() -> None:
        house = House("")
        house.levels.follow(
            load(
                BASE.replace("available:", "other:") + "alerts: { rules: { NoReplicaReady: { enabled: false } } }\n",
                "x",
            )
        )
        house.ready = 0.0
        await house.pass_by(80)
        assert house.told == []
        assert house.value("penstock_slo_objective_ratio", "other") == 0.999
        assert house.value("penstock_slo_objective_ratio", "available") is None

    story(work())


def test_a_latency_that_a_reload_asks_for_is_watched_after_a_restart():
    async def work() -> None:
        house = House("")
        fast = load(BASE.replace("of: availability", "of: e2e, within: 7s"), "x")
        house.levels.follow(fast)
        (status,) = house.levels.watch.status()
        assert "after a restart" in status.blind
        fresh = SloWatch(catalogue_for(fast), slos_of(fast), ())
        assert fresh.status()[0].blind == ""

    story(work())


def test_the_console_sees_what_is_promised_and_what_has_been_wrong_within_a_day():
    async def work() -> None:
        house = House("")
        house.registry.histogram("penstock_time_to_first_token_seconds").labels("chat")
        await house.pass_by(10)
        ttft = house.registry.histogram("penstock_time_to_first_token_seconds").labels("chat")
        for _ in range(30):
            for _ in range(20):
                ttft.observe(3.5)
            await house.pass_by(10)
        (promised,) = house.levels.slos()
        assert promised["says"].startswith("99.9% of requests do not fail")
        assert (promised["budget_left"], promised["state"]) == (1.0, "ok")
        (alert,) = house.levels.alerts()
        assert (alert["name"], alert["until"]) == ("TtftHigh", None)
        assert alert["link"] == "/console/requests?model=chat&slower=3"
        await house.pass_by(300)
        (alert,) = house.levels.alerts()
        assert alert["until"] is not None
        house.clock.advance(90_000)
        assert house.levels.alerts() == []

    story(work())
