"""What can go wrong, as types and one closed list of kinds. Only `wire.errors` renders them."""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    """Why one attempt failed. What follows from it (retry, breaker, status) is one table: `resilience.failures`."""

    CONNECT = "connect"  # refused, unreachable, name unknown, TLS failed: no byte was sent
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    IDLE_TIMEOUT = "idle_timeout"  # began to answer, then nothing that means anything for too long
    TOTAL_TIMEOUT = "total_timeout"
    RATE_LIMITED = "rate_limited"  # 429: this replica or credential has had enough
    OVERLOADED = "overloaded"  # 503, 529
    SERVER_ERROR = "server_error"  # any other 5xx, or an error event inside a 200
    NETWORK = "network"  # the connection broke
    TRUNCATED = "truncated"  # a clean end of the stream without its terminal event
    BAD_PAYLOAD = "bad_payload"  # not the dialect it claims to be
    AUTH = "auth"  # 401, 403: our credential, never the caller's
    MISCONFIGURED = "misconfigured"  # 404 and the like: the upstream does not know the path or the model
    REJECTED = "rejected"  # the caller's request is at fault: 400, 413, 422
    NO_REPLICA = "no_replica"  # nothing ready, or every breaker open


class UpstreamError(Exception):
    """One attempt failed. Stays inside the gateway; callers see a `PenstockError`.

    `body` is what the upstream said, only for `REJECTED`, where it speaks of the caller's own request.
    """

    def __init__(
        self,
        kind: FailureKind,
        detail: str = "",
        *,
        retry_after: float | None = None,
        status: int = 0,
        body: bytes = b"",
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else str(kind))
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after  # seconds
        self.status = status
        self.body = body


class PenstockError(Exception):
    """Base of every error that may reach a caller. `message` is written for them: no host, key or routing in it."""

    status = 500
    code = "internal_error"
    type = "server_error"  # OpenAI's coarse word

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after  # seconds


class BadRequest(PenstockError):
    status, code, type = 400, "invalid_request", "invalid_request_error"


class Unauthorized(PenstockError):
    status, code, type = 401, "invalid_api_key", "authentication_error"


class Forbidden(PenstockError):
    status, code, type = 403, "model_not_allowed", "permission_error"


class NotFound(PenstockError):
    status, code, type = 404, "not_found", "invalid_request_error"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(PenstockError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class Overloaded(PenstockError):
    status, code, type = 503, "overloaded", "overloaded_error"


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
    """The upstream found the request itself at fault; `body` is its own error body, passed on in the same dialect."""

    type = "invalid_request_error"
    code = "rejected_by_upstream"

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__("the model server rejected the request")
        self.status = status
        self.body = body
