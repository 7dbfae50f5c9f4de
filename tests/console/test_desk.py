"""What workers tell comes together: what counts is added, what each judges by itself is shown at its worst."""

import msgspec
import pytest

from penstock.app.reports import KEPT_A_SECOND, MOST_SPECIAL, SHOWN, Reports
from penstock.balancing.queue_values import ClassView, QueueView
from penstock.console.desk import Desk
from penstock.console.fleet import MOST_EVENTS, STALE_AFTER, see
from penstock.console.reports import DeploymentSeen, Ended, FleetSeen, ModelSeen, QueueSeen, ReplicaSeen
from penstock.core.clock import ManualClock
from penstock.core.plan import Attempt
from penstock.core.request import Priority
from penstock.stores.outcomes import Kept
from penstock.testing.virtual_loop import run
from tests.console.outcomes import kept, outcome
from tests.worlds import World

USUAL = {
    "origin": "http://a:1", "ready": True, "phase": "closed", "cool_until": 0.0, "rate_limited": False,
    "ejected_until": 0.0, "ramp": 1.0, "weight": 1.0, "inflight": 1, "inflight_tokens": 10, "pending_tokens": 2,
    "waiting": 0, "running": 3, "max_running": 8, "kv_used": 0.5, "kv_tokens": 100, "prefill_rate": 1.0,
    "step_base": 1.0, "itl_slope": 1.0,
}  # fmt: skip


def view(at, *, plane=1, in_flight=1, waiting=0, **replica):
    one = ReplicaSeen("local/0", **(USUAL | replica))
    classes = (ClassView(Priority.NORMAL, waiting, 1.0, 2.0, 1, 0, ()),)
    return FleetSeen(
        at,
        plane,
        in_flight,
        (ModelSeen("chat", ("local",), ("chat.completions",)),),
        (QueueSeen(("chat",), ("local",), True, QueueView(waiting, 1, 8, classes)),),
        (DeploymentSeen("local", "vllm", "least_cost", "meta", (one,)),),
    )


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def desk(clock):
    return Desk(clock)


def replica(desk):
    return desk.fleet_told()["deployments"][0]["replicas"][0]


def test_two_workers_are_one_fleet(desk, clock):
    desk.seen("a", view(clock.wall(), waiting=2, inflight=3, kv_used=0.2))
    desk.seen("b", view(clock.wall() - 1, waiting=1, inflight=4, kv_used=0.9, phase="open", ready=False, in_flight=5))
    one, told = replica(desk), desk.fleet_told()
    assert (one["inflight"], one["kv_used"], one["phase"], one["open_in"], one["ready"]) == (7, 0.9, "open", 1, True)
    assert told["at"] == clock.wall() - 1 and told["workers"] == 2  # as old as the oldest part of it
    assert told["queues"][0]["view"].waiting == 3 == told["queues"][0]["view"].classes[0].waiting
    assert (desk.live()["in_flight"], desk.live()["queued"], desk.live()["replicas_ready"]) == (6, 3, 1)


def test_before_anybody_has_looked_nothing_is_claimed(desk):
    assert desk.fleet_told()["at"] is None and desk.fleet_told()["deployments"] == []
    assert desk.live()["replicas"] == 0


def test_a_worker_that_is_gone_or_silent_is_left_out(desk, clock):
    desk.seen("a", view(clock.wall()))
    desk.seen("b", view(clock.wall()))
    desk.gone("a")
    assert desk.fleet.workers == 1 == replica(desk)["inflight"]
    clock.advance(STALE_AFTER + 1)
    assert desk.fleet.workers == 0 == desk.live()["in_flight"]


def test_a_worker_that_still_has_the_last_plane_does_not_hide_the_new_one(desk, clock):
    desk.seen("a", msgspec.structs.replace(view(clock.wall(), plane=2), deployments=()))
    desk.seen("b", view(clock.wall() + 1, plane=1))
    assert desk.fleet_told()["deployments"] == []


def test_what_happens_to_a_replica_is_told_once_however_many_notice(desk, clock):
    def both(**changed):
        clock.advance(60)
        for worker in "ab":
            desk.seen(worker, view(clock.wall(), **changed))

    both()
    both(phase="open", ready=False)
    both(phase="half_open")
    both(ejected_until=clock.wall() + 90)
    both()
    told = [event["what"] for event in reversed(desk.fleet_told()["events"])]
    assert told == ["not_ready", "breaker_open", "ready", "breaker_closed", "ejected", "returned"]


