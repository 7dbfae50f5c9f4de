"""Google: Gemini with an API key or on Vertex AI, and Claude on Vertex AI in Anthropic's own dialect.

Sources: the references of generateContent and streamGenerateContent, and Anthropic's page on Claude on Vertex AI.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import quote

import msgspec

from penstock.core.clock import Clock
from penstock.core.request import Endpoint, Request
from penstock.upstreams.anthropic import flag_lines, refused_flags
from penstock.upstreams.credentials import Authorization
from penstock.upstreams.way import Asking, Way, header_lines
from penstock.wire import anthropic, gemini, hosted_claude
from penstock.wire.dialects import CALLERS, translated
from penstock.wire.gemini_answer import GeminiReader, failure_of
from penstock.wire.readings import Passing
from penstock.wire.unary import Whole

_COUNT_TOKENS: Final = "/models/count-tokens:rawPredict"
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def gemini_ways(
    clock: Clock, host: bytes, *, base_path: str, served: str, authorization: Authorization, lose: Collection[str] = ()
) -> dict[Endpoint, Way]:
    """Every dialect of callers is translated. `served` may be a resource, such as `tunedModels/...`."""
    resource = quote(served if "/" in served else f"models/{served}", safe="/@")

    def hub(request: Request) -> Asking:
        return translated(
            request,
            lambda ask, losses: gemini.write_request(ask, served=served, losses=losses),
            lambda ask: GeminiReader(ask, id=request.id),
            lose,
            clock.wall(),
        )

    def path(stream: bool) -> str:
        return f"{base_path}/{resource}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"

    way = Way(
        _prefix(host, path(False)),
        hub,
        failure_of,
        stream_prefix=_prefix(host, path(True)),
        headers=lambda request, body: authorization.headers(path(request.stream), body),
    )
    return dict.fromkeys(CALLERS, way)


def claude_ways(
    clock: Clock,
    host: bytes,
    *,
    base_path: str,
    served: str,
    authorization: Authorization,
    betas: Collection[str] = (),
    lose: Collection[str] = (),
) -> dict[Endpoint, Way]:
    name = msgspec.Raw(msgspec.json.encode(served))
    model = quote(served, safe="@")

    def path(stream: bool) -> str:
        return f"{base_path}/models/{model}:{'streamRawPredict' if stream else 'rawPredict'}"

    def lost(request: Request) -> tuple[str, ...]:
        return tuple(f"anthropic-beta.{flag}" for flag in refused_flags(request, betas))

    def messages(request: Request) -> Asking:
        return (
            hosted_claude.vertex_body(anthropic.upstream_fields(request)),
            Passing(anthropic.MessagesMeter()),
            lost(request),
        )

    def count(request: Request) -> Asking:
        return hosted_claude.vertex_body(anthropic.upstream_fields(request), model=name), Whole(), lost(request)

    def hub(request: Request) -> Asking:
        body, reading, left_out = translated(
            request,
            lambda ask, losses: anthropic.write_request(ask, served=served, losses=losses),
            lambda ask: anthropic.MessagesReader(anthropic.tool_names(ask)),
            lose,
            clock.wall(),
        )
        return hosted_claude.vertex_body(_fields(body)), reading, left_out

    def way(ask: Callable[[Request], Asking]) -> Way:
        return Way(
            _prefix(host, path(False)),
            ask,
            anthropic.failure_of,
            stream_prefix=_prefix(host, path(True)),
            headers=lambda request, body: (
                authorization.headers(path(request.stream), body) + flag_lines(request, betas, version=False)
            ),
        )

    counting = Way(
        _prefix(host, base_path + _COUNT_TOKENS),
        count,
        anthropic.failure_of,
        headers=lambda request, body: (
            authorization.headers(base_path + _COUNT_TOKENS, body) + flag_lines(request, betas, version=False)
        ),
    )
    table = dict.fromkeys(CALLERS, way(hub))
    return table | {Endpoint.MESSAGES: way(messages), Endpoint.COUNT_TOKENS: counting}


def _prefix(host: bytes, path: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\n{header_lines(host)}".encode("ascii")
