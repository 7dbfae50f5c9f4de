"""A request's place in the central queue, from the first offer until it is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Final

from penstock.balancing.balancer import Gate
from penstock.balancing.choice import Choice
from penstock.balancing.policies import running_at
from penstock.core.fleet import Replica
from penstock.core.request import Priority, Request

NEW: Final = 0
WAITING: Final = 1
SENT: Final = 2  # to a replica, and no first token yet
STREAMING: Final = 3
ASIDE: Final = 4  # its attempt is over or to be stopped, and it was not offered again yet
OVER: Final = 5

RANKS: Final = {priority: rank for rank, priority in enumerate(Priority)}


class Ticket:
    """Made by whoever drives the queue, who may change `tried` between two offers; all else is the queue's."""

    __slots__ = (
        "choice",
        "due",
        "gates",
        "least",
        "looked",
        "patience",
        "per_input",
        "period",
        "pools",
        "preempted",
        "prefill",
        "rank",
        "replica",
        "request",
        "seq",
        "since",
        "state",
        "tenant",
        "tried",
        "until",
        "victim",
        "work",
    )

    def __init__(
        self,
        request: Request,
        pools: Sequence[Sequence[Replica]],
        gates: Mapping[str, Gate],
        tried: Collection[str] = (),
    ) -> None:
        """`pools` and `gates` are the plan's, as for `Balancer.choose`."""
        caller = request.caller
        self.request = request
        self.pools = pools
        self.gates = gates
        self.tried = tried
        self.tenant: str = caller.org or f"key:{caller.key_id}"  # no organisation has a colon in its name
        self.rank: int = RANKS[caller.priority]
        self.state: int = NEW
        self.seq: int = -1  # of its first offer: the place that it keeps
        self.since: float = 0.0  # likewise, in Clock.now() seconds
        self.patience: float = 0.0  # seconds that it may still wait, all its waits together
        self.until: float = inf  # so it waits no longer than that
        self.due: float = inf  # when it is looked at next, whatever happens
        self.choice: Choice | None = None  # the best replica when it was last looked at
        self.replica: Replica | None = None  # that one
        self.looked: int = -1  # in which look at everybody that was
        self.least: int = request.prompt_tokens  # the fewest uncached tokens that any replica would have to compute
        self.prefill: float = 0.0  # engine seconds until its prompt is computed there
        self.work: float = 0.0  # and all that it is expected to take
        self.per_input: float = 0.0  # engine seconds for an uncached token of its prompt
        self.period: int = -1  # of `Fair`, in which its prompt was charged; -1: it was not
        self.preempted: int = 0  # times
        self.victim: Ticket | None = None  # who was last stopped for it

    def consider(self, choice: Choice) -> None:
        """This would be its replica now. Its share of a batch is what a step costs there, among those that run."""
        replica = self.pools[choice.pool][choice.place]
        self.choice = choice
        self.replica = replica
        if choice.uncached < self.least:
            self.least = choice.uncached
        batch = max(1, running_at(replica))
        self.per_input = 1.0 / replica.compute_rate
        per_output = (replica.step_base + replica.itl_slope * batch) / batch
        output = choice.tokens - self.request.prompt_tokens
        self.prefill = choice.uncached * self.per_input
        self.work = self.prefill + (output * per_output if output > 0 else 0.0)
