"""The central queue: a request waits here, and not in an engine, until a replica that it should go to has room.

A pure machine. Whoever drives it calls a verb when something has happened (`offer`, `first_token`, `ended`, `finished`,
`leave`, `room`), then `next` until it says None, and again when the time of `wake_at` has come. Every offer gets one
answer: a Choice, which the driver books (`Balancer.dispatch`) before it asks for the next one, or a Refusal.

What goes first: a class that got nothing for too long; then the higher class; in it, the tenants who were served least,
to within a tenth of a quantum; of their tickets, the one with the highest response ratio (wait + service) / service at
the replica that has room (HRRN, Brinch Hansen 1971), or the oldest. Only what has become free is looked at anew, and
tickets in the order of the best that they can be, so that an event costs a few choices and not one for each ticket.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from random import Random
from typing import Final, Protocol

import msgspec

from penstock.balancing.balancer import Gate
from penstock.balancing.choice import Choice
from penstock.balancing.fair import Fair, Line
from penstock.balancing.floors import RANKS, Floors
from penstock.balancing.pace import Pace
from penstock.balancing.queue_options import DEFAULT, ClassOptions, QueueOptions
from penstock.balancing.queue_values import ClassView, Preempt, QueueView, Reason, Refusal, TenantView
from penstock.balancing.shares import Shares
from penstock.balancing.ticket import ASIDE, NEW, OVER, SENT, STREAMING, WAITING, Ticket
from penstock.balancing.unstarted import MOST_PREEMPTED, Unstarted
from penstock.balancing.wanted import Wanted
from penstock.core.fleet import PREFILL_RATE, Replica
from penstock.core.request import Priority, Request

LEFT: Final = 0.1  # of a quantum, to the better fit; a long prompt and what is under way may take the rest
OWED: Final = 8  # tickets of a tenant, of which one gets the room that another one had found
WINDOW: Final = 64  # tickets of a class that are looked at for one replica
RELOOK: Final = 0.25  # seconds; room that comes by itself, as when a breaker half-opens, is seen after so long
SOONEST: Final = 0.01  # seconds between two looks at one ticket's deadline
MOST_SHOWN: Final = 20  # tenants of a class in a view
PRIORITIES: Final = tuple(Priority)


class Chooser(Protocol):
    """`Balancer` is one."""

    def choose(
        self,
        request: Request,
        pools: Sequence[Sequence[Replica]],
        gates: Mapping[str, Gate],
        tried: Collection[str],
        now: float,
        rng: Random,
    ) -> Choice | None:
        """The best replica for it, whether it has room or not; None: there is none that may be asked.

        Has room: `free`, which must not depend on the request.
        """
        ...


class Queue:
    """Of all models whose deployments overlap: one queue, so that classes and tenants meet where they compete."""

    __slots__ = (
        "_all",
        "_apart",
        "_began",
        "_blocked",
        "_chooser",
        "_classes",
        "_due",
        "_fairs",
        "_floors",
        "_full",
        "_hrrn",
        "_look",
        "_loose",
        "_pace",
        "_relook_at",
        "_restless",
        "_rooms",
        "_seq",
        "_served_at",
        "_shares",
        "_unstarted",
        "_wanted",
        "waiting",
    )

    def __init__(self, chooser: Chooser, options: QueueOptions = DEFAULT) -> None:
        self._chooser = chooser
        self._classes: list[ClassOptions] = [options.of(priority) for priority in PRIORITIES]
        self._fairs: list[Fair] = [Fair(options.weights) for _ in PRIORITIES]
        self._hrrn: bool = options.order == "hrrn"
        self._apart: float = options.quantum * LEFT  # engine seconds
        self.waiting: int = 0
        """Tickets."""
        self._seq = 0
        self._floors = Floors(self._classes)
        self._unstarted = Unstarted()
        self._shares = Shares()
        self._pace = Pace()
        self._wanted = Wanted()
        self._began: list[float] = [0.0 for _ in PRIORITIES]  # since when some of the class wait
        self._served_at: list[float] = [0.0 for _ in PRIORITIES]  # when one was last sent
        self._rooms: dict[str, Replica] = {}  # where something ended since nobody could be found for it
        self._all = False  # every waiting ticket has to be looked at, for any replica
        self._look = 0  # the number of that look
        self._loose = False  # somebody waits who had found room, behind those who are to be asked before
        self._full = False  # the replica in question has no room, whoever asks
        self._blocked = False  # a class had to wait for others' floors
        self._restless = False  # perhaps somebody should be preempted
        self._due: list[tuple[float, int, Ticket]] = []  # a heap; an entry counts while the ticket is due then
        self._relook_at: float = inf

    # What drivers tell

    def offer(self, ticket: Ticket, now: float, rng: Random) -> Choice | Refusal | None:
        """A new ticket; or one whose attempt failed or was preempted, which gives back what it had there and keeps its
        place. None: it waits, and `next` answers."""
        state = ticket.state
        assert state not in (WAITING, OVER), "a ticket is offered again only after an answer"
        if state == NEW:
            self._seq = ticket.seq = self._seq + 1
            ticket.since = now
            ticket.patience = self._classes[ticket.rank].timeout
        else:
            self.ended(ticket)
            self._fairs[ticket.rank].correct(ticket, 0.0)
        choice = self._choose(ticket, now, rng)
        if choice is None:
            return self._refuse(ticket, Reason.NO_REPLICA, now)
        if not choice.free:  # it may have missed one: those of a large pool are sampled, and now and then one is tried
            other = self._choose(ticket, now, rng)
            if other is not None and (other.free or other.cost < choice.cost):
                choice = other
        ticket.consider(choice)
        may_start = self._floors.allow(ticket.rank)
        asked_first = bool(self._rooms) or self._all or self._loose
        fair = self._fairs[ticket.rank]
        at_once = choice.free and may_start and not asked_first and fair.owed(ticket, self._apart) is None
        ahead = 0.0
        if not at_once:
            if state == NEW and fair.waiting >= self._classes[ticket.rank].depth:
                return self._refuse(ticket, Reason.FULL, now)
            ahead = self._ahead(ticket, now)
        if now + ahead + choice.wait > ticket.request.deadline:
            return self._refuse(ticket, Reason.DEADLINE, now, ahead + choice.wait)
        if at_once:
            self._send(ticket, now)
            return choice
        if not may_start:
            self._blocked = True
        if choice.free:
            self._loose = True
        self._join(ticket, now)
        return None

    def first_token(self, ticket: Ticket) -> None:
        """Its prompt is computed. From now on it is not preempted; one that just was could not be stopped in time."""
        if ticket.state == ASIDE:
            self._floors.started(ticket.rank)
        elif ticket.state == SENT:
            self._unstarted.remove(ticket)
        elif ticket.state != STREAMING:  # where it was supposed to have come, it may come later
            return
        if ticket.state != STREAMING:
            self._shares.began(ticket)
        ticket.state = STREAMING
        ticket.due = inf
        self._note_room(ticket)

    def ended(self, ticket: Ticket) -> None:
        """Its attempt is over, and there may be another: nothing is held for it until it is offered again."""
        if ticket.state in (SENT, STREAMING):
            self._give_back(ticket)
            ticket.state = ASIDE

    def finished(self, ticket: Ticket, uncached: int) -> None:
        """It is over, and so many tokens of its prompt had to be computed: its tenant is charged for these instead of
        for what was expected. Without this that stays charged."""
        if ticket.state in (SENT, STREAMING):
            self._fairs[ticket.rank].correct(ticket, uncached * ticket.per_input)
        self.leave(ticket)

    def leave(self, ticket: Ticket) -> None:
        """It is over, however far it has come; again is harmless."""
        if ticket.state == WAITING:
            self._part(ticket)
        else:
            self.ended(ticket)
        ticket.state = OVER
        ticket.victim = None

    def room(self, replica: Replica) -> None:
        """It may have room, for another reason than one of our tickets: it became ready, or a hedge ended there."""
        if self.waiting:
            self._rooms[replica.name] = replica

    def look_again(self) -> None:
        """Anything may have changed: replicas came or went."""
        if self.waiting:
            self._all = True
            self._look += 1

    def resize(self, slots: int) -> None:
        """How many requests all its replicas together run at once, of which the floors are shares. 0: not known, and
        then there are no floors. Of floors that do not fit together the higher classes' hold."""
        self._floors.resize(slots)
        self.look_again()

    # What they ask

    def next(self, now: float, rng: Random) -> tuple[Ticket, Choice | Refusal | Preempt] | None:
        """One answer, or None when there is nothing to do until something happens. A preempted ticket's attempt is
        stopped, and the ticket offered again, before the next call."""
        overdue = self._overdue(now, rng)
        if overdue is not None:
            return overdue
        if not self.waiting:
            self._rooms.clear()
            self._all = self._loose = False
            return None
        for rank, tenant, seconds in self._shares.passed(now):
            if self._fairs[rank].waiting:
                self._fairs[rank].give(tenant, seconds)
        if now >= self._relook_at:
            self._relook_at = now + RELOOK
            self.look_again()
        while self._all or self._rooms or self._loose:
            room: Replica | None = None
            if self._rooms and not self._all:
                room = next(iter(self._rooms.values()))
            found = self._seek(room, now, rng)
            if found is not None:
                return found
            if room is None:
                self._all = self._loose = False
            else:
                del self._rooms[room.name]
        return self._preempt() if self._restless else None

    def wake_at(self) -> float:
        """When `next` has something to say though nothing happens; inf: never. In Clock.now() seconds."""
        due = self._due
        while due and not _counts(due[0]):
            heappop(due)
        if not self.waiting:
            return inf
        return min(due[0][0], self._relook_at) if due else self._relook_at

    def view(self, now: float) -> QueueView:
        """For people and metrics."""
        floors = self._floors
        ahead = 0.0
        classes: list[ClassView] = []
        for rank, fair in enumerate(self._fairs):
            ahead += fair.total()
            lines = sorted(fair.backlog.values(), key=_length, reverse=True)
            heads = [line.tickets[0] for line in lines]
            classes.append(
                ClassView(
                    PRIORITIES[rank],
                    fair.waiting,
                    max([now - ticket.since for ticket in heads], default=0.0),
                    self._seconds(ahead, heads[0], now) if heads else 0.0,
                    floors.running[rank],
                    floors.floors[rank],
                    tuple(
                        [
                            TenantView(line.tenant, len(line.tickets), now - line.tickets[0].since, line.served)
                            for line in lines[:MOST_SHOWN]
                        ]
                    ),
                )
            )
        return QueueView(self.waiting, sum(floors.running), floors.slots, tuple(classes))

    def check(self) -> None:
        """That the counts agree with what they count; for tests and an idle loop."""
        tickets = [ticket for fair in self._fairs for line in fair.backlog.values() for ticket in line.tickets]
        assert len(tickets) == self.waiting == sum([fair.waiting for fair in self._fairs])
        assert all(ticket.state == WAITING for ticket in tickets)
        for fair in self._fairs:
            for line in fair.lines.values():
                assert [ticket.seq for ticket in line.tickets] == sorted([ticket.seq for ticket in line.tickets])
                assert abs(line.work - sum([ticket.work for ticket in line.tickets])) < 1e-6
            assert fair.backlog == {name: line for name, line in fair.lines.items() if line.tickets}
        unstarted = list(self._unstarted)
        assert all(ticket.state == SENT for ticket in unstarted) and len(unstarted) <= sum(self._floors.running)
        self._wanted.check(tickets)
        self._shares.check(sum(self._floors.running) - len(unstarted))
        assert self.waiting or self._relook_at == inf

    # Who is next

    def _seek(self, room: Replica | None, now: float, rng: Random) -> tuple[Ticket, Choice | Refusal] | None:
        """Of all classes in their order, somebody for this replica; None: for any, and those are looked at who were not
        since `look_again`."""
        self._full = False
        for starving in (True, False):
            for rank in RANKS:
                if not self._fairs[rank].waiting or (starving and not self._starves(rank, now)):
                    continue
                if not self._floors.allow(rank, beyond=starving):
                    self._blocked = self._restless = True
                    continue
                found = self._best(rank, room, now, rng)
                if found is not None and starving:
                    found[0].preempted = MOST_PREEMPTED  # its turn is not taken from it again
                if found is not None or self._full:
                    return found
        return None

    def _best(self, rank: int, room: Replica | None, now: float, rng: Random) -> tuple[Ticket, Choice | Refusal] | None:
        """Least is best: quanta of service that its tenant is ahead, plus the inverse of its response ratio, which is
        in (0, 1]. The ratio is first taken for the best replica that it was ever looked at for: more it hardly is."""
        fair = self._fairs[rank]
        least = fair.least()
        each = max(1, WINDOW // len(fair.backlog))
        tickets: list[Ticket] = []
        tiers: list[float] = []
        bounds: list[float] = []
        for line in fair.backlog.values():
            tier = float(int((line.served - least) / self._apart))
            for ticket in line.tickets[:each]:
                if room is not None or ticket.looked != self._look:
                    tickets.append(ticket)
                    tiers.append(tier)
                    bounds.append(tier + self._unanswered(ticket, ticket.least, now))
        best: tuple[Ticket, Choice] | None = None
        badness = inf
        for _ in range(min(WINDOW, len(tickets))):
            bound = min(bounds)
            if bound >= badness:
                break
            at = bounds.index(bound)
            bounds[at] = inf
            ticket = tickets[at]
            choice = self._for(ticket, room, now, rng)
            if choice is None:
                if self._full:
                    return None
                continue
            if isinstance(choice, Refusal):
                return ticket, choice
            exactly = tiers[at] + self._unanswered(ticket, choice.uncached, now)
            if exactly < badness:
                best, badness = (ticket, choice), exactly
        if best is None:
            return None
        best = self._owed(fair, best, now, rng) or best
        ticket, choice = best
        self._part(ticket)
        ticket.consider(choice)
        self._send(ticket, now)
        return best

    def _owed(self, fair: Fair, found: tuple[Ticket, Choice], now: float, rng: Random) -> tuple[Ticket, Choice] | None:
        """Who takes the room that was found instead, though it would rather wait for a better one: beyond a tenth of a
        quantum it counts who was served less, and not where a prompt is cached."""
        line = fair.owed(found[0], self._apart)
        if line is None:
            return None
        replica = found[0].pools[found[1].pool][found[1].place]
        best: tuple[Ticket, Choice] | None = None
        badness = inf
        for ticket in line.tickets[:OWED]:
            there = self._at(ticket, replica, now, rng)
            if there is not None:
                unanswered = self._unanswered(ticket, there.uncached, now)
                if unanswered < badness:
                    best, badness = (ticket, there), unanswered
        return best

    def _at(self, ticket: Ticket, replica: Replica, now: float, rng: Random) -> Choice | None:
        """That it goes there, if there is room for it."""
        for number, pool in enumerate(ticket.pools):
            if replica in pool:
                there = self._chooser.choose(ticket.request, ((replica,),), ticket.gates, ticket.tried, now, rng)
                if there is not None and there.free:
                    return msgspec.structs.replace(there, pool=number, place=list(pool).index(replica))
                return None
        return None

    def _unanswered(self, ticket: Ticket, uncached: int, now: float) -> float:
        """service / (wait + service), in tokens of prefill: all rates are alike where tickets compete for a replica.

        A prompt that takes longer than a second counts as if it took one, or the longest would wait for all others.
        """
        service = PREFILL_RATE
        if self._hrrn and uncached < PREFILL_RATE:
            service = float(uncached) if uncached > 1 else 1.0
        return service / (service + PREFILL_RATE * (now - ticket.since))

    def _for(self, ticket: Ticket, room: Replica | None, now: float, rng: Random) -> Choice | Refusal | None:
        """Its replica, if that has room. `room` alone is considered first: it is seldom worth more than that.

        Where others wait for the replica that would be best, of tenants that are served in turn with its own, what they
        have to compute there comes before it: that counts as cost too, and less good room is taken instead.
        """
        there: Choice | None = None
        known = ticket.choice
        if room is not None and not ticket.tried:
            there = self._chooser.choose(ticket.request, ((room,),), ticket.gates, (), now, rng)
            if there is None or not there.free:
                self._full = True
                return None
            best = ticket.replica
            assert best is not None and known is not None, "who waits has been looked at"
            if best is not room and there.cost >= known.cost + self._wanted.by_others(best.name, ticket.tenant):
                return None
        found = self._choose(ticket, now, rng)
        if found is None:
            self._part(ticket)
            return self._refuse(ticket, Reason.NO_REPLICA, now)
        pool = ticket.pools[found.pool]
        if room is not None and there is not None and room in pool:
            others = 0.0 if found.free else self._wanted.by_others(pool[found.place].name, ticket.tenant)
            if there.cost < found.cost + others:
                found = msgspec.structs.replace(there, pool=found.pool, place=list(pool).index(room))
        if found.free:
            return found
        if room is None:
            ticket.looked = self._look
        self._reconsider(ticket, found)
        return None

    def _preempt(self) -> tuple[Ticket, Preempt] | None:
        """Somebody to be stopped, of a lower class, before the first token, where a ticket would go that waits."""
        self._restless = False
        for rank, options in enumerate(self._classes):
            if not options.preempts or not self._fairs[rank].waiting:
                continue
            blocked = not self._floors.allow(rank)
            for line in self._fairs[rank].backlog.values():
                for ticket in line.tickets[:WINDOW]:
                    last = ticket.victim
                    if last is not None and last.state == ASIDE:
                        continue
                    victim = self._unstarted.victim(ticket, blocked)
                    if victim is not None:
                        ticket.victim = victim
                        self._restless = True
                        self.ended(victim)
                        victim.preempted += 1
                        return victim, Preempt(PRIORITIES[rank])
        return None

    def _starves(self, rank: int, now: float) -> bool:
        after = self._classes[rank].promote_after
        return after is not None and now - max(self._began[rank], self._served_at[rank]) > after

    # Time

    def _overdue(self, now: float, rng: Random) -> tuple[Ticket, Refusal] | None:
        due = self._due
        while due and due[0][0] <= now:
            entry = heappop(due)
            if not _counts(entry):
                continue
            ticket = entry[2]
            if ticket.state == SENT:
                self.first_token(ticket)
                continue
            if ticket.until <= now:
                return ticket, self._turn_away(ticket, Reason.TIMEOUT, now)
            found = self._choose(ticket, now, rng)
            if found is None:
                return ticket, self._turn_away(ticket, Reason.NO_REPLICA, now)
            if now + found.wait > ticket.request.deadline:
                return ticket, self._turn_away(ticket, Reason.DEADLINE, now, found.wait)
            if found.free:
                self.look_again()
            self._reconsider(ticket, found)
            self._remind(ticket, now + SOONEST)
        return None

    def _remind(self, ticket: Ticket, soonest: float) -> None:
        """When waiting on is of no use to it: its class's timeout, or its deadline less the time to first token."""
        choice = ticket.choice
        assert choice is not None, "who waits has been looked at"
        deadline: float = ticket.request.deadline
        self._due_at(ticket, min(ticket.until, max(soonest, deadline - choice.wait)))

    def _due_at(self, ticket: Ticket, when: float) -> None:
        ticket.due = when
        due = self._due
        heappush(due, (when, ticket.seq, ticket))
        if len(due) > 64 and len(due) > 4 * (self.waiting + sum(self._floors.running)):  # most of them count no more
            self._due = [entry for entry in due if _counts(entry)]
            heapify(self._due)

    # Moving tickets

    def _choose(self, ticket: Ticket, now: float, rng: Random) -> Choice | None:
        return self._chooser.choose(ticket.request, ticket.pools, ticket.gates, ticket.tried, now, rng)

    def _reconsider(self, ticket: Ticket, choice: Choice) -> None:
        """Another replica is its best, while it waits."""
        line = self._fairs[ticket.rank].backlog[ticket.tenant]
        line.work -= ticket.work
        if ticket.replica is not ticket.pools[choice.pool][choice.place]:
            self._restless = True
        self._wanted.remove(ticket)
        ticket.consider(choice)
        self._wanted.add(ticket)
        line.work += ticket.work

    def _join(self, ticket: Ticket, now: float) -> None:
        rank = ticket.rank
        fair = self._fairs[rank]
        if not fair.waiting:
            self._began[rank] = now
        if not self.waiting:
            self._relook_at = now + RELOOK
            self._pace.begin(now)
            self._shares.begin(now)
        fair.join(ticket)
        self._wanted.add(ticket)
        ticket.state = WAITING
        ticket.until = now + ticket.patience
        ticket.looked = -1
        self.waiting += 1
        self._remind(ticket, now)
        self._restless = True

    def _part(self, ticket: Ticket) -> None:
        self._fairs[ticket.rank].part(ticket)
        self._wanted.remove(ticket)
        self.waiting -= 1
        if not self.waiting:
            self._relook_at = inf
            self._shares.rest()
        ticket.due = inf

    def _send(self, ticket: Ticket, now: float) -> None:
        rank = ticket.rank
        choice = ticket.choice
        assert choice is not None, "who is sent has been looked at"
        if ticket.state == WAITING:
            ticket.patience = ticket.until - now
        if self.waiting:
            self._pace.sent(ticket.work, now)
        self._fairs[rank].charge(ticket)
        ticket.state = SENT
        self._floors.started(rank)
        self._served_at[rank] = now
        self._unstarted.add(ticket)
        self._shares.sent(ticket)
        self._restless = True
        if ticket.request.stream:
            ticket.due = inf
        else:  # nobody sees its first token: it is supposed to have come, as the balancer does
            self._due_at(ticket, now + choice.wait)

    def _give_back(self, ticket: Ticket) -> None:
        """What it has at its replica."""
        if ticket.state == SENT:
            self._unstarted.remove(ticket)
            self._shares.unsent(ticket)
        else:
            self._shares.ended(ticket)
        self._floors.ended(ticket.rank)
        ticket.due = inf
        self._note_room(ticket)

    def _note_room(self, ticket: Ticket) -> None:
        replica = ticket.replica
        if self.waiting and replica is not None:
            self._rooms[replica.name] = replica
            if self._blocked:  # they may be for any replica
                self._blocked = False
                self.look_again()

    # No

    def _turn_away(self, ticket: Ticket, reason: Reason, now: float, wait: float = 0.0) -> Refusal:
        self._part(ticket)
        return self._refuse(ticket, reason, now, wait)

    def _refuse(self, ticket: Ticket, reason: Reason, now: float, wait: float = 0.0) -> Refusal:
        ticket.state = OVER
        ticket.victim = None
        drain = 0.0
        for rank in range(ticket.rank + 1):
            drain += self._fairs[rank].total()
        return Refusal(
            reason,
            PRIORITIES[ticket.rank],
            self._fairs[ticket.rank].waiting,
            self._seconds(drain, ticket, now),
            now - ticket.since,
            wait,
        )

    def _ahead(self, ticket: Ticket, now: float) -> float:
        """Seconds until what goes before it has been sent, as predicted."""
        work = self._fairs[ticket.rank].ahead(ticket.tenant, ticket.work)
        for rank in range(ticket.rank):
            work += self._fairs[rank].total()
        return self._seconds(work, ticket, now)

    def _seconds(self, work: float, ticket: Ticket, now: float) -> float:
        """Until so much work has been sent to the replicas that this ticket could go to."""
        ready = sum([1 for pool in ticket.pools for replica in pool if replica.ready])
        return self._pace.seconds(work, max(1, ready), now, self.waiting > 0)


def _counts(entry: tuple[float, int, Ticket]) -> bool:
    return entry[2].due == entry[0] and entry[2].seq == entry[1]


def _length(line: Line) -> int:
    return len(line.tickets)
