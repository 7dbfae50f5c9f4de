"""What the balancer says: the replica it chose, and on request what it thought of every other."""

from __future__ import annotations

import msgspec


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The replica to ask: `pools[pool][place]`."""

    pool: int
    place: int
    cost: float = 0.0  # seconds of engine time, ours and others'; only comparable with others for the same request
    wait: float = 0.0  # seconds until its first token, as predicted
    uncached: int = 1  # prompt tokens that it has to compute
    free: bool = True  # it has room for more at once; where not, waiting here is better than in its own queue
    tokens: int = 0  # prompt plus expected output


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What was thought of one replica, for a person. Costs in seconds: (own + others + batch + memory) * ramp."""

    replica: str
    deployment: str
    verdict: str
    """ "chosen"; "costlier"; "not sampled": explored away from, or one of too many to look at all; "policy": other than
    cost decided; "later": its deployment's turn did not come; "tried"; or why it may not be asked: "not ready",
    "cooling", "ejected", "breaker"."""
    cost: float
    own: float  # until our prompt is computed, what waits before it included
    others: float  # delay of the sequences running there
    batch: float  # delay that they put on our answer
    memory: float  # pressure on its KV cache
    ramp: float  # > 1 while it is new or recovered
    cached_tokens: int  # of this prompt
    wait: float  # predicted time to first token
