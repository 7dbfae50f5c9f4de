"""Whoever speaks Anthropic's Messages: the company itself, Claude on Vertex AI, engines that offer it.

Messages pass as they came, the other chat dialects are translated. Feature flags (`anthropic-beta`) go on only when the
deployment lists them: one that is unknown there would make some platforms refuse the whole request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec

from penstock.core.request import Endpoint, Request
from penstock.upstreams.way import Asking, Terms, Way
from penstock.wire.anthropic import MessagesReader, failure_of, tool_names, write_request
from penstock.wire.canonical import AnswerWriter
from penstock.wire.dialects import passing, translated
from penstock.wire.readings import Translated

VERSION: Final = "2023-06-01"  # of the API, when the caller names none
_VERSION_LINE: Final = f"anthropic-version: {VERSION}\r\n".encode("ascii")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def ways(terms: Terms) -> dict[Endpoint, Way]:
    messages = terms.base_path + "/messages"
    hub = Way(messages, through_hub(terms), failure_of, headers=lambda request: _VERSION_LINE)
    return {
        Endpoint.MESSAGES: messages_way(messages, Endpoint.MESSAGES, terms),
        Endpoint.COUNT_TOKENS: messages_way(messages + "/count_tokens", Endpoint.COUNT_TOKENS, terms),
        Endpoint.CHAT: hub,
        Endpoint.RESPONSES: hub,
    }


def messages_way(path: str, endpoint: Endpoint, terms: Terms) -> Way:
    """Messages as they came. Flags that may not go on are told to the caller like any other loss."""
    ask, betas = passing(endpoint, terms.model), terms.betas

    def asking(request: Request) -> Asking:
        body, reading, lost = ask(request)
        return body, reading, lost + flags(request, betas)[1]

    return Way(path, asking, failure_of, headers=lambda request: _version_line(request) + flag_line(request, betas))


def through_hub(
    terms: Terms,
    rewrite: Callable[[dict[str, msgspec.Raw]], bytes] | None = None,
    reading: Callable[[MessagesReader, AnswerWriter], Translated] = Translated,
) -> Callable[[Request], Asking]:
    """Every other dialect as Messages. `rewrite` makes of their fields what a cloud wants, which may wrap their streams
    as well (`reading`)."""

    def asking(request: Request) -> Asking:
        body, how, lost = translated(
            request,
            lambda ask, losses: write_request(ask, served=terms.served or request.model, losses=losses),
            lambda ask: MessagesReader(tool_names(ask)),
            terms.lose,
            terms.clock.wall(),
            reading,
        )
        return body if rewrite is None else rewrite(_fields(body)), how, lost

    return asking


def flags(request: Request, betas: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The caller's feature flags that the deployment lists, and what the others are called as losses."""
    if not request.betas or "*" in betas:
        return request.betas, ()
    allowed = tuple(flag for flag in request.betas if flag in betas)
    return allowed, tuple(f"anthropic-beta.{flag}" for flag in request.betas if flag not in betas)


def flag_line(request: Request, betas: Collection[str]) -> bytes:
    allowed, _ = flags(request, betas)
    return f"anthropic-beta: {','.join(allowed)}\r\n".encode("latin-1") if allowed else b""


def _version_line(request: Request) -> bytes:
    return f"anthropic-version: {request.version}\r\n".encode("latin-1") if request.version else _VERSION_LINE
