"""Header names in lower case, each of them one object: a request has ten, and nearly always the same ten."""

from typing import Final

# How names are written by the clients and servers that we meet; any other costs a copy.
_COMMON: Final = (
    b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control", b"connection",
    b"content-encoding", b"content-length", b"content-type", b"cookie", b"date", b"expect", b"host", b"keep-alive",
    b"openai-organization", b"openai-processing-ms", b"openai-version", b"origin", b"retry-after", b"server",
    b"server-timing", b"traceparent", b"tracestate", b"transfer-encoding", b"upgrade", b"user-agent", b"vary", b"via",
    b"x-api-key", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"x-request-id",
    b"x-stainless-arch", b"x-stainless-async", b"x-stainless-lang", b"x-stainless-os", b"x-stainless-package-version",
    b"x-stainless-read-timeout", b"x-stainless-retry-count", b"x-stainless-runtime", b"x-stainless-runtime-version",
)  # fmt: skip
LOWERED: Final = {name: name for name in _COMMON} | {name.title(): name for name in _COMMON}
