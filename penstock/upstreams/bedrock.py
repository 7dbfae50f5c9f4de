"""Amazon Bedrock: Converse for any model, InvokeModel for Claude in Anthropic's own dialect. Streams are binary frames.

Sources: the API references of Converse, ConverseStream and InvokeModelWithResponseStream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec

from penstock.core.clock import Clock
from penstock.core.request import Endpoint, Request
from penstock.upstreams.anthropic import refused_flags
from penstock.upstreams.credentials import Authorization
from penstock.upstreams.way import Asking, Way, header_lines
from penstock.wire import converse, hosted_claude
from penstock.wire.anthropic import MessagesMeter, MessagesReader, tool_names, upstream_fields, write_request
from penstock.wire.bedrock_streams import ConverseTranslated, Unwrapped, UnwrappedTranslated
from penstock.wire.converse_answer import ConverseReader, failure_of
from penstock.wire.dialects import CALLERS, translated

MEDIA: Final = b"application/vnd.amazon.eventstream"
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def converse_ways(
    clock: Clock, host: bytes, *, base_path: str, served: str, authorization: Authorization, lose: Collection[str] = ()
) -> dict[Endpoint, Way]:
    """Any model that Converse has; every dialect of callers is translated."""

    def hub(request: Request) -> Asking:
        return translated(
            request,
            lambda ask, losses: converse.write_request(ask, served=served, losses=losses),
            lambda ask: ConverseReader(ask, served=served),
            lose,
            clock.wall(),
            ConverseTranslated,
        )

    way = _way(host, lambda stream: base_path + converse.path(served, stream=stream), hub, authorization)
    return dict.fromkeys(CALLERS, way)


def invoke_ways(
    clock: Clock,
    host: bytes,
    *,
    base_path: str,
    served: str,
    authorization: Authorization,
    betas: Collection[str] = (),
    lose: Collection[str] = (),
) -> dict[Endpoint, Way]:
    """Claude in its own dialect; flags that Bedrock would not know stay here and are told as lost."""

    def path(stream: bool) -> str:
        return base_path + hosted_claude.bedrock_path(served, stream=stream)

    def messages(request: Request) -> Asking:
        refused = refused_flags(request, betas)
        body = hosted_claude.bedrock_body(
            upstream_fields(request), [flag for flag in request.betas if flag not in refused]
        )
        lost = tuple(f"anthropic-beta.{flag}" for flag in refused)
        return body, Unwrapped(MessagesMeter()), lost

    def hub(request: Request) -> Asking:
        body, reading, lost = translated(
            request,
            lambda ask, losses: write_request(ask, served=served, losses=losses),
            lambda ask: MessagesReader(tool_names(ask)),
            lose,
            clock.wall(),
            UnwrappedTranslated,
        )
        return hosted_claude.bedrock_body(_fields(body)), reading, lost

    through_hub = _way(host, path, hub, authorization)
    return dict.fromkeys(CALLERS, through_hub) | {Endpoint.MESSAGES: _way(host, path, messages, authorization)}


def _way(
    host: bytes, path: Callable[[bool], str], ask: Callable[[Request], Asking], authorization: Authorization
) -> Way:
    def prefix(stream: bool) -> bytes:
        return f"POST {path(stream)} HTTP/1.1\r\n{header_lines(host)}".encode("ascii")

    return Way(
        prefix(False),
        ask,
        failure_of,
        stream_prefix=prefix(True),
        headers=lambda request, body: authorization.headers(path(request.stream), body),
        media=MEDIA,
    )
