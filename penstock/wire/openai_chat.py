"""OpenAI chat completions and completions: bytes in, values out, and back. No I/O.

Bodies are read as one raw value per field, and only the few fields the gateway needs are looked into: what we do not
know reaches the upstream as it came.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
import xxhash

from penstock.core.errors import BadRequest, FailureKind, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Caller, Endpoint, Request, Usage
from penstock.wire.openai_shapes import Chunk, Delta, StreamOptions, TokenCounts
from penstock.wire.sse import data_of

BYTES_PER_TOKEN: Final = 4  # English prose under common vocabularies; an estimate, settled by the upstream's count
BLOCK_BYTES: Final = 1024  # of prompt under one prefix hash, about 256 tokens: less is not worth steering for
MAX_BLOCKS: Final = 64  # longer prompts are told apart by their first 64 kB
EXPECTED_TOKENS: Final = 256  # of an answer whose caller set no maximum
_TRUE: Final = msgspec.Raw(b"true")


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_flag = msgspec.json.Decoder(bool | None).decode
_count = msgspec.json.Decoder(int | None).decode
_options = msgspec.json.Decoder(StreamOptions | None).decode
_encode = msgspec.json.Encoder().encode
_OPENING: Final = ord("[")
_SHORTEST: Final = len('[{"role":""}]')  # what is longer has a message in it, or much white space
_EMPTY_LIST: Final = re.compile(rb"\[\s*\]").match


def parse(body: bytes, *, id: str, endpoint: Endpoint, caller: Caller, now: float) -> Request:
    """Read a request body. Raises `BadRequest` naming the field that is wrong."""
    try:
        fields = _fields(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not a JSON object: {error}") from None
    model = _read(fields, "model", _string)
    if not model:
        raise BadRequest("`model` is missing: name the model that should answer", param="model")
    options = _read(fields, "stream_options", _options) if "stream_options" in fields else None
    limit = _read(fields, "max_tokens", _count) if "max_tokens" in fields else None
    if "max_completion_tokens" in fields:
        limit = _read(fields, "max_completion_tokens", _count)
    if limit is not None and limit < 0:
        raise BadRequest(f"`max_tokens` is {limit}; it must not be negative", param="max_tokens")
    prompt = _prompt(fields, endpoint)
    return Request(
        id=id,
        endpoint=endpoint,
        caller=caller,
        model=model,
        stream="stream" in fields and bool(_read(fields, "stream", _flag)),
        include_usage=bool(options is not None and options.include_usage),
        prompt_tokens=len(prompt) // BYTES_PER_TOKEN + 1,
        max_tokens=limit or EXPECTED_TOKENS,
        prefix_hashes=_prefix_hashes(prompt),
        fields=fields,
        received_at=now,
    )


def _read(fields: dict[str, msgspec.Raw], name: str, decode: Any) -> Any:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"`{name}`: {error}", param=name) from None


def _prompt(fields: dict[str, msgspec.Raw], endpoint: Endpoint) -> memoryview:
    """The prompt as it came, JSON and all: good enough for estimates and prefix hashes, and one pass cheaper."""
    name = "messages" if endpoint is Endpoint.CHAT else "prompt"
    raw = fields.get(name)
    if raw is None:
        raise BadRequest(f"`{name}` is missing", param=name)
    view = memoryview(raw)
    if endpoint is Endpoint.CHAT and (view[0] != _OPENING or (len(view) < _SHORTEST and _EMPTY_LIST(raw))):
        raise BadRequest("`messages` must be a list of at least one message", param="messages")
    return view


def _prefix_hashes(prompt: memoryview) -> tuple[int, ...]:
    """xxh3 over ever longer prefixes: a routing hint, not a key, so 64 bits that an enemy could collide are enough."""
    if len(prompt) < BLOCK_BYTES:
        return ()
    running = xxhash.xxh3_64()
    update, digest, hashes = running.update, running.intdigest, []
    for end in range(BLOCK_BYTES, min(len(prompt), MAX_BLOCKS * BLOCK_BYTES) + 1, BLOCK_BYTES):
        update(prompt[end - BLOCK_BYTES : end])
        hashes.append(digest())
    return tuple(hashes)


def upstream_body(request: Request, served: msgspec.Raw | None) -> bytes:
    """The request for a same-dialect upstream: its own name for the model, and usage always asked for."""
    fields = request.fields
    if served is not None or (request.stream and not request.include_usage):
        fields = dict(fields)
        if served is not None:
            fields["model"] = served
        if request.stream and not request.include_usage:
            fields["stream_options"] = _with_usage(fields.get("stream_options"))
    return _encode(fields)


def _with_usage(raw: msgspec.Raw | None) -> msgspec.Raw:
    if raw is None or bytes(raw) == b"null":
        return msgspec.Raw(b'{"include_usage":true}')
    options = _fields(raw)
    options["include_usage"] = _TRUE
    return msgspec.Raw(_encode(options))


# --- answers ---------------------------------------------------------------------------------------------------------


_chunk = msgspec.json.Decoder(Chunk).decode


def _usage(seen: TokenCounts) -> Usage:
    details = seen.prompt_tokens_details
    return Usage(
        seen.prompt_tokens or 0,
        seen.completion_tokens or 0,
        (details.cached_tokens or 0) if details is not None else 0,
    )


def _upstream_error(error: object, where: str) -> UpstreamError:
    """An error that came inside a 200. Its text may name hosts and models of ours, so it stays in the detail."""
    return UpstreamError(FailureKind.SERVER_ERROR, f"{where}: {str(error)[:300]}")


class Meter:
    """Reads an answer as it goes by and remembers what the receipt needs."""

    __slots__ = ("_open", "done", "finish_reason", "tokens_seen", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.tokens_seen = 0  # events that carried something; about one token each
        self.done = False  # the terminal event has come
        self._open = 0  # a bit for each choice that has begun and not said why it ended

    @property
    def complete(self) -> bool:
        """The upstream said that this is the end: `[DONE]`, or a finish reason from servers that never send it."""
        return self.done or (self.finish_reason is not None and not self._open)

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        """Usage for the receipt: the upstream's own count, else an estimate that says so."""
        if self.usage is not None:
            return self.usage, UsageSource.PROVIDER
        if self.tokens_seen:
            return Usage(request.prompt_tokens, self.tokens_seen), UsageSource.ESTIMATE
        return Usage(), UsageSource.NONE

    def answer(self, body: bytes) -> None:
        """Read a whole answer. Raises `UpstreamError` when it is an error or not the dialect."""
        try:
            seen = _chunk(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        if seen.error is not None:
            raise _upstream_error(seen.error, "an error with status 200")
        if seen.choices is None:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an answer without `choices`")
        if seen.usage is not None:
            self.usage = _usage(seen.usage)
        for choice in seen.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.tokens_seen, self.done = max(1, len(body) // BYTES_PER_TOKEN), True

    def events(self, block: bytes, strip_usage: bool) -> tuple[bytes, bool]:
        """Read whole events; say what to pass on, and whether anything in it was a token.

        `strip_usage`: the caller did not ask for the usage event, so it stays here. Raises `UpstreamError` at an
        error event and at one that is not the dialect.
        """
        if block.count(b"\n\n") == 1:  # by far the most: one event for each token
            meaningful, stripped = self._event(block[:-2])
            return (b"" if stripped and strip_usage else block), meaningful
        meaningful, kept = False, []
        for event in block[:-2].split(b"\n\n"):
            says_something, usage_only = self._event(event)
            meaningful |= says_something
            if event and not (usage_only and strip_usage):
                kept.append(event + b"\n\n")
        return b"".join(kept), meaningful

    def _event(self, event: bytes) -> tuple[bool, bool]:
        """Whether it says something, and whether it is nothing but usage."""
        data = event[6:] if event.startswith(b"data: {") and b"\n" not in event else data_of(event)
        if not data:
            return False, False
        if data == b"[DONE]":
            self.done = True
            return False, False
        try:
            seen = _chunk(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        choices = seen.choices
        if seen.usage is not None:
            self.usage = _usage(seen.usage)
            if not choices:
                return False, True
        if not choices:
            if seen.error is not None:
                raise _upstream_error(seen.error, "an error event")
            return False, False
        meaningful = False
        for choice in choices:
            bit = 1 << (choice.index & 127)  # OpenAI allows n up to 128
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
                self._open &= ~bit
                meaningful = True
            else:
                self._open |= bit
            delta = choice.delta
            if choice.text or (delta is not None and (delta.content or _says_something(delta))):
                self.tokens_seen += 1
                meaningful = True
        return meaningful, False


def _says_something(delta: Delta) -> bool:
    """Anything but content, which its caller has looked at."""
    return bool(
        delta.tool_calls
        or delta.reasoning_content
        or delta.reasoning
        or delta.refusal
        or delta.function_call
        or delta.audio
    )


def model_object(name: str) -> dict[str, object]:
    """A row of `GET /v1/models`."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "penstock"}


def readiness(unready_models: list[str], plane_version: int) -> bytes:
    status = "unready" if unready_models else "ready"
    return _encode({"status": status, "models_without_a_replica": unready_models, "plane": plane_version})


def model_list(names: list[str]) -> bytes:
    return _encode({"object": "list", "data": [model_object(name) for name in names]})


def model_row(name: str) -> bytes:
    return _encode(model_object(name))
