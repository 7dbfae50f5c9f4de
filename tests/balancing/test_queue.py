"""The central queue, by hand: who is sent when, and who is told no."""

from __future__ import annotations

import msgspec
import pytest

from penstock.balancing.balancer import Balancer, Dispatch
from penstock.balancing.choice import Choice
from penstock.balancing.queue import RELOOK, WINDOW, Queue
from penstock.balancing.queue_options import ClassOptions
from penstock.balancing.queue_values import Reason
from penstock.balancing.ticket import Ticket
from penstock.core.fleet import Replica
from penstock.core.request import Priority
from tests.balancing.queue_world import World, options, request


def full(replicas=1, opts=None, **about):
    """Every replica has two prompts of 8,000 tokens pending, and one more has to wait."""
    world = World(replicas, opts)
    for n in range(2 * replicas):
        world.offer(f"first{n}", **about)
    assert world.sent == [f"first{n}" for n in range(2 * replicas)]
    return world


# Late binding


def test_a_request_is_sent_at_once_while_its_replica_has_room():
    world = World(2)
    world.offer("a")
    assert world.held["a"].replica.name == "r0" and world.queue.waiting == 0


def test_a_request_waits_while_its_best_replica_has_the_threshold_pending():
    world = full()
    world.offer("late")
    assert world.waiting() == ["late"] and world.queue.waiting == 1


@pytest.mark.parametrize("event", ["first_token", "end", "leave"])
def test_whoever_waits_is_sent_when_a_prompt_is_computed_an_answer_ends_or_a_caller_leaves(event):
    world = full()
    world.offer("late")
    getattr(world, event)("first0")
    assert "late" in world.held


def test_a_request_waits_for_the_replica_that_has_its_prefix_and_not_for_the_first_one_with_room():
    world = full(2)
    world.chooser.cached["late", "r1"] = 31_900
    world.offer("late", 32_000)
    world.first_token("first0")
    world.first_token("first2")
    assert world.held["first2"].replica.name == "r0" and world.waiting() == ["late"]
    world.first_token("first1")
    assert world.held["late"].replica.name == "r1"


def test_what_other_tenants_have_waiting_for_the_same_replica_comes_before_it():
    world = full(2)
    for n in range(5):
        world.chooser.cached[f"noisy{n}", "r1"] = 32_000
        world.offer(f"noisy{n}", 40_000, tenant="noisy")  # a second each, at r1
    for tenant in ("quiet", "noisy"):
        world.chooser.cached[tenant, "r1"] = 31_900
        world.offer(tenant, 32_000, tenant=tenant)
    world.first_token("first0")
    world.first_token("first2")
    assert world.held["quiet"].replica.name == "r0", "four seconds there are less than two and others' five"
    assert "noisy" in world.waiting()


def test_providers_whose_capacity_nobody_knows_have_always_room():
    world = World(kv_tokens=0)
    for n in range(50):
        world.offer(f"{n}")
    assert len(world.sent) == 50


def test_a_replica_that_becomes_ready_gets_what_waits():
    world = full()
    world.offer("late")
    new = Replica("r1", "local", kv_tokens=1_000_000)
    world.replicas.append(new)
    world.queue.room(new)
    world.drive()
    assert world.held["late"].replica is new


def test_room_that_nobody_told_of_is_seen_soon():
    world = full()
    world.replicas.append(Replica("r1", "local", kv_tokens=1_000_000, ready=False))
    world.offer("late")
    world.pass_time(0.1)
    world.replicas[1].ready = True  # as when a breaker half-opens
    world.pass_time(0.1)
    assert world.waiting() == ["late"]
    world.pass_time(RELOOK)
    assert world.held["late"].replica.name == "r1"


def test_answers_in_one_piece_make_room_when_their_prompt_is_supposed_to_be_computed():
    world = World()
    for name in ("a", "b"):
        world.offer(name, 8_100, stream=False)
    world.offer("late")
    world.pass_time(4 * RELOOK + 0.01)
    assert world.waiting() == ["late"]
    world.replicas[0].first_token(8_100, world.now)  # the balancer does so when they are computed, after 1.0125 s
    world.held["a"].uncached = 0
    world.pass_time(0.002)
    assert world.waiting() == ["late"]
    world.pass_time(0.001)
    assert "late" in world.held


