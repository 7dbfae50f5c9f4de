"""Whoever speaks Anthropic's Messages: the company itself, Claude on Vertex AI, engines that offer it.

Messages pass as they came, the other chat dialects are translated. Feature flags (`anthropic-beta`) go on only when the
deployment lists them: one that is unknown there would make some platforms refuse the whole request.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from penstock.core.clock import Clock
from penstock.core.request import Endpoint, Request
from penstock.upstreams.credentials import Authorization
from penstock.upstreams.way import Asking, Way, header_lines
from penstock.wire.anthropic import MessagesReader, failure_of, tool_names, write_request
from penstock.wire.dialects import passing, translated

VERSION: Final = "2023-06-01"  # of the API, when the caller names none


def ways(
    clock: Clock,
    host: bytes,
    *,
    base_path: str,
    served: str | None,
    authorization: Authorization,
    betas: Collection[str] = ("*",),
    lose: Collection[str] = (),
) -> dict[Endpoint, Way]:
    """`served` is the upstream's name for the model (None: the caller's)."""
    name = None if served is None else msgspec.Raw(msgspec.json.encode(served))
    lines = header_lines(host).encode("ascii") + (authorization.constant or b"")

    def prefix(path: str) -> bytes:
        return f"POST {base_path}{path} HTTP/1.1\r\n".encode("ascii") + lines

    def hub(request: Request) -> Asking:
        return translated(
            request,
            lambda ask, losses: write_request(ask, served=served or request.model, losses=losses),
            lambda ask: MessagesReader(tool_names(ask)),
            lose,
            clock.wall(),
        )

    messages = prefix("/messages")
    through_hub = Way(messages, hub, failure_of, headers=lambda request, body: _VERSION_LINE)
    return {
        Endpoint.MESSAGES: messages_way(messages, Endpoint.MESSAGES, name, betas),
        Endpoint.COUNT_TOKENS: messages_way(prefix("/messages/count_tokens"), Endpoint.COUNT_TOKENS, name, betas),
        Endpoint.CHAT: through_hub,
        Endpoint.RESPONSES: through_hub,
    }


def messages_way(prefix: bytes, endpoint: Endpoint, name: msgspec.Raw | None, betas: Collection[str]) -> Way:
    """Messages as they came. Flags that may not go on are told to the caller like any other loss."""
    ask = passing(endpoint, name)

    def asking(request: Request) -> Asking:
        body, reading, lost = ask(request)
        return body, reading, lost + tuple(f"anthropic-beta.{flag}" for flag in refused_flags(request, betas))

    return Way(prefix, asking, failure_of, headers=lambda request, body: flag_lines(request, betas))


def refused_flags(request: Request, betas: Collection[str]) -> list[str]:
    return [] if "*" in betas else [flag for flag in request.betas if flag not in betas]


def flag_lines(request: Request, betas: Collection[str], *, version: bool = True) -> bytes:
    """The API version, where it is told in a header, and the flags of the caller that the deployment lists."""
    lines = b""
    if version:
        lines = f"anthropic-version: {request.version}\r\n".encode("latin-1") if request.version else _VERSION_LINE
    flags = request.betas if "*" in betas else tuple(flag for flag in request.betas if flag in betas)
    if flags:
        lines += f"anthropic-beta: {','.join(flags)}\r\n".encode("latin-1")
    return lines


_VERSION_LINE: Final = f"anthropic-version: {VERSION}\r\n".encode("ascii")
