"""After a committed stream broke: the attempt that goes on with its answer, where the model's `on_cut` wants one."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.core.errors import PenstockError, UpstreamError
from penstock.core.fleet import Replica
from penstock.gateway.try_upstreams import Try, TryUpstreams
from penstock.wire.continuing import Resumable
from penstock.wire.so_far import How


async def go_on(tries: TryUpstreams, broken: Try, failure: UpstreamError) -> Try | None:
    """Whoever says the rest of what `broken` was saying, once they begin to; None when nobody can or may.

    An attempt like those before the first token: it counts against the plan's attempts, the retry budget and the
    deadline, has as long for its first token, and may fail and be followed by another.
    """
    reading = broken.stream.reading
    so_far = reading.so_far(tries.request) if isinstance(reading, Resumable) else None
    pools = [] if so_far is None else _who_could(tries, so_far.how, broken.replica)
    if so_far is None or not pools:
        return None
    try:
        tries.go_on(broken, failure, so_far, pools)
        while (another := tries.answer()) is None:
            await tries.news()
    except PenstockError:  # the receipt has every attempt; the caller is told of what broke
        return None
    return another


def _who_could(tries: TryUpstreams, how: How, broken: Replica) -> list[Sequence[Replica]]:
    """The deployments that could; from tokens only its own, where they mean the same to the same weights."""
    upstreams, endpoint = tries.plane.upstreams, tries.request.endpoint
    return [
        pool
        for pool in tries.pools
        if pool
        and (how == "prefix" or pool[0].deployment == broken.deployment)
        and upstreams[pool[0].name].goes_on(endpoint, how)
    ]