# Order


def test_a_short_prompt_goes_before_a_long_one_that_came_first():
    world = full()
    world.offer("long", 60_000)
    world.pass_time(0.1)
    world.offer("short", 500)
    world.pass_time(0.1)
    world.first_token("first0")
    assert world.sent[2] == "short"


def test_a_long_prompt_goes_before_a_short_one_once_it_has_waited_for_long():
    world = full()
    world.offer("long", 60_000)
    world.pass_time(20.0)
    world.offer("short", 500)
    world.pass_time(0.1)
    world.first_token("first0")
    assert world.sent[-1] == "long"


def test_the_ratio_counts_only_what_the_replica_has_to_compute():
    world = full()
    world.chooser.cached["known", "r0"] = 59_500
    world.offer("short", 5_000)
    world.offer("known", 60_000)
    world.pass_time(0.1)
    world.first_token("first0")
    world.first_token("first1")
    assert world.sent[2:] == ["known", "short"]


def test_fcfs_sends_the_oldest_whatever_its_length():
    world = full(opts=options(order="fcfs"))
    world.offer("long", 60_000)
    world.pass_time(0.1)
    world.offer("short", 500)
    world.pass_time(0.1)
    world.first_token("first0")
    assert world.sent[-1] == "long"


def test_the_higher_class_goes_first():
    world = full(priority=Priority.CRITICAL)
    for priority in reversed(Priority):
        world.offer(priority.value, priority=priority)
        world.pass_time(0.1)
    for name in ("first0", "first1", "critical", "high"):
        world.first_token(name)
        world.pass_time(0.1)
    assert world.sent[2:] == ["critical", "high", "normal", "low"] and not world.stopped


def test_a_class_without_a_turn_for_too_long_gets_one():
    world = full(opts=options(low=ClassOptions(promote_after=5.0)), priority=Priority.HIGH)
    world.offer("low", priority=Priority.LOW)
    world.pass_time(6.0)
    world.offer("high1", priority=Priority.HIGH)
    world.offer("high2", priority=Priority.HIGH)
    world.first_token("first0")
    assert world.sent[-1] == "low"
    world.first_token("first1")
    world.first_token("low")
    assert world.sent[-2:] == ["high1", "high2"]


def test_a_retry_keeps_its_place_and_its_age():
    world = full(2, options(order="fcfs"))
    for name in ("second", "third"):
        world.pass_time(0.1)
        world.offer(name)
    world.retry("first0")
    assert world.sent[-1] == "second", "the retry left its room behind, and its other replica has none"
    world.first_token("first1")
    assert world.sent[-1] == "first0" and world.held["first0"].replica.name == "r1"


# No


def test_a_full_class_says_no_with_its_depth_and_how_long_what_is_ahead_takes():
    world = full(opts=options(normal=ClassOptions(depth=2)))
    for name in ("a", "b", "c"):
        world.offer(name)
    refusal = world.refused["c"]
    assert (refusal.reason, refusal.priority, refusal.depth) == (Reason.FULL, Priority.NORMAL, 2)
    assert refusal.drain == pytest.approx(2.0)  # two prompts of a second each, one replica
    assert refusal.told() == "The queue for normal requests is full (2 wait). What is ahead takes about 2.0 s."
    world.offer("d", priority=Priority.LOW)
    assert world.waiting() == ["a", "b", "d"]


def test_who_waited_for_the_whole_of_its_classs_timeout_is_told_so():
    world = full(opts=options(normal=ClassOptions(timeout=3.0)))
    world.offer("late")
    world.pass_time(2.9)
    assert not world.refused
    world.pass_time(0.2)
    assert world.refused["late"].reason is Reason.TIMEOUT and world.refused["late"].waited == pytest.approx(3.0)
    assert world.queue.waiting == 0


def test_a_deadline_that_the_queue_ahead_makes_unreachable_is_refused_at_once():
    world = full()
    for n in range(5):
        world.offer(f"ahead{n}")
    world.offer("hopeless", deadline=world.now + 6.0)  # 5 s of prompts ahead, and 3 s at the replica
    assert world.refused["hopeless"].reason is Reason.DEADLINE
    assert world.refused["hopeless"].wait == pytest.approx(8.0)
    assert world.refused["hopeless"].drain == pytest.approx(5.0)
    world.offer("patient", deadline=world.now + 9.0)
    assert "patient" not in world.refused


