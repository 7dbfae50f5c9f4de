"""Tenants of one class: who has waited gets its share, whatever others send."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.balancing.fair import KEPT, Fair
from penstock.balancing.shares import GRAIN, Shares
from penstock.balancing.ticket import Ticket
from tests.balancing.queue_world import World, options, request


def serve(world, name):
    """Until its prompt is computed, which is when its room goes to the next."""
    world.first_token(name)
    world.end(name)


def serve_all(world, n):
    """The oldest that is sent, `n` times. Returns who was sent meanwhile."""
    before = len(world.sent)
    for _ in range(n):
        world.pass_time(0.5)
        serve(world, next(iter(world.held)))
    return world.sent[before:]


def service(names):
    """Prompts of each tenant; all have the same length."""
    return {tenant: sum(name.startswith(tenant) for name in names) for tenant in ("a", "b", "c")}


def backlog(world, **counts):
    for tenant, count in counts.items():
        for n in range(count):
            world.offer(f"{tenant}{n}", tenant=tenant)


def test_ten_times_the_traffic_does_not_get_more_than_half():
    world = World()
    backlog(world, a=100, b=10)
    got = service(serve_all(world, 20))
    assert abs(got["a"] - got["b"]) <= 2 and got["a"] + got["b"] == 20


def test_a_weight_is_a_share():
    world = World(1, options(weights={"a": 3.0}))
    backlog(world, a=60, b=60)
    got = service(serve_all(world, 40))
    assert got["a"] == pytest.approx(30, abs=2) and got["b"] == pytest.approx(10, abs=2)


def test_nobody_saves_up_by_staying_away():
    world = World()
    backlog(world, a=60, b=3)
    serve_all(world, 20)  # b had three and went
    for n in range(60):
        world.offer(f"b again{n}", tenant="b")
    got = service(serve_all(world, 20))
    assert abs(got["a"] - got["b"]) <= 2


def test_what_was_served_while_nobody_waited_is_no_debt():
    world = World()
    for n in range(50):
        world.offer(f"a{n}", tenant="a")
        serve(world, f"a{n}")
    world.offer("b first", tenant="b")
    world.offer("b second", tenant="b")
    for n in range(20):
        world.offer(f"b{n}", tenant="b")
        world.offer(f"a again{n}", tenant="a")
    got = service(serve_all(world, 20))
    assert abs(got["a"] - got["b"]) <= 3


def test_tokens_that_a_replica_had_cached_are_not_charged():
    world = World()
    for n in range(40):
        world.chooser.cached[f"a{n}", "r0"] = 7_600
        world.offer(f"a{n}", tenant="a")
        world.offer(f"b{n}", tenant="b")
    sent = serve_all(world, 24)
    assert service(sent)["a"] >= 18, "20 of a's cost as much as one of b's"


def test_within_a_tenth_of_the_quantum_the_better_fit_decides_and_beyond_it_the_counter():
    world = World(1, options(quantum=40.0))
    for n in range(30):
        world.offer(f"a{n}", 4_000, tenant="a")  # half a second each, and so the higher ratio
        world.offer(f"b{n}", 8_000, tenant="b")
    world.pass_time(0.1)
    order = [name[0] for name in serve_all(world, 16)]
    assert order[:6].count("a") == 6, "four engine seconds ahead are allowed"
    assert "b" in order[6:]


def test_who_waits_for_a_better_replica_gets_the_room_before_one_who_was_served_more_takes_it():
    world = World(2)
    world.offer("c0", 9_000, tenant="c")  # r0 is full with it
    for n in range(20):
        world.chooser.cached[f"a{n}", "r0"] = 15_900  # to wait for that would be best
        world.chooser.cached[f"b{n}", "r1"] = 4_000
        world.offer(f"b{n}", tenant="b")
        world.offer(f"a{n}", 16_000, tenant="a")
    before = len(world.sent)
    for _ in range(16):
        world.pass_time(1.0)
        serve(world, next(name for name, held in world.held.items() if held.replica.name == "r1"))
    got = service(world.sent[before:])
    assert got["a"] * 4 == pytest.approx(got["b"], abs=4), "each is the work of four of b's"
    world.offer("b new", tenant="b")
    assert "b new" not in world.held, "nor does one who has just come"


def test_an_answer_is_charged_while_it_is_written():
    world = World()
    backlog(world, a=60, b=60)
    running = next(iter(world.held))
    tenant, other = ("a", "b") if running.startswith("a") else ("b", "a")
    world.first_token(running)
    before = len(world.sent)
    for _ in range(10):
        world.now += 2.0  # of which a prompt takes one, and the answer the other
        name = next(name for name in world.held if name != running)
        serve(world, name)
    got = service(world.sent[before:])
    assert got[other] - got.get(tenant, 0) >= 4, "it goes on, and is not over: what was expected of it, was nothing"


def test_answers_that_are_written_side_by_side_share_the_time():
    shares = Shares()
    world = World()
    replica = world.replicas[0]
    tickets = [Ticket(request(f"{n}", tenant=tenant), (world.replicas,), world.gates) for n, tenant in enumerate("aab")]
    for ticket in tickets:
        ticket.replica = replica
        ticket.prefill = 1.0
        shares.began(ticket)
    shares.begin(10.0)
    shares.sent(tickets[0])
    assert shares.passed(10.5) == [], "a prompt is being computed"
    assert shares.passed(14.0) == [(2, "a", pytest.approx(2.0)), (2, "b", pytest.approx(1.0))]
    assert shares.passed(14.0 + GRAIN / 2) == [], "so soon it is not worth the while"
    shares.ended(tickets[2])
    shares.check(2)
    assert shares.passed(15.0) == [(2, "a", pytest.approx(2 / 3)), (2, "b", pytest.approx(1 / 3))], "until now it ran"
    assert shares.passed(16.0) == [(2, "a", pytest.approx(1.0))]
    shares.rest()
    assert shares.passed(99.0) == []


def test_who_is_stopped_for_another_is_not_charged_twice():
    world = World()
    backlog(world, a=4, b=4)
    waiting = world.queue.view(world.now).classes[2].tenants
    name = next(name for name in world.held if name.startswith("a"))
    ticket = world.tickets[name]
    world._let_go(name)
    world.offer_ticket(ticket)  # its attempt is over, and it comes again
    after = world.queue.view(world.now).classes[2].tenants
    served = {tenant.tenant: tenant.served for tenant in after}
    assert max(served.values()) <= max(tenant.served for tenant in waiting) + 1.0


@settings(max_examples=30, deadline=None)  # each is a hundred requests
@given(
    traffic=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(min_value=100, max_value=8_000)), min_size=60, max_size=150
    ),
    seed=st.integers(0, 10_000),
)
def test_the_service_of_two_backlogged_tenants_differs_by_at_most_two_quanta(traffic, seed):
    """No prompt here costs more than the quantum, one second."""
    rng = Random(seed)
    world = World(2)
    for tenant, tokens in traffic:
        world.offer(f"{tenant}{len(world.sent) + len(world.waiting())}", tokens, tenant=tenant)
    given_to = dict.fromkeys("abc", 0.0)
    known = set(world.sent)
    lasting = {name[0] for name in world.waiting()}
    while world.held:
        world.now += 0.2
        serve(world, rng.choice(sorted(world.held)))
        for name in world.sent:
            if name not in known:
                known.add(name)
                given_to[name[0]] += world.tickets[name].work if name in world.tickets else 0.0
        lasting &= {name[0] for name in world.waiting()}
        if len(lasting) < 2:
            break
        shares = [given_to[tenant] for tenant in lasting]
        assert max(shares) - min(shares) <= 2.0 + 1e-9


def test_the_state_of_tenants_is_bounded():
    fair = Fair({})
    world = World()
    stays = Ticket(request("stays", tenant="stays"), (world.replicas,), world.gates)
    stays.seq = 0
    fair.join(stays)
    for n in range(KEPT + 500):
        ticket = Ticket(request(f"{n}", tenant=f"t{n}"), (world.replicas,), world.gates)
        ticket.seq, ticket.work = n + 1, 1.0
        fair.charge(ticket)
    assert len(fair.lines) <= KEPT and "stays" in fair.lines
    fair.part(stays)
    assert not fair.lines
