"""Whether the prompt of a request is computed elsewhere than its answer: prefill on one replica, decoding on another.

The replica that decodes is chosen first, by the balancer, as if it did everything. The prompt goes elsewhere only when
enough of it would have to be computed there, and when computing it elsewhere and handing it over costs less. After
llm-d's prefix-based decider (a threshold of uncached tokens), with the comparison of costs added; for long prompts with
short answers one pool that does both is often cheaper for the same GPUs, so this is off unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class PrefillRule(msgspec.Struct, frozen=True, kw_only=True):
    """Of one deployment. Raises `ValueError`."""

    by: str = ""
    """The deployment that computes the prompts."""
    threshold: int = 2_048
    """Uncached prompt tokens on the decoding replica from which on a prefill elsewhere is considered; 0: never."""
    transfer_rate: float = 200_000.0
    """Tokens per second whose keys and values get from one replica to the other. 128 kB a token (an 8B model) over 200
    Gbit/s; a slower network makes handing over cost more than it saves."""
    overhead: float = 0.01
    """Seconds that a second request costs, whatever its length: two HTTP exchanges and a handshake."""

    give_up_after: float = 30.0
    """Seconds; then the replica that answers computes the prompt itself."""

    def __post_init__(self) -> None:
        if self.threshold < 0 or not self.transfer_rate > 0 or self.overhead < 0:
            raise ValueError("threshold and overhead must not be negative, and transfer_rate more than 0")


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What computing the prompt on one replica would take. `wait`: seconds until it is computed there, what waits
    before it included. `cost`: the same with the delay put on others, as the balancer counts it."""

    place: int
    wait: float
    cost: float


def prefill_elsewhere(uncached: int, here: Offer, offers: Sequence[Offer], rule: PrefillRule) -> Offer | None:
    """The best of `offers`, or None: compute it `here`, where `uncached` tokens of the prompt would be new.

    What is cached there is not handed over. Ties go to the replica that decodes.
    """
    if rule.threshold == 0 or uncached < rule.threshold or not offers:
        return None
    handing_over = rule.overhead + uncached / rule.transfer_rate
    best = min(offers, key=lambda offer: (offer.cost, offer.wait))
    return best if best.cost + handing_over < here.cost else None
