"""What a simulated fleet is made of, as it is asked for."""

from __future__ import annotations

import msgspec

from penstock.core.errors import UpstreamError
from penstock.resilience.options import BreakerRule, ConcurrencyRule, OutlierRule
from penstock.sim.cost_model import CostModel


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Some replicas that are alike."""

    replicas: int
    engine: CostModel
    gpus: int = 1  # of one replica
    gpu_hour: float = 0.0  # dollars for one of them
    breaker: BreakerRule = BreakerRule()
    outliers: OutlierRule | None = None  # None: none is left out for being worse than the others
    concurrency: ConcurrencyRule | None = None  # None: a replica gets as many attempts as come


class Response(msgspec.Struct, frozen=True):
    """What a scripted replica will do with one attempt. Seconds."""

    first: float  # to the first token, or to the failure
    failure: UpstreamError | None
    rest: float  # from the first token to the end
    tokens: int = 1
