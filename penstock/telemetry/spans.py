"""A request as a tree of spans, made from its receipt alone: what the gateway did, each attempt, each phase of it.

Attributes have our own names here; `conventions` says what others call them. Ids follow from the request's id, so the
same receipt always gives the same tree, and an upstream that was told of its attempt (`wire.trace_context`) is beneath
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from itertools import chain
from typing import Final, TypeAlias

import msgspec

from penstock.core.money import NANOS_PER_DOLLAR
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import CANCELLED, OK, Attempt
from penstock.core.request import Endpoint
from penstock.resilience.failures import Blame
from penstock.telemetry.taxonomy import FINISH_REASONS, nature_of
from penstock.wire.trace_context import span_id_of, traced_as

Value: TypeAlias = str | bool | int | float | tuple[str, ...]


class Kind(IntEnum):
    """As OTLP numbers them."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class Role(StrEnum):
    """What a span is, for those who show a call of a model in another way than the rest."""

    REQUEST = "request"
    STAGE = "stage"  # of the gateway
    ATTEMPT = "attempt"
    PHASE = "phase"  # of the engine


class Event(msgspec.Struct, frozen=True, gc=False):
    name: str
    at: float


class Span(msgspec.Struct, frozen=True):
    """Times are Unix seconds. `error` is what went wrong, as a stable word; "": nothing."""

    id: str
    parent_id: str
    name: str
    kind: Kind
    role: Role
    started_at: float
    ended_at: float
    attributes: dict[str, Value]
    error: str = ""
    events: tuple[Event, ...] = ()


class Trace(msgspec.Struct, frozen=True):
    """`spans` has the root first, and every parent before its children."""

    id: str
    spans: tuple[Span, ...]
    kept: str = ""  # why


class Served(msgspec.Struct, frozen=True):
    """What is known of a deployment beside its name."""

    provider: str = ""  # as OpenTelemetry calls it
    model: str = ""  # as the upstream calls it


OPERATIONS: Final[Mapping[str, str]] = {
    Endpoint.CHAT: "chat",
    Endpoint.RESPONSES: "chat",
    Endpoint.MESSAGES: "chat",
    Endpoint.COMPLETION: "text_completion",
    Endpoint.EMBEDDING: "embeddings",
    Endpoint.IMAGE: "generate_content",
    Endpoint.IMAGE_EDIT: "generate_content",
    Endpoint.IMAGE_VARIATION: "generate_content",
    Endpoint.SPEECH: "generate_content",
}
"""`gen_ai.operation.name`; others are called what we call them."""

_NOTHING_KNOWN: Final = Served()


def trace_of(
    outcome: Outcome,
    served: Mapping[str, Served] | None = None,
    *,
    kept: str = "",
    more: dict[str, Value] | None = None,
) -> Trace:
    """`served` by deployment; `more` are attributes of the request's own span and of the attempt that answered it."""
    request_id, began = outcome.request_id, outcome.received_at
    root_id = span_id_of(request_id, "request")
    operation = OPERATIONS.get(outcome.endpoint, outcome.endpoint)
    content = more or {}
    root = Span(
        id=root_id,
        parent_id=outcome.parent_id,
        name=f"{outcome.endpoint} {outcome.model}".rstrip(),
        kind=Kind.SERVER,
        role=Role.REQUEST,
        started_at=began,
        ended_at=began + outcome.duration,
        attributes=_of_request(outcome) | content | ({"kept": kept} if kept else {}),
        error=_fault(outcome.error),
    )
    of_attempts: list[list[Span]] = []
    answered = _answered(outcome)
    seen: set[str] = set()
    for attempt in sorted(outcome.attempts, key=lambda one: (one.started_after, one.number), reverse=True):
        name = f"attempt {attempt.number}"
        while name in seen:  # it was preempted, and another took its place and its number
            name += " before"
        seen.add(name)
        texts = content if attempt is answered else {}
        of_attempts.append(
            _of_attempt(outcome, attempt, name, root_id, operation, served or {}, texts, attempt is answered)
        )
    spans = [root, *_stages(outcome, root_id), *chain.from_iterable(reversed(of_attempts))]
    return Trace(traced_as(outcome), tuple(spans), kept)


def _fault(error: str | None) -> str:
    """What makes the request's own span a failed one. Not what only its caller can mend: that is their span's failure
    (OpenTelemetry's HTTP conventions: 4xx leaves the status of a server's span as it is).
    """
    return "" if error is None or nature_of(error).blame is Blame.CALLER else error


def _of_request(outcome: Outcome) -> dict[str, Value]:
    found: dict[str, Value] = {
        "request_id": outcome.request_id,
        "endpoint": outcome.endpoint,
        "model": outcome.model,
        "stream": outcome.stream,
        "status": outcome.status,
        "plane_version": outcome.plane_version,
        "priority": outcome.priority,
        "n_attempts": len(outcome.attempts),
    }
    said: tuple[tuple[str, Value | None], ...] = (
        ("tenant", outcome.tenant),
        ("team", outcome.team),
        ("key_id", outcome.key_id),
        ("user", outcome.user_hash),
        ("feature", outcome.feature),
        ("session", outcome.session),
        ("tags", outcome.tags),
        ("deployment", outcome.deployment),
        ("arm", outcome.arm),
        ("degraded", outcome.degraded),
        ("prompt_version", outcome.prompt_version),
        ("context", outcome.context),
        ("ttft", outcome.first_token_after),
    )
    found |= {name: value for name, value in said if value}
    if outcome.error is not None:
        nature = nature_of(outcome.error)
        found |= {"error": outcome.error, "lasting": nature.lasting, "blame": nature.blame}
    return found