def test_a_deadline_that_even_a_free_replica_cannot_keep_is_refused():
    world = World()
    world.offer("long", 40_000, deadline=world.now + 4.0)
    assert world.refused["long"].reason is Reason.DEADLINE and not world.sent


def test_who_waits_is_refused_as_soon_as_its_deadline_cannot_be_kept_any_more():
    world = full()
    world.offer("late", deadline=world.now + 4.0)  # 3 s at the replica, so it can wait for 1 s
    world.pass_time(0.9)
    assert world.waiting() == ["late"]
    world.pass_time(0.2)
    assert world.refused["late"].reason is Reason.DEADLINE


def test_a_flood_of_one_tenant_does_not_make_anothers_deadline_unreachable():
    world = full()
    for n in range(100):
        world.offer(f"flood{n}", tenant="noisy")
    world.offer("quiet", tenant="quiet", deadline=world.now + 5.0)
    assert "quiet" not in world.refused
    world.offer("noisy", tenant="noisy", deadline=world.now + 5.0)
    assert world.refused["noisy"].reason is Reason.DEADLINE


def test_without_any_replica_the_answer_is_no_at_once():
    world = World()
    world.replicas[0].ready = False
    world.offer("a")
    assert world.refused["a"].reason is Reason.NO_REPLICA


def test_who_waits_is_told_when_the_last_replica_is_gone():
    world = full()
    world.offer("late")
    world.replicas[0].ready = False
    world.queue.look_again()
    world.drive()
    assert world.refused["late"].reason is Reason.NO_REPLICA


# Floors and preemption


def test_a_floor_is_kept_free_for_its_class():
    world = World(4, options(high=ClassOptions(slots=1, share=0.25)))
    world.queue.resize(4)
    for n in range(4):
        world.offer(f"n{n}")
    assert world.waiting() == ["n2", "n3"]
    world.offer("h0", priority=Priority.HIGH)
    world.offer("h1", priority=Priority.HIGH)
    assert world.sent == ["n0", "n1", "h0", "h1"]
    world.end("h0")
    assert world.waiting() == ["n2", "n3"], "what a high one leaves is for high ones"
    world.end("n0")
    assert world.waiting() == ["n3"]


def test_floors_that_do_not_fit_together_hold_for_the_higher_classes():
    world = World(4, options(critical=ClassOptions(slots=3), low=ClassOptions(slots=3)))
    world.queue.resize(4)
    assert [view.floor for view in world.queue.view(world.now).classes] == [3, 0, 0, 1]


def test_who_had_to_wait_for_a_floor_is_sent_to_any_replica_when_there_is_a_slot():
    world = World(2)
    world.queue.resize(1)
    world.offer("a")
    world.offer("b")
    assert world.waiting() == ["b"]
    world.end("a")
    assert "b" in world.held


def test_a_higher_class_has_a_lower_one_stopped_that_has_no_first_token():
    world = full(priority=Priority.LOW)
    world.offer("urgent", priority=Priority.CRITICAL)
    assert world.stopped == ["first1"] and "urgent" in world.held and world.waiting() == ["first1"]
    world.first_token("first0")
    assert "first1" in world.held


def test_nobody_is_stopped_after_its_first_token_or_for_a_class_that_may_not_or_for_its_equals():
    world = full(priority=Priority.LOW)
    world.offer("normal")
    world.offer("low", priority=Priority.LOW)
    assert world.stopped == []
    world = full(priority=Priority.HIGH)
    world.offer("high", priority=Priority.HIGH)
    assert world.stopped == []
    world = World()
    world.queue.resize(2)
    for name in ("a", "b"):
        world.offer(name, priority=Priority.LOW)
        world.first_token(name)
    world.offer("urgent", priority=Priority.CRITICAL)
    assert world.stopped == [] and world.waiting() == ["urgent"]


