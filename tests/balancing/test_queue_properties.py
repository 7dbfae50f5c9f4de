"""Whatever happens, in whatever order: one answer for each offer, nothing leaks, and no replica with room is left idle
while somebody waits who should go there."""

from __future__ import annotations

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.balancing.queue_options import ClassOptions
from penstock.balancing.ticket import OVER, SENT, STREAMING, WAITING, Ticket
from penstock.core.request import Priority
from tests.balancing.queue_world import World, options, request


class Life(RuleBasedStateMachine):
    """`World` itself asserts that nobody is sent twice, and checks the queue's counts after every event."""

    @initialize(
        replicas=st.integers(1, 4),
        slots=st.sampled_from([0, 0, 3, 8]),
        order=st.sampled_from(["hrrn", "fcfs"]),
        floor=st.integers(0, 2),
    )
    def begin(self, replicas, slots, order, floor):
        self.world = World(
            replicas,
            options(
                order=order,
                high=ClassOptions(depth=5, timeout=20.0, preempts=True, slots=floor),
                normal=ClassOptions(depth=8, timeout=30.0, promote_after=5.0),
                low=ClassOptions(depth=3, timeout=10.0, share=0.2),
            ),
        )
        self.world.queue.resize(slots)
        self.offered = 0
        self.ended: list[str] = []

    @rule(
        tokens=st.integers(1, 20_000),
        tenant=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
        patience=st.sampled_from([inf, inf, 1.0, 8.0]),
        stream=st.booleans(),
        cached=st.integers(0, 20_000),
        where=st.integers(0, 3),
    )
    def a_request_comes(self, tokens, tenant, priority, patience, stream, cached, where):
        world = self.world
        name = f"q{self.offered}"
        self.offered += 1
        world.chooser.cached[name, f"r{where}"] = min(cached, tokens - 1)
        asked = request(name, tokens, tenant=tenant, priority=priority, deadline=world.now + patience, stream=stream)
        ticket = Ticket(asked, (world.replicas,), world.gates)
        world.offer_ticket(ticket)
        answered = (name in world.held) + (name in world.refused) + (ticket.state == WAITING)
        assert answered == 1

    def some(self, data, names):
        return data.draw(st.sampled_from(sorted(names)))

    @precondition(lambda self: self.world.held)
    @rule(data=st.data())
    def a_first_token_comes(self, data):
        self.world.first_token(self.some(data, self.world.held))

    @precondition(lambda self: self.world.held)
    @rule(data=st.data(), output=st.integers(0, 500))
    def an_answer_ends(self, data, output):
        name = self.some(data, self.world.held)
        self.ended.append(name)
        self.world.end(name, output=output)

    @precondition(lambda self: self.world.held)
    @rule(data=st.data())
    def an_attempt_fails_and_is_made_again(self, data):
        self.world.retry(self.some(data, self.world.held))

    @precondition(lambda self: self.world.tickets)
    @rule(data=st.data())
    def a_caller_leaves(self, data):
        name = self.some(data, self.world.tickets)
        self.ended.append(name)
        ticket = self.world.tickets[name]
        self.world.leave(name)
        self.world.queue.leave(ticket)

    @rule(data=st.data())
    def a_replica_dies_or_comes_back(self, data):
        world = self.world
        replica = data.draw(st.sampled_from(world.replicas))
        replica.ready = not replica.ready
        if replica.ready:
            world.queue.room(replica)
        else:
            for name in [name for name, held in world.held.items() if held.replica is replica]:
                if name in world.held:  # and was not stopped for another one
                    world.retry(name)
            world.queue.look_again()
        world.drive()

    @rule(seconds=st.floats(0.01, 12.0))
    def time_passes(self, seconds):
        self.world.pass_time(seconds)

    @rule(slots=st.sampled_from([0, 2, 6]))
    def the_capacity_changes(self, slots):
        self.world.queue.resize(slots)
        self.world.drive()

    @invariant()
    def every_request_is_in_one_place(self):
        world = self.world
        gone = len(world.refused) + len(self.ended)
        assert len(world.tickets) + gone == self.offered
        for name, ticket in world.tickets.items():
            assert ticket.state in ((SENT, STREAMING) if name in world.held else (WAITING,))
        assert world.queue.waiting == len(world.tickets) - len(world.held)
        assert world.queue.view(world.now).running == len(world.held)

    @invariant()
    def no_replica_with_room_is_idle_while_somebody_waits_who_should_go_there(self):
        world = self.world
        queue = world.queue
        for name in world.waiting():
            ticket = world.tickets[name]
            choice = world.chooser.choose(
                ticket.request, ticket.pools, ticket.gates, ticket.tried, world.now, world.rng
            )
            assert choice is None or not choice.free or not queue._floors.allow(ticket.rank)

    @invariant()
    def nobody_waits_beyond_its_time(self):
        world = self.world
        for name in world.waiting():
            ticket = world.tickets[name]
            assert world.now < ticket.until and world.now <= ticket.request.deadline

    def teardown(self):
        world = self.world
        for name in sorted(world.tickets):
            world.leave(name)
        view = world.queue.view(world.now)
        assert (view.waiting, view.running) == (0, 0)
        assert all(replica.inflight == replica.pending_tokens == 0 for replica in world.replicas)
        assert world.queue.wake_at() == inf and not list(world.queue._unstarted)
        assert not any(fair.lines for fair in world.queue._fairs)
        assert all(ticket.state == OVER for ticket in world.tickets.values())


Life.TestCase.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
TestLife = Life.TestCase


def test_who_is_preempted_goes_where_there_is_room_already():
    """Its best replica is the one that was taken from it, where another goes now; nothing tells of the other's room."""
    life = Life()
    life.begin(replicas=3, slots=0, order="hrrn", floor=0)
    world = life.world
    life.a_request_comes(8_195, "a", Priority.HIGH, inf, False, 0, 0)
    (first,) = {held.replica for held in world.held.values()}
    away = next(replica for replica in world.replicas if replica is not first)
    away.ready = False
    world.queue.look_again()
    world.drive()
    life.a_request_comes(8_192, "a", Priority.CRITICAL, inf, False, 0, 0)
    world.retry("q1")
    life.no_replica_with_room_is_idle_while_somebody_waits_who_should_go_there()
    life.teardown()
