"""What one upstream is asked for each endpoint. The modules beside this one build tables of ways: `openai` for engines
and the many companies with OpenAI's API, `anthropic`, `bedrock`, `gemini`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from penstock.core.clock import Clock
from penstock.core.request import Endpoint, Request
from penstock.upstreams.answer import FailureOf
from penstock.wire.readings import Reading
from penstock.wire.so_far import How, SoFar

Asking = tuple[bytes, Reading, tuple[str, ...]]
"""The body to send, how to read the answer, and the caller's fields that were left out."""


class Way(msgspec.Struct, frozen=True):
    """What is asked for one endpoint; `HttpUpstream` sends and signs it.

    `path` is as it goes out, escaped and with its query; `stream_path` where streams have another. `ask` raises
    `PenstockError` for what cannot be said. `headers` adds lines that depend on the request (feature flags, the type of
    a form, whose `content_type` is ""). `media` is the type that a stream must have; b"": any.
    `ask_on` is `ask` for answers that may be gone on with when they break; `goes_on`: from what this upstream could.
    """

    path: str
    ask: Callable[[Request], Asking]
    failure_of: FailureOf
    stream_path: str = ""
    headers: Callable[[Request], bytes] | None = None
    content_type: str = "application/json"
    media: bytes = b"text/event-stream"
    ask_on: Callable[[Request, SoFar], Asking] | None = None
    goes_on: frozenset[How] = frozenset()


class Terms(msgspec.Struct, frozen=True):
    """What a table of ways is built from. `quirks`, `betas` and `lose` are those of a deployment's specification."""

    clock: Clock
    base_path: str
    served: str | None = None  # the upstream's name for the model; None: whatever the caller wrote
    native: Collection[Endpoint] = ()  # the endpoints that the server has
    query: str = ""  # at the end of each path, with its question mark
    quirks: Collection[str] = ()
    betas: Collection[str] = ()
    lose: Collection[str] = ()

    @property
    def model(self) -> msgspec.Raw | None:
        """`served` as it stands in a body."""
        return None if self.served is None else msgspec.Raw(msgspec.json.encode(self.served))

    def served_in_path(self) -> str:
        """`served`, where a path needs it. Raises ValueError."""
        if self.served is None:
            raise ValueError("the path of this provider names the model: say which, with `served`")
        return self.served
