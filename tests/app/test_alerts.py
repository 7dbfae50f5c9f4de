"""That a budget has reached a share is told once: in the log, and at its webhook as often as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from penstock.app import alerts as module
from penstock.app.alerts import Alerts
from penstock.config.spec import Notify
from penstock.core.clock import ManualClock
from penstock.http.post import PostFailed, post
from penstock.limits.limit import Account, Amounts, Limit, Meter
from penstock.limits.periods import Period
from penstock.limits.rules import Rules

LIMIT = Limit("of teams", Meter.MONEY, 50 * 10**9, period=Period.MONTH, per=("org", "team"))


class Hook:
    """Takes what is posted, with the statuses that it is given, the last of them for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.bodies, self.paths = list(statuses), [], []
        self.taken = asyncio.Event()

    async def __aenter__(self) -> Hook:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook?token=s3cret"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "content-type: application/json" in head
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        self.paths.append(head.split(" ")[1])
        self.bodies.append(msgspec.json.decode(await reader.readexactly(length)))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
        writer.close()
        if status < 300:
            self.taken.set()


def alerts(told: list[str], marks: Path | None = None, secret: Callable[[str], str] = str) -> Alerts:
    return Alerts(clock=ManualClock(), rng=Random(1), secret=secret, tell=told.append, marks=marks)


def reach(one: Alerts, percent: int, *, team: str = "search", webhook: str | None = None, limit: Limit = LIMIT) -> bool:
    rules = Rules([limit])
    (charge,) = rules.apply(Account("acme", team), Amounts(1, 1, 5), 1_800_000_000.0).charges
    counted = rules.counted(charge.counter)
    assert counted is not None
    return one.reached(counted, charge, percent, 41_000_000_000, Notify(webhook=webhook))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)


def run(story: Any) -> None:
    asyncio.run(story)


def test_a_share_of_a_window_is_told_once_by_whoever_comes_first(tmp_path: Path) -> None:
    told: list[str] = []
    one, other = alerts(told, tmp_path / "told"), alerts(told, tmp_path / "told")
    assert reach(one, 80)
    assert not reach(other, 80)
    assert reach(other, 100)
    assert reach(other, 80, team="ads")
    assert not reach(alerts(told, tmp_path / "told"), 80)  # after a restart
    assert told[0] == "of teams: 80% of $50.00 spent this month is reached; $41.00 is spent or reserved."
    assert told[1].endswith("reserved, and what may cost more is refused.")
    assert len(told) == 3


def test_where_no_mark_can_be_made_it_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "told").write_text("not a directory")
    assert reach(alerts([], tmp_path / "told"), 80)
    assert reach(alerts([]), 80)


def test_a_webhook_gets_what_a_program_and_a_person_need(tmp_path: Path) -> None:
    async def story() -> None:
        async with Hook(204) as hook:
            one = alerts([], secret={"env:HOOK": hook.url}.__getitem__)
            async with asyncio.TaskGroup() as group:
                running = group.create_task(one.run())
                reach(one, 80, webhook="env:HOOK")
                await asyncio.wait_for(hook.taken.wait(), 10)
                running.cancel()
            assert hook.paths == ["/hook?token=s3cret"]
            (body,) = hook.bodies
            assert len(body.pop("id")) == 32
            assert body == {
                "event": "budget_reached",
                "text": "of teams: 80% of $50.00 spent this month is reached; $41.00 is spent or reserved.",
                "at": "2027-01-15T08:00:00Z",
                "budget": "of teams",
                "window": "2027-01",
                "percent": 80,
                "amount_nanos": 50_000_000_000,
                "spent_nanos": 41_000_000_000,
                "hard": True,
                "org": "acme",
                "team": "search",
                "key": "",
                "user": "",
                "model": "",
            }

    run(story())


def test_a_webhook_that_fails_is_tried_again_and_then_given_up_without_its_address() -> None:
    async def story(group: asyncio.TaskGroup) -> None:
        given_up = asyncio.Event()
        told: list[str] = []

        class Told(list[str]):
            def append(self, line: str) -> None:
                told.append(line)
                if "was not told" in line:
                    given_up.set()

        one = alerts(Told())
        running = group.create_task(one.run())
        async with Hook(500, 302, 200) as hook:
            reach(one, 80, webhook=hook.url)
            await asyncio.wait_for(hook.taken.wait(), 10)
            assert len({body["id"] for body in hook.bodies}) == 1
            assert len(hook.bodies) == 3
            assert one.failed == 0
        async with Hook(500) as hook:
            reach(one, 90, webhook=hook.url)
            await asyncio.wait_for(given_up.wait(), 10)
            assert len(hook.bodies) == module.TRIES
            assert one.failed == 1
            assert "was not told (answered with status 500)" in told[-1]
            assert "s3cret" not in "".join(told)
        running.cancel()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            await story(group)

    run(main())


@pytest.mark.parametrize("url", ["hooks.example.com/x", "ftp://127.0.0.1/x", "http://127.0.0.1:9/s3cret", "http:///x"])
def test_what_cannot_be_posted_to_is_a_failure_without_the_address(url: str) -> None:
    async def story() -> None:
        with pytest.raises(PostFailed) as failed:
            await post(url, b"{}", seconds=5)
        assert "s3cret" not in str(failed.value)

    run(story())
