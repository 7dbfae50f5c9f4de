"""What can go wrong, as types and one closed list of kinds. Only `wire.errors` renders them."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from penstock.core.request import Caller


class FailureKind(StrEnum):
    """Why one attempt failed. What follows from it (retry, breaker, status) is one table: `resilience.failures`."""

    CONNECT = "connect"  # refused, unreachable, name unknown, TLS failed: no byte was sent
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    IDLE_TIMEOUT = "idle_timeout"  # began to answer, then nothing that means anything for too long
    TOTAL_TIMEOUT = "total_timeout"
    RATE_LIMITED = "rate_limited"  # 429: this replica or credential has had enough
    QUOTA = "quota"  # 402, or a 429 that says so: our account there is out of money, not out of breath
    OVERLOADED = "overloaded"  # 503, 529
    SERVER_ERROR = "server_error"  # any other 5xx, or an error event inside a 200
    NETWORK = "network"  # the connection broke
    TRUNCATED = "truncated"  # a clean end of the stream without its terminal event
    BAD_PAYLOAD = "bad_payload"  # not the dialect it claims to be
    AUTH = "auth"  # 401, 403: our credential, never the caller's
    MISCONFIGURED = "misconfigured"  # 404 and the like: the upstream does not know the path or the model
    REJECTED = "rejected"  # the caller's request is at fault: 400, 413, 422
    CONTEXT_LENGTH = "context_length"  # likewise: longer than this model can read
    CONTENT_POLICY = "content_policy"  # likewise: the provider will not answer this
    NO_REPLICA = "no_replica"  # nothing ready, or every breaker open


class Said(msgspec.Struct, frozen=True, gc=False):
    """An upstream's own words about the caller's request: the four fields of OpenAI's error object, and nothing else
    that it may have added."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class UpstreamError(Exception):
    """One attempt failed. Stays inside the gateway; callers see a `PenstockError`.

    `said` only where the failure speaks of the caller's own request (`REJECTED`, `CONTEXT_LENGTH`, `CONTENT_POLICY`).
    """

    def __init__(
        self,
        kind: FailureKind,
        detail: str = "",
        *,
        retry_after: float | None = None,
        status: int = 0,
        said: Said | None = None,
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else str(kind))
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after  # seconds
        self.status = status
        self.said = said


class PenstockError(Exception):
    """Base of every error that may reach a caller. `message` is written for them: no host, key or routing in it."""

    status = 500
    code = "internal_error"
    type = "server_error"  # OpenAI's coarse word
    caller: Caller | None = None  # who was refused, where the key was known and may not do this

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after  # seconds


class BadRequest(PenstockError):
    status, code, type = 400, "invalid_request", "invalid_request_error"


class Untranslatable(BadRequest):
    """The caller's dialect can say something that the upstream's cannot. `field` is the caller's own name for it."""

    code = "unsupported_across_dialects"

    def __init__(self, field: str, why: str = "") -> None:
        reason = f": {why}" if why else ""
        super().__init__(f'unsupported_across_dialects: "{field}" cannot be said to this model{reason}.', param=field)
        self.field = field


class Unauthorized(PenstockError):
    status, code, type = 401, "invalid_api_key", "authentication_error"


class KeyRevoked(Unauthorized):
    code = "revoked_api_key"


class KeyExpired(Unauthorized):
    """Its time is over, or that of the overlap with the key that replaced it."""

    code = "expired_api_key"


class KeyNotYetValid(Unauthorized):
    code = "api_key_not_yet_valid"


class Forbidden(PenstockError):
    status, code, type = 403, "model_not_allowed", "permission_error"


class NetworkNotAllowed(Forbidden):
    code = "network_not_allowed"


class ScopeNotAllowed(Forbidden):
    code = "scope_not_allowed"


class RouteNotAllowed(Forbidden):
    code = "route_not_allowed"


class NotFound(PenstockError):
    status, code, type = 404, "not_found", "invalid_request_error"


class ModelNotFound(NotFound):
    code = "model_not_found"


class NotServed(BadRequest):
    """The model exists, but nobody who serves it has this endpoint."""

    code = "unsupported_endpoint"


class MethodNotAllowed(PenstockError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow  # the methods, as in the Allow header


class Overloaded(PenstockError):
    status, code, type = 503, "overloaded", "overloaded_error"


class QueueRefused(Overloaded):
    """There is no room for it in time. `code` says why: the queue is full, the deadline cannot be kept, ..."""

    def __init__(self, message: str, code: str, retry_after: float | None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.code = code


class RouteRefused(PenstockError):
    """Routing has left nobody who may answer. Status and code are the decision's."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.type = {400: "invalid_request_error", 403: "permission_error"}.get(status, "overloaded_error")


class LimitExceeded(PenstockError):
    """A limit or a budget of the caller's. `headers` are lines that tell how much of which is left."""

    status, type = 429, "rate_limit_error"

    def __init__(self, message: str, code: str, retry_after: float | None, headers: bytes) -> None:
        super().__init__(message, retry_after=retry_after)
        self.code = code
        self.headers = headers


class CostCapExceeded(PenstockError):
    """One request that may cost more than one request of this key may cost."""

    status, code, type = 403, "request_cost_limit", "permission_error"


class Unpriced(PenstockError):
    """Nobody knows what the model costs, and somebody has to."""

    status, code, type = 403, "model_not_priced", "permission_error"


class StoreUnavailable(PenstockError):
    """What was kept cannot be read at the moment."""

    status, code, type = 503, "store_unavailable", "server_error"


class CancelledByOperator(PenstockError):
    """Somebody who looks after the gateway has ended this request. To send it again would be against their wish."""

    status, code, type = 503, "cancelled_by_operator", "server_error"


class UpstreamFailed(PenstockError):
    """Every attempt failed. Status, code and text come from the table in `resilience.failures`."""

    def __init__(
        self, kind: FailureKind, status: int, code: str, message: str, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.kind = kind
        self.status = status
        self.code = code
        self.type = "rate_limit_error" if status == 429 else "api_error"


class Rejected(PenstockError):
    """The upstream found the request itself at fault; `said` is what it said, told in the caller's dialect."""

    type = "invalid_request_error"
    code = "rejected_by_upstream"

    def __init__(self, status: int, said: Said | None, *, code: str | None = None, message: str | None = None) -> None:
        super().__init__(
            said.message if said is not None else message or "The model server rejected the request.",
            param=None if said is None else said.param,
        )
        self.status = status
        self.said = said
        if code is not None:
            self.code = code


def kind_of_status(status: int) -> FailureKind:
    """What an HTTP status other than 200 from an upstream means to us."""
    match status:
        case 401 | 403:
            return FailureKind.AUTH
        case 402:
            return FailureKind.QUOTA
        case 404 | 405 | 410:
            return FailureKind.MISCONFIGURED
        case 408 | 409 | 425:
            return FailureKind.SERVER_ERROR
        case 429:
            return FailureKind.RATE_LIMITED
        case 503 | 529:
            return FailureKind.OVERLOADED
    if 400 <= status < 500:
        return FailureKind.REJECTED
    return FailureKind.SERVER_ERROR if status >= 500 else FailureKind.BAD_PAYLOAD
