"""A request while it lives, and what is told of it: in the headers of its answer, and in its receipt."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from penstock.core.errors import UpstreamError
from penstock.core.microseconds import to_microsecond
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import OK
from penstock.core.request import ANYONE, UNATTRIBUTED, Caller, Endpoint, Request, Usage
from penstock.gateway.accounting import NOTHING, Bill, cost_of_answer
from penstock.gateway.alarm import Alarm
from penstock.gateway.cascading import Climb
from penstock.gateway.drain import Drain
from penstock.gateway.exchange import Exchange
from penstock.gateway.leases import Leases
from penstock.gateway.max_tokens import at_most
from penstock.gateway.plane import Plane, Route
from penstock.gateway.routing import Course
from penstock.gateway.try_upstreams import Try, TryUpstreams
from penstock.pricing.bill import Cost
from penstock.resilience.failures import for_caller
from penstock.telemetry.content import Content
from penstock.wire.lineage import NO_LINEAGE
from penstock.wire.trace_context import NO_PARENT

CLIENT_LEFT: Final = "client_left"  # the outcome's error when the caller went away; status 499 before any answer


class Keeper(Protocol):
    """The gateway."""

    def over(self, call: Call) -> None:
        """Everything is to be given back, and the receipt written."""
        ...

    def left(self, call: Call) -> None:
        """The caller has gone."""
        ...


class Call:
    """What is known of a request while it lives; the receipt is written from it. Owns the relay of its answer."""

    __slots__ = (
        "_gateway", "admitted_at", "alarm", "answer", "bill", "caller", "cancelled", "climb", "content", "course",
        "degraded", "drain", "endpoint", "error", "exchange", "id", "is_over", "last", "leases", "lineage", "plane",
        "received_at", "request", "route", "shown_at", "status", "task", "told", "trace", "tries", "waiting",
    )  # fmt: skip

    def __init__(self, gateway: Keeper, id: str, plane: Plane, endpoint: Endpoint, exchange: Exchange) -> None:
        self._gateway, self.id, self.plane, self.endpoint = gateway, id, plane, endpoint
        self.exchange = exchange
        self.task: asyncio.Task[Any] | None = None  # who serves it; None: its stream calls back
        self.received_at = plane.clock.now()
        self.admitted_at = 0.0  # 0: it was not
        self.alarm = Alarm()
        self.leases = Leases()
        self.caller: Caller = ANYONE
        self.request: Request | None = None
        self.route: Route | None = None
        self.course: Course | None = None  # what routing and the ladder have decided
        self.climb: Climb | None = None  # its cascade
        self.degraded: tuple[str, ...] = ()
        self.trace = NO_PARENT  # as its caller said
        self.lineage = NO_LINEAGE
        self.content: Content | None = None  # its texts, where they are wanted
        self.bill: Bill | None = None
        self.told = b""  # header lines of the answer that are known before it
        self.tries: TryUpstreams | None = None
        self.answer: Try | None = None  # whose first token was the caller's first
        self.shown_at: float | None = None  # when the caller got that, where it had been held
        self.last: Try | None = None  # the same, or who went on when that broke
        self.status = 499
        self.error: str | None = CLIENT_LEFT  # until something else is true
        self.waiting: asyncio.Future[UpstreamError | None] | None = None  # somebody awaits the end of the stream
        self.drain: Drain | None = None  # its caller has gone, and its answer is read all the same
        self.cancelled = False  # by an operator
        self.is_over = False

    @property
    def began_at(self) -> float | None:
        """When its caller had the first token. Clock.now() seconds; None: not yet."""
        return None if self.answer is None else self.shown_at or self.answer.first_token_at

    def ended(self, answer: Try, failure: UpstreamError | None) -> None:
        """The answer is whole, or broke in the middle."""
        self.error = None if failure is None else for_caller(failure).code
        assert self.tries is not None
        self.tries.end(answer, OK if failure is None else failure.kind)

    def shorten(self, course: Course, request: Request) -> Request:
        """The request, with fewer tokens for its answer where that course says so."""
        fewer = None if course.max_tokens is None else at_most(course.max_tokens, course.route.cap_name, request)
        if fewer is None:
            return request
        self.request = fewer
        self.degraded = (f"max_tokens={course.max_tokens}", *course.degraded)
        return fewer

    def forget(self) -> None:
        """Drop what the caller sent, wherever it was changed for upstreams."""
        if self.request is not None:
            self.request.forget()
        if self.climb is not None:
            self.climb.forget()

    # --- Owner ---

    def relayed(self, failure: UpstreamError | None) -> None:
        if self.waiting is not None:
            if not self.waiting.done():
                self.waiting.set_result(failure)
            return
        assert self.answer is not None
        self.ended(self.answer, failure)
        self._gateway.over(self)

    def left(self) -> None:
        if self.waiting is None:  # else that somebody is cancelled
            self._gateway.left(self)


def headers(call: Call, answer: Try) -> bytes:
    """Of an answer that begins."""
    plane, climb = call.plane, call.climb
    now = plane.clock.now()
    attempts = answer.number + 1 if climb is None else climb.n_attempts()
    held = call.shown_at is not None
    waited = now - call.admitted_at if held else (answer.first_token_at or now) - answer.started_at
    # one operation on bytes: text that is encoded afterwards costs twice as much
    lines = (
        b"x-request-id: %b\r\nx-penstock-replica: %b\r\nx-penstock-attempts: %d\r\nx-penstock-plane: %d\r\n"
        b"server-timing: gateway;dur=%.2f, upstream;dur=%.2f\r\n"
    ) % (
        call.id.encode("ascii"),
        answer.replica.name.encode("ascii", "replace"),
        attempts,
        plane.spec.version,
        (now - call.received_at - waited) * 1e3,
        waited * 1e3,
    )
    if answer.stream.lost:
        lines += b"x-penstock-lost: %b\r\n" % ", ".join(answer.stream.lost).encode("ascii", "replace")
    if call.course is not None:
        lines += call.course.headers(() if climb is None else climb.why, call.degraded)
    return lines + call.told if call.bill is None else lines + call.told + call.bill.headers()


def receipt(call: Call) -> tuple[Outcome, Cost]:
    """What is told of it, however it ended, and what it cost."""
    last, request, tries, plane = call.last, call.request, call.tries, call.plane
    usage, source = (Usage(), UsageSource.NONE) if last is None else last.stream.usage()
    duration = plane.clock.now() - call.received_at
    course, climb = call.course, call.climb
    first = call.began_at
    until = None  # the last token
    if first is not None and last is not None and request is not None and request.stream:
        until = to_microsecond(max(first, last.stream.progressed_at) - call.received_at)
    received_at = plane.clock.wall() - duration
    choice = None if tries is None else tries.choice
    deployment, cost, said = "", NOTHING, UNATTRIBUTED
    if last is not None and call.route is not None:
        deployment = last.replica.deployment
        cost = cost_of_answer(usage, source, call.route.prices[deployment], received_at)
    attempts = () if tries is None else tries.records
    if climb is not None:
        attempts, cost = climb.attempts(), climb.cost(cost, received_at)
    if call.bill is not None:
        said = call.bill.attribution
    outcome = Outcome(
        received_at=received_at,
        request_id=call.id,
        endpoint=call.endpoint,
        tenant=call.caller.tenant,
        key_id=call.caller.key_id,
        model="" if request is None else request.model,
        stream=request is not None and request.stream,
        status=call.status,
        error=call.error,
        attempts=attempts,
        usage=usage,
        usage_source=source,
        finish_reason=None if last is None else last.stream.finish_reason,
        first_token_after=None if first is None else to_microsecond(first - call.received_at),
        duration=to_microsecond(duration),
        plane_version=plane.spec.version,
        deployment=deployment,
        team=call.caller.team,
        user_hash=said.user_hash,
        feature=said.feature,
        session=said.session,
        tags=said.tags,
        cost_nanos=cost.nanos,
        priority=call.caller.priority,
        admitted_after=to_microsecond(call.admitted_at - call.received_at) if call.admitted_at else 0.0,
        queued_for=0.0 if tries is None else to_microsecond(tries.queued_for),
        predicted_ttft=0.0 if choice is None else to_microsecond(choice.wait),
        matched_tokens=0 if choice is None or request is None else max(0, request.prompt_tokens - choice.uncached),
        why=() if course is None else course.why if climb is None else (*course.why, *climb.why),
        arm="" if course is None else course.arm,
        degraded=call.degraded,
        trace_id=call.trace[0],
        parent_id=call.trace[1],
        sampled=call.trace[2],
        prompt_version=call.lineage[0],
        context=call.lineage[1],
        last_token_after=until,
        served=plane.served.get(deployment, ""),
    )
    return outcome, cost
