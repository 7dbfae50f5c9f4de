"""One request, from bytes to receipt. Read this file first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from penstock.core.errors import (
    Forbidden,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    Overloaded,
    PenstockError,
)
from penstock.core.ids import RequestIds
from penstock.core.outcome import Outcome, UsageSource, to_microsecond
from penstock.core.plan import OK
from penstock.core.request import ANYONE, Caller, Endpoint, Request, Usage
from penstock.gateway.alarm import Alarm, Alarms
from penstock.gateway.auth import identify
from penstock.gateway.exchange import Exchange
from penstock.gateway.leases import Leases
from penstock.gateway.plane import Plane, Route
from penstock.gateway.relay import Relay
from penstock.gateway.try_upstreams import Try, TryUpstreams
from penstock.resilience.failures import for_caller
from penstock.wire import openai_chat
from penstock.wire.errors import openai_body

CLIENT_LEFT: Final = "client_left"  # the outcome's error when the caller went away; status 499 before any answer
ENDPOINTS: Final[Mapping[bytes, Endpoint]] = {
    b"/v1/chat/completions": Endpoint.CHAT,
    b"/v1/completions": Endpoint.COMPLETION,
}
Page = Callable[[Exchange], None]


class Call:
    """What is known of a request while it lives; the receipt is written from it."""

    __slots__ = ("alarm", "answer", "caller", "error", "id", "leases", "received_at", "request", "status", "tries")

    def __init__(self, id: str, received_at: float) -> None:
        self.id, self.received_at = id, received_at
        self.alarm = Alarm()
        self.leases = Leases()
        self.caller: Caller = ANYONE
        self.request: Request | None = None
        self.tries: TryUpstreams | None = None
        self.answer: Try | None = None
        self.status = 499
        self.error: str | None = CLIENT_LEFT  # until something else is true


class Gateway:
    """The data plane of one worker. `plane` is swapped in one assignment; requests keep the one they began with."""

    def __init__(
        self,
        plane: Plane,
        *,
        ids: RequestIds,
        on_outcome: Callable[[Outcome], None],
        pages: Mapping[bytes, Page] | None = None,
    ) -> None:
        """To be made inside the running loop. `pages` are more GET paths, answered at once, such as `/metrics`."""
        self.plane = plane
        self.in_flight = 0
        self._ids, self._on_outcome = ids, on_outcome
        self._alarms = Alarms(asyncio.get_running_loop())
        self._pages: dict[bytes, Page] = {b"/healthz": self._alive, b"/readyz": self._ready, **(pages or {})}

    def handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """The HTTP handler: a coroutine for what takes time, None for what has been answered."""
        endpoint = ENDPOINTS.get(exchange.path)
        if endpoint is not None and exchange.method == b"POST":
            return self.serve(exchange, endpoint)
        try:
            self._answer_at_once(exchange, endpoint)
        except PenstockError as error:
            exchange.respond(error.status, openai_body(error), _error_headers(error))
        return None

    async def serve(self, exchange: Exchange, endpoint: Endpoint) -> None:
        plane = self.plane  # this request's view of the world, however long it lives
        call = Call(self._ids.next(), plane.clock.now())
        self.in_flight += 1
        try:
            call.caller = identify(plane, exchange.header(b"authorization"))
            if self.in_flight > plane.spec.max_in_flight:
                raise Overloaded("The gateway is full; try again shortly.", retry_after=1.0)
            call.request = request = openai_chat.parse(
                exchange.body, id=call.id, endpoint=endpoint, caller=call.caller, now=call.received_at
            )
            route = _route(plane, call.caller, request.model)
            plan = route.plan if request.stream else route.plain_plan
            call.tries = tries = TryUpstreams(plane, request, plan, route.pools, self._alarms, call.alarm, call.leases)
            tries.start()
            while (answer := tries.answer()) is None:
                await tries.news()
            call.answer = answer
            call.status = 200  # from here on nothing is retried, and what breaks is told inside the answer
            plain = answer.stream.plain
            if plain is not None:
                exchange.respond(200, plain, _headers(plane, call, answer))
                failure = None
            else:
                exchange.start(200, _headers(plane, call, answer))
                request.fields.clear()
                exchange.forget()
                relay = Relay(answer.stream, exchange, plane.clock, self._alarms, call.alarm)
                failure = await relay.run(plan.idle_timeout, tries.deadline)
            call.error = None if failure is None else for_caller(failure).code
            tries.end(answer, OK if failure is None else failure.kind)
        except PenstockError as error:
            call.status, call.error = error.status, error.code
            exchange.respond(error.status, openai_body(error), _error_headers(error, call.id))
        finally:
            exchange.flow = None
            call.leases.release()
            self._alarms.clear(call.alarm)
            self.in_flight -= 1
            self._on_outcome(_receipt(plane, call, endpoint))

    # --- what is answered at once ---

    def _answer_at_once(self, exchange: Exchange, endpoint: Endpoint | None) -> None:
        path, method = exchange.path, exchange.method
        if endpoint is not None:
            raise MethodNotAllowed(f"{path.decode('latin-1')} takes POST.")
        page = self._pages.get(path)
        if page is None and path != b"/v1/models" and not path.startswith(b"/v1/models/"):
            raise NotFound("There is nothing at this path. The API is under /v1.")
        if method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed("This path takes GET.")
        if page is not None:
            page(exchange)
            return
        plane = self.plane
        caller = identify(plane, exchange.header(b"authorization"))
        if path == b"/v1/models":
            names = [name for name in plane.routes if caller.models is None or name in caller.models]
            exchange.respond(200, openai_chat.model_list(names))
            return
        name = path[len(b"/v1/models/") :].decode("latin-1")
        _route(plane, caller, name)
        exchange.respond(200, openai_chat.model_row(name))

    def _alive(self, exchange: Exchange) -> None:
        exchange.respond(200, b'{"status":"alive"}')

    def _ready(self, exchange: Exchange) -> None:
        """200 when every model has at least one ready replica; the body names the models that have none."""
        missing = self.plane.unready_models()
        body = openai_chat.readiness(missing, self.plane.version)
        exchange.respond(503 if missing else 200, body)


def _headers(plane: Plane, call: Call, answer: Try) -> bytes:
    now = plane.clock.now()
    waited = (answer.first_token_at or now) - answer.started_at
    return (
        f"x-request-id: {call.id}\r\nx-penstock-replica: {answer.replica.name}\r\n"
        f"x-penstock-attempts: {answer.number + 1}\r\nx-penstock-plane: {plane.spec.version}\r\n"
        f"server-timing: gateway;dur={(now - call.received_at - waited) * 1e3:.2f}, "
        f"upstream;dur={waited * 1e3:.2f}\r\n"
    ).encode("ascii")


def _receipt(plane: Plane, call: Call, endpoint: Endpoint) -> Outcome:
    answer, request, tries = call.answer, call.request, call.tries
    usage, source = (Usage(), UsageSource.NONE) if answer is None else answer.stream.usage()
    duration = plane.clock.now() - call.received_at
    first = None if answer is None else answer.first_token_at
    return Outcome(
        received_at=plane.clock.wall() - duration,
        request_id=call.id,
        endpoint=endpoint,
        tenant=call.caller.tenant,
        key_id=call.caller.key_id,
        model="" if request is None else request.model,
        stream=request is not None and request.stream,
        status=call.status,
        error=call.error,
        attempts=() if tries is None else tries.records,
        usage=usage,
        usage_source=source,
        finish_reason=None if answer is None else answer.stream.finish_reason,
        first_token_after=None if first is None else to_microsecond(first - call.received_at),
        duration=to_microsecond(duration),
        plane_version=plane.spec.version,
    )


def _route(plane: Plane, caller: Caller, model: str) -> Route:
    route = plane.routes.get(model)
    if route is None:
        raise ModelNotFound(f"There is no model {model[:200]!r} here; GET /v1/models lists them.", param="model")
    if caller.models is not None and model not in caller.models:
        raise Forbidden(f"This key may not use the model {model!r}.", param="model")
    return route


def _error_headers(error: PenstockError, id: str | None = None) -> bytes:
    headers = b"" if id is None else b"x-request-id: " + id.encode("ascii") + b"\r\n"
    if error.retry_after is not None:
        # whole seconds, rounded up: RFC 9110, 10.2.3
        headers += b"retry-after: %d\r\n" % max(1, -int(-error.retry_after // 1))
    if error.status == 401:
        headers += b"www-authenticate: Bearer\r\n"
    return headers
