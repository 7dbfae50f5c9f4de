"""One request, from bytes to receipt. Read this file first."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from msgspec import structs

from penstock.balancing.ticket import RANKS
from penstock.config.spec import Scope
from penstock.core.errors import (
    BadRequest,
    CancelledByOperator,
    FailureKind,
    Forbidden,
    LimitExceeded,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    NotServed,
    Overloaded,
    PenstockError,
    RouteRefused,
    UpstreamError,
    UpstreamFailed,
)
from penstock.core.ids import RequestIds
from penstock.core.outcome import Outcome
from penstock.core.plan import CANCELLED
from penstock.core.request import Attribution, Caller, Endpoint, Priority, Request
from penstock.gateway import background
from penstock.gateway.accounting import Accounting
from penstock.gateway.alarm import Alarms
from penstock.gateway.auth import identify
from penstock.gateway.background import Background
from penstock.gateway.call import Call, headers, receipt
from penstock.gateway.cascading import Climb
from penstock.gateway.continuing import go_on
from penstock.gateway.degrading import speak
from penstock.gateway.drain import Drains
from penstock.gateway.exchange import Exchange
from penstock.gateway.explain import PATH as EXPLAIN
from penstock.gateway.explain import explain, operation_of
from penstock.gateway.feedback import PATH as FEEDBACK
from penstock.gateway.feedback import FeedbackPage
from penstock.gateway.inline_media import inlined
from penstock.gateway.max_tokens import held_to
from penstock.gateway.operations import ANTHROPIC, OPENAI, OPERATIONS, Dialect, Operation, azure, openapi, words_for
from penstock.gateway.plane import Plane, Route
from penstock.gateway.pressure import Pressure
from penstock.gateway.relay import Relay
from penstock.gateway.routing import Course, Header, direct, rescue
from penstock.gateway.stored_responses import Recalled, StoredResponses
from penstock.gateway.try_upstreams import Try, TryUpstreams
from penstock.resilience.failures import for_caller
from penstock.stores.counters_memory import MemoryCounters
from penstock.stores.memory import MemoryResponses
from penstock.telemetry.content import Content, Holder
from penstock.wire import anthropic, openai_chat
from penstock.wire.lineage import lineage
from penstock.wire.media import remote_media
from penstock.wire.so_far import begin
from penstock.wire.special import COUNT_BODIES
from penstock.wire.trace_context import passed_on, read_traceparent

NOBODY: Final = frozenset({FailureKind.NO_REPLICA, FailureKind.CONNECT, FailureKind.CONNECT_TIMEOUT})
"""How it looks when nobody is there: then the ladder holds, before anybody has found that out for all."""
SWEEP_EVERY: Final = 1.0  # seconds between two looks for replicas that do worse than their like
_CANCELLED: Final = "An operator of this gateway has cancelled the request."
_MODELS: Final = re.compile(rb"(?:/openai|/anthropic)?/v1/models(?:/(.+))?").fullmatch
_PRIORITIES: Final = {priority.value.encode(): priority for priority in Priority}
Page = Callable[[Exchange], None]


class Gateway:
    """The data plane of one worker. `plane` is swapped in one assignment; requests keep the one they began with."""

    def __init__(
        self,
        plane: Plane,
        *,
        ids: RequestIds,
        on_outcome: Callable[[Outcome], None],
        on_content: Callable[[Outcome, Content], None] | None = None,
        pages: Mapping[bytes, Page] | None = None,
        stored: StoredResponses | None = None,
        feedback: FeedbackPage | None = None,
        accounting: Accounting | None = None,
    ) -> None:
        """To be made inside the running loop. `pages` are more GET paths, answered at once, such as `/metrics`;
        `stored` keeps the answers of the Responses API, and `accounting` limits and the ledger: in memory, if they are
        not given.
        """
        self.plane = plane
        self.calls: dict[str, Call] = {}  # in flight, by id, the oldest first
        self._ids, self._on_outcome, self._on_content = ids, on_outcome, on_content
        self._accounting = accounting or Accounting(MemoryCounters(plane.clock))
        self._alarms = Alarms(asyncio.get_running_loop())
        self._drains = Drains()
        self._responses = stored or StoredResponses(MemoryResponses(), plane.clock)
        self._background = Background(self._responses)
        self._feedback = feedback
        self._pressure, self._holder = Pressure(), Holder()
        self._swept_at = 0.0
        self._pages: dict[bytes, Page] = {
            b"/healthz": self._alive,
            b"/readyz": self._ready,
            b"/openapi.json": self._describe,
            **(pages or {}),
        }

    @property
    def in_flight(self) -> int:
        return len(self.calls)

    @property
    def saturations(self) -> Mapping[str, float]:
        """How hard pressed models are, of those that are at all."""
        return self._pressure.saturations

    def tend(self) -> None:
        """Some four times a second: what changes by itself, and what need not be looked at for each request."""
        plane = self.plane
        now = plane.clock.now()
        for queued in plane.queues:
            queued.tend(now)
        self._pressure.look(plane, now)
        if now - self._swept_at >= SWEEP_EVERY:
            self._swept_at = now
            for watch in plane.watches.values():
                watch.sweep(now)

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """The HTTP handler: a coroutine for what takes time, None for what has been answered."""
        operation = OPERATIONS.get(exchange.path)
        if operation is not None and exchange.method == b"POST":
            if operation.endpoint is Endpoint.RESPONSES and background.wanted(exchange.body):
                return self._serve_in_background(exchange, operation)
            return self.serve(exchange, operation)
        named = azure(exchange.path)
        if named is not None and exchange.method == b"POST":
            return self.serve(exchange, *named)
        if exchange.path == FEEDBACK and self._feedback is not None:
            return self._take_feedback(exchange, self._feedback)
        stored = self._responses.asked(exchange)
        if stored is not None and operation is None:
            return self._answer_stored(exchange, *stored)
        try:
            self._answer_at_once(exchange, operation is not None or named is not None or exchange.path == EXPLAIN)
        except PenstockError as error:
            words = words_for(exchange)
            exchange.respond(words.status(error), words.body(error, ""), _error_headers(error))
        return None

    async def serve(self, exchange: Exchange, operation: Operation, model: str = "") -> None:
        plane, accounting = self.plane, self._accounting
        endpoint, words = operation.endpoint, operation.dialect
        # `plane` is its view of the world, however long it lives
        call = Call(self, self._ids.next(), plane, endpoint, exchange)
        call.task = asyncio.current_task(self._alarms.loop)
        self.calls[call.id] = call
        relayed = False  # the rest of the answer needs no task: its stream calls back
        telemetry = plane.spec.telemetry
        call.trace = read_traceparent(exchange.header(b"traceparent"))
        told = passed_on(call.id, call.trace, telemetry.drawn) if telemetry.propagate else None
        try:
            call.caller = _in_class(identify(plane, exchange, endpoint), exchange.header(b"x-penstock-priority"))
            if len(self.calls) > plane.spec.max_in_flight:
                raise Overloaded("The gateway is full; try again shortly.", retry_after=1.0)
            request = operation.parse(exchange, call.id, endpoint, call.caller, call.received_at, model)
            call.request = request = _with_deadline(request, exchange.header(b"x-request-timeout"))
            call.lineage = lineage(exchange.header, request.fields)
            if self._on_content is not None and not request.form:
                call.content = self._holder.hold(telemetry.capture, endpoint, exchange.body, call.received_at)
            route = _route(plane, call.caller, request.model, endpoint)
            if route is None:
                call.status, call.error = 200, None
                exchange.respond(200, COUNT_BODIES[endpoint](request.prompt_tokens), _estimated(call.id))
                return
            if endpoint is Endpoint.RESPONSES:
                recalled = await self._responses.recall(request)
                call.request = request = recalled.request
            call.route = route
            course: Course | None = None
            said: Attribution | None = None
            if route.directed:
                said = accounting.attribute(plane, request, exchange.header)
                course = direct(plane, accounting, self._pressure, request, said, exchange.header)
                call.course, call.degraded = course, course.degraded
                if course.refusal is not None:
                    raise RouteRefused(course.refusal.message, course.refusal.status, course.refusal.code)
                if course.say is not None:
                    await self._speak(call, exchange, recalled if endpoint is Endpoint.RESPONSES else None)
                    return
                call.route = route = course.route
            if self._pressure.saturations:
                self._pressure.admit(plane, route, request, plane.rng)
            if route.max_tokens is not None:
                request, call.told = held_to(route.max_tokens, route.cap_name, request)
                call.request = request
            if course is not None:
                request = call.shorten(course, request)
            call.bill = bill = accounting.open(plane, route, request, exchange.header, said)
            if bill.attribution.session:
                call.request = request = structs.replace(request, session=_session(request, bill.attribution.session))
            if bill.applied is not None and not accounting.reserve_now(bill, call.id):
                await accounting.reserve(bill, call.id)
            accounting.begin(bill, route, request)
            if route.inline_media and (endpoint is not Endpoint.CHAT or openai_chat.has_parts(request)):
                remote = remote_media(request.fields, endpoint)  # in earlier turns too
                if remote:
                    call.request = request = await inlined(request, remote, plane.fetcher)
            plan = route.plan if request.stream else route.plain_plan
            call.admitted_at = plane.clock.now()
            if course is None:
                so_far = None if plan.on_cut == "error" else begin(request, plan.on_cut, plane.rng.getrandbits(32))
                call.tries = tries = TryUpstreams(
                    plane, request, plan, route, self._alarms, call.alarm, call.leases, so_far
                )
                tries.trace = told
                tries.start()
                while (answer := tries.answer()) is None:
                    await tries.news()
            else:
                call.climb = climb = Climb(plane, endpoint, self._alarms, call.alarm, call.leases)
                climb.trace = told
                found = await self._follow(call, climb, course, exchange.header)
                if found is None:
                    await self._speak(call, exchange, recalled if endpoint is Endpoint.RESPONSES else None)
                    return
                answer, tries, plan = found, climb.tries, climb.tries.plan
                so_far = tries.so_far
            call.answer = call.last = answer
            if call.climb is not None and call.climb.held:
                call.shown_at = plane.clock.now()
            call.status = 200  # from here on what breaks is told inside the answer
            plain = answer.stream.plain
            if plain is not None:
                exchange.respond(200, plain, headers(call, answer), answer.stream.content_type)
                call.ended(answer, None)
                if call.content is not None:
                    call.content.said(plain)
            else:
                exchange.start(200, headers(call, answer), answer.stream.content_type)
                exchange.forget()
                may_go_on = so_far is not None
                if not may_go_on:
                    request.forget()
                    if course is not None:
                        call.forget()
                relay = Relay(
                    answer.stream,
                    exchange,
                    words.event,
                    call.id,
                    plane.clock,
                    self._alarms,
                    call.alarm,
                    call,
                    may_go_on,
                )
                if call.content is not None:
                    relay.on_events = call.content.tee(relay.on_events)
                if not may_go_on and endpoint is not Endpoint.RESPONSES:
                    call.task = None
                    relay.run(plan.idle_timeout, tries.deadline)
                    relayed = True
                    return
                ended = call.waiting = self._alarms.loop.create_future()
                relay.run(plan.idle_timeout, tries.deadline)
                failure = await ended
                while failure is not None and may_go_on:  # another replica may know the rest
                    if (another := await go_on(tries, call.last, failure)) is None:
                        relay.break_off(failure)
                        break
                    call.last = another
                    ended = call.waiting = self._alarms.loop.create_future()
                    relay.go_on(another.stream)
                    failure = await ended
                call.ended(call.last, failure)
            if endpoint is Endpoint.RESPONSES and call.error is None:
                await self._responses.keep(recalled, answer.stream.reading.final_response(), plane.spec)
        except PenstockError as error:
            call.caller = error.caller or call.caller  # who showed a key that may not do this
            call.status, call.error = words.status(error), error.code
            exchange.respond(call.status, words.body(error, call.id), _error_headers(error, call.id))
        except asyncio.CancelledError:
            if call.cancelled:
                _tell_cancelled(call, words)
            else:
                relayed = True
                exchange.flow = None
                self.left(call)
                raise
        finally:
            if not relayed:
                exchange.flow = None
                self.over(call)

    async def _follow(self, call: Call, climb: Climb, course: Course, header: Header) -> Try | None:
        """The answer on that course; where nobody turns out to be there, on the one that its ladder has instead. None:
        the answer is a text, `call.course.say`. Raises `PenstockError`.
        """
        request, bill = call.request, call.bill
        assert request is not None and bill is not None, "it has been admitted"
        try:
            return await climb.answer(call, course, course.sent(request))
        except UpstreamFailed as failed:
            if failed.kind not in NOBODY:
                raise
            other = rescue(call.plane, self._accounting, request, bill.attribution, header, course)
            if other is None:
                raise
        call.course, call.route, call.degraded = other, other.route, other.degraded
        if other.say is not None:
            return None
        request = call.shorten(other, request)
        return await climb.answer(call, other, other.sent(request))

    async def _speak(self, call: Call, exchange: Exchange, recalled: Recalled | None) -> None:
        """What the ladder says is the answer."""
        request, course, plane = call.request, call.course, call.plane
        assert request is not None and course is not None and course.say is not None, "there is something to say"
        spoken = speak(request, course.say, plane.clock.wall())
        if recalled is not None:
            await self._responses.keep(recalled, spoken.response, plane.spec)
        call.status, call.error = 200, None
        if call.content is not None:
            call.content.said(spoken.body)
        headers = f"x-request-id: {call.id}\r\nx-penstock-plane: {plane.spec.version}\r\n".encode("ascii")
        headers += course.headers(() if call.climb is None else call.climb.why, call.degraded)
        if request.stream:
            exchange.start(200, headers, spoken.content_type)
            exchange.finish(spoken.body)
        else:
            exchange.respond(200, spoken.body, headers, spoken.content_type)

    def cancel(self, id: str) -> bool:
        """End a request because an operator says so; its caller is told. False: it is not here, or was answered."""
        call = self.calls.get(id)
        if call is None:
            return False
        if call.drain is not None:
            call.drain.over(CANCELLED)  # its caller had left before
            return True
        if call.exchange.started and call.exchange.flow is None:
            return False
        call.cancelled = True
        if call.task is not None:
            call.task.cancel()
            return True
        error, flow = CancelledByOperator(_CANCELLED), call.exchange.flow
        assert isinstance(flow, Relay), "without a task it is relayed"
        call.error = error.code
        flow.cut(error)
        self.over(call)
        return True

    def left(self, call: Call) -> None:
        """The caller has gone, before the answer or in the middle of it."""
        call.drain = self._drains.adopt(call.tries, call.last, lambda this: self.over(call, this))
        if call.drain is None:
            self.over(call)

    def over(self, call: Call, drained: Try | None = None) -> None:
        """Everything is given back and the receipt written. The first call counts, later ones do nothing."""
        if call.is_over:
            return
        call.is_over = True
        del self.calls[call.id]
        call.answer = call.answer or drained
        call.last = drained or call.last
        call.leases.release()
        self._alarms.clear(call.alarm)
        outcome, cost = receipt(call)
        bill, request = call.bill, call.request
        if bill is not None and request is not None:
            self._accounting.settle(bill, request, outcome)
        self._accounting.record(outcome, bill, cost)
        if call.content is not None and self._on_content is not None:
            self._on_content(outcome, call.content)
        else:
            self._on_outcome(outcome)

    async def _serve_in_background(self, exchange: Exchange, operation: Operation) -> None:
        plane, id = self.plane, self._ids.next()
        try:
            caller = identify(plane, exchange, operation.endpoint)
            request = operation.parse(exchange, id, operation.endpoint, caller, plane.clock.now(), "")
            _route(plane, caller, request.model, operation.endpoint)
            created = int(plane.clock.wall())
            await self._background.run(
                exchange, request, created, plane.spec, lambda nowhere: self.serve(nowhere, operation)
            )
        except PenstockError as error:
            if not exchange.started:
                exchange.respond(error.status, OPENAI.body(error, id), _error_headers(error, id))

    async def _take_feedback(self, exchange: Exchange, page: FeedbackPage) -> None:
        try:
            await page.answer(exchange, identify(self.plane, exchange, None))
        except PenstockError as error:
            exchange.respond(error.status, OPENAI.body(error, ""), _error_headers(error))

    async def _answer_stored(self, exchange: Exchange, id: str, part: str) -> None:
        """Requests about an answer that was kept."""
        try:
            scope: Scope = "read" if exchange.method == b"GET" else "call"
            caller = identify(self.plane, exchange, Endpoint.RESPONSES, scope)
            exchange.respond(200, await self._responses.answer(exchange, caller, id, part))
        except PenstockError as error:
            exchange.respond(error.status, OPENAI.body(error, ""), _error_headers(error))

    # --- what is answered at once ---

    def _answer_at_once(self, exchange: Exchange, takes_post: bool) -> None:
        path, method = exchange.path, exchange.method
        if path == EXPLAIN and method == b"POST":
            self._explain(exchange)
            return
        if takes_post:
            raise MethodNotAllowed(f"{path.decode('latin-1')} takes POST.", allow="POST")
        page = self._pages.get(path)
        models = _MODELS(path)
        if page is None and models is None:
            raise NotFound("There is nothing at this path. The API is under /v1.")
        if method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed("This path takes GET.", allow="GET, HEAD")
        if page is not None:
            page(exchange)
            return
        assert models is not None
        plane = self.plane
        caller = identify(plane, exchange, None, "read")
        rows = anthropic if words_for(exchange) is ANTHROPIC else openai_chat
        if models[1] is None:
            names = [name for name in plane.routes if caller.models is None or name in caller.models]
            exchange.respond(200, rows.model_list(names))
            return
        name = unquote_to_bytes(models[1]).decode("utf-8", "replace")
        _known(plane, caller, name)
        exchange.respond(200, rows.model_row(name))

    def _explain(self, exchange: Exchange) -> None:
        plane, operation = self.plane, operation_of(exchange.query)
        endpoint = operation.endpoint
        caller = _in_class(identify(plane, exchange, endpoint), exchange.header(b"x-penstock-priority"))
        request = operation.parse(exchange, self._ids.next(), endpoint, caller, plane.clock.now(), "")
        if _route(plane, caller, request.model, endpoint) is None:
            raise _not_served(request.model, endpoint)
        said = self._accounting.attribute(plane, request, exchange.header)
        if said.session:
            request = structs.replace(request, session=_session(request, said.session))
        exchange.respond(200, explain(plane, self._accounting, self._pressure, request, said, exchange.header))

    def _describe(self, exchange: Exchange) -> None:
        exchange.respond(200, openapi(keys=not self.plane.spec.insecure_dev))

    def _alive(self, exchange: Exchange) -> None:
        exchange.respond(200, b'{"status":"alive"}')

    def _ready(self, exchange: Exchange) -> None:
        """200 when every model has at least one ready replica; the body names the models that have none."""
        missing = self.plane.unready_models()
        body = openai_chat.readiness(missing, self.plane.version)
        exchange.respond(503 if missing else 200, body)


def _tell_cancelled(call: Call, words: Dialect) -> None:
    """An operator has cancelled it while somebody served it."""
    error, exchange = CancelledByOperator(_CANCELLED), call.exchange
    if call.task is not None:
        call.task.uncancel()
    if isinstance(exchange.flow, Relay):
        call.error = error.code
        exchange.flow.cut(error)
    elif not exchange.started:
        call.status, call.error = words.status(error), error.code
        exchange.respond(call.status, words.body(error, call.id), _error_headers(error, call.id))
    elif call.last is not None and call.last.stream.reading.done:
        call.error = None  # in the same moment it became whole


def _in_class(caller: Caller, header: bytes | None) -> Caller:
    """`x-penstock-priority: low`: a class that is no higher than its key's. Raises `BadRequest`."""
    if header is None:
        return caller
    asked = _PRIORITIES.get(header)
    if asked is None or RANKS[asked] < RANKS[caller.priority]:
        allowed = [one.value for one in Priority if RANKS[one] >= RANKS[caller.priority]]
        raise BadRequest(f"x-penstock-priority must be {' or '.join(allowed)}: this key's requests are no higher.")
    return structs.replace(caller, priority=asked)


