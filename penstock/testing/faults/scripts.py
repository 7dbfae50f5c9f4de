"""The faults: what an upstream does instead of answering. Each is played in whichever dialect it is asked in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from typing import Final

from penstock.core.clock import Clock
from penstock.testing.faults.upstream import EVENTS, Reply, Script, Seen
from penstock.testing.faults.voices import (
    BACKUP_COST,
    BACKUP_TOKENS,
    CANDID,
    COST,
    SECRET,
    SERVED,
    TEXT,
    TOKENS,
    OpenAIVoice,
    Tokens,
    ToolCall,
    Voice,
)

HARMLESS: Final = "The server had an error while processing your request."
BEFORE_THE_FAULT: Final = 8  # of 20 tokens
A_MOMENT: Final = 0.1  # seconds; a gateway has read what came before

WEATHER: Final = ToolCall("get_weather", '{"city":"Oslo","days":3}')
TIME: Final = ToolCall("get_time", '{"zone":"Europe/Oslo"}')
PING: Final = ToolCall("ping", "")
BIG: Final = ("x" * (3 * 1024 * 1024),)  # one token
MANY: Final = tuple(f"{i:05d}" * 4000 for i in range(100))  # 2 MB in all


def closing(voice: Voice, cost: Tokens | None = COST, reason: str = "stop") -> list[bytes]:
    return [*voice.finish(reason), *voice.usage(cost), voice.end()]


def all_events(
    voice: Voice, tokens: Iterable[str] = TOKENS, cost: Tokens | None = COST, reason: str = "stop"
) -> list[bytes]:
    return [*voice.opening(cost), *map(voice.token, tokens), *closing(voice, cost, reason)]


def answers(
    tokens: tuple[str, ...] = TOKENS,
    cost: Tokens | None = COST,
    reason: str = "stop",
    calls: tuple[ToolCall, ...] = (),
) -> Script:
    """A healthy upstream."""

    async def script(reply: Reply, voice: Voice, seen: Seen) -> None:
        if not seen.stream:
            await reply.whole(voice.plain("" if calls else "".join(tokens), reason=reason, cost=cost, calls=calls))
            return
        await reply.head(kind=EVENTS)
        if calls:
            opening = voice.opening(cost, text=False)
            await reply.events(*opening, *voice.tools(calls), *closing(voice, cost, reason))
        else:
            await reply.events(*all_events(voice, tokens, cost, reason))
        await reply.last_chunk()

    return script


healthy: Final = answers()
backup: Final = answers(BACKUP_TOKENS, BACKUP_COST)


async def begun(reply: Reply, voice: Voice, n_tokens: int = BEFORE_THE_FAULT) -> None:
    """A stream up to the fault, slow enough for its first token to be passed on before it."""
    await reply.head(kind=EVENTS)
    await reply.events(*voice.opening(), *map(voice.token, TOKENS[: min(1, n_tokens)]))
    await reply.pause(A_MOMENT)
    await reply.events(*map(voice.token, TOKENS[1:n_tokens]))
    await reply.pause(A_MOMENT)


# --- the stream breaks after its first tokens ---


async def eof_mid_stream(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    await reply.last_chunk()  # as if that had been all
    reply.close()


async def eof_at_once(reply: Reply, voice: Voice, seen: Seen) -> None:
    """The end comes in one packet with the tokens."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    await reply.raw(head + b"".join([*voice.opening(), *map(voice.token, TOKENS[:BEFORE_THE_FAULT])]))
    reply.close()


