"""OpenAI chat completions and completions: bytes in, values out, and back. No I/O.

Bodies are read as one raw value per field, and only the few fields the gateway needs are looked into: what we do not
know reaches the upstream as it came.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import BadRequest, FailureKind, Said, UpstreamError, kind_of_status
from penstock.core.outcome import UsageSource
from penstock.core.request import Caller, Endpoint, Received, Request, Usage
from penstock.wire.openai_shapes import Chunk, Delta, StreamOptions, Wrapped
from penstock.wire.openai_values import usage_of
from penstock.wire.prompts import (
    BYTES_PER_TOKEN,
    EMPTY_LIST,
    EXPECTED_TOKENS,
    OPENING,
    UNREADABLE,
    decode_count,
    decode_fields,
    decode_flag,
    decode_string,
    prefix_hashes,
    read_field,
    received,
)
from penstock.wire.sse import data_of

_TRUE: Final = msgspec.Raw(b"true")


_options = msgspec.json.Decoder(StreamOptions | None).decode
_encode = msgspec.json.Encoder().encode
_SHORTEST: Final = len('[{"role":""}]')  # what is longer has a message in it, or much white space


def parse(body: bytes, *, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str = "") -> Request:
    """Read a request body; `model` where the path has named it. Raises `BadRequest` naming the field that is wrong."""
    fields = decode_fields(body)
    as_it_came: Received | None = None
    if model:
        fields["model"] = msgspec.Raw(_encode(model))  # what was asked for and allowed is what is sent
    else:
        model = read_field(fields, "model", decode_string) or ""
        as_it_came = received(body, fields)
    if not model:
        raise BadRequest("`model` is missing: name the model that should answer", param="model")
    options = read_field(fields, "stream_options", _options) if "stream_options" in fields else None
    limit = read_field(fields, "max_tokens", decode_count) if "max_tokens" in fields else None
    if "max_completion_tokens" in fields:
        limit = read_field(fields, "max_completion_tokens", decode_count)
    if limit is not None and limit < 0:
        raise BadRequest(f"`max_tokens` is {limit}; it must not be negative", param="max_tokens")
    prompt = _prompt(fields, endpoint)
    return Request(
        id=id,
        endpoint=endpoint,
        caller=caller,
        model=model,
        stream="stream" in fields and bool(read_field(fields, "stream", decode_flag)),
        include_usage=bool(options is not None and options.include_usage),
        prompt_tokens=len(prompt) // BYTES_PER_TOKEN + 1,
        max_tokens=limit or EXPECTED_TOKENS,
        prefix_hashes=prefix_hashes(prompt),
        fields=fields,
        received_at=now,
        received=as_it_came,
    )


def has_parts(request: Request) -> bool:
    """Whether the messages of a chat may hold anything but plain strings: parts are in lists, and no escape hides one.

    Cheapest where the list of messages is the only list in the body, which need not be copied to find that out.
    """
    messages, seen = request.fields["messages"], request.received
    if seen is not None and seen.fields["messages"] is messages and seen.body.find(b"[") == seen.body.rfind(b"["):
        return False
    return bytes(messages).find(b"[", 1) >= 0


def _prompt(fields: dict[str, msgspec.Raw], endpoint: Endpoint) -> memoryview:
    """The prompt as it came, JSON and all: good enough for estimates and prefix hashes, and one pass cheaper."""
    name = "messages" if endpoint is Endpoint.CHAT else "prompt"
    raw = fields.get(name)
    if raw is None:
        raise BadRequest(f"`{name}` is missing", param=name)
    view = memoryview(raw)
    if endpoint is Endpoint.CHAT and (view[0] != OPENING or (len(view) < _SHORTEST and EMPTY_LIST(raw))):
        raise BadRequest("`messages` must be a list of at least one message", param="messages")
    return view


def upstream_body(request: Request, served: msgspec.Raw | None, *, ask_usage: bool = True) -> bytes:
    """The request for a same-dialect upstream: its own name for the model, and usage always asked for.

    `ask_usage` is False for servers that refuse `stream_options` (and tell usage all the same). A long body to which
    nothing of this makes a difference is sent on as it came.
    """
    fields, as_it_came = request.fields, request.received
    add_usage = ask_usage and request.stream and not request.include_usage
    if as_it_came is not None and not add_usage:
        renamed = served is not None and served != fields["model"]
        if not renamed and fields == as_it_came.fields:
            return as_it_came.body
    if served is not None or add_usage:
        fields = dict(fields)
        if served is not None:
            fields["model"] = served
        if add_usage:
            fields["stream_options"] = _with_usage(fields.get("stream_options"))
    return _encode(fields)


def _with_usage(raw: msgspec.Raw | None) -> msgspec.Raw:
    if raw is None or bytes(raw) == b"null":
        return msgspec.Raw(b'{"include_usage":true}')
    options = decode_fields(bytes(raw))
    options["include_usage"] = _TRUE
    return msgspec.Raw(_encode(options))


# --- answers ---------------------------------------------------------------------------------------------------------


_chunk = msgspec.json.Decoder(Chunk).decode


_STATUSES: Final = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "image_content_policy_violation": 400,
    "BadRequestError": 400,  # vLLM
    "authentication_error": 401,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "overloaded_error": 503,
}


def failure_inside(error: object) -> UpstreamError:
    """An error object inside a 200 means what it would have meant as a status, where its code or type says which."""
    status, told = 500, error if isinstance(error, dict) else {"message": str(error)}
    for word in (told.get("code"), told.get("type")):
        if isinstance(word, str) and word.isdigit():
            word = int(word)
        if isinstance(word, int) and 400 <= word < 600:
            status = word
            break
        if isinstance(word, str) and word in _STATUSES:
            status = _STATUSES[word]
            break
    meant = failure_of(status, _encode({"error": told}))
    return UpstreamError(
        meant.kind, f"an error with status 200: {str(error)[:300]}", status=meant.status, said=meant.said
    )


_CONTEXT: Final = ("context_length_exceeded", "maximum context length", "context window", "max_model_len")
_POLICY: Final = ("content_policy_violation", "content_filter", "ResponsibleAIPolicyViolation")


def failure_of(status: int, body: bytes) -> UpstreamError:
    """What an error answer means. Its words are kept only where they speak of the request: others may name our hosts.

    The error object comes wrapped (OpenAI) or bare (older vLLM); codes come in words or, from servers that have none,
    as a sentence.
    """
    kind, said = kind_of_status(status), _said(body)
    if said is not None:
        words = f"{said.code} {said.type} {said.message}"
        if kind is FailureKind.REJECTED:
            if any(word in words for word in _CONTEXT):
                kind, said = FailureKind.CONTEXT_LENGTH, msgspec.structs.replace(said, code="context_length_exceeded")
            elif any(word in words for word in _POLICY):
                kind = FailureKind.CONTENT_POLICY
        elif kind is FailureKind.RATE_LIMITED and "insufficient_quota" in words:
            kind = FailureKind.QUOTA
    ours = kind in (FailureKind.REJECTED, FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_POLICY)
    return UpstreamError(kind, f"status {status}", status=status, said=said if ours else None)


def _said(body: bytes) -> Said | None:
    try:
        return msgspec.json.decode(body, type=Wrapped).error
    except UNREADABLE:
        try:
            return msgspec.json.decode(body, type=Said)
        except UNREADABLE:
            return None


class Meter:
    """Reads an answer as it goes by and remembers what the receipt needs."""

    terminator = b"data: [DONE]\n\n"  # added for servers that never say it: our callers' clients wait for it
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
            return self.usage, UsageSource.PROVIDER if self.complete else UsageSource.PROVIDER_PARTIAL
        if self.tokens_seen:
            return Usage(request.prompt_tokens, self.tokens_seen), UsageSource.ESTIMATE
        return Usage(), UsageSource.NONE

    def answer(self, body: bytes) -> None:
        """Read a whole answer. Raises `UpstreamError` when it is an error or not the dialect."""
        try:
            seen = _chunk(body)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        if seen.error is not None:
            raise failure_inside(seen.error)
        if seen.choices is None:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an answer without `choices`")
        if seen.usage is not None:
            self.usage = usage_of(seen.usage) or self.usage
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
            if self.done:  # some servers say it twice
                break
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
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        choices = seen.choices
        if seen.usage is not None:
            self.usage = usage_of(seen.usage) or self.usage
            if not choices:
                return False, True
        if not choices:
            if seen.error is not None:
                raise failure_inside(seen.error)
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