def _session(request: Request, name: str) -> str:
    """Of its caller's organisation, or of its key: others may use the same name."""
    caller = request.caller
    return f"{caller.org or caller.key_id}:{name}"


def _with_deadline(request: Request, header: bytes | None) -> Request:
    """`x-request-timeout: 2.5`, seconds that the caller will wait. Raises `BadRequest`."""
    if header is None:
        return request
    try:
        seconds = float(header)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 86_400:
        raise BadRequest("x-request-timeout must be seconds, from 0 to 86400")
    if seconds == 0:
        raise for_caller(UpstreamError(FailureKind.TOTAL_TIMEOUT))
    return structs.replace(request, deadline=request.received_at + seconds)


def _known(plane: Plane, caller: Caller, model: str) -> Route:
    route = plane.routes.get(model)
    if route is None:
        raise ModelNotFound(f"There is no model {model[:200]!r} here; GET /v1/models lists them.", param="model")
    if caller.models is not None and model not in caller.models:
        raise Forbidden(f"This key may not use the model {model!r}.", param="model")
    return route


def _route(plane: Plane, caller: Caller, model: str, endpoint: Endpoint) -> Route | None:
    """None: nobody who serves the model can count tokens, so we estimate. Raises `PenstockError`."""
    route = _known(plane, caller, model).by_endpoint.get(endpoint)
    if route is None and endpoint not in COUNT_BODIES:
        raise _not_served(model, endpoint)
    return route


def _not_served(model: str, endpoint: Endpoint) -> NotServed:
    return NotServed(f"The model {model!r} does not serve {endpoint}.", param="model")


def _estimated(id: str) -> bytes:
    return f"x-request-id: {id}\r\nx-penstock-estimate: input_tokens\r\n".encode("ascii")


def _error_headers(error: PenstockError, id: str | None = None) -> bytes:
    headers = b"" if id is None else b"x-request-id: " + id.encode("ascii") + b"\r\n"
    if isinstance(error, CancelledByOperator):
        headers += b"x-should-retry: false\r\n"
    if isinstance(error, LimitExceeded):
        headers += error.headers
        if error.retry_after is None:  # the clients of OpenAI and Anthropic would come again
            headers += b"x-should-retry: false\r\n"
    if error.retry_after is not None:
        # whole seconds, rounded up: RFC 9110, 10.2.3
        headers += b"retry-after: %d\r\n" % max(1, -int(-error.retry_after // 1))
    if isinstance(error, MethodNotAllowed):
        headers += b"allow: " + error.allow.encode("ascii") + b"\r\n"
    if error.status == 401:
        headers += b"www-authenticate: Bearer\r\n"
    return headers
