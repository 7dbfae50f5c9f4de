"""The first value of a request's life: what a caller asked for, after parsing."""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import Final

import msgspec

PREFIX_TOKENS: Final = (
    *range(256, 2_048, 256), *range(2_048, 4_096, 512), *range(4_096, 8_192, 1_024), *range(8_192, 16_384, 2_048),
    *range(16_384, 32_769, 4_096),
)  # fmt: skip
"""How much of the prompt each of a request's prefix hashes covers, counted from its start, in tokens, about.

The steps grow: what matters is how much of the prompt a replica holds, to a quarter, and each hash of a long prompt has
to be looked up for every attempt. Less than the first is not worth steering for.
"""


class Endpoint(StrEnum):
    """The APIs that reach a model. The value is its name in logs and metrics."""

    CHAT = "chat.completions"
    COMPLETION = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDING = "embeddings"
    MODERATION = "moderations"
    RERANK = "rerank"
    SPEECH = "audio.speech"
    TRANSCRIPTION = "audio.transcriptions"
    TRANSLATION = "audio.translations"
    IMAGE = "images.generations"
    IMAGE_EDIT = "images.edits"
    IMAGE_VARIATION = "images.variations"
    COUNT_TOKENS = "messages.count_tokens"
    INPUT_TOKENS = "responses.input_tokens"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"


class Priority(StrEnum):
    """Who goes first where there is not enough for all, in this order."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who asks, and whom it belongs to; never the secret."""

    key_id: str
    org: str = ""
    models: frozenset[str] | None = None  # public names this key may use; None: all
    team: str = ""  # unique within its organisation only
    priority: Priority = Priority.NORMAL
    max_cost: int | None = None  # nano-dollars, of one request; None: any

    @property
    def tenant(self) -> str:
        """The organisation, by the name that logs and stored responses know it under."""
        return self.org


ANYONE = Caller("anonymous")  # loopback development mode


class Attribution(msgspec.Struct, frozen=True, gc=False):
    """What the caller says a request is for: their end user, hashed, and words of their own choice."""

    user_hash: str = ""
    feature: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()  # "name" or "name=value", sorted, none twice


UNATTRIBUTED = Attribution()


class Received(msgspec.Struct, gc=False):
    """A body that says no name twice and nothing between its values, and what was read out of it.

    Whatever `fields` a request has by the time it is sent, if they are these, `body` is how they are written.
    """

    body: bytes
    fields: dict[str, msgspec.Raw]


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
    prefix_hashes: tuple[int, ...]  # one for each of `PREFIX_TOKENS` that the prompt is long enough for
    fields: dict[str, msgspec.Raw]
    received_at: float  # Clock.now() seconds
    deadline: float = inf  # likewise; the caller's own, from `x-request-timeout`
    betas: tuple[str, ...] = ()  # Anthropic's feature flags, as the caller sent them
    version: str = ""  # Anthropic's API version, likewise
    follows: str | None = None  # the stored response that it goes on from, whose turns are in `fields` by now
    form: bytes = b""  # the body of a multipart request (audio, images), which has no `fields`
    content_type: bytes = b""  # its type, with the boundary
    received: Received | None = None  # of a long body, so that it need not be written anew
    prefix_tokens: tuple[int, ...] = PREFIX_TOKENS  # how much of the prompt each prefix hash covers, from its start
    session: str = ""  # whose earlier requests left their prompts in a replica's cache; "": not said

    def forget(self) -> None:
        """Drop what the caller sent: a long answer should not hold the question."""
        self.fields.clear()
        if self.received is not None:
            self.received.body = b""
            self.received.fields.clear()


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the upstream counted them: two totals, and parts of them that may have prices of their own.

    The classes that are priced are disjoint: `input_tokens`, `cached_tokens`, `cache_write_tokens` (of which
    `cache_write_1h_tokens` are kept for an hour) make up `prompt_tokens`; `reasoning_tokens` are part of
    `completion_tokens`. Providers count differently: their dialects' modules bring them to this form.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def input_tokens(self) -> int:
        """Those of the prompt that were neither read from a cache nor written to one."""
        return max(0, self.prompt_tokens - self.cached_tokens - self.cache_write_tokens)
