"""The messages of a request as Converse takes them: turns that alternate and begin with the user, no empty text,
results of tools first in their turn, and names and ids within Amazon's rules.

Source: the Amazon Bedrock API reference (Message, ContentBlock, DocumentBlock, ToolUseBlock, CachePointBlock).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

import msgspec
import xxhash

from penstock.core.errors import BadRequest
from penstock.wire.anthropic.claude import claude
from penstock.wire.anthropic.turns_out import OPENING
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

Json = dict[str, Any]
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Family(StrEnum):
    """Whose model it is, as far as requests differ."""

    CLAUDE = "claude"
    NOVA = "nova"
    OPENAI = "openai"
    OTHER = "other"


def family_of(served: str) -> Family:
    """From a model id, an inference profile or an ARN. What says nothing (an application profile) is taken for Claude:
    most are, and no other family has its reasoning checked."""
    name = served.rpartition("/")[2] if served.startswith("arn:") else served
    if "claude" in name or "anthropic" in name:
        return Family.CLAUDE
    if "nova" in name and "amazon" in name:
        return Family.NOVA
    if "openai" in name or "gpt-" in name:
        return Family.OPENAI
    return Family.OTHER if "." in name else Family.CLAUDE


def origin_of(served: str) -> Origin | None:
    """Who seals the reasoning of this model."""
    return _ORIGINS.get(family_of(served))


_ORIGINS: Final = {Family.CLAUDE: Origin.ANTHROPIC, Family.OPENAI: Origin.OPENAI}
CACHING: Final = frozenset({Family.CLAUDE, Family.NOVA})
MAX_BREAKPOINTS: Final = 4
_MARKING_ERRORS: Final = frozenset({Family.CLAUDE, Family.NOVA})  # the others refuse the field `status`
_IMAGES: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_SUFFIXES: Final = {**{suffix: suffix for suffix in (*_IMAGES.values(), *_DOCUMENTS.values())}, "jpg": "jpeg"}
_TOOL_USE_ID: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,64}").fullmatch
_NOT_IN_A_NAME: Final = re.compile(r"[^a-zA-Z0-9\s()\[\]-]")
_LONGEST_NAME: Final = 150  # characters of a document's; Amazon allows 200


class Turns:
    """`system` is the text before the conversation, `turns` the conversation. Raises `BadRequest` and `Untranslatable`.

    The ask is only read: it is written again for every attempt.
    """

    def __init__(self, ask: Ask, served: str, names: ToolNames, losses: Losses) -> None:
        self._losses, self._names = losses, names
        self._family = family_of(served)
        self._document_names: set[str] = set()
        leading = 0
        while leading < len(ask.messages) and ask.messages[leading].role == "system":
            leading += 1
        self.system = [block for message in ask.messages[:leading] for block in self._blocks(message)]
        self.turns: list[Json] = []
        for message in ask.messages[leading:]:
            self._add("assistant" if message.role == "assistant" else "user", self._blocks(message))
        if not self.turns:  # instructions alone: then they are what the user says
            self.system, instructions = [], self.system
            self._add("user", instructions)
        if not self.turns:
            raise BadRequest("`messages` has nothing in it but white space", param="messages")
        for turn in self.turns:  # Claude wants the results of its calls before anything else that its user says
            turn["content"] = _results_first(turn["content"])
        self._prefill(served)

    @property
    def thoughts_are_missing(self) -> bool:
        """Claude is handed the results of calls whose reasoning it cannot be shown, because somebody else made them:
        with a budget for thinking it insists on having both."""
        if len(self.turns) < 2 or "toolResult" not in self.turns[-1]["content"][0]:
            return False
        return "reasoningContent" not in self.turns[-2]["content"][0]

    @property
    def called(self) -> list[str]:
        """The tools that were called, as the upstream knows them, each once."""
        blocks = (block["toolUse"] for turn in self.turns for block in turn["content"] if "toolUse" in block)
        return list(dict.fromkeys(use["name"] for use in blocks))

    def cache_point(self, cache: Cache | None) -> list[Json]:
        """A breakpoint behind what was just said, for families that have a prompt cache."""
        if cache is None:
            return []
        if self._family not in CACHING:
            self._losses.lose("cache_control")
            return []
        return [{"cachePoint": {"type": "default", "ttl": "1h"} if cache == "1h" else {"type": "default"}}]

    def _add(self, role: str, blocks: list[Json]) -> None:
        """Neighbours of one role become one turn; system text within the conversation is said by the user."""
        if not blocks:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
            return
        if not self.turns and role == "assistant":
            self.turns.append({"role": "user", "content": [{"text": OPENING}]})
        self.turns.append({"role": role, "content": blocks})

    def _prefill(self, served: str) -> None:
        last = self.turns[-1]
        if last["role"] != "assistant" or self._family is not Family.CLAUDE:
            return
        if not claude(served).prefill:
            self._losses.lose("prefill", "this model does not go on from a trailing assistant message")
            self.turns.pop()
        elif "text" in last["content"][-1]:  # white space at its end is refused
            last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()

    def _blocks(self, message: Message) -> list[Json]:
        if message.name is not None:
            self._losses.lose("name", "messages have no names")
        parts = message.parts
        if message.role == "assistant":  # thinking came first, and must come back so
            parts = tuple(sorted(parts, key=lambda part: not isinstance(part, Thinking)))
        blocks: list[Json] = []
        for part in parts:
            if message.role == "system" and not isinstance(part, Text):
                self._losses.lose("messages", "a system message can only be text")
            elif (block := self._block(part)) is not None:
                blocks += [block, *self.cache_point(_cache_of(part))]
        return blocks

    def _block(self, part: Part) -> Json | None:
        match part:
            case Text() | Refusal():
                return {"text": part.text} if part.text.strip() else None
            case Image():
                return self._image(part)
            case Document():
                return self._document(part)
            case Audio():
                return {"audio": {"format": part.format, "source": {"bytes": part.data}}}
            case Thinking():
                return self._thinking(part)
            case ToolCall():
                use = {
                    "toolUseId": _tool_use_id(part.id),
                    "name": self._names.outward(part.name),
                    "input": _input(part),
                }
                return {"toolUse": use}
            case ToolResult():
                return self._result(part)

    def _image(self, image: Image) -> Json | None:
        if image.detail not in (None, "auto"):
            self._losses.lose("detail", "images have one resolution")
        format = _IMAGES.get(_media_type(image.media_type)) or _suffix(image.url)
        if format not in _IMAGES.values():
            format = None
        source = self._source("image", image.data, image.url, image.file_id, format)
        return None if source is None else {"image": {"format": format, "source": source}}

    def _document(self, document: Document) -> Json | None:
        data = document.data
        if document.text is not None:
            data = b64encode(document.text.encode()).decode()
        format = _DOCUMENTS.get(_media_type(document.media_type)) or ("txt" if document.text is not None else None)
        format = format or _suffix(document.name) or _suffix(document.url)
        if format not in _DOCUMENTS.values():
            format = None
        source = self._source("document", data, document.url, document.file_id, format)
        if source is None:
            return None
        return {"document": {"format": format, "name": self._document_name(document.name), "source": source}}

    def _source(
        self, what: str, data: str | None, url: str | None, file_id: str | None, format: str | None
    ) -> Json | None:
        if url is not None and not url.startswith("s3://"):
            self._losses.lose(f"{what}.url", "only data, and Amazon's own storage (s3://)")
        elif file_id is not None:
            self._losses.lose(f"{what}.file_id", "the file is with another provider")
        elif format is None or not (data or url):
            self._losses.lose(what, "of a type that Bedrock does not read")
        else:
            return {"bytes": data} if data else {"s3Location": {"uri": url}}
        return None

    def _document_name(self, name: str | None) -> str:
        """Letters, digits, single spaces, hyphens and brackets, and no name twice; the same for the same history, or
        nothing of it would be found in the prompt cache."""
        stem = (name or "").rpartition(".")[0] or name or ""
        stem = " ".join(_NOT_IN_A_NAME.sub(" ", stem).split())[:_LONGEST_NAME].strip() or "document"
        unique, number = stem, 1
        while unique in self._document_names:
            number += 1
            unique = f"{stem} {number}"
        self._document_names.add(unique)
        return unique

    def _thinking(self, thinking: Thinking) -> Json | None:
        """Only what its own origin sealed: the others refuse it, and unsealed reasoning too. No caller's field is lost
        by that."""
        if thinking.origin is None or thinking.origin is not _ORIGINS.get(self._family):
            return None
        if thinking.redacted is not None:
            return {"reasoningContent": {"redactedContent": thinking.redacted}}
        if thinking.signature is None:
            return None
        return {"reasoningContent": {"reasoningText": {"text": thinking.text, "signature": thinking.signature}}}

    def _result(self, result: ToolResult) -> Json:
        content = [inner for part in result.parts if (inner := self._block(part)) is not None]
        block: Json = {"toolUseId": _tool_use_id(result.call_id), "content": content}
        if result.is_error and self._family in _MARKING_ERRORS:
            block["status"] = "error"
        return {"toolResult": block}


def keep_breakpoints(lists: Iterable[list[Json]], losses: Losses) -> None:
    """The last four stay: each stands for all that comes before it. `lists` in the order in which a model reads them;
    changed in place."""
    marked = [(blocks, block) for blocks in lists for block in blocks if "cachePoint" in block]
    for blocks, block in marked[:-MAX_BREAKPOINTS]:
        losses.lose("cache_control", f"{MAX_BREAKPOINTS} breakpoints are kept")
        del blocks[next(at for at, each in enumerate(blocks) if each is block)]


def _results_first(blocks: list[Json]) -> list[Json]:
    """Results, each with the breakpoint behind it, before the rest."""
    results: list[Json] = []
    rest: list[Json] = []
    behind = rest
    for block in blocks:
        if "cachePoint" not in block:
            behind = results if "toolResult" in block else rest
        behind.append(block)
    return results + rest


def _cache_of(part: Part) -> Cache | None:
    if isinstance(part, ToolResult):  # there is no breakpoint inside a result
        return part.cache or next((inner.cache for inner in part.parts if inner.cache), None)
    return None if isinstance(part, Audio | Thinking | Refusal) else part.cache


def _input(call: ToolCall) -> msgspec.Raw:
    if not call.arguments.strip():
        return msgspec.Raw(b"{}")
    try:
        _members(call.arguments)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise BadRequest(
            f"`messages`: the arguments of tool call {call.id[:80]!r} are not a JSON object", param="messages"
        ) from None
    return msgspec.Raw(call.arguments.encode())


def _tool_use_id(id: str) -> str:
    """Ids of other providers may be longer or have other characters in them; a call and its result agree again."""
    return id if _TOOL_USE_ID(id) else f"call_{xxhash.xxh3_128_hexdigest(id.encode())}"


def _media_type(text: str | None) -> str:
    return (text or "").partition(";")[0].strip().lower()


def _suffix(name: str | None) -> str | None:
    return _SUFFIXES.get((name or "").rpartition(".")[2].lower())