def _stages(outcome: Outcome, root_id: str) -> list[Span]:
    """What the gateway did before an attempt began."""
    found: list[Span] = []
    began, admitted, queued = outcome.received_at, outcome.admitted_after, outcome.queued_for
    first = min((attempt.started_after for attempt in outcome.attempts), default=None)

    def stage(name: str, start: float, end: float, attributes: dict[str, Value]) -> None:
        found.append(
            Span(
                id=span_id_of(outcome.request_id, name),
                parent_id=root_id,
                name=name,
                kind=Kind.INTERNAL,
                role=Role.STAGE,
                started_at=began + start,
                ended_at=began + max(start, end),
                attributes=attributes,
            )
        )

    if admitted:
        stage("admission", 0.0, admitted, {})
    if queued:
        stage("queue", admitted, admitted + queued, {"priority": outcome.priority})
    if first is not None:
        said: tuple[tuple[str, Value], ...] = (
            ("why", outcome.why),
            ("arm", outcome.arm),
            ("predicted_ttft", outcome.predicted_ttft),
            ("matched_tokens", outcome.matched_tokens),
        )
        decision = {name: value for name, value in said if value}
        if decision:
            stage("routing", min(admitted + queued, first), first, decision)
    return found


def _answered(outcome: Outcome) -> Attempt | None:
    """Whose answer the caller got: the one that was whole, or else the last that had begun. None: nobody's."""
    begun = [attempt for attempt in outcome.attempts if attempt.first_token_after is not None or attempt.ended == OK]
    whole = [attempt for attempt in begun if attempt.ended == OK]
    return max(whole or begun, key=lambda attempt: attempt.ended_after, default=None)


def _of_attempt(
    outcome: Outcome,
    attempt: Attempt,
    unique: str,
    root_id: str,
    operation: str,
    served: Mapping[str, Served],
    content: dict[str, Value],
    answered: bool,
) -> list[Span]:
    id = span_id_of(outcome.request_id, unique)
    deployment = attempt.replica.rpartition("/")[0]
    known = served.get(deployment, _NOTHING_KNOWN)
    began = attempt.started_after
    first = None if attempt.first_token_after is None else max(began, attempt.first_token_after)
    ended = max(first or began, attempt.ended_after)
    attributes: dict[str, Value] = {
        "operation": operation,
        "provider": known.provider or "penstock",
        "request_model": known.model or outcome.model,
        "stream": outcome.stream,
        "deployment": deployment,
        "replica": attempt.replica,
        "attempt": attempt.number,
        "ended": attempt.ended,
    }
    if outcome.session:
        attributes["session"] = outcome.session
    if first is not None and outcome.stream:
        attributes["time_to_first_chunk"] = round(first - began, 6)
    failed = attempt.ended not in (OK, CANCELLED)
    if failed:
        attributes["error"] = str(attempt.ended)
    if answered:
        attributes |= _of_answer(outcome) | content
    spans = [
        Span(
            id=id,
            parent_id=root_id,
            name=f"{operation} {attributes['request_model']}",
            kind=Kind.CLIENT,
            role=Role.ATTEMPT,
            started_at=outcome.received_at + began,
            ended_at=outcome.received_at + ended,
            attributes=attributes,
            error=str(attempt.ended) if failed else "",
            events=() if first is None else (Event("first_token", outcome.received_at + first),),
        )
    ]
    if first is not None and outcome.stream:
        phases = (("prefill", began, first), ("decode", first, ended))
        spans += [
            Span(
                id=span_id_of(outcome.request_id, f"{unique} {name}"),
                parent_id=id,
                name=name,
                kind=Kind.INTERNAL,
                role=Role.PHASE,
                started_at=outcome.received_at + start,
                ended_at=outcome.received_at + end,
                attributes={"replica": attempt.replica},
            )
            for name, start, end in phases
        ]
    return spans


def _of_answer(outcome: Outcome) -> dict[str, Value]:
    """Tokens, cost and ending: on the one attempt whose answer it was, or sums over spans would count twice."""
    usage = outcome.usage
    found: dict[str, Value] = {}
    if outcome.usage_source is not UsageSource.NONE:
        found |= {
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "usage_source": outcome.usage_source,
            "uncached_tokens": usage.input_tokens,
            "visible_tokens": max(0, usage.completion_tokens - usage.reasoning_tokens),
        }
        for name, value in (
            ("cache_read_tokens", usage.cached_tokens),
            ("cache_write_tokens", usage.cache_write_tokens),
            ("reasoning_tokens", usage.reasoning_tokens),
        ):
            if value:
                found[name] = value
    if outcome.cost_nanos is not None:
        found["cost"] = outcome.cost_nanos / NANOS_PER_DOLLAR
    if outcome.finish_reason is not None:
        found["finish_reasons"] = (FINISH_REASONS.get(outcome.finish_reason, outcome.finish_reason),)
    return found
