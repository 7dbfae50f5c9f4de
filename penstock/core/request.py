"""The first value of a request's life: what a caller asked for, after parsing."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Endpoint(StrEnum):
    CHAT = "chat.completions"
    COMPLETION = "completions"


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who asks, and whom it belongs to; never the secret."""

    key_id: str
    tenant: str = ""
    models: frozenset[str] | None = None  # public names this key may use; None: all


ANYONE = Caller("anonymous")  # loopback development mode


class Request(msgspec.Struct, frozen=True, gc=False):
    """What a caller asked for, in the gateway's own words.

    `fields` is the body as received, one raw JSON value per top-level name, so that fields we do not know reach an
    upstream of the same dialect untouched; a repeated name has been reduced to its last value.
    """

    id: str
    endpoint: Endpoint
    caller: Caller
    model: str
    stream: bool
    include_usage: bool  # the caller asked for the usage event at the end of the stream
    prompt_tokens: int  # estimate, before any upstream has counted
    max_tokens: int  # the caller's own, or our expectation where there is none
    prefix_hashes: tuple[int, ...]  # one per block of prompt, each covering everything before it
    fields: dict[str, msgspec.Raw]
    received_at: float  # Clock.now() seconds


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the upstream counted them. `cached_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
