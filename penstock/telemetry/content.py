"""The texts of one request, held while it lives and only when that was asked for; redacted before anybody sees them.
The first words of a few answers are held besides, to be looked at for a refusal and forgotten.

`Content` is fed by the gateway and only keeps references. What the bytes say is read when the request is over, and its
trace is kept or its line wants hashes: of chat and text completions, responses and messages. Other bodies are shown as
they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

import msgspec

from penstock.core.request import Endpoint
from penstock.telemetry.options import Capture
from penstock.telemetry.redact import redact
from penstock.telemetry.spans import Value

HELD: Final = 2**20  # bytes of an answer, as it was sent: events say 40 bytes for one of text
OPENING: Final = 4 * 1024  # bytes of a stream in which its first words are: some 20 events
LOOK_EVERY: Final = 0.2  # seconds between two answers that are looked at: a stream takes 50 us
HASH_BYTES: Final = 12
LONGEST_SECRET: Final = 4_096  # characters looked at beyond a cut

_any = msgspec.json.Decoder().decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SAY_SOMETHING: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETION, Endpoint.RESPONSES, Endpoint.MESSAGES})
_ASKED: Final = ("messages", "input", "prompt", "query", "text")


class Content:
    """`cut` is true when the answer was longer than what is held."""

    __slots__ = ("_room", "asked", "cut", "parts")

    def __init__(self, asked: bytes, room: int = HELD) -> None:
        """`asked` is the body of the request; of the answer, parts are held until there are `room` bytes."""
        self.asked = asked
        self.parts: list[bytes] = []
        self.cut = False
        self._room = room

    def said(self, data: bytes) -> None:
        """So much more of the answer goes to the caller."""
        if self._room > 0:
            self.parts.append(data)
            self._room -= len(data)
        else:
            self.cut = True

    def tee(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`write`, and we hear of it."""
        said = self.said

        def both(data: bytes) -> None:
            said(data)
            write(data)

        return both


class Holder:
    """Decides of which requests the texts are held: of all, where that was asked for; or else the first words of an
    answer, of those alone that say something, now and then.
    """

    __slots__ = ("_look_at",)

    def __init__(self) -> None:
        self._look_at = -inf  # not before this

    def hold(self, capture: Capture, endpoint: Endpoint, asked: bytes, now: float) -> Content | None:
        if capture.wanted:
            return Content(asked)
        if now < self._look_at or not capture.refusals or endpoint not in _SAY_SOMETHING:
            return None
        self._look_at = now + LOOK_EVERY
        return Content(b"", OPENING)


class Reader:
    """Reads texts out of `Content` as `capture` allows. `key` is the secret of the hashes."""

    def __init__(self, capture: Capture, key: bytes = b"") -> None:
        self._capture = capture
        self._key = key if len(key) <= 64 else hashlib.sha256(key).digest()

    def hashes(self, content: Content) -> tuple[str, str]:
        """24 hex digits each, of what was asked and of what was said; "" for what is not whole or has no text."""
        if not self._capture.hashes:
            return "", ""
        asked = self._hash(msgspec.json.encode(asked_in(content.asked), order="deterministic"))
        said = "" if content.cut else said_in(b"".join(content.parts))
        return asked, self._hash(said.encode("utf-8", "replace")) if said else ""

    def texts(self, content: Content) -> dict[str, Value]:
        """`input` and `output` as JSON of messages, redacted and no longer than they may be."""
        if not self._capture.content:
            return {}
        found: dict[str, Value] = {}
        messages = list(_messages(asked_in(content.asked)))
        if messages:
            found["input"] = self._shown(messages)
        said = said_in(b"".join(content.parts))
        if said:
            found["output"] = self._shown([_message("assistant", said)])
        return found

    def _hash(self, text: bytes) -> str:
        return hashlib.blake2b(text, digest_size=HASH_BYTES, key=self._key).hexdigest()

    def _shown(self, messages: list[dict[str, Any]]) -> str:
        """The last ones first get room: what was asked last says most. The result is always JSON."""
        room, kept = self._capture.max_bytes, []
        for message in reversed(messages):
            (part,) = message["parts"]
            # before it is cut: half a key would not look like one
            text = redact(part["content"][: room + LONGEST_SECRET])
            if len(text) > room:
                text = text[:room] + "..."
            kept.append(_message(message["role"], text))
            room -= len(text)
            if room <= 0:
                break
        return msgspec.json.encode(kept[::-1]).decode()


def opening_in(content: Content) -> str:
    """The first words of the answer, and as many more as there happen to be."""
    data = b"".join(content.parts)
    return said_in(data if data[:64].lstrip()[:1] == b"{" else data[:OPENING])


def asked_in(body: bytes) -> Any:
    """The part of a body that is the prompt, whatever the dialect; the whole text where it is not known."""
    try:
        fields = _any(body)
    except _UNREADABLE:
        return body.decode("utf-8", "replace")
    if not isinstance(fields, dict):
        return fields
    found = {name: fields[name] for name in ("system", "instructions", *_ASKED) if name in fields}
    return found or fields


def said_in(data: bytes) -> str:
    """The text of an answer, plain or as a stream of server-sent events, in any dialect that callers speak."""
    if b"data:" not in data[:4096] or data.lstrip()[:1] == b"{":
        return _text_of(data)
    parts = []
    for line in data.splitlines():
        if line.startswith(b"data:"):
            try:
                event = _any(line[5:])
            except _UNREADABLE:
                continue  # [DONE], or the last one, cut off
            if isinstance(event, dict):
                parts.append(_delta(event))
    return "".join(parts)


def _delta(event: dict[str, Any]) -> str:
    match event:
        case {"choices": [{"delta": {"content": str(text)}}, *_]} | {"choices": [{"text": str(text)}, *_]}:
            return text
        case {"type": "response.output_text.delta", "delta": str(text)}:
            return text
        case {"type": "content_block_delta", "delta": {"text": str(text)}}:
            return text
    return ""


def _text_of(body: bytes) -> str:
    try:
        answer = _any(body)
    except _UNREADABLE:
        return body.decode("utf-8", "replace")
    match answer:
        case {"choices": [{"message": {"content": str(text)}}, *_]} | {"choices": [{"text": str(text)}, *_]}:
            return text
        case {"output": [*items]}:
            return "".join(_plain(item.get("content")) for item in items if isinstance(item, dict))
        case {"content": content}:
            return _plain(content)
    return ""


def _messages(asked: Any) -> Iterable[dict[str, Any]]:
    if not isinstance(asked, dict):
        yield _message("user", _plain(asked))
        return
    for name in ("system", "instructions"):
        if name in asked:
            yield _message("system", _plain(asked[name]))
    for name in _ASKED:
        given = asked.get(name)
        if isinstance(given, list) and all(isinstance(one, dict) for one in given):
            for one in given:
                role = one.get("role")
                yield _message(role if isinstance(role, str) else "user", _plain(one.get("content")))
        elif given is not None:
            yield _message("user", _plain(given))


def _message(role: str, text: str) -> dict[str, Any]:
    """As gen-ai-input-messages.json of the GenAI conventions has it."""
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _plain(content: Any) -> str:
    """Texts out of whatever a content may be; pictures and the like are named, not shown."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(filter(None, map(_plain, content)))
    if isinstance(content, dict):
        text = content.get("text")
        if isinstance(text, str):
            return text
        kind = content.get("type")
        return f"[{kind}]" if isinstance(kind, str) else ""
    return ""
