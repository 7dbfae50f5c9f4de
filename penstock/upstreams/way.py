"""How one endpoint is asked of one upstream. The modules beside this one build tables of them: `openai` for engines and
the many companies with OpenAI's API, `anthropic`, `bedrock`, `gemini`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from penstock.core.request import Request
from penstock.upstreams.answer import FailureOf
from penstock.wire.readings import Reading
from penstock.wire.so_far import How, SoFar

Asking = tuple[bytes, Reading, tuple[str, ...]]
"""The body to send, how to read the answer, and the caller's fields that were left out."""


class Way(msgspec.Struct, frozen=True):
    """How one endpoint is asked: `prefix` is the request line and headers, `stream_prefix` where streams have others.

    `headers` adds lines that depend on the request and its body (a signature, feature flags). `ask` raises
    `PenstockError` for what cannot be said. `media` is the type that a stream must have; b"": any.
    `ask_on` is `ask` for answers that may be gone on with when they break; `goes_on`: from what this upstream could.
    """

    prefix: bytes
    ask: Callable[[Request], Asking]
    failure_of: FailureOf
    stream_prefix: bytes = b""
    headers: Callable[[Request, bytes], bytes] | None = None
    media: bytes = b"text/event-stream"
    ask_on: Callable[[Request, SoFar], Asking] | None = None
    goes_on: frozenset[How] = frozenset()


def header_lines(host: bytes, content_type: str = "application/json") -> str:
    """The lines that every request to one origin has."""
    lines = f"host: {host.decode('ascii')}\r\nuser-agent: penstock\r\n"
    return lines + f"content-type: {content_type}\r\n" if content_type else lines