def test_events_are_bounded(desk, clock):
    for n in range(3 * MOST_EVENTS):
        clock.advance(60)
        desk.seen("a", view(clock.wall(), ready=bool(n % 2)))
    assert len(desk.fleet_told()["events"]) == MOST_EVENTS


def test_what_a_replica_did_lately_is_told_with_the_weight_of_what_was_left_out(desk, clock):
    now = clock.wall()
    desk.seen("a", view(now))
    desk.ended(Ended((kept(now, ttft=0.2), kept(now, ttft=0.4)), weight=10.0, n_left_out=18))
    desk.ended(Ended((kept(now, why="error", error="upstream_error", ttft=0.3),), weight=7.0))
    told = replica(desk)["last_5m"]
    assert (told["requests"], told["errors"]) == (21, 1)
    assert told["ttft_p50"] == pytest.approx(0.29) and told["ttft_p95"] == pytest.approx(0.39)
    assert desk.n_left_out == 18
    clock.advance(290)
    desk.seen("a", view(clock.wall()))
    assert replica(desk)["last_5m"] is not None
    clock.advance(20)
    desk.seen("a", view(clock.wall()))
    assert replica(desk)["last_5m"] is None


def test_attempts_that_lost_a_race_say_nothing_of_their_replica(desk, clock):
    now = clock.wall()
    desk.seen("a", view(now))
    attempts = (Attempt(0, "local/0", "cancelled", 0.0, None, 0.5), Attempt(1, "local/1", "ok", 0.1, 0.2, 0.5))
    desk.ended(Ended((kept(now, attempts=attempts),)))
    assert replica(desk)["last_5m"] is None


def test_a_view_survives_the_way_between_processes(clock):
    one = view(clock.wall(), preemptions=3.0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=FleetSeen) == one


def test_a_live_plane_is_seen_as_it_is():
    async def main(loop):
        world = World(loop, {"main/0": [], "main/1": []})
        plane = world.gateway.plane
        plane.pools["main"][0].ejected_until = loop.now() + 5.0
        plane.pools["main"][1].ready = False
        return see(plane, {}, loop, 3), loop.wall()

    seen, wall = run(main)
    first, second = seen.deployments[0].replicas
    assert (first.ejected_until, second.ejected_until) == (wall + 5.0, 0.0)
    assert (first.ready, second.ready, seen.in_flight) == (True, False, 3)
    assert seen.models[0].name == "chat" and first.prefix_hit is None


# --- what a worker sends ---


def test_everything_special_is_sent_and_a_sample_of_the_rest_that_stands_for_all():
    reports = Reports()
    for n in range(1_000):
        reports.hear(outcome(1_800_000_000.0 + n), "no")
    for _ in range(5):
        reports.hear(outcome(error="upstream_error"), "error")
    batch = reports.take()
    usual = [one for one in batch.requests if one.why != "error"]
    assert len(batch.requests) - len(usual) == 5 and len(usual) <= SHOWN
    assert len(usual) + batch.n_left_out == 1_000 == pytest.approx(len(usual) * batch.weight)


def test_a_gateway_with_little_to_do_keeps_every_request():
    reports = Reports()
    found = []
    for _ in range(40):  # ten seconds
        reports.hear(outcome(), "no")
        found += reports.take().requests
    assert {one.why for one in found} == {"ratio"} and len(found) == 40


def test_a_gateway_with_much_to_do_keeps_so_many_a_second():
    reports = Reports()
    found = []
    for _ in range(400):  # a hundred seconds
        for _ in range(100):
            reports.hear(outcome(), "capped")
        found += reports.take().requests
    n_kept = sum(one.why == "ratio" for one in found)
    assert 0.9 * KEPT_A_SECOND * 100 <= n_kept <= 1.1 * KEPT_A_SECOND * 100


def test_when_everything_fails_memory_is_bounded_and_what_was_dropped_is_counted():
    reports = Reports()
    for _ in range(MOST_SPECIAL + 7):
        reports.hear(outcome(error="upstream_error"), "error")
    batch = reports.take()
    assert (len(batch.requests), batch.n_dropped) == (MOST_SPECIAL, 7) and reports.take() is None


def test_secrets_in_what_callers_wrote_do_not_leave_the_worker():
    reports = Reports()
    reports.hear(outcome(feature="sk-abcdefghijklmnop", session="s"), "error")
    (one,) = reports.take().requests
    assert "abcdefghijklmnop" not in str(one)


def test_a_batch_survives_the_way_between_processes():
    batch = Ended((Kept(outcome(error="upstream_error", tags=("a=b",)), "error"),), 2.5, 3, 1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=Ended) == batch
