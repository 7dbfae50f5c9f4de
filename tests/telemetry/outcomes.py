"""Real outcomes for the tests of this room."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.errors import FailureKind
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import OK, Attempt
from penstock.core.request import Endpoint, Usage

STREAMED = Outcome(
    request_id="req_0199aa",
    wall=1_800_000_000.25,
    endpoint=Endpoint.CHAT,
    tenant="acme",
    key_id="web",
    model="chat",
    stream=True,
    status=200,
    error=None,
    attempts=(Attempt(0, "local/0", 10.001, 12.0, 10.2, OK),),
    usage=Usage(210, 61, 128),
    usage_source=UsageSource.PROVIDER,
    finish_reason="stop",
    received_at=10.0,
    first_token_at=10.2,
    ended_at=12.0005,
    plane_version=7,
)
RETRIED = msgspec.structs.replace(
    STREAMED,
    attempts=(
        Attempt(0, "local/0", 10.001, 10.1, None, FailureKind.SERVER_ERROR),
        Attempt(1, "local/1", 10.15, 12.0, 10.2, OK),
    ),
)
REFUSED = msgspec.structs.replace(
    STREAMED,
    status=404,
    error="model_not_found",
    model="no-such",
    attempts=(),
    usage=Usage(),
    usage_source=UsageSource.NONE,
    finish_reason=None,
    first_token_at=None,
    ended_at=10.0001,
)


def like(outcome: Outcome, **changes: Any) -> Outcome:
    return msgspec.structs.replace(outcome, **changes)
