"""How a deployment's replicas are chosen among: the policy's name, and what may be tuned."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

PolicyName = Literal[
    "least_cost", "round_robin", "least_requests", "power_of_two", "consistent_hash", "weighted", "random"
]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Balancing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults were found best on the Mooncake conversation trace; from half to twice of each changes little."""

    policy: PolicyName = "least_cost"
    interference: NotNegative = 0.2  # how much the delay that a prefill puts on the sequences running there counts
    batch: NotNegative = 0.5  # how much it counts that they make each of our own steps longer
    memory: NotNegative = 0.05  # seconds that a half full KV cache counts for; nine times as much when 90 % full
    exploration: Fraction = 0.01  # of the requests with short prompts go anywhere, so that rates become known
    pending_tokens: Annotated[int, msgspec.Meta(ge=1)] = 4_096  # uncached, with which a replica is not free for more
    hash_load: Annotated[float, msgspec.Meta(ge=1)] = 1.25  # consistent_hash: no replica has more times the mean


DEFAULT: Final = Balancing()