def test_a_slot_is_made_by_stopping_somebody_on_any_replica():
    world = World(2)
    world.queue.resize(2)
    world.offer("old", priority=Priority.LOW)
    world.offer("young", priority=Priority.LOW)
    world.first_token("young")
    world.offer("urgent", 4_000, priority=Priority.CRITICAL)
    assert world.stopped == ["old"] and "urgent" in world.held


def test_nobody_is_stopped_more_than_twice():
    world = full(priority=Priority.LOW)
    for n in range(6):
        world.offer(f"urgent{n}", priority=Priority.CRITICAL)
        for name in [name for name in world.held if name.startswith("urgent")]:
            world.end(name)
    assert max(world.stopped.count(name) for name in world.stopped) <= 2


def test_one_that_could_not_be_stopped_in_time_goes_on():
    world = full(priority=Priority.LOW)
    ticket = Ticket(request("urgent", priority=Priority.CRITICAL), (world.replicas,), world.gates)
    assert world.queue.offer(ticket, world.now, world.rng) is None
    found = world.queue.next(world.now, world.rng)
    assert found is not None and found[0] is world.tickets["first1"]
    world.first_token("first1")  # it was on its way
    assert world.queue.view(world.now).running == 3 and "first1" in world.held


# Leaving, looking


def test_leaving_twice_is_harmless_and_gives_back_once():
    world = full()
    ticket = world.tickets["first0"]
    world.leave("first0")
    world.queue.leave(ticket)
    assert world.queue.view(world.now).running == 1


def test_the_view_says_who_waits_and_for_how_long():
    world = full(priority=Priority.CRITICAL)
    world.offer("a", tenant="one")
    world.pass_time(0.5)
    world.offer("b", tenant="one", priority=Priority.HIGH)
    world.offer("c", tenant="two", priority=Priority.HIGH)
    view = world.queue.view(world.now)
    assert (view.waiting, view.running) == (3, 2)
    high, normal = view.classes[1:3]
    assert (high.waiting, normal.waiting, normal.oldest) == (2, 1, pytest.approx(0.5))
    assert [(tenant.tenant, tenant.waiting) for tenant in high.tenants] == [("one", 1), ("two", 1)]
    assert normal.drain > high.drain > 0.0


def test_one_event_costs_few_choices_however_many_wait():
    world = full(64)
    for n in range(WINDOW):
        world.offer(f"late{n}", 2_000 + 100 * n)
    world.pass_time(0.5)
    before = world.chooser.calls
    world.first_token("first0")
    assert len(world.sent) == 2 * 64 + 1 and world.chooser.calls - before <= 6


@pytest.mark.parametrize("order", ["hrrn", "fcfs"])
def test_with_the_balancer_everybody_is_sent_once_and_nothing_is_left(order):
    world = World(4, options(order=order))
    balancer = Balancer()
    queue = Queue(balancer, options(order=order))
    held: dict[str, tuple[Ticket, Dispatch]] = {}
    waited = 0

    def send(ticket: Ticket, choice: Choice) -> None:
        assert ticket.request.id not in held
        replica = world.replicas[choice.place]
        held[ticket.request.id] = ticket, balancer.dispatch(ticket.request, replica, choice, world.now)

    def settle() -> None:
        while (answer := queue.next(world.now, world.rng)) is not None:
            assert isinstance(answer[1], Choice)
            send(answer[0], answer[1])
        queue.check()

    for n in range(120):
        world.now += 0.05
        asked = msgspec.structs.replace(request(f"{n}", 4_000, tenant="abc"[n % 3]), prefix_hashes=(n % 7, n % 7 + 100))
        choice = queue.offer(ticket := Ticket(asked, (world.replicas,), world.gates), world.now, world.rng)
        if choice is None:
            waited += 1
        else:
            assert isinstance(choice, Choice)
            send(ticket, choice)
        settle()
    ended = 0
    while held:
        world.now += 0.1
        ticket, dispatch = held.pop(next(iter(held)))
        dispatch.first_token(world.now)
        queue.first_token(ticket)
        dispatch.ended(world.now, 50)
        queue.finished(ticket, 4_000)
        ended += 1
        settle()
    assert (ended, queue.waiting) == (120, 0) and waited > 20
    assert all(replica.inflight == replica.pending_tokens == 0 for replica in world.replicas)
