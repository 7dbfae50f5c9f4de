"""The messages of a request, as Claude takes them: turns that alternate and begin with the user, no empty text, tool
results first in their turn, and system text only where a model allows it.

Source: https://platform.claude.com/docs/en/api/messages, and the pages on tool use, thinking and prompt caching there.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from typing import Any, Final

import msgspec
import xxhash

from penstock.core.errors import BadRequest
from penstock.wire.anthropic.claude import Claude
from penstock.wire.canonical import (
    Ask,
    Audio,
    Cache,
    Document,
    Image,
    Losses,
    Message,
    Origin,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from penstock.wire.tool_names import ToolNames

Block = dict[str, Any]

OPENING: Final = "(The conversation begins with the assistant.)"
"""What the user is given to say where the conversation does not begin with them: the first turn must be theirs."""

_THOUGHTS: Final = ("thinking", "redacted_thinking")
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Turns:
    """`system` is the text before the conversation, `turns` the conversation. Raises `BadRequest` and `Untranslatable`.

    The ask is only read: it is written again for every attempt.
    """

    def __init__(self, ask: Ask, model: Claude, names: ToolNames, losses: Losses) -> None:
        self._losses, self._names = losses, names
        leading = 0
        while leading < len(ask.messages) and ask.messages[leading].role == "system":
            leading += 1
        self.system: list[Block] = [block for message in ask.messages[:leading] for block in self._blocks(message)]
        said: list[tuple[str, list[Block]]] = [
            (message.role, blocks) for message in ask.messages[leading:] if (blocks := self._blocks(message))
        ]
        if not said:  # instructions alone: then they are what the user says
            said, self.system = [("user", self.system)], []
        self.turns = _alternating(_system_in_place(_merged(said), model))
        if not self.turns[0]["content"]:
            raise BadRequest("`messages` has nothing in it but white space", param="messages")
        self._prefill(model)

    @property
    def thoughts_are_missing(self) -> bool:
        """The conversation is between a tool's call and what follows from its result, and the thoughts behind the call
        are not there (they were another's): with a budget for thinking such a request is refused."""
        if len(self.turns) < 2 or self.turns[-1]["content"][0]["type"] != "tool_result":
            return False
        return self.turns[-2]["content"][0]["type"] not in _THOUGHTS

    def _prefill(self, model: Claude) -> None:
        last = self.turns[-1]
        if last["role"] != "assistant":
            return
        if not model.prefill:
            self._losses.lose("prefill", "this model does not go on from a trailing assistant message")
            self.turns.pop()
            return
        text = last["content"][-1]
        if text["type"] == "text":  # white space at the end is refused; the model says it itself where it belongs
            text["text"] = text["text"].rstrip()

    def _blocks(self, message: Message) -> list[Block]:
        if message.name is not None:
            self._losses.lose("name", "Claude's messages have no names")
        blocks = [block for part in message.parts if (block := self._block(part, message.role)) is not None]
        if message.role == "assistant":  # in Claude's answers thinking comes first, and it must come back so
            blocks.sort(key=lambda block: block["type"] not in _THOUGHTS)
        return blocks

    def _block(self, part: Part, role: str) -> Block | None:
        match part:
            case Text():
                block = _text(part)
                if block is not None and part.citations is not None and role == "assistant":
                    block["citations"] = part.citations
                return block
            case Refusal():
                return _text(Text(part.text))
            case Thinking():
                return _thinking(part)
            case ToolCall():
                return cached(
                    {
                        "type": "tool_use",
                        "id": _id(part.id),
                        "name": self._names.outward(part.name),
                        "input": _input(part),
                    },
                    part.cache,
                )
            case ToolResult():
                return self._tool_result(part)
            case Image():
                return self._image(part)
            case Document():
                return self._document(part)
            case Audio():
                self._losses.lose("audio", "Claude does not listen")
                return None

    def _tool_result(self, part: ToolResult) -> Block:
        block: Block = {"type": "tool_result", "tool_use_id": _id(part.call_id)}
        content = [inner for each in part.parts if (inner := self._block(each, "user")) is not None]
        if content:
            block["content"] = content
        if part.is_error:
            block["is_error"] = True
        return cached(block, part.cache)

    def _image(self, part: Image) -> Block | None:
        if part.detail not in (None, "auto"):
            self._losses.lose("detail", "Claude sees every image in the same detail")
        source = self._source("image", part.media_type, part.data, part.url, part.file_id)
        return None if source is None else cached({"type": "image", "source": source}, part.cache)

    def _document(self, part: Document) -> Block | None:
        text, kind = part.text, part.media_type or "application/pdf"
        if text is None and part.data is not None and kind.startswith("text/"):
            try:
                text = b64decode(part.data, validate=True).decode()
            except (NotBase64, UnicodeDecodeError):
                raise BadRequest(f"`messages`: a document of type {kind!r} is not base64 of UTF-8 text") from None
        if text is not None:
            source: Block | None = {"type": "text", "media_type": "text/plain", "data": text}
        elif part.data is not None and kind != "application/pdf":
            self._losses.lose("document", f"Claude reads PDF and text, not {kind}")
            return None
        else:
            source = self._source("document", kind, part.data, part.url, part.file_id)
        if source is None:
            return None
        block: Block = {"type": "document", "source": source}
        if part.name is not None:
            block["title"] = part.name
        return cached(block, part.cache)

    def _source(
        self, what: str, kind: str | None, data: str | None, url: str | None, file_id: str | None
    ) -> Block | None:
        if data is not None:
            return {"type": "base64", "media_type": kind, "data": data}
        if url is not None:
            return {"type": "url", "url": url}
        if file_id is not None and file_id.startswith("file_"):
            return {"type": "file", "file_id": file_id}
        self._losses.lose(f"{what}.file_id", "the file is with another provider")
        return None


def _text(part: Text) -> Block | None:
    """None for empty text, and for white space alone: both are refused."""
    return cached({"type": "text", "text": part.text}, part.cache) if part.text.strip() else None


def _thinking(part: Thinking) -> Block | None:
    """Only what Claude sealed itself: it refuses all other. No caller's field is lost by that."""
    if part.origin is not Origin.ANTHROPIC:
        return None
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.signature is None:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _input(call: ToolCall) -> msgspec.Raw:
    if not call.arguments.strip():
        return msgspec.Raw(b"{}")
    try:
        _object(call.arguments)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise BadRequest(
            f"`messages`: the arguments of tool call {call.id!r} are not a JSON object", param="messages"
        ) from None
    return msgspec.Raw(call.arguments.encode())


def _id(id: str) -> str:
    """Ids of other providers may have characters in them that Claude refuses; a call and its result agree again."""
    return id if _ID.fullmatch(id) else f"toolu_{xxhash.xxh3_128_hexdigest(id.encode())}"


def cached(block: Block, cache: Cache | None) -> Block:
    """The block, marked for the prompt cache where it is to be."""
    if cache is not None:
        block["cache_control"] = {"type": "ephemeral"} if cache == "5m" else {"type": "ephemeral", "ttl": cache}
    return block


def _merged(said: list[tuple[str, list[Block]]]) -> list[tuple[str, list[Block]]]:
    """Neighbours of one role become one turn."""
    turns: list[tuple[str, list[Block]]] = []
    for role, blocks in said:
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, list(blocks)))
    return turns


def _system_in_place(turns: list[tuple[str, list[Block]]], model: Claude) -> list[tuple[str, list[Block]]]:
    """System text stays where it is, as a turn of its own if the model has that (behind the user's, before the
    assistant's), else in the words of the user."""
    kept = []
    for n, (role, blocks) in enumerate(turns):
        before = turns[n - 1][0] if n else None
        after = turns[n + 1][0] if n + 1 < len(turns) else "assistant"
        own = model.system_turns and before == "user" and after == "assistant"
        kept.append(("user" if role == "system" and not own else role, blocks))
    return _merged(kept)


def _alternating(turns: list[tuple[str, list[Block]]]) -> list[Block]:
    if turns[0][0] == "assistant":
        turns = [("user", [{"type": "text", "text": OPENING}]), *turns]
    for role, blocks in turns:
        if role == "user":  # results must come before anything else that is said
            blocks.sort(key=lambda block: block["type"] != "tool_result")
    return [{"role": role, "content": blocks} for role, blocks in turns]
