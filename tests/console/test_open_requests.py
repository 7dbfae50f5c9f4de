"""What is in flight: told when somebody looks, narrowed to what they may see, and ended by those who may."""

import asyncio

import pytest

from penstock.console.desk import Desk
from penstock.console.open_requests import open_requests
from penstock.console.reports import OpenSeen
from penstock.core.clock import ManualClock
from penstock.testing import virtual_loop
from penstock.testing.fake_upstream import Script
from tests.console.conftest import KEYS, Console
from tests.console.outcomes import InFlight, open_request
from tests.worlds import World

SLOW = Script(ttft=1.0, tokens=10, tpot=1.0)


@pytest.fixture
def new_url(tmp_path):
    return lambda: str(tmp_path / "books.db")


@pytest.fixture
def watched(loop, database):
    workers = InFlight(
        [open_request("req_b", 2.0), open_request("req_c", 3.0, org="globex")],
        [open_request("req_a", 1.0, model="embed")],
        None,
    )
    desk = Desk(ManualClock())
    desk.in_flight = workers
    console = Console(loop, database, desk=desk)
    console.workers = workers
    return console


def ask(console, path, method="GET", **more):
    return console.ask(method, path, root="/console/api", **more)


def test_those_of_all_workers_are_told_the_oldest_first_and_who_was_silent(watched):
    found = ask(watched, "/open").json
    assert [one["id"] for one in found["items"]] == ["req_a", "req_b", "req_c"]
    assert (found["n"], found["silent"]) == (3, 1)
    assert [one["id"] for one in ask(watched, "/open?model=embed&org=").json["items"]] == ["req_a"]
    assert "open" in ask(watched, "/me").json["features"]


def test_a_long_list_is_cut_and_says_how_many_there_are(watched):
    watched.workers.workers = [[open_request(f"req_{n}", n) for n in range(90)] for _ in range(2)]
    found = ask(watched, "/open").json
    assert (len(found["items"]), found["n"]) == (100, 180)
    assert found["items"][-1]["at"] == 49


def test_who_looks_after_one_organisation_sees_and_ends_its_requests_alone(watched):
    assert [one["id"] for one in ask(watched, "/open", key=KEYS["acme"]).json["items"]] == ["req_a", "req_b"]
    assert ask(watched, "/open?org=globex", key=KEYS["acme"]).status == 404
    assert ask(watched, "/requests/req_c/cancel", "POST", key=KEYS["acme"]).status == 404
    assert watched.workers.cancelled == []
    assert ask(watched, "/requests/req_b/cancel", "POST", key=KEYS["acme"]).status == 200
    assert watched.workers.cancelled == ["req_b"]


def test_what_is_ended_is_in_the_audit_log_with_who_did_it(watched):
    assert ask(watched, "/requests/req_c/cancel", "POST").json["id"] == "req_c"
    (event,) = watched.ask("GET", "/audit").json["items"]
    assert (event["actor"], event["action"], event["target"]) == ("key:owner", "request.cancel", "req_c")
    assert event["detail"] == {
        "model": "chat", "org": "globex", "key_id": "web", "replica": "a/0", "stage": "streaming",
    }  # fmt: skip


@pytest.mark.parametrize("role", ["viewer", "billing"])
def test_who_only_looks_ends_nothing(watched, role):
    assert ask(watched, "/requests/req_a/cancel", "POST", key=KEYS[role]).code == "forbidden"
    assert watched.workers.cancelled == []


def test_a_request_that_is_not_there_or_ends_meanwhile_is_said_to_be(watched):
    assert ask(watched, "/requests/req_nobody/cancel", "POST").status == 404
    watched.workers.late = True
    reply = ask(watched, "/requests/req_a/cancel", "POST")
    assert (reply.status, reply.code) == (409, "too_late")


def test_what_cannot_be_seen_is_said_to_be_not_there(loop, database):
    console = Console(loop, database, desk=Desk(ManualClock()))
    for method, path in (("GET", "/open"), ("POST", "/requests/req_a/cancel")):
        assert ask(console, path, method).code == "not_there"
    assert "open" not in ask(console, "/me").json["features"]


def test_a_request_is_told_from_its_admission_to_its_last_token():
    async def main(loop):
        world = World(loop, {"a": SLOW})

        def look(**only):
            return open_requests(world.gateway.calls.values(), loop, only, 10)

        asked = loop.create_task(world.ask())
        began = loop.wall()
        await asyncio.sleep(0.5)
        (sent,) = look().requests
        assert (sent.stage, sent.replica, sent.ttft, sent.tokens, sent.at) == ("sent", "a", None, 0, began)
        await asyncio.sleep(4.0)
        (streaming,) = look(id=sent.id, model="chat", replica="a", org="", feature="").requests
        assert (streaming.stage, streaming.ttft, streaming.tokens) == ("streaming", 1.0, 4)
        assert look(model="embed") == look(key_id="web") == look(session="x") == OpenSeen((), 0)
        await asked
        assert look() == OpenSeen((), 0)

    virtual_loop.run(main)


def test_the_first_are_told_and_the_others_counted():
    async def main(loop):
        world = World(loop, {"a": SLOW})
        asked = [loop.create_task(world.ask()) for _ in range(5)]
        await asyncio.sleep(0.5)
        seen = open_requests(world.gateway.calls.values(), loop, {}, 2)
        assert [one.id for one in seen.requests] == list(world.gateway.calls)[:2]
        assert seen.n == 5
        await asyncio.gather(*asked)

    virtual_loop.run(main)