async def eof_mid_event(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    await reply.chunk(voice.token(" nine")[:-20])
    await reply.last_chunk()
    reply.close()


async def fin_mid_chunk(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    await reply.raw(b"800\r\n" + voice.token(" nine"))
    reply.close()


async def reset_mid_stream(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    reply.reset()


async def stall_mid_stream(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    await reply.stall()


async def pings_mid_stream(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    await ping_forever(reply, voice)


async def bad_framing(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    await reply.raw(b"zz\r\n" + voice.token(" nine") + b"\r\n")
    await reply.stall()


async def error_event_later(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    await reply.events(voice.error_event(HARMLESS))
    await reply.last_chunk()


async def malformed_event(reply: Reply, voice: Voice, seen: Seen) -> None:
    """An event too many; nothing of the answer is missing."""
    await begun(reply, voice)
    await reply.events(b'data: {"id": oops\n\n', *map(voice.token, TOKENS[BEFORE_THE_FAULT:]), *closing(voice))
    await reply.last_chunk()


# --- nothing comes ---


async def reset_before_head(reply: Reply, voice: Voice, seen: Seen) -> None:
    reply.reset()


async def eof_before_head(reply: Reply, voice: Voice, seen: Seen) -> None:
    reply.close()


async def eof_inside_head(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.raw(b"HTTP/1.1 200 OK\r\ncontent-ty")
    reply.close()


async def no_head(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.stall()


async def endless_head(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.raw(b"HTTP/1.1 200 OK\r\n")
    for i in range(200):
        await reply.raw(b"x-slow-%d: 1\r\n" % i)
        await reply.pause(0.1)
    reply.close()


async def slow_head(reply: Reply, voice: Voice, seen: Seen) -> None:
    """Slow, and within every limit."""
    await reply.raw(b"HTTP/1.1 200 OK\r\n")
    for i in range(8):
        await reply.raw(b"x-slow-%d: 1\r\n" % i)
        await reply.pause(0.1)
    kind = EVENTS if seen.stream else "application/json"
    await reply.raw(b"content-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind.encode())
    await _rest(reply, voice, seen)


async def huge_head(reply: Reply, voice: Voice, seen: Seen) -> None:
    kind = EVENTS if seen.stream else "application/json"
    await reply.head(kind=kind, headers={"x-huge": "h" * 512 * 1024})
    await _rest(reply, voice, seen)


async def _rest(reply: Reply, voice: Voice, seen: Seen) -> None:
    whole = all_events(voice) if seen.stream else [voice.plain(TEXT, reason="stop", cost=COST)]
    await reply.events(*whole)
    await reply.last_chunk()


async def stall_after_head(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.head(kind=EVENTS if seen.stream else "application/json")
    await reply.stall()


async def stall_after_role(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice, 0)
    await reply.stall()


async def eof_after_role(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice, 0)
    await reply.last_chunk()


async def pings_only(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice, 0)
    await ping_forever(reply, voice)


async def ping_forever(reply: Reply, voice: Voice) -> None:
    for _ in range(100):
        await reply.events(b": keep-alive\n\n", voice.ping())
        await reply.pause(0.2)
    reply.close()


async def error_event_first(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.head(kind=EVENTS)
    await reply.events(voice.error_event(HARMLESS))
    await reply.last_chunk()


# --- a 200 that is no answer ---


async def error_in_200(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.whole(voice.error("server_error" if voice.dialect == "openai" else "api_error", HARMLESS))


async def cut_json(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.whole(voice.plain(TEXT, reason="stop", cost=COST)[:-30])


async def short_body(reply: Reply, voice: Voice, seen: Seen) -> None:
    """Less than its content-length said."""
    body = voice.plain(TEXT, reason="stop", cost=COST)
    await reply.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
    await reply.raw(body[:-30])
    reply.close()


async def html(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.whole(b"<html><h1>Sign in</h1></html>", kind="text/html; charset=utf-8")


async def plain_for_stream(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.whole(voice.plain(TEXT, reason="stop", cost=COST))


async def gzipped(reply: Reply, voice: Voice, seen: Seen) -> None:
    body = b"".join(all_events(voice)) if seen.stream else voice.plain(TEXT, reason="stop", cost=COST)
    kind = EVENTS if seen.stream else "application/json"
    await reply.whole(gzip.compress(body), kind=kind, headers={"content-encoding": "gzip"})


def redirects(status: int, port: Callable[[], int]) -> Script:
    """To another origin, which answers whoever comes."""

    async def script(reply: Reply, voice: Voice, seen: Seen) -> None:
        name = str(seen.fields["model"]).removeprefix(SERVED)  # so that the thief knows whom it was sent for
        await reply.whole(b"", status=status, headers={"location": f"http://localhost:{port()}/v1/{name}"})

    return script


# --- odd, and whole ---


def rewritten(change: Callable[[bytes], bytes]) -> Script:
    """A healthy stream of which every byte has gone through `change`, in one write."""

    async def script(reply: Reply, voice: Voice, seen: Seen) -> None:
        await reply.head(kind=EVENTS)
        await reply.chunk(change(b"".join(all_events(voice))))
        await reply.last_chunk()

    return script


def with_line_breaks_inside(stream: bytes) -> bytes:
    """Every JSON object over two `data` lines, which the standard joins with a line feed: white space to JSON."""
    return stream.replace(b'data: {"', b'data: {\ndata: "')


async def byte_by_byte(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.head(kind=EVENTS)
    for i, byte in enumerate(b"".join(all_events(voice))):
        await reply.chunk(bytes([byte]))
        if i % 16 == 0:  # a packet of its own now and then; the others share as the kernel likes
            await reply.pause(0.001)
    await reply.last_chunk()


async def comments_between(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.head(kind=EVENTS)
    for event in all_events(voice):
        await reply.events(b": comment\n\n", event, b":\n\n")
    await reply.last_chunk()


async def done_twice(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.head(kind=EVENTS)
    await reply.events(*all_events(voice), voice.end())
    await reply.last_chunk()


async def no_done(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.head(kind=EVENTS)
    await reply.events(*all_events(voice)[:-1])
    await reply.last_chunk()


async def usage_late(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice, len(TOKENS))
    await reply.events(*voice.finish("stop"))
    await reply.pause(0.3)
    await reply.events(*voice.usage(COST))
    await reply.pause(0.1)
    await reply.events(voice.end())
    await reply.last_chunk()


async def usage_always(reply: Reply, voice: Voice, seen: Seen) -> None:
    assert isinstance(voice, OpenAIVoice), "only this dialect has it"
    await reply.head(kind=EVENTS)
    counted = [voice.token_with_usage(text, Tokens(COST.prompt, n)) for n, text in enumerate(TOKENS, 1)]
    await reply.events(*voice.opening(), *counted, *closing(voice))
    await reply.last_chunk()


async def interim_heads(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.raw(b"HTTP/1.1 100 Continue\r\n\r\n")
    await reply.raw(b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n")
    await healthy(reply, voice, seen)


async def stale(reply: Reply, voice: Voice, seen: Seen) -> None:
    """Every other request that comes on a used connection crosses our goodbye on the wire."""
    if seen.reused and seen.n_before % 2:
        reply.close()
    else:
        await healthy(reply, voice, seen)


async def paced(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice, 1)
    for text in TOKENS[1:]:
        await reply.pause(0.05)
        await reply.events(voice.token(text))
    await reply.events(*closing(voice))
    await reply.last_chunk()


async def endless(reply: Reply, voice: Voice, seen: Seen) -> None:
    """For a caller who will leave."""
    await begun(reply, voice, 1)
    while True:
        await reply.pause(0.05)
        await reply.events(voice.token(" more"))


async def thinks_long(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.pause(5.0)
    await healthy(reply, voice, seen)


# --- errors that say so ---


def status(
    status: int,
    *,
    openai: tuple[str, str | None],
    anthropic: str,
    message: str = HARMLESS,
    headers: Mapping[str, str] | None = None,
) -> Script:
    """`openai`: type and code; `anthropic`: type."""

    async def script(reply: Reply, voice: Voice, seen: Seen) -> None:
        kind, code = openai if voice.dialect == "openai" else (anthropic, None)
        await reply.whole(voice.error(kind, message, code), status=status, headers=headers)

    return script


def rate_limited_until(clock: Clock, seconds: float) -> Script:
    """429 with the date form of Retry-After: RFC 9110, 10.2.3."""

    async def script(reply: Reply, voice: Voice, seen: Seen) -> None:
        kind = "requests" if voice.dialect == "openai" else "rate_limit_error"
        headers = {"retry-after": formatdate(clock.wall() + seconds, usegmt=True)}
        await reply.whole(voice.error(kind, HARMLESS, "rate_limit_exceeded"), status=429, headers=headers)

    return script


_TOO_LONG: Final = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."


async def context_length(reply: Reply, voice: Voice, seen: Seen) -> None:
    said = _TOO_LONG if voice.dialect == "openai" else "prompt is too long: 9001 tokens > 8192 maximum"
    await reply.whole(voice.error("invalid_request_error", said, "context_length_exceeded"), status=400)


async def context_length_vllm(reply: Reply, voice: Voice, seen: Seen) -> None:
    said = {"object": "error", "message": _TOO_LONG, "type": "BadRequestError", "param": None, "code": 400}
    await reply.whole(json.dumps(said).encode(), status=400)


async def validation_list(reply: Reply, voice: Voice, seen: Seen) -> None:
    """As FastAPI answers what its models refuse."""
    problem = {"type": "missing", "loc": ["body", "messages", 0, "content"], "msg": "Field required"}
    await reply.whole(json.dumps({"detail": [problem]}).encode(), status=422)


_AFTER: Final = {"retry-after": "3"}
_LIMIT: Final = ("requests", "rate_limit_exceeded")
SERVER_ERROR: Final = status(500, openai=("server_error", None), anthropic="api_error")
UNAVAILABLE: Final = status(503, openai=("server_error", None), anthropic="api_error")
UNAVAILABLE_FOR_3_S: Final = status(503, openai=("server_error", None), anthropic="overloaded_error", headers=_AFTER)
OVERLOADED: Final = status(529, openai=("overloaded", None), anthropic="overloaded_error")
RATE_LIMITED: Final = status(429, openai=_LIMIT, anthropic="rate_limit_error")
RATE_LIMITED_FOR_3_S: Final = status(429, openai=_LIMIT, anthropic="rate_limit_error", headers=_AFTER)
UNAUTHORIZED: Final = status(
    401,
    openai=("invalid_request_error", "invalid_api_key"),
    anthropic="authentication_error",
    message="Incorrect API key provided.",
)
FORBIDDEN: Final = status(403, openai=("invalid_request_error", "permission_denied"), anthropic="permission_error")
NOT_FOUND: Final = status(
    404,
    openai=("invalid_request_error", "model_not_found"),
    anthropic="not_found_error",
    message="The model does not exist.",
)
PAYMENT_REQUIRED: Final = status(402, openai=("insufficient_quota", "insufficient_quota"), anthropic="billing_error")
QUOTA: Final = status(429, openai=("insufficient_quota", "insufficient_quota"), anthropic="rate_limit_error")
CONTENT_POLICY: Final = status(
    400,
    openai=("invalid_request_error", "content_policy_violation"),
    anthropic="invalid_request_error",
    message="Your request was rejected as a result of our safety system.",
)

# --- what a careless server says about itself ---

CANDID_500: Final = status(500, openai=("server_error", None), anthropic="api_error", message=CANDID)
CANDID_401: Final = status(
    401,
    openai=("invalid_request_error", "invalid_api_key"),
    anthropic="authentication_error",
    message=f"Incorrect API key provided: {SECRET}.",
)
CANDID_404: Final = status(
    404,
    openai=("invalid_request_error", "model_not_found"),
    anthropic="not_found_error",
    message=f"The model `{SERVED}vllm` does not exist.",
)


async def candid_event(reply: Reply, voice: Voice, seen: Seen) -> None:
    await begun(reply, voice)
    await reply.events(voice.error_event(CANDID))
    await reply.last_chunk()


async def candid_page(reply: Reply, voice: Voice, seen: Seen) -> None:
    await reply.whole(f"<html><h1>Oops</h1><p>{CANDID}</p></html>".encode(), status=502, kind="text/html")
