"""One attempt of which the prompt is computed on another replica than the answer, where that is quicker."""

from __future__ import annotations

from typing import Final

from penstock.balancing.choice import Choice
from penstock.balancing.disaggregate import Offer, PrefillRule, prefill_elsewhere
from penstock.core.errors import UpstreamError
from penstock.core.fleet import Replica
from penstock.core.plan import CANCELLED, OK
from penstock.core.request import Request
from penstock.gateway.plane import Plane
from penstock.upstreams.base import Listener, Stream
from penstock.upstreams.disaggregated import CAN, Handed, open_disaggregated, prefill_request

COMPUTED: Final = 1  # tokens that the second replica computes of a prompt that it is handed: the last one


class Load:
    """What a prompt takes at the replica that computes it."""

    __slots__ = ("_choice", "_dispatch", "_now", "_plane", "_replica", "_request")

    def __init__(self, plane: Plane, request: Request, replica: Replica, choice: Choice) -> None:
        self._plane, self._request, self._replica, self._choice = plane, request, replica, choice

    def began(self) -> None:
        plane, now = self._plane, self._plane.clock.now()
        self._dispatch = plane.balancer.dispatch(self._request, self._replica, self._choice, now)
        plane.gates[self._replica.name].on_start(now)

    def ended(self, how: Handed, failure: UpstreamError | None) -> None:
        plane, now = self._plane, self._plane.clock.now()
        if how is Handed.OVER:
            self._dispatch.first_token(now)
        self._dispatch.ended(now)
        ended = OK if failure is None else failure.kind
        plane.gates[self._replica.name].on_end(CANCELLED if how is Handed.LEFT else ended, now)


def open_elsewhere(
    plane: Plane, rule: PrefillRule, request: Request, listener: Listener, replica: Replica, choice: Choice, now: float
) -> Stream | None:
    """None: it had better be sent whole to `replica`, which was chosen for its answer. Otherwise as `Upstream.open`."""
    pool = plane.pools[rule.by]
    if request.endpoint not in CAN or choice.uncached < rule.threshold:
        return None
    asked = prefill_request(request)
    other = plane.balancer.choose(asked, [pool], plane.gates, (), now, plane.rng)
    if other is None:
        return None
    here = Offer(choice.place, choice.wait, choice.cost)
    there = [Offer(other.place, other.wait, other.cost)]
    if prefill_elsewhere(choice.uncached, here, there, rule) is None:
        return None
    first = pool[other.place]
    return open_disaggregated(
        request,
        plane.upstreams[first.name],
        plane.upstreams[replica.name],
        listener,
        plane.clock,
        Load(plane, asked, first, other),
        rule.give_up_after,
    )
