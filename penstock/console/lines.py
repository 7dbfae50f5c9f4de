"""How one request is shown: in a line of a list, and with everything that is known of it."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.money import round_to_nanos
from penstock.core.outcome import Outcome
from penstock.pricing.bill import UNPRICED, Cost
from penstock.stores.outcomes import Kept, answered_by
from penstock.telemetry.spans import Served, trace_of
from penstock.telemetry.taxonomy import nature_of


def line(kept: Kept) -> dict[str, Any]:
    """A row of a list; spans in seconds, `at` in Unix seconds."""
    one = kept.outcome
    nature = None if one.error is None else nature_of(one.error)
    usage = one.usage
    return {
        "id": one.request_id,
        "at": one.received_at,
        "endpoint": one.endpoint,
        "model": one.model,
        "deployment": one.deployment,
        "replica": answered_by(one),
        "org": one.tenant,
        "team": one.team,
        "key_id": one.key_id,
        "feature": one.feature,
        "session": one.session,
        "priority": one.priority,
        "stream": one.stream,
        "status": one.status,
        "error": one.error,
        "lasting": None if nature is None else nature.lasting,
        "blame": None if nature is None else nature.blame,
        "ttft": one.first_token_after,
        "duration": one.duration,
        "queued": one.queued_for,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "cost_nanos": one.cost_nanos,
        "n_attempts": len(one.attempts),
        "finish_reason": one.finish_reason,
        "cache": None,
        "arm": one.arm,
        "degraded": one.degraded,
        "why": kept.why,
    }


def detail(
    kept: Kept, served: dict[str, Served], around: tuple[str | None, str | None], bill: Cost = UNPRICED
) -> dict[str, Any]:
    """Everything; what nobody has recorded is None. `bill` is what it would cost now."""
    one = kept.outcome
    failure = None
    if one.error is not None:
        nature = nature_of(one.error)
        failure = {"code": one.error, "lasting": nature.lasting, "blame": nature.blame, "message": None}
    return {
        "line": line(kept),
        "outcome": whole(one),
        "trace": trace_of(one, served, kept=kept.why),
        "failure": failure,
        "cost": _parts(one, bill),
        "guards": [],
        "cache": None,
        "feedback": [],
        "content": None,
        "around": {"previous": around[0], "next": around[1]},
    }


def _parts(outcome: Outcome, bill: Cost) -> list[dict[str, Any]] | None:
    """What was charged, by class; None where prices are not those of then, or more than this answer was paid for."""
    if bill.nanos is None or bill.nanos != outcome.cost_nanos:
        return None
    return [
        {
            "what": part.name,
            "amount": part.amount,
            "nanos_per_million": part.rate * 1_000,
            "nanos": round_to_nanos(part.picos),
        }
        for part in bill.parts
    ]


def whole(outcome: Outcome) -> dict[str, Any]:
    """Every field, also those that a log leaves out because they say nothing."""
    found = msgspec.structs.asdict(outcome)
    found["attempts"] = [msgspec.structs.asdict(one) for one in outcome.attempts]
    found["usage"] = msgspec.structs.asdict(outcome.usage)
    return found
