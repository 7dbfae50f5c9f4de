"""A caller of the gateway, for the terminal: asks over HTTP and hands out the answer as it comes.

Blocking and small on purpose: one person, one answer at a time. Leaving the loop over an answer closes its connection,
which is how a caller cancels.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.core.clock import Clock
from penstock.core.errors import UpstreamError
from penstock.wire.sse import EventCutter, data_of

CONNECT_TIMEOUT = 5.0  # seconds
SHORTEST_SPAN = 0.005  # seconds; what arrives in one read has no speed
_NO_HEADERS: Final[Mapping[str, str]] = {}
SILENCE_TIMEOUT = 120.0  # seconds without a byte; the gateway's own time-outs come first


class CallFailed(Exception):
    """What the gateway said, or why there is none to say anything; in words for the person who asked."""


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str


class Answer:
    """An answer on its way; iterate for its text, once. Times are seconds."""

    def __init__(self, response: http.client.HTTPResponse, asked_at: float, clock: Clock) -> None:
        self.replica = response.getheader("x-penstock-replica") or ""
        self.request_id = response.getheader("x-request-id") or ""
        self.text = ""
        self.finish_reason: str | None = None
        self.tokens: int | None = None  # None until whoever answered has counted
        self.first_token_after: float | None = None
        self.seconds = 0.0
        self._response = response
        self._asked_at = asked_at
        self._clock = clock

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens after the first, over the time they took; None when too little came to say."""
        if self.tokens is None or self.tokens < 2 or self.first_token_after is None:
            return None
        span = self.seconds - self.first_token_after
        return (self.tokens - 1) / span if span >= SHORTEST_SPAN else None

    def __iter__(self) -> Iterator[str]:
        """Pieces of text as they come. Raises `CallFailed` when the answer breaks off."""
        cutter = EventCutter()
        try:
            while True:
                data = self._response.read1(65_536)
                self.seconds = self._clock.now() - self._asked_at
                if not data:
                    break
                for event in cutter.feed(data).split(b"\n\n"):
                    payload = data_of(event)
                    if payload == b"[DONE]":
                        return
                    if payload:
                        yield from self._read(payload)
        except (OSError, http.client.HTTPException, UpstreamError) as error:
            raise CallFailed(f"the answer broke off: {error or type(error).__name__}") from None
        if self.finish_reason is None:
            raise CallFailed("the answer broke off: the connection ended before the answer did")

    def _read(self, payload: bytes) -> Iterator[str]:
        try:
            chunk = msgspec.json.decode(payload, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise CallFailed("the answer is not what an OpenAI-compatible server sends") from None
        if "error" in chunk:
            raise CallFailed(_told(payload) or "the answer broke off")
        usage = chunk.get("usage")
        if usage:
            self.tokens = usage.get("completion_tokens")
        for choice in chunk.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            text = (choice.get("delta") or {}).get("content")
            if text:
                if self.first_token_after is None:
                    self.first_token_after = self.seconds
                self.text += text
                yield text


class Caller:
    """One gateway, as somebody who calls it. `url` may end in /v1 or not. Raises ValueError for what is no address."""

    def __init__(self, url: str, key: str | None, clock: Clock) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not the address of a gateway; expected something like http://127.0.0.1:8080")
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._base = parts.path.rstrip("/").removesuffix("/v1")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._key = key
        self._clock = clock
        self._connection: http.client.HTTPConnection | None = None

    def models(self) -> list[str]:
        """Names that this caller may use. Raises `CallFailed`."""
        response = self._send("GET", "/v1/models", None)
        try:
            listing = msgspec.json.decode(response.read(), type=dict[str, Any])
            return [str(model["id"]) for model in listing["data"]]
        except (msgspec.MsgspecError, KeyError, TypeError, OSError, http.client.HTTPException):
            raise CallFailed(f"{self.address} does not answer like an OpenAI-compatible server") from None
        finally:
            self.close()

    def ask(self, model: str, messages: Sequence[Message], **options: Any) -> Answer:
        """Ask for the next turn, streamed. `options` go into the body. Raises `CallFailed`."""
        body = {
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        asked_at = self._clock.now()
        return Answer(self._send("POST", "/v1/chat/completions", msgspec.json.encode(body)), asked_at, self._clock)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The whole answer. Raises `CallFailed`."""
        response = self._send("POST", path, body, headers)
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise CallFailed(f"the answer broke off: {error or type(error).__name__}") from None
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the connection; the gateway cancels what was being answered. Again is harmless."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str] = _NO_HEADERS
    ) -> http.client.HTTPResponse:
        """A response with a status of success; for anything else the connection is closed and `CallFailed` says why."""
        self.close()
        try:
            response = self._exchange(method, path, body, more)
            if response.status // 100 != 2:
                raise CallFailed(_refusal(response))
        except CallFailed:
            self.close()
            raise
        return response

    def _exchange(
        self, method: str, path: str, body: bytes | None, more: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        headers = {**more, "content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        self._connection = connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT)
        try:
            connection.connect()
            connection.sock.settimeout(SILENCE_TIMEOUT)
            connection.request(method, self._base + path, body, headers)
            return connection.getresponse()
        except ConnectionRefusedError:
            raise CallFailed(f"nothing listens on {self.address}. Start one with `penstock serve tiny`.") from None
        except ssl.SSLError as error:
            raise CallFailed(f"{self.address}: TLS failed: {error.reason or error}") from None
        except (OSError, http.client.HTTPException) as error:
            raise CallFailed(f"{self.address} cannot be reached: {error or type(error).__name__}") from None


def _refusal(response: http.client.HTTPResponse) -> str:
    try:
        told = _told(response.read(65_536)) or response.reason
    except (OSError, http.client.HTTPException):
        told = response.reason
    if response.status == 401:
        told += " (give one with --key, or PENSTOCK_API_KEY)"
    wait = response.getheader("retry-after")
    return f"{response.status}: {told}" + (f" Retry after {wait} s." if wait else "")


def _told(body: bytes) -> str | None:
    """The message of an OpenAI error body."""
    try:
        message = msgspec.json.decode(body)["error"]["message"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return None
    return message if isinstance(message, str) else None
